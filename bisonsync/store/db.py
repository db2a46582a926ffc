"""Connections and transactions; turns what psycopg raises into errors an operator can act on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bisonsync.clock import Clock
from bisonsync.errors import ConfigError, DatabaseError, DatabaseUnavailable, SchemaMismatch
from bisonsync.queries import load_queries

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

_Q = load_queries("db")

# A host that vanishes without a word is noticed within about 20 s instead of TCP's two hours.
_CONNECTION_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
}
_PASSING_REFUSALS = ("starting up", "shutting down", "recovery", "too many", "remaining connection slots", "not yet")
_MIGRATE_HINT = "run 'bisonsync migrate'"


class Database:
    """At most ``max_connections`` connections, opened when needed, usable through a transaction pooler.

    No session state is kept: time-outs are set inside each transaction, statements are never prepared.
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
        except psycopg.ProgrammingError:
            raise ConfigError(
                "database_url is not a connection string that Postgres understands",
                hint="write it as postgresql://user@host:5432/database",
            ) from None
        defaults = {**_CONNECTION_DEFAULTS, "application_name": application_name}
        self._conninfo = make_conninfo("", **{**defaults, **given})
        self.where = _where(given)
        self._clock = clock
        self._places = threading.Semaphore(max_connections)
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._patience = first_connect_seconds
        self._reconnect_seconds = reconnect_seconds

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        statement_timeout_seconds: float = 30.0,
        lock_timeout_seconds: float = 3.0,
        idle_timeout_seconds: float = 15.0,
        lock_attempts: int = 3,
    ) -> T:
        """Do ``work`` in one transaction and commit it.

        Tried again as a whole when the connection is lost (it may then have been committed already: ``work`` must
        be safe to repeat), on a deadlock, and up to ``lock_attempts`` times when a lock does not come free.
        Raises DatabaseUnavailable, SchemaMismatch, DatabaseError.
        """
        give_up_at = self._clock.monotonic() + self._patience
        locked = 0
        pause = 0.25
        while True:
            try:
                with self._transaction(statement_timeout_seconds, lock_timeout_seconds, idle_timeout_seconds) as conn:
                    result = work(conn)
            except (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure) as error:
                locked += 1
                if locked >= lock_attempts:
                    raise self._locked_out(error) from error
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._refuse_if_final(error)
                if self._clock.monotonic() >= give_up_at:
                    raise DatabaseUnavailable(
                        f"database {self.where}: {_first_line(error)}", hint="check that it runs and can be reached"
                    ) from error
            except psycopg.Error as error:
                raise _translated(error, self.where) from error
            else:
                self._patience = self._reconnect_seconds
                return result
            self._clock.sleep(pause)
            pause = min(2 * pause, 4.0)

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()

    def connect(self) -> Connection:
        """A connection of one's own, in autocommit; the caller closes it. Raises like ``run``, without retries."""
        try:
            return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            self._refuse_if_final(error)
            raise DatabaseUnavailable(
                f"database {self.where}: {_first_line(error)}", hint="check that it runs and can be reached"
            ) from error

    @contextmanager
    def _transaction(
        self, statement_timeout_seconds: float, lock_timeout_seconds: float, idle_timeout_seconds: float
    ) -> Iterator[Connection]:
        with self._places:
            conn = self._take()
            try:
                with conn.transaction():
                    conn.execute(
                        _Q["set_local_timeouts"],
                        {
                            "statement": f"{statement_timeout_seconds * 1000:.0f}",
                            "lock": f"{lock_timeout_seconds * 1000:.0f}",
                            "idle": f"{idle_timeout_seconds * 1000:.0f}",
                        },
                    )
                    yield conn
            except BaseException:
                # Whatever happened, this connection's state is in doubt; a new one costs a few milliseconds.
                conn.close()
                raise
            with self._lock:
                self._idle.append(conn)

    def _take(self) -> Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)

    def _refuse_if_final(self, error: psycopg.Error) -> None:
        """Raise at once what no waiting cures: a refused login, an unknown database, a statement that took too long."""
        if isinstance(error, pg.QueryCanceled):
            raise DatabaseError(
                f"database {self.where}: {_first_line(error)}",
                hint="look for what keeps it busy; the next run tries again",
            ) from error
        if isinstance(error, psycopg.OperationalError) and not error.sqlstate:
            text = str(error)
            if "FATAL" in text and not any(words in text for words in _PASSING_REFUSALS):
                raise DatabaseUnavailable(
                    f"database {self.where} refuses the login: {_fatal(text)}",
                    hint="check user, password and database name in database_url",
                ) from error
            if "resolve host" in text or "translate host name" in text:
                raise DatabaseUnavailable(
                    f"database {self.where}: the host name is not known", hint="check the host in database_url"
                ) from error

    def _locked_out(self, error: psycopg.Error) -> DatabaseError:
        """The error for a lock that did not come free, naming who holds locks on our tables."""
        holders = ""
        try:
            with self.connect() as conn:
                rows = conn.execute(_Q["find_blockers"]).fetchall()
            holders = "; ".join(
                f"pid {pid} ({application or 'unnamed'}, {state}) for {seconds} s"
                for pid, application, state, seconds in rows
            )
        except (psycopg.Error, DatabaseError):
            pass
        return DatabaseError(
            f"database {self.where}: a lock did not come free ({_first_line(error)})"
            + (f"; held by {holders}" if holders else ""),
            hint="end that session, or wait; the next run tries again",
        )


def _translated(error: psycopg.Error, where: str) -> DatabaseError:
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.UndefinedFunction | pg.InvalidSchemaName):
        return SchemaMismatch(
            f"database {where} does not have the schema this version expects: {_first_line(error)}", hint=_MIGRATE_HINT
        )
    if isinstance(error, pg.InsufficientPrivilege):
        return DatabaseError(
            f"database {where}: {_first_line(error)}", hint="connect as the owner of the tables, or grant the right"
        )
    return DatabaseError(f"database {where}: {_first_line(error)}", hint="see the server's log")


def is_row_fault(error: BaseException) -> bool:
    """True for errors that the values of a row cause, which other rows need not share."""
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError | pg.RaiseException)


def _where(given: dict[str, Any]) -> str:
    name = given.get("dbname") or given.get("user") or "postgres"
    return f"{name} at {given.get('host') or given.get('hostaddr') or 'the local socket'}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _fatal(text: str) -> str:
    return text[text.rindex("FATAL:") + len("FATAL:") :].strip().splitlines()[0]
