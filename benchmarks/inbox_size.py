"""Measures how large the inbox grows and what keeping it small costs: python benchmarks/inbox_size.py [events a day].

A tenth of a million events a day unless another number is given: the keys of 30 days, made by SQL, and some days of
deliveries as the rule book stores them. A temporary Postgres with fsync on; while a day is made slim, three sessions
ask again and again and tell how long they had to wait.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from poll import bisonsync, database, environment
from replay import payload

from bisonsync.store import webhooks
from bisonsync.store.webhooks import Delivery

WORKSPACES = 27
KEY_DAYS = 30
LONGEST_KEY_DAYS = 72
BATCH = 500
ROUNDS = 20
MEGABYTE = 1024**2

Connection = psycopg.Connection[Any]

FILL_KEYS = """
    INSERT INTO webhook_event_keys (
        bison_instance, bison_workspace_id, event_type, dedup_key, occurred_at, delivery_id, metric
    )
    SELECT
        'sim', 1 + mod(n, %(workspaces)s), k.kind, k.id || n,
        %(first)s::timestamptz + n * (interval '1 day' / %(daily)s), n, k.metric
    FROM generate_series(0, %(events)s - 1) AS n
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN mod(n, 25) < 23 THEN 'email_sent'
                WHEN mod(n, 25) = 23 THEN 'lead_replied'
                ELSE 'email_opened'
            END AS kind,
            CASE WHEN mod(n, 25) = 23 THEN 'reply:' ELSE 'campaign_event:' END AS id,
            CASE WHEN mod(n, 25) < 23 THEN 'emails_sent' WHEN mod(n, 25) = 23 THEN 'replies' END AS metric
    ) AS k
"""
FILL_DAY = """
    INSERT INTO webhook_delivery_log (
        received_at, source, event_type, bison_instance, bison_workspace_id, workspace_name, hook_instance,
        hook_workspace_id, occurred_at, occurred_rule, payload, dedup_key, dedup_rule, status, success, attempts,
        processing_time_ms, processed_at, processor_version
    )
    SELECT
        %(day)s::timestamptz + n * (interval '1 day' / %(daily)s), 'receiver', l.event_type, l.bison_instance,
        1 + mod(n, %(workspaces)s), l.workspace_name, l.bison_instance, 1 + mod(n, %(workspaces)s), %(day)s,
        l.occurred_rule,
        jsonb_set(jsonb_set(l.payload, '{data,campaign_event,id}', to_jsonb(n)), '{data,lead,id}', to_jsonb(n)),
        'campaign_event:' || n, l.dedup_rule,
        CASE WHEN mod(n, 10000) = 0 THEN 'dead' ELSE 'processed' END, mod(n, 10000) <> 0, 1, 0.1, %(day)s, 1
    FROM generate_series(0, %(daily)s - 1) AS n
    CROSS JOIN (SELECT * FROM webhook_delivery_log WHERE source = 'receiver' ORDER BY id LIMIT 1) AS l
"""


@dataclass
class Waits:
    """How long each of three sessions waited at most, in seconds."""

    longest: dict[str, float] = field(default_factory=dict[str, float])

    def note(self, who: str, seconds: float) -> None:
        self.longest[who] = max(self.longest.get(who, 0.0), seconds)

    def __str__(self) -> str:
        return ", ".join(f"{who} {1000 * seconds:.0f} ms" for who, seconds in sorted(self.longest.items()))


@contextmanager
def asking(dsn: str, day: datetime) -> Generator[Waits]:
    """Sessions that receive, read the last hour through the whole table, and write to a row of the day, all along."""
    waits, is_over = Waits(), threading.Event()
    with psycopg.connect(dsn) as conn:
        dead = conn.execute(
            "SELECT id, received_at FROM webhook_delivery_log WHERE status = 'dead' AND received_at >= %s"
            " AND received_at < %s::timestamptz + interval '1 day'",
            [day, day],
        ).fetchall()
    parameters = {"ids": [row[0] for row in dead], "received_ats": [row[1] for row in dead]}

    def ask(who: str, statement: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not is_over.wait(0.01):
                began = time.perf_counter()
                conn.execute(statement.encode(), parameters)
                waits.note(who, time.perf_counter() - began)

    asked = {
        "receiver": "INSERT INTO webhook_delivery_log (source, status) VALUES ('receiver', 'test')",
        "reader": "SELECT count(*) FROM webhook_delivery_log WHERE received_at > now() - interval '1 hour' AND id < 0",
        "replay of the day": "SELECT count(*) FROM bisonsync_private.process_deliveries(%(ids)s, %(received_ats)s)",
    }
    threads = [threading.Thread(target=ask, args=pair) for pair in asked.items()]
    for thread in threads:
        thread.start()
    try:
        yield waits
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def one(conn: Connection, statement: str, *parameters: object) -> Any:
    row = conn.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def megabytes(conn: Connection, table: str) -> float:
    return one(conn, f"SELECT pg_total_relation_size('{table}')") / MEGABYTE


def partition(day: datetime) -> str:
    return f"webhook_delivery_log_{day:%Y_%m_%d}"


def by_update(conn: Connection, name: str) -> None:
    """The other way: batches of updates, each committed, then a rewrite of the partition."""
    done = 1
    while done:
        done = conn.execute(
            f"UPDATE {name} SET payload = NULL WHERE ctid = ANY(ARRAY(SELECT ctid FROM {name}"
            " WHERE payload IS NOT NULL AND status = 'processed' LIMIT 5000))".encode()
        ).rowcount
    conn.execute(f"VACUUM (FULL, ANALYZE) {name}".encode())


def by_copy(conn: Connection, name: str) -> None:
    """What prune does."""
    conn.execute("SELECT bisonsync_private.slim_delivery_partition(%s)", [name])
    conn.execute(f"VACUUM (ANALYZE) {name}".encode())


def slim(conn: Connection, dsn: str, day: datetime, way: Callable[[Connection, str], None]) -> None:
    name = partition(day)
    before = megabytes(conn, name)
    lsn = one(conn, "SELECT pg_current_wal_lsn()")
    with asking(dsn, day) as waits:
        began = time.perf_counter()
        way(conn, name)
        seconds = time.perf_counter() - began
    written = one(conn, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", lsn) / MEGABYTE
    print(
        f"{way.__name__}: {before:.0f} MB -> {megabytes(conn, name):.0f} MB in {seconds:.1f} s, {written:.0f} MB of"
        f" WAL; longest waits: {waits}",
        flush=True,
    )


def deduplicate(conn: Connection, first: int, payloads: list[str]) -> float:
    """Milliseconds an event, in batches of which half repeats what is known."""
    took: list[float] = []
    for round_ in range(ROUNDS):
        batch = [
            text.replace("987654321", str(first + round_ * BATCH // 2 + n % (BATCH // 2)))
            for n, text in enumerate(payloads)
        ]
        began = time.perf_counter()
        with conn.transaction():
            webhooks.receive(conn, [Delivery(text, "receiver", hook=("sim", 1)) for text in batch])
        took.append(1000 * (time.perf_counter() - began) / len(batch))
    return statistics.median(took)


def main(daily: int) -> None:
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    made = json.loads(payload(987654321, "EMAIL_SENT", now, random.Random(7)))
    made["event"]["workspace_id"] = 1
    text = json.dumps(made)
    with database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        env = environment(dsn) | {"BISONSYNC_INSTANCES__SIM__BASE_URL": "https://sim.example.com"}
        bisonsync(env, "migrate")
        conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
            " SELECT 'sim', w, 'Client ' || w FROM generate_series(1, %s::integer) AS w",
            [WORKSPACES],
        )
        print(f"{daily:,} events a day, {len(text):,} bytes each as they come; 10 x is a million a day", flush=True)
        empty = deduplicate(conn, 10**9, [text] * BATCH)

        events = daily * KEY_DAYS
        began = time.perf_counter()
        first = now - timedelta(days=LONGEST_KEY_DAYS)
        filled = {"workspaces": WORKSPACES, "daily": daily, "events": events, "first": first}
        # Two days more than are kept, and the youngest 28 of those that are.
        conn.execute(FILL_KEYS.encode(), filled)
        conn.execute("VACUUM ANALYZE webhook_event_keys")
        heap, index = (one(conn, f"SELECT pg_{part}_size('webhook_event_keys')") for part in ("table", "indexes"))
        print(
            f"keys of {KEY_DAYS} days: {events:,}, table {heap / MEGABYTE:.0f} MB ({heap / events:.0f} bytes each),"
            f" index {index / MEGABYTE:.0f} MB ({index / events:.0f} bytes each),"
            f" made in {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        full = deduplicate(conn, 2 * 10**9, [text] * BATCH)
        print(
            f"deduplicated, applied and logged: {empty:.3f} ms an event with an empty table, {full:.3f} ms with it full"
        )

        days = [today - timedelta(days=back) for back in (20, 19, 18)]
        for day in days:
            conn.execute(
                "SELECT bisonsync_private.make_delivery_partitions(%s::date, %s::date)", [day.date(), day.date()]
            )
            conn.execute(FILL_DAY.encode(), filled | {"day": day})
            conn.execute(f"VACUUM (FREEZE, ANALYZE) {partition(day)}".encode())
        size = megabytes(conn, partition(days[0]))
        print(f"a day of deliveries: {size:.0f} MB, {size * MEGABYTE / daily:.0f} bytes each", flush=True)
        slim(conn, dsn, days[0], by_update)
        slim(conn, dsn, days[1], by_copy)
        lean = megabytes(conn, partition(days[1]))
        print(f"a slim day: {lean:.0f} MB, {lean * MEGABYTE / daily:.0f} bytes each", flush=True)

        seconds, memory, told = bisonsync(env, "rebuild-counters", "--since", f"{now:%Y-%m}", "--diff-only")
        print(f"rebuild-counters --diff-only, this month: {seconds:.1f} s, {memory} MB, {told['counts']}", flush=True)
        seconds, memory, told = bisonsync(env, "prune", "--deadline", "1h")
        counts = {name: count for name, count in told["counts"].items() if count and not name.endswith("_mb")}
        print(f"prune: {seconds:.1f} s, {memory} MB, {counts}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
