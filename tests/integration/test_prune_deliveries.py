"""prune and the inbox: payloads, days and keys go when they are old, what is unsettled stays, nobody has to wait."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from cli import document, environment, run_cli, wait_until
from conftest import database
from inbox_scene import NOW, deliver, event, register
from psycopg.sql import SQL, Identifier, Literal

from bisonsync import embedded
from bisonsync.clock import SystemClock
from bisonsync.jobs import prune
from bisonsync.jobs.prune import deliveries
from bisonsync.run import Result, Run
from bisonsync.settings.models import RETENTION
from bisonsync.store import counters, delivery_retention, inbox, migrations, webhooks
from bisonsync.store.db import Database
from bisonsync.store.inbox import Filter

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]

UNSETTLED = ("pending", "failed", "dead", "unknown_workspace", "mismatch")
SETTLED = ("processed", "duplicate", "ignored", "test")


@dataclass
class Job:
    """The job on its steps as its command runs it; ``after`` hears of progress."""

    dsn: str
    days: Mapping[str, int] = field(default_factory=dict[str, int])
    batch_rows: int = 1000
    dry_run: bool = False
    after: Callable[[str, int], None] = lambda _what, _done: None

    def run(self) -> Result:
        clock = SystemClock()
        database = Database(self.dsn, application_name="bisonsync prune", clock=clock)
        run = Run(
            job="prune",
            run_id=uuid4(),
            started_at=datetime.now(UTC),
            clock=clock,
            deadline=clock.monotonic() + 60,
            db=database,
            bookkeeping=database,
            dry_run=self.dry_run,
            progress=lambda what, done, _: self.after(what, done),
        )
        try:
            return prune.run(run, prune.Policy(RETENTION | dict(self.days), "UTC", self.batch_rows))
        finally:
            database.close()


WAITS_FOR_ADVISORY_LOCK = (
    "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
)


def day(back: int) -> datetime:
    """The beginning of the day (UTC) so many days ago, also when the suite runs across midnight."""
    return datetime.combine(datetime.now(UTC).date(), time(), UTC) - timedelta(days=back)


def name(back: int) -> str:
    return f"webhook_delivery_log_{day(back):%Y_%m_%d}"


def make_day(conn: Connection, *backs: int) -> None:
    for back in backs:
        conn.execute("SELECT bisonsync_private.make_delivery_partitions(%s::date, %s::date)", [day(back), day(back)])


def add(conn: Connection, at: datetime, status: str = "processed", rows: int = 1) -> list[int]:
    """Deliveries as they lie in the log; their ids."""
    return [
        number
        for (number,) in conn.execute(
            "INSERT INTO webhook_delivery_log (received_at, source, status, payload, payload_raw)"
            " SELECT %s, 'sql', %s, '{\"a\": 1}', 'raw' FROM generate_series(1, %s::integer) RETURNING id",
            [at, status, rows],
        ).fetchall()
    ]


def add_key(conn: Connection, at: datetime, key: str) -> None:
    conn.execute(
        "INSERT INTO webhook_event_keys VALUES ('sim', 1, 'email_sent', %s, %s, 1, 1, 'emails_sent')", [key, at]
    )


def partitions_ahead(conn: Connection) -> None:
    make_day(conn, *(-ahead for ahead in range(9)))


def partitions(conn: Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT partition FROM bisonsync_private.delivery_partitions()").fetchall()]


def kept(conn: Connection) -> dict[str, tuple[bool, str]]:
    """Of each status: whether its payloads are there, and where it lies."""
    rows = conn.execute(
        "SELECT status, payload IS NOT NULL AND payload_raw IS NOT NULL, tableoid::regclass::text"
        " FROM webhook_delivery_log"
    ).fetchall()
    return {status: (has_payload, place) for status, has_payload, place in rows}


# Room for what comes


def test_the_next_week_is_made_and_what_came_without_a_place_is_moved(db: str, conn: Connection) -> None:
    add(conn, day(0))
    add(conn, day(20) + timedelta(hours=5), "dead", rows=3)
    planned = Job(db, dry_run=True).run()

    done = Job(db).run()

    wanted = [f"webhook_delivery_log_{day(-ahead):%Y_%m_%d}" for ahead in range(9)]
    assert partitions(conn) == [name(20), *wanted]
    assert sorted(done.details["days_made"]) == sorted(planned.details["days_made"]) == [name(20), *wanted]
    assert conn.execute("SELECT count(*) FROM webhook_delivery_log_default").fetchone() == (0,)
    assert conn.execute(f"SELECT count(*) FROM {name(20)}".encode()).fetchone() == (3,)
    assert Job(db).run().details["days_made"] == []


# Payloads


def test_settled_payloads_go_after_fourteen_days_and_unsettled_ones_stay(db: str, conn: Connection) -> None:
    make_day(conn, 14, 15)
    young = add(conn, day(14) + timedelta(hours=23))
    for status in (*SETTLED, *UNSETTLED):
        add(conn, day(15) + timedelta(hours=1), status)
    before = conn.execute(
        "SELECT to_jsonb(l) - 'payload' - 'payload_raw' FROM webhook_delivery_log AS l ORDER BY id"
    ).fetchall()

    done = Job(db).run()

    assert done.details["days_slimmed"] == {name(15): len(SETTLED)}
    found = conn.execute(
        "SELECT status, payload IS NULL AND payload_raw IS NULL FROM webhook_delivery_log WHERE NOT id = ANY(%s)",
        [young],
    ).fetchall()
    assert dict(found) == {**dict.fromkeys(SETTLED, True), **dict.fromkeys(UNSETTLED, False)}
    after = conn.execute(
        "SELECT to_jsonb(l) - 'payload' - 'payload_raw' FROM webhook_delivery_log AS l ORDER BY id"
    ).fetchall()
    assert after == before
    assert conn.execute("SELECT payload IS NULL FROM webhook_delivery_log WHERE id = ANY(%s)", [young]).fetchall() == [
        (False,)
    ]


def test_a_slim_day_is_the_day_that_it_was(db: str, conn: Connection) -> None:
    make_day(conn, 14, 15)
    add(conn, day(15), rows=50)
    structure = """
        SELECT count(*), bool_and(c.relrowsecurity), string_agg(DISTINCT c.relacl::text, ''),
            (SELECT count(*) FROM pg_index AS i WHERE i.indrelid = to_regclass(%(table)s)),
            (SELECT count(*) FROM pg_index AS i WHERE i.indrelid = to_regclass(%(table)s)
                AND obj_description(i.indexrelid) IS NOT NULL),
            (SELECT string_agg(conname || pg_get_constraintdef(oid), ',' ORDER BY contype, pg_get_constraintdef(oid))
                FROM pg_constraint WHERE conrelid = to_regclass(%(table)s) AND contype <> 'p'),
            (SELECT array_agg((attname, attnotnull, pg_get_expr(adbin, adrelid))::text ORDER BY attnum)
                FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                WHERE attrelid = to_regclass(%(table)s) AND attnum > 0)
        FROM pg_class AS c WHERE c.oid = to_regclass(%(table)s)
    """

    Job(db).run()

    slim, fat = (conn.execute(structure.encode(), {"table": name(back)}).fetchone() for back in (15, 14))
    assert slim == fat and slim is not None and slim[0] == 1
    assert name(15) in partitions(conn)
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(
            "INSERT INTO webhook_delivery_log (id, received_at)"
            " SELECT id, received_at FROM webhook_delivery_log LIMIT 1"
        )
    statements = conn.execute("SELECT bisonsync_private.access_changes('[]')").fetchall()
    assert not [each for (each,) in statements if name(15) in each]


def test_the_space_of_payloads_is_given_back(db: str, conn: Connection) -> None:
    make_day(conn, 15)
    with psycopg.connect(db) as other:
        # While any transaction of the server is older, all rows may have changed just now: few enough to be looked at.
        other.execute("SELECT pg_current_xact_id()")
        add(conn, day(15), rows=900)
        conn.execute(
            "UPDATE webhook_delivery_log SET payload = jsonb_build_object("
            "'text', (SELECT string_agg(md5(n::text || id), '') FROM generate_series(1, 55) AS n))"
        )
        size = "SELECT pg_total_relation_size(%s::regclass)"
        (before,) = conn.execute(size, [name(15)]).fetchone() or (0,)

        done = Job(db).run()

    (after,) = conn.execute(size, [name(15)]).fetchone() or (0,)
    assert after < before / 3
    assert name(15) in done.details["vacuumed"]


def test_a_slim_day_is_not_looked_at_again_until_something_of_it_is_settled(db: str, conn: Connection) -> None:
    make_day(conn, 15)
    add(conn, day(15), "processed")
    (dead,) = add(conn, day(15), "dead")
    add(conn, day(15), "mismatch")
    node = "SELECT pg_relation_filenode(%s::regclass)"
    assert Job(db).run().counts["payloads_removed"] == 1
    first = conn.execute(node, [name(15)]).fetchone()

    again = Job(db).run()
    conn.execute("UPDATE webhook_delivery_log SET status = 'processed' WHERE id = %s", [dead])
    then = Job(db).run()

    assert (again.counts["days_slimmed"], then.details["days_slimmed"]) == (0, {name(15): 1})
    # The few are updated where they are.
    assert conn.execute(node, [name(15)]).fetchone() == first
    assert kept(conn)["processed"][0] is False and kept(conn)["mismatch"][0] is True


def test_what_changes_while_a_day_is_copied_is_not_lost(db: str, conn: Connection) -> None:
    make_day(conn, 15)
    ids = add(conn, day(15), rows=40)
    (dead,) = add(conn, day(15), "dead")
    # The copy stops at the last row until rows that it has read, and that one itself, have been changed.
    conn.execute(
        "CREATE OR REPLACE FUNCTION bisonsync_private.is_settled(status text) RETURNS boolean LANGUAGE plpgsql AS $$"
        " BEGIN IF status = 'dead' THEN PERFORM pg_advisory_lock_shared(77); END IF;"
        " RETURN status <> 'dead'; END $$"
    )
    conn.execute("SELECT pg_advisory_lock(77)")
    with psycopg.connect(db, autocommit=True) as other:
        slim = Thread(target=lambda: other.execute("SELECT bisonsync_private.slim_delivery_partition(%s)", [name(15)]))
        slim.start()
        while not conn.execute(
            "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [other.info.backend_pid]
        ).fetchall():
            assert slim.is_alive()
        try:
            conn.execute("UPDATE webhook_delivery_log SET attempts = 99 WHERE id = %s", [ids[0]])
            conn.execute("UPDATE webhook_delivery_log SET status = 'processed', attempts = 98 WHERE id = %s", [dead])
        finally:
            conn.execute("SELECT pg_advisory_unlock(77)")
            slim.join()

    rows = dict(conn.execute("SELECT id, attempts FROM webhook_delivery_log WHERE attempts > 0").fetchall())
    assert rows == {ids[0]: 99, dead: 98}
    assert conn.execute("SELECT count(*), count(payload) FROM webhook_delivery_log").fetchone() == (41, 0)


def test_a_day_that_somebody_reads_is_told_and_left_to_the_next_run(db: str, conn: Connection) -> None:
    partitions_ahead(conn)
    make_day(conn, 15, 16, 80)
    add(conn, day(15))
    add(conn, day(16))
    make_impatient(conn)
    with psycopg.connect(db, application_name="a long report") as other:
        other.execute("SELECT count(*) FROM webhook_delivery_log")
        waits = Receiving(db)
        blocked = Job(db).run()
        received = waits.end()

    # In the one that is to go there is nothing to remove.
    assert (blocked.exit_code, blocked.details["days_slimmed"], blocked.details["days_dropped"]) == (
        3,
        {name(80): 0},
        [],
    )
    assert [problem.message.partition(":")[0] for problem in blocked.problems] == [name(80), name(16), name(15)]
    assert all("a long report" in problem.message or "lock" in problem.message for problem in blocked.problems)
    assert received > 0
    again = Job(db).run()
    assert (again.exit_code, again.counts["days_slimmed"], again.counts["days_dropped"]) == (0, 2, 1)


class Receiving:
    """Deliveries that come in all along, none of which may wait for long enough to be refused."""

    def __init__(self, dsn: str) -> None:
        self._dsn, self._count, self._ends = dsn, 0, False
        self._errors: list[psycopg.Error] = []
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute("SET lock_timeout = '3s'")
            while not self._ends:
                try:
                    conn.execute("INSERT INTO webhook_delivery_log (source, status) VALUES ('receiver', 'test')")
                except psycopg.Error as error:
                    self._errors.append(error)
                    return
                self._count += 1

    def end(self) -> int:
        self._ends = True
        self._thread.join()
        assert self._errors == []
        return self._count


def make_impatient(conn: Connection) -> None:
    """Let the functions give up after two tries instead of eight, with a shorter pause."""
    for function in ("slim_delivery_partition", "drop_delivery_partition"):
        row = conn.execute("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", [function]).fetchone()
        assert row is not None
        conn.execute(row[0].replace("attempt = 8", "attempt = 2").replace("pg_sleep(0.5)", "pg_sleep(0.01)").encode())


def test_replaying_a_day_waits_for_its_swap_and_stops_nobody(db: str, conn: Connection) -> None:
    register(conn, 1)
    make_day(conn, 15)
    (dead,) = deliver(conn, [{"event": {"type": "EMAIL_SENT", "workspace_id": 1}, "data": 1}], received_at=day(15))
    add(conn, day(15), rows=500)
    make_impatient(conn)
    ends: list[bool] = []

    def replay() -> None:
        with psycopg.connect(db, autocommit=True) as own:
            own.execute("SET lock_timeout = '3s'")
            while not ends:
                assert [o.status for o in webhooks.process(own, [dead.id], [dead.received_at])] in ([], ["dead"])

    replaying = Thread(target=replay)
    replaying.start()
    try:
        for _ in range(5):
            result = Job(db).run()
            assert result.problems == () and result.counts["days_slimmed"] == 1
            conn.execute("DELETE FROM bisonsync_private.slim_deliveries")
            conn.execute("UPDATE webhook_delivery_log SET payload = '{}' WHERE payload IS NULL")
    finally:
        ends.append(True)
        replaying.join()


def test_retrying_and_discarding_wait_for_the_swap_as_well(db: str, conn: Connection) -> None:
    make_day(conn, 15)
    add(conn, day(15), "dead", rows=2)
    key = "hashtextextended('webhook_delivery_log days', 0)"
    with psycopg.connect(db) as swap:
        swap.execute(f"SELECT pg_advisory_xact_lock({key})".encode())
        conn.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            inbox.requeue(conn, Filter(), after_id=0, limit=1)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            inbox.discard(conn, Filter(statuses=("dead",)), reason="x", after_id=0, limit=1)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            webhooks.process(conn, [1], [day(15)])


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO webhook_delivery_log (received_at) SELECT received_at FROM webhook_delivery_log LIMIT 1",
        "DELETE FROM webhook_delivery_log WHERE id = (SELECT min(id) FROM webhook_delivery_log)",
    ],
)
def test_a_day_to_which_rows_come_or_from_which_they_go_is_copied_again(db: str, conn: Connection, change: str) -> None:
    make_day(conn, 15)
    add(conn, day(15), rows=40)
    add(conn, day(15), "dead")
    # The copy waits at its last row until the change is done.
    conn.execute(
        "CREATE OR REPLACE FUNCTION bisonsync_private.is_settled(status text) RETURNS boolean LANGUAGE plpgsql AS $$"
        " BEGIN IF status = 'dead' THEN PERFORM pg_advisory_lock_shared(77); END IF;"
        " RETURN status <> 'dead'; END $$"
    )
    conn.execute("SELECT pg_advisory_lock(77)")
    before = set(conn.execute("SELECT id FROM webhook_delivery_log").fetchall())
    told: list[Result] = []
    slimming = Thread(target=lambda: told.append(Job(db).run()))
    slimming.start()
    while not conn.execute(WAITS_FOR_ADVISORY_LOCK).fetchall():
        assert slimming.is_alive()
    try:
        conn.execute(change.encode())
        after = set(conn.execute("SELECT id FROM webhook_delivery_log").fetchall())
    finally:
        conn.execute("SELECT pg_advisory_unlock(77)")
        slimming.join()

    assert set(conn.execute("SELECT id FROM webhook_delivery_log").fetchall()) == after != before
    assert conn.execute("SELECT count(payload) FROM webhook_delivery_log").fetchone() == (1,)
    assert (told[0].exit_code, told[0].counts["days_slimmed"]) == (0, 1)


def test_nothing_of_a_slim_day_is_lost_in_a_crash(session_folder: Path) -> None:
    """What is unlogged is emptied by a crash: the copy must be no such table any more."""
    place = Path(tempfile.mkdtemp(prefix="crash", dir=session_folder)) / "postgres"
    place.parent.chmod(0o755)
    dsn = embedded.start(place, server_options={"fsync": "off"})
    try:
        with psycopg.connect(dsn, autocommit=True) as conn:
            migrations.apply_all(conn)
            make_day(conn, 15)
            add(conn, day(15), rows=40)
        assert Job(dsn).run().details["days_slimmed"] == {name(15): 40}

        os.kill(embedded.status(place).pid or 0, signal.SIGKILL)
        wait_until(lambda: embedded.status(place).state == "stopped", "the server is dead")

        with psycopg.connect(embedded.start(place), autocommit=True) as conn:
            assert conn.execute(f"SELECT count(*), count(payload) FROM {name(15)}".encode()).fetchone() == (40, 0)
            # By its indexes as well.
            conn.execute("SET enable_seqscan = off")
            assert conn.execute("SELECT count(*) FROM webhook_delivery_log WHERE id > 0").fetchone() == (40,)
    finally:
        embedded.stop(place)
        shutil.rmtree(place.parent)


# Whoever subscribes


@pytest.fixture
def subscriber(server: Connection, server_dsn: str, template: str, db: str, conn: Connection) -> Iterator[Connection]:
    """Another database that receives every change of every table of ``db``."""
    if server.execute("SHOW wal_level").fetchone() != ("logical",):
        pytest.skip("needs wal_level = logical")
    slot = conn.info.dbname
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)")
    conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    with database(server, server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True) as other:
        other.execute(
            SQL(
                "CREATE SUBSCRIPTION {0} CONNECTION {1} PUBLICATION everything"
                " WITH (create_slot = false, slot_name = {0}, copy_data = false)"
            ).format(Identifier(slot), Literal(db))
        )
        try:
            yield other
        finally:
            other.execute(SQL("ALTER SUBSCRIPTION {} DISABLE").format(Identifier(slot)))
            other.execute(SQL("ALTER SUBSCRIPTION {} SET (slot_name = NONE)").format(Identifier(slot)))
            other.execute(SQL("DROP SUBSCRIPTION {}").format(Identifier(slot)))
            wait_until(
                lambda: (
                    server.execute(
                        "SELECT FROM pg_replication_slots WHERE slot_name = %s AND NOT active", [slot]
                    ).fetchone()
                    is not None
                ),
                "the slot is free",
            )
            server.execute("SELECT pg_drop_replication_slot(%s)", [slot])


def has_all(subscriber: Connection, conn: Connection) -> bool:
    """Whether it has every delivery as it is but for payloads; that of days that were dropped it may keep."""
    rows = "SELECT id, received_at, status, attempts FROM webhook_delivery_log"
    return set(conn.execute(rows).fetchall()) <= set(subscriber.execute(rows).fetchall())


@pytest.mark.superuser
def test_a_subscriber_of_everything_follows_all_that_prune_does(
    db: str, conn: Connection, subscriber: Connection
) -> None:
    make_day(conn, 15, 100)
    add(conn, day(15), rows=40)
    (changed,) = add(conn, day(15), "dead")
    add(conn, day(100), "dead")
    add(conn, day(20), "dead")
    wait_until(lambda: has_all(subscriber, conn), "the subscriber has what there is")
    # While the day is copied one delivery is settled.
    conn.execute(
        "CREATE OR REPLACE FUNCTION bisonsync_private.is_settled(status text) RETURNS boolean LANGUAGE plpgsql AS $$"
        " BEGIN IF status = 'dead' THEN PERFORM pg_advisory_lock_shared(77); END IF;"
        " RETURN status <> 'dead'; END $$"
    )
    conn.execute("SELECT pg_advisory_lock(77)")
    pruning = Thread(target=Job(db).run)
    pruning.start()
    while not conn.execute(WAITS_FOR_ADVISORY_LOCK).fetchall():
        assert pruning.is_alive()
    conn.execute("UPDATE webhook_delivery_log SET status = 'processed', attempts = 9 WHERE id = %s", [changed])
    conn.execute("SELECT pg_advisory_unlock(77)")
    pruning.join()

    (last,) = add(conn, day(0))

    def is_told() -> bool:
        return subscriber.execute("SELECT FROM webhook_delivery_log WHERE id = %s", [last]).fetchone() is not None

    assert partitions(conn)[:2] == [name(20), name(15)] and name(100) not in partitions(conn)
    wait_until(is_told, "the subscriber goes on")
    assert has_all(subscriber, conn)


# Whoever stands on a day


def test_a_view_on_a_day_keeps_the_day_and_nothing_else(db: str, conn: Connection) -> None:
    make_day(conn, 15, 16, 80, 81)
    for back in (15, 16, 80, 81):
        add(conn, day(back), rows=3)
    for back in (16, 81):
        conn.execute(f"CREATE VIEW report_{back} AS SELECT id FROM {name(back)}".encode())

    planned = Job(db, dry_run=True).run()
    done = Job(db).run()

    assert [(problem.kind, problem.message) for problem in done.problems] == [
        ("dependents", f"{name(81)} is past its retention and stays: view public.report_81 stands on it")
    ]
    assert (planned.problems, planned.exit_code) == (done.problems, 3)
    assert done.details["days_dropped"] == planned.details["days_dropped"] == [name(80)]
    assert conn.execute("SELECT count(payload) FROM webhook_delivery_log").fetchone() == (0,)
    assert done.details["days_slimmed"] == {name(81): 3, name(16): 3, name(15): 3}
    assert f"view public.report_16 stands on {name(16)}: the space of its payloads is not given back" in done.summary
    assert conn.execute("SELECT count(*) FROM report_16").fetchone() == (3,)


def test_what_else_stands_on_a_day_is_named_as_well(db: str, conn: Connection) -> None:
    make_day(conn, 80)
    conn.execute(f"CREATE TABLE other (one {name(80)})".encode())

    done = Job(db).run()

    (problem,) = done.problems
    assert problem.message.startswith(f"{name(80)}: ") and "column one of table public.other depends" in problem.message


@pytest.mark.parametrize("back", [0, 1, -3])
def test_a_day_that_is_not_over_is_never_slimmed(back: int, conn: Connection) -> None:
    make_day(conn, back)

    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is over"):
        delivery_retention.slim_day(conn, name(back))


# Days


def test_days_go_after_seventy_days_and_what_is_unsettled_is_kept_and_said(db: str, conn: Connection) -> None:
    make_day(conn, 69, 70, 71)
    for back in (69, 70, 71):
        add(conn, day(back) + timedelta(hours=12), "processed", rows=3)
    add(conn, day(71) + timedelta(hours=1), "dead")
    add(conn, day(71) + timedelta(hours=2), "unknown_workspace", rows=2)
    planned = Job(db, dry_run=True).run()

    done = Job(db).run()

    assert done.details["days_dropped"] == planned.details["days_dropped"] == [name(71)]
    assert [each for each in partitions(conn) if each < name(60)] == [name(70), name(69)]
    assert "3 unsettled deliveries older than 70 days are kept (2 unknown_workspace, 1 dead)" in done.details["notes"]
    assert done.details["notes"] == planned.details["notes"]
    assert kept(conn)["dead"] == (True, "webhook_delivery_log_default")
    assert Job(db).run().details["days_dropped"] == []


def test_a_day_with_too_much_that_is_unsettled_stays_whole(
    db: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_MOVED", 5)
    make_day(conn, 71, 72)
    add(conn, day(71), "unknown_workspace", rows=6)
    add(conn, day(72), "unknown_workspace", rows=5)

    done = Job(db).run()

    assert done.details["days_dropped"] == [name(72)]
    assert conn.execute(f"SELECT count(*) FROM {name(71)}".encode()).fetchone() == (6,)


def test_settled_deliveries_of_old_days_without_a_partition_go_in_batches(db: str, conn: Connection) -> None:
    add(conn, day(80), "processed", rows=25)
    (dead,) = add(conn, day(80), "dead")
    seen: list[int] = []

    done = Job(db, batch_rows=10, after=lambda what, n: seen.append(n) if what.endswith("delivery_log") else None).run()

    assert (done.counts["webhook_delivery_log"], seen) == (25, [10, 20, 25])
    assert conn.execute("SELECT id FROM webhook_delivery_log").fetchall() == [(dead,)]


def test_the_database_itself_keeps_the_last_seventy_days(conn: Connection) -> None:
    make_day(conn, 75)

    for before, wrong in ((NOW - timedelta(days=69), "are needed"), (NOW - timedelta(days=76), "no day")):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=wrong):
            delivery_retention.drop_day(conn, name(75), before, 10)


# Keys


@pytest.mark.parametrize("batch_rows", [10, 100_000])
def test_keys_go_a_day_after_their_events_are_too_old(batch_rows: int, db: str, conn: Connection) -> None:
    old, young = NOW - timedelta(days=71, hours=1), NOW - timedelta(days=70, hours=23)
    for number in range(300):
        add_key(conn, old, f"old:{number}")
        add_key(conn, young, f"young:{number}")
    planned = Job(db, dry_run=True).run()

    done = Job(db, batch_rows=batch_rows).run()

    assert done.counts["webhook_event_keys"] == planned.counts["webhook_event_keys"] == 300
    assert conn.execute("SELECT DISTINCT split_part(dedup_key, ':', 1) FROM webhook_event_keys").fetchall() == [
        ("young",)
    ]


def test_an_event_whose_key_is_gone_does_not_count_again(db: str, conn: Connection) -> None:
    register(conn, 1)
    deliver(conn, [event(1, at=NOW - timedelta(days=69))])
    # Two and a half days later.
    conn.execute("UPDATE webhook_event_keys SET occurred_at = occurred_at - interval '60 hours'")
    Job(db).run()
    assert conn.execute("SELECT count(*) FROM webhook_event_keys").fetchone() == (0,)

    (again,) = deliver(conn, [event(1, at=NOW - timedelta(days=69) - timedelta(hours=60))])

    assert (again.status, again.error_message) == ("ignored", "too old: more than 70 days ago")


def test_months_whose_keys_went_are_closed_from_then_on(db: str, conn: Connection) -> None:
    add_key(conn, NOW - timedelta(days=200), "old:1")
    assert counters.list_months(conn, retention_days=3000).first_open < day(199).date()

    Job(db, days={"webhook_event_keys": 100}).run()

    first = counters.list_months(conn, retention_days=3000).first_open
    pruned = NOW - timedelta(days=101)
    assert (first - timedelta(days=1)).replace(day=1) == pruned.date().replace(day=1)


@pytest.mark.parametrize(("days", "code"), [(69, 8), (70, 0)])
def test_less_than_seventy_days_of_keys_are_refused(days: int, code: int, db: str, conn: Connection) -> None:
    make_day(conn, 15, 80)
    add(conn, day(15))
    add_key(conn, NOW - timedelta(days=100), "old:1")

    done = Job(db, days={"webhook_event_keys": days}).run()

    assert done.exit_code == code
    assert (name(80) in partitions(conn), done.counts["payloads_removed"]) == (code == 8, 1)
    assert conn.execute("SELECT count(*) FROM webhook_event_keys").fetchone() == (1 if code else 0,)


def test_the_command_tells_what_became_of_the_inbox(db: str, conn: Connection) -> None:
    make_day(conn, 15, 80)
    add(conn, day(15), rows=4)
    add_key(conn, NOW - timedelta(days=100), "old:1")

    planned = run_cli(["prune", "--dry-run"], environment(db))
    done = run_cli(["prune", "--json"], environment(db))

    said = (
        "removed 4 payloads of 1 day of webhook_delivery_log;"
        f" dropped 1 day of webhook_delivery_log, the last {day(80):%Y_%m_%d}"
    )
    assert (planned.returncode, done.returncode) == (0, 0)
    assert said in planned.stdout and "made 9 days of webhook_delivery_log" in planned.stdout
    counts = document(done)["counts"]
    assert {key: counts[key] for key in ("days_made", "days_slimmed", "days_dropped", "payloads_removed")} == {
        "days_made": 9,
        "days_slimmed": 1,
        "days_dropped": 1,
        "payloads_removed": 4,
    }
    assert document(done)["removed"]["webhook_event_keys"] == 1
