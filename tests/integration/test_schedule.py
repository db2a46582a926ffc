"""The jobs by themselves: a real cron fires a line, systemd's own tools accept every unit."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cli import CHECKOUT, PATIENCE, environment, run_cli, wait_until
from nights import ZONES, changes
from office import Connection, Office, Outcome

from bisonsync.jobs.schedule import jobs, systemd
from bisonsync.sandbox import Sandbox

# A timer and a service of each, and what tells of failures.
JOBS = 10
UNITS = 2 * JOBS + 1
ROOT = Path(__file__).resolve().parents[2]
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
CRON = shutil.which("cron", path=PATH)
ANALYZE = shutil.which("systemd-analyze", path=PATH)

needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is not installed: on Debian, apt-get install systemd"
)


def write_config(folder: Path, text: str = "", dsn: str = "postgresql://me:pw@db.example.com/x") -> Path:
    """A configuration file with two secrets in files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, secret in (("db.url", dsn), ("sim.key", "1|abcdefgh")):
        (folder / name).write_text(secret)
        (folder / name).chmod(0o600)
    config = folder / "config.toml"
    config.write_text(
        'database_url_file = "db.url"\n[instances.sim]\nbase_url = "https://send.example.com"\n'
        f'api_key_file = "sim.key"\n{text}'
    )
    return config


def run(*arguments: str, **more: str) -> Outcome:
    done = run_cli(["schedule", *arguments], environment(**more))
    return Outcome(done.returncode, done.stdout, done.stderr)


def write_units(folder: Path, *arguments: str, text: str = "", **more: str) -> list[Path]:
    """The units of a configuration, written into a folder of their own."""
    config = write_config(folder / "etc", text)
    outcome = run("systemd", "-c", str(config), "--write", str(folder / "units"), *arguments, **more)
    assert (outcome.code, outcome.stderr) == (0, "")
    return sorted((folder / "units").iterdir())


def analyze(*arguments: str, zone: str = "UTC") -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    surroundings = {**os.environ, "TZ": zone, "LC_ALL": "C"}
    return subprocess.run([ANALYZE, *arguments], env=surroundings, capture_output=True, text=True)


# Which jobs


@pytest.mark.parametrize(
    ("text", "is_there"), [("", False), ('[webhooks]\npublic_url = "https://hooks.example.com"\n', True)]
)
def test_webhooks_are_given_to_new_workspaces_where_they_are_in_use(tmp_path: Path, text: str, is_there: bool) -> None:
    config = str(write_config(tmp_path, text))

    lines = [line for line in run("cron", "-c", config).stdout.splitlines() if line and not line.startswith("#")]
    units = run("systemd", "-c", config, "--json").document["units"]

    assert any(" webhooks ensure -q " in line for line in lines) is is_there
    assert ("bisonsync-webhooks-ensure.timer" in units) is is_there
    # Without a token nothing can be made: after mint-tokens, within the same hour.
    minutes = {words: int(line.split()[0]) for line in lines for words in ("mint-tokens", "ensure") if words in line}
    assert minutes["mint-tokens"] < minutes.get("ensure", 60)


# systemd


@needs_systemd
@pytest.mark.parametrize(
    ("folder", "text", "more"),
    [
        ("plain", "", {}),
        ("it's 50% off", "", {}),
        ("odd", '[schedule]\nhealth = "45s"\npoll-accounts = "7m"\nsnapshot-providers = "4h"\nprune = "7d"\n', {}),
        ("embedded", "", {"BISONSYNC_DATABASE_URL": "embedded"}),
    ],
)
def test_systemd_finds_nothing_to_say_of_any_unit(tmp_path: Path, folder: str, text: str, more: dict[str, str]) -> None:
    units = write_units(tmp_path / folder, text=text, **more)

    assert len(units) == UNITS
    verified = analyze("verify", *map(str, units))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    for unit in units:
        if unit.suffix == ".service":
            rated = analyze("security", "--offline=yes", "--threshold=25", str(unit))
            assert rated.returncode == 0, rated.stdout
    for line in "\n".join(unit.read_text() for unit in units).splitlines():
        if line.startswith("OnCalendar="):
            accepted = analyze("calendar", "--iterations=3", line.removeprefix("OnCalendar="))
            assert accepted.returncode == 0, accepted.stderr
            assert accepted.stdout.count("From now") == 3


@needs_systemd
def test_systemd_would_say_something_of_a_wrong_unit(tmp_path: Path) -> None:
    unit = next(unit for unit in write_units(tmp_path) if unit.name == "bisonsync-prune.service")
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=stirct").replace("RestrictR", "X"))

    assert analyze("verify", str(unit)).stderr != ""


def elapses(expressions: Iterable[str], zone: str, begin: datetime) -> Iterator[list[datetime]]:
    """The next 330 times, in UTC, that each calendar expression elapses on a host of a zone, by systemd itself."""
    base = f"--base-time={begin:%Y-%m-%d %H:%M:%S} UTC"
    done = analyze("calendar", base, "--iterations=330", *expressions, zone=zone)
    assert done.returncode == 0, done.stderr
    for block in done.stdout.split("\n\n"):
        found = re.findall(r"\(in UTC\): \w+ (\S+ \S+) UTC", block)
        yield [datetime.fromisoformat(f"{moment}+00:00") for moment in found]


@needs_systemd
@pytest.mark.parametrize("zone", ZONES)
def test_no_timer_pauses_or_elapses_twice_in_a_night_that_changes_the_clocks(zone: str) -> None:
    expressions = {systemd.calendar(every, 37): every for every in jobs.INTERVALS}

    for changed_at in changes(zone):
        found = elapses(expressions, zone, changed_at - 2 * jobs.HOUR)
        for (expression, every), came in zip(expressions.items(), found, strict=True):
            assert len(came) == 330
            if every < jobs.DAY:
                assert {after - before for before, after in pairwise(came)} == {every}, expression
            else:
                local = [at.astimezone(ZoneInfo(zone)) for at in came]
                assert {(at.hour, at.minute) for at in local} == {(4, 37)}
                assert {after.date() - before.date() for before, after in pairwise(local)} == {every}


def test_every_timer_below_a_day_goes_by_utc(tmp_path: Path) -> None:
    units = write_units(tmp_path, text='[schedule]\npull-events = "4h"\n')

    timers = {unit.stem: unit.read_text() for unit in units if unit.suffix == ".timer"}
    found = {name: re.findall("^OnCalendar=(.*)$", timer, re.MULTILINE) for name, timer in timers.items()}
    assert found.pop("bisonsync-prune") == ["*-*-* 04:57:00"]
    assert len(found) == JOBS - 1
    assert all(len(calendars) == 1 and calendars[0].endswith(":00 UTC") for calendars in found.values())


def test_every_timer_has_its_service_and_every_service_what_it_promises(tmp_path: Path) -> None:
    units = {unit.name: unit.read_text() for unit in write_units(tmp_path)}

    services = [name for name in units if name.endswith(".service") and name != "bisonsync-failed@.service"]
    assert {name.removesuffix(".service") for name in services} == {
        name.removesuffix(".timer") for name in units if name.endswith(".timer")
    }
    for name in services:
        unit, timer = units[name], units[name.replace(".service", ".timer")]
        assert "\nType=oneshot\n" in unit
        assert "\nUser=bisonsync\n" in unit
        assert "\nOnFailure=bisonsync-failed@%N.service\n" in unit
        assert f"\nLoadCredential=database_url:{tmp_path}/etc/db.url\n" in unit
        assert f"\nLoadCredential=instances.sim.api_key:{tmp_path}/etc/sim.key\n" in unit
        assert "\nPersistent=true\n" in timer
        assert re.search(r"\nRandomizedDelaySec=\d+s\n", timer)
    # A run ends by itself before it is ended.
    assert " --deadline 4m " in units["bisonsync-poll-accounts.service"]
    assert "\nTimeoutStartSec=360\n" in units["bisonsync-poll-accounts.service"]


def test_a_service_needs_no_file_but_its_credentials_and_the_configuration(tmp_path: Path) -> None:
    units = {unit.name: unit.read_text() for unit in write_units(tmp_path)}
    unit = units["bisonsync-poll-accounts.service"]
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, path in re.findall("^LoadCredential=([^:]+):(.+)$", unit, re.MULTILINE):
        Path(path).rename(credentials / name)
    config = str(tmp_path / "etc" / "config.toml")

    without = run_cli(["-c", config, "config", "check"], environment())
    given = run_cli(["-c", config, "config", "check"], environment(CREDENTIALS_DIRECTORY=str(credentials)))

    assert without.returncode == 4
    assert given.returncode == 0, given.stderr


def test_units_are_printed_unless_they_are_to_be_written(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))

    shown = run("systemd", "-c", config, "--user", "ann")
    document = run("systemd", "-c", config, "--json").document

    assert shown.code == 0
    assert all(f"# {name}\n" in shown.stdout for name in document["units"])
    assert shown.stdout.count("\nUser=ann\n") == JOBS + 1
    assert document["counts"] == {"units": UNITS}


def test_what_was_written_is_replaced_only_by_force(tmp_path: Path) -> None:
    units = write_units(tmp_path)
    command = ["systemd", "-c", str(tmp_path / "etc" / "config.toml"), "--write", str(tmp_path / "units")]
    before = units[3].read_text()

    again = run(*command, "--json").document
    units[0].unlink()
    units[3].write_text(f"{before}# mine\n")
    refused = run(*command)
    forced = run(*command, "--force", "--json").document

    assert again["counts"] == {"units": UNITS, "written": 0, "unchanged": UNITS}
    assert refused.code == 4
    assert f"{units[3]} exists already and differs" in refused.stderr
    assert "--force" in refused.stderr
    assert forced["counts"] == {"units": UNITS, "written": 2, "unchanged": UNITS - 2}
    assert units[3].read_text() == before


def test_a_refusal_writes_nothing(tmp_path: Path) -> None:
    units = write_units(tmp_path)
    units[0].unlink()
    units[3].write_text("mine")

    refused = run("systemd", "-c", str(tmp_path / "etc" / "config.toml"), "--write", str(tmp_path / "units"))

    assert refused.code == 4
    assert not units[0].exists()
    assert units[3].read_text() == "mine"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path)

    outcome = run("systemd", "-c", str(config), "--write", str(tmp_path / "units"), "--dry-run")

    assert outcome.code == 0
    assert outcome.stdout.count("would write ") == UNITS
    assert not (tmp_path / "units").exists()


def test_a_unit_of_a_job_that_is_off_now_is_named(tmp_path: Path) -> None:
    write_units(tmp_path)
    config = write_config(tmp_path / "etc", '[schedule]\nprune = "off"\n')

    outcome = run("systemd", "-c", str(config), "--write", str(tmp_path / "units"))

    assert outcome.code == 0
    assert "bisonsync-prune.timer belongs to a job that is off now" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--write", "/dev/null/units"], 4, "cannot write units into /dev/null/units: Not a directory"),
        (["--user", "a b"], 2, "is no user's name"),
        (["-c", "/etc/none.toml"], 4, "there is no file /etc/none.toml"),
    ],
)
def test_what_cannot_be_done_is_told(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    outcome = run("systemd", "-c", str(write_config(tmp_path)), *arguments)

    assert outcome.code == code
    assert said in outcome.stderr


# cron


def test_lines_name_this_program_and_the_configuration_file_from_the_root(tmp_path: Path) -> None:
    config = write_config(tmp_path / "50% off")

    crontab = run("cron", "-c", str(config)).stdout

    assert "ATTENTION: cron" not in crontab
    for line in [line for line in crontab.splitlines() if not line.startswith("#") and line]:
        words = shlex.split(line.replace("\\%", "%"))[5:]
        assert words[0].startswith("/")
        assert words[words.index("-c") + 1] == str(config)
        assert run_cli([*words[words.index("-c") :], "--help"], environment()).returncode == 0


def test_a_database_that_only_this_shell_knows_is_told(tmp_path: Path) -> None:
    crontab = run("cron", "-c", str(write_config(tmp_path)), BISONSYNC_DATABASE_URL="postgresql://me@h/x").stdout

    assert "from which settings come: BISONSYNC_DATABASE_URL." in crontab.replace("\n# ", " ")


def test_a_database_given_by_option_is_in_every_line(tmp_path: Path) -> None:
    crontab = run("cron", "-c", str(write_config(tmp_path)), "--database-url", "postgresql://me@h/x").stdout

    lines = [line for line in crontab.splitlines() if not line.startswith("#") and line]
    assert all(" --database-url postgresql://me@h/x " in line for line in lines)


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    with Sandbox(workspaces=2, accounts=30, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


# cron reads its own folders alone, and would run this machine's lines as well: it gets its own view of them.
ISOLATED = """
mount -t tmpfs tmpfs /etc/cron.d
mount --bind /dev/null /etc/crontab
mount -t tmpfs tmpfs /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
install -m 600 "$1" /var/spool/cron/crontabs/root
mount --bind "$2" /run/crond.pid
exec "$3" -f
"""


@contextmanager
def cron(folder: Path, crontab: str) -> Iterator[subprocess.Popen[str]]:
    """A real cron with these lines and no others."""
    assert CRON is not None
    (folder / "crontab").write_text(crontab)
    (folder / "pid").touch()
    Path("/run/crond.pid").touch()
    Path("/etc/crontab").touch()
    view = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", ISOLATED]
    daemon = subprocess.Popen(
        [*view, "cron", str(folder / "crontab"), str(folder / "pid"), CRON],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield daemon
    finally:
        daemon.terminate()
        daemon.communicate(timeout=PATIENCE)


@pytest.mark.skipif(
    CRON is None, reason="cron is not installed: on Debian, apt-get install --no-install-recommends cron"
)
@pytest.mark.skipif(os.geteuid() != 0, reason="cron can be started by root alone")
def test_a_real_cron_fires_the_lines_and_the_runs_are_in_the_ledger(office: Office, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "bisonsync"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m bisonsync "$@"\n')
    program.chmod(0o755)
    config = write_config(tmp_path / "50% off", dsn=office.dsn)
    config.write_text(config.read_text().replace("https://send.example.com", office.sandbox.url))
    (config.parent / "sim.key").write_text(office.sandbox.super_admin_token)
    made = run("cron", "-c", str(config)).stdout
    example = (
        (ROOT / "crontab.example")
        .read_text()
        .replace("/opt/bisonsync/bin/bisonsync", str(program))
        .replace("/etc/bisonsync/config.toml", f"'{config}'".replace("%", "\\%"))
    )
    lines = [
        # Every minute and without jitter: the test is not to wait longer than cron itself makes it.
        "* * * * * " + re.sub(r" --jitter \w+", "", line.split(maxsplit=5)[5])
        for crontab, wanted in ((example, " poll-accounts "), (made, " workspaces discover "))
        for line in crontab.splitlines()
        if wanted in line and not line.startswith("#")
    ]
    assert len(lines) == 2

    def ended() -> list[tuple[str, str]]:
        return office.conn.execute(
            "SELECT job, status FROM email_sync_logs WHERE status <> 'running' ORDER BY job"
        ).fetchall()

    with cron(tmp_path, "\n".join(lines) + "\n") as daemon:
        wait_until(
            lambda: len(ended()) >= 2 or daemon.poll() is not None,
            f"cron has run {lines}",
            timeout=60 + PATIENCE,
        )
        assert daemon.poll() is None, daemon.communicate()[0]

    # On a slow machine the next minute has come, too.
    assert set(ended()) >= {("poll-accounts", "success"), ("workspaces-discover", "success")}
    assert office.live() == office.truth()
    commands = office.conn.execute("SELECT command FROM email_sync_logs").fetchall()
    assert all(str(config) in command for (command,) in commands)
    assert json.dumps(commands).count("poll-accounts -q --deadline 4m --skip-if-locked") >= 1
