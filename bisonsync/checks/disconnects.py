"""Are the accounts connected? In each workspace and in all, and since yesterday."""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, State, grade, rank, worst
from bisonsync.store import health_numbers
from bisonsync.store.health_numbers import Disconnected

NAME = "disconnects"
# ``new``: so many since yesterday are news even where they are few of many.
LIMITS: Mapping[str, Limit] = {"warning": Limit(5.0, "%"), "critical": Limit(20.0, "%"), "new": Limit(10.0)}


def look(look: Look) -> CheckResult:
    """Compare each workspace's share of accounts that are not connected, and how many were connected yesterday.

    UNKNOWN when no account of an active workspace is known.
    """
    limits = look.limits[NAME]
    rows = look.read(lambda conn: health_numbers.count_disconnected(conn, look.now, look.reporting_timezone))
    if not rows:
        detail = "no account of an active workspace is known"
        return CheckResult(NAME, UNKNOWN, detail, "bisonsync poll-accounts", thresholds=limits)
    judged: list[tuple[State, Disconnected]] = [(_state(row, limits), row) for row in rows]
    judged.sort(key=lambda each: (rank(each[0]), _percent(each[1])), reverse=True)
    findings = tuple(
        Finding(str(row.key), state, f"{row.name}: {_said(row)}", workspace=row.key)
        for state, row in judged
        if state != OK
    )
    return CheckResult(
        NAME,
        worst([state for state, _ in judged]),
        _detail(rows, len(findings)),
        f"bisonsync dashboard accounts -w {judged[0][1].key}" if findings else "",
        value=round(max(_percent(row) for row in rows), 2),
        unit="%",
        thresholds=limits,
        findings=findings,
    )


def _state(row: Disconnected, limits: Mapping[str, Limit]) -> State:
    news: State = WARNING if row.newly_disconnected > limits["new"].value else OK
    return worst([grade(_percent(row), limits), news])


def _percent(row: Disconnected) -> float:
    return 100.0 * row.disconnected / row.accounts


def _said(row: Disconnected) -> str:
    since = f", {row.newly_disconnected:,} of them since yesterday" if row.newly_disconnected else ""
    return f"{row.disconnected:,} of {row.accounts:,} accounts ({_percent(row):.1f} %) are not connected{since}"


def _detail(rows: list[Disconnected], bad: int) -> str:
    total = Disconnected(
        "",
        0,
        "",
        sum(row.accounts for row in rows),
        sum(row.disconnected for row in rows),
        sum(row.newly_disconnected for row in rows),
        all(row.is_comparable for row in rows),
    )
    unknown = sum(not row.is_comparable for row in rows)
    return (
        _said(total)
        + (f"; too many in {bad} of {len(rows)} workspaces" if bad else "")
        + (f"; {unknown} workspaces were not recorded yesterday" if unknown else "")
    )
