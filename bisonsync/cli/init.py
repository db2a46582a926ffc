"""A first configuration: init."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.run import Result


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
