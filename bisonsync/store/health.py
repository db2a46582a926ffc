"""What every look at the health begins with."""

from __future__ import annotations

from datetime import datetime

from psycopg.rows import scalar_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("health")


def read_now(conn: Connection) -> datetime:
    """The database's clock."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        now: datetime | None = cursor.execute(_Q["read_now"]).fetchone()
    if now is None:
        raise AssertionError("SELECT without FROM has a row")
    return now
