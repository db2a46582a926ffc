"""alerts list and alerts test as operators call them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli import environment, run_cli, start_cli, wait_until
from psycopg.types.json import Jsonb
from slackhook import HANG, SlackHook
from terminal import at_terminal

from bisonsync.api.slack_messages import Alarm, alarm_message

Connection = psycopg.Connection[Any]

SECRET = "xSecretKey9"
SINCE = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
REFUSED = (404, b"no_service", {})
COLUMNS = ["check", "client", "state", "alarm", "since (UTC)", "until (UTC)", "messages", "waiting", "detail"]


@pytest.fixture
def slack() -> Iterator[SlackHook]:
    with SlackHook() as slack:
        yield slack


def env(db: str, slack: SlackHook | None = None, **channels: str) -> dict[str, str]:
    made = environment(db)
    if slack is not None:
        made["BISONSYNC_ALERTS__SLACK_WEBHOOK_URL"] = slack.url(f"/{SECRET}/main")
    for name, url in channels.items():
        made[f"BISONSYNC_ALERTS__CHANNELS__{name.upper()}"] = url
    return made


def call(settings: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    done = run_cli(["alerts", *arguments], settings)
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def episode(conn: Connection, check: str, **values: Any) -> int:
    fields = {
        "check_name": check,
        "scope": "",
        "state": "CRITICAL",
        "first_bad_at": datetime.fromisoformat("2026-03-01T12:00:00+00:00"),
        "last_seen_at": datetime.fromisoformat("2026-03-01T12:01:00+00:00"),
        "bad_count": 2,
        "detail": f"{check} is bad",
        "hint": "bisonsync runs list",
        **values,
    }
    row = conn.execute(
        f"INSERT INTO alert_episodes ({', '.join(fields)}) VALUES ({', '.join(['%s'] * len(fields))}) RETURNING id",  # type: ignore[arg-type]
        list(fields.values()),
    ).fetchone()
    assert row is not None
    return row[0]


def message(conn: Connection, number: int, **values: Any) -> None:
    now = datetime.fromisoformat("2026-03-01T12:01:00+00:00")
    fields = {
        "episode_id": number,
        "kind": "opening",
        "channel": "",
        "body": Jsonb({}),
        "created_at": now,
        "next_attempt_at": now,
        **values,
    }
    conn.execute(
        f"INSERT INTO alert_messages ({', '.join(fields)}) VALUES ({', '.join(['%s'] * len(fields))})",  # type: ignore[arg-type]
        list(fields.values()),
    )


@pytest.fixture
def book(conn: Connection) -> None:
    """An open alarm with a message that waits, one that is explained, a first sight, and some that are over."""
    now = datetime.now().astimezone()
    opened = {"opened_at": now, "told_state": "CRITICAL", "channel": ""}
    tokens = episode(conn, "tokens", **opened, workspaces=["sim/3", "sim/4"], value=2.0)
    message(conn, tokens, delivered_at=now)
    message(conn, tokens, kind="reminder", dropped_at=now)
    message(conn, tokens, kind="worse", last_error="HTTP 500")
    first = datetime.fromisoformat("2026-03-01T12:30:00+00:00")
    episode(conn, "runs", **opened, caused_by="tokens", first_bad_at=first)
    episode(conn, "api", state="WARNING", bad_count=1, first_bad_at=first + timedelta(minutes=5))
    for check, days, values in (("bounce", 2, {}), ("pacing", 9, {}), ("clock", 1, {"opened_at": None})):
        over = episode(conn, check, **{**opened, **values}, scope="sim/3", closed_at=now - timedelta(days=days))
        if check == "bounce":
            message(conn, over, delivered_at=now)


@pytest.mark.usefixtures("book")
def test_list_shows_what_is_open_then_what_was(db: str, slack: SlackHook) -> None:
    code, said, errors = call(env(db, slack), "list")

    assert (code, errors) == (0, "")
    heading, *rows = [line.split("\t") for line in said.splitlines()]
    until = rows[-1].pop(5)
    assert heading == COLUMNS
    assert rows == [
        ["tokens", "all", "CRITICAL", "open", "2026-03-01 12:00:00", "-", "2", "1",
         "tokens is bad (not delivered: HTTP 500)"],
        ["runs", "all", "CRITICAL", "because of tokens", "2026-03-01 12:30:00", "-", "0", "0", "runs is bad"],
        ["api", "all", "WARNING", "seen 1 in a row", "2026-03-01 12:35:00", "-", "0", "0", "api is bad"],
        ["bounce", "sim/3", "CRITICAL", "over", "2026-03-01 12:00:00", "1", "0", "bounce is bad"],
    ]  # fmt: skip
    assert until != "-"


@pytest.mark.usefixtures("book")
@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ([], ["tokens", "runs", "api", "bounce"]),
        (["--days", "30"], ["tokens", "runs", "api", "bounce", "pacing"]),
        (["--days", "0"], ["tokens", "runs", "api"]),
        (["--limit", "2"], ["tokens", "runs"]),
    ],
)
def test_list_as_json(db: str, slack: SlackHook, choice: list[str], found: list[str]) -> None:
    code, said, _ = call(env(db, slack, acme=slack.url(f"/{SECRET}")), "list", "--json", *choice)
    shown = json.loads(said)

    assert code == 0
    assert [one["check"] for one in shown["episodes"]] == found
    assert shown["slack"] == "in use"
    assert shown["channels"] == ["[alerts.channels] acme", "[alerts] slack_webhook_url"]
    assert shown["counts"] == {"open": min(3, len(found)), "undelivered": 1}
    first = shown["episodes"][0]
    assert first["first_bad_at"] == "2026-03-01T12:00:00+00:00"
    assert first["workspaces"] == ["sim/3", "sim/4"]
    assert {key: first[key] for key in ("messages", "undelivered", "last_error", "closed_at", "value")} == {
        "messages": 2,
        "undelivered": 1,
        "last_error": "HTTP 500",
        "closed_at": None,
        "value": 2.0,
    }


def test_list_says_when_there_is_nothing_and_no_slack(db: str) -> None:
    code, said, errors = call(env(db), "list")

    assert (code, errors) == (0, "")
    first, second = said.splitlines()
    assert first.startswith("no alarm")
    assert second.startswith("Slack is not in use")
    assert json.loads(call(env(db), "list", "--json")[1])["slack"] == "not in use"


@pytest.mark.usefixtures("book")
@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_a_table_that_fits(db: str, slack: SlackHook, columns: int) -> None:
    shown = at_terminal(["alerts", "list"], env(db, slack), columns=columns)

    assert max(len(line) for line in shown.lines) <= columns
    assert "\x1b[31mCRITICAL" in shown.raw


def test_a_database_that_is_not_migrated_is_an_error(empty_db: str) -> None:
    code, _, errors = call(env(empty_db), "list")

    assert code == 6
    assert "bisonsync migrate" in errors


def test_a_run_killed_while_it_sends_leaves_the_message_to_the_next_marked(
    db: str, conn: Connection, slack: SlackHook
) -> None:
    body = alarm_message(Alarm("opening", "tokens", "", "WARNING", "it is so", since=SINCE, at=SINCE))
    message(conn, episode(conn, "tokens", opened_at=SINCE, told_state="WARNING", channel=""), body=Jsonb(body))
    slack.answers.append(HANG)

    run = start_cli(["health", "inbox", "--alert"], env(db, slack))
    wait_until(lambda: len(slack.posts) == 1, "the message is under way")
    run.kill()
    run.communicate()
    early = run_cli(["health", "inbox", "--alert", "--json"], env(db, slack))
    conn.execute("UPDATE alert_messages SET claimed_until = now() WHERE claimed_until IS NOT NULL")
    late = run_cli(["health", "inbox", "--alert", "--json"], env(db, slack))

    sent = [json.loads(done.stdout)["counts"]["messages_sent"] for done in (early, late)]
    assert sent == [0, 1]
    assert slack.headings == ["(repeated) 🟠 WARNING: tokens"]


def test_test_posts_one_message_that_says_it_is_a_test(db: str, slack: SlackHook) -> None:
    code, said, errors = call(env(db, slack), "test")

    assert (code, errors) == (0, "")
    assert said.startswith("alerts-test: success: [alerts] slack_webhook_url took the message")
    (post,) = slack.accepted
    assert post.path == f"/{SECRET}/main"
    assert post.heading == "Test of bisonsync"


def test_test_posts_to_a_channel_by_its_name(db: str, slack: SlackHook) -> None:
    code, _, _ = call(env(db, slack, acme=slack.url("/acme")), "test", "--channel", "Acme")

    assert code == 0
    assert [post.path for post in slack.accepted] == ["/acme"]


def test_the_addresses_may_stand_in_files_of_their_own(db: str, slack: SlackHook, tmp_path: Path) -> None:
    for name in ("main", "acme"):
        (tmp_path / f"{name}.url").write_text(slack.url(f"/{SECRET}/{name}") + "\n")
        (tmp_path / f"{name}.url").chmod(0o600)
    config = tmp_path / "bisonsync.toml"
    config.write_text(
        '[alerts]\nslack_webhook_url_file = "main.url"\n[alerts.channels]\nacme_file = "acme.url"\n',
    )
    config.chmod(0o600)

    codes = [call(env(db), "-c", str(config), "test", *more)[0] for more in ([], ["--channel", "acme"])]

    assert codes == [0, 0]
    assert [post.path for post in slack.accepted] == [f"/{SECRET}/main", f"/{SECRET}/acme"]


def test_a_dry_test_posts_nothing(db: str, slack: SlackHook) -> None:
    code, said, _ = call(env(db, slack), "test", "--dry-run")

    assert code == 0
    assert "one message would go to [alerts] slack_webhook_url" in said
    assert slack.posts == []


def test_test_without_a_webhook_says_how_to_set_it_up(db: str) -> None:
    code, _, errors = call(env(db), "test")

    assert code == 4
    assert "no Slack webhook is set up" in errors
    assert "slack_webhook_url_file" in errors


@pytest.mark.parametrize("name", ["other", ""])
def test_test_of_a_channel_that_there_is_not_names_those_there_are(db: str, slack: SlackHook, name: str) -> None:
    code, _, errors = call(env(db, slack, acme=slack.url("/acme")), "test", "--channel", name)

    assert code == 4
    assert repr(name) in errors
    assert "there are: acme" in errors


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(REFUSED, "HTTP 404 (no_service)"), ((500, b"", {}), "HTTP 500"), ((429, b"", {}), "HTTP 429")],
)
def test_a_test_that_is_not_taken_is_an_error(db: str, slack: SlackHook, answer: Any, reason: str) -> None:
    slack.always = answer

    code, said, errors = call(env(db, slack), "test")

    assert (code, said) == (5, "")
    assert reason in errors
    assert len(slack.posts) == 1


def test_a_test_that_reaches_nobody_is_an_error(db: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    code, _, errors = call(
        env(db) | {"BISONSYNC_ALERTS__SLACK_WEBHOOK_URL": f"http://127.0.0.1:{port}/{SECRET}"}, "test"
    )

    assert code == 5
    assert "no connection" in errors
