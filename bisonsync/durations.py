"""Durations as operators write them: ``4m``, ``1h30m``, ``500ms``, or a number of seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_NUMBER = r"\d+(?:\.\d+)?"
_PARTS = re.compile("".join(rf"(?:({_NUMBER}){unit}\s*)?" for unit in _UNITS), re.ASCII)
_SECONDS = re.compile(_NUMBER, re.ASCII)
_EXAMPLES = "write it as 4m, 30s, 1h30m or 500ms, or as a number of seconds"

# Beyond this, adding one to a date may leave the calendar.
LONGEST = timedelta(days=3650)


def parse_duration(value: str | float) -> timedelta:
    """Return the duration that ``value`` says; units go from days down to milliseconds, each at most once.

    Raises ValueError with a text for the operator.
    """
    if isinstance(value, str):
        return _bounded(_milliseconds(value.strip()))
    if value < 0:
        raise ValueError("must not be negative")
    # Compared before it is multiplied: a whole number may be too large for a float.
    return _bounded(value * 1_000.0 if value <= LONGEST.total_seconds() else math.inf)


def format_duration(value: timedelta) -> str:
    """Return the shortest text that ``parse_duration`` reads as ``value``, to the millisecond."""
    left = round(value / timedelta(milliseconds=1))
    parts: list[str] = []
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _milliseconds(text: str) -> float:
    if _SECONDS.fullmatch(text):
        return float(text) * 1_000
    if text.startswith("-"):
        raise ValueError("must not be negative")
    match = _PARTS.fullmatch(text)
    if not text or match is None:
        shown = f"{text[:40]!r} " if text else ""
        raise ValueError(f"{shown}is no duration: {_EXAMPLES}")
    return sum(float(count) * size for count, size in zip(match.groups(), _UNITS.values(), strict=True) if count)


def _bounded(milliseconds: float) -> timedelta:
    if milliseconds > LONGEST / timedelta(milliseconds=1):
        raise ValueError(f"is longer than {LONGEST.days} days")
    return timedelta(milliseconds=milliseconds)
