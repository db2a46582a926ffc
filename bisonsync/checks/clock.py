"""Do this host's clock, the database's, and the times it holds agree?"""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import OK, CheckResult, Finding, Limit, Look, grade
from bisonsync.checks.wording import span, worst_first, worst_of
from bisonsync.store import health_jobs

NAME = "clock"
# So far ahead a time may lie and still be now: clocks differ, and a look takes time.
TOLERANCE_SECONDS = 5.0
LIMITS: Mapping[str, Limit] = {"warning": Limit(TOLERANCE_SECONDS, "s"), "critical": Limit(60, "s")}


def look(look: Look) -> CheckResult:
    """Compare both clocks now, and every table's latest time with now."""
    limits = look.limits[NAME]
    apart = (look.host_now - look.now).total_seconds()
    told = f"this host is {span(abs(apart))} {'ahead of' if apart > 0 else 'behind'} the database"
    told = told if abs(apart) >= 1 else "this host and the database agree"
    findings = [Finding("this host", grade(abs(apart), limits), told)]
    furthest = abs(apart)
    for row in look.read(health_jobs.list_latest_times):
        if row.latest is not None:
            ahead = (row.latest - look.now).total_seconds()
            detail = f"holds a time {span(ahead)} in the future: the database's clock was set back"
            findings.append(Finding(row.place, grade(ahead, limits), detail))
            furthest = max(furthest, ahead)
    bad = worst_first([finding for finding in findings if finding.state != OK])
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        _sum_up(bad, told),
        hint="timedatectl status" if bad else "",
        value=round(furthest, 1),
        unit="s",
        thresholds=limits,
        findings=bad,
    )


def _sum_up(bad: tuple[Finding, ...], told: str) -> str:
    if not bad or bad[0].detail == told:
        return told
    return f"{bad[0].subject} {bad[0].detail}"
