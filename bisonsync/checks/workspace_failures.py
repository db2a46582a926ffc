"""Does the read of one workspace fail again and again?"""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, CheckResult, Finding, Limit, Look
from bisonsync.checks.freshness import no_workspace, read_lists
from bisonsync.checks.wording import named, short, worst_first, worst_of
from bisonsync.store.health_data import ListRow

NAME = "workspace-failures"
# Reads in a row that were not complete.
LIMITS: Mapping[str, Limit] = {"critical": Limit(3)}


def look(look: Look) -> CheckResult:
    """Count the reads since the last complete one; a list that was never tried is UNKNOWN."""
    limits = look.limits[NAME]
    rows = read_lists(look)
    if not rows:
        return no_workspace(NAME, limits)
    most = max(rows, key=lambda row: row.consecutive_failures)
    bad = worst_first(
        [_never(row) for row in rows if row.last_attempt_at is None]
        + [_failing(row) for row in rows if row.consecutive_failures > limits["critical"].value]
    )
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        f"{len(bad)} of {len(rows)} lists: {bad[0].subject}: {bad[0].detail}"
        if bad
        else f"none of {len(rows)} lists failed more than {most.consecutive_failures} times in a row"
        if most.consecutive_failures
        else f"no list of {len(rows)} failed when it was last read",
        hint=f"bisonsync {most.job} -v -w {most.key}" if bad else "",
        value=most.consecutive_failures,
        thresholds=limits,
        findings=bad,
    )


def _failing(row: ListRow) -> Finding:
    detail = f"{row.resource} {row.verdict} {row.consecutive_failures} times in a row: {short(row.last_error)}"
    kinds = (f"job:{row.job}", "failing", f"error:{row.error_kind or row.verdict}")
    return Finding(named(row.key, row.name), CRITICAL, detail, row.key, kinds=kinds)


def _never(row: ListRow) -> Finding:
    kinds = (f"job:{row.job}", "late", "unread")
    return Finding(named(row.key, row.name), UNKNOWN, f"{row.resource} never tried", row.key, kinds=kinds)
