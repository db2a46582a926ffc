"""Is all well with the deliveries that come?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    rank,
    worst,
)
from bisonsync.checks.wording import named
from bisonsync.store import health_webhooks
from bisonsync.store.health_webhooks import Outcomes

NAME = "webhook-success"
# Below ``low`` it is bad, below ``very_low`` very bad. ``sample``: deliveries that there must be to be judged.
LIMITS: Mapping[str, Limit] = {"low": Limit(95.0, "%"), "very_low": Limit(80.0, "%"), "sample": Limit(20)}
WINDOW = timedelta(hours=24)
# After a quiet weekend the last 24 hours in which something came have to do.
_LONGEST_PAUSE = timedelta(days=7)

_Limits = Mapping[str, Limit]


def look(look: Look) -> CheckResult:
    """Judge the deliveries of 24 hours, in all and of each workspace that has enough of them.

    Mismatches are told by the check ``inbox``. UNKNOWN when none was decided in a week (0/0); not in use while the log
    is empty.
    """
    limits = look.limits[NAME]
    rows, when = _read(look)
    if not rows:
        return _nothing(look, limits)
    sample = max(1.0, limits["sample"].value)
    total = Outcomes(None, None, None, sum(row.decided for row in rows), sum(row.bad for row in rows))
    if total.decided < sample:
        detail = f"too few to judge: {_said(total)} {when}, {sample:g} are wanted"
        return CheckResult(NAME, OK, detail, thresholds=limits)
    judged = [row for row in rows if row.decided >= sample]
    states: list[tuple[State, Outcomes]] = [(_state(row, limits), row) for row in judged]
    states.sort(key=lambda each: (-rank(each[0]), each[1].percent))
    findings = [Finding(_subject(row), state, _said(row), row.key) for state, row in states if state != OK]
    in_all = _state(total, limits)
    if in_all != OK and not findings:
        findings.append(Finding("all workspaces", in_all, _said(total)))
    return CheckResult(
        NAME,
        worst([in_all, *(state for state, _ in states)]),
        f"{_said(total)} {when}" + (f"; worst: {findings[0].subject}" if findings and judged else ""),
        _hint(findings),
        value=round(min(row.percent for row in (total, *judged)), 2),
        unit="%",
        thresholds=limits,
        findings=tuple(findings),
    )


def _read(look: Look) -> tuple[list[Outcomes], str]:
    """What became of the deliveries of the last 24 hours, or of the 24 hours until the last one that came."""
    rows = look.read(lambda conn: health_webhooks.count_outcomes(conn, look.now - WINDOW, look.now))
    if rows:
        return rows, "in 24 hours"
    since = look.now - _LONGEST_PAUSE
    newest = look.read(lambda conn: health_webhooks.find_newest(conn, since, look.now))
    if newest is None:
        return [], ""
    rows = look.read(lambda conn: health_webhooks.count_outcomes(conn, newest - WINDOW, newest))
    return rows, f"in the 24 hours until {newest:%Y-%m-%d %H:%M} UTC"


def _nothing(look: Look, limits: _Limits) -> CheckResult:
    if not look.read(health_webhooks.has_deliveries):
        return CheckResult(NAME, NOT_IN_USE, "no delivery has ever come", thresholds=limits)
    detail = f"no delivery was decided in {_LONGEST_PAUSE.days} days"
    return CheckResult(NAME, UNKNOWN, detail, "bisonsync health webhook-silence inbox", thresholds=limits)


def _state(row: Outcomes, limits: _Limits) -> State:
    if row.percent < limits["very_low"].value:
        return CRITICAL
    return WARNING if row.percent < limits["low"].value else OK


def _subject(row: Outcomes) -> str:
    return "deliveries that tell no workspace" if row.key is None else named(row.key, row.name)


def _said(row: Outcomes) -> str:
    return f"all is well with {row.decided - row.bad:,} of {row.decided:,} deliveries ({row.percent:.1f} %)"


def _hint(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    where = f" -w {findings[0].workspace}" if findings[0].workspace else ""
    return f"bisonsync inbox list --status failed{where}; bisonsync dead-letters list{where}"
