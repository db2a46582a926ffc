"""Whether the database takes writes."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("health_writes")


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Why nothing can be written: ``set_by`` is where default_transaction_read_only was set, in pg_settings' words."""

    is_standby: bool
    set_by: str | None
    database_name: str
    role_name: str


@dataclass(frozen=True, slots=True)
class RefusedChanges:
    """A table that can be neither updated nor deleted from; ``cure`` is a statement for its owner."""

    table_name: str
    reason: str
    cure: str


def find_read_only(conn: Connection) -> ReadOnly | None:
    """Why this session's transactions may only read; None where they may write."""
    with conn.cursor(row_factory=class_row(ReadOnly)) as cursor:
        return cursor.execute(_Q["find_read_only"]).fetchone()


def list_refused_changes(conn: Connection) -> list[RefusedChanges]:
    """Our tables whose changes the server refuses because of a publication."""
    with conn.cursor(row_factory=class_row(RefusedChanges)) as cursor:
        return cursor.execute(_Q["list_refused_changes"]).fetchall()
