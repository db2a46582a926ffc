"""What the health checks ask of runs, leases, clocks and pings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("health_jobs")


@dataclass(frozen=True, slots=True)
class JobRuns:
    """How the runs of a job stand; where they stand otherwise for some instances, for ``instances``.

    ``last_part``: when a run of chosen parts last began, which counts in nothing else here. ``run_id``, ``status``,
    ``lost`` and ``errors`` are those of the last run that ended and was neither skipped nor stopped; ``running_…``
    those of the oldest that says it is running. ``failures`` in a row, up to now.
    """

    job: str
    instances: list[str]
    known_since: datetime | None
    last_start: datetime | None
    failures: int
    run_id: UUID | None
    status: str | None
    lost: bool
    errors: list[dict[str, Any]] | None
    running_id: UUID | None
    running_since: datetime | None
    running_on: str | None
    last_part: datetime | None


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that says it is held; ``started_at`` and ``status`` of its run are None if the ledger has no such run."""

    job: str
    bison_instance: str
    bison_workspace_id: int
    name: str | None
    holder: UUID
    host: str | None
    pid: int | None
    process_key: str | None
    heartbeat_at: datetime | None
    expires_at: datetime | None
    started_at: datetime | None
    status: str | None

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class LatestTime:
    """The latest time that a table holds."""

    place: str
    latest: datetime | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How a job's pings fare, on the host from which the last one arrived."""

    job: str
    host: str
    last_attempt_at: datetime
    last_ok_at: datetime | None
    last_error: str | None


def list_job_runs(conn: Connection, jobs: Sequence[str]) -> list[JobRuns]:
    """One row per job, also for one that never ran; several for one whose instances stand differently."""
    with conn.cursor(row_factory=class_row(JobRuns)) as cursor:
        return cursor.execute(_Q["list_job_runs"], {"jobs": list(jobs)}).fetchall()


def find_set_up_at(conn: Connection) -> datetime | None:
    """Since when jobs could have been running."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["find_set_up_at"]).fetchone()


def list_held_leases(conn: Connection) -> list[HeldLease]:
    """Every lease that says it is held."""
    with conn.cursor(row_factory=class_row(HeldLease)) as cursor:
        return cursor.execute(_Q["list_held_leases"]).fetchall()


def count_leases(conn: Connection) -> int:
    """How many leases there have ever been."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["count_leases"]).fetchone() or 0


def list_latest_times(conn: Connection) -> list[LatestTime]:
    """The latest times of the tables in which a wrong clock shows."""
    with conn.cursor(row_factory=class_row(LatestTime)) as cursor:
        return cursor.execute(_Q["list_latest_times"]).fetchall()


def list_heartbeats(conn: Connection, since: datetime) -> list[Heartbeat]:
    """One row per job that tried to ping since a moment."""
    with conn.cursor(row_factory=class_row(Heartbeat)) as cursor:
        return cursor.execute(_Q["list_heartbeats"], {"since": since}).fetchall()
