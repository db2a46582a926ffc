"""The ledger: one row per run, opened before its first request and always closed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from bisonsync.queries import load_queries
from bisonsync.store import leases
from bisonsync.store.db import Connection

_Q = load_queries("runs")


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
    """What a run did in one workspace."""

    bison_instance: str
    bison_workspace_id: int
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


def open_run(conn: Connection, run_id: UUID, job: str, *, command: str, version: str) -> None:
    """Open the ledger row; does nothing when it is there already."""
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
        },
    )


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
) -> None:
    """Close the ledger row and free the run's leases, in one transaction."""
    leases.release(conn, run_id)
    conn.execute(
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
    )


def close_lost_runs(conn: Connection, *, ttl_seconds: float) -> list[UUID]:
    """Close runs whose process is known to be dead, or that hold no lease and are older than a lease lasts."""
    lost = [
        row.run_id
        for row in list_running(conn)
        if leases.is_dead(row.process_key, row.pid) or (not row.holds_lease and row.age_seconds > 2 * ttl_seconds)
    ]
    if lost:
        for run_id in lost:
            leases.release(conn, run_id)
        conn.execute(_Q["close_lost_runs"], {"run_ids": lost})
    return lost


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
    """What a run did per workspace."""
    with conn.cursor(row_factory=class_row(RunWorkspaceRow)) as cursor:
        return cursor.execute(_Q["list_run_workspaces"], {"run_id": run_id}).fetchall()


def insert_api_health(conn: Connection, run_id: UUID, rows: Sequence[ApiHealthRow]) -> None:
    """Keep what each endpoint cost a run."""
    if rows:
        conn.execute(_Q["insert_api_health"], {"run_id": run_id, "rows": json.dumps([asdict(row) for row in rows])})
