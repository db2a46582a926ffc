"""The schema: migrate."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute, upkeep

if TYPE_CHECKING:
    from bisonsync.run import Result

migrate = group(invoke_without_command=True)


@migrate.callback()
@global_options
def migrate_up(ctx: typer.Context, options: Options) -> None:
    """Bring the database's schema to this version: up (without a word), plan, status.

    Each file is applied once, in a transaction of its own; views and functions
    are made anew when their text has changed. Safe to run at any time.

    \b
    Example:
      bisonsync migrate
      bisonsync migrate status    (exit 9 when something is pending)
    """
    if ctx.invoked_subcommand is None:
        _migrate(options, "up")


@migrate.command("up", cls=Command)
@global_options
def migrate_up_(options: Options) -> None:
    """Apply what is pending.

    \b
    Example:
      bisonsync migrate up
    """
    _migrate(options, "up")


@migrate.command("plan", cls=Command)
@global_options
def migrate_plan(options: Options) -> None:
    """Say what 'up' would do; changes nothing.

    \b
    Example:
      bisonsync migrate plan
    """
    _migrate(options, "plan")


@migrate.command("status", cls=Command)
@global_options
def migrate_status(options: Options) -> None:
    """Say what is applied and what is pending; exit 9 when something is.

    \b
    Example:
      bisonsync migrate status
    """
    _migrate(options, "status")


def _migrate(options: Options, action: str) -> None:
    def body(session: Session) -> Result:
        from bisonsync.jobs import migrate as job
        from bisonsync.run import Problem, Result

        wanted = "plan" if options.dry_run and action == "up" else action
        readers: Any = session.access_readers
        done = getattr(job, wanted)(session.db, readers=readers)
        if wanted == "up" and upkeep.is_set(session):
            session.db.run(partial(upkeep.write_settings, session))
        lines = [
            *(f"applied  {name}" for name in done.applied if wanted != "plan"),
            *(f"pending  {name}" for name in done.pending),
            *(f"{'remade' if wanted == 'up' else 'differs'}   {name}" for name in done.objects_changed),
            *(f"access   {name}" for name in done.access_changes),
            *(
                f"{'made   ' if wanted == 'up' else 'missing'}  {name}"
                for name in done.partitions
                if wanted != "status"
            ),
        ]
        if wanted != "up" or options.verbose:
            for line in lines:
                session.output.result(line)
        for note in done.notes:
            session.output.log(note, level="warning")
        problems = ()
        if done.verdict == "differences":
            what = len(done.pending) + len(done.objects_changed) + len(done.access_changes)
            problems = (Problem("pending", f"{what} steps are pending", "run 'bisonsync migrate'", exit_code=9),)
        counts = {
            "applied": len(done.applied),
            "pending": len(done.pending),
            "objects_changed": len(done.objects_changed),
            "access_changes": len(done.access_changes),
        }
        summary = (
            f"{counts['applied']} files applied, {counts['objects_changed']} views and functions made anew"
            if wanted == "up"
            else f"{counts['applied']} files applied, {counts['pending']} pending"
        )
        details = {
            "applied": list(done.applied),
            "pending": list(done.pending),
            "objects_changed": list(done.objects_changed),
            "access_changes": list(done.access_changes),
            "partitions": list(done.partitions),
        }
        return Result(counts, problems=problems, committed=wanted == "up", summary=summary, details=details)

    execute(options, "migrate", body)
