"""Looking at the ledger: runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.jobs.runs import RunDetail, RunningRun
    from bisonsync.run import Problem, Result
    from bisonsync.store.runs import RunRow, RunWorkspaceRow

_COUNTS = (
    *("workspaces_total", "workspaces_ok", "workspaces_failed", "workspaces_incomplete", "accounts_read", "inserted"),
    *("updated", "unchanged", "removed", "restored", "invalid", "requests", "retries", "rate_limited"),
)

runs = group(no_args_is_help=True, add_completion=False)


@runs.callback()
@global_options
def runs_() -> None:
    """Show what ran, what it did, and what runs now.

    \b
    Example:
      bisonsync runs list --status failed
      bisonsync runs show
    """


@runs.command("list", cls=Command)
@global_options
def runs_list(
    options: Options,
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only runs of this command.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only runs that ended so: failed, partial ...")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many at most.")] = 20,
) -> None:
    """List the newest runs.

    \b
    Example:
      bisonsync runs list --job poll-accounts --status partial --limit 5
    """
    from bisonsync.jobs import runs as job_

    if status is not None and status not in job_.STATUSES:
        raise typer.BadParameter(f"{status!r} is none of {', '.join(job_.STATUSES)}", param_hint="--status")

    def body(session: Session) -> Result:
        from bisonsync.output import time_text
        from bisonsync.run import Result

        session.require_schema()
        found = job_.list_runs(session.bookkeeping, job=job, status=status, limit=limit)
        if not found and (job or status):
            session.output.result("no such run")
        elif found:
            session.output.table(
                ["run", "started (UTC)", "job", "status", "exit", "took", "problems", "host", "what was done"],
                [
                    [
                        str(run.run_id)[:8],
                        time_text(run.started_at),
                        run.job,
                        _status(run),
                        "-" if run.exit_code is None else str(run.exit_code),
                        _took(run.duration_ms),
                        str(len(run.errors)),
                        run.host or "",
                        _done(run.counts),
                    ]
                    for run in found
                ],
                right=(4, 5, 6),
                spare=(8, 7, 4, 6),
            )
        problems = () if found or job or status else (_no_run(),)
        return Result({"runs": len(found)}, problems=problems, details={"runs": [asdict(run) for run in found]})

    execute(options, "runs-list", body)


@runs.command("show", cls=Command)
@global_options
def runs_show(
    options: Options,
    run_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The run, or how its id begins; the newest without.")
    ] = None,
) -> None:
    """Show one run: what it did in each workspace, and all its problems.

    \b
    Example:
      bisonsync runs show 3f2a
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import runs as job
        from bisonsync.run import Result

        session.require_schema()
        found = job.show(session.bookkeeping, run_id)
        if found is None:
            return Result({"runs": 0}, problems=(_no_run(),), details={"run": None})
        _show_run(session, found)
        workspaces = [_workspace_json(workspace) for workspace in found.workspaces]
        return Result({"runs": 1}, details={"run": {**asdict(found.run), "workspaces": workspaces}})

    execute(options, "runs-show", body)


@runs.command("running", cls=Command)
@global_options
def runs_running(options: Options) -> None:
    """Show the runs that have not ended, and whether their process lives.

    A run whose process is gone is closed as lost by the next job.

    \b
    Example:
      bisonsync runs running
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import runs as job
        from bisonsync.output import age_text, time_text
        from bisonsync.run import Result

        session.require_schema()
        found = job.running(session.bookkeeping)
        if not found:
            session.output.result("no run is under way")
        else:
            session.output.table(
                ["run", "job", "alive", "age", "leases", "host", "pid", "started (UTC)"],
                [
                    [
                        str(run.row.run_id)[:8],
                        run.row.job,
                        {True: "yes", False: "no", None: "cannot tell"}[run.is_alive],
                        age_text(run.row.age_seconds),
                        _leases(run),
                        run.row.host or "",
                        str(run.row.pid or "-"),
                        time_text(run.row.started_at),
                    ]
                    for run in found
                ],
                right=(3, 6),
                spare=(7, 6, 5),
            )
        return Result({"running": len(found)}, details={"running": [_running_json(run) for run in found]})

    execute(options, "runs-running", body)


def _show_run(session: Session, found: RunDetail) -> None:
    from bisonsync.output import time_text

    run, output = found.run, session.output
    facts = {
        "run": str(run.run_id),
        "job": run.job,
        "status": _status(run) + ("" if run.exit_code is None else f" (exit {run.exit_code})"),
        "started": f"{time_text(run.started_at)} UTC",
        "took": _took(run.duration_ms),
        "command": f"bisonsync {run.command}" if run.command else "-",
        "process": f"pid {run.pid or '-'} on {run.host or '-'}, bisonsync {run.version or '-'}",
        "done": _done(run.counts) or "-",
    }
    output.facts(list(facts.items()))
    if found.workspaces:
        names = _in_order(name for workspace in found.workspaces for name in workspace.counts)
        output.text("")
        output.table(
            ["workspace", "id", "list", "verdict", "committed (UTC)", *(name.replace("_", "\n") for name in names)],
            [
                [
                    workspace.workspace_name or "",
                    f"{workspace.bison_instance}/{workspace.bison_workspace_id}",
                    workspace.resource,
                    workspace.verdict,
                    time_text(workspace.committed_at),
                    *(str(workspace.counts.get(name, "")) for name in names),
                ]
                for workspace in found.workspaces
            ],
            right=range(5, 5 + len(names)),
            spare=(2, 4, *range(4 + len(names), 4, -1)),
        )
    if run.errors:
        output.text("\nproblems")
        output.facts([_problem(error) for error in run.errors])


def _problem(error: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of a problem, and all that is known of it in one line."""
    where, hint, message = error.get("workspace"), error.get("hint"), str(error.get("message", ""))
    before = f"{where}: " if where and str(where) not in message else ""
    return f"  {error.get('kind', '')}", before + message + (f" → {hint}" if hint else "")


def _in_order(names: Iterable[str]) -> list[str]:
    """Names of counts in the order of a run's report, which the ledger does not keep."""
    return sorted(set(names), key=lambda name: (_COUNTS.index(name) if name in _COUNTS else len(_COUNTS), name))


def _status(run: RunRow) -> str:
    return "lost" if run.lost else run.status


def _took(duration_ms: int | None) -> str:
    from bisonsync.output import age_text

    if duration_ms is None:
        return "-"
    return f"{duration_ms / 1000:.1f} s" if duration_ms < 60_000 else age_text(duration_ms / 1000)


def _done(counts: Mapping[str, Any]) -> str:
    """The counts that say something, in words."""
    return ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in _in_order(counts) if counts[name])


def _leases(run: RunningRun) -> str:
    from bisonsync.output import age_text

    if run.lease_ends_in_seconds is None:
        return "none"
    return f"{run.leases}, for {age_text(run.lease_ends_in_seconds)}"


def _workspace_json(workspace: RunWorkspaceRow) -> dict[str, Any]:
    row = asdict(workspace)
    return {"instance": row.pop("bison_instance"), "id": row.pop("bison_workspace_id"), **row}


def _running_json(run: RunningRun) -> dict[str, Any]:
    return {
        **asdict(run.row),
        "leases": run.leases,
        "lease_ends_in_seconds": run.lease_ends_in_seconds,
        "is_alive": run.is_alive,
    }


def _no_run() -> Problem:
    from bisonsync.run import Problem

    return Problem("empty", "the ledger holds no run yet", "run 'bisonsync poll-accounts'", exit_code=0)
