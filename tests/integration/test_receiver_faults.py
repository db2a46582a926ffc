"""Receivers that are stopped, killed, flooded, without a database: what was answered 200 is there, and counts once."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cli
import psycopg
import pytest
from faultproxy import Conversation, FaultProxy, When, said_by
from psycopg.sql import SQL, Identifier
from receiving import (
    Receiver,
    Senders,
    add_secret,
    body,
    counted,
    deliveries,
    inbox_locked,
    receiver,
    register,
    serving,
    transactions,
    waiting_sessions,
)

from bisonsync.receiver import app, watch, writer

Connection = psycopg.Connection[Any]
RECEIVE = said_by("webhooks", "receive_deliveries")
LIST_SECRETS = said_by("webhook_secrets", "list_secrets")
ROUNDS = 6


@pytest.fixture
def secret(conn: Connection) -> str:
    return register(conn, [1])[1]


def statuses(senders: Senders) -> dict[int, int | None]:
    return {number: answer and answer.status for number, answer in senders.wait().items()}


def accepted(running: Receiver, count: int) -> Callable[[], bool]:
    """True once so many deliveries wait for their transaction."""
    return lambda: json.loads(running.ask("GET", "/healthz").text)["waiting"] == count


# Groups


def test_deliveries_that_arrive_together_share_a_transaction(db: str, conn: Connection, secret: str) -> None:
    with serving(db) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(0)
            cli.wait_until(lambda: waiting_sessions(conn), "the first is being stored")
            senders.send(*range(1, 21))
            cli.wait_until(accepted(running, 20), "the others wait")
        answered = statuses(senders)

    assert answered == dict.fromkeys(range(21), 200)
    assert (transactions(conn), counted(conn)) == (2, 21)


@pytest.mark.parametrize(("bound", "value"), [("MAX_ROWS", 3), ("MAX_BYTES", 3 * len(body(1)) + 100)])
def test_a_group_is_bounded_in_rows_and_bytes(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(writer, bound, value)
    with serving(db) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(0)
            cli.wait_until(lambda: waiting_sessions(conn), "the first is being stored")
            senders.send(*range(1, 10))
            cli.wait_until(accepted(running, 9), "the others wait")
        answered = statuses(senders)

    assert answered == dict.fromkeys(range(10), 200)
    assert transactions(conn) == 4


def test_one_that_breaks_its_transaction_fails_alone(db: str, conn: Connection, secret: str) -> None:
    # An error that no function of the database catches.
    conn.execute(
        "CREATE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'broken off' USING ERRCODE = 'query_canceled'; END $$;"
        "CREATE TRIGGER break_off BEFORE INSERT ON webhook_delivery_log FOR EACH ROW"
        " WHEN (new.payload #>> '{data,lead,id}' = '13') EXECUTE FUNCTION break_off()"
    )
    with serving(db) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(0)
            cli.wait_until(lambda: waiting_sessions(conn), "the first is being stored")
            senders.send(11, 12, 13, 14)
            cli.wait_until(accepted(running, 4), "the others wait")
        answered = statuses(senders)

    assert answered == {0: 200, 11: 200, 12: 200, 13: 503, 14: 200}
    assert counted(conn) == 4


# Bounds


def test_more_deliveries_at_once_than_allowed_are_told_to_come_again(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_REQUESTS", 3)
    with serving(db) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(0)
            cli.wait_until(lambda: waiting_sessions(conn), "the first is being stored")
            senders.send(1, 2)
            cli.wait_until(accepted(running, 2), "the others wait")
            refused = running.post(secret, body(3))
            # Whoever looks after it is not shut out.
            assert running.ask("GET", "/healthz").status == 200
        answered = statuses(senders)
        later = running.post(secret, body(3))

    assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    assert answered == {0: 200, 1: 200, 2: 200}
    assert later.status == 200


def test_more_bytes_at_once_than_allowed_are_told_to_come_again(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_HELD_BYTES", 2 * len(body(1)) + 100)
    with serving(db) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(0)
            cli.wait_until(lambda: waiting_sessions(conn), "the first is being stored")
            senders.send(1)
            cli.wait_until(accepted(running, 1), "the second waits")
            refused = running.post(secret, body(3))
        answered = statuses(senders)
        later = [running.post(secret, body(number)).status for number in range(3, 8)]

    assert refused.status == 503
    assert answered == {0: 200, 1: 200}
    assert later == [200] * 5


def test_a_body_that_never_ends_is_not_waited_for(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_BODY_SECONDS", 0.05)
    with serving(db) as running, running.connect() as sock:
        sock.sendall(f"POST /hooks/{secret} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())

        with sock.makefile("rb") as stream:
            # To its end: the connection is closed.
            answer = stream.read()

    assert answer.startswith(b"HTTP/1.1 408 ")

    assert deliveries(conn) == []


# The database


def test_a_database_that_is_too_slow_is_not_waited_for_and_nothing_half_stored(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_ANSWER_SECONDS", 0.3)
    with serving(db) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(0)
            cli.wait_until(lambda: waiting_sessions(conn), "the first is being stored")
            withdrawn = running.post(secret, body(1))
        answered = statuses(senders)
        monkeypatch.undo()
        again = [running.post(secret, body(number)).text for number in (0, 1)]

    assert (withdrawn.status, withdrawn.headers["retry-after"]) == (503, "10")
    assert answered == {0: 503}
    # The first was under way and may be stored; the second was given up before it began.
    assert again == ["duplicate\n", "processed\n"]
    assert counted(conn) == 2


def test_a_database_that_says_nothing_is_given_up(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(watch, "_PATIENCE_SECONDS", 0.2)
    with FaultProxy(db) as proxy, serving(proxy.dsn) as running:
        assert running.post(secret, body(1)).status == 200
        proxy.hold()
        silent = running.post(secret, body(2))
        proxy.let_go()
        cli.wait_until(lambda: running.post(secret, body(2)).status == 200, "it is taken again")

    assert silent.status == 503
    assert counted(conn) == 2


@pytest.mark.parametrize("when", ["statement", "answered", "commit", "committed"])
def test_a_connection_that_breaks_costs_a_retry(db: str, conn: Connection, secret: str, when: When) -> None:
    with FaultProxy(db) as proxy, serving(proxy.dsn, patience_seconds=5.0) as running:
        rule = proxy.at(when, RECEIVE, Conversation.cut)
        answer = running.post(secret, body(1))

    assert rule.hit.is_set()
    assert answer.status == 200
    # Where the commit had come through, the second try found a duplicate.
    assert sorted(status for status, _ in deliveries(conn)) == (
        ["duplicate", "processed"] if when == "committed" else ["processed"]
    )
    assert counted(conn) == 1


def test_without_a_database_deliveries_are_told_to_come_again_until_it_is_back(
    db: str, conn: Connection, server: Connection, secret: str
) -> None:
    name = Identifier(conn.info.dbname)
    with receiver(db) as running:
        assert running.post(secret, body(1)).status == 200
        server.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'bisonsync%' AND datname = current_database()"
        )
        away = running.post(secret, body(2))
        cli.wait_until(lambda: running.ask("GET", "/healthz").status == 503, "health tells of it")
        health = json.loads(running.ask("GET", "/healthz").text)
        unknown = running.post("unknown", body(2))
        server.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        cli.wait_until(lambda: running.post(secret, body(2)).status == 200, "deliveries are taken again")
        cli.wait_until(lambda: running.ask("GET", "/healthz").status == 200, "health is well again")

    assert (away.status, away.headers["retry-after"]) == (503, "10")
    assert (health["status"], health["database"]) == ("unavailable", "database_unavailable")
    assert "reached" in health["reason"]
    # Whose it is cannot be known.
    assert unknown.status == 503
    assert counted(conn) == 2
    assert "Traceback" not in running.log


# Secrets that are not known


def test_a_look_that_began_before_a_secret_was_made_does_not_answer_for_it(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    made: list[Senders] = []

    with FaultProxy(db) as proxy, serving(proxy.dsn) as running:

        def make_and_use(_: Conversation) -> None:
            made.append(Senders(running, add_secret(conn, 1)))
            made[0].send(1)
            cli.wait_until(accepted(running, 1), "it waits for a look")

        proxy.at("answered", LIST_SECRETS, make_and_use)
        cli.wait_until(lambda: made and made[0].answers, "it is answered")

    assert statuses(made[0]) == {1: 200}


def test_a_flood_of_wrong_secrets_costs_few_looks(db: str, conn: Connection, secret: str) -> None:
    with FaultProxy(db) as proxy, serving(proxy.dsn) as running:
        looks = proxy.at("statement", LIST_SECRETS, lambda _: None, nth=0)
        began = time.monotonic()
        flood = [Senders(running, f"wrong-{number}") for number in range(10)]
        for senders in flood:
            senders.send(*range(10))
        answered = {status for senders in flood for status in statuses(senders).values()}
        for number in range(10):
            answered.add(running.post(f"wrong-{number}", body(1)).status)
        seconds = time.monotonic() - began

    assert answered == {404}
    # As slow as the machine may be, so many looks fit into that time and no more.
    assert 2 <= looks.seen <= seconds / watch.SOONEST_SECONDS + 2


def test_more_wrong_secrets_than_may_wait_are_told_to_come_again(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_ASKING", 2)
    with FaultProxy(db) as proxy, serving(proxy.dsn) as running:
        wrong = Senders(running, "wrong")
        looking = proxy.at("statement", LIST_SECRETS, proxy.hold)
        wrong.send(1, 2)
        cli.wait_until(accepted(running, 2), "they wait for a look")
        cli.wait_until(looking.hit.is_set, "it is under way")
        refused = running.post("wrong", body(3))
        proxy.let_go()
        answered = statuses(wrong)
        known = running.post(secret, body(4))

    assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    assert answered == {1: 404, 2: 404}
    assert known.status == 200


# What cannot be written


def test_a_database_that_can_only_be_read_is_told_of_and_nothing_is_lost(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    name = Identifier(conn.info.dbname)
    with serving(db) as running:
        conn.execute(SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        end_sessions(conn)
        senders = Senders(running, secret)
        senders.send(*range(5))
        meanwhile = statuses(senders)
        cli.wait_until(lambda: "read_only is on" in running.ask("GET", "/healthz").text, "health says why")
        health = running.ask("GET", "/healthz")
        unknown = running.post("unknown", body(1))
        conn.execute(SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
        cli.wait_until(lambda: running.ask("GET", "/healthz").status == 200, "health is well again by itself")
        senders.send(*range(5))
        afterwards = statuses(senders)

    assert meanwhile == dict.fromkeys(range(5), 503)
    assert (health.status, json.loads(health.text)["database"]) == (503, "read_only")
    assert unknown.status == 503
    assert afterwards == dict.fromkeys(range(5), 200)
    assert counted(conn) == 5


def test_a_receiver_that_is_started_while_nothing_can_be_written_waits_for_it(
    db: str, conn: Connection, secret: str
) -> None:
    name = Identifier(conn.info.dbname)
    conn.execute(SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    with receiver(db) as running:
        meanwhile = running.post(secret, body(1))
        health = running.ask("GET", "/healthz")
        conn.execute(SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
        cli.wait_until(lambda: running.ask("GET", "/healthz").status == 200, "health is well by itself")
        afterwards = running.post(secret, body(1))

    assert "settings and partitions of the inbox are not up to date" in running.log
    assert (meanwhile.status, health.status, afterwards.text) == (503, 503, "processed\n")


def end_sessions(conn: Connection) -> None:
    """A setting of the database is heard of by new sessions alone."""
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'receiver under test'"
        " AND datname = current_database()"
    )


FULL = (
    "CREATE FUNCTION be_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;"
    "CREATE TRIGGER be_full BEFORE INSERT ON webhook_delivery_log FOR EACH ROW EXECUTE FUNCTION be_full()"
)


ROOM_AGAIN = "CREATE OR REPLACE FUNCTION be_full() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'"


def test_health_tells_of_writes_that_fail_until_one_works(
    db: str, conn: Connection, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    with FaultProxy(db) as proxy, serving(proxy.dsn) as running:
        trials = proxy.at("statement", RECEIVE, lambda _: None, nth=0)
        assert running.post(secret, body(0)).status == 200
        quiet = trials.seen
        conn.execute(FULL)
        refused = running.post(secret, body(1))
        cli.wait_until(lambda: trials.seen >= quiet + 4, "it was tried several times more")
        health = running.ask("GET", "/healthz")
        conn.execute(ROOM_AGAIN)
        cli.wait_until(lambda: running.ask("GET", "/healthz").status == 200, "health is well again by itself")
        taken = running.post(secret, body(1))

    # As long as all is well nothing is written but deliveries.
    assert quiet == 1
    assert (refused.status, health.status, taken.status) == (503, 503, 200)
    assert refused.text == "the disk of the database's server is full\n"
    assert json.loads(health.text)["reason"] == "the disk of the database's server is full"
    # No trial left anything.
    assert deliveries(conn) == [("processed", 1)] * 2


@pytest.mark.parametrize(("state", "tries"), [("disk_full", 1), ("query_canceled", 4)])
def test_what_every_delivery_meets_is_not_tried_for_each(
    db: str, conn: Connection, secret: str, state: str, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No trial in between.
    monkeypatch.setattr(watch.Watch, "note_write", lambda _watch, _error: None)
    conn.execute(FULL.replace("disk_full", state))
    with FaultProxy(db) as proxy, serving(proxy.dsn) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(0)
            cli.wait_until(lambda: waiting_sessions(conn), "the first is being stored")
            senders.send(1, 2, 3)
            cli.wait_until(accepted(running, 3), "the others wait")
            tried = proxy.at("statement", RECEIVE, lambda _: None, nth=0)
        answered = statuses(senders)

    assert answered == dict.fromkeys(range(4), 503)
    assert tried.seen == tries


# Stopping and killing


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_answers_what_was_accepted(
    db: str, conn: Connection, secret: str, number: signal.Signals, code: int, workers: str
) -> None:
    with receiver(db, "--workers", workers) as running:
        senders = Senders(running, secret)
        with inbox_locked(db):
            senders.send(*range(10))
            cli.wait_until(lambda: waiting_sessions(conn), "they are being stored")
            cli.wait_until(lambda: are_all_read(running, 10), "all are accepted")
            running.process.send_signal(number)
            cli.wait_until(lambda: is_closed(running), "no more are accepted")
        answered = statuses(senders)
        ended = running.wait()
        assert running.process.stdout is not None
        told = running.process.stdout.read()

    assert answered == dict.fromkeys(range(10), 200)
    assert ended == code
    assert "10 stored, 0 refused" in told
    assert counted(conn) == 10


def are_all_read(running: Receiver, count: int) -> bool:
    """True once so many connections are there and all that came on them was read."""
    connected = unread = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if local.endswith(f":{running.port:04X}") and state in ("01", "0A"):
            connected += state == "01"
            unread += int(queues.partition(":")[2], 16)
    return connected >= count and unread == 0


def is_closed(running: Receiver) -> bool:
    try:
        running.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_worker_that_is_killed_is_started_again(db: str, conn: Connection, secret: str) -> None:
    with receiver(db, "--workers", "2") as running:
        first = workers_of(running)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        cli.wait_until(lambda: len(workers_of(running) - first) == 2, "both are started again")
        answer = running.post(secret, body(1))
        code = running.stop()

    assert (len(first), answer.status, code) == (2, 200, 143)
    assert running.log.count("was killed by SIGKILL; started again") == 2


def test_workers_end_with_their_parent(db: str, conn: Connection, secret: str) -> None:
    with receiver(db, "--workers", "2") as running:
        workers = workers_of(running)
        running.process.kill()

        cli.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers have ended")


def workers_of(running: Receiver) -> set[int]:
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == running.process.pid and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                found.add(int(stat.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.kills
@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_at_any_moment_what_was_answered_is_there_and_counts_once(
    db: str, conn: Connection, secret: str, workers: str
) -> None:
    numbers = itertools.count(1)
    answered: set[int] = set()
    unanswered: set[int] = set()
    dice = random.Random(workers)
    for _ in range(ROUNDS):
        with receiver(db, "--workers", workers) as running:
            kill_at = len(answered) + dice.randint(1, 60)
            senders = [
                threading.Thread(target=send_until_killed, args=(running, secret, numbers, answered, unanswered))
                for _ in range(6)
            ]
            for sender in senders:
                sender.start()
            cli.wait_until(lambda kill_at=kill_at: len(answered) >= kill_at, "so many were answered")
            for pid in (running.process.pid, *workers_of(running)):
                os.kill(pid, signal.SIGKILL)
            for sender in senders:
                sender.join(cli.PATIENCE)
    with receiver(db) as running:
        # The platform sends again what it heard no answer to.
        again = {running.post(secret, body(number)).text for number in unanswered}

    assert len(unanswered) >= ROUNDS
    assert again <= {"processed\n", "duplicate\n"}
    processed = conn.execute(
        "SELECT (payload #>> '{data,campaign_event,id}')::int FROM webhook_delivery_log WHERE status = 'processed'"
    ).fetchall()
    assert sorted(number for (number,) in processed) == sorted(answered | unanswered)
    assert counted(conn) == len(answered | unanswered)
    assert {status for status, _ in deliveries(conn)} <= {"processed", "duplicate"}


def send_until_killed(
    running: Receiver, secret: str, numbers: itertools.count[int], answered: set[int], unanswered: set[int]
) -> None:
    """One event after the other on one connection, until it breaks."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=cli.PATIENCE)
    while True:
        number = next(numbers)
        try:
            connection.request("POST", f"/hooks/{secret}", body(number))
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            unanswered.add(number)
            connection.close()
            return
        assert answer.status == 200
        answered.add(number)
