"""``schedule systemd``: the jobs of this configuration as units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from bisonsync.jobs.schedule.jobs import (
    DAY,
    HOUR,
    JOBS,
    MARGIN,
    MINUTE,
    NIGHT,
    Job,
    Setup,
    arguments,
    deadline,
    nearest_interval,
    often,
    scheduled_jobs,
)
from bisonsync.jobs.schedule.notes import (
    ENVIRONMENT_FILE,
    HOMES,
    comment,
    is_below,
    notes_on_job,
    notes_on_surroundings,
    printable,
)

_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108


def units(setup: Setup, user: str) -> dict[str, str]:
    """Return the units by file name: a service and a timer for each job, and what runs when one fails."""
    made: dict[str, str] = {}
    for job, every in scheduled_jobs(setup):
        made[f"bisonsync-{job.name}.service"] = _service(setup, user, job, every)
        made[f"bisonsync-{job.name}.timer"] = _timer(job, every)
    made["bisonsync-failed@.service"] = _failed(setup, user)
    return made


def _service(setup: Setup, user: str, job: Job, every: timedelta) -> str:
    timeout = deadline(setup, job, every) + MARGIN
    lines = [
        *comment(f"{job.name}, {often(every)}: {job.why}"),
        *notes_on_job(setup, job),
        *(line for note in notes_on_surroundings(setup, "systemd", user) for line in comment(note)),
        "[Unit]",
        f"Description=bisonsync {' '.join(job.arguments)}",
        "Wants=network-online.target",
        "After=network-online.target",
        "OnFailure=bisonsync-failed@%N.service",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={_exec(arguments(setup, job, every, jitter=False))}",
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
        *comment(f"{job.name}, {often(every)}: {job.why}"),
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
    return f"{'' if every == DAY else 'Sun '}*-*-* {NIGHT:02}:{minute:02}:00"


# Not "bisonsync": systemd would give root's embedded server, which lies there, to another user.
_MEMORY = (
    "# Where it remembers what it told while the database takes no writes.",
    "StateDirectory=bisonsync-alerts",
    "StateDirectoryMode=0700",
)


def _failed(setup: Setup, user: str) -> str:
    health = next(job for job in JOBS if job.name == "health")
    lines = [
        *comment(
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
        f"ExecStart={_exec(arguments(setup, health, MINUTE, jitter=False))}",
        f"TimeoutStartSec={round((deadline(setup, health, MINUTE) + MARGIN).total_seconds())}",
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
    yield f"EnvironmentFile=-{ENVIRONMENT_FILE}"
    if setup.secret_files:
        yield "# Read by systemd as root, and handed to this user under the names of the settings."
    for name, path in setup.secret_files.items():
        yield f"LoadCredential={name}:{_escaped(str(path))}"
    yield "# What a batch job that talks to the API and to Postgres has no need of."
    yield "UMask=0077"
    yield "NoNewPrivileges=yes"
    needed = [Path(setup.command[0]), *setup.needed, *([setup.config] if setup.config else [])]
    is_temporary = embedded is not None or is_below(needed, _TEMPORARY)
    yield f"PrivateTmp={'no' if is_temporary else 'yes'}"
    yield "PrivateDevices=yes"
    yield "ProtectSystem=strict"
    homes = [*needed, *([embedded.folder] if embedded else [])]
    yield f"ProtectHome={'read-only' if is_below(homes, HOMES) else 'yes'}"
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
    return printable(text).replace("%", "%%")
