"""The run's row in the ledger: opened before its first request, closed whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bisonsync import __version__
from bisonsync.errors import DatabaseUnavailable
from bisonsync.run import Result
from bisonsync.runner.session import Session

if TYPE_CHECKING:
    from bisonsync.api.client import InstanceClient
    from bisonsync.store.db import Connection
    from bisonsync.store.runs import ApiHealthRow

# How long the end of a run waits for a database that is gone.
PATIENCE_SECONDS = 45.0
HASTE_SECONDS = 3.0


def open_run(session: Session) -> None:
    """Open the row of this run, and close the rows of runs whose process is gone. Raises SchemaMismatch."""
    from bisonsync.store import migrations, runs

    def work(conn: Connection) -> None:
        migrations.require_schema(conn)
        runs.close_lost_runs(conn, ttl_seconds=session.lease_ttl_seconds)
        command = _command_line(sys.argv[1:])
        runs.open_run(conn, session.run_id, session.job, command=command, version=__version__, covers=session.covers)

    session.bookkeeping.run(work)
    session.is_in_ledger = True


def close_run(session: Session, result: Result, *, status: str, exit_code: int) -> Result:
    """Close the row and free what the run holds; the result with the counts that the ledger has."""
    from bisonsync.store import runs

    health = _api_health(session.clients)
    failed = [str(o.key) for o in result.workspaces if o.verdict not in ("complete", "skipped")]
    outcomes = [
        runs.WorkspaceOutcomeRow(
            o.bison_instance,
            o.bison_workspace_id,
            o.name,
            o.verdict,
            {"kind": o.problems[0].kind if o.problems else o.verdict, "message": o.reason} if o.reason else None,
        )
        for o in result.workspaces
    ]

    def work(conn: Connection) -> dict[str, Any] | None:
        return runs.close_run(
            conn,
            session.run_id,
            status=status,
            exit_code=exit_code,
            duration_ms=round(session.elapsed_seconds * 1000),
            counts=result.counts,
            workspaces_failed=failed,
            errors=[problem.as_json() for problem in result.all_problems],
            outcomes=outcomes,
            api_health=health,
        )

    in_haste = (
        status == "stopped"
        or session.clock.monotonic() >= session.give_up_at
        or any(p.kind == DatabaseUnavailable.kind for p in result.all_problems)
    )
    seconds = HASTE_SECONDS if in_haste else PATIENCE_SECONDS
    closed = session.database_for_the_end(patience_seconds=seconds, first_connect_seconds=seconds).run(work)
    return replace(result, counts={k: (closed or {}).get(k, v) for k, v in result.counts.items()})


def forget_run(session: Session) -> None:
    """Take the row of a run that was refused for its own arguments out of the ledger: the job was not at fault."""
    from bisonsync.store import runs

    database = session.database_for_the_end(patience_seconds=HASTE_SECONDS, first_connect_seconds=HASTE_SECONDS)
    database.run(lambda conn: runs.forget_run(conn, session.run_id))


def _api_health(clients: Sequence[InstanceClient]) -> list[ApiHealthRow]:
    if not clients:
        return []
    from bisonsync.store.runs import ApiHealthRow

    rows: list[ApiHealthRow] = []
    for client in clients:
        for endpoint, stat in client.stats.items():
            times = sorted(stat.times_ms)

            def at(share: float, times: list[float] = times) -> float | None:
                return round(times[min(len(times) - 1, int(share * len(times)))], 1) if times else None

            rows.append(
                ApiHealthRow(
                    bison_instance=client.instance,
                    endpoint=endpoint,
                    api_name="emailbison",
                    requests=stat.requests,
                    retries=stat.retries,
                    rate_limited=stat.rate_limited,
                    errors=stat.errors,
                    mean_ms=round(sum(times) / len(times), 1) if times else None,
                    p50_ms=at(0.5),
                    p95_ms=at(0.95),
                    max_ms=at(1.0),
                    success=stat.errors == stat.retries,
                )
            )
    return rows


def _command_line(arguments: Sequence[str]) -> str:
    """The arguments as given, without a value that could hold a secret."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        if hide_next:
            shown.append("…")
        elif argument.startswith("--database-url="):
            shown.append("--database-url=…")
        else:
            shown.append(argument)
        hide_next = argument == "--database-url"
    return " ".join(shown)[:500]
