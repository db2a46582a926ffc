"""Was the last read of every list complete?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look
from bisonsync.checks.freshness import no_workspace, read_lists
from bisonsync.checks.wording import named, short, span, worst_first, worst_of
from bisonsync.store.health_data import ListRow

NAME = "completeness"
# How long a list may go without a complete read before that is more than a warning; one that rests, after it is due.
LIMITS: Mapping[str, Limit] = {"critical": Limit(3600, "s")}


def look(look: Look) -> CheckResult:
    """Take the last verdict of each list; one that was never tried is UNKNOWN."""
    limits = look.limits[NAME]
    rows = read_lists(look)
    if not rows:
        return no_workspace(NAME, limits)
    seen = [(row, _see(look.now, limits, row)) for row in rows if row.verdict not in ("complete", "skipped")]
    bad = worst_first([finding for _, finding in seen])
    first = next((row for row, finding in seen if finding is bad[0]), None)
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        f"{len(bad)} of {len(rows)} lists not complete: {bad[0].subject}: {bad[0].detail}"
        if bad
        else f"all {len(rows)} lists complete",
        hint=f"bisonsync {first.job} -w {first.key}" if first else "",
        value=len(bad),
        thresholds=limits,
        findings=bad,
    )


def _see(now: datetime, limits: Mapping[str, Limit], row: ListRow) -> Finding:
    subject = named(row.key, row.name)
    if row.verdict is None:
        kinds = (f"job:{row.job}", "late", "unread")
        return Finding(subject, UNKNOWN, f"{row.resource} never tried", row.key, kinds=kinds)
    detail = f"{row.resource} {row.verdict}: {short(row.last_error)}"
    if row.last_complete_at is None:
        state, detail = CRITICAL, f"{detail}; never complete"
    else:
        age = (now - row.last_complete_at).total_seconds()
        rest = max(row.rest_seconds, row.interval_seconds) if row.rest_seconds else 0
        state = CRITICAL if age > limits["critical"].value + rest else WARNING
        detail = f"{detail}; last complete {span(age)} ago"
    return Finding(subject, state, detail, row.key, kinds=(f"job:{row.job}", f"error:{row.error_kind or row.verdict}"))
