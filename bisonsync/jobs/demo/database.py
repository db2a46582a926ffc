"""The Postgres that a demo has for itself."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bisonsync.errors import LeaseBusy

if TYPE_CHECKING:
    from bisonsync.embedded import Status


class Postgres(Protocol):
    """What the demo needs of the embedded server."""

    def start(self, data_dir: Path | None = None, *, server_options: Mapping[str, str] | None = None) -> str: ...

    def stop(self, data_dir: Path | None = None) -> bool: ...

    def status(self, data_dir: Path | None = None) -> Status: ...


@contextmanager
def own_database(postgres: Postgres) -> Generator[str]:
    """A Postgres of the demo's own beside the user's, empty at the beginning and gone in the end. Yields its DSN."""
    usual = postgres.status().directory
    folder = usual.with_name(f"demo{usual.name.removeprefix('postgres')}")
    is_left_over = postgres.status(folder).state != "absent"
    options = {"fsync": "off"}
    dsn = postgres.start(folder, server_options=options)
    folder = postgres.status(folder).directory
    with _alone(folder):
        try:
            if is_left_over:
                postgres.stop(folder)
                shutil.rmtree(folder / "data")
                dsn = postgres.start(folder, server_options=options)
            yield dsn
        finally:
            postgres.stop(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Keep other demos out, for as long as this process lives. Raises LeaseBusy."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseBusy("another demo of this user is running", hint="wait for its end, or end it") from None
        yield
    finally:
        os.close(descriptor)
