"""``schedule cron``: the jobs of this configuration as crontab lines."""

from __future__ import annotations

import shlex
from datetime import timedelta
from math import gcd

from bisonsync.durations import format_duration
from bisonsync.errors import ConfigError
from bisonsync.jobs.schedule.jobs import (
    DAY,
    HOUR,
    MINUTE,
    NIGHT,
    Setup,
    arguments,
    nearest_interval,
    often,
    scheduled_jobs,
)
from bisonsync.jobs.schedule.notes import comment, notes_on_job, notes_on_surroundings, printable

# What every change of clocks is a multiple of: Lord Howe's is one. cron goes by the local clock, so that only what
# divides it stays on time in both nights.
_CLOCK_STEP = timedelta(minutes=30)


def crontab(setup: Setup) -> str:
    """Return the crontab lines, each below comments that say how often and why. Raises ConfigError."""
    lines = [
        "# bisonsync: lines for crontab(5), made by 'bisonsync schedule cron'.",
        "# To add them: (crontab -l; bisonsync schedule cron) | crontab -",
        *comment(
            "cron mails what a run prints and never tells exit codes: "
            "-q keeps good runs silent, and health tells of those that fail or do not come."
        ),
        *(line for note in notes_on_surroundings(setup, "cron") for line in comment(note)),
    ]
    if setup.embedded is not None and setup.embedded.data_home is not None:
        lines.append(f"XDG_DATA_HOME={_cron_value(str(setup.embedded.data_home))}")
    for job, every in scheduled_jobs(setup):
        nearest = nearest_interval(every)
        lines += ["", *comment(f"{job.name}, {often(nearest)}: {job.why}")]
        if nearest != every:
            lines += comment(
                f"{often(every).capitalize()} is asked for, which cron cannot say: {often(nearest)} is the nearest. "
                f"health counts missed runs by what is asked for: {job.name} = "
                f'"{format_duration(nearest)}" in [schedule] makes both the same.'
            )
        lines += notes_on_job(setup, job)
        turns = nearest // _cron_step(nearest)
        if turns > 1:
            lines += comment(
                "cron goes by the local clock: in a night that changes it, one pause would be longer. So this line "
                f"comes more often, and the test takes one turn of {turns}, counted in UTC."
            )
        command = shlex.join(printable(argument) for argument in arguments(setup, job, every, jitter=True))
        command = (cron_test(nearest) + command).replace("%", r"\%")
        lines.append(f"{cron_fields(nearest, job.minute)} {command}")
    return "\n".join(lines)


def cron_fields(every: timedelta, minute: int) -> str:
    """Return the five fields of an interval that cron can say; ``minute`` within the hour, if it is an hour or more.

    Of the turns that they name, ``cron_test`` takes those that are wanted.
    """
    if every >= DAY:
        return f"{minute} {NIGHT} * * {'*' if every == DAY else '0'}"
    if every == HOUR:
        return f"{minute} * * * *"
    if every > HOUR:
        return f"{minute % 30},{minute % 30 + 30} * * * *"
    count = _cron_step(every) // MINUTE
    return f"{'*' if count == 1 else f'*/{count}'} * * * *"


def cron_test(every: timedelta) -> str:
    """Return what stands before the command if not every turn is wanted: a test that counts turns in UTC."""
    step = _cron_step(every)
    return "" if step == every else f"test $(($(date +%s) / {step.seconds} % {every // step})) -eq 0 && "


def _cron_step(every: timedelta) -> timedelta:
    """The interval itself where cron's own fields keep it in both nights, else a part of it that they keep."""
    return every if every == HOUR or every >= DAY else gcd(every // MINUTE, _CLOCK_STEP // MINUTE) * MINUTE


def _cron_value(value: str) -> str:
    if "'" in value:
        raise ConfigError(f"cron can take no ' in {value}", hint="choose a folder without one by XDG_DATA_HOME")
    return f"'{printable(value)}'"
