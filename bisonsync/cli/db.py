"""The embedded Postgres: db status, db stop, db psql."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.run import Result

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
