"""``config show`` and ``config check``: what counts, where it comes from, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import cast

from pydantic import BaseModel, SecretStr

from bisonsync.durations import format_duration
from bisonsync.settings import Problem, Sources, dsn, load, loading
from bisonsync.settings.layers import Entry, dotted
from bisonsync.settings.secret_files import Key, is_secret, value_key

MASK = "••••"


@dataclass(frozen=True, slots=True)
class Value:
    """One setting as it counts. ``value`` is text for the operator, None when not set; secrets are masked."""

    key: str
    value: str | None
    origin: str
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """Every setting, in the order of the file's sections."""

    config: Path | None
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """Everything that is wrong; empty when a run would accept the settings."""

    config: Path | None
    problems: tuple[Problem, ...]


def show(sources: Sources) -> Shown:
    """List every effective setting with its origin. Raises ConfigError as a run would."""
    given = {value_key(entry.key): entry for entry in sources.entries.values()}
    values = (
        Value(dotted(key), _text(key, value), _origin(key, given), is_secret(key))
        for key, value in _leaves((), load(sources))
    )
    return Shown(sources.config, tuple(values))


def check(sources: Sources) -> Checked:
    """Find every problem: unknown keys, values that cannot be used, secrets that others can read."""
    return Checked(sources.config, tuple(loading.check(sources)[1]))


def _leaves(key: Key, value: object) -> Iterator[tuple[Key, object]]:
    inner: Mapping[object, object] = {}
    if isinstance(value, BaseModel):
        inner = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        inner = cast("dict[object, object]", value)
    elif isinstance(value, list):
        inner = dict(enumerate(cast("list[object]", value)))
    if not inner:
        yield key, value
    for name, item in inner.items():
        yield from _leaves((*key, str(name)), item)


def _origin(key: Key, given: Mapping[Key, Entry]) -> str:
    if key in given:
        return given[key].origin
    # A list is given as a whole: its items have the origin of the list.
    lists = (given[key[:length]] for length in range(1, len(key)) if key[:length] in given)
    return next((entry.origin for entry in lists if isinstance(entry.value, list)), "default")


def _text(key: Key, value: object) -> str | None:
    match value:
        case None | str():
            return value
        case SecretStr():
            return dsn.describe(value.get_secret_value()) if key == ("database_url",) else MASK
        case timedelta():
            return format_duration(value)
        case Decimal():
            return str(value)
        case _:
            return json.dumps(value, ensure_ascii=False, default=str)
