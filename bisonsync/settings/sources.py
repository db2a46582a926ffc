"""Stage one: finds what was given and resolves the database URL. Standard library only, so it costs next to nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bisonsync.errors import ConfigError, UsageError

from . import dsn, layers
from .layers import Entry
from .problems import Problem, refuse
from .secret_files import (
    OTHERS_ANY,
    OTHERS_WRITE,
    Key,
    SecretReader,
    credential_name,
    may_hold_secret,
    names_file,
    value_key,
)
from .urls import split_url

LOCAL_CONFIG = Path("bisonsync.toml")
SYSTEM_CONFIG = Path("/etc/bisonsync/config.toml")

_LARGEST = 1024 * 1024
_HOW_TO_GIVE_URL = (
    "set BISONSYNC_DATABASE_URL, or database_url or database_url_file in bisonsync.toml; "
    "`bisonsync init --embedded` sets up a database of its own"
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that was given, merged by precedence but not yet checked, and what is wrong with it so far."""

    config: Path | None
    entries: Mapping[Key, Entry] = field(repr=False)
    problems: tuple[Problem, ...]
    reader: SecretReader = field(repr=False)

    def database_url(self) -> str:
        """Return the database URL, or ``embedded``. Raises ConfigError when it is absent, malformed or not safe."""
        found = self.find_database_url()
        problems = (*self.problems, *([found] if isinstance(found, Problem) else []))
        if problems or isinstance(found, Problem):
            raise refuse(problems)
        return found

    def find_database_url(self) -> str | Problem:
        """Return the database URL, or what is wrong with it."""
        entry = self.entries.get(("database_url",)) or self.entries.get(("database_url_file",))
        if entry is None:
            return Problem(str(self.config or "settings"), "no database URL is given", _HOW_TO_GIVE_URL)
        found = self.read_secret(entry)
        if isinstance(found, Problem) or found == dsn.EMBEDDED:
            return found
        try:
            dsn.check(found)
        except dsn.Unusable as error:
            return Problem(entry.origin, f"this address cannot be used: {error}", error.hint)
        return found

    def heartbeat_url(self, job: str) -> str | None:
        """Return the address that ``job`` is to ping, if one is set. Raises ConfigError when it cannot be used."""
        entry = self.entries.get(("heartbeats", job)) or self.entries.get(("heartbeats", f"{job}_file"))
        return None if entry is None else _usable_url(self.read_secret(entry), entry.origin)

    def secret_files(self) -> dict[str, Path]:
        """Return the files that the configuration file names for secrets, by the names of their credentials."""
        return {
            credential_name(value_key(entry.key)): self.reader.path(entry.value.strip(), entry.folder).absolute()
            for entry in self.entries.values()
            if entry.layer == "file" and names_file(entry.key) and isinstance(entry.value, str)
        }

    def holds_secrets(self) -> bool:
        """Tell whether the configuration file itself holds a secret."""
        return any(entry.layer == "file" and _is_plain_secret(entry) for entry in self.entries.values())

    def read_secret(self, entry: Entry) -> str | Problem:
        """Return the secret that an entry gives, itself or by a file, or what is wrong with it.

        A credential of systemd with the setting's name takes the place of the file that the configuration names.
        """
        if not isinstance(entry.value, str):
            return Problem(entry.origin, "must be text in quotes", "")
        if names_file(entry.key):
            credential = self.reader.find_credential(value_key(entry.key)) if entry.layer == "file" else None
            return self.reader.read(credential or entry.value.strip(), entry.folder, entry.origin)
        return entry.value.strip() or Problem(entry.origin, "is empty", "give a value, or take the line out")


def locate(
    config: Path | None = None, *, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Sources:
    """Find the configuration file and merge it with the environment and the command line.

    Raises UsageError for a password on the command line, ConfigError for a file that cannot be read or trusted.
    Other problems wait in the result, to be reported together.
    """
    overrides = overrides or {}
    url = overrides.get("database_url", "").strip()
    if url != dsn.EMBEDDED and dsn.holds_secret(url):
        raise UsageError(
            "--database-url must not hold a password: every user of this machine could read it in the process list",
            hint="set BISONSYNC_DATABASE_URL, or database_url_file in bisonsync.toml",
        )
    problems: list[Problem] = []
    path, file_entries = _read_config(config, environ, problems)
    merged = layers.merge(
        [file_entries, layers.environment_layer(environ, problems), layers.option_layer(overrides, problems)]
    )
    return Sources(path, merged, tuple(problems), _secret_reader(environ))


def read_heartbeat_url_file(given: str, *, environ: Mapping[str, str]) -> str:
    """Return the address in the file of --heartbeat-url-file. Raises ConfigError when it cannot be used."""
    origin = "option --heartbeat-url-file"
    return _usable_url(_secret_reader(environ).read(given.strip(), Path.cwd(), origin), origin)


def config_candidates(environ: Mapping[str, str]) -> list[Path]:
    """Return where a configuration file is looked for when none is named, first come first served."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):
        base = f"{environ['HOME']}/.config" if environ.get("HOME") else ""
    user = [Path(base) / "bisonsync" / "config.toml"] if base else []
    return [LOCAL_CONFIG, *user, SYSTEM_CONFIG]


def _secret_reader(environ: Mapping[str, str]) -> SecretReader:
    return SecretReader({name: environ[name] for name in ("CREDENTIALS_DIRECTORY", "HOME") if environ.get(name)})


def _usable_url(found: str | Problem, origin: str) -> str:
    try:
        if isinstance(found, Problem):
            raise refuse([found])
        split_url(found)
    except ValueError as error:
        raise refuse(
            [Problem(origin, str(error), "give the address that the watcher shows, and nothing else")]
        ) from None
    return found


def _read_config(
    config: Path | None, environ: Mapping[str, str], problems: list[Problem]
) -> tuple[Path | None, layers.Layer]:
    named = config or (Path(environ["BISONSYNC_CONFIG"]) if environ.get("BISONSYNC_CONFIG") else None)
    for path in [named] if named else config_candidates(environ):
        try:
            content, mode = _read_bytes(path, is_named=named is not None)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
            raise ConfigError(f"cannot read {path}: {reason}", hint="name another file with --config") from None
        entries = layers.file_layer(_parse(content, path), path, problems)
        _check_secrecy(path, mode, entries, problems)
        return path, entries
    if named:
        by = "--config" if config else "$BISONSYNC_CONFIG"
        raise ConfigError(f"there is no file {named}, which {by} names", hint="`bisonsync init` writes one")
    return None, {}


def _read_bytes(path: Path, *, is_named: bool) -> tuple[bytes, int]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        # A device or a pipe that the operator names has no mode worth looking at: /dev/null means no file at all.
        if stat.S_ISREG(status.st_mode):
            _check_trust(path, status, is_named=is_named)
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ConfigError(
            f"{path} is larger than 1 MiB: that is no configuration", hint="name another file with --config"
        )
    return content, status.st_mode


def _check_trust(path: Path, status: os.stat_result, *, is_named: bool) -> None:
    if status.st_mode & OTHERS_WRITE:
        shown = f"{stat.S_IMODE(status.st_mode):04o}"
        raise ConfigError(
            f"others can write {path} (mode {shown}): what it says cannot be trusted", hint=f"chmod 600 {path}"
        )
    # Whoever owns the folder we happen to stand in must not decide where our keys are sent.
    if not is_named and path == LOCAL_CONFIG and status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{path} in this folder belongs to another user", hint=f"if you trust it, name it: --config {path}"
        )


def _parse(content: bytes, path: Path) -> dict[str, object]:
    import tomllib

    try:
        return cast("dict[str, object]", tomllib.loads(content.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}:1: this is not UTF-8 text", hint="save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            _place(str(error), path, content), hint="correct the file; `bisonsync config check`"
        ) from None


def _place(message: str, path: Path, content: bytes) -> str:
    """Return a parser's message as ``file:line:column: what``."""
    text, _, place = message.partition(" (at ")
    found = re.search(r"line (\d+), column (\d+)", place)
    if found:
        return f"{path}:{found[1]}:{found[2]}: {text}"
    if place:
        lines = content.split(b"\n")
        return f"{path}:{len(lines)}:{len(lines[-1]) + 1}: {text} (the file ends here)"
    return f"{path}:1:1: this is no TOML: a value is out of range"


def _check_secrecy(path: Path, mode: int, entries: layers.Layer, problems: list[Problem]) -> None:
    if not (mode & OTHERS_ANY and stat.S_ISREG(mode)):
        return
    for key, entry in entries.items():
        if _is_plain_secret(entry):
            shown = f"{stat.S_IMODE(mode):04o}"
            hint = f"chmod 600 {path}, or move the secret to a file of its own: {value_key(key)[-1]}_file"
            problems.append(
                Problem(entry.origin, f"holds a secret, and others can read this file (mode {shown})", hint)
            )
            return


def _is_plain_secret(entry: Entry) -> bool:
    """Tell whether an entry itself holds what other users must not read."""
    if not isinstance(entry.value, str) or not may_hold_secret(entry.key):
        return False
    return entry.key != ("database_url",) or (entry.value != dsn.EMBEDDED and dsn.holds_secret(entry.value))
