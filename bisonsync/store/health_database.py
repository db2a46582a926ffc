"""What the checks of the database itself look at: sizes, dead rows, partitions, and whether the rules are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg.rows import class_row, scalar_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("health_database")

MEGABYTE = 1024**2
# prune notes the sizes of tables from here on.
NOTED_BYTES = 16 * MEGABYTE


@dataclass(frozen=True, slots=True)
class TableSize:
    """One of our tables, or one partition of the table ``part_of``; ``bytes`` with its indexes."""

    name: str
    part_of: str
    bytes: int
    live_rows: int
    dead_rows: int

    @property
    def dead_percent(self) -> float:
        """100 x dead rows / all rows."""
        rows = self.live_rows + self.dead_rows
        return 100.0 * self.dead_rows / rows if rows else 0.0


@dataclass(frozen=True, slots=True)
class PartitionDays:
    """A partition of sender_email_daily; ``days_late``: since when its retention is over, negative while it is not."""

    name: str
    first_day: date
    next_day: date
    days_late: int
    today: date


@dataclass(frozen=True, slots=True)
class SizesBefore:
    """What the last prune counted, large tables in MB among it."""

    finished_at: datetime
    counts: Mapping[str, Any]


def has_access_rules(conn: Connection) -> bool:
    """Whether this database knows who may do what."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(_Q["has_access_rules"]).fetchone())


def get_database_size(conn: Connection) -> int:
    """Bytes of the whole database."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(_Q["get_database_size"]).fetchone() or 0)


def list_table_sizes(conn: Connection) -> list[TableSize]:
    """Our tables, partitions one by one, the largest first."""
    with conn.cursor(row_factory=class_row(TableSize)) as cursor:
        return cursor.execute(_Q["list_table_sizes"]).fetchall()


def find_sizes_before(conn: Connection, now: datetime) -> SizesBefore | None:
    """What the last prune of the last 7 days left; None when none ended."""
    with conn.cursor(row_factory=class_row(SizesBefore)) as cursor:
        return cursor.execute(_Q["find_sizes_before"], {"now": now}).fetchone()


def list_days_missing(conn: Connection, now: datetime) -> list[date]:
    """The days of the inbox, from today's to the seventh after it (UTC), that have no partition of their own."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_days_missing"], {"now": now}).fetchall()


def list_partition_days(conn: Connection, now: datetime, timezone: str, retention_days: int) -> list[PartitionDays]:
    """The partitions of sender_email_daily, the oldest first."""
    with conn.cursor(row_factory=class_row(PartitionDays)) as cursor:
        return cursor.execute(
            _Q["list_partition_days"], {"now": now, "timezone": timezone, "retention_days": retention_days}
        ).fetchall()
