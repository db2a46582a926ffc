"""A look as monitoring plugins print it: one line, a state, a text and performance data.

Source: the Monitoring Plugins Development Guidelines, "Plugin Output" and "Performance data".
"""

from __future__ import annotations

from collections.abc import Sequence

from bisonsync.checks.check import CRITICAL, NOT_IN_USE, OK, UNKNOWN, WARNING, CheckResult, State

SERVICE = "BISONSYNC"
# Nagios reads 4 KiB at the most, pagers far less.
TEXT_LENGTH = 400
_WORST_FIRST: tuple[State, ...] = (CRITICAL, UNKNOWN, WARNING)


def status_line(state: State, results: Sequence[CheckResult], failure: str = "") -> str:
    """One line; ``failure`` says why nothing could be looked at."""
    shown: State = UNKNOWN if state == NOT_IN_USE else state
    text = _plain(failure) or _plain(_text(results)) or "nothing was looked at"
    data = " ".join(part for result in results if (part := _performance(result)))
    return f"{SERVICE} {shown}: {text}" + (f" | {data}" if data else "")


def _text(results: Sequence[CheckResult]) -> str:
    bad = [result for state in _WORST_FIRST for result in results if result.state == state]
    # What follows from something else is told after what does not.
    bad.sort(key=lambda result: result.caused_by is not None)
    parts = [f"{result.name} {result.state} ({result.detail})" for result in bad if not result.caused_by]
    parts += [f"{result.name} {result.state} because of {result.caused_by}" for result in bad if result.caused_by]
    good = sum(result.state == OK for result in results)
    return ", ".join([*parts, f"{good} OK"] if parts or good else [])


def _plain(text: str) -> str:
    """Without what ends the line, begins the performance data, or means something to a shell or a web page."""
    cleaned = "".join(" " if not letter.isprintable() or letter in '|`$<>&"\\~*?;{}[]!' else letter for letter in text)
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= TEXT_LENGTH else cleaned[: TEXT_LENGTH - 1].rstrip() + "…"


def _performance(result: CheckResult) -> str:
    """``label=value;warning;critical;minimum``; nothing for a check without a figure."""
    if result.value is None:
        return ""
    warning, critical = (_limit(result, name) for name in ("warning", "critical"))
    return f"{result.name}={_number(result.value)}{result.unit};{warning};{critical};0"


def _limit(result: CheckResult, name: str) -> str:
    """A threshold of the figure itself; one of another unit is held against something else."""
    limit = result.thresholds.get(name)
    return "" if limit is None or limit.unit != result.unit else _number(limit.value)


def _number(value: float) -> str:
    """Digits with a point, never an exponent."""
    return f"{value:.3f}".rstrip("0").rstrip(".")
