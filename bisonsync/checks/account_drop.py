"""Did a workspace lose many of its accounts between two reads?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, CheckResult, Finding, Limit, Look
from bisonsync.checks.freshness import no_workspace
from bisonsync.checks.wording import named, span, worst_first, worst_of
from bisonsync.store import health_data
from bisonsync.store.health_data import DropRow

NAME = "account-drop"
LIMITS: Mapping[str, Limit] = {"critical": Limit(10, "%"), "accounts": Limit(0)}
_JOB = "poll-accounts"
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Drop:
    row: DropRow
    gone: int
    of: int
    is_held: bool

    @property
    def percent(self) -> float:
        return 100 * self.gone / self.of if self.of else 0.0


def look(look: Look) -> CheckResult:
    """Take what the shrink guard holds back, and what one read of the last hour removed.

    The hour is two intervals where that is longer. UNKNOWN when no workspace was read in it, or none ever had accounts.
    """
    limits = look.limits[NAME]
    window = max(_HOUR, 2 * look.schedule.get(_JOB, _HOUR / 2))
    rows = look.read(lambda conn: health_data.list_drops(conn, look.now - window))
    if not rows:
        return no_workspace(NAME, limits)
    drops = [_worse(row) for row in rows]
    worst = max(drops, key=lambda drop: drop.percent)
    over = [drop for drop in drops if drop.percent > limits["critical"].value and drop.gone > limits["accounts"].value]
    over.sort(key=lambda drop: -drop.percent)
    if not over and not any(row.reads or row.held for row in rows):
        return _unread(limits, window)
    bad = worst_first([_finding(look, drop) for drop in over])
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        f"{len(bad)} of {len(rows)} workspaces: {bad[0].subject}: {bad[0].detail}"
        if bad
        else f"none of {len(rows)} workspaces lost more than {worst.percent:.0f} % of its accounts"
        if worst.gone
        else f"none of {len(rows)} workspaces lost accounts",
        hint=_hint(over[0]) if over else "",
        value=round(worst.percent, 1),
        unit="%",
        thresholds=limits,
        findings=bad,
    )


def _worse(row: DropRow) -> _Drop:
    held, removed = _Drop(row, row.held, row.live, True), _Drop(row, row.removed, row.known, False)
    return held if held.gone and held.percent >= removed.percent else removed


def _finding(look: Look, drop: _Drop) -> Finding:
    share = f"{drop.gone} of {drop.of} accounts ({drop.percent:.0f} %)"
    detail = f"one read removed {share}"
    if drop.is_held:
        since = "" if drop.row.held_since is None else f", for {span((look.now - drop.row.held_since).total_seconds())}"
        detail = f"{share} missing, held back by the guard{since}"
    return Finding(named(drop.row.key, drop.row.name), CRITICAL, detail, drop.row.key, kinds=(f"job:{_JOB}",))


def _hint(drop: _Drop) -> str:
    where = f"-w {drop.row.key}"
    if drop.is_held:
        return f"bisonsync {_JOB} {where} --allow-shrink  # if they are really gone: look at the host first"
    return f"bisonsync {_JOB} {where}  # brings back what the host lists again"


def _unread(limits: Mapping[str, Limit], window: timedelta) -> CheckResult:
    detail = f"nothing was read in the last {span(window.total_seconds())}"
    finding = Finding("reads", UNKNOWN, detail, kinds=(f"job:{_JOB}", "late", "unread"))
    return CheckResult(NAME, UNKNOWN, detail, f"bisonsync {_JOB}", unit="%", thresholds=limits, findings=(finding,))
