"""Fills days that no snapshot recorded from what the platform tells of each mailbox and day."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store import leases, visits
from bisonsync.store.db import Connection, join_by_hashing
from bisonsync.store.leases import Lease
from bisonsync.store.snapshots import DAILY, Gap

_Q = load_queries("snapshot_gaps")

# What the ledger calls it, beside the snapshot that the same run records.
RESOURCE = "gaps"

# Rows sent in one statement: bounds the memory of a long gap; all of a workspace's statements share one transaction.
ROWS_PER_STATEMENT = 50_000

State = Literal["appeared", "removed", "reset", "moved", "still"]


@dataclass(frozen=True, slots=True)
class Ends:
    """What the two ends of a gap say of one account; only ``moved`` and ``still`` ones can be filled."""

    bison_account_id: int
    state: State


@dataclass(frozen=True, slots=True)
class DayTold:
    """What the platform tells of one account and day; None is not known."""

    day: date
    sent: int | None
    replied: int | None
    bounced: int | None


@dataclass(frozen=True, slots=True)
class Filling:
    """A gap and what to fill it with: the days of every account to fill; none for one that did not move."""

    gap: Gap
    told: Mapping[int, Sequence[DayTold]]


@dataclass(frozen=True, slots=True)
class Filled:
    """What was filled. ``exceeding``, ``unexplained``: accounts whose numbers cannot be right, with their gap."""

    days: int = 0
    accounts: int = 0
    exceeding: tuple[int, ...] = ()
    unexplained: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    accounts: int
    exceeding: list[int]
    unexplained: list[int]


def list_ends(conn: Connection, gap: Gap) -> list[Ends]:
    """The accounts at the ends of a gap; where the later one is not recorded yet, the mirror stands for it."""
    with conn.cursor(row_factory=class_row(Ends)) as cursor:
        return cursor.execute(_Q["list_ends"], _parameters(gap)).fetchall()


def list_trailing(conn: Connection, keys: Iterable[WorkspaceKey], *, zone: str) -> list[Gap]:
    """The gaps that recording the mirrors of these workspaces now would leave behind, by workspace."""
    listed = sorted(set(keys))
    parameters = {"instances": [key[0] for key in listed], "workspace_ids": [key[1] for key in listed], "zone": zone}
    with conn.cursor(row_factory=class_row(Gap)) as cursor:
        return cursor.execute(_Q["list_trailing"], parameters).fetchall()


def fill(
    conn: Connection, lease: Lease, fillings: Iterable[Filling], *, workspace_name: str, counts: Mapping[str, int]
) -> Filled:
    """Write the missing days of one workspace, in the caller's transaction; what was recorded stays as it is.

    A gap of which no account could be filled, because the numbers cannot be right, stays a gap. ``counts`` go into
    the ledger beside what was filled. Safe to repeat: what this run has committed counts once. Raises LeaseLost when
    another run may have taken over; then nothing is written.
    """
    with leases.fenced(conn, lease):
        done = visits.find_result(conn, lease, RESOURCE)
        if done is not None:
            return Filled(done.counts["gap_days_filled"], done.counts["gap_accounts_filled"])
        join_by_hashing(conn)
        filled = [_fill_gap(conn, filling) for filling in fillings if _is_open(conn, filling.gap)]
        total = Filled(
            days=sum(one.days for one in filled),
            accounts=sum(one.accounts for one in filled),
            exceeding=tuple(sorted({number for one in filled for number in one.exceeding})),
            unexplained=tuple(sorted({number for one in filled for number in one.unexplained})),
        )
        made = {**counts, "gap_days_filled": total.days, "gap_accounts_filled": total.accounts}
        visits.record_result(conn, lease, RESOURCE, workspace_name=workspace_name, verdict="complete", counts=made)
        if total.days:
            visits.notify_change(conn, DAILY, lease.key)
    return total


def list_unreckoned(conn: Connection, instance: str) -> list[date]:
    """The filled days that the history does not hold yet, because a run ended between the two."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_unreckoned"], {"instance": instance}).fetchall()


def _is_open(conn: Connection, gap: Gap) -> bool:
    """Whether nobody has recorded or filled any of its days since it was found."""
    return conn.execute(_Q["is_open"], _parameters(gap)).fetchone() is not None


def _fill_gap(conn: Connection, filling: Filling) -> Filled:
    gap, ids = filling.gap, sorted(filling.told)
    size = max(1, ROWS_PER_STATEMENT // len(gap.days))
    parts = [_fill_accounts(conn, filling, ids[start : start + size]) for start in range(0, len(ids), size)]
    accounts = sum(part.accounts for part in parts)
    exceeding = tuple(number for part in parts for number in part.exceeding)
    unexplained = tuple(number for part in parts for number in part.unexplained)
    if not accounts and (exceeding or unexplained):
        return Filled(exceeding=exceeding, unexplained=unexplained)
    conn.execute(_Q["record_days"], _parameters(gap))
    return Filled(len(gap.days), accounts, exceeding, unexplained)


def _fill_accounts(conn: Connection, filling: Filling, ids: list[int]) -> _Part:
    told = [
        {"id": number, "day": day.day.isoformat(), "sent": day.sent, "replied": day.replied, "bounced": day.bounced}
        for number in ids
        for day in filling.told[number]
        # A day without a row counts as nothing, but for the last: there nothing told is not known.
        if day.day == filling.gap.after or day.sent or day.replied or day.bounced
    ]
    parameters = {**_parameters(filling.gap), "account_ids": ids, "told": json.dumps(told)}
    with conn.cursor(row_factory=class_row(_Part)) as cursor:
        part = cursor.execute(_Q["fill_accounts"], parameters).fetchone()
    assert part is not None  # an aggregate always has a row
    return part


def _parameters(gap: Gap) -> dict[str, Any]:
    return {
        "instance": gap.bison_instance,
        "workspace_id": gap.bison_workspace_id,
        "before": gap.before,
        "after": gap.after,
    }
