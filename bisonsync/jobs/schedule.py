"""``schedule cron`` and ``schedule systemd``: the jobs of this configuration as crontab lines, or as units."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import gcd
from pathlib import Path

from bisonsync.durations import format_duration
from bisonsync.errors import ConfigError

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
_NIGHT = 4
# What every change of clocks is a multiple of: Lord Howe's is one. cron goes by the local clock, so that only what
# divides it stays on time in both nights.
_CLOCK_STEP = timedelta(minutes=30)
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108
# Beyond a run's own deadline: connecting, closing the ledger, the last ping.
_MARGIN = timedelta(minutes=2)
_WIDTH = 110
_ENVIRONMENT_FILE = "/etc/bisonsync/environment"


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
_JOBS = (
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


@dataclass(frozen=True, slots=True)
class Written:
    """What ``write`` did, by file name. ``unwanted``: units in the folder of jobs that are off now."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    unwanted: tuple[str, ...]


def scheduled_jobs(setup: Setup) -> Iterator[tuple[Job, timedelta]]:
    """The jobs that are not off, each with the interval that is asked for."""
    for job in _JOBS:
        every = job.every or setup.intervals.get(job.name)
        if every is not None:
            yield job, every


# cron


def cron(setup: Setup) -> str:
    """Return the crontab lines, each below comments that say how often and why. Raises ConfigError."""
    lines = [
        "# bisonsync: lines for crontab(5), made by 'bisonsync schedule cron'.",
        "# To add them: (crontab -l; bisonsync schedule cron) | crontab -",
        *_comment(
            "cron mails what a run prints and never tells exit codes: "
            "-q keeps good runs silent, and health tells of those that fail or do not come."
        ),
        *(line for note in _surroundings(setup, "cron") for line in _comment(note)),
    ]
    if setup.embedded is not None and setup.embedded.data_home is not None:
        lines.append(f"XDG_DATA_HOME={_cron_value(str(setup.embedded.data_home))}")
    for job, every in scheduled_jobs(setup):
        nearest = nearest_interval(every)
        lines += ["", *_comment(f"{job.name}, {often(nearest)}: {job.why}")]
        if nearest != every:
            lines += _comment(
                f"{often(every).capitalize()} is asked for, which cron cannot say: {often(nearest)} is the nearest. "
                f"health counts missed runs by what is asked for: {job.name} = "
                f'"{format_duration(nearest)}" in [schedule] makes both the same.'
            )
        lines += _notes(setup, job)
        turns = nearest // _cron_step(nearest)
        if turns > 1:
            lines += _comment(
                "cron goes by the local clock: in a night that changes it, one pause would be longer. So this line "
                f"comes more often, and the test takes one turn of {turns}, counted in UTC."
            )
        command = shlex.join(_printable(argument) for argument in _arguments(setup, job, every, jitter=True))
        command = (cron_test(nearest) + command).replace("%", r"\%")
        lines.append(f"{cron_fields(nearest, job.minute)} {command}")
    return "\n".join(lines)


def nearest_interval(every: timedelta) -> timedelta:
    """Return the interval nearest to ``every`` that cron can say; of two as near the shorter one."""
    return min(INTERVALS, key=lambda other: (abs(other - every), other))


def cron_fields(every: timedelta, minute: int) -> str:
    """Return the five fields of an interval that cron can say; ``minute`` within the hour, if it is an hour or more.

    Of the turns that they name, ``cron_test`` takes those that are wanted.
    """
    if every >= DAY:
        return f"{minute} {_NIGHT} * * {'*' if every == DAY else '0'}"
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


def often(every: timedelta) -> str:
    """Return an interval in words."""
    for size, unit in ((7 * DAY, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if every % size == timedelta(0):
            count = every // size
            return f"every {unit}" if count == 1 else f"every {count} {unit}s"
    return f"every {format_duration(every)}"


def _cron_value(value: str) -> str:
    if "'" in value:
        raise ConfigError(f"cron can take no ' in {value}", hint="choose a folder without one by XDG_DATA_HOME")
    return f"'{_printable(value)}'"


# systemd


def units(setup: Setup, user: str) -> dict[str, str]:
    """Return the units by file name: a service and a timer for each job, and what runs when one fails."""
    made: dict[str, str] = {}
    for job, every in scheduled_jobs(setup):
        made[f"bisonsync-{job.name}.service"] = _service(setup, user, job, every)
        made[f"bisonsync-{job.name}.timer"] = _timer(job, every)
    made["bisonsync-failed@.service"] = _failed(setup, user)
    return made


def _service(setup: Setup, user: str, job: Job, every: timedelta) -> str:
    timeout = _deadline(setup, job, every) + _MARGIN
    lines = [
        *_comment(f"{job.name}, {often(every)}: {job.why}"),
        *_notes(setup, job),
        *(line for note in _surroundings(setup, "systemd", user) for line in _comment(note)),
        "[Unit]",
        f"Description=bisonsync {' '.join(job.arguments)}",
        "Wants=network-online.target",
        "After=network-online.target",
        "OnFailure=bisonsync-failed@%N.service",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={_exec(_arguments(setup, job, every, jitter=False))}",
        "# Later than the end of the run by itself.",
        f"TimeoutStartSec={round(timeout.total_seconds())}",
        f"SuccessExitStatus={' '.join(map(str, job.ok_codes))}",
        *(_MEMORY if job.name == "health" else ()),
        *_surroundings_of_service(setup, user),
    ]
    return "\n".join(lines) + "\n"


def _timer(job: Job, every: timedelta) -> str:
    delay = min(job.jitter, every / 4)
    lines = [
        *_comment(f"{job.name}, {often(every)}: {job.why}"),
        "[Unit]",
        f"Description=bisonsync {' '.join(job.arguments)}, {often(every)}",
        "",
        "[Timer]",
    ]
    if nearest_interval(every) == every:
        if every < DAY:
            lines.append("# By local time it would not elapse in the hour that a change of clocks repeats.")
        lines += [
            f"OnCalendar={calendar(every, job.minute)}",
            "# A run that was missed while the machine was off is made up for at its start.",
            "Persistent=true",
        ]
    else:
        seconds = f"{every.total_seconds():g}s"
        lines += [
            "# No calendar says this interval: counted from the last run, and from the timer's start.",
            f"OnActiveSec={seconds}",
            f"OnUnitActiveSec={seconds}",
        ]
    lines += [
        "# Always the same share of it on one host, so that hosts do not knock at the same second.",
        f"RandomizedDelaySec={delay.total_seconds():g}s",
        "FixedRandomDelay=true",
        "AccuracySec=1s",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def calendar(every: timedelta, minute: int) -> str:
    """Return systemd's calendar expression for an interval that cron can say too: below a day in UTC."""
    if every < HOUR:
        count = every // MINUTE
        return f"*-*-* *:{'*' if count == 1 else f'00/{count}'}:00 UTC"
    if every < DAY:
        count = every // HOUR
        return f"*-*-* {'*' if count == 1 else f'00/{count}'}:{minute:02}:00 UTC"
    return f"{'' if every == DAY else 'Sun '}*-*-* {_NIGHT:02}:{minute:02}:00"


# Not "bisonsync": systemd would give root's embedded server, which lies there, to another user.
_MEMORY = (
    "# Where it remembers what it told while the database takes no writes.",
    "StateDirectory=bisonsync-alerts",
    "StateDirectoryMode=0700",
)


def _failed(setup: Setup, user: str) -> str:
    health = next(job for job in _JOBS if job.name == "health")
    lines = [
        *_comment(
            "Runs when another unit has failed: looks at the health at once and sends the messages that are due. "
            "The failed run itself is in the journal (journalctl -u NAME) and in 'bisonsync runs list'."
        ),
        "[Unit]",
        "Description=bisonsync health after %i has failed",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={_exec(_arguments(setup, health, MINUTE, jitter=False))}",
        f"TimeoutStartSec={round((_deadline(setup, health, MINUTE) + _MARGIN).total_seconds())}",
        f"SuccessExitStatus={' '.join(map(str, health.ok_codes))}",
        *_MEMORY,
        *_surroundings_of_service(setup, user),
    ]
    return "\n".join(lines) + "\n"


def _surroundings_of_service(setup: Setup, user: str) -> Iterator[str]:
    embedded = setup.embedded
    yield f"User={user}"
    if embedded is not None:
        yield "# The embedded Postgres goes on between the runs."
        yield "KillMode=process"
        if embedded.data_home is not None:
            yield f"Environment={_quoted(f'XDG_DATA_HOME={embedded.data_home}')}"
        yield f"ReadWritePaths={_quoted(f'-{embedded.folder}')}"
    yield f"EnvironmentFile=-{_ENVIRONMENT_FILE}"
    if setup.secret_files:
        yield "# Read by systemd as root, and handed to this user under the names of the settings."
    for name, path in setup.secret_files.items():
        yield f"LoadCredential={name}:{_escaped(str(path))}"
    yield "# What a batch job that talks to the API and to Postgres has no need of."
    yield "UMask=0077"
    yield "NoNewPrivileges=yes"
    needed = [Path(setup.command[0]), *setup.needed, *([setup.config] if setup.config else [])]
    is_temporary = embedded is not None or _is_below(needed, _TEMPORARY)
    yield f"PrivateTmp={'no' if is_temporary else 'yes'}"
    yield "PrivateDevices=yes"
    yield "ProtectSystem=strict"
    homes = [*needed, *([embedded.folder] if embedded else [])]
    yield f"ProtectHome={'read-only' if _is_below(homes, _HOMES) else 'yes'}"
    for name in ("KernelTunables", "KernelModules", "KernelLogs", "ControlGroups", "Clock", "Hostname"):
        yield f"Protect{name}=yes"
    yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"
    for name in ("Namespaces", "Realtime", "SUIDSGID"):
        yield f"Restrict{name}=yes"
    yield "LockPersonality=yes"
    yield f"MemoryDenyWriteExecute={'no' if embedded else 'yes'}"
    yield "SystemCallArchitectures=native"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallFilter=~@privileged @resources"
    yield "SystemCallErrorNumber=EPERM"
    yield "CapabilityBoundingSet="


def write(folder: Path, made: Mapping[str, str], *, force: bool, dry_run: bool) -> Written:
    """Write the units into ``folder``, all or none. Raises ConfigError for one that differs, unless ``force``."""
    try:
        found = {name: (folder / name).read_text() for name in made if (folder / name).exists()}
        changed = [name for name, text in made.items() if found.get(name) != text]
        differing = [name for name in changed if name in found]
        if differing and not force:
            raise ConfigError(
                f"{folder / differing[0]} exists already and differs"
                + (f", and so do {len(differing) - 1} more" if len(differing) > 1 else ""),
                hint="--force replaces them; changes of your own belong into drop-ins (systemctl edit)",
            )
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
            for name in changed:
                _replace(folder / name, made[name])
        there = sorted(path.name for path in folder.glob("bisonsync-*.timer"))
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a text file"
        raise ConfigError(
            f"cannot write units into {folder}: {reason}", hint="run it as root, or name a folder of yours"
        ) from None
    return Written(
        written=tuple(changed),
        unchanged=tuple(name for name in made if name not in changed),
        unwanted=tuple(name for name in there if name not in made),
    )


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=".bisonsync-", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        draft.chmod(0o644)
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise


# Both


def _arguments(setup: Setup, job: Job, every: timedelta, *, jitter: bool) -> list[str]:
    arguments = list(setup.command)
    if setup.config is not None:
        arguments += ["-c", str(setup.config)]
    if setup.database_url is not None:
        arguments += ["--database-url", setup.database_url]
    arguments += [*job.arguments, "-q"]
    arguments += ["--deadline", format_duration(_deadline(setup, job, every))]
    # systemd's timers have their own.
    if jitter and job.name != "health":
        arguments += ["--jitter", format_duration(min(job.jitter, every / 4))]
    return [*arguments, *job.options]


def _deadline(setup: Setup, job: Job, every: timedelta) -> timedelta:
    """A third more than the interval, within what the settings allow: then the next run is to have its turn."""
    if job.name == "health":
        # The next look is as good, and two at once would only wait for each other.
        return min(max(MINUTE / 2, _whole(every * 5 / 6)), 2 * MINUTE)
    if job.deadline is not None:
        return job.deadline
    return min(max(MINUTE, _whole(every * 4 / 3)), setup.longest)


def _notes(setup: Setup, job: Job) -> Iterator[str]:
    """Comments on what the settings say of one job."""
    if job.name in setup.heartbeats:
        yield from _comment(f"It pings the address that [heartbeats] has for {job.name}.")
    if job.name == "health" and not setup.has_slack:
        yield from _comment(
            "ATTENTION: [alerts] has no slack_webhook_url: what it finds is printed at each look, and sent nowhere."
        )


def _whole(every: timedelta) -> timedelta:
    return timedelta(seconds=round(every.total_seconds()))


def _surroundings(setup: Setup, kind: str, user: str = "") -> Iterator[str]:
    """What the operator has to know or to do before a run can start by itself."""
    who = "cron" if kind == "cron" else "systemd"
    if setup.variables:
        names = ", ".join(setup.variables)
        where = (
            "the configuration file, or lines NAME=value above these"
            if kind == "cron"
            else f"the configuration file, or {_ENVIRONMENT_FILE} (lines NAME=value, mode 0600)"
        )
        yield (
            f"ATTENTION: {who} does not see this shell's environment, from which settings come: {names}. "
            f"Put them into {where}."
        )
    if setup.config is None:
        yield f"ATTENTION: there is no configuration file; {who} starts each run without any setting."
    if setup.embedded is not None:
        yield (
            f"The embedded Postgres in {_printable(str(setup.embedded.folder))} belongs to {setup.embedded.owner}: "
            + ("these lines belong into the crontab of that user." if kind == "cron" else "only that user can use it.")
        )
        if user and user != setup.embedded.owner:
            yield f"ATTENTION: {user} is another user, and would begin with an empty database of its own."
    if kind == "systemd" and _is_below([Path(setup.command[0]), *setup.needed], _HOMES):
        yield f"ATTENTION: this program lies in a home: can {user} enter it? Better install it in /opt/bisonsync."
    if kind == "systemd" and setup.holds_secrets:
        yield f"{_printable(str(setup.config))} holds secrets and must belong to {user}: chown {user}, chmod 600."


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _is_below(paths: Sequence[Path], folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _exec(arguments: Sequence[str]) -> str:
    """A command line of systemd: the program's path is taken as it is, ``$`` counts in the arguments alone."""
    program, *others = arguments
    return " ".join([_quoted(program), *(_quoted(other.replace("$", "$$")) for other in others)])


def _quoted(word: str) -> str:
    """A word for systemd, in quotes where it needs them."""
    escaped = _escaped(word)
    if re.fullmatch(r"[\w@%+=:,./$-]+", escaped, re.ASCII):
        return escaped
    inner = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def _escaped(text: str) -> str:
    return _printable(text).replace("%", "%%")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ConfigError(f"{text!r} cannot stand in one line", hint="use a path without control characters")
    return text
