"""``runs``: what the ledger says of runs that ended, and of those that say they are running."""

from __future__ import annotations

from dataclasses import dataclass

from bisonsync.errors import ConfigError
from bisonsync.store import leases, runs
from bisonsync.store.db import Connection, Database
from bisonsync.store.runs import RunningRow, RunRow, RunWorkspaceRow

STATUSES = ("running", "success", "partial", "failed", "guarded", "differences", "skipped", "stopped")


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One run and what it did in each workspace."""

    run: RunRow
    workspaces: tuple[RunWorkspaceRow, ...]


@dataclass(frozen=True, slots=True)
class RunningRun:
    """A run that says it is running.

    ``leases`` it holds, the first of which ends in ``lease_ends_in_seconds``. ``is_alive`` is None where this host
    cannot tell, for the process is on another.
    """

    row: RunningRow
    leases: int
    lease_ends_in_seconds: float | None
    is_alive: bool | None


def list_runs(database: Database, *, job: str | None, status: str | None, limit: int) -> tuple[RunRow, ...]:
    """The newest runs first. ``status``: one of STATUSES."""
    return tuple(database.run(lambda conn: runs.list_runs(conn, job=job, status=status, limit=limit)))


def show(database: Database, prefix: str | None) -> RunDetail | None:
    """The run whose id begins with ``prefix``, or the newest; None when there is no run at all.

    Raises ConfigError when no run or several begin so.
    """

    def read(conn: Connection) -> RunDetail | None:
        found = runs.list_runs(conn, job=None, status=None, limit=1) if prefix is None else runs.find_runs(conn, prefix)
        if prefix is not None and len(found) != 1:
            raise ConfigError(
                f"{'several runs begin' if found else 'no run begins'} with {prefix!r}",
                hint="give more of the id" if found else "see 'bisonsync runs list'",
            )
        if not found:
            return None
        return RunDetail(found[0], tuple(runs.list_run_workspaces(conn, found[0].run_id)))

    return database.run(read)


def running(database: Database) -> tuple[RunningRun, ...]:
    """Every run that says it is running, the oldest first."""

    def read(conn: Connection) -> tuple[RunningRun, ...]:
        rows = runs.list_running(conn)
        ends: dict[object, list[float]] = {}
        for job in sorted({row.job for row in rows}):
            for held in leases.list_holders(conn, job):
                ends.setdefault(held.holder, []).append(held.expires_in_seconds)
        return tuple(
            RunningRun(
                row=row,
                leases=len(ends.get(row.run_id, [])),
                lease_ends_in_seconds=min(ends.get(row.run_id, []), default=None),
                is_alive=leases.is_alive(row.process_key, row.pid),
            )
            for row in rows
        )

    return database.run(read)
