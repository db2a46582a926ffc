"""Is every list of every active workspace young enough?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, CheckResult, Finding, Limit, Look, State, grade
from bisonsync.checks.clock import TOLERANCE_SECONDS
from bisonsync.checks.wording import named, span, worst_first, worst_of
from bisonsync.store import health_data
from bisonsync.store.health_data import ListRow

NAME = "freshness"
# Ages of the last complete read. Beyond ``page`` it is told again.
LIMITS: Mapping[str, Limit] = {"warning": Limit(300, "s"), "critical": Limit(600, "s"), "page": Limit(3600, "s")}
# A list that is meant to be read less often than usual may be so many intervals old, unless the limit was set.
_INTERVALS = {"warning": 5 / 3, "critical": 10 / 3, "page": 20.0}


@dataclass(frozen=True, slots=True)
class _Seen:
    row: ListRow
    age_seconds: float | None
    limits: Mapping[str, Limit]
    finding: Finding


def look(look: Look) -> CheckResult:
    """Compare the age of the last complete read with the limits; a list never read is CRITICAL."""
    rows = read_lists(look)
    if not rows:
        return no_workspace(NAME, LIMITS)
    seen = [_see(look, row) for row in rows]
    oldest = max(seen, key=lambda each: -float("inf") if each.age_seconds is None else each.age_seconds)
    bad = worst_first([each.finding for each in seen if each.finding.state != OK])
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        _sum_up(seen, bad),
        hint=_hint(seen, bad),
        value=None if oldest.age_seconds is None else round(oldest.age_seconds),
        unit="s",
        thresholds=oldest.limits,
        findings=bad,
    )


def read_lists(look: Look) -> list[ListRow]:
    """The lists that are meant to be read: those that are required, and those whose job is not off."""
    rows = look.read(health_data.list_lists)
    return [row for row in rows if row.is_required or row.job in look.schedule]


def no_workspace(check: str, limits: Mapping[str, Limit]) -> CheckResult:
    """What a check of workspaces says when none is active."""
    finding = Finding("registry", UNKNOWN, "no active workspace", kinds=("unread",))
    hint = "bisonsync workspaces discover"
    return CheckResult(check, UNKNOWN, "no active workspace", hint, thresholds=limits, findings=(finding,))


def _see(look: Look, row: ListRow) -> _Seen:
    limits = _limits(look, row)
    if row.last_complete_at is None:
        age, state, detail, is_paged = None, CRITICAL, f"{row.resource} never read", False
    else:
        age = (look.now - row.last_complete_at).total_seconds()
        is_paged = age > limits["page"].value
        state, detail = _judge(age, limits, row.resource, is_paged=is_paged)
    kinds = _kinds(row, is_paged=is_paged)
    return _Seen(row, age, limits, Finding(named(row.key, row.name), state, detail, row.key, kinds=kinds))


def _judge(age: float, limits: Mapping[str, Limit], resource: str, *, is_paged: bool) -> tuple[State, str]:
    if age < -TOLERANCE_SECONDS:
        return UNKNOWN, f"{resource} read {span(-age)} in the future: a clock is wrong"
    if is_paged:
        return CRITICAL, f"{resource} {span(age)} old; page"
    return grade(age, limits), f"{resource} {span(age)} old"


def _kinds(row: ListRow, *, is_paged: bool) -> tuple[str, ...]:
    kinds = [f"job:{row.job}", "late"]
    if row.error_kind and row.verdict != "complete":
        kinds.append(f"error:{row.error_kind}")
    if is_paged:
        kinds.append("page")
    return tuple(kinds)


def _limits(look: Look, row: ListRow) -> Mapping[str, Limit]:
    scheduled = look.schedule.get(row.job)
    # A job may come more often than it reads a list, to try again what failed.
    interval = max(scheduled.total_seconds() if scheduled else row.interval_seconds, row.rest_seconds)
    limits: dict[str, Limit] = {}
    for name, default in LIMITS.items():
        value = look.limit(NAME, name)
        is_set = value != default.value
        limits[name] = Limit(value if is_set else max(value, _INTERVALS[name] * interval), "s")
    return limits


def _sum_up(seen: list[_Seen], bad: tuple[Finding, ...]) -> str:
    read = [(each.age_seconds, each) for each in seen if each.age_seconds is not None]
    never = len(seen) - len(read)
    parts = [f"{len(bad)} of {len(seen)} lists" if bad else f"all {len(seen)} lists"]
    if never:
        parts.append(f"{never} never read")
    if read:
        age, oldest = max(read, key=lambda pair: pair[0])
        parts.append(f"oldest {span(age)} ({named(oldest.row.key, oldest.row.name)})")
    return f"{parts[0]}: {', '.join(parts[1:])}"


def _hint(seen: list[_Seen], bad: tuple[Finding, ...]) -> str:
    if not bad:
        return ""
    if bad[0].state == UNKNOWN:
        return "bisonsync health clock"
    row = next(each.row for each in seen if each.finding is bad[0])
    return f"bisonsync {row.job}" + (f" -w {row.key}" if len(bad) == 1 else "")
