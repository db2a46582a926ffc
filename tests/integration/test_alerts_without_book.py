"""Alarms go out though the database takes no writes or cannot be reached, and not each minute."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli import document, environment, run_cli
from conversation import HandClock
from psycopg.sql import SQL, Identifier
from slackhook import CUT, SlackHook

from bisonsync.api.slack import SlackSender
from bisonsync.checks.check import CheckResult, State
from bisonsync.checks.episodes import MAIN_CHANNEL, Policy
from bisonsync.clock import SystemClock
from bisonsync.jobs.alerts.delivery import DeliveryReport
from bisonsync.jobs.alerts.without_book import Book, tell
from bisonsync.store.alert_file import AlertFile, file_name, state_folders
from bisonsync.store.alerts import Episode

Connection = psycopg.Connection[Any]

NOWHERE = "postgresql://nobody:s3cret-word@127.0.0.1:9/none"
DOWN = CheckResult("database", "UNKNOWN", "nothing can be looked at")


@pytest.fixture
def slack() -> Iterator[SlackHook]:
    with SlackHook() as slack:
        yield slack


def freeze(conn: Connection, *, frozen: bool = True) -> None:
    """What Supabase does at a full disk."""
    name = Identifier(conn.info.dbname)
    conn.execute(SQL("SET transaction_read_only = off"))
    conn.execute(SQL("SET default_transaction_read_only = off"))
    conn.execute(SQL("ALTER DATABASE {} SET default_transaction_read_only = {}").format(name, frozen))


@dataclass
class Host:
    """One of the hosts whose cron looks each minute."""

    dsn: str
    slack: SlackHook
    state: Path

    def look(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = environment(
            self.dsn, XDG_STATE_HOME=str(self.state), BISONSYNC_ALERTS__SLACK_WEBHOOK_URL=self.slack.url()
        )
        done = run_cli(["health", "--alert", "--json", *arguments], env)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def tidy(db: str) -> str:
    """A database that ``health database`` has nothing against."""
    assert run_cli(["prune", "-q"], environment(db)).returncode == 0
    return db


def told_of(slack: SlackHook, check: str) -> list[str]:
    return [heading for heading in slack.headings if check in heading]


# With the real command line


def test_a_database_that_takes_no_writes_is_told_of_and_over_once(
    tidy: str, conn: Connection, slack: SlackHook, tmp_path: Path
) -> None:
    hosts = [Host(tidy, slack, tmp_path / name) for name in ("one", "two")]
    freeze(conn)

    looks = [host.look("database", "clock") for _ in range(2) for host in hosts]
    frozen = list(slack.headings)
    freeze(conn, frozen=False)
    thawed = [host.look("database", "clock") for _ in range(2) for host in hosts]

    assert [look.returncode for look in looks] == [2] * 4
    assert frozen == ["🔴 CRITICAL: database (without the book)"] * 2
    assert slack.headings[2:] == ["✅ Over: database"]
    assert [look.returncode for look in thawed] == [0] * 4
    assert not [*tmp_path.rglob("*.json")]


def test_the_check_says_why_no_write_is_taken_and_what_to_do(
    db: str, conn: Connection, slack: SlackHook, tmp_path: Path
) -> None:
    freeze(conn)

    said = document(Host(db, slack, tmp_path).look())

    checks = {check["name"]: check for check in said["checks"]}
    name = conn.info.dbname
    assert checks["database"]["state"] == "CRITICAL"
    assert "default_transaction_read_only is on (for the database)" in checks["database"]["detail"]
    assert checks["database"]["hint"].endswith(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert {check["caused_by"] for check in checks.values() if check["name"] in ("freshness", "runs")} == {"database"}
    assert not [check for check in checks.values() if "cannot look" in check["detail"]]


def test_a_write_that_fails_is_told_of_like_a_database_that_takes_none(
    db: str, conn: Connection, slack: SlackHook, tmp_path: Path
) -> None:
    conn.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$"
        "BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON email_sync_logs EXECUTE FUNCTION full_disk();"
        "CREATE TRIGGER full_disk BEFORE INSERT ON alert_messages EXECUTE FUNCTION full_disk()"
    )

    looks = [Host(db, slack, tmp_path).look("database") for _ in range(2)]

    assert [look.returncode for look in looks] == [2, 2]
    assert slack.headings == ["🔴 CRITICAL: database (without the book)"]
    assert "No space left on device" in slack.accepted[0].text


def test_messages_that_cannot_be_marked_as_sent_are_made_up_for(
    db: str, conn: Connection, slack: SlackHook, tmp_path: Path
) -> None:
    conn.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$"
        "BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;"
        "CREATE TRIGGER full_disk BEFORE UPDATE ON alert_messages FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )

    looks = [Host(db, slack, tmp_path).look("freshness") for _ in range(3)]

    assert [look.returncode for look in looks] == [3, 3, 3]
    assert told_of(slack, "database") == ["🔴 CRITICAL: database (without the book)"]


def test_a_database_that_cannot_be_reached_is_told_of(slack: SlackHook, tmp_path: Path) -> None:
    looks = [Host(NOWHERE, slack, tmp_path).look("--deadline", "1s") for _ in range(3)]

    assert [(look.returncode, document(look)["checks"]) for look in looks] == [(3, [])] * 3
    assert slack.headings == ["⚪ UNKNOWN: database (without the book)"]
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert json.loads(kept)
    assert "s3cret" not in kept + slack.accepted[0].text + "".join(look.stdout + look.stderr for look in looks)


def test_what_the_book_told_before_is_not_told_again(
    tidy: str, conn: Connection, slack: SlackHook, tmp_path: Path
) -> None:
    host = Host(tidy, slack, tmp_path)
    for _ in range(2):
        host.look("freshness")
    freeze(conn)
    for _ in range(2):
        host.look("freshness", "database")
    freeze(conn, frozen=False)
    for _ in range(2):
        host.look("freshness", "database")

    assert told_of(slack, "freshness") == ["⚪ UNKNOWN: freshness"]
    assert told_of(slack, "Over: ") == ["✅ Over: database"]


# The rules, in minutes of their own


@dataclass
class Night:
    """A host without a database, and a Slack."""

    slack: SlackHook
    folders: list[Path]
    clock: HandClock = field(default_factory=HandClock)

    def look(self, *results: CheckResult, book: Book | None = None) -> DeliveryReport:
        self.clock.pass_time(60.0)
        file = AlertFile(self.folders, file_name(NOWHERE, {}))
        sender = SlackSender({MAIN_CHANNEL: self.slack.url()}, user_agent="test", monotonic=SystemClock().monotonic)
        return tell(
            results or (DOWN,),
            book or Book(),
            file,
            sender,
            Policy(sender.channels),
            host="host-7",
            clock=self.clock,
        )

    @property
    def file(self) -> Path:
        return self.folders[0] / file_name(NOWHERE, {})


@pytest.fixture
def night(slack: SlackHook, tmp_path: Path) -> Night:
    return Night(slack, [tmp_path / "state"])


def test_a_night_of_looks_is_one_message_and_its_reminders(night: Night) -> None:
    for _ in range(9 * 4):
        night.look()
        night.clock.pass_time(14 * 60.0)

    assert night.slack.headings == [
        "⚪ UNKNOWN: database (without the book)",
        *["⚪ Still UNKNOWN: database (without the book)"] * 2,
    ]
    assert "Sent by host-7 from its own memory" in night.slack.accepted[0].text


def test_what_becomes_worse_is_told_at_once_and_what_is_over_is_left_to_the_book(night: Night) -> None:
    states: list[State] = ["UNKNOWN", "UNKNOWN", "CRITICAL", "OK", "OK", "OK", "CRITICAL", "CRITICAL"]
    for state in states:
        night.look(CheckResult("database", state, "as it is"))

    assert night.slack.headings == [
        "⚪ UNKNOWN: database (without the book)",
        "🔴 Worse, now CRITICAL: database (without the book)",
    ]


def test_the_file_is_for_its_owner_alone(night: Night) -> None:
    night.look()

    assert stat.S_IMODE(night.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(night.file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '[{"episode": 7}]', "\x00\xff", "[" * 100_000])
def test_a_broken_file_is_begun_anew(night: Night, text: str) -> None:
    night.look()
    night.file.write_text(text)

    for _ in range(3):
        night.look()

    assert night.slack.headings == ["⚪ UNKNOWN: database (without the book)"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("told_state", "GREEN"), ("last_message_at", "2099-01-01"), ("last_message_at", None), ("bad_count", "x")],
)
def test_a_file_that_says_the_impossible_silences_nothing_for_ever(night: Night, field: str, value: Any) -> None:
    for _ in range(2):
        night.look()
    remembered = json.loads(night.file.read_text())
    remembered[0]["episode"][field] = value
    night.file.write_text(json.dumps(remembered))

    night.look()
    night.clock.pass_time(4 * 3600.0)
    night.look()

    assert 2 <= len(night.slack.headings) <= 3


def test_a_folder_that_takes_nothing_is_passed_over(night: Night, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    night.folders = [tmp_path / "file" / "bisonsync", Path("/proc/bisonsync"), tmp_path / "open", tmp_path / "good"]

    for _ in range(5):
        night.look()

    assert len(night.slack.headings) == 1
    assert [path.parent.name for path in tmp_path.rglob("*.json")] == ["good"]


def test_without_any_memory_it_is_told_at_each_look(night: Night) -> None:
    night.folders = [Path("/proc/bisonsync")]

    for _ in range(3):
        night.look()

    assert night.slack.headings == ["⚪ UNKNOWN: database (without the book)"] * 3


def test_what_slack_did_not_take_is_due_again_and_marked_when_it_may_have_arrived(night: Night) -> None:
    night.slack.answers.extend([(503, b"", {}), CUT])

    reports = [night.look() for _ in range(5)]

    assert [(report.sent, report.failed, report.waiting) for report in reports] == [
        (0, 0, 0),
        (0, 1, 1),
        (0, 1, 1),
        (1, 0, 0),
        (0, 0, 0),
    ]
    assert night.slack.headings == ["(repeated) ⚪ UNKNOWN: database (without the book)"]


def test_what_was_under_way_when_a_run_died_is_sent_again_marked(night: Night) -> None:
    night.look()
    remembered = json.loads(night.file.read_text())
    night.file.write_text(json.dumps([{**remembered[0], "may_have_arrived": True}]))

    night.look()

    assert night.slack.headings == ["(repeated) ⚪ UNKNOWN: database (without the book)"]


def test_no_channel_gets_more_than_one_message_a_second(night: Night) -> None:
    checks = [CheckResult(name, "CRITICAL", "bad") for name in ("schema", "access", "database")]

    for _ in range(2):
        night.look(*checks)

    assert len(night.slack.headings) == 3
    assert night.clock.slept == [1.0, 1.0]


def test_an_open_episode_of_the_book_counts_on(night: Night) -> None:
    began = night.clock.now() - timedelta(hours=1)
    bad = CheckResult("api", "CRITICAL", "bad")

    def opened(**values: Any) -> Book:
        return Book((), [Episode("api", "", "CRITICAL", began, began, bad_count=9, **values)])

    told = opened(opened_at=began, told_state="CRITICAL", channel=MAIN_CHANNEL, last_message_at=began)
    night.look(bad, book=told)
    before = list(night.slack.headings)
    night.look(CheckResult("bounce", "OK", "well"), book=opened())
    night.clock.pass_time(3 * 3600.0)
    night.look(bad)

    assert before == []
    assert night.slack.headings == ["🔴 Still CRITICAL: api (without the book)"]


def test_a_run_that_stands_still_is_not_waited_for_without_end(night: Night) -> None:
    night.look()
    with AlertFile(night.folders, file_name(NOWHERE, {})).turn(SystemClock()):
        night.look()

    assert len(night.slack.headings) == 1
    assert 40 < sum(night.clock.slept) < 60


def test_the_file_is_named_by_the_database_and_not_by_its_password() -> None:
    names = [file_name(url.format(word), {}) for url in (NOWHERE, NOWHERE.replace("/none", "/other")) for word in "ab"]
    renewed = file_name(NOWHERE.replace("s3cret", "other"), {})

    assert renewed == file_name(NOWHERE, {})
    assert len(set(names)) == 2
    assert file_name("embedded", {}) != file_name("dbname=x", {})
    assert len({file_name(f"service={name}", {}) for name in "ab"}) == 2
    assert len({file_name("postgresql://", {"PGDATABASE": name}) for name in "ab"}) == 2


def test_systemds_folder_comes_first() -> None:
    given = {"STATE_DIRECTORY": "/var/lib/bisonsync:/other", "XDG_STATE_HOME": "relative", "HOME": "/home/a"}

    folders = state_folders(given)

    assert folders[:2] == [Path("/var/lib/bisonsync"), Path("/home/a/.local/state/bisonsync")]
    assert state_folders({})


def test_times_to_come_are_taken_as_now(night: Night) -> None:
    night.look()
    file = AlertFile(night.folders, file_name(NOWHERE, {}))
    past = datetime.fromisoformat("2001-01-01T00:00:00+00:00")

    (remembered,) = file.load(past)

    assert remembered.episode.last_seen_at == past
