"""Did the replies per mail of a provider fall, and more than by chance?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from bisonsync.checks.check import (
    CRITICAL,
    NOT_IN_USE,
    OK,
    UNKNOWN,
    WARNING,
    CheckResult,
    Finding,
    Limit,
    Look,
    State,
    worst,
)
from bisonsync.checks.history import missing_history, read_days
from bisonsync.store import health_numbers
from bisonsync.store.health_numbers import Drop

NAME = "provider-drop"
DAYS_COMPARED = 14
# ``sample``: mails that each of the two weeks needs; ``chance``: how improbable the fall must be without a reason.
LIMITS: Mapping[str, Limit] = {
    "warning": Limit(20.0, "%"),
    "critical": Limit(50.0, "%"),
    "sample": Limit(200.0),
    "chance": Limit(5.0, "%"),
}


def look(look: Look) -> CheckResult:
    """Compare each provider's last 7 recorded days with the 7 before.

    UNKNOWN without a recorded day until yesterday, and when gaps leave nothing to compare; not in use until the
    history is long enough.
    """
    limits = look.limits[NAME]
    days = read_days(look)
    if missing := missing_history(look, NAME, days):
        return missing
    assert days.first_day is not None and days.last_day is not None
    begins = days.first_day + timedelta(days=DAYS_COMPARED)
    if days.last_day < begins:
        detail = f"the history began on {days.first_day}: two weeks can be compared from {begins} on"
        return CheckResult(NAME, NOT_IN_USE, detail, thresholds=limits)
    on_date = days.last_day
    rows = look.read(
        lambda conn: health_numbers.list_drops(
            conn,
            on_date,
            min_sends=max(1, round(limits["sample"].value)),
            min_fall_percent=limits["warning"].value,
            alpha=limits["chance"].value / 100,
        )
    )
    return _judge(rows, limits)


def _judge(rows: list[Drop], limits: Mapping[str, Limit]) -> CheckResult:
    drops = sorted((row for row in rows if row.is_drop), key=_fall, reverse=True)
    compared = sum(row.state == "compared" for row in rows)
    gaps = sum(row.state == "gap" for row in rows)
    findings = tuple(Finding(_subject(row), _state(row, limits), _said(row)) for row in drops)
    state, hint = worst([OK, *(finding.state for finding in findings)]), "bisonsync dashboard providers"
    if findings:
        detail = f"{findings[0].subject}: {findings[0].detail}"
    elif compared:
        detail = f"no provider's replies fell, of {compared} that can be compared"
    elif gaps:
        state, hint = UNKNOWN, "bisonsync snapshot-providers --fill-gaps"
        detail = "nothing to compare: days are missing at an end of the last two weeks"
    elif rows:
        detail = f"too few mails to judge: less than {limits['sample'].value:g} in one of the two weeks"
    else:
        state, hint = UNKNOWN, "bisonsync snapshot-providers"
        detail = "no account is recorded in the last two weeks"
    if gaps and compared:
        detail += f"; of {gaps} days are missing"
    return CheckResult(
        NAME,
        state,
        detail,
        "" if state == OK else hint,
        value=round(max(map(_fall, drops), default=0.0), 2) if compared else None,
        unit="%",
        thresholds=limits,
        findings=findings,
    )


def _state(row: Drop, limits: Mapping[str, Limit]) -> State:
    return CRITICAL if _fall(row) > limits["critical"].value else WARNING


def _fall(row: Drop) -> float:
    return -(row.change_percent or 0.0)


def _subject(row: Drop) -> str:
    return f"{row.email_provider} at {row.bison_instance}"


def _said(row: Drop) -> str:
    return (
        f"{row.recent_reply_rate or 0.0:.2f} replies per 100 mails in 7 days, {row.previous_reply_rate or 0.0:.2f} in"
        f" the 7 before: {_fall(row):.0f} % less"
    )
