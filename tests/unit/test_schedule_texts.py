"""Crontab lines and units as text: intervals, quoting, what is said of the surroundings."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from nights import ZONES, changes, read_line, starts

from bisonsync.durations import parse_duration
from bisonsync.errors import ConfigError
from bisonsync.jobs.schedule import cron, jobs, systemd
from bisonsync.jobs.schedule.jobs import Embedded, Setup
from bisonsync.settings.models import SCHEDULE

# Of the jobs that do not always have a line, hourly like those that discover.
OTHERS = {"webhooks-ensure": jobs.HOUR}
SETUP = Setup(
    command=("/opt/bisonsync/bin/bisonsync",),
    config=Path("/etc/bisonsync/config.toml"),
    intervals=SCHEDULE | OTHERS,
    longest=timedelta(minutes=15),
)
# With the line that only those need who receive webhooks.
EXAMPLE = re.sub(
    r"^# (?=\d)", "", (Path(__file__).resolve().parents[2] / "crontab.example").read_text(), flags=re.MULTILINE
)
# What stands before a command that is not to run at every turn that its fields name.
TURN = re.compile(r"test \$\(\(\$\(date \+%s\) / (\d+) % (\d+)\)\) -eq 0 && ")
# What a shell, cron and systemd each have their own ideas about.
ODD = 'it\'s 50% of "$HOME" & a \\ back; `date` #1'


def commands(crontab: str) -> dict[str, tuple[str, str]]:
    """The lines of a crontab by their command's words: the fields, and the command as cron hands it to sh."""
    found: dict[str, tuple[str, str]] = {}
    for line in crontab.splitlines():
        if line and not line.startswith("#") and line[0] in "*0123456789":
            *fields, command = line.split(maxsplit=5)
            assert "%" not in command.replace("\\%", "")
            command = command.replace("\\%", "%")
            words = shlex.split(command)
            found[next(word for word in words[1:] if word in WORDS)] = (" ".join(fields), command)
    return found


WORDS = (
    *(
        "poll-accounts",
        "poll-campaigns",
        "poll-warmup",
        "replay-webhooks",
        "pull-events",
        "health",
        "snapshot-providers",
        "discover",
        "mint-tokens",
    ),
    *("ensure", "prune"),
)


@pytest.mark.parametrize(
    ("asked", "said", "fields", "calendar"),
    [
        ("1m", "every minute", "* * * * *", "*-*-* *:*:00 UTC"),
        ("45s", "every minute", "* * * * *", "*-*-* *:*:00 UTC"),
        ("3m", "every 3 minutes", "*/3 * * * *", "*-*-* *:00/3:00 UTC"),
        ("4m", "every 4 minutes", "*/2 * * * *", "*-*-* *:00/4:00 UTC"),
        ("7m", "every 6 minutes", "*/6 * * * *", "*-*-* *:00/6:00 UTC"),
        ("8m", "every 6 minutes", "*/6 * * * *", "*-*-* *:00/6:00 UTC"),
        ("9m", "every 10 minutes", "*/10 * * * *", "*-*-* *:00/10:00 UTC"),
        ("40m", "every 30 minutes", "*/30 * * * *", "*-*-* *:00/30:00 UTC"),
        ("1h", "every hour", "37 * * * *", "*-*-* *:37:00 UTC"),
        ("90m", "every hour", "37 * * * *", "*-*-* *:37:00 UTC"),
        ("5h", "every 4 hours", "7,37 * * * *", "*-*-* 00/4:37:00 UTC"),
        ("1d", "every day", "37 4 * * *", "*-*-* 04:37:00"),
        ("3d", "every day", "37 4 * * *", "*-*-* 04:37:00"),
        ("7d", "every week", "37 4 * * 0", "Sun *-*-* 04:37:00"),
        ("365d", "every week", "37 4 * * 0", "Sun *-*-* 04:37:00"),
    ],
)
def test_the_nearest_interval_that_cron_can_say(asked: str, said: str, fields: str, calendar: str) -> None:
    every = jobs.nearest_interval(parse_duration(asked))

    assert jobs.often(every) == said
    assert cron.cron_fields(every, 37) == fields
    assert systemd.calendar(every, 37) == calendar


def every_line() -> set[tuple[timedelta, str, tuple[int, int]]]:
    """The lines of every interval and the example's, without their commands: interval, fields, seconds and turns."""
    crontabs = [(EXAMPLE, SCHEDULE)]
    for every in jobs.INTERVALS:
        intervals = dict.fromkeys(SCHEDULE, every) | OTHERS
        crontabs.append((cron.crontab(replace(SETUP, intervals=intervals)), intervals))
    found = set[tuple[timedelta, str, tuple[int, int]]]()
    for crontab, intervals in crontabs:
        lines = commands(crontab)
        assert set(lines) == set(WORDS)
        for name, (fields, command) in lines.items():
            turn = TURN.match(command)
            turns = (int(turn[1]), int(turn[2])) if turn else (1, 1)
            found.add((intervals.get(name, jobs.HOUR), fields, turns))
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_no_line_pauses_or_comes_twice_in_a_night_that_changes_the_clocks(zone: str) -> None:
    lines = [line for line in every_line() if line[0] < jobs.DAY]

    assert len(changes(zone)) >= 2
    for changed_at in changes(zone):
        for every, fields, (seconds, turns) in lines:
            around = (changed_at - every - 3 * jobs.HOUR, changed_at + every + 3 * jobs.HOUR)
            came = [at for at in starts(read_line(fields), zone, *around) if at.timestamp() // seconds % turns == 0]
            pauses = [after - before for before, after in pairwise(came)]
            assert jobs.MINUTE <= min(pauses) <= max(pauses) <= every + jobs.MINUTE, (fields, turns)


@pytest.mark.parametrize("zone", ZONES)
def test_a_daily_line_comes_once_on_the_day_that_changes_the_clocks(zone: str) -> None:
    daily = [fields for every, fields, _ in every_line() if every == jobs.DAY]

    assert daily
    for changed_at in changes(zone):
        for fields in daily:
            around = (changed_at - 2 * jobs.DAY, changed_at + 2 * jobs.DAY)
            came = [at.astimezone(ZoneInfo(zone)) for at in starts(read_line(fields), zone, *around)]
            assert {(at.hour, at.minute) for at in came} == {(4, int(fields.split()[0]))}
            assert {after.date() - before.date() for before, after in pairwise(came)} == {jobs.DAY}


def test_the_shell_takes_one_turn_of_those_that_cron_names() -> None:
    test = cron.cron_test(timedelta(hours=4))
    moments = "0 1799 1800 14399 14400 16199 16200 1800000000 1800014400"

    script = f'for now in {moments}; do date() {{ echo "$now"; }}; {test}echo "$now"; done'
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True)

    assert TURN.fullmatch(test)
    assert done.stdout.split() == ["0", "1799", "14400", "16199", "1800000000", "1800014400"]


def test_an_interval_that_cron_cannot_say_is_named() -> None:
    text = cron.crontab(replace(SETUP, intervals={"poll-accounts": parse_duration("7m")}))

    flowing = text.replace("\n# ", " ")
    assert commands(text)["poll-accounts"][0] == "*/6 * * * *"
    assert "Every 7 minutes is asked for, which cron cannot say: every 6 minutes is the nearest." in flowing
    assert 'poll-accounts = "6m" in [schedule]' in flowing


def test_a_job_that_is_off_has_no_line_and_no_unit() -> None:
    setup = replace(SETUP, intervals={"health": timedelta(minutes=1)})

    assert list(commands(cron.crontab(setup))) == ["health", "discover", "mint-tokens"]
    assert {name for name in systemd.units(setup, "bisonsync") if name.endswith(".timer")} == {
        "bisonsync-health.timer",
        "bisonsync-workspaces-discover.timer",
        "bisonsync-workspaces-mint-tokens.timer",
    }


def test_each_line_stands_below_how_often_and_why() -> None:
    blocks = cron.crontab(SETUP).split("\n\n")[1:]

    assert len(blocks) == len(WORDS)
    for block in blocks:
        *comments, line = block.splitlines()
        assert comments
        assert all(comment.startswith("# ") and len(comment) <= 120 for comment in comments)
        assert ", every " in comments[0]
        assert not line.startswith("#")


def test_a_run_has_its_deadline_and_gives_way_to_another() -> None:
    lines = commands(cron.crontab(SETUP))

    assert lines["poll-accounts"][1].endswith("poll-accounts -q --deadline 4m --jitter 20s --skip-if-locked")
    assert lines["health"][1].endswith("health --alert -q --deadline 50s")
    assert lines["snapshot-providers"][1].endswith("snapshot-providers -q --deadline 15m --jitter 30s --skip-if-locked")


def test_cron_and_the_shell_leave_odd_paths_as_they_are(tmp_path: Path) -> None:
    program = tmp_path / ODD / "bisonsync"
    program.parent.mkdir()
    program.write_text("#!/usr/bin/env python3\nimport json, sys\nprint(json.dumps(sys.argv))\n")
    program.chmod(0o755)
    setup = replace(SETUP, command=(str(program),), config=tmp_path / ODD / "config.toml")

    for _, command in commands(cron.crontab(setup)).values():
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)[:3] == [str(program), "-c", str(setup.config)]


def test_units_quote_odd_paths_for_systemd() -> None:
    setup = replace(
        SETUP, config=Path("/etc") / ODD.replace("/", ""), secret_files={"database_url": Path("/etc/a b%c")}
    )

    unit = systemd.units(setup, "bisonsync")["bisonsync-poll-accounts.service"]

    assert (
        'ExecStart=/opt/bisonsync/bin/bisonsync -c "/etc/it\'s 50%% of \\"$$HOME\\" & a \\\\ back; `date` #1" '
        "poll-accounts -q --deadline 4m --skip-if-locked\n"
    ) in unit
    assert "LoadCredential=database_url:/etc/a b%%c\n" in unit


@pytest.mark.parametrize("make", [cron.crontab, lambda setup: systemd.units(setup, "bisonsync")])
def test_a_path_with_a_line_break_is_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="cannot stand in one line"):
        make(replace(SETUP, config=Path("/etc/a\n* * * * * rm -rf /")))  # type: ignore[operator]


def test_what_the_shell_alone_knows_is_told() -> None:
    setup = replace(SETUP, config=None, variables=["BISONSYNC_DATABASE_URL"])

    for text in (cron.crontab(setup), systemd.units(setup, "bisonsync")["bisonsync-health.service"]):
        flowing = text.replace("\n# ", " ")
        assert "does not see this shell's environment, from which settings come: BISONSYNC_DATABASE_URL." in flowing
        assert "starts each run without any setting" in flowing


def test_nothing_is_told_when_the_file_says_it_all() -> None:
    assert "ATTENTION" not in cron.crontab(SETUP) + "".join(systemd.units(SETUP, "bisonsync").values())


def test_the_embedded_postgres_is_found_by_its_owner() -> None:
    folder = Path("/srv/our data/bisonsync/postgres")
    setup = replace(SETUP, embedded=Embedded(folder, "ann", Path("/srv/our data")))

    crontab = cron.crontab(setup)
    unit = systemd.units(setup, "ann")["bisonsync-poll-accounts.service"]
    other = systemd.units(setup, "bob")["bisonsync-poll-accounts.service"]

    assert "\nXDG_DATA_HOME='/srv/our data'\n" in crontab
    assert "belongs to ann: these lines belong into the crontab of that user." in crontab.replace("\n# ", " ")
    assert 'Environment="XDG_DATA_HOME=/srv/our data"\nReadWritePaths="-/srv/our data/bisonsync/postgres"\n' in unit
    assert "KillMode=process\n" in unit
    assert "ATTENTION" not in unit
    assert "ATTENTION: bob is another user" in other


@pytest.mark.parametrize(
    ("place", "setting"),
    [
        ("/opt/bisonsync/bin/bisonsync", "ProtectHome=yes"),
        ("/home/ann/venv/bin/bisonsync", "ProtectHome=read-only"),
        ("/homes/ann/venv/bin/bisonsync", "ProtectHome=yes"),
        ("/tmp/venv/bin/bisonsync", "PrivateTmp=no"),
        ("/opt/bisonsync/bin/bisonsync", "PrivateTmp=yes"),
    ],
)
def test_a_program_in_a_home_stays_in_sight(place: str, setting: str) -> None:
    unit = systemd.units(replace(SETUP, command=(place,)), "bisonsync")["bisonsync-health.service"]

    assert f"\n{setting}\n" in unit


def test_what_the_user_must_be_able_to_read_is_told() -> None:
    setup = replace(SETUP, command=("/home/ann/venv/bin/bisonsync",), holds_secrets=True)

    flowing = systemd.units(setup, "bisonsync")["bisonsync-health.service"].replace("\n# ", " ")

    assert "this program lies in a home: can bisonsync enter it?" in flowing
    assert "/etc/bisonsync/config.toml holds secrets and must belong to bisonsync: chown bisonsync" in flowing


def test_states_of_the_health_are_no_failures_of_its_unit() -> None:
    made = systemd.units(SETUP, "bisonsync")

    assert "SuccessExitStatus=1 2 3\n" in made["bisonsync-health.service"]
    assert "SuccessExitStatus=1 2 3\n" in made["bisonsync-failed@.service"]
    assert "SuccessExitStatus=75\n" in made["bisonsync-poll-accounts.service"]
    assert "OnFailure" not in made["bisonsync-failed@.service"]


def test_an_interval_that_no_calendar_says_is_counted() -> None:
    made = systemd.units(replace(SETUP, intervals={"health": timedelta(seconds=45)}), "bisonsync")

    assert "OnActiveSec=45s\nOnUnitActiveSec=45s\n" in made["bisonsync-health.timer"]
    assert "OnCalendar" not in made["bisonsync-health.timer"]


def test_what_the_settings_lack_or_have_for_a_job_is_told_with_it() -> None:
    setup = replace(SETUP, has_slack=False, heartbeats=frozenset({"prune"}))

    for made in (dict(enumerate(cron.crontab(setup).split("\n\n"))), systemd.units(setup, "bisonsync")):
        mute = [text for text in made.values() if "# ATTENTION: [alerts] has no slack_webhook_url" in text]
        told = [text for text in made.values() if "# It pings the address that [heartbeats] has for prune." in text]
        assert len(mute) == len(told) == 1
        assert "# health, every minute" in mute[0]
        assert "# prune, every day" in told[0]


def test_only_the_looks_that_alarm_have_a_folder_for_what_they_told() -> None:
    units = systemd.units(SETUP, "bisonsync")

    keeping = {name for name, text in units.items() if "\nStateDirectory=bisonsync-alerts\n" in text}
    assert keeping == {"bisonsync-health.service", "bisonsync-failed@.service"}
