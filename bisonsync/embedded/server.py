"""Starts, shares, recovers and stops the server of a place."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bisonsync.embedded.binaries import INSTALL_HINT, Binaries, choose_binaries
from bisonsync.embedded.place import DATABASE, PORT, SUPERUSER, Place, find_place, make_base, make_socket_dir, not_ours
from bisonsync.errors import DatabaseUnavailable

START_SECONDS = 60.0
STOP_SECONDS = 60.0

Answer = Literal["ready", "starting", "down"]
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


def start(data_dir: Path | None = None, *, server_options: Mapping[str, str] | None = None) -> str:
    """Return the DSN of the running server, starting it first where needed; it goes on running when we end.

    ``data_dir`` None: the user's data directory. ``server_options`` count only when it has to be started. Raises
    ConfigError without binaries, DatabaseError for data of another major version, DatabaseUnavailable when the server
    does not come up.
    """
    place = find_place(data_dir)
    deadline = time.monotonic() + START_SECONDS
    log_start: int | None = None
    while (answer := _ask(place)) != "ready":
        if time.monotonic() > deadline:
            raise _no_answer(place, answer)
        make_base(place)
        with _lock(place) as lock:
            if lock is not None and log_start is not None:
                raise _did_not_start(place, log_start)
            if lock is not None and _ask(place) == "down":
                log_start = _launch(place, lock, server_options or {})
                deadline = time.monotonic() + START_SECONDS
        time.sleep(0.02 if answer == "down" else 0.1)
    return place.dsn


def stop(data_dir: Path | None = None) -> bool:
    """Shut the server down, ending its connections. False: none was running."""
    place = find_place(data_dir)
    began = time.monotonic()
    found = signalled = False
    while (answer := _ask(place)) != "down" or place.data.is_dir():
        with _lock(place) as lock:
            if answer == "down" and lock is not None:
                break
        found = True
        waited = time.monotonic() - began
        # Without an answer the lock's holder may be a start under way, whose postmaster.pid is still the old one.
        if not signalled and (answer != "down" or waited > 1) and (pid := _pid(place)):
            signalled = True
            # As the server's user: root must not end whatever process that user writes into the file.
            with suppress(DatabaseUnavailable):
                _call(place, ["/bin/sh", "-c", f"kill -INT {pid}"])
        if waited > STOP_SECONDS:
            raise DatabaseUnavailable(
                f"the embedded Postgres in {place.base} (process {_pid(place)}) does not stop",
                hint=f"its log is {place.log}",
            )
        time.sleep(0.02)
    return found


def status(data_dir: Path | None = None) -> Status:
    """Look at the server, without starting it."""
    place = find_place(data_dir)
    answer = _ask(place)
    major = place.data_major
    state: State = "stopped" if major else "absent"
    if answer != "down":
        state = "running" if answer == "ready" else "starting"
    return Status(
        state=state,
        directory=place.base,
        log=place.log,
        dsn=place.dsn,
        os_user=place.user_name,
        major=major,
        pid=_pid(place) if answer != "down" else None,
    )


def _ask(place: Place) -> Answer:
    """Open a session as far as the server's first word: a few milliseconds, no subprocess, no psycopg."""
    words = f"user\0{SUPERUSER}\0database\0{DATABASE}\0\0".encode()
    with socket.socket(socket.AF_UNIX) as conversation:
        conversation.settimeout(5)
        try:
            conversation.connect(str(place.socket))
            conversation.sendall(struct.pack("!II", len(words) + 8, 196608) + words)  # protocol 3.0
            answer = conversation.recv(1024)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return "down"
        except PermissionError as error:
            raise not_ours(place.base) from error
        except OSError:  # a time-out, a full backlog, a server that ends just now
            return "starting"
    if not answer or b"C57P03\0" in answer:
        return "starting"
    return "ready"


@contextmanager
def _lock(place: Place) -> Generator[int | None]:
    """Yield the lock's descriptor, or None while a server or another start holds it."""
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


def _open_lock(place: Place) -> int:
    try:
        try:
            descriptor = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return os.open(place.lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        raise not_ours(place.base) from error
    # Only a file made just now: root must not give away one that the folder's owner put there.
    if place.user:
        os.fchown(descriptor, place.user.uid, place.user.gid)
    return descriptor


def _launch(place: Place, lock: int, options: Mapping[str, str]) -> int:
    """Start the server, holding the lock, and return at once. Returns where its log begins."""
    binaries = choose_binaries(place)
    # With the lock held these are what a killed server or a killed first start left behind.
    shutil.rmtree(place.base / "data.new", ignore_errors=True)
    (place.data / "postmaster.pid").unlink(missing_ok=True)
    place.socket.with_name(f"{place.socket.name}.lock").unlink(missing_ok=True)
    if not place.data.exists():
        _make_cluster(place, binaries, lock, sync=options.get("fsync") != "off")
    make_socket_dir(place)
    settings = {
        **options,
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(place.socket_dir),
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        # The log stays: no statements and no rows in it, which may hold tokens.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_checkpoints": "off",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log_start = place.log.stat().st_size if place.log.exists() else 0
    _call(place, [binaries.bin / "pg_ctl", "start", "-W", "-s", "-l", "log", "-o", shlex.join(words)], lock=lock)
    return log_start


def _make_cluster(place: Place, binaries: Binaries, lock: int, *, sync: bool) -> None:
    """Make the cluster and its database beside their final place, then rename: a crash leaves nothing half made."""
    unfinished = place.base / "data.new"
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    locale = builtin if binaries.major >= 17 else ["--locale=C.UTF-8"]
    # Hosts are refused in case somebody starts the cluster by hand, with TCP.
    guard = ["--auth-local=trust", "--auth-host=reject"]
    speed = [] if sync else ["--no-sync"]
    make = [binaries.bin / "initdb", "-D", unfinished, "-U", SUPERUSER, "--encoding=UTF8", *guard, *locale, *speed]
    _call(place, make, lock=lock)
    alone = [
        binaries.bin / "postgres",
        "--single",
        "-D",
        unfinished,
        "-c",
        f"fsync={'on' if sync else 'off'}",
        "postgres",
    ]
    said = _call(place, alone, lock=lock, text=f"CREATE DATABASE {DATABASE}\n")
    if "ERROR" in said or "FATAL" in said:
        raise DatabaseUnavailable(f"the embedded Postgres could not be set up in {place.base}: {said.strip()}")
    unfinished.rename(place.data)


def _call(place: Place, command: Sequence[str | Path], *, lock: int | None = None, text: str = "") -> str:
    """Run a program as the server's user; it and its children keep the lock. Returns what it said."""
    # Nothing else of our environment: it holds keys, and the server's can be read for as long as it runs.
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
            pass_fds=[] if lock is None else [lock],
            umask=0o077,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            timeout=5 * 60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DatabaseUnavailable(f"{command[0]} cannot be run: {error}", hint=INSTALL_HINT) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if re.search("error:|could not|cannot|FATAL", line)]
        raise DatabaseUnavailable(
            f"{Path(command[0]).name} failed in {place.base}: {' / '.join(lines) or done.stdout.strip()}",
            hint=f"see whether {place.base} can be written and has space; the log, if any, is {place.log}",
        )
    return done.stdout


def _did_not_start(place: Place, log_start: int) -> DatabaseUnavailable:
    with place.log.open("rb") as log:
        log.seek(log_start)
        lines = log.read().decode(errors="replace").splitlines()
    # "the database system is starting up" is its answer to our own asking.
    fatal = [line for line in lines if re.search("FATAL|PANIC", line) and "the database system is" not in line]
    reason = (fatal or lines or ["it said nothing"])[-1]
    return DatabaseUnavailable(
        f"the embedded Postgres in {place.base} did not start: {reason}", hint=f"its log is {place.log}"
    )


def _no_answer(place: Place, answer: Answer) -> DatabaseUnavailable:
    doing = "is still starting or recovering" if answer == "starting" else "runs, but cannot be reached"
    return DatabaseUnavailable(
        f"the embedded Postgres in {place.base} {doing} after {START_SECONDS:.0f} s",
        hint=f"try again; if that does not help, 'bisonsync db stop'. Its log is {place.log}",
    )


def _pid(place: Place) -> int | None:
    try:
        return int((place.data / "postmaster.pid").read_text().split("\n")[0])
    except (OSError, ValueError):
        return None
