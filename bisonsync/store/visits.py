"""What a run notes of one list of one workspace: when its read began, what came of it, how the list stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store import leases
from bisonsync.store.db import Connection
from bisonsync.store.leases import Lease

_Q = load_queries("visits")


@dataclass(frozen=True, slots=True)
class ReadStart:
    """When a read began, by the database; the unknown fields by which rows are not compared, and their paths."""

    at: datetime
    left_out: list[str]
    left_out_paths: list[str]


@dataclass(frozen=True, slots=True)
class Committed:
    """What a run has committed of a list of a workspace already, perhaps by a commit whose answer was lost."""

    counts: Mapping[str, int]
    verdict: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Read:
    """What is known of a list after a read. ``error``: why it is not complete.

    ``pending_ids``: what is missing and held back, ``pending_since``. ``moving``: unknown fields that moved, with path
    and in how many of the ``idle`` rows, whose known ones stayed.
    """

    read_started_at: datetime
    verdict: str
    distinct_ids: int
    interval_seconds: int
    total: int | None = None
    error: str | None = None
    pending_since: datetime | None = None
    pending_ids: list[int] | None = None
    idle: int = 0
    moving: Sequence[Mapping[str, Any]] = ()


def start_read(conn: Connection, resource: str, instance: str) -> ReadStart:
    """The database's time now: what events changed after it is newer than the read that begins."""
    with conn.cursor(row_factory=class_row(ReadStart)) as cursor:
        start = cursor.execute(_Q["start_read"], {"instance": instance, "resource": resource}).fetchone()
    assert start is not None  # always one row
    return start


def find_result(conn: Connection, lease: Lease, resource: str) -> Committed | None:
    """What the lease's run has committed of a list, so that a repeated transaction does nothing twice."""
    with conn.cursor(row_factory=class_row(Committed)) as cursor:
        return cursor.execute(_Q["find_result"], _key(lease, resource)).fetchone()


def record_result(
    conn: Connection,
    lease: Lease,
    resource: str,
    *,
    workspace_name: str,
    verdict: str,
    counts: Mapping[str, int] | None,
    error: Mapping[str, str] | None = None,
) -> None:
    """Note in the ledger what is committed with this transaction; with ``counts`` None only what went wrong."""
    conn.execute(
        _Q["record_result"],
        {
            **_key(lease, resource),
            "workspace_name": workspace_name,
            "verdict": verdict,
            "counts": json.dumps(dict(counts or {})),
            "error": json.dumps(dict(error)) if error else None,
            "committed": counts is not None,
        },
    )


def record_read(conn: Connection, lease: Lease, resource: str, read: Read) -> None:
    """Note how a list stands after a read that is committed with this transaction."""
    parameters = {**asdict(read), "moving": json.dumps([dict(move) for move in read.moving])}
    conn.execute(_Q["record_read"], {**_key(lease, resource), **parameters})


def record_failure(
    conn: Connection,
    lease: Lease,
    resource: str,
    *,
    workspace_name: str,
    verdict: str,
    error: Mapping[str, str],
    interval_seconds: int,
    in_parts: bool = False,
) -> None:
    """Note that a read did not reach its end; what it committed stays. Raises LeaseLost.

    The lease is given up, for another host may fare better. Does nothing where the run has committed the list after
    all, unless it is committed ``in_parts``.
    """
    with leases.fenced(conn, lease):
        if not in_parts and find_result(conn, lease, resource) is not None:
            return
        state = {"verdict": verdict, "error": error["message"], "interval_seconds": interval_seconds}
        conn.execute(_Q["record_failure"], {**_key(lease, resource), **state})
        record_result(conn, lease, resource, workspace_name=workspace_name, verdict=verdict, counts=None, error=error)
    leases.give_up(conn, lease)


def notify_change(conn: Connection, table: str, about: WorkspaceKey | str) -> None:
    """Tell listeners, when this transaction commits, that rows of a workspace changed, or what is kept per instance."""
    conn.execute(_Q["notify_change"], {"table": table, "workspace": str(about)})


def _key(lease: Lease, resource: str) -> dict[str, object]:
    return {
        "instance": lease.bison_instance,
        "workspace_id": lease.bison_workspace_id,
        "resource": resource,
        "run_id": lease.run_id,
    }
