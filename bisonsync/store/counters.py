"""The webhook part of client_metrics against the deduplicated log it is the sum of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from psycopg.rows import class_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("counters")


@dataclass(frozen=True, slots=True)
class Months:
    """``first_open``: the first month all of whose keys are kept; ``closed``: those before that have counters."""

    first_open: date
    timezone: str
    closed: list[date]


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter of one workspace and month, and what the log says instead."""

    bison_instance: str
    bison_workspace_id: int
    metric_month: date
    counter: str
    stored: int
    folded: int


def list_months(conn: Connection, *, retention_days: int, now: datetime | None = None) -> Months:
    """Which months can be folded, when keys are kept for so many days. ``now``: in place of the database's clock."""
    with conn.cursor(row_factory=class_row(Months)) as cursor:
        found = cursor.execute(_Q["list_months"], {"retention_days": retention_days, "now": now}).fetchone()
    if found is None:
        raise AssertionError("webhook_settings has one row")
    return found


def list_differences(
    conn: Connection, workspaces: Sequence[WorkspaceKey] | None, first_month: date, last_month: date | None
) -> list[Difference]:
    """Every counter that differs from the log, by workspace and month; None for all workspaces, or without end.

    One statement, so that what is received meanwhile shows in both or in neither.
    """
    parameters = {
        "instances": None if workspaces is None else [instance for instance, _ in workspaces],
        "workspace_ids": None if workspaces is None else [number for _, number in workspaces],
        "first_month": first_month,
        "last_month": last_month,
    }
    with conn.cursor(row_factory=class_row(Difference)) as cursor:
        return cursor.execute(_Q["list_differences"], parameters).fetchall()


def repair(conn: Connection, instance: str, workspace_id: int, month: date) -> list[Difference]:
    """Set one workspace's counters of a month to what the log says, and return those that were wrong.

    Events of that workspace wait for the end of the transaction.
    """
    parameters = {"instance": instance, "workspace_id": workspace_id, "month": month}
    with conn.cursor(row_factory=class_row(Difference)) as cursor:
        return cursor.execute(_Q["repair_counters"], parameters).fetchall()
