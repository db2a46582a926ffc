"""``db``: looks after the embedded Postgres: its state, its end, and a psql on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bisonsync import embedded
from bisonsync.embedded import Status
from bisonsync.errors import ConfigError


@dataclass(frozen=True, slots=True)
class StopResult:
    """What ``stop`` found. ``was_running`` False: there was nothing to stop."""

    was_running: bool
    directory: Path


def status(data_dir: Path | None = None) -> Status:
    """Where the embedded server lives and whether it runs; starts nothing."""
    return embedded.status(data_dir)


def stop(data_dir: Path | None = None) -> StopResult:
    """Shut the embedded server down; the next command that needs it starts it again."""
    was_running = embedded.stop(data_dir)
    return StopResult(was_running=was_running, directory=embedded.status(data_dir).directory)


def psql(arguments: Sequence[str] = (), data_dir: Path | None = None) -> NoReturn:
    """Start the embedded server where needed and become psql on it, with the operator's terminal.

    Not for other databases: their DSN may hold a password, which an argument would show in the process list.
    Raises ConfigError when there is no psql, and as the server's start does.
    """
    program = embedded.psql_path()
    dsn = embedded.start(data_dir)
    try:
        os.execv(program, [str(program), "--dbname", dsn, *arguments])  # noqa: S606
    except OSError as error:
        raise ConfigError(
            f"{program} cannot be run: {error.strerror}", hint="set BISONSYNC_PG_BIN to another bin folder"
        ) from error
