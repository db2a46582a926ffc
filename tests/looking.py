"""One health check on a database of a test's own, at a time that the test sets."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from bisonsync.checks import find_check
from bisonsync.checks.check import CheckResult, Finding, Look
from bisonsync.clock import SystemClock
from bisonsync.settings.models import SCHEDULE
from bisonsync.store.db import Database

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@contextmanager
def looking(
    dsn: str,
    *checks: str,
    now: datetime = NOW,
    limits: Mapping[str, Mapping[str, float]] | None = None,
    schedule: Mapping[str, timedelta] = SCHEDULE,
    **fields: Any,
) -> Generator[Look]:
    """What these checks are given, with their default limits but for ``limits`` ({check: {name: value}}).

    This host's clock agrees with the database's unless ``host_now`` is given; ``fields`` are those of Look.
    """
    database = Database(dsn, application_name="bisonsync tests", clock=SystemClock(), max_connections=1)
    made = {check: dict(find_check(check).LIMITS) for check in checks}
    for check, values in (limits or {}).items():
        made[check] |= {name: replace(made[check][name], value=value) for name, value in values.items()}
    try:
        yield Look(database=database, now=now, limits=made, schedule=schedule, **{"host_now": now, **fields})
    finally:
        database.close()


def examine(
    dsn: str, check: str, *, now: datetime = NOW, limits: Mapping[str, float] | None = None, **fields: Any
) -> CheckResult:
    """Look once, by one check alone."""
    with looking(dsn, check, now=now, limits={check: limits or {}}, **fields) as look:
        return find_check(check).look(look)


def finding(result: CheckResult, subject: str) -> Finding:
    """The only finding whose subject begins so."""
    (found,) = [each for each in result.findings if each.subject.startswith(subject)]
    return found


Connection = psycopg.Connection[Any]


def ago(seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> datetime:
    """So long before NOW."""
    return NOW - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def insert(conn: Connection, table: str, **values: Any) -> None:
    """A row."""
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(["%s"] * len(values))
    conn.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), list(values.values()))


def add_workspace(conn: Connection, number: int, name: str = "", **values: Any) -> None:
    """An active workspace of instance sim, registered a month before NOW."""
    insert(
        conn,
        "client_registry",
        **{
            "bison_instance": "sim",
            "bison_workspace_id": number,
            "workspace_name": name or f"Client {number}",
            "created_at": ago(days=30),
            **values,
        },
    )


def add_state(conn: Connection, number: int, **values: Any) -> None:
    """How the accounts of a workspace stand: read completely a minute before NOW."""
    read_at = values.pop("last_complete_at", ago(minutes=1))
    fields = {"last_attempt_at": ago(minutes=1), "verdict": "complete", "total": 100, **values}
    key = {"bison_instance": "sim", "bison_workspace_id": number, "resource": "accounts"}
    insert(conn, "workspace_sync_state", **{**key, "last_complete_at": read_at, **fields})


def add_run(conn: Connection, job: str, started_at: datetime, status: str = "success", **values: Any) -> UUID:
    """A run of the ledger that took a second."""
    run_id = values.pop("run_id", None) or uuid4()
    errors = Jsonb(values.pop("errors", []))
    finished_at = None if status == "running" else started_at + timedelta(seconds=1)
    fields = {"host": "worker", "pid": 77, "finished_at": finished_at, "errors": errors, **values}
    insert(
        conn, "email_sync_logs", **{"run_id": run_id, "job": job, "started_at": started_at, "status": status, **fields}
    )
    return run_id


def add_part(conn: Connection, run_id: UUID, number: int, verdict: str = "complete", **values: Any) -> None:
    """What a run did in a workspace, committed a minute before NOW."""
    key = {"run_id": run_id, "bison_instance": "sim", "bison_workspace_id": number, "resource": "accounts"}
    made = {name: Jsonb(values.pop(name)) for name in ("counts", "error") if name in values}
    insert(
        conn,
        "email_sync_log_workspaces",
        **{**key, "verdict": verdict, "committed_at": ago(minutes=1), **made, **values},
    )


def set_up(conn: Connection, at: datetime) -> None:
    """As if the database had been migrated at that moment."""
    conn.execute("UPDATE bisonsync_migrations SET applied_at = %s", [at])
