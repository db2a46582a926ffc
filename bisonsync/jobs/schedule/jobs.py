"""The jobs that are to be run again and again, and how: often, until when, with which options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from bisonsync.durations import format_duration

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# What can be repeated without a gap at the end of the hour, the day or the week.
INTERVALS = (
    *(n * MINUTE for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)),
    *(n * HOUR for n in (1, 2, 3, 4, 6, 8, 12)),
    DAY,
    7 * DAY,
)
# Quiet in most zones, and in none an hour that a change of clocks skips or repeats, as from 2 to 4 there are.
NIGHT = 4
# Beyond a run's own deadline: connecting, closing the ledger, the last ping.
MARGIN = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Job:
    """A command that is to be run again and again. ``name`` is the ledger's word for it."""

    name: str
    arguments: tuple[str, ...]
    why: str
    every: timedelta | None = None
    minute: int = 30
    options: tuple[str, ...] = ()
    deadline: timedelta | None = None
    jitter: timedelta = timedelta(0)
    ok_codes: tuple[int, ...] = (75,)


# ``every`` where it is no setting. ``minute`` keeps the hourly ones apart; it is 30 or more, for the minutes before
# are left out or wait longer where clocks change by half an hour.
JOBS = (
    Job(
        "poll-accounts",
        ("poll-accounts",),
        "mirrors the sender emails. Dashboards want accounts younger than 5 minutes, and a run takes seconds; "
        "one that still runs when the next begins is left alone.",
        options=("--skip-if-locked",),
        jitter=timedelta(seconds=20),
    ),
    Job(
        "poll-campaigns",
        ("poll-campaigns",),
        "mirrors the campaigns. Their figures move slower than accounts break.",
        options=("--skip-if-locked",),
        jitter=timedelta(seconds=30),
    ),
    Job(
        "poll-warmup",
        ("poll-warmup",),
        "reads how warm-up goes, of each workspace every 6 hours: most runs find nothing due, and what failed is tried "
        "again.",
        minute=42,
        options=("--skip-if-locked",),
        jitter=timedelta(minutes=1),
    ),
    Job(
        "replay-webhooks",
        ("replay-webhooks",),
        "applies the deliveries that are due: what failed for a while, and what waited for its workspace. Most runs "
        "find nothing.",
        options=("--skip-if-locked",),
        jitter=timedelta(seconds=10),
    ),
    Job(
        "pull-events",
        ("pull-events",),
        "fetches from the hosts' event logs what was never delivered. A log is kept for 10 days, so that a run that is "
        "missed loses nothing.",
        options=("--skip-if-locked",),
        jitter=timedelta(seconds=40),
    ),
    Job(
        "health",
        ("health", "--alert"),
        "looks at everything that can go wrong and sends the messages. What it sees twice in a row is told: "
        "looking more seldom tells it later.",
        jitter=timedelta(seconds=5),
        # OK, WARNING, CRITICAL and UNKNOWN are answers, and told by the alerts.
        ok_codes=(1, 2, 3),
    ),
    Job(
        "snapshot-providers",
        ("snapshot-providers",),
        "keeps the day's totals. The last run of a day fixes it, so a day without any is a gap for ever.",
        minute=37,
        options=("--skip-if-locked",),
        jitter=timedelta(seconds=30),
    ),
    Job(
        "workspaces-discover",
        ("workspaces", "discover"),
        "finds new, renamed and vanished workspaces: a new client is read within the hour.",
        every=HOUR,
        minute=47,
        jitter=timedelta(seconds=30),
    ),
    Job(
        "workspaces-mint-tokens",
        ("workspaces", "mint-tokens"),
        "makes tokens for workspaces without a valid one, after they were found.",
        every=HOUR,
        minute=52,
        options=("--skip-if-locked",),
        jitter=timedelta(seconds=30),
    ),
    Job(
        "webhooks-ensure",
        ("webhooks", "ensure"),
        "gives workspaces without one their webhook, after they have a token. Only where [webhooks] public_url is set.",
        minute=55,
        options=("--skip-if-locked",),
        jitter=timedelta(seconds=30),
    ),
    Job(
        "prune",
        ("prune",),
        "removes what is older than its retention and makes partitions ahead, at night.",
        minute=57,
        options=("--skip-if-locked",),
        deadline=HOUR,
        jitter=timedelta(minutes=2),
    ),
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embedded Postgres: its folder, and whose it is. ``data_home`` leads to it, None where nothing can."""

    folder: Path
    owner: str
    data_home: Path | None


@dataclass(frozen=True, slots=True)
class Setup:
    """This installation. ``command`` begins with an absolute path.

    ``intervals`` has the jobs that are not off. ``variables`` are those of this shell that settings come from.
    ``secret_files`` are those that the configuration file names, by the names of their credentials. ``needed`` are
    further places that a run reads.
    """

    command: tuple[str, ...]
    config: Path | None
    intervals: Mapping[str, timedelta]
    longest: timedelta
    secret_files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    holds_secrets: bool = False
    variables: Sequence[str] = ()
    database_url: str | None = None
    embedded: Embedded | None = None
    heartbeats: frozenset[str] = frozenset()
    has_slack: bool = True
    needed: Sequence[Path] = ()


def scheduled_jobs(setup: Setup) -> Iterator[tuple[Job, timedelta]]:
    """The jobs that are not off, each with the interval that is asked for."""
    for job in JOBS:
        every = job.every or setup.intervals.get(job.name)
        if every is not None:
            yield job, every


def nearest_interval(every: timedelta) -> timedelta:
    """Return the interval nearest to ``every`` that cron can say; of two as near the shorter one."""
    return min(INTERVALS, key=lambda other: (abs(other - every), other))


def often(every: timedelta) -> str:
    """Return an interval in words."""
    for size, unit in ((7 * DAY, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if every % size == timedelta(0):
            count = every // size
            return f"every {unit}" if count == 1 else f"every {count} {unit}s"
    return f"every {format_duration(every)}"


def arguments(setup: Setup, job: Job, every: timedelta, *, jitter: bool) -> list[str]:
    arguments = list(setup.command)
    if setup.config is not None:
        arguments += ["-c", str(setup.config)]
    if setup.database_url is not None:
        arguments += ["--database-url", setup.database_url]
    arguments += [*job.arguments, "-q"]
    arguments += ["--deadline", format_duration(deadline(setup, job, every))]
    # systemd's timers have their own.
    if jitter and job.name != "health":
        arguments += ["--jitter", format_duration(min(job.jitter, every / 4))]
    return [*arguments, *job.options]


def deadline(setup: Setup, job: Job, every: timedelta) -> timedelta:
    """A third more than the interval, within what the settings allow: then the next run is to have its turn."""
    if job.name == "health":
        # The next look is as good, and two at once would only wait for each other.
        return min(max(MINUTE / 2, _whole(every * 5 / 6)), 2 * MINUTE)
    if job.deadline is not None:
        return job.deadline
    return min(max(MINUTE, _whole(every * 4 / 3)), setup.longest)


def _whole(every: timedelta) -> timedelta:
    return timedelta(seconds=round(every.total_seconds()))
