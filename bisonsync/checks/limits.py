"""The thresholds of the checks: their defaults, and what settings and flags put in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bisonsync.checks import NAMES, find_check
from bisonsync.checks.check import Limit, Unit
from bisonsync.durations import parse_duration
from bisonsync.errors import ConfigError

_BYTES = {"": 1, "b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}

Given = Mapping[str, Mapping[str, str | int | float]]


def merge_limits(*layers: Given) -> dict[str, Mapping[str, Limit]]:
    """The thresholds of every check; later layers win. Raises ConfigError for a name or value that makes no sense."""
    limits = {name: dict(find_check(name).LIMITS) for name in NAMES}
    for layer in layers:
        for check, values in layer.items():
            of_check = limits[_known(check, limits, "check")]
            for name, value in values.items():
                unit = of_check[_known(name, of_check, f"threshold of {check}")].unit
                of_check[name] = Limit(_parse(f"{check}.{name}", value, unit), unit)
    return dict(limits)


def split_flag(text: str) -> tuple[str, str, str]:
    """The parts of ``CHECK.NAME=VALUE``. Raises ValueError."""
    found = re.fullmatch(r"([a-z-]+)\.(\w+)=(.+)", text.strip())
    if not found:
        raise ValueError("write it as CHECK.NAME=VALUE, as in freshness.warning=7m")
    return found[1], found[2], found[3]


def _known(name: str, known: Mapping[str, object], what: str) -> str:
    if name in known:
        return name
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    raise ConfigError(
        f"thresholds: {name!r} is no {what}",
        hint=f"did you mean {close[0]}?" if close else f"known here: {', '.join(known) or 'none'}",
    )


def _parse(where: str, value: str | float, unit: Unit) -> float:
    text = str(value).strip()
    try:
        if isinstance(value, bool):
            raise ValueError("is no number")  # noqa: TRY004  told like any other bad value
        if unit == "s":
            return parse_duration(value).total_seconds()
        if unit == "B":
            found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.lower())
            if not found or found[2] not in _BYTES:
                raise ValueError("is no size: write it as 20GB")
            return float(found[1]) * _BYTES[found[2]]
        number = _number(text.removesuffix("%") if unit == "%" else text)
    except ValueError as error:
        told = str(error).removeprefix(f"{text!r} ")
        raise ConfigError(f"threshold {where}: {text[:60]!r} {told}", hint="see README, thresholds") from None
    if not 0 <= number < float("inf"):
        raise ConfigError(f"threshold {where}: {text[:60]!r} must not be negative", hint="see README, thresholds")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("is no number") from None
