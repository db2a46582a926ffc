"""Days of deliveries get their partitions, lose their payloads, and go; keys go when nothing needs them any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from psycopg.rows import class_row, scalar_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("delivery_retention")


@dataclass(frozen=True, slots=True)
class FatDay:
    """A partition whose settled deliveries have payloads: so many, if that was asked for; ``dependents``: its views."""

    name: str
    payloads: int
    dependents: str | None


@dataclass(frozen=True, slots=True)
class OldDay:
    """A partition that may go but for what is unsettled in it, and for the views (``dependents``) that stand on it."""

    name: str
    unsettled: int
    dependents: str | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Whether a day is gone, and how many of its deliveries are kept all the same."""

    is_dropped: bool
    kept: int


@dataclass(frozen=True, slots=True)
class Unsettled:
    """How many deliveries are of a status that is not the last."""

    status: str
    deliveries: int


def list_stray_days(conn: Connection, since: datetime) -> list[date]:
    """The days (UTC) before today of what lies in the default partition and could have one of its own."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_stray_days"], {"since": since}).fetchall()


def list_fat_days(conn: Connection, before: datetime, *, is_counted: bool) -> list[FatDay]:
    """The partitions that ended before a moment and can be made slim, the oldest first."""
    with conn.cursor(row_factory=class_row(FatDay)) as cursor:
        return cursor.execute(_Q["list_fat_days"], {"before": before, "is_counted": is_counted}).fetchall()


def slim_day(conn: Connection, name: str) -> int | None:
    """Remove the payloads of what is settled, and give back their space if nothing stands on it; how many.

    None when too much of it changed meanwhile: then it is as it was, and can be tried again. Nearly all of the time
    nobody is kept from anything; waits for locks are short and tried again by itself.
    """
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["slim_day"], {"name": name}).fetchone()


def list_old_days(conn: Connection, before: datetime) -> list[OldDay]:
    """The partitions that ended before a moment, the oldest first."""
    with conn.cursor(row_factory=class_row(OldDay)) as cursor:
        return cursor.execute(_Q["list_old_days"], {"before": before}).fetchall()


def drop_day(conn: Connection, name: str, before: datetime, most_kept: int) -> Dropped:
    """Drop one of them, what is unsettled kept in the default partition; it stays where that is too much.

    Waits for locks are short and tried again by itself.
    """
    with conn.cursor(row_factory=class_row(Dropped)) as cursor:
        found = cursor.execute(_Q["drop_day"], {"name": name, "before": before, "most_kept": most_kept}).fetchone()
    if found is None:
        raise AssertionError("drop_delivery_partition returns a row")
    return found


def count_old_deliveries(conn: Connection, before: datetime) -> int:
    """Count what ``delete_old_deliveries`` would delete."""
    return _count(conn, "count_old_deliveries", {"before": before})


def delete_old_deliveries(conn: Connection, before: datetime, limit: int) -> int:
    """Delete up to ``limit`` settled deliveries of days that have no partition."""
    return _count(conn, "delete_old_deliveries", {"before": before, "limit": limit})


def count_unsettled(conn: Connection, before: datetime) -> list[Unsettled]:
    """What is kept whatever its age, the most first."""
    with conn.cursor(row_factory=class_row(Unsettled)) as cursor:
        return cursor.execute(_Q["count_unsettled"], {"before": before}).fetchall()


def mark_keys_pruned(conn: Connection, before: datetime) -> None:
    """Note that keys from before a moment are about to go, if there are any: their months are folded no more."""
    conn.execute(_Q["mark_keys_pruned"], {"before": before})


def count_keys(conn: Connection, before: datetime) -> int:
    """Count what ``delete_keys`` would delete in all pages."""
    return _count(conn, "count_keys", {"before": before})


def count_key_pages(conn: Connection) -> int:
    """How many pages there are to go through."""
    return _count(conn, "get_key_pages", {})


def delete_keys(conn: Connection, before: datetime, first_page: int, next_page: int) -> int:
    """Delete the keys of events from before a moment that lie in these pages; how many."""
    return _count(conn, "delete_keys", {"before": before, "first": f"({first_page},0)", "last": f"({next_page},0)"})


def _count(conn: Connection, name: str, parameters: dict[str, object]) -> int:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q[name], parameters).fetchone() or 0
