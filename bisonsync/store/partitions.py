"""Partitions, made ahead: days of the inbox, months of the history. That may fail, as long as there is a place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Literal, Protocol, TypeVar

from psycopg.rows import class_row, scalar_row

from bisonsync.errors import DatabaseError, DatabaseUnavailable
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection, Database
from bisonsync.store.db_errors import is_lock_fault

T = TypeVar("T")
_Q = load_queries("partitions")

Table = Literal["webhook_delivery_log", "sender_email_daily"]
INBOX: Table = "webhook_delivery_log"
DAILY: Table = "sender_email_daily"
# Who reads the whole table keeps us waiting, and we keep waiting who comes after: hardly at all, for there is time.
LOCK_SECONDS = 1.0
HINT = "it is tried again by itself; until then 'bisonsync health database' names what is missing"


class Do(Protocol):
    """Does work in a transaction of its own; raises like ``Database.run``."""

    def __call__(self, work: Callable[[Connection], T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Missing:
    """A partition that is not there, the day it begins ``on``, and whether something may come for it already."""

    name: str
    on: date
    is_needed: bool


@dataclass(frozen=True, slots=True)
class Ahead:
    """The partitions that were made, and a warning about those that could not be; empty: all is there."""

    made: tuple[str, ...] = ()
    warning: str = ""


def briefly(database: Database, attempts: int = 1) -> Do:
    """Transactions that give up early, where a lock is not free."""

    def do(work: Callable[[Connection], T]) -> T:
        return database.run(work, lock_timeout_seconds=LOCK_SECONDS, lock_attempts=attempts)

    return do


def make_days(do: Do) -> Ahead:
    """Make the partitions of today and the eight days to come (UTC), with what lies in the default one of them.

    One that cannot be made keeps no other from it. Raises DatabaseError only where today has neither a partition nor a
    default one.
    """
    return _make_ahead(do, INBOX, list_missing_days)


def make_months(do: Do, first: date, last: date, *, needed: date) -> Ahead:
    """Make the partitions of the history between two days; those until ``needed`` must have a place.

    Raises DatabaseError only where one of those has none, and there is no default one.
    """
    return _make_ahead(do, DAILY, partial(list_missing_months, first=first, last=last, needed=needed))


def list_missing_days(conn: Connection) -> list[Missing]:
    """What ``make_days`` would make; all of them where nothing is migrated yet."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        has_rules = bool(cursor.execute(_Q["has_rules"]).fetchone())
    with conn.cursor(row_factory=class_row(Missing)) as cursor:
        return cursor.execute(_Q["list_missing_days"] if has_rules else _Q["list_days_by_name"]).fetchall()


def list_missing_months(conn: Connection, first: date, last: date, needed: date) -> list[Missing]:
    """What ``make_months`` would make."""
    with conn.cursor(row_factory=class_row(Missing)) as cursor:
        return cursor.execute(_Q["list_missing_months"], {"first": first, "last": last, "needed": needed}).fetchall()


def make(conn: Connection, table: Table, first: date, last: date) -> list[str]:
    """Make what is missing between two days and move there what came before; the names of those made."""
    query = _Q["make_days"] if table == INBOX else _Q["make_months"]
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, {"first": first, "last": last}).fetchall()


def has_default(conn: Connection, table: Table) -> bool:
    """Whether what has no partition of its own has a place all the same."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(_Q["has_default"], {"table": table}).fetchone())


def _make_ahead(do: Do, table: Table, list_missing: Callable[[Connection], Sequence[Missing]]) -> Ahead:
    days = list(dict.fromkeys(each.on for each in do(list_missing)))
    if not days:
        return Ahead()
    made, cause = _try_to_make(do, table, days[0], days[-1])
    if cause is None:
        return Ahead(tuple(made))
    # One that cannot be made keeps no other from it; but all would wait for the same lock.
    if cause.__cause__ is None or not is_lock_fault(cause.__cause__):
        made = [name for day in days for name in _try_to_make(do, table, day, day)[0]]
    # Another run may have made them meanwhile.
    left = do(list_missing)
    if not left:
        return Ahead(tuple(made))
    if any(each.is_needed for each in left) and not do(partial(has_default, table=table)):
        raise DatabaseError(
            f"{table} has neither a partition for {left[0].on} nor a default one: {cause.message}", hint=cause.hint
        ) from cause
    names = ", ".join(each.name for each in left)
    return Ahead(tuple(made), f"could not make {names} ahead: {cause.message} → {HINT}")


def _try_to_make(do: Do, table: Table, first: date, last: date) -> tuple[list[str], DatabaseError | None]:
    try:
        return do(partial(make, table=table, first=first, last=last)), None
    except DatabaseUnavailable:
        raise
    except DatabaseError as error:
        return [], error
