"""How does the API answer? Its times, its 429s, its errors, per instance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, State, rank, worst
from bisonsync.store import budgets, health_numbers
from bisonsync.store.budgets import Rate
from bisonsync.store.health_numbers import ApiFigures

NAME = "api"
# ``warning`` and ``critical``: mean time to answer; ``limited``, ``errors``, ``failing``: shares of the requests.
LIMITS: Mapping[str, Limit] = {
    "warning": Limit(2.0, "s"),
    "critical": Limit(10.0, "s"),
    "limited": Limit(5.0, "%"),
    "errors": Limit(5.0, "%"),
    "failing": Limit(50.0, "%"),
}
# The last hour tells how the API is now; where it was not asked in that hour the last day has to do.
WINDOWS = ((timedelta(hours=1), "the last hour"), (timedelta(hours=24), "the last 24 hours"))

_Limits = Mapping[str, Limit]


def look(look: Look) -> CheckResult:
    """Judge the times, the 429s and the errors of each instance that was asked, and what is left of its rate.

    UNKNOWN when nothing was asked in 24 hours. A refused token is no error of the API: the check ``tokens`` tells it.
    """
    limits = look.limits[NAME]
    rows, when = _read(look)
    if not rows:
        detail = f"no request in {when}"
        return CheckResult(NAME, UNKNOWN, detail, "bisonsync poll-accounts", thresholds=limits)
    judged: list[tuple[State, ApiFigures]] = [(_state(row, limits), row) for row in rows]
    judged.sort(key=lambda each: rank(each[0]), reverse=True)
    findings = tuple(
        Finding(row.bison_instance or "an unnamed instance", state, _said(row, limits), kinds=_kinds(row, limits))
        for state, row in judged
        if state != OK
    )
    asked = {row.bison_instance for row in rows}
    rates = [rate for rate in look.read(budgets.list_rates) if rate.bison_instance in asked]
    findings += tuple(Finding(rate.bison_instance, WARNING, said) for rate in rates if (said := _left_of(rate)))
    times = [row.mean_ms / 1000 for row in rows if row.mean_ms is not None]
    requests = sum(row.requests for row in rows)
    return CheckResult(
        NAME,
        worst([*(state for state, _ in judged), *(found.state for found in findings)]),
        "; ".join(f"{found.subject}: {found.detail}" for found in findings)
        or f"{requests:,} requests in {when}" + (f", {max(times):.2f} s on average" if times else ""),
        "bisonsync runs list" if findings else "",
        value=round(max(times), 3) if times else None,
        unit="s",
        thresholds=limits,
        findings=findings,
    )


def _read(look: Look) -> tuple[list[ApiFigures], str]:
    """The figures of the shortest window that has any, and its name."""
    for length, when in WINDOWS:
        since = look.now - length
        rows = look.read(lambda conn, since=since: health_numbers.sum_api_health(conn, since, look.now))
        if rows:
            return rows, when
    return [], WINDOWS[-1][1]


def _state(row: ApiFigures, limits: _Limits) -> State:
    seconds = (row.mean_ms or 0.0) / 1000
    states: list[State] = [OK]
    if seconds > limits["critical"].value or _errors(row) > limits["failing"].value:
        states.append(CRITICAL)
    if (
        seconds > limits["warning"].value
        or _limited(row) > limits["limited"].value
        or _errors(row) > limits["errors"].value
    ):
        states.append(WARNING)
    return worst(states)


def _kinds(row: ApiFigures, limits: _Limits) -> tuple[str, ...]:
    """Slow answers alone are no reason for what was not read."""
    is_unanswered = _errors(row) > limits["errors"].value or _limited(row) > limits["limited"].value
    return (f"instance:{row.bison_instance}", *(["unanswered"] if is_unanswered else []))


def _left_of(rate: Rate) -> str:
    """What 429s and other programs leave of an instance's rate, where that is less than it shall have."""
    said: list[str] = []
    if rate.slow_share < 1:
        minutes = math.ceil((1 - rate.slow_share) * 20)
        said.append(
            f"slowed down to {100 * rate.slow_share:.0f} % of its rate after 429s in a row; "
            f"the full rate is back in {minutes} min"
        )
    left = (rate.limit_told or math.inf) - rate.foreign_per_minute
    if rate.foreign_per_minute >= 1 and left < rate.requests_per_minute:
        said.append(
            f"another program uses the same key: {rate.foreign_per_minute:,.0f} of its {rate.limit_told:,} requests a "
            f"minute, so that {max(0, left):,.0f} are left of the {rate.requests_per_minute:,} that this one may use"
        )
    return ", ".join(said)


def _limited(row: ApiFigures) -> float:
    return 100.0 * row.rate_limited / row.requests


def _errors(row: ApiFigures) -> float:
    return 100.0 * max(0, row.errors - row.refused) / row.requests


def _said(row: ApiFigures, limits: _Limits) -> str:
    """What of an instance is beyond its limit."""
    said: list[str] = []
    if row.mean_ms is not None and row.mean_ms / 1000 > limits["warning"].value:
        said.append(f"{row.mean_ms / 1000:.2f} s on average to answer")
    if _limited(row) > limits["limited"].value:
        said.append(f"{_limited(row):.1f} % of {row.requests:,} requests were told to slow down (429)")
    if _errors(row) > limits["errors"].value:
        said.append(f"{_errors(row):.1f} % of {row.requests:,} requests had no usable answer")
    return ", ".join(said)
