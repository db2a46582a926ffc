"""The ledger: one row per run, opened before its first request and always closed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import errors as pg
from psycopg.rows import class_row, scalar_row

from bisonsync.queries import load_queries
from bisonsync.store import leases
from bisonsync.store.db import Connection

_Q = load_queries("runs")

# A run that needs no leases and whose process cannot be seen from here is given up after so long.
LEASELESS_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the ledger has it."""

    run_id: UUID
    job: str
    host: str | None
    pid: int | None
    status: str
    exit_code: int | None
    started_at: datetime
    finished_at: datetime | None
    duration_ms: int | None
    counts: dict[str, Any]
    workspaces_failed: list[str]
    errors: list[dict[str, Any]]
    lost: bool
    command: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class RunWorkspaceRow:
    """What a run did with one list of one workspace; ``resource``: of a job that reads no list the job's name."""

    bison_instance: str
    bison_workspace_id: int
    resource: str
    workspace_name: str | None
    verdict: str
    counts: dict[str, Any]
    error: dict[str, Any] | None
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A run that says it is running."""

    run_id: UUID
    job: str
    host: str | None
    pid: int | None
    process_key: str | None
    started_at: datetime
    age_seconds: float
    holds_lease: bool
    let_lease_expire: bool
    uses_leases: bool


@dataclass(frozen=True, slots=True)
class ApiHealthRow:
    """What one endpoint of one instance cost a run; times in milliseconds."""

    bison_instance: str
    endpoint: str
    api_name: str
    requests: int
    retries: int
    rate_limited: int
    errors: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    max_ms: float | None
    success: bool


@dataclass(frozen=True, slots=True)
class WorkspaceOutcomeRow:
    """What became of one workspace in a run."""

    bison_instance: str
    bison_workspace_id: int
    workspace_name: str
    verdict: str
    error: Mapping[str, str] | None


def open_run(
    conn: Connection, run_id: UUID, job: str, *, command: str, version: str, covers: Sequence[str] | None
) -> None:
    """Open the ledger row; does nothing when it is there already. ``covers``: None is all there is."""
    conn.execute(
        _Q["open_run"],
        {
            "run_id": run_id,
            "job": job,
            "host": leases.host_name(),
            "pid": os.getpid(),
            "process_key": leases.process_key(),
            "command": command,
            "version": version,
            "covers": None if covers is None else list(covers),
        },
    )


def forget_run(conn: Connection, run_id: UUID) -> None:
    """Free the run's leases and remove its ledger row, unless it is closed."""
    _free_leases(conn, run_id)
    conn.execute(_Q["forget_run"], {"run_id": run_id})


def close_run(
    conn: Connection,
    run_id: UUID,
    *,
    status: str,
    exit_code: int,
    duration_ms: int,
    counts: Mapping[str, Any],
    workspaces_failed: Sequence[str],
    errors: Sequence[Mapping[str, Any]],
    outcomes: Sequence[WorkspaceOutcomeRow],
    api_health: Sequence[ApiHealthRow],
) -> dict[str, Any] | None:
    """Close the ledger row and free the run's leases, in one transaction; the counts it closed with.

    Sums of what the workspaces committed take the place of ``counts`` of the same names: a commit whose answer was
    lost counts as well. None when this was done already. A run taken for lost by another is closed as what it was.
    """
    _free_leases(conn, run_id)
    conn.execute(
        _Q["record_outcomes"], {"run_id": run_id, "outcomes": json.dumps([asdict(outcome) for outcome in outcomes])}
    )
    row = conn.execute(
        _Q["close_run"],
        {
            "run_id": run_id,
            "status": status,
            "exit_code": exit_code,
            "duration_ms": duration_ms,
            "counts": json.dumps(dict(counts)),
            "workspaces_failed": list(workspaces_failed),
            "errors": json.dumps([dict(error) for error in errors]),
        },
    ).fetchone()
    if row is None:
        return None
    if api_health:
        rows = json.dumps([asdict(health) for health in api_health])
        conn.execute(_Q["insert_api_health"], {"run_id": run_id, "rows": rows})
    return row[0]


def close_lost_runs(conn: Connection, *, ttl_seconds: float) -> list[UUID]:
    """Close the runs that are lost, and free what they hold: those whose process is known to be dead or whose leases
    ran out, and those that hold none for longer than a run of another host needs to take its first.
    """
    lost = [row.run_id for row in list_running(conn) if _is_lost(row, ttl_seconds)]
    if not lost:
        return []
    leases.release_unlocked(conn, lost)
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["close_lost_runs"], {"run_ids": lost}).fetchall()


def list_running(conn: Connection) -> list[RunningRow]:
    """Every run that says it is running, the oldest first."""
    with conn.cursor(row_factory=class_row(RunningRow)) as cursor:
        return cursor.execute(_Q["list_running"]).fetchall()


def list_runs(conn: Connection, *, job: str | None, status: str | None, limit: int) -> list[RunRow]:
    """The newest runs first."""
    with conn.cursor(row_factory=class_row(RunRow)) as cursor:
        return cursor.execute(_Q["list_runs"], {"job": job, "status": status, "limit": limit}).fetchall()


def find_runs(conn: Connection, prefix: str) -> list[RunRow]:
    """Up to two runs whose id begins with ``prefix``."""
    with conn.cursor(row_factory=class_row(RunRow)) as cursor:
        return cursor.execute(_Q["find_run"], {"prefix": prefix}).fetchall()


def list_run_workspaces(conn: Connection, run_id: UUID) -> list[RunWorkspaceRow]:
    """What a run did per workspace and list."""
    with conn.cursor(row_factory=class_row(RunWorkspaceRow)) as cursor:
        return cursor.execute(_Q["list_run_workspaces"], {"run_id": run_id}).fetchall()


def _is_lost(row: RunningRow, ttl_seconds: float) -> bool:
    alive = leases.is_alive(row.process_key, row.pid)
    if alive is False:
        return True
    if row.holds_lease or row.let_lease_expire:
        return not row.holds_lease
    # It may have none yet, none any more, or never need one.
    return not alive and row.age_seconds > (2 * ttl_seconds if row.uses_leases else LEASELESS_SECONDS)


def _free_leases(conn: Connection, run_id: UUID) -> None:
    """Free a run's leases, after its commits under way; those that a foreign session keeps locked run out."""
    try:
        with conn.transaction():
            leases.release(conn, run_id)
    except pg.LockNotAvailable:
        leases.release_unlocked(conn, [run_id])
