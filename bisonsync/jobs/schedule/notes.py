"""Comments for whoever reads the lines and units, and what has to be done before a run can start by itself."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from bisonsync.errors import ConfigError
from bisonsync.jobs.schedule.jobs import Job, Setup

HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_WIDTH = 110
ENVIRONMENT_FILE = "/etc/bisonsync/environment"


def notes_on_job(setup: Setup, job: Job) -> Iterator[str]:
    """Comments on what the settings say of one job."""
    if job.name in setup.heartbeats:
        yield from comment(f"It pings the address that [heartbeats] has for {job.name}.")
    if job.name == "health" and not setup.has_slack:
        yield from comment(
            "ATTENTION: [alerts] has no slack_webhook_url: what it finds is printed at each look, and sent nowhere."
        )


def notes_on_surroundings(setup: Setup, kind: str, user: str = "") -> Iterator[str]:
    """What the operator has to know or to do before a run can start by itself."""
    who = "cron" if kind == "cron" else "systemd"
    if setup.variables:
        names = ", ".join(setup.variables)
        where = (
            "the configuration file, or lines NAME=value above these"
            if kind == "cron"
            else f"the configuration file, or {ENVIRONMENT_FILE} (lines NAME=value, mode 0600)"
        )
        yield (
            f"ATTENTION: {who} does not see this shell's environment, from which settings come: {names}. "
            f"Put them into {where}."
        )
    if setup.config is None:
        yield f"ATTENTION: there is no configuration file; {who} starts each run without any setting."
    if setup.embedded is not None:
        yield (
            f"The embedded Postgres in {printable(str(setup.embedded.folder))} belongs to {setup.embedded.owner}: "
            + ("these lines belong into the crontab of that user." if kind == "cron" else "only that user can use it.")
        )
        if user and user != setup.embedded.owner:
            yield f"ATTENTION: {user} is another user, and would begin with an empty database of its own."
    if kind == "systemd" and is_below([Path(setup.command[0]), *setup.needed], HOMES):
        yield f"ATTENTION: this program lies in a home: can {user} enter it? Better install it in /opt/bisonsync."
    if kind == "systemd" and setup.holds_secrets:
        yield f"{printable(str(setup.config))} holds secrets and must belong to {user}: chown {user}, chmod 600."


def comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def is_below(paths: Sequence[Path], folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def printable(text: str) -> str:
    if not text.isprintable():
        raise ConfigError(f"{text!r} cannot stand in one line", hint="use a path without control characters")
    return text
