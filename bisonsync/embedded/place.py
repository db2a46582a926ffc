"""Where an embedded server lives and which OS user runs it."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bisonsync.errors import ConfigError, DatabaseUnavailable

DATABASE = "bisonsync"
SUPERUSER = "postgres"
PORT = 5432

_ROOT_DATA = Path("/var/lib/bisonsync")
_SOCKETS = Path("/tmp")  # noqa: S108
_MAX_SOCKET_PATH = 103  # bytes: macOS allows 104 with the closing NUL, Linux 108


@dataclass(frozen=True)
class User:
    """An account of the operating system."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class Place:
    """A server's folder. ``user``: whom it runs as when we are root; None: as ourselves."""

    base: Path
    user: User | None

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def log(self) -> Path:
        return self.base / "log"

    @property
    def lock(self) -> Path:
        return self.base / "lock"

    @property
    def socket_dir(self) -> Path:
        """The data folder, unless its path is too long for a socket or holds what a DSN cannot."""
        plain = re.fullmatch(r"/[\w./~+-]*", str(self.data), re.ASCII)
        if plain and len(os.fsencode(self.data / f".s.PGSQL.{PORT}")) <= _MAX_SOCKET_PATH:
            return self.data
        # Neither $TMPDIR nor $XDG_RUNTIME_DIR: cron and a terminal must find the same server.
        return _SOCKETS / f"bisonsync-{self.uid}-{_digest(self.base)}"

    @property
    def socket(self) -> Path:
        return self.socket_dir / f".s.PGSQL.{PORT}"

    @property
    def uid(self) -> int:
        return os.geteuid() if self.user is None else self.user.uid

    @property
    def user_name(self) -> str:
        return self.user.name if self.user else _name_of(os.geteuid())

    @property
    def dsn(self) -> str:
        # All that libpq would else take from the environment (PGPORT, PGUSER).
        return f"postgresql:///{DATABASE}?host={quote(str(self.socket_dir), safe='/')}&port={PORT}&user={SUPERUSER}"

    @property
    def data_major(self) -> int | None:
        """The major version that made the data; None before there is any."""
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise not_ours(self.base) from error


def find_place(data_dir: Path | None) -> Place:
    """The place for this folder (None: the user's data directory), or for root one that the server's user can reach."""
    wished = (data_dir or _default_dir()).resolve()
    if os.geteuid() != 0:
        return Place(wished, None)
    place = Place(wished, _server_user(wished))
    if all(may_pass(parent, place.user) for parent in wished.parents if parent.is_dir()):
        return place
    usual = Path(pwd.getpwuid(0).pw_dir, ".local/share/bisonsync/postgres").resolve()
    elsewhere = _ROOT_DATA / ("postgres" if wished == usual else f"postgres-{_digest(wished)}")
    return Place(elsewhere, _server_user(elsewhere))


def make_base(place: Place) -> None:
    """Make the server's folder, owned by the server's user. Refuses a folder that is not ours."""
    if place.base.is_dir():
        names = {path.name for path in place.base.iterdir()}
        ours = place.base.stat().st_uid == place.uid
        if ours and (not names or names & {"lock", "data"}):
            return
        if names or not (ours or place.user):
            raise not_ours(place.base)
    try:
        _make_parents(place)
        place.base.mkdir(mode=0o700, exist_ok=True)
        if place.user:
            os.chown(place.base, place.user.uid, place.user.gid)
    except OSError as error:
        raise ConfigError(
            f"the folder of the embedded Postgres, {place.base}, cannot be made: {error.strerror}",
            hint="set XDG_DATA_HOME to a folder that can be written",
        ) from error


def make_socket_dir(place: Place) -> None:
    """Make the private folder of a socket that does not fit into the data folder; refuse one that another made."""
    folder = place.socket_dir
    if folder == place.data:
        return
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if place.user:
            os.chown(folder, place.user.uid, place.user.gid)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != place.uid or stat.S_IMODE(found.st_mode) & 0o077:
        raise DatabaseUnavailable(
            f"{folder}, the folder of the embedded Postgres's socket, belongs to somebody else or is open to others",
            hint=f"remove it, or choose a shorter path than {place.base} by XDG_DATA_HOME",
        )


def may_pass(path: Path, user: User | None) -> bool:
    """Whether its mode lets ``user`` enter this folder, or run this file."""
    if user is None:
        return True
    found = path.stat()
    wanted = stat.S_IXUSR if found.st_uid == user.uid else stat.S_IXGRP if found.st_gid == user.gid else stat.S_IXOTH
    return bool(found.st_mode & wanted)


def not_ours(base: Path) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"{base} cannot be this user's embedded Postgres: it belongs to somebody else or holds other files",
        hint="run as its owner, or set XDG_DATA_HOME to a folder of your own",
    )


def _default_dir() -> Path:
    if configured := os.environ.get("XDG_DATA_HOME"):
        return Path(configured) / "bisonsync" / "postgres"
    home = os.environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            raise ConfigError(
                f"user {os.geteuid()} has no home for the embedded Postgres", hint="set XDG_DATA_HOME to a folder"
            ) from None
    return Path(home) / ".local" / "share" / "bisonsync" / "postgres"


def _server_user(base: Path) -> User:
    """For root: the owner of the folder, so that existing data stays usable; else an account without privileges."""
    with suppress(OSError):
        found = base.stat()
        if found.st_uid != 0:
            return User(found.st_uid, found.st_gid, _name_of(found.st_uid))
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return User(entry.pw_uid, entry.pw_gid, name)
    raise ConfigError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as",
        hint="run bisonsync as an ordinary user, or set database_url to another Postgres",
    )


def _make_parents(place: Place) -> None:
    for parent in reversed(place.base.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700, exist_ok=True)
            if place.user:
                parent.chmod(0o755)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
