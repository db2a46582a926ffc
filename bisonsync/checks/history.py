"""What the checks of trailing windows have in common: how far the history of days reaches."""

from __future__ import annotations

import math
from datetime import timedelta

from bisonsync.checks.check import NOT_IN_USE, UNKNOWN, CheckResult, Finding, Look
from bisonsync.store import health_numbers
from bisonsync.store.health_numbers import RecordedDays

JOB = "snapshot-providers"


def read_days(look: Look) -> RecordedDays:
    """The recorded days, by the database."""
    return look.read(lambda conn: health_numbers.find_recorded_days(conn, look.now, look.reporting_timezone))


def missing_history(look: Look, check: str, days: RecordedDays) -> CheckResult | None:
    """What a check says that has no history up to now to look at; None when it has."""
    thresholds = look.limits[check]
    if JOB not in look.schedule and days.last_day is None:
        detail = f"{JOB} is switched off: no day is recorded"
        return CheckResult(check, NOT_IN_USE, detail, thresholds=thresholds)
    if days.last_day is None or days.days_ago is None:
        detail = "no day is recorded yet"
    elif days.days_ago > max(1, math.ceil(look.schedule.get(JOB, timedelta()) / timedelta(days=1))):
        detail = f"the last recorded day is {days.last_day}, {days.days_ago} days ago"
    else:
        return None
    finding = Finding("history", UNKNOWN, detail, kinds=("late", f"job:{JOB}"))
    return CheckResult(check, UNKNOWN, detail, f"bisonsync {JOB}", thresholds=thresholds, findings=(finding,))
