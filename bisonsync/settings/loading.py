"""Stage two: checks everything that was given and returns it typed, or all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, cast, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from .layers import PREFIX, Entry, dotted
from .models import Settings
from .problems import Problem, refuse
from .secret_files import Key, is_secret, value_key
from .sources import Sources

_PLACEHOLDER = "unusable"
_WORDS = {
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "list_type": "must be a list",
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
}


def load(sources: Sources) -> Settings:
    """Return the checked settings. Raises one ConfigError that tells all problems, each with its origin."""
    settings, problems = check(sources)
    if settings is None:
        raise refuse(problems)
    return settings


def check(sources: Sources) -> tuple[Settings | None, list[Problem]]:
    """Return the settings, or None and everything that is wrong with them."""
    tree, refused = _resolve(sources)
    problems = [*sources.problems, *refused.values()]
    problems += _check_hooks(sources, tree)
    settings, invalid = validate(tree, sources.entries, known_bad=refused)
    problems += invalid
    return (None if problems else settings), list(dict.fromkeys(problems))


def validate(
    tree: Mapping[str, Any], entries: Mapping[Key, Entry], known_bad: Iterable[Key] = ()
) -> tuple[Settings | None, list[Problem]]:
    """Check a tree of settings; say nothing again of what is ``known_bad``."""
    # An unknown name could be one of the library's own arguments (_env_file), so it never gets there.
    known = {name: value for name, value in tree.items() if name in Settings.model_fields}
    problems = [problem for name in tree if name not in known for problem in _unknown((name,), entries)]
    try:
        return Settings(**known), problems
    except ValidationError as error:
        told = set(known_bad)
        for detail in error.errors(include_url=False):
            key = _key_of(detail["loc"], tree)
            if key not in told:
                told.add(key)
                problems += _explain(key, detail["type"], detail["msg"], entries)
    return None, problems


def _resolve(sources: Sources) -> tuple[dict[str, Any], dict[Key, Problem]]:
    """Return the tree with each secret in its place, and what is wrong with those that are not."""
    tree: dict[str, Any] = {}
    refused: dict[Key, Problem] = {}
    found = sources.find_database_url()
    if isinstance(found, Problem):
        refused[("database_url",)] = found
        found = _PLACEHOLDER
    _put(tree, ("database_url",), SecretStr(found))
    for entry in sources.entries.values():
        key = value_key(entry.key)
        if key == ("database_url",):
            continue
        value = sources.read_secret(entry) if is_secret(key) else entry.value
        if isinstance(value, Problem):
            refused[key] = value
            value = _PLACEHOLDER
        _put(tree, key, SecretStr(cast("str", value)) if is_secret(key) else value)
    return tree, refused


def _put(tree: dict[str, Any], key: Key, value: object) -> None:
    for part in key[:-1]:
        tree = tree.setdefault(part, {})
    tree[key[-1]] = value


def _check_hooks(sources: Sources, tree: Mapping[str, Any]) -> Iterator[Problem]:
    instances: object = tree.get("instances", {})
    names = list(cast("dict[str, object]", instances)) if isinstance(instances, dict) else []
    for key, entry in sources.entries.items():
        name, found, _ = key[-1].partition("/")
        if key[:2] == ("webhooks", "secrets") and len(key) == 3 and found and name not in names:
            yield Problem(entry.origin, f"there is no instance {name!r}", f"instances: {', '.join(names) or 'none'}")


def _key_of(loc: Iterable[int | str], tree: Mapping[str, Any]) -> Key:
    """Return the place of an error as far as it names keys; pydantic adds the branch of a union at the end."""
    key: list[str] = []
    here: object = tree
    for part in map(str, loc):
        if part == "[key]":
            break
        if isinstance(here, dict):
            here = cast("dict[str, object]", here).get(part)
        elif isinstance(here, list) and part.isdecimal():
            here = cast("list[object]", here)[int(part)]
        else:
            break
        key.append(part)
    return tuple(key)


def _explain(key: Key, kind: str, message: str, entries: Mapping[Key, Entry]) -> list[Problem]:
    if kind == "extra_forbidden":
        return _unknown(key, entries)
    if kind == "missing":
        hint = f"add {key[-1]}" + (f" or {key[-1]}_file" if is_secret(key) else "")
        return [Problem(_near(key, entries)[0].origin_of(key), "is missing", hint)]
    text = _WORDS.get(kind) or message.removeprefix("Value error, ").replace("Input should", "must")
    return [Problem(_near(key, entries)[0].origin_of(key), text)]


def _unknown(key: Key, entries: Mapping[Key, Entry]) -> list[Problem]:
    names = sorted(_names_at(key[:-1]))
    close = get_close_matches(key[-1], names, n=1)
    problems: dict[str, Problem] = {}
    for entry in _near(key, entries):
        name = close[0] if close else ""
        if close and entry.layer == "environment" and entry.is_alone:
            parts = entry.source.removeprefix(PREFIX).split("__")
            name = PREFIX + "__".join([*parts[: len(key) - 1], name.upper(), *parts[len(key) :]])
        origin = entry.origin_of(key)
        hint = f"did you mean {name}?" if close else f"known here: {', '.join(names)}"
        problems[origin] = Problem(origin, "is not a setting", hint)
    return list(problems.values())


def _near(key: Key, entries: Mapping[Key, Entry]) -> list[Entry]:
    """Return what was given at or below ``key``, else beside it, else above; the file's first."""
    for length in range(len(key), 0, -1):
        found = [entry for entry in entries.values() if value_key(entry.key)[:length] == key[:length]]
        if found:
            return sorted(found, key=lambda entry: entry.layer != "file")
    raise LookupError(dotted(key))


def _names_at(key: Key) -> set[str]:
    """Return the settings that a table has, secrets also by the name of their file."""
    at: object = Settings
    for part in key:
        if isinstance(at, type) and issubclass(at, BaseModel):
            field = at.model_fields.get(part)
            at = field.annotation if field else None
        else:
            at = (get_args(at) or (None,))[-1]
    if not (isinstance(at, type) and issubclass(at, BaseModel)):
        return set()
    names = set(at.model_fields)
    return names | {f"{name}_file" for name in names if is_secret((*key, name))}
