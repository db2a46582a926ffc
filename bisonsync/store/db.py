"""Connections and transactions; turns what psycopg raises into errors an operator can act on."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from psycopg.types.json import set_json_loads

from bisonsync.clock import Clock
from bisonsync.errors import (
    BisonsyncError,
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
    DeadlineExceeded,
    SchemaMismatch,
    Stopped,
)
from bisonsync.queries import load_queries
from bisonsync.store.refusals import explain

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
# Then the server is asked to cancel it, and so long waited for its answer.
_CANCEL_SECONDS = 1.5
# Who does not even wait for that still does not leave the server computing.
_HASTY_CANCEL_SECONDS = 1.0
# How long the answer is waited for that names who holds a lock.
_NAMING_SECONDS = 1.0
# A transaction that breaks off again and again is broken by what it does, not by a restart.
_BREAKS_TOLERATED = 5
# Once so many transactions were locked out, the others of the run wait once instead of several times.
_LOCK_OUTS_TOLERATED = 3

_LOCKED = (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure)
_LOST = (psycopg.OperationalError, psycopg.InterfaceError, pg.IdleInTransactionSessionTimeout)
_PASSING_STATES = ("08", "53300", "57P01", "57P02", "57P03", "57P05", "25P03")
_MIGRATE_HINT = "run 'bisonsync migrate'"
_REACH_HINT = "check that it runs and can be reached"

# It warns of roll-backs on connections that are gone, which the errors here tell better.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class _Limits:
    """Time limits of one transaction in seconds; 0 is none."""

    statement: float
    lock: float
    idle: float


@dataclass(frozen=True, slots=True)
class _Blocker:
    """A session that keeps another waiting, as far as this role may see it; ``since``: in UTC, its transaction."""

    pid: int
    user_name: str | None
    application: str | None
    address: str | None
    state: str | None
    since: str | None
    seconds: int | None
    is_hidden: bool

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts; ROLLBACK PREPARED ends it)"
        user = f"user {self.user_name}" if self.user_name else ""
        known = [
            f"{user} at {self.address}" if self.address else user,
            f"calls itself {self.application!r}" if self.application else "",
            f"{self.state} for {self.seconds} s, since {self.since} UTC" if self.since else self.state or "",
            "address, state and since when are hidden from this role: GRANT pg_read_all_stats"
            if self.is_hidden
            else "",
        ]
        return f"pid {self.pid} ({', '.join(text for text in known if text) or 'it has just ended'})"


class _OutOfTime(psycopg.OperationalError):
    """The deadline came before the answer. ``is_alive``: the server then still answered a request to cancel."""

    is_alive = False


class _WatchedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waiting can be ended: libpq by itself waits for ever on a peer that only acknowledges.

    ``may_cancel``: what is under way can be cancelled without harm to others. Not so a BEGIN or COMMIT: behind a
    pooler the server's end may be another client's by the time that the request arrives.
    """

    now: Callable[[], float]
    still_waiting: Callable[[float], None]
    may_cancel = False

    @property
    def is_cancellable(self) -> bool:
        """True while the server is at a statement of ours that may be cancelled."""
        return self.may_cancel and not self.closed and self.pgconn.transaction_status == TransactionStatus.ACTIVE

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """As psycopg's, which looks up ten times a second; ``still_waiting`` then hears for how long, and may raise."""
        return super().wait(self._watch(gen), *args, **kwargs)

    def _watch(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        ready: Any = None
        began = self.now()
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as ended:
                return ended.value
            ready = yield wanted
            try:
                self.still_waiting(self.now() - began)
            except BaseException as error:
                is_alive = yield from self._give_up(gen, ready)
                if isinstance(error, _OutOfTime):
                    error.is_alive = is_alive
                raise

    def _give_up(self, gen: Generator[Any, Any, Any], ready: Any) -> Generator[Any, Any, bool]:
        """Have the server end what it is at, which it would go on with, and close; True if it answered in time."""
        try:
            if self.is_cancellable:
                give_up_at = self.now() + _CANCEL_SECONDS
                _cancel([self], _CANCEL_SECONDS)
                while self.now() < give_up_at:
                    ready = yield gen.send(ready)
        except StopIteration:
            return True
        except psycopg.Error as error:
            return error.sqlstate is not None
        finally:
            # Cancelled or in the middle of an answer: of no use any more, and a roll-back would wait again.
            self.close()
        return False


def _cancel(connections: Iterable[_WatchedConnection], seconds: float) -> None:
    """Ask the server, side by side, to end what these connections are at; return when it has heard, or time is up."""

    def ask(conn: _WatchedConnection) -> None:
        with suppress(psycopg.Error):
            conn.cancel_safe(timeout=seconds)

    # In threads, for an older libpq knows no time-out here.
    asking = [threading.Thread(target=ask, args=(conn,), name="cancel", daemon=True) for conn in connections]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(seconds)


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
            raise _misread(dsn, str(error)) from None
        defaults = {**_CONNECTION_DEFAULTS, "application_name": application_name}
        self._conninfo = make_conninfo("", **{**defaults, **given, **_CONNECTION_FIXED})
        self.where = _where(given)
        self.deadline: float | None = None
        self.ends_by_deadline = False
        self._clock = clock
        self._places = threading.Semaphore(max_connections)
        self._idle: list[_WatchedConnection] = []
        self._opened: weakref.WeakSet[_WatchedConnection] = weakref.WeakSet()
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
            except _LOCKED as error:
                locked += 1
                if is_last:
                    self._lock_outs += 1
                    raise _locked_out(error, self.where, blockers) from error
            except _LOST as error:
                broken += began
                if isinstance(error, _OutOfTime) and error.is_alive and self.ends_by_deadline:
                    raise DeadlineExceeded(
                        f"database {self.where}: the deadline came in the middle of a statement, which was cancelled",
                        hint="what is committed stays; run it again, or give it longer with --deadline",
                    ) from error
                self._refuse_if_final(error)
                self._drop_idle()
                if self._is_lost_for_good() or broken > _BREAKS_TOLERATED or self._is_over():
                    raise self._unavailable(error) from error
            except psycopg.Error as error:
                raise _translated(error, self.where) from error
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
        opened: list[_WatchedConnection] = []
        # Without a lock, which a signal handler could wait for in vain: another thread may add one meanwhile.
        for _ in range(3):
            with suppress(RuntimeError):
                opened = list(self._opened)
                break
        under_way = [conn for conn in opened if conn.is_cancellable]
        _cancel(under_way, _HASTY_CANCEL_SECONDS)

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

    def _take(self) -> _WatchedConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._open()

    def _open(self) -> _WatchedConnection:
        is_short = self._is_over(in_seconds=_CONNECT_SECONDS)
        conninfo = make_conninfo(self._conninfo, connect_timeout=2) if is_short else self._conninfo
        conn = _WatchedConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
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
            raise _OutOfTime(f"no answer for {seconds:.0f} s, and the run's deadline has come")
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
            if not error.sqlstate.startswith(_PASSING_STATES):
                raise _translated(error, self.where) from error
            return
        refusal = explain(str(error))
        if refusal is not None and refusal.is_final:
            said = " refuses the login" if refusal.is_of_server else ""
            raise DatabaseUnavailable(f"database {self.where}{said}: {refusal.reason}", hint=refusal.hint) from error

    def _unavailable(self, error: psycopg.Error) -> DatabaseUnavailable:
        refusal = explain(str(error))
        hint = (refusal.hint if refusal else "") or _REACH_HINT
        return DatabaseUnavailable(f"database {self.where}: {_first_line(error)}", hint=hint)

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
        except _LOCKED:
            # It may have asked in time, and its answer be on the way.
            timer.cancel()
            timer.join(_NAMING_SECONDS)
            raise
        finally:
            timer.cancel()

    def _find_blockers(self, backend_pid: int, found: list[str]) -> None:
        try:
            with self.connect() as conn, conn.cursor(row_factory=class_row(_Blocker)) as cursor:
                rows = cursor.execute(_Q["find_blockers"], {"backend_pid": backend_pid}).fetchall()
        except (psycopg.Error, BisonsyncError):
            # The error to come is told without names.
            return
        found += map(str, rows)


def _misread(dsn: str, said: str) -> ConfigError:
    """The error for an address that libpq does not take. What may be a piece of a password is not named."""
    unknown = re.search(r'invalid URI query parameter: "(\w+)"', said)
    if unknown and "password=" not in dsn:
        return ConfigError(
            f"database_url holds a parameter that libpq does not know: {unknown[1]}",
            hint=f"take {unknown[1]}=… out of it: only libpq's own parameters are taken, as sslmode=require",
        )
    return ConfigError(
        "database_url is not a connection string that Postgres understands",
        hint="write it as postgresql://user@host:5432/database",
    )


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


def _locked_out(error: psycopg.Error, where: str, blockers: list[str]) -> DatabaseError:
    """The error for a lock that did not come free, naming who holds it."""
    if not isinstance(error, pg.LockNotAvailable):
        return DatabaseError(
            f"database {where}: gave way to other sessions, again and again ({_first_line(error)})",
            hint="the next run tries again",
        )
    held = f" held by {'; '.join(blockers)}" if blockers else ""
    # The server's words say no more than that; ours say for what.
    why = f" ({_first_line(error)})" if not held or error.diag.message_primary is None else ""
    return DatabaseError(
        f"database {where}: timed out waiting for a lock{held}{why}",
        hint="let that session end, or end it with pg_terminate_backend(pid); the next run tries again",
    )


def _translated(error: psycopg.Error, where: str) -> DatabaseError:
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.UndefinedFunction | pg.InvalidSchemaName):
        return SchemaMismatch(
            f"database {where} does not have the schema this version expects: {_first_line(error)}", hint=_MIGRATE_HINT
        )
    hint = "see the server's log"
    if isinstance(error, pg.DependentObjectsStillExist):
        what = "; ".join((error.diag.message_detail or "").splitlines()[:3])
        return DatabaseError(
            f"database {where}: {_first_line(error)} ({what})", hint="drop them, or let them read another table"
        )
    if isinstance(error, pg.InsufficientPrivilege):
        hint = "connect as the owner of the tables, or grant the right"
    elif isinstance(error, pg.ReadOnlySqlTransaction):
        hint = (
            "a standby (give the primary's address), a full disk (Supabase freezes at 95 %), or a setting of role or"
            " database; which of them it is says 'bisonsync health database'"
        )
    elif isinstance(error, pg.QueryCanceled):
        hint = "look for what keeps it busy; the next run tries again"
    elif isinstance(error, pg.DiskFull):
        hint = "make room on the server"
    return DatabaseError(f"database {where}: {_first_line(error)}", hint=hint)


def is_row_fault(error: BaseException) -> bool:
    """True for errors that the values of a row cause, which other rows need not share."""
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError | pg.RaiseException)


def join_by_hashing(conn: Connection) -> None:
    """Plan the rest of this transaction without nested loops: for statements that compare whole lists."""
    conn.execute(_Q["join_by_hashing"])


def is_lock_fault(error: BaseException) -> bool:
    """True for errors that end with the transaction of another session: the same may succeed later."""
    return isinstance(error, _LOCKED)


def _where(given: dict[str, Any]) -> str:
    name = given.get("dbname") or given.get("user") or "postgres"
    return f"{name} at {given.get('host') or given.get('hostaddr') or 'the local socket'}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
