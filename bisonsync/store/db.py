"""Connections and transactions; turns what psycopg raises into errors an operator can act on."""

from __future__ import annotations

import json
import logging
import math
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import class_row
from psycopg.types.json import set_json_loads

from bisonsync.clock import Clock
from bisonsync.errors import (
    BisonsyncError,
    DatabaseUnavailable,
    DeadlineExceeded,
    Stopped,
)
from bisonsync.queries import load_queries
from bisonsync.store.db_errors import LOCKED, LOST, PASSING_STATES, Blocker, first_line, locked_out, misread, translated
from bisonsync.store.refusals import explain
from bisonsync.store.watched import OutOfTime, WatchedConnection, cancel_all

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

_Q = load_queries("db")

_CONNECT_SECONDS = 5
# A host that vanishes without a word is noticed within about 20 s instead of TCP's two hours.
_CONNECTION_DEFAULTS = {
    "connect_timeout": str(_CONNECT_SECONDS),
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
}
# Every server and pooler speaks it; older poolers refuse whoever asks for more. The option came with libpq 18.
if psycopg.pq.version() >= 180000:
    _CONNECTION_DEFAULTS["max_protocol_version"] = "3.0"
# Not the address's or the environment's to choose: read as anything else, text is bytes.
_CONNECTION_FIXED = {"client_encoding": "UTF8"}
# How much later than its own time limit the server's answer is still waited for: beyond it nobody is there.
_ANSWER_GRACE_SECONDS = 5.0
# What is under way when the run is stopped, or its deadline comes, may end within so long.
_END_GRACE_SECONDS = 2.0
# Who does not even wait for that still does not leave the server computing.
_HASTY_CANCEL_SECONDS = 1.0
# How long the answer is waited for that names who holds a lock.
_NAMING_SECONDS = 1.0
# A transaction that breaks off again and again is broken by what it does, not by a restart.
_BREAKS_TOLERATED = 5
# Once so many transactions were locked out, the others of the run wait once instead of several times.
_LOCK_OUTS_TOLERATED = 3

_REACH_HINT = "check that it runs and can be reached"

# It warns of roll-backs on connections that are gone, which the errors here tell better.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class _Limits:
    """Time limits of one transaction in seconds; 0 is none."""

    statement: float
    lock: float
    idle: float


class Database:
    """At most ``max_connections`` connections, opened when needed, usable through a transaction pooler.

    No session state is kept: time limits, and all settings that a statement relies on, are set inside each transaction
    (``pin_settings``); statements are never prepared.
    ``deadline`` is the monotonic instant after which nothing is tried again or waited for any more. What is then under
    way, or when the run is stopped, is cancelled: the server would go on with it, and keep its locks. That raises
    DeadlineExceeded where ``ends_by_deadline``, else DatabaseUnavailable, as silence always does.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str,
        clock: Clock,
        max_connections: int = 6,
        first_connect_seconds: float = 5.0,
        reconnect_seconds: float = 45.0,
    ) -> None:
        try:
            given = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError as error:
            raise misread(dsn, str(error)) from None
        defaults = {**_CONNECTION_DEFAULTS, "application_name": application_name}
        self._conninfo = make_conninfo("", **{**defaults, **given, **_CONNECTION_FIXED})
        self.where = _where(given)
        self.deadline: float | None = None
        self.ends_by_deadline = False
        self._clock = clock
        self._places = threading.Semaphore(max_connections)
        self._idle: list[WatchedConnection] = []
        self._opened: weakref.WeakSet[WatchedConnection] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._patience = first_connect_seconds
        self._reconnect_seconds = reconnect_seconds
        self._lost_since: float | None = None
        self._stopped_since: float | None = None
        self._lock_outs = 0

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        statement_timeout_seconds: float = 30.0,
        lock_timeout_seconds: float = 3.0,
        idle_timeout_seconds: float = 5.0,
        lock_attempts: int = 2,
    ) -> T:
        """Do ``work`` in one transaction and commit it.

        Tried again as a whole when the connection is lost (it may then have been committed already: ``work`` must
        be safe to repeat), on a deadlock, and up to ``lock_attempts`` times when a lock does not come free. The idle
        limit is shorter than the waits for a lock: a process that stands still lets go before others give up.
        Raises DatabaseUnavailable, SchemaMismatch, DatabaseError; Stopped, DeadlineExceeded.
        """
        limits = _Limits(statement_timeout_seconds, lock_timeout_seconds, idle_timeout_seconds)
        attempts = lock_attempts if self._lock_outs < _LOCK_OUTS_TOLERATED else 1
        locked = broken = 0
        pause = 0.25
        while True:
            blockers: list[str] = []
            began = False
            is_last = locked + 1 >= attempts or self._is_over(in_seconds=limits.lock)
            try:
                with self._transaction(limits) as (conn, backend_pid):
                    began = True
                    with self._naming_blockers(backend_pid, limits, blockers if is_last else None):
                        result = work(conn)
            except LOCKED as error:
                locked += 1
                if is_last:
                    self._lock_outs += 1
                    raise locked_out(error, self.where, blockers) from error
            except LOST as error:
                broken += began
                if isinstance(error, OutOfTime) and error.is_alive and self.ends_by_deadline:
                    raise DeadlineExceeded(
                        f"database {self.where}: the deadline came in the middle of a statement, which was cancelled",
                        hint="what is committed stays; run it again, or give it longer with --deadline",
                    ) from error
                self._refuse_if_final(error)
                self._drop_idle()
                if self._is_lost_for_good() or broken > _BREAKS_TOLERATED or self._is_over():
                    raise self._unavailable(error) from error
            except psycopg.Error as error:
                raise translated(error, self.where) from error
            else:
                self._patience = self._reconnect_seconds
                self._lost_since = None
                return result
            self._clock.sleep(pause)
            pause = min(2 * pause, 4.0)

    def close(self) -> None:
        """Close all idle connections, and cancel what threads that were left behind still have under way."""
        self._drop_idle()
        self.cancel()

    def cancel(self) -> None:
        """Have the server end what is under way, for a process that leaves at once. For signal handlers, too."""
        opened: list[WatchedConnection] = []
        # Without a lock, which a signal handler could wait for in vain: another thread may add one meanwhile.
        for _ in range(3):
            with suppress(RuntimeError):
                opened = list(self._opened)
                break
        under_way = [conn for conn in opened if conn.is_cancellable]
        cancel_all(under_way, _HASTY_CANCEL_SECONDS)

    def connect(self) -> Connection:
        """A connection of one's own, in autocommit; the caller closes it. Raises like ``run``, without retries."""
        try:
            conn = self._open()
        except psycopg.OperationalError as error:
            self._refuse_if_final(error)
            raise self._unavailable(error) from error
        conn.may_cancel = True
        return conn

    @contextmanager
    def _transaction(self, limits: _Limits) -> Generator[tuple[Connection, int]]:
        """A transaction with its settings pinned, and the process id of the server's end."""
        with self._places:
            conn = self._take()
            conn.still_waiting = partial(self._check_waiting, limits.statement)
            try:
                with conn.transaction():
                    # One round trip, in which the first statement of a connection also finds out that it is dead.
                    row = conn.execute(
                        _Q["pin_settings"],
                        {
                            "statement": f"{limits.statement * 1000:.0f}",
                            "lock": f"{limits.lock * 1000:.0f}",
                            "idle": f"{limits.idle * 1000:.0f}",
                        },
                    ).fetchone()
                    conn.may_cancel = True
                    try:
                        yield conn, row[0] if row else 0
                    finally:
                        conn.may_cancel = False
            except BaseException:
                # Whatever happened, this connection's state is in doubt; a new one costs a few milliseconds.
                conn.close()
                raise
            with self._lock:
                self._idle.append(conn)

    def _take(self) -> WatchedConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._open()

    def _open(self) -> WatchedConnection:
        is_short = self._is_over(in_seconds=_CONNECT_SECONDS)
        conninfo = make_conninfo(self._conninfo, connect_timeout=2) if is_short else self._conninfo
        conn = WatchedConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        conn.now = self._clock.monotonic
        conn.still_waiting = partial(self._check_waiting, 0.0)
        # Part of each BEGIN: under a stricter default, runs side by side would fail each other's commits.
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        self._opened.add(conn)
        set_json_loads(_load_json, conn)
        return conn

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()

    def _check_waiting(self, statement_timeout_seconds: float, seconds: float) -> None:
        """Raise when an answer has been waited for long enough."""
        if statement_timeout_seconds and seconds > statement_timeout_seconds + _ANSWER_GRACE_SECONDS:
            raise psycopg.OperationalError(f"no answer for {seconds:.0f} s")
        now = self._clock.monotonic()
        if self.deadline is not None and now > self.deadline + _END_GRACE_SECONDS:
            raise OutOfTime(f"no answer for {seconds:.0f} s, and the run's deadline has come")
        try:
            self._clock.check()
        except Stopped:
            self._stopped_since = now if self._stopped_since is None else self._stopped_since
            if now > self._stopped_since + _END_GRACE_SECONDS:
                raise

    def _is_over(self, *, in_seconds: float = 0.0) -> bool:
        return self.deadline is not None and self._clock.monotonic() + in_seconds >= self.deadline

    def _is_lost_for_good(self) -> bool:
        """Note that a connection was lost; True when all have been for too long."""
        now = self._clock.monotonic()
        with self._lock:
            self._lost_since = now if self._lost_since is None else self._lost_since
            return now >= self._lost_since + self._patience

    def _refuse_if_final(self, error: psycopg.Error) -> None:
        """Raise at once what no waiting cures: a refused login, an unknown database, a statement that took too long."""
        if error.sqlstate:
            if not error.sqlstate.startswith(PASSING_STATES):
                raise translated(error, self.where) from error
            return
        refusal = explain(str(error))
        if refusal is not None and refusal.is_final:
            said = " refuses the login" if refusal.is_of_server else ""
            raise DatabaseUnavailable(f"database {self.where}{said}: {refusal.reason}", hint=refusal.hint) from error

    def _unavailable(self, error: psycopg.Error) -> DatabaseUnavailable:
        refusal = explain(str(error))
        hint = (refusal.hint if refusal else "") or _REACH_HINT
        return DatabaseUnavailable(f"database {self.where}: {first_line(error)}", hint=hint)

    @contextmanager
    def _naming_blockers(self, backend_pid: int, limits: _Limits, found: list[str] | None) -> Generator[None]:
        """While a lock is waited for, look who holds it: afterwards nobody can tell."""
        if found is None or not limits.lock:
            yield
            return
        # Time enough is left for a new connection to a server far away.
        timer = threading.Timer(limits.lock * 0.3, self._find_blockers, (backend_pid, found))
        timer.daemon = True
        timer.start()
        try:
            yield
        except LOCKED:
            # It may have asked in time, and its answer be on the way.
            timer.cancel()
            timer.join(_NAMING_SECONDS)
            raise
        finally:
            timer.cancel()

    def _find_blockers(self, backend_pid: int, found: list[str]) -> None:
        try:
            with self.connect() as conn, conn.cursor(row_factory=class_row(Blocker)) as cursor:
                rows = cursor.execute(_Q["find_blockers"], {"backend_pid": backend_pid}).fetchall()
        except (psycopg.Error, BisonsyncError):
            # The error to come is told without names.
            return
        found += map(str, rows)


def _parse_int(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        # Longer than Python converts, there and back.
        return digits


def _parse_float(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


_JSON = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float)


def _load_json(text: str | bytes) -> Any:
    """What a json column holds; a number that Python cannot hold is its digits."""
    return _JSON.decode(text if isinstance(text, str) else text.decode())


def join_by_hashing(conn: Connection) -> None:
    """Plan the rest of this transaction without nested loops: for statements that compare whole lists."""
    conn.execute(_Q["join_by_hashing"])


def _where(given: dict[str, Any]) -> str:
    name = given.get("dbname") or given.get("user") or "postgres"
    return f"{name} at {given.get('host') or given.get('hostaddr') or 'the local socket'}"
