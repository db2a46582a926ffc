"""Writes what is kept of each day: every account's counters, and the history of the providers computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store import leases, visits
from bisonsync.store.db import Connection, join_by_hashing
from bisonsync.store.leases import Lease

_Q = load_queries("snapshots")

# What the ledger calls it: it reads no list.
RESOURCE = "snapshot-providers"
DAILY = "sender_email_daily"
HISTORY = "provider_performance_history"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which day the mirror of a workspace is of. ``refusal`` says why it may not be recorded; None when it may."""

    bison_instance: str
    bison_workspace_id: int
    snapshot_date: date
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """What was recorded of a workspace, or would be. With a ``refusal`` nothing was."""

    snapshot_date: date
    is_complete: bool
    refusal: str | None
    accounts: int
    inserted: int
    updated: int
    unchanged: int

    @property
    def counts(self) -> dict[str, int]:
        """As in the ledger."""
        return {name: getattr(self, name) for name in ("accounts", "inserted", "updated", "unchanged")}


@dataclass(frozen=True, slots=True)
class HistoryWritten:
    """What became of the history of one instance and day."""

    providers: int = 0
    accounts: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    resets: int = 0
    falling_counters: int = 0


@dataclass(frozen=True, slots=True)
class ExpectedWorkspace:
    """A workspace that a day should have."""

    bison_instance: str
    bison_workspace_id: int
    is_recorded: bool
    is_complete: bool

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class Gap:
    """Days of a workspace that were not recorded, between the two that were."""

    bison_instance: str
    bison_workspace_id: int
    before: date
    after: date

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)

    @property
    def days(self) -> list[date]:
        """The missing ones."""
        return [self.before + timedelta(days=n) for n in range(1, (self.after - self.before).days)]


def get_today(conn: Connection, zone: str) -> date:
    """The day in the reporting zone, by the database's clock."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["get_today"], {"zone": zone}).fetchone()  # type: ignore[return-value]  # always one row


def list_judgements(conn: Connection, keys: Iterable[WorkspaceKey], *, zone: str, force: bool) -> list[Judgement]:
    """Which day the mirror of each workspace is of, and whether it may be recorded."""
    with conn.cursor(row_factory=class_row(Judgement)) as cursor:
        return cursor.execute(_Q["list_judgements"], {**_keys(keys), "zone": zone, "force": force}).fetchall()


def write(conn: Connection, lease: Lease, *, workspace_name: str, zone: str, force: bool) -> Written:
    """Record the mirror of one workspace as of its day, in the caller's transaction; only what differs is written.

    Safe to repeat: what this run has committed counts once. Raises LeaseLost when another run may have taken over;
    then nothing is written.
    """
    with leases.fenced(conn, lease):
        key = {"instance": lease.bison_instance, "workspace_id": lease.bison_workspace_id}
        done = visits.find_result(conn, lease, RESOURCE)
        join_by_hashing(conn)
        written = _judge_and_write(conn, _Q["write_snapshot"], {**key, "zone": zone, "force": force})
        if done is not None:
            # The answer to its COMMIT was lost: what it wrote is what this run did.
            return Written(written.snapshot_date, written.is_complete, None, **done.counts)
        if written.refusal is None:
            visits.record_result(
                conn,
                lease,
                RESOURCE,
                workspace_name=workspace_name,
                verdict="complete" if written.is_complete else "incomplete",
                counts=written.counts,
            )
        if written.inserted or written.updated:
            visits.notify_change(conn, DAILY, lease.key)
    return written


def plan(conn: Connection, key: WorkspaceKey, *, zone: str, force: bool) -> Written:
    """What ``write`` would do. Reads only."""
    join_by_hashing(conn)
    parameters = {"instance": key[0], "workspace_id": key[1], "zone": zone, "force": force}
    return _judge_and_write(conn, _Q["count_changes"], parameters)


def list_expected(conn: Connection, instances: Iterable[str], day: date, *, zone: str) -> list[ExpectedWorkspace]:
    """The workspaces that a day of these instances should have, by instance and id."""
    parameters = {"instances": sorted(set(instances)), "day": day, "zone": zone}
    with conn.cursor(row_factory=class_row(ExpectedWorkspace)) as cursor:
        return cursor.execute(_Q["list_expected"], parameters).fetchall()


def list_days_due(conn: Connection, instance: str, first_day: date, last_day: date, *, zone: str) -> list[date]:
    """The days between two whose history can be put right: all recorded, or with a history already."""
    parameters = {"instance": instance, "first_day": first_day, "last_day": last_day, "zone": zone}
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_days_due"], parameters).fetchall()


def write_history(conn: Connection, instance: str, day: date, *, zone: str) -> HistoryWritten:
    """Make the history of one instance and day what its daily rows say, in the caller's transaction.

    A function of those rows alone: safe to repeat, and in any order of days.
    """
    conn.execute(_Q["lock_history"], {"instance": instance})
    with conn.cursor(row_factory=class_row(HistoryWritten)) as cursor:
        written = cursor.execute(_Q["write_history"], {"instance": instance, "day": day, "zone": zone}).fetchone()
    assert written is not None  # an aggregate always has a row
    if written.inserted or written.updated or written.deleted:
        visits.notify_change(conn, HISTORY, instance)
    return written


def plan_history(conn: Connection, instance: str, day: date, *, zone: str) -> HistoryWritten:
    """What ``write_history`` would do. Reads only."""
    with conn.cursor(row_factory=class_row(HistoryWritten)) as cursor:
        planned = cursor.execute(
            _Q["count_history_changes"], {"instance": instance, "day": day, "zone": zone}
        ).fetchone()
    assert planned is not None  # an aggregate always has a row
    return planned


def list_gaps(conn: Connection, keys: Iterable[WorkspaceKey], first_day: date, last_day: date) -> list[Gap]:
    """The gaps of these workspaces that have a day in [first_day, last_day], whole, by workspace and day."""
    parameters = {**_keys(keys), "first_day": first_day, "last_day": last_day}
    with conn.cursor(row_factory=class_row(Gap)) as cursor:
        return cursor.execute(_Q["list_gaps"], parameters).fetchall()


def _judge_and_write(conn: Connection, query: Any, parameters: Mapping[str, Any]) -> Written:
    with conn.cursor(row_factory=class_row(Written)) as cursor:
        written = cursor.execute(query, parameters).fetchone()
    assert written is not None  # a judgement always has a row
    return written


def _keys(keys: Iterable[WorkspaceKey]) -> dict[str, Sequence[object]]:
    listed = sorted(set(keys))
    return {"instances": [key[0] for key in listed], "workspace_ids": [key[1] for key in listed]}
