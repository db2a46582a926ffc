"""What is too old goes, a batch at a time; the months of the history are dropped and made ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import class_row, scalar_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection, Database

_Q = load_queries("retention")

Table = Literal[
    "api_health_logs", "data_validation_errors", "provider_performance_history", "alert_episodes", "workspace_snapshots"
]
_COUNT: Mapping[Table, LiteralString] = {
    "api_health_logs": _Q["count_api_health"],
    "data_validation_errors": _Q["count_validation_errors"],
    "provider_performance_history": _Q["count_history"],
    "alert_episodes": _Q["count_episodes"],
    "workspace_snapshots": _Q["count_snapshots"],
}
_DELETE: Mapping[Table, LiteralString] = {
    "api_health_logs": _Q["delete_api_health"],
    "data_validation_errors": _Q["delete_validation_errors"],
    "provider_performance_history": _Q["delete_history"],
    "alert_episodes": _Q["delete_episodes"],
    "workspace_snapshots": _Q["delete_snapshots"],
}


@dataclass(frozen=True, slots=True)
class Moment:
    """What time it is by the database, the moment that counts, and its day in the reporting zone."""

    database_now: datetime
    as_of: datetime
    today: date


@dataclass(frozen=True, slots=True)
class Removed:
    """How many rows went or would go, and how many of the table that hangs on them."""

    rows: int
    parts: int


@dataclass(frozen=True, slots=True)
class OldMonth:
    """A month of the history that is too old; ``dependents``: the views that stand on it, which keep it."""

    name: str
    dependents: str | None


@dataclass(frozen=True, slots=True)
class DroppedMonth:
    """A month of the history that is gone, with so many rows of workspace_snapshots."""

    name: str
    snapshots: int


@dataclass(frozen=True, slots=True)
class Vacuum:
    """The statement that tidies up a table."""

    table_name: str
    statement: str


def get_clock(conn: Connection, timezone: str, as_of: datetime | None) -> Moment:
    """What time it is; ``as_of`` takes the place of the database's clock in a rehearsal."""
    with conn.cursor(row_factory=class_row(Moment)) as cursor:
        found = cursor.execute(_Q["get_clock"], {"timezone": timezone, "as_of": as_of}).fetchone()
    if found is None:
        raise AssertionError("SELECT without FROM has a row")
    return found


def list_runs_to_keep(conn: Connection, before: datetime) -> list[UUID]:
    """The runs from before a moment that stay."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_runs_to_keep"], {"before": before}).fetchall()


def count_runs(conn: Connection, before: datetime, keep: Sequence[UUID]) -> Removed:
    """Count what ``delete_runs`` would delete."""
    return _removed(conn, _Q["count_runs"], {"before": before, "keep": list(keep)})


def delete_runs(conn: Connection, before: datetime, keep: Sequence[UUID], limit: int) -> Removed:
    """Delete up to ``limit`` ended runs from before a moment, with their workspaces."""
    return _removed(conn, _Q["delete_runs"], {"before": before, "keep": list(keep), "limit": limit})


def count_old(conn: Connection, table: Table, before: datetime | date) -> Removed:
    """Count what ``delete_old`` would delete."""
    return _removed(conn, _COUNT[table], {"before": before})


def delete_old(conn: Connection, table: Table, before: datetime | date, limit: int) -> Removed:
    """Delete up to ``limit`` rows from before a moment or day that may go, the oldest first."""
    return _removed(conn, _DELETE[table], {"before": before, "limit": limit})


def list_months_before(conn: Connection, before: date) -> list[OldMonth]:
    """The months of the history that ``drop_month`` drops unless something stands on them."""
    with conn.cursor(row_factory=class_row(OldMonth)) as cursor:
        return cursor.execute(_Q["list_months_before"], {"before": before}).fetchall()


def drop_month(conn: Connection, before: date) -> DroppedMonth | None:
    """Drop the oldest month all of whose days are before one and on which nothing stands; None: there is none.

    Locks the history.
    """
    with conn.cursor(row_factory=class_row(DroppedMonth)) as cursor:
        return cursor.execute(_Q["drop_month"], {"before": before}).fetchone()


def list_vacuums(conn: Connection, deleted: Mapping[str, int]) -> list[Vacuum]:
    """What changed much: ``deleted`` has the rows deleted just now by table, which no statistics know yet."""
    parameters = {"tables": list(deleted), "deleted": list(deleted.values())}
    with conn.cursor(row_factory=class_row(Vacuum)) as cursor:
        return cursor.execute(_Q["spell_vacuums"], parameters).fetchall()


def flush_statistics(conn: Connection) -> None:
    """Have what this session deleted counted at the end of the transaction, before a VACUUM resets the counts."""
    conn.execute(_Q["flush_statistics"])


def vacuum(database: Database, statement: str) -> list[str]:
    """Tidy up one table outside of any transaction; return what kept it from being done, as a lock passed over."""
    warnings: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary or "")

    conn = database.connect()
    conn.add_notice_handler(hear)
    try:
        conn.execute(statement.encode())
    except psycopg.Error as error:
        # Nothing is lost by it: the server's own autovacuum, or the next run, does it.
        warnings.append(f"{statement}: {str(error).strip()}")
    finally:
        conn.close()
    return warnings


def _removed(conn: Connection, query: LiteralString, parameters: Mapping[str, object]) -> Removed:
    with conn.cursor(row_factory=class_row(Removed)) as cursor:
        return cursor.execute(query, parameters).fetchone() or Removed(0, 0)
