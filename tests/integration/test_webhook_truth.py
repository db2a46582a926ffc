"""Whatever happens on the way, and in whatever order: the database says what an independent model says."""

from __future__ import annotations

import contextlib
import itertools
import queue
import random
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from webhook_events import LATE, Sent
from webhook_model import differences, fold, metrics_unlike_their_keys, read_books
from webhook_world import check_log, install, make_world, register, rows_of

from bisonsync.payloads import read_body
from bisonsync.store import webhooks
from bisonsync.store.webhooks import Delivery

Connection = psycopg.Connection[Any]

BROKEN_FOR_A_WHILE = """
    CREATE FUNCTION refuse_some() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.bison_lead_id % 37 = 0 THEN
            RAISE EXCEPTION 'this lead cannot be stored today';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse_some BEFORE INSERT OR UPDATE ON client_leads FOR EACH ROW EXECUTE FUNCTION refuse_some()
"""


class Courier:
    """Brings deliveries in by every door, and is killed on the way. What is not acknowledged it brings again."""

    def __init__(self, dsn: str, work: queue.SimpleQueue[list[Sent]], rng: random.Random) -> None:
        self.dsn = dsn
        self.work = work
        self.rng = rng
        self.kills = 0
        self.acknowledged: Counter[int] = Counter()
        self.conn = self._connect()
        self.others: list[Courier] = []

    def run(self) -> None:
        while True:
            try:
                chunk = self.work.get_nowait()
            except queue.Empty:
                return
            try:
                if self.conn.closed:
                    self.conn = self._connect()
                self._bring(chunk)
            except psycopg.OperationalError:
                # Killed, or a deadlock: whether it was committed is not known.
                self.work.put(chunk)
            else:
                self.acknowledged.update(sent.event.number for sent in chunk)
            if self.rng.random() < 0.06:
                self._kill(self.rng.choice(self.others))

    def _connect(self) -> Connection:
        return psycopg.connect(self.dsn, autocommit=True, application_name="courier")

    def _kill(self, victim: Courier) -> None:
        self.kills += 1
        with contextlib.suppress(psycopg.OperationalError):
            self.conn.execute("SELECT pg_terminate_backend(%s)", (victim.conn.info.backend_pid,))

    def _bring(self, chunk: list[Sent]) -> None:
        door = self.rng.choice(["receive", "receive", "sql", "later"])
        if door == "sql" and all(can_be_ingested(sent) for sent in chunk):
            for sent in chunk:
                self.conn.execute("SELECT ingest_webhook(%s)", (read_body(sent.body).text,))
            return
        if self.rng.random() < 0.15:
            with self.conn.transaction(force_rollback=True):
                webhooks.receive(self.conn, [as_delivery(sent, "receiver") for sent in chunk])
        if door == "later":
            with self.conn.transaction():
                rows = [store_pending(self.conn, sent) for sent in chunk]
            self.rng.shuffle(rows)
            self._process(rows[: len(rows) // 2 + 1])
            return
        with self.conn.transaction():
            webhooks.receive(
                self.conn, [as_delivery(sent, self.rng.choice(["receiver", "file", "events"])) for sent in chunk]
            )
        if self.rng.random() < 0.2:
            self._process(
                self.conn.execute(
                    "SELECT id, received_at FROM webhook_delivery_log"
                    " WHERE id > (SELECT max(id) FROM webhook_delivery_log) * %s ORDER BY id LIMIT 30",
                    (self.rng.random(),),
                ).fetchall()
            )

    def _process(self, rows: Sequence[tuple[int, datetime]]) -> None:
        with self.conn.transaction():
            webhooks.process(self.conn, [row[0] for row in rows], [row[1] for row in rows])


def can_be_ingested(sent: Sent) -> bool:
    return sent.hook is None and not sent.is_test and read_body(sent.body).raw is None


def as_delivery(sent: Sent, source: Any) -> Delivery:
    body = read_body(sent.body)
    return Delivery(body.text, source, body.raw, hook=sent.hook, is_test=sent.is_test)


def store_pending(conn: Connection, sent: Sent) -> tuple[int, datetime]:
    """A delivery that was only stored; tests and what belongs to nobody are known at once."""
    if sent.is_test or sent.event.fate == "mismatch":
        (outcome,) = webhooks.receive(conn, [as_delivery(sent, "receiver")])
        return outcome.id, outcome.received_at
    body = read_body(sent.body)
    row = conn.execute(
        "INSERT INTO webhook_delivery_log (source, payload, payload_raw, hook_instance, hook_workspace_id)"
        " SELECT 'receiver', bisonsync_private.unwrap_delivery(%s::jsonb, false), %s, %s, %s RETURNING id, received_at",
        (body.text, body.raw, *(sent.hook or (None, None))),
    ).fetchone()
    assert row is not None
    return row


def bring_all(dsn: str, deliveries: list[Sent], seed: int) -> tuple[Counter[int], int]:
    """Two at once, in batches of any size; how often each event was acknowledged, and how many were killed."""
    rng = random.Random(seed)
    work: queue.SimpleQueue[list[Sent]] = queue.SimpleQueue()
    at = 0
    while at < len(deliveries):
        size = rng.choice([1, 1, 2, 5, 20, 40])
        work.put(deliveries[at : at + size])
        at += size
    couriers = [Courier(dsn, work, random.Random(seed + number)) for number in range(2)]
    failures: list[BaseException] = []

    def run(courier: Courier) -> None:
        try:
            courier.run()
        except BaseException as error:
            failures.append(error)

    for courier in couriers:
        courier.others = [other for other in couriers if other is not courier]
    threads = [threading.Thread(target=run, args=(courier,)) for courier in couriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for courier in couriers:
        courier.conn.close()
    if failures:
        raise failures[0]
    assert work.empty()
    return sum((courier.acknowledged for courier in couriers), Counter[int]()), sum(
        courier.kills for courier in couriers
    )


def settle(conn: Connection, *statuses: str) -> None:
    """What "replay-webhooks --status" does."""
    rows = conn.execute(
        "SELECT id, received_at FROM webhook_delivery_log WHERE status = ANY(%s)", (list(statuses),)
    ).fetchall()
    with conn.transaction():
        webhooks.process(conn, [row[0] for row in rows], [row[1] for row in rows])


@pytest.mark.parametrize(("seed", "zone"), [(1, "Europe/Berlin"), (2, "America/New_York"), (3, "Pacific/Auckland")])
def test_whatever_happens_on_the_way_the_books_are_those_of_the_model(
    db: str, conn: Connection, seed: int, zone: str
) -> None:
    world = make_world(seed, 1500, zone=zone, now=datetime.now(UTC))
    install(conn, world)
    conn.execute(BROKEN_FOR_A_WHILE)
    calls = iter(world.legacy_calls)

    acknowledged: Counter[int] = Counter()
    kills = 0
    third = len(world.deliveries) // 3
    for turn in range(3):
        part = world.deliveries[turn * third : (turn + 1) * third if turn < 2 else None]
        known, killed = bring_all(db, part, seed * 100 + turn)
        acknowledged += known
        kills += killed
        for name, metric, amount in itertools.islice(calls, 9 * turn + 1):
            conn.execute("SELECT increment_metric(%s, %s, %s)", (name, metric, amount))
        if turn == 1:
            assert conn.execute("SELECT count(*) FROM webhook_delivery_log WHERE status = 'failed'").fetchone() != (0,)
            conn.execute("DROP TRIGGER refuse_some ON client_leads")
            register(conn, LATE, "Late GmbH")
    for name, metric, amount in calls:
        conn.execute("SELECT increment_metric(%s, %s, %s)", (name, metric, amount))
    settle(conn, "pending", "failed", "dead", "unknown_workspace")

    assert kills > 3
    received = check_log(conn, world, acknowledged)
    expected = fold(world.events, world.legacy(datetime.now(UTC)), world.setting, received)
    assert not (said := differences(expected, read_books(conn))), "\n".join(said)
    assert metrics_unlike_their_keys(conn) == []
    before = rows_of(conn)
    again, _ = bring_all(db, world.again(), seed)
    settle(
        conn, "pending", "failed", "dead", "unknown_workspace", "processed", "duplicate", "ignored", "mismatch", "test"
    )
    check_log(conn, world, acknowledged + again)
    after = rows_of(conn)
    assert {table: set(after[table]) ^ set(before[table]) for table in before if table != "webhook_event_keys"} == {
        "client_metrics": set(), "client_leads": set(), "sender_emails_cache": set()
    }  # fmt: skip
