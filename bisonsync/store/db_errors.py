"""What the errors of a database mean for an operator, and what may pass."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg

from bisonsync.errors import ConfigError, DatabaseError, SchemaMismatch

LOCKED = (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure)
LOST = (psycopg.OperationalError, psycopg.InterfaceError, pg.IdleInTransactionSessionTimeout)
PASSING_STATES = ("08", "53300", "57P01", "57P02", "57P03", "57P05", "25P03")
_MIGRATE_HINT = "run 'bisonsync migrate'"


@dataclass(frozen=True, slots=True)
class Blocker:
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


def misread(dsn: str, said: str) -> ConfigError:
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


def locked_out(error: psycopg.Error, where: str, blockers: list[str]) -> DatabaseError:
    """The error for a lock that did not come free, naming who holds it."""
    if not isinstance(error, pg.LockNotAvailable):
        return DatabaseError(
            f"database {where}: gave way to other sessions, again and again ({first_line(error)})",
            hint="the next run tries again",
        )
    held = f" held by {'; '.join(blockers)}" if blockers else ""
    # The server's words say no more than that; ours say for what.
    why = f" ({first_line(error)})" if not held or error.diag.message_primary is None else ""
    return DatabaseError(
        f"database {where}: timed out waiting for a lock{held}{why}",
        hint="let that session end, or end it with pg_terminate_backend(pid); the next run tries again",
    )


def translated(error: psycopg.Error, where: str) -> DatabaseError:
    """The error for what the server refused, with what to do about it."""
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.UndefinedFunction | pg.InvalidSchemaName):
        return SchemaMismatch(
            f"database {where} does not have the schema this version expects: {first_line(error)}", hint=_MIGRATE_HINT
        )
    hint = "see the server's log"
    if isinstance(error, pg.DependentObjectsStillExist):
        what = "; ".join((error.diag.message_detail or "").splitlines()[:3])
        return DatabaseError(
            f"database {where}: {first_line(error)} ({what})", hint="drop them, or let them read another table"
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
    return DatabaseError(f"database {where}: {first_line(error)}", hint=hint)


def is_row_fault(error: BaseException) -> bool:
    """True for errors that the values of a row cause, which other rows need not share."""
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError | pg.RaiseException)


def is_lock_fault(error: BaseException) -> bool:
    """True for errors that end with the transaction of another session: the same may succeed later."""
    return isinstance(error, LOCKED)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, else its name."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
