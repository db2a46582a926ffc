"""The real commands on a database and an API of their own: demo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.run import Result


def _demo(
    options: Options,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up until Ctrl-C, to try commands on it.")] = False,
) -> None:
    """See it work: the real commands on a Postgres and a host of its own.

    Needs no settings and uses none: it starts a Postgres and an Email Bison
    look-alike, runs the commands on them, checks what they did, and takes both
    away. Exit 0 only when every command did what it should.

    \b
    Example:
      bisonsync demo
      bisonsync demo --keep
    """
    if options.config or options.database_url or options.workspaces or options.instances or options.dry_run:
        raise typer.BadParameter("the demo uses no settings of yours, and all workspaces of its own host")

    def body(session: Session) -> Result:
        import os
        import signal
        import sys

        from bisonsync import embedded
        from bisonsync.jobs import demo as job
        from bisonsync.sandbox import Sandbox

        # Closing the terminal ends it like TERM does, nohup apart: nothing may be left running.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))

        def say(text: str) -> None:
            if text.startswith("$ "):
                session.output.command(text)
            else:
                session.output.result(text)
            sys.stdout.flush()

        stage = job.Stage(
            postgres=embedded,
            sandbox=Sandbox(workspaces=job.WORKSPACES, accounts=job.ACCOUNTS, clock="real"),
            clock=session.clock,
            environ={**os.environ, **({"NO_COLOR": "1"} if options.no_color else {})},
            say=say,
            show=not (options.as_json or options.quiet),
        )
        return job.run(stage, keep=keep)

    execute(options, "demo", body)


demo = single("demo", _demo)
