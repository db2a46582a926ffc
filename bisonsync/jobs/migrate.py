"""Brings the database's schema to what this version's files say: each migration once, views and functions anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bisonsync.store import migrations, partitions, schema_objects
from bisonsync.store.db import Database
from bisonsync.store.schema_files import SchemaFiles, read_schema_files

# DDL waits a second at most, so that the dashboards queued behind it do not stand; then it lets them pass.
LOCK_TIMEOUT_SECONDS = 1.0
LOCK_ATTEMPTS = 12
# The function that makes the partitions of deliveries.
_PARTITIONS_BY = "make_delivery_partitions"


@dataclass(frozen=True, slots=True)
class Result:
    """What ``up`` did, or how a database stands.

    ``applied``: files applied by this ``up``, for the others ever; ``pending``: files still to apply;
    ``objects_changed``: views and functions made anew, or to be; ``access_changes``: statements on grants, policies
    and Realtime's publication that were run, or are to be; ``notes``: what somebody else has to do; ``partitions``: of
    deliveries, made ahead or to be. Those that are missing are no difference: they come due with every day, and
    receiver, replay and prune make them as well.
    """

    action: Literal["up", "plan", "status"]
    applied: tuple[str, ...]
    pending: tuple[str, ...]
    objects_changed: tuple[str, ...]
    access_changes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()

    @property
    def is_current(self) -> bool:
        """True when ``up`` would do nothing any more."""
        return not (self.pending or (self.action != "up" and (self.objects_changed or self.access_changes)))

    @property
    def verdict(self) -> str:
        return "differences" if self.action == "status" and not self.is_current else "success"


def up(
    database: Database,
    *,
    readers: str | Sequence[str] = (),
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    lock_attempts: int = LOCK_ATTEMPTS,
    files: SchemaFiles | None = None,
) -> Result:
    """Apply what is pending, each file in its own transaction, then views, functions and access in one.

    Safe beside another ``migrate``: one works, the other waits its bounded turn and finds nothing left to do.
    Raises SchemaMismatch, DatabaseError, ConfigError (``readers``).
    """
    wanted = files or read_schema_files()
    applied: list[str] = []
    while done := database.run(
        lambda conn: migrations.apply_next(conn, wanted),
        statement_timeout_seconds=0,
        lock_timeout_seconds=lock_timeout_seconds,
        idle_timeout_seconds=0,
        lock_attempts=lock_attempts,
    ):
        applied.append(done)
    refreshed = database.run(
        lambda conn: migrations.refresh_objects(conn, wanted, readers),
        statement_timeout_seconds=0,
        lock_timeout_seconds=lock_timeout_seconds,
        idle_timeout_seconds=0,
        lock_attempts=lock_attempts,
    )
    ahead = partitions.Ahead()
    if any(item.name.endswith(_PARTITIONS_BY) for item in wanted.objects):
        ahead = partitions.make_days(partitions.briefly(database))
    unpublished = (
        f"publication supabase_realtime belongs to another role and lacks {', '.join(refreshed.unpublished)}:"
        " dashboards see their changes live once its owner adds them",
    )
    return Result(
        "up",
        tuple(applied),
        (),
        refreshed.objects,
        refreshed.access,
        (*(unpublished if refreshed.unpublished else ()), *([ahead.warning] if ahead.warning else [])),
        ahead.made,
    )


def plan(database: Database, *, readers: str | Sequence[str] = (), files: SchemaFiles | None = None) -> Result:
    """Say what ``up`` would do; changes nothing. Raises like ``up``."""
    return _look("plan", database, readers, files)


def status(database: Database, *, readers: str | Sequence[str] = (), files: SchemaFiles | None = None) -> Result:
    """Say how the database stands: ``differences`` when ``up`` would do something. Raises like ``up``."""
    return _look("status", database, readers, files)


def _look(
    action: Literal["plan", "status"], database: Database, readers: str | Sequence[str], files: SchemaFiles | None
) -> Result:
    wanted = files or read_schema_files()
    found, access, days = database.run(
        lambda conn: (
            migrations.survey(conn, wanted),
            schema_objects.list_access_changes(conn, readers),
            partitions.list_missing_days(conn),
        )
    )
    pending = tuple(item.name for item in found.pending)
    return Result(
        action, found.applied, pending, found.objects, tuple(access), partitions=tuple(day.name for day in days)
    )
