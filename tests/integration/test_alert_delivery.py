"""Messages reach Slack: through outages, refusals, lost answers, dead processes and two runs at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from conversation import HandClock
from psycopg.types.json import Jsonb
from slackhook import CUT, HANG, OK, SlackHook

from bisonsync.api.slack import Delivery, SlackSender
from bisonsync.api.slack_messages import Alarm, alarm_message
from bisonsync.checks.episodes import MAIN_CHANNEL
from bisonsync.clock import SystemClock
from bisonsync.errors import Stopped
from bisonsync.jobs.alerts.delivery import DeliveryReport, deliver
from bisonsync.store import alerts as store
from bisonsync.store.db import Database

Connection = psycopg.Connection[Any]

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = "xSecretKey9"


def body_of(name: str) -> dict[str, Any]:
    return alarm_message(Alarm("opening", name, "", "WARNING", "it is so", since=BEGIN, at=BEGIN))


@dataclass
class Outbox:
    """Messages that wait, and a Slack. Time is in seconds since the begin."""

    database: Database
    conn: Connection
    slack: SlackHook
    urls: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    clock: HandClock = field(default_factory=HandClock)
    # How long an answer is waited for; short where none comes.
    patience: float = 5.0

    def __post_init__(self) -> None:
        self.urls = self.urls or {MAIN_CHANNEL: self.slack.url()}

    @property
    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    @property
    def sender(self) -> SlackSender:
        return SlackSender(
            self.urls,
            user_agent="bisonsync/test",
            monotonic=SystemClock().monotonic,
            connect_timeout_seconds=5.0,
            read_timeout_seconds=self.patience,
        )

    def put(self, *names: str, channel: str = MAIN_CHANNEL, kind: str = "opening", episode: int | None = None) -> int:
        """Put messages into the outbox; each of an episode of its own unless one is given."""
        for name in names:
            if episode is None:
                ((number,),) = self.conn.execute(
                    "INSERT INTO alert_episodes (check_name, scope, state, first_bad_at, last_seen_at, bad_count)"
                    " VALUES (%s, gen_random_uuid(), 'WARNING', now(), now(), 2) RETURNING id",
                    [name],
                ).fetchall()
            else:
                number = episode
            self.conn.execute(
                "INSERT INTO alert_messages (episode_id, kind, channel, body, created_at, next_attempt_at)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                [number, kind, channel, Jsonb(body_of(name)), self.now, self.now],
            )
        return number

    def deliver(self, sender: Any = None) -> DeliveryReport:
        return deliver(self.database, sender or self.sender, now=self.now, clock=self.clock)

    def row(self, columns: str, message: int = 1) -> tuple[Any, ...]:
        query = f"SELECT {columns} FROM alert_messages ORDER BY id OFFSET {message - 1} LIMIT 1"
        found = self.conn.execute(query.encode()).fetchone()
        assert found is not None
        return found

    @property
    def names(self) -> list[str]:
        """The checks that were told of, in order; a repeat begins with a star."""
        return [one.replace("(repeated) ", "*").replace("🟠 WARNING: ", "") for one in self.slack.headings]


@pytest.fixture
def slack() -> Iterator[SlackHook]:
    with SlackHook() as slack:
        yield slack


@pytest.fixture
def database(db: str) -> Iterator[Database]:
    database = Database(db, application_name="bisonsync test", clock=SystemClock())
    yield database
    database.close()


@pytest.fixture
def outbox(database: Database, conn: Connection, slack: SlackHook) -> Outbox:
    return Outbox(database, conn, slack)


def test_messages_go_out_in_their_order_and_are_kept_as_delivered(outbox: Outbox) -> None:
    outbox.put("one", "two", "three")

    first, second = outbox.deliver(), outbox.deliver()

    assert first == DeliveryReport(sent=3)
    assert second == DeliveryReport()
    assert outbox.names == ["one", "two", "three"]
    assert outbox.row("attempts, claimed_until, delivered_at, last_error") == (1, None, BEGIN, None)
    assert outbox.row("delivered_at", 3) == (BEGIN + timedelta(seconds=2),)


def test_what_is_posted_is_json_without_credentials(outbox: Outbox) -> None:
    outbox.put("one")

    outbox.deliver()

    (post,) = outbox.slack.posts
    assert post.body == body_of("one")
    headers = {name.lower(): value for name, value in post.headers.items()}
    assert headers["content-type"] == "application/json"
    assert not headers.keys() & {"authorization", "cookie"}


def test_no_channel_gets_more_than_one_message_a_second(outbox: Outbox) -> None:
    outbox.urls = {"a": outbox.slack.url("/a"), "b": outbox.slack.url("/b")}
    outbox.put("a1", "a2", channel="a")
    outbox.put("b1", "b2", channel="b")

    outbox.deliver()
    outbox.clock.slept.clear()
    outbox.put("a3", channel="a")
    outbox.seconds = 1.25
    outbox.deliver()

    assert outbox.names == ["a1", "a2", "b1", "b2", "a3"]
    assert outbox.clock.slept == [0.75]
    sent = [at for (at,) in outbox.conn.execute("SELECT attempted_at FROM alert_messages ORDER BY id")]
    assert [(at - BEGIN).total_seconds() for at in sent] == [0, 1, 1, 2, 2]


def test_a_clock_that_was_set_back_holds_nothing_up(outbox: Outbox) -> None:
    outbox.seconds = 86_400.0
    outbox.put("one")
    outbox.deliver()
    outbox.seconds = 0.0
    outbox.put("two")

    assert outbox.deliver().sent == 1
    assert outbox.clock.slept[-1] == 1.0


def test_no_run_delivers_for_longer_than_a_while(outbox: Outbox) -> None:
    outbox.put(*(f"check-{number}" for number in range(60)))

    first = outbox.deliver()
    outbox.seconds = 60.0
    second = outbox.deliver()

    assert (first.sent, first.waiting) == (46, 14)
    assert (second.sent, second.waiting) == (14, 0)
    assert outbox.names == [f"check-{number}" for number in range(60)]


def test_an_instant_to_give_up_at_is_kept(outbox: Outbox) -> None:
    outbox.put("one", "two", "three")

    report = deliver(outbox.database, outbox.sender, now=BEGIN, clock=outbox.clock, give_up_at=0.5)

    assert (report.sent, report.waiting) == (2, 1)


# What fails is tried again


@pytest.mark.parametrize("answer", [(500, b"", {}), (503, b"", {}), (504, b"<html>", {}), CUT], ids=str)
def test_an_outage_of_an_hour_loses_nothing(outbox: Outbox, answer: Any) -> None:
    outbox.put("zero")
    outbox.deliver()
    outbox.slack.always = answer
    for minute in range(1, 61):
        outbox.seconds = 60.0 * minute
        outbox.put(f"check-{minute}")
        report = outbox.deliver()
        assert (report.sent, report.failed, report.waiting) == (0, 1, minute)
    outbox.slack.always = OK
    outbox.seconds += 60
    reports = [outbox.deliver()]
    outbox.seconds += 60
    reports.append(outbox.deliver())

    assert [report.waiting for report in reports] == [14, 0]
    assert [name.strip("*") for name in outbox.names] == ["zero", *(f"check-{minute}" for minute in range(1, 61))]
    assert len(outbox.slack.posts) == 1 + 60 + 60


@pytest.mark.parametrize(
    ("answer", "is_marked", "error"),
    [
        ((500, b"rollup_error", {}), True, "HTTP 500 (rollup_error)"),
        ((502, b"<html>bad</html>", {}), True, "HTTP 502"),
        ((504, b"", {}), True, "HTTP 504"),
        ((503, b"", {}), False, "HTTP 503"),
        ((404, b"no_service", {}), False, "HTTP 404 (no_service)"),
        ((403, f"no {SECRET}".encode(), {}), False, "HTTP 403"),
        ((429, b"", {}), False, "HTTP 429: too many messages"),
        ((302, b"", {"Location": "/elsewhere"}), False, "HTTP 302"),
        ((200, b"<html>log in</html>", {}), True, "HTTP 200, but not the word ok"),
        ((200, b"", {}), True, "HTTP 200, but not the word ok"),
        (CUT, True, None),
        (HANG, True, "no answer from {} in time"),
    ],
    ids=str,
)  # fmt: skip
def test_a_message_that_may_have_arrived_is_marked_when_it_is_sent_again(
    outbox: Outbox, answer: Any, is_marked: bool, error: str | None
) -> None:
    outbox.put("one")
    outbox.slack.answers.append(answer)
    outbox.patience = 0.3 if answer == HANG else outbox.patience

    first = outbox.deliver()
    said, claimed = outbox.row("last_error, claimed_until")
    outbox.seconds = 4000.0
    second = outbox.deliver()

    assert (first.sent, first.failed, first.waiting) == (0, 1, 1)
    assert (second.sent, second.failed, second.waiting) == (1, 0, 0)
    assert outbox.names == ["*one" if is_marked else "one"]
    assert claimed is None
    assert error is None or said == error.format(urlsplit(outbox.urls[MAIN_CHANNEL]).netloc)
    assert [post.path for post in outbox.slack.posts] == ["/services/T0SECRET/B0SECRET/xSecretKey9"] * 2


def test_what_never_left_is_not_marked(outbox: Outbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    good, outbox.urls = outbox.urls, {MAIN_CHANNEL: f"http://127.0.0.1:{port}/{SECRET}"}
    outbox.put("one")

    failed = outbox.deliver()
    outbox.urls = good
    outbox.deliver()

    assert failed.failed == 1
    assert failed.problems[0].exit_code == 0
    assert f"no connection to 127.0.0.1:{port}: " in failed.problems[0].message
    assert SECRET not in failed.problems[0].message
    assert outbox.names == ["one"]


def test_an_answer_in_doubt_stays_in_doubt(outbox: Outbox) -> None:
    outbox.put("one")
    outbox.slack.answers += [CUT, (503, b"", {})]
    for outbox.seconds in (0.0, 60.0, 120.0):
        outbox.deliver()

    assert outbox.names == ["*one"]


def test_a_429_is_waited_for_across_runs(outbox: Outbox) -> None:
    outbox.put("one", "two")
    outbox.slack.answers.append((429, b"", {"Retry-After": "150"}))

    made: list[tuple[int, int]] = []
    for outbox.seconds in (0.0, 60.0, 149.0, 150.0):
        if outbox.seconds == 60.0:
            outbox.put("three")
        report = outbox.deliver()
        made.append((report.sent, report.failed))

    assert made == [(0, 1), (0, 0), (0, 0), (3, 0)]
    assert outbox.names == ["one", "two", "three"]


def test_a_429_without_end_is_tried_within_the_hour(outbox: Outbox) -> None:
    outbox.put("one")
    outbox.slack.answers.append((429, b"", {"Retry-After": "99999999"}))
    outbox.deliver()

    assert outbox.row("next_attempt_at") == (BEGIN + timedelta(hours=1),)


def test_a_refusal_is_tried_again_with_growing_pauses(outbox: Outbox) -> None:
    outbox.put("one")
    outbox.slack.always = (404, b"no_service", {})

    tried = []
    for minute in range(60 * 5):
        outbox.seconds = 60.0 * minute
        if outbox.deliver().failed:
            tried.append(minute)
    outbox.slack.always = OK
    outbox.seconds = 60.0 * 303
    outbox.deliver()

    assert tried == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert outbox.names == ["one"]


def test_a_message_that_is_refused_for_itself_holds_up_only_its_episode(outbox: Outbox) -> None:
    episode = outbox.put("poison")
    outbox.put("other")
    outbox.put("poison-over", kind="recovery", episode=episode)
    outbox.slack.answers.append((400, b"invalid_blocks", {}))

    first = outbox.deliver()
    told = list(outbox.names)
    outbox.seconds = 60.0
    outbox.deliver()

    assert (first.sent, first.failed, first.waiting) == (1, 1, 2)
    assert told == ["other"]
    assert outbox.names == ["other", "poison", "poison-over"]


def test_a_channel_that_is_gone_does_not_hold_up_another(outbox: Outbox) -> None:
    outbox.urls = {"acme": outbox.slack.url("/acme"), "zeta": outbox.slack.url("/zeta")}
    outbox.put("a1", "a2", channel="acme")
    outbox.put("z1", "z2", channel="zeta")
    outbox.slack.by_path["/acme"] = (410, b"channel_is_archived", {})

    report = outbox.deliver()

    assert outbox.names == ["z1", "z2"]
    assert (report.sent, report.failed, report.waiting) == (2, 1, 2)
    (problem,) = report.problems
    assert "[alerts.channels] acme" in problem.message
    assert problem.hint == "bisonsync alerts test --channel acme"


def test_a_host_that_is_down_is_asked_once_a_run_and_another_all_the_same(outbox: Outbox) -> None:
    with SlackHook(always=(503, b"", {})) as down:
        outbox.urls = {name: down.url(f"/{name}") for name in ("a", "b", "c")} | {"up": outbox.slack.url("/up")}
        for name in ("a", "b", "c", "up"):
            outbox.put(name, channel=name)

        report = outbox.deliver()

        assert (report.sent, report.failed, report.waiting) == (1, 1, 3)
        assert len(down.posts) == 1
    assert outbox.names == ["up"]


def test_a_channel_that_is_not_set_up_any_more_waits(outbox: Outbox) -> None:
    outbox.put("lost", channel="gone")
    outbox.put("one")

    report = outbox.deliver()

    assert (report.sent, report.failed, report.waiting) == (1, 0, 1)
    assert outbox.row("attempts") == (0,)


# Processes that die, and several at once


def test_what_a_dead_run_was_sending_is_sent_again_and_marked(outbox: Outbox) -> None:
    outbox.put("one", "two")
    channels = [MAIN_CHANNEL]
    claimed = outbox.database.run(lambda conn: store.claim_message(conn, channels, outbox.now, ttl_seconds=60.0))
    assert claimed is not None

    made = {}
    for outbox.seconds in (0.0, 59.0, 60.0):
        made[outbox.seconds] = outbox.deliver().sent

    assert made == {0.0: 0, 59.0: 0, 60.0: 2}
    assert outbox.names == ["*one", "two"]
    assert outbox.row("attempts") == (2,)


class Meddling:
    """A sender that does something while a message is under way."""

    def __init__(self, sender: SlackSender, meddle: Any) -> None:
        self.sender, self.meddle = sender, meddle
        self.channels, self.neighbours = sender.channels, sender.neighbours

    def send(self, channel: str, body: Mapping[str, Any], *, now: datetime) -> Delivery:
        delivery = self.sender.send(channel, body, now=now)
        meddle, self.meddle = self.meddle, lambda: None
        meddle()
        return delivery


def test_an_attempt_is_recorded_before_it_is_made_and_holds_no_transaction(outbox: Outbox) -> None:
    outbox.put("one")
    seen: list[Any] = []

    def look() -> None:
        seen.append(outbox.row("attempts, claimed_until, delivered_at"))
        states = (
            "SELECT DISTINCT state FROM pg_stat_activity"
            " WHERE application_name = 'bisonsync test' AND datname = current_database()"
        )
        seen.append(outbox.conn.execute(states).fetchall())

    outbox.deliver(Meddling(outbox.sender, look))

    assert seen == [(1, BEGIN + timedelta(seconds=60), None), [("idle",)]]


def test_another_run_leaves_the_channel_that_is_being_written_to(outbox: Outbox) -> None:
    outbox.urls["acme"] = outbox.slack.url("/acme")
    outbox.put("one", "two")
    outbox.put("other", channel="acme")
    reports: list[DeliveryReport] = []

    mine = outbox.deliver(Meddling(outbox.sender, lambda: reports.append(outbox.deliver())))

    assert [report.sent for report in reports] == [1]
    assert mine.sent == 2
    assert outbox.names == ["one", "other", "two"]


def test_a_message_that_is_due_again_waits_for_a_later_one_under_way(outbox: Outbox) -> None:
    outbox.put("poison", "other")
    outbox.slack.answers.append((400, b"invalid_blocks", {}))
    outbox.slack.answers.append((503, b"", {}))
    outbox.deliver()
    channels = [MAIN_CHANNEL]
    outbox.seconds = 59.0
    claimed = outbox.database.run(lambda conn: store.claim_message(conn, channels, outbox.now, ttl_seconds=60.0))
    outbox.seconds = 61.0

    assert claimed is not None
    assert claimed.body == body_of("other")
    assert outbox.deliver().sent == 0


def test_many_runs_at_once_send_nothing_twice(outbox: Outbox) -> None:
    outbox.urls = {name: outbox.slack.url(f"/{name}") for name in "abc"}
    for name in "abc":
        outbox.put(*(f"{name}{number}" for number in range(10)), channel=name)
    threads = [
        threading.Thread(target=lambda: deliver(outbox.database, outbox.sender, now=BEGIN, clock=HandClock()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox.seconds = 100.0
    outbox.deliver()

    assert sorted(outbox.names) == sorted(f"{name}{number}" for name in "abc" for number in range(10))
    for name in "abc":
        assert [one for one in outbox.names if one.startswith(name)] == [f"{name}{number}" for number in range(10)]


def test_a_run_that_is_stopped_while_it_waits_has_not_sent(outbox: Outbox) -> None:
    outbox.put("one", "two")

    def stop() -> None:
        outbox.clock.stopped_by = 15

    with pytest.raises(Stopped):
        outbox.deliver(Meddling(outbox.sender, stop))
    outbox.clock = HandClock()
    outbox.seconds = 5.0
    outbox.deliver()

    assert outbox.names == ["one", "two"]


# Secrets


@contextmanager
def echoing() -> Iterator[str]:
    """A host that answers with what it was sent, where an answer should stand."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(65_536).replace(b"\r\n", b" ") + b"\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/services/{SECRET}/short"
        thread.join()


@pytest.mark.parametrize("answer", [CUT, (404, SECRET.encode(), {}), (500, b"xsecret_key", {})], ids=str)
def test_no_address_of_a_webhook_is_stored_or_told(outbox: Outbox, answer: Any) -> None:
    outbox.urls = {MAIN_CHANNEL: outbox.slack.url(f"/{SECRET}/xsecret_key")}
    outbox.put("one")
    outbox.slack.always = answer

    shown = repr(outbox.deliver()) + repr(outbox.sender) + repr(outbox.row("alert_messages::text"))

    assert SECRET not in shown
    assert "xsecret_key" not in shown


def test_an_echo_of_the_address_is_not_told(outbox: Outbox) -> None:
    with echoing() as url:
        outbox.urls = {MAIN_CHANNEL: url}
        outbox.put("one")

        report = outbox.deliver()

    assert report.failed == 1
    assert SECRET not in repr(report) + repr(outbox.row("last_error"))


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    outbox.put("one")

    assert outbox.deliver().sent == 1


@pytest.mark.parametrize("url", ["https://exa\u0378mple.example.com/x", "http://127.0.0.1:99999/x"])
def test_an_address_that_cannot_be_used_is_a_refusal_without_its_words(outbox: Outbox, url: str) -> None:
    outbox.urls = {MAIN_CHANNEL: url + SECRET}
    outbox.put("one")

    report = outbox.deliver()

    assert report.failed == 1
    assert SECRET not in repr(report)
