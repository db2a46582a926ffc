"""What this host has told of while the database kept no book: a small file, so that nobody is told each minute."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bisonsync.clock import Clock
from bisonsync.store.alerts import Episode

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# Longer than any run sends messages: who holds the file for longer stands still.
PATIENCE_SECONDS = 50.0
_LOOK_SECONDS = 0.2
_LARGEST_BYTES = 4 * 1024 * 1024
_STATES = (None, "OK", "WARNING", "UNKNOWN", "CRITICAL")
# Memory first: what systemd's PrivateTmp gives as the other is empty at each run.
_OPEN_TO_ALL = (Path("/dev/shm"), Path("/tmp"))  # noqa: S108


@dataclass(frozen=True, slots=True)
class Remembered:
    """An episode as this host knows it. ``may_have_arrived``: its next message was sent before, perhaps."""

    episode: Episode
    may_have_arrived: bool = False


@dataclass(slots=True)
class AlertFile:
    """The file of one database, in the first of ``folders`` that takes it; nothing raises for what a disk does.

    ``faults`` says what an operator should hear.
    """

    folders: Sequence[Path]
    name: str
    faults: list[str] = field(default_factory=list[str])

    def load(self, now: datetime) -> list[Remembered]:
        """What the newest file says; nothing where there is none that can be understood.

        Times after ``now``, by a clock that was wrong, count as now: they would keep reminders back.
        """
        for path in sorted(self._files(), key=_modified_at, reverse=True):
            try:
                return _read(path, now)
            except (OSError, ValueError, TypeError) as error:
                self.faults.append(f"{path} cannot be understood and is begun anew ({type(error).__name__})")
        return []

    def save(self, remembered: Sequence[Remembered]) -> bool:
        """Put this in place of what was remembered; False where no place takes it."""
        text = _form().dump_json(list(remembered))
        before = self._files()
        for folder in self.folders:
            try:
                _write(folder / self.name, text)
            except OSError:
                continue
            _remove(path for path in before if path.parent != folder)
            return True
        self.faults.append("nothing can be remembered: what is wrong is told at each look; set STATE_DIRECTORY")
        return False

    def forget(self, checks: Sequence[str], now: datetime) -> None:
        """Drop the episodes of these checks, which the database knows again."""
        left = [one for one in self.load(now) if one.episode.check_name not in checks]
        if not left or not self.save(left):
            _remove(self._files())

    @contextmanager
    def turn(self, clock: Clock) -> Generator[None]:
        """Wait for other runs on this host, though not without end for one that stands still. Raises Stopped."""
        folder = next((folder for folder in self.folders if _is_made(folder)), None)
        if folder is None:
            yield
            return
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            give_up_at = clock.monotonic() + PATIENCE_SECONDS
            while not _is_locked(handle) and clock.monotonic() < give_up_at:
                clock.sleep(_LOOK_SECONDS)
            yield
        finally:
            os.close(handle)

    def _files(self) -> list[Path]:
        """Those that are there and that nobody else can have written."""
        found = [folder / self.name for folder in self.folders if _is_ours(folder, stat.S_ISDIR)]
        return [path for path in found if _is_ours(path, stat.S_ISREG)]


def state_folders(environ: Mapping[str, str]) -> list[Path]:
    """Where a state may be kept, the best place first: systemd's, the user's, else memory and what is open to all."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    homes = [environ.get("XDG_STATE_HOME", ""), f"{environ['HOME']}/.local/state" if environ.get("HOME") else ""]
    found = [Path(given), *(Path(home, "bisonsync") for home in homes if home)]
    # What is open to all may hold somebody else's link: only there none is followed.
    return [folder.resolve() for folder in found if folder.is_absolute()] + [
        folder / f"bisonsync-{os.geteuid()}" for folder in _OPEN_TO_ALL
    ]


def file_name(database_url: str, environ: Mapping[str, str]) -> str:
    """A name by the address of the database, without its password, which may change."""
    try:
        parts = conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        parts = {"dbname": database_url}
    # What the address leaves out the environment says, or a service of either.
    names = ("service", "host", "hostaddr", "port", "dbname", "user")
    around = ("PGSERVICE", "PGSERVICEFILE", "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "XDG_DATA_HOME")
    address = "/".join([*(str(parts.get(name, "")) for name in names), *(environ.get(name, "") for name in around)])
    return f"alerts-{sha256(address.encode()).hexdigest()[:16]}.json"


@cache
def _form() -> TypeAdapter[list[Remembered]]:
    from pydantic import TypeAdapter

    return TypeAdapter(list[Remembered])


def _read(path: Path, now: datetime) -> list[Remembered]:
    with path.open("rb") as file:
        found = _form().validate_json(file.read(_LARGEST_BYTES))
    return [replace(one, episode=_checked(one.episode, now)) for one in found]


def _checked(episode: Episode, now: datetime) -> Episode:
    """The episode without times to come. Raises ValueError, TypeError for what cannot be one."""
    if not {episode.state, episode.told_state} <= set(_STATES):
        raise ValueError(episode.state)
    times = {each.name: getattr(episode, each.name) for each in fields(episode) if each.name.endswith("_at")}
    return replace(episode, **{name: min(at, now) for name, at in times.items() if at is not None})


def _write(path: Path, text: bytes) -> None:
    """Put a file in place as a whole, for our eyes alone. Raises OSError."""
    if not _is_made(path.parent):
        raise PermissionError
    new = path.with_suffix(f".{os.getpid()}")
    with suppress(FileNotFoundError):
        new.unlink()
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _is_made(folder: Path) -> bool:
    """Whether the folder is there now, and ours."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _is_ours(folder, stat.S_ISDIR)


def _is_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of this kind and nobody but us and root can have made or changed it."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return is_kind(found.st_mode) and found.st_uid in (os.geteuid(), 0) and not found.st_mode & 0o022


def _modified_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _is_locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
