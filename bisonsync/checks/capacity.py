"""Do the accounts send about as much as they are meant to carry?"""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import NOT_IN_USE, OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, State
from bisonsync.store import health_numbers
from bisonsync.store.health_numbers import Capacity

NAME = "capacity"
# Daily limits below ``low`` percent of the volume are paid for and not used; above ``high`` they wear accounts out.
LIMITS: Mapping[str, Limit] = {"low": Limit(50.0, "%"), "high": Limit(100.0, "%")}


def look(look: Look) -> CheckResult:
    """Compare the daily limits of the connected accounts with their volume, in all and in each workspace.

    UNKNOWN without accounts, and when none that is connected has both (0/0); not in use where no volume is set.
    """
    limits = look.limits[NAME]
    rows = look.read(health_numbers.sum_capacity)
    if not rows:
        detail = "no account of an active workspace is known"
        return CheckResult(NAME, UNKNOWN, detail, "bisonsync poll-accounts", thresholds=limits)
    if not any(row.priced for row in rows):
        detail = "no account has a volume: set volume_per_account under [[prices]]"
        return CheckResult(NAME, NOT_IN_USE, detail, thresholds=limits)
    known = [row for row in rows if row.capacity > 0]
    if not known:
        detail = "no connected account has a daily limit and a volume"
        finding = Finding("all accounts", UNKNOWN, detail, caused_by=_cause(rows))
        return CheckResult(
            NAME, UNKNOWN, detail, "bisonsync dashboard accounts", thresholds=limits, findings=(finding,)
        )
    findings = tuple(
        Finding(str(row.key), WARNING, f"{row.name}: {_said(row)}", workspace=row.key)
        for row in sorted(known, key=_percent)
        if _state(row, limits) != OK
    )
    total = Capacity("", 0, "", 0, 0, 0, sum(row.daily_limit for row in known), sum(row.capacity for row in known))
    return CheckResult(
        NAME,
        WARNING if findings else _state(total, limits),
        _said(total) + (f"; out of bounds in {len(findings)} of {len(known)} workspaces" if findings else ""),
        f"bisonsync dashboard accounts -w {findings[0].subject}" if findings else "",
        value=round(_percent(total), 2),
        unit="%",
        thresholds=limits,
        findings=findings,
    )


def _state(row: Capacity, limits: Mapping[str, Limit]) -> State:
    return OK if limits["low"].value <= _percent(row) <= limits["high"].value else WARNING


def _percent(row: Capacity) -> float:
    return 100.0 * row.daily_limit / row.capacity


def _cause(rows: list[Capacity]) -> str | None:
    """Where nothing at all is connected, that is what is the matter."""
    return None if any(row.connected for row in rows) else "disconnects"


def _said(row: Capacity) -> str:
    return (
        f"connected accounts may send {row.daily_limit:,.0f} mails a day and are meant to carry {row.capacity:,.0f}"
        f" ({_percent(row):.0f} %)"
    )
