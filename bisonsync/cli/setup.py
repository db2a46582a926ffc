"""Setting up: init, migrate, config, db."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bisonsync.cli.options import Command, global_options, group, single
from bisonsync.runner import Options, Session, execute, upkeep

if TYPE_CHECKING:
    from bisonsync.run import Problem, Result

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


def _init(
    options: Options,
    embedded: Annotated[bool, typer.Option("--embedded", help="Use a Postgres of its own on this machine.")] = False,
    database_url_file: Annotated[
        str | None, typer.Option("--database-url-file", metavar="PATH", help="A file that holds the database URL.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What to call the instance.")] = "main",
    base_url: Annotated[str | None, typer.Option("--base-url", metavar="URL", help="Its Email Bison host.")] = None,
    api_key_file: Annotated[
        str | None, typer.Option("--api-key-file", metavar="PATH", help="A file that holds its super-admin key.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a configuration file to begin with.

    \b
    Example:
      bisonsync init --embedded --base-url https://send.example.com \\
        --api-key-file main.key
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import init as job
        from bisonsync.run import Result

        choices = job.Choices(
            embedded=embedded,
            database_url=options.database_url,
            database_url_file=database_url_file,
            instance=name,
            base_url=base_url,
            api_key_file=api_key_file,
        )
        path = options.config or Path("bisonsync.toml")
        done = job.run(path, choices, environ=os.environ, force=force, dry_run=options.dry_run)
        session.output.result(f"wrote {done.path}" if done.is_written else done.text.rstrip())
        for step in done.next_steps:
            session.output.result(f"  next: {step}")
        details = {"path": str(done.path), "next_steps": list(done.next_steps)}
        return Result({}, committed=done.is_written, details=details)

    execute(options, "init", body)


init = single("init", _init)
config = group(no_args_is_help=True)


@config.callback()
@global_options
def config_() -> None:
    """What counts as a setting, and what is wrong with it.

    \b
    Example:
      bisonsync config check && bisonsync config show
    """


@config.command("show", cls=Command)
@global_options
def config_show(options: Options) -> None:
    """Show every setting with its value and origin; secrets masked.

    \b
    Example:
      bisonsync config show
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import config as job
        from bisonsync.run import Result

        shown = job.show(session.sources)
        session.output.table(["setting", "value", "origin"], [[v.key, v.value or "-", v.origin] for v in shown.values])
        settings = [{"key": v.key, "value": v.value, "origin": v.origin, "secret": v.is_secret} for v in shown.values]
        return Result({"settings": len(settings)}, details={"settings": settings})

    execute(options, "config-show", body)


@config.command("check", cls=Command)
@global_options
def config_check(options: Options) -> None:
    """Say everything that is wrong with the settings; exit 4 if anything is.

    \b
    Example:
      bisonsync -c /etc/bisonsync/config.toml config check
    """

    def body(session: Session) -> Result:
        from bisonsync.errors import ConfigError
        from bisonsync.jobs import config as job
        from bisonsync.run import Problem, Result

        checked = job.check(session.sources)
        problems = tuple(
            Problem(ConfigError.kind, f"{p.origin}: {p.message}", p.hint, exit_code=ConfigError.exit_code)
            for p in checked.problems
        )
        problems = problems or _thresholds(session)
        where = checked.config or "the environment alone"
        return Result({"problems": len(problems)}, problems=problems, summary=f"{where}, {len(problems)} problems")

    execute(options, "config-check", body)


def _thresholds(session: Session) -> tuple[Problem, ...]:
    """What the checks do not understand, for every look would stop at it."""
    from bisonsync.checks.limits import merge_limits
    from bisonsync.errors import ConfigError
    from bisonsync.run import Problem

    try:
        merge_limits(session.settings.alerts.thresholds)
    except ConfigError as error:
        return (Problem(error.kind, f"[alerts] {error.message}", error.hint, exit_code=error.exit_code),)
    return ()


db = group(no_args_is_help=True)


@db.callback()
@global_options
def db_() -> None:
    """The embedded Postgres (database_url = "embedded").

    \b
    Example:
      bisonsync db psql -- -c 'TABLE data_freshness'
    """


@db.command("status", cls=Command)
@global_options
def db_status(options: Options) -> None:
    """Say whether it runs, and where its data lies.

    \b
    Example:
      bisonsync db status
    """

    def body(session: Session) -> Result:
        from dataclasses import asdict

        from bisonsync.jobs import db as job
        from bisonsync.run import Result

        found = job.status()
        details = {key: str(value) if value is not None else None for key, value in asdict(found).items()}
        for key, value in details.items():
            session.output.result(f"{key}: {value if value is not None else '-'}")
        return Result({}, details={"server": details})

    execute(options, "db-status", body)


@db.command("stop", cls=Command)
@global_options
def db_stop(options: Options) -> None:
    """Stop it; the next command starts it again.

    \b
    Example:
      bisonsync db stop
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import db as job
        from bisonsync.run import Result

        stopped = job.stop()
        was_running = getattr(stopped, "was_running", bool(stopped))
        return Result({"stopped": int(was_running)}, summary="stopped" if was_running else "it was not running")

    execute(options, "db-stop", body)


@db.command("psql", cls=Command)
@global_options
def db_psql(
    options: Options,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- PSQL-OPTIONS]", help="For psql.")] = None,
) -> None:
    """Open psql on the embedded Postgres.

    \b
    Example:
      bisonsync db psql -- -c 'SELECT * FROM data_freshness'
    """

    def body(_: Session) -> Result:
        from bisonsync.jobs import db as job

        job.psql(arguments or [])

    execute(options, "db-psql", body)
