"""Option, environment and file as flat lists of values, each with its origin. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from .problems import Problem
from .secret_files import Key, is_secret, value_key

PREFIX = "BISONSYNC_"
# Variables that others of our parts read: no settings.
_NO_SETTINGS = re.compile(r"config|pg_bin|(?:test|demo|sandbox|bench|embedded)_\w+")

# No setting lies deeper; what does is refused as a whole.
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One given value. ``source`` is the option, variable or file; ``folder`` is where a relative path in it starts."""

    key: Key
    value: object = field(repr=False)
    layer: Literal["option", "environment", "file"]
    source: str
    folder: Path

    @property
    def origin(self) -> str:
        """Where the operator wrote it."""
        return self.origin_of(self.key)

    def origin_of(self, key: Key) -> str:
        """Where the operator would look for ``key``, which lies at, above or beside this entry."""
        if self.layer == "file":
            return f"{self.source}: {dotted(key)}"
        if self.layer == "environment" and len(key) >= len(self.key) and key != self.key and self.is_alone:
            return f"environment {PREFIX}{'__'.join(key).upper()}"
        return f"{self.layer} {self.source}"

    @property
    def is_alone(self) -> bool:
        """False for a part of a variable that holds a whole table."""
        return self.layer != "environment" or len(self.source.split("__")) == len(self.key)


Layer = Mapping[Key, Entry]


def dotted(key: Key) -> str:
    """Return a key as TOML writes it."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else _quoted(part) for part in key)


def _quoted(part: str) -> str:
    return f'"{part}"' if part.isprintable() else ascii(part)


def option_layer(overrides: Mapping[str, str], problems: list[Problem]) -> Layer:
    """Return what the command line gives; a dotted name means a nested setting."""
    layer = _Builder(problems)
    for name, value in overrides.items():
        key = tuple(name.split("."))
        layer.add(Entry(key, value, "option", f"--{key[-1].replace('_', '-')}", Path.cwd()))
    return layer.entries


def environment_layer(environ: Mapping[str, str], problems: list[Problem]) -> Layer:
    """Return what BISONSYNC_ variables give; ``__`` nests, an empty one counts as not set."""
    layer = _Builder(problems)
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX).lower()
        if name == variable.lower() or not environ[variable].strip() or _NO_SETTINGS.fullmatch(name):
            continue
        key = tuple(name.split("__"))
        value = environ[variable] if is_secret(value_key(key)) else _from_json(environ[variable])
        for path, leaf in _leaves(key, value):
            layer.add(Entry(path, leaf, "environment", variable, Path.cwd()))
    return layer.entries


def file_layer(content: Mapping[str, object], path: Path, problems: list[Problem]) -> Layer:
    """Return what the TOML file gives."""
    layer = _Builder(problems)
    for key, leaf in _leaves((), content):
        layer.add(Entry(key, leaf, "file", str(path), path.parent))
    return layer.entries


def merge(layers: list[Layer]) -> dict[Key, Entry]:
    """Return the values that count; ``layers`` come with the strongest last.

    A value hides weaker ones of the same setting, also one by the name of a file; tables are merged key by key.
    """
    merged: dict[Key, Entry] = {}
    for layer in layers:
        renamed = [_spelled_as_before(entry, merged) for entry in layer.values()]
        taken = {value_key(entry.key) for entry in renamed}
        prefixes = {key[:length] for key in taken for length in range(1, len(key) + 1)}
        merged = {
            key: entry
            for key, entry in merged.items()
            if value_key(key) not in prefixes and not any(key[:length] in taken for length in range(1, len(key)))
        }
        merged.update((entry.key, entry) for entry in renamed)
    return merged


class _Builder:
    """Collects one layer, and what in it contradicts itself."""

    def __init__(self, problems: list[Problem]) -> None:
        self.entries: dict[Key, Entry] = {}
        self._problems = problems
        self._settled: dict[Key, Entry] = {}
        self._begun: dict[Key, Entry] = {}
        self._spelling: dict[str, str] = {}

    def add(self, entry: Entry) -> None:
        if entry.key[0] == "instances" and len(entry.key) > 1:
            spelled, name = entry.key[1], entry.key[1].lower()
            # Variables may differ in case, as long as each setting comes once.
            if self._spelling.setdefault(name, spelled) != spelled and entry.layer == "file":
                self._refuse(
                    entry, f"this instance is also written {self._spelling[name]!r}", "give each instance once"
                )
                return
            entry = replace(entry, key=("instances", name, *entry.key[2:]))
        elif entry.key[:2] == ("webhooks", "secrets") and len(entry.key) == 3:
            entry = replace(entry, key=("webhooks", "secrets", entry.key[2].lower()))
        elif entry.key[:1] == ("heartbeats",) and len(entry.key) == 2:
            # No variable can hold the hyphen of a job's name.
            job, file, _ = entry.key[1].partition("_file")
            entry = replace(entry, key=("heartbeats", job.replace("_", "-") + file))
        key = value_key(entry.key)
        prefixes = [key[:length] for length in range(1, len(key) + 1)]
        other = next((self._settled[prefix] for prefix in prefixes if prefix in self._settled), self._begun.get(key))
        if other:
            self._refuse(entry, f"is given twice, also by {other.origin}", "keep one of them")
            return
        self._settled[key] = entry
        self._begun.update((prefix, entry) for prefix in prefixes)
        self.entries[entry.key] = entry

    def _refuse(self, entry: Entry, message: str, hint: str) -> None:
        self._problems.append(Problem(entry.origin, message, hint))


def _leaves(key: Key, value: object) -> Iterator[tuple[Key, object]]:
    if isinstance(value, dict) and (value or not key) and len(key) < _DEEPEST:
        for name, inner in cast("dict[str, object]", value).items():
            yield from _leaves((*key, name), inner)
    else:
        yield key, value


def _from_json(text: str) -> object:
    if not text.lstrip().startswith(("{", "[")):
        return text
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _spelled_as_before(entry: Entry, weaker: Mapping[Key, Entry]) -> Entry:
    """Let BISONSYNC_INSTANCES__MY_NAME__… mean the file's ``my-name``, as no variable can hold a hyphen."""
    if entry.layer != "environment" or len(entry.key) < 2 or entry.key[0] != "instances":
        return entry
    names = {key[1] for key in weaker if key[0] == "instances" and len(key) > 1}
    alike = [name for name in names if name.replace("-", "_") == entry.key[1]]
    if entry.key[1] in names or len(alike) != 1:
        return entry
    return replace(entry, key=("instances", alike[0], *entry.key[2:]))
