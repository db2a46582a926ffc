"""kill -9 of a replay at every point that matters, of the log and of a file: nothing counts twice or is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cli
import psycopg
import pytest
from conftest import Connection, database
from faultproxy import FaultProxy, Rule, Victim, said_by
from receiving import event
from replaying import Inbox, inbox, write_lines

pytestmark = pytest.mark.kills

# More than two batches, so that both workers have one under way and a third waits.
EVENTS = 2_100

Arm = Callable[[FaultProxy, Victim], Rule]


def at(when: str, family: str, name: str, nth: int = 1) -> Arm:
    """When something is said or answered for the n-th time."""
    return lambda proxy, victim: proxy.at(when, said_by(family, name), victim.kill, nth=nth)  # type: ignore[arg-type]


COMMON: dict[str, Arm] = {
    "while-partitions-are-made": at("statement", "partitions", "list_missing_days"),
    "at-the-fence": at("statement", "leases", "fence_lease"),
    "at-the-last-look": at("answered", "leases", "commit_before_expiry"),
    "before-a-second-commit": at("commit", "leases", "commit_before_expiry", 2),
    "after-a-commit": at("committed", "leases", "commit_before_expiry"),
    "before-the-ledger-closes": at("commit", "runs", "close_run"),
}
LOG: dict[str, Arm] = {
    "while-it-counts": at("statement", "replay", "count_due"),
    "after-a-page": at("answered", "replay", "list_due"),
    "before-a-batch": at("statement", "webhooks", "process_deliveries", 2),
    "after-a-batch": at("answered", "webhooks", "process_deliveries"),
    **COMMON,
}
FILE: dict[str, Arm] = {
    "before-a-batch": at("statement", "webhooks", "receive_deliveries", 2),
    "after-a-batch": at("answered", "webhooks", "receive_deliveries"),
    **COMMON,
}


@pytest.fixture(scope="module")
def filled(server: psycopg.Connection[Any], server_dsn: str, template: str) -> Iterator[str]:
    """The name of a database whose inbox waits, to be copied."""
    with database(server, server_dsn, template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            inbox(dsn, conn).put_many(EVENTS)
        yield psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]  # type: ignore[misc]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(
        tmp_path_factory.mktemp("kills") / "events.jsonl",
        *(event(number, workspace=number % 3 + 1) for number in range(1, EVENTS + 1)),
    )


def kill_at(box: Inbox, arm: Arm, *arguments: str) -> None:
    victim = Victim()
    with FaultProxy(box.dsn) as proxy:
        rule = arm(proxy, victim)
        process = cli.start_cli(
            ["replay-webhooks", "--json", *arguments], box.environment(BISONSYNC_DATABASE_URL=proxy.dsn)
        )
        victim.is_(process)
        done = cli.finish(process)
        cli.wait_until(rule.hit.is_set, "the point is noted")
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


def assert_each_counts_once(box: Inbox) -> None:
    """The counters are what the log says is processed, and no event is so twice."""
    processed = box.one("SELECT count(*) FROM webhook_delivery_log WHERE status = 'processed'")
    assert box.counted == processed == box.one("SELECT count(*) FROM webhook_event_keys")
    assert processed == box.one(
        "SELECT count(DISTINCT payload #>> '{data,campaign_event,id}') FROM webhook_delivery_log"
        " WHERE status = 'processed'"
    )


@pytest.mark.parametrize("arm", LOG.values(), ids=LOG.keys())
def test_a_killed_replay_of_the_log_is_finished_by_the_next(
    server: psycopg.Connection[Any], server_dsn: str, filled: str, arm: Arm
) -> None:
    with database(server, server_dsn, filled) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        box = Inbox(dsn, conn)
        kill_at(box, arm)
        assert_each_counts_once(box)
        left = box.tally().get("pending", 0)

        outcome = box.replay()

        assert (outcome.code, outcome.counts["chosen"]) == (0, left)
        assert box.tally() == {"processed": EVENTS}
        assert_each_counts_once(box)


@pytest.mark.parametrize("arm", FILE.values(), ids=FILE.keys())
def test_a_killed_replay_of_a_file_is_just_repeated(db: str, conn: Connection, file: Path, arm: Arm) -> None:
    box = inbox(db, conn)
    kill_at(box, arm, "--from", str(file))
    assert_each_counts_once(box)
    stored = box.tally().get("processed", 0)

    outcome = box.replay("--from", str(file))

    assert (outcome.code, outcome.counts["duplicate"]) == (0, stored)
    assert box.tally() == {"processed": EVENTS, **({"duplicate": stored} if stored else {})}
    assert_each_counts_once(box)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_connection_lost_at_a_commit_costs_a_retry(db: str, conn: Connection, nth: int) -> None:
    box = inbox(db, conn)
    box.put_many(EVENTS)
    with FaultProxy(box.dsn) as proxy:
        rule = proxy.at(
            "committed", said_by("leases", "commit_before_expiry"), lambda conversation: conversation.cut(), nth=nth
        )
        outcome = box.replay(env={"BISONSYNC_DATABASE_URL": proxy.dsn})

    assert rule.hit.is_set()
    assert (outcome.code, outcome.counts["processed"], outcome.stderr) == (0, EVENTS, "")
    assert box.tally() == {"processed": EVENTS}
    assert_each_counts_once(box)


def test_f23_one_that_stands_still_past_its_lease_writes_nothing(db: str, conn: Connection) -> None:
    box = inbox(db, conn)
    box.put_many(10)
    victim = Victim()
    with FaultProxy(box.dsn) as proxy:
        rule = proxy.at("answered", said_by("webhooks", "process_deliveries"), victim.pause)
        process = cli.start_cli(["replay-webhooks", "--json"], box.environment(BISONSYNC_DATABASE_URL=proxy.dsn))
        victim.is_(process)
        cli.wait_until(rule.hit.is_set, "it stands still")
        conn.execute("UPDATE job_leases SET expires_at = clock_timestamp() - interval '1 ms'")
        process.send_signal(signal.SIGCONT)
        done = cli.finish(process)

    assert (done.returncode, cli.document(done)["errors"][0]["kind"]) == (8, "lease_lost")
    assert box.tally() == {"pending": 10}
