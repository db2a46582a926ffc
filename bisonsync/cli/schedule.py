"""When the jobs run: schedule cron, schedule systemd."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.jobs.schedule.jobs import Embedded, Setup
    from bisonsync.run import Result

_USER = "bisonsync"

schedule = group(no_args_is_help=True)


@schedule.callback()
@global_options
def schedule_() -> None:
    """The jobs of this configuration for cron or systemd.

    \b
    Example:
      bisonsync schedule cron
    """


@schedule.command("cron", cls=Command)
@global_options
def schedule_cron(options: Options) -> None:
    """Print crontab lines: absolute paths, each line with how often and why.

    \b
    Example:
      (crontab -l; bisonsync schedule cron) | crontab -
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs.schedule import cron
        from bisonsync.run import Result

        text = cron.crontab(_setup(session))
        session.output.text(text)
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return Result({"lines": len(lines)}, details={"crontab": text})

    execute(options, "schedule-cron", body)


@schedule.command("systemd", cls=Command)
@global_options
def schedule_systemd(
    options: Options,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="DIR", help="Write the units there instead of printing them.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Whom the jobs run as.", show_default="bisonsync")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace units that differ.")] = False,
) -> None:
    """Print or write systemd units: a service and a timer for each job.

    \b
    Example:
      bisonsync schedule systemd --write /etc/systemd/system
      systemctl daemon-reload
      systemctl enable --now bisonsync-poll-accounts.timer
    """
    if user is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,30}", user):
        raise typer.BadParameter(f"{user!r} is no user's name", param_hint="--user")

    def body(session: Session) -> Result:
        from bisonsync.jobs.schedule import systemd
        from bisonsync.jobs.schedule.write import write_units
        from bisonsync.run import Result

        setup = _setup(session)
        made = systemd.units(setup, user or (setup.embedded.owner if setup.embedded else _USER))
        details = {"units": made}
        if write is None:
            session.output.text("\n".join(f"# {name}\n{text}" for name, text in made.items()).rstrip())
            return Result({"units": len(made)}, details=details)
        done = write_units(write, made, force=force, dry_run=options.dry_run)
        for name in done.written:
            session.output.result(f"{'would write' if options.dry_run else 'wrote'} {write / name}")
        for name in done.unwanted:
            session.output.log(
                f"{write / name} belongs to a job that is off now: disable and remove it", level="warning"
            )
        timers = " ".join(name for name in made if name.endswith(".timer"))
        session.output.result(f"  next: systemctl daemon-reload && systemctl enable --now {timers}")
        counts = {"units": len(made), "written": len(done.written), "unchanged": len(done.unchanged)}
        return Result(counts, committed=bool(done.written) and not options.dry_run, details=details)

    execute(options, "schedule-systemd", body)


def _setup(session: Session) -> Setup:
    """What the lines and units have to say about this installation."""
    from bisonsync.jobs.schedule.jobs import HOUR, Setup

    sources, settings = session.sources, session.settings
    given = session.options.database_url
    return Setup(
        command=_command(),
        config=sources.config.absolute() if sources.config else None,
        intervals=settings.intervals | ({"webhooks-ensure": HOUR} if settings.webhooks.public_url else {}),
        longest=settings.polling.deadline,
        secret_files=sources.secret_files(),
        holds_secrets=sources.holds_secrets(),
        variables=sorted({entry.source for entry in sources.entries.values() if entry.layer == "environment"}),
        database_url=given if given and given != "embedded" else None,
        embedded=_embedded() if settings.database_url.get_secret_value() == "embedded" else None,
        heartbeats=frozenset(settings.heartbeats),
        has_slack=bool(settings.alerts.slack_webhook_url or settings.alerts.channels),
        needed=[Path(sys.prefix), Path(sys.base_prefix)],
    )


def _command() -> tuple[str, ...]:
    """How this very program is called from anywhere."""
    called = Path(sys.argv[0])
    beside = Path(sys.executable).with_name("bisonsync")
    for program in (called, beside):
        if program.name == "bisonsync" and program.is_file():
            return (str(program.absolute()),)
    python = (sys.executable, "-m", "bisonsync")
    path = os.environ.get("PYTHONPATH")
    return ("/usr/bin/env", f"PYTHONPATH={path}", *python) if path else python


def _embedded() -> Embedded:
    from bisonsync import embedded
    from bisonsync.jobs.schedule.jobs import Embedded

    found = embedded.status()
    home = found.directory.parent.parent
    is_usual = found.directory == home / "bisonsync" / "postgres"
    return Embedded(found.directory, found.os_user, home if is_usual else None)
