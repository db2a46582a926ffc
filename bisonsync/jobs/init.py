"""``init``: writes a configuration file to begin with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisonsync.errors import ConfigError, UsageError
from bisonsync.settings import dsn, loading, locate, writing
from bisonsync.settings.problems import refuse
from bisonsync.settings.sources import config_candidates

_HEADER = """bisonsync: settings. Option > environment (BISONSYNC_…, __ nests) > this file > default.
`bisonsync config show` lists every setting with its origin, `bisonsync config check` finds mistakes.
A secret is given by a file of its own (…_file, mode 0600, relative to this folder) or by the environment."""
_NO_DATABASE = """
The database is not named here: set BISONSYNC_DATABASE_URL, or add
database_url_file = "database.url"    # or database_url = "embedded"
"""
_NO_INSTANCE = """
Name your Email Bison host:
[instances.main]
base_url = "https://send.example.com"
api_key_file = "main.key"             # super-admin: only for discover, mint-tokens, verify
"""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator wants in the file. At most one of the three ways to name a database."""

    embedded: bool = False
    database_url: str | None = None
    database_url_file: str | None = None
    instance: str = "main"
    base_url: str | None = None
    api_key_file: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The file's text, whether it was written, and what to do next, a line each."""

    path: Path
    text: str
    is_written: bool
    next_steps: tuple[str, ...]


def run(
    path: Path, choices: Choices, *, environ: Mapping[str, str], force: bool = False, dry_run: bool = False
) -> Result:
    """Write a configuration file with mode 0600.

    Raises UsageError for choices that exclude each other or show a password, ConfigError for values that no run would
    accept and for a file that exists, unless ``force``.
    """
    tree = _tree(choices)
    has_database = any(name.startswith("database_url") for name in tree)
    header = _HEADER + ("" if has_database else "\n" + _NO_DATABASE) + ("" if choices.base_url else "\n" + _NO_INSTANCE)
    text = writing.render(header, tree)
    if not dry_run:
        writing.write(path, text, force=force)
    return Result(path, text, not dry_run, tuple(_next_steps(path, choices, tree, environ)))


def _tree(choices: Choices) -> dict[str, Any]:
    ways = [choices.embedded, choices.database_url is not None, choices.database_url_file is not None]
    if sum(ways) > 1:
        raise UsageError("only one database can be named", hint="--embedded, --database-url or --database-url-file")
    if choices.api_key_file and not choices.base_url:
        raise UsageError("--api-key-file needs a host", hint="add --base-url https://…")
    given = {"database_url": dsn.EMBEDDED if choices.database_url is None else choices.database_url}
    if choices.base_url is not None:
        given[f"instances.{choices.instance.replace('.', ' ')}.base_url"] = choices.base_url
    settings, problems = loading.check(locate(Path("/dev/null"), environ={}, overrides=given))
    if settings is None:
        raise refuse(problems)
    tree: dict[str, Any] = {}
    if choices.embedded or choices.database_url is not None:
        tree["database_url"] = settings.database_url.get_secret_value()
    elif choices.database_url_file is not None:
        tree["database_url_file"] = _file_name(choices.database_url_file, "--database-url-file")
    for name, instance in settings.instances.items():
        tree["instances"] = {name: {"base_url": instance.base_url}}
        if choices.api_key_file is not None:
            tree["instances"][name]["api_key_file"] = _file_name(choices.api_key_file, "--api-key-file")
    return tree


def _file_name(given: str, option: str) -> str:
    if not given.strip():
        raise ConfigError(f"option {option}: is empty", hint="name the file that holds the secret")
    return given.strip()


def _next_steps(path: Path, choices: Choices, tree: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    steps: list[str] = []
    if choices.database_url_file is not None:
        steps.append(f"put the database URL into {_quoted(path, choices.database_url_file)}, mode 0600")
    elif "database_url" not in tree:
        steps.append("set BISONSYNC_DATABASE_URL")
    if choices.api_key_file is not None:
        steps.append(f"put the super-admin key into {_quoted(path, choices.api_key_file)}, mode 0600")
    elif choices.base_url is not None:
        variable = next(iter(tree["instances"])).upper().replace("-", "_")
        steps.append(f"set BISONSYNC_INSTANCES__{variable}__API_KEY to the super-admin key")
    else:
        steps.append(f"name your Email Bison host in {path}")
    is_found = path.absolute() in [candidate.absolute() for candidate in config_candidates(environ)]
    named = "" if is_found else f" -c {shlex.quote(str(path))}"
    commands = ("config check", "migrate", "workspaces discover", "workspaces mint-tokens", "poll-accounts")
    return steps + [f"bisonsync{named} {command}" for command in commands]


def _quoted(path: Path, name: str) -> str:
    return shlex.quote(name if name.startswith(("$", "~/")) else str(path.parent / name))
