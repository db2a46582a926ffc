"""rebuild-counters: the counters are the fold of the log, also while it grows; what cannot be folded stays as it is."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import psycopg
import pytest
from cli import document, environment, run_cli, wait_until
from inbox_scene import NOW, THIS_MONTH, deliver, event, months_ago, register

from bisonsync.store import counters

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]
KINDS = {
    "EMAIL_SENT": "emails_sent",
    "LEAD_REPLIED": "replies",
    "LEAD_INTERESTED": "interested",
    "EMAIL_BOUNCED": "bounced",
    "LEAD_UNSUBSCRIBED": "unsubscribed",
}


def differences(conn: Connection) -> list[tuple[int, date, str, int, int]]:
    months = counters.list_months(conn, retention_days=70)
    found = counters.list_differences(conn, None, months.first_open, None)
    return [(d.bison_workspace_id, d.metric_month, d.counter, d.stored, d.folded) for d in found]


def spoil(conn: Connection, counter: str = "emails_sent_webhook", workspace: int = 1, month: date = THIS_MONTH) -> None:
    conn.execute(
        f"UPDATE client_metrics SET {counter} = {counter} + 5"
        " WHERE bison_workspace_id = %s AND metric_month = %s".encode(),
        [workspace, month],
    )


def metrics(conn: Connection) -> list[tuple[Any, ...]]:
    return conn.execute("SELECT to_jsonb(m) - 'updated_at' FROM client_metrics AS m ORDER BY m.*::text").fetchall()


def waits(conn: Connection, pid: int) -> bool:
    return bool(conn.execute("SELECT FROM pg_locks WHERE NOT granted AND pid = %s", [pid]).fetchall())


def month_begin(month: date) -> datetime:
    return datetime.combine(month, time(), UTC)


@pytest.fixture
def counted(conn: Connection) -> Connection:
    """Three events of each counted type in each of two workspaces, and some that count nowhere."""
    register(conn, 1, 2)
    deliver(conn, [event(n, workspace=w, kind=kind) for w in (1, 2) for kind in KINDS for n in range(3)])
    deliver(conn, [event(n, kind=kind) for kind in ("EMAIL_OPENED", "SOMETHING_NEW") for n in range(2)])
    return conn


def test_counters_that_were_never_touched_are_the_fold(db: str, counted: Connection) -> None:
    done = run_cli(["rebuild-counters", "--diff-only", "--json"], environment(db))

    assert done.returncode == 0, done.stderr
    assert document(done)["counts"] == {"differences": 0, "repaired": 0}


@pytest.mark.parametrize(
    "counter", [*(f"{c}_{part}" for c in KINDS.values() for part in ("webhook", "after")), "unique_replies_webhook"]
)
def test_every_counter_is_looked_at_and_set_right(counter: str, counted: Connection) -> None:
    before = metrics(counted)
    spoil(counted, counter, workspace=2)
    (difference,) = differences(counted)

    repaired = counters.repair(counted, "sim", 2, THIS_MONTH)

    assert difference[:3] == (2, THIS_MONTH, counter) and difference[3] - difference[4] == 5
    assert [(d.counter, d.stored - d.folded) for d in repaired] == [(counter, 5)]
    assert metrics(counted) == before
    assert differences(counted) == []


def test_the_proof_names_every_difference_and_writes_nothing(db: str, counted: Connection) -> None:
    spoil(counted)
    spoil(counted, "replies_webhook", workspace=2)
    before = metrics(counted)

    done = run_cli(["rebuild-counters", "--diff-only", "--json"], environment(db))

    told = document(done)
    assert (done.returncode, told["verdict"]) == (9, "differences")
    assert [(d["bison_workspace_id"], d["counter"], d["stored"], d["folded"]) for d in told["differences"]] == [
        (1, "emails_sent_webhook", 8, 3),
        (2, "replies_webhook", 8, 3),
    ]
    assert [(e["workspace"], "by the log 3" in e["message"]) for e in told["errors"]] == [
        ("sim/1", True),
        ("sim/2", True),
    ]
    assert metrics(counted) == before
    assert counted.execute("SELECT count(*) FROM email_sync_logs").fetchone() == (0,)


def test_the_command_sets_right_what_differs_and_says_what(db: str, counted: Connection) -> None:
    before = metrics(counted)
    spoil(counted)
    counted.execute("DELETE FROM client_metrics WHERE bison_workspace_id = 2")

    planned = run_cli(["rebuild-counters", "--dry-run"], environment(db))
    done = run_cli(["rebuild-counters"], environment(db))

    assert (planned.returncode, done.returncode, done.stderr) == (0, 0, "")
    assert "dry run, nothing written" in planned.stdout and "6 counters are set right" in planned.stdout
    assert f"sim/1 {THIS_MONTH:%Y-%m}: emails_sent_webhook is 8 and by the log 3" in done.stdout
    assert metrics(counted) == before
    assert counted.execute("SELECT job, status, counts ->> 'repaired' FROM email_sync_logs").fetchall() == [
        ("rebuild-counters", "success", "6")
    ]


def test_one_workspace_can_be_chosen(db: str, counted: Connection) -> None:
    spoil(counted)
    spoil(counted, workspace=2)

    done = run_cli(["rebuild-counters", "-w", "2"], environment(db))

    assert done.returncode == 0, done.stderr
    assert [found[0] for found in differences(counted)] == [1]


def test_the_part_after_the_poll_is_folded_by_its_moment(conn: Connection) -> None:
    register(conn, 1)
    moments = [NOW - timedelta(seconds=seconds) for seconds in (3, 2, 1)]
    deliver(conn, [event(n, at=at) for n, at in enumerate(moments)])
    # A poll as of the second of them: what happened at that moment is in its figure.
    conn.execute("UPDATE client_metrics SET as_of = %s, emails_sent_polled = 100", [moments[1]])

    month = moments[1].date().replace(day=1)
    repaired = counters.repair(conn, "sim", 1, month)

    assert [(d.counter, d.folded) for d in repaired] == [("emails_sent_after", 1)]
    assert conn.execute("SELECT emails_sent_mtd FROM client_metrics WHERE metric_month = %s", [month]).fetchone() == (
        101,
    )


def test_a_month_begins_in_the_reporting_zone(conn: Connection) -> None:
    register(conn, 1)
    conn.execute("UPDATE bisonsync_private.webhook_settings SET reporting_timezone = 'Pacific/Auckland'")
    begin = month_begin(THIS_MONTH)
    # In Auckland the month has begun 11 to 13 hours ago when it begins in UTC, and neither hour is a change of clocks.
    deliver(conn, [event(1, at=begin - timedelta(hours=10)), event(2, at=begin - timedelta(hours=14))])

    assert differences(conn) == []
    assert conn.execute("SELECT metric_month, emails_sent_webhook FROM client_metrics ORDER BY 1").fetchall() == [
        (months_ago(1), 1),
        (THIS_MONTH, 1),
    ]
    conn.execute("UPDATE bisonsync_private.webhook_settings SET reporting_timezone = 'UTC'")
    assert differences(conn) == [
        (1, months_ago(1), "emails_sent_webhook", 1, 2),
        (1, THIS_MONTH, "emails_sent_webhook", 1, 0),
    ]


def test_no_difference_is_ever_seen_beside_a_running_receiver(db: str, conn: Connection) -> None:
    register(conn, 1, 2)
    done = threading.Event()
    delivered: list[int] = []

    def receive() -> None:
        with psycopg.connect(db, autocommit=True) as own:
            number = 0
            while not done.is_set():
                number += 10
                deliver(own, [event(n, workspace=1 + n % 2, kind="LEAD_REPLIED") for n in range(number, number + 10)])
                delivered.append(number)

    receiver = threading.Thread(target=receive)
    receiver.start()
    try:
        looks = 0
        while looks < 40 or len(delivered) < 20:
            assert differences(conn) == []
            looks += 1
            # Repairing what is right changes nothing, and loses nothing that comes meanwhile.
            with conn.transaction():
                assert counters.repair(conn, "sim", 1, NOW.date().replace(day=1)) == []
    finally:
        done.set()
        receiver.join()
    assert differences(conn) == []
    assert conn.execute("SELECT sum(replies_webhook) FROM client_metrics").fetchone() == (10 * len(delivered),)


def test_a_repair_sees_what_the_receiver_that_it_waited_for_has_counted(db: str, counted: Connection) -> None:
    spoil(counted)
    with psycopg.connect(db) as receiver, psycopg.connect(db, autocommit=True) as other:
        receiver.execute("SELECT 1")
        deliver(receiver, [event(100)])
        repaired: list[Any] = []
        repair = threading.Thread(target=lambda: repaired.extend(counters.repair(other, "sim", 1, THIS_MONTH)))
        repair.start()
        wait_until(lambda: waits(counted, other.info.backend_pid), "the repair waits for the receiver")
        receiver.commit()
        repair.join()

    assert [(d.stored, d.folded) for d in repaired] == [(9, 4)]
    assert differences(counted) == []


def test_nobody_counts_between_the_fold_and_the_repair(db: str, counted: Connection) -> None:
    spoil(counted)
    counted.execute("ALTER FUNCTION bisonsync_private.compare_counters RENAME TO compare_at_once")
    counted.execute(
        "CREATE FUNCTION bisonsync_private.compare_counters(text[], bigint[], date, date) RETURNS TABLE (bison_instance"
        " text, bison_workspace_id bigint, metric_month date, counter text, stored bigint, folded bigint)"
        " LANGUAGE plpgsql AS $$ BEGIN"
        " RETURN QUERY SELECT * FROM bisonsync_private.compare_at_once($1, $2, $3, $4);"
        " PERFORM pg_advisory_lock_shared(77); END $$"
    )
    counted.execute("SELECT pg_advisory_lock(77)")
    with psycopg.connect(db, autocommit=True) as receiver, psycopg.connect(db, autocommit=True) as other:
        repair = threading.Thread(target=lambda: counters.repair(other, "sim", 1, THIS_MONTH))
        repair.start()
        wait_until(lambda: waits(counted, other.info.backend_pid), "the repair has folded")
        receiver.execute("SET lock_timeout = '100ms'")
        try:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                deliver(receiver, [event(100)])
        finally:
            counted.execute("SELECT pg_advisory_unlock(77)")
            repair.join()
        deliver(receiver, [event(100)])

    assert differences(counted) == []


# What cannot be folded


@pytest.fixture
def with_old_month(counted: Connection) -> date:
    """A month whose keys are gone, but for one of its last day."""
    old = months_ago(4)
    counted.execute(
        "INSERT INTO client_metrics (bison_instance, bison_workspace_id, metric_month, emails_sent_webhook)"
        " VALUES ('sim', 1, %s, 1000)",
        [old],
    )
    counted.execute(
        "INSERT INTO webhook_event_keys VALUES ('sim', 1, 'email_sent', 'x:1', %s, 1, 1, 'emails_sent')",
        [month_begin(months_ago(3)) - timedelta(days=1)],
    )
    return old


def test_a_closed_month_is_left_alone_and_told(db: str, counted: Connection, with_old_month: date) -> None:
    spoil(counted)

    compared = run_cli(["rebuild-counters", "--diff-only", "--json"], environment(db))
    done = run_cli(["rebuild-counters"], environment(db))

    assert [d["metric_month"] for d in document(compared)["differences"]] == [str(THIS_MONTH)]
    assert (done.returncode, f"closed, left as they are: {with_old_month:%Y-%m}" in done.stdout) == (0, True)
    assert counted.execute(
        "SELECT emails_sent_webhook FROM client_metrics WHERE metric_month = %s", [with_old_month]
    ).fetchone() == (1000,)


@pytest.mark.parametrize("diff", [["--diff-only"], []], ids=["proof", "rebuild"])
def test_a_closed_month_that_is_asked_for_is_refused_and_the_open_ones_go_on(
    diff: list[str], db: str, counted: Connection, with_old_month: date
) -> None:
    spoil(counted)
    before = metrics(counted)

    only = run_cli(
        ["rebuild-counters", *diff, "--since", f"{with_old_month:%Y-%m}", "--until", f"{with_old_month:%Y-%m}"],
        environment(db),
    )
    assert (only.returncode, metrics(counted)) == (8, before)
    assert f"{with_old_month:%Y-%m}: refused" in only.stderr and "nothing to look at" in only.stdout

    both = run_cli(["rebuild-counters", *diff, "--since", f"{with_old_month:%Y-%m-%d}"], environment(db))
    assert both.returncode == 8
    assert (differences(counted) == []) is (not diff)
    assert counted.execute(
        "SELECT emails_sent_webhook FROM client_metrics WHERE metric_month = %s", [with_old_month]
    ).fetchone() == (1000,)


def test_what_was_pruned_stays_closed_when_the_retention_grows(
    db: str, counted: Connection, with_old_month: date
) -> None:
    counted.execute(
        "UPDATE bisonsync_private.webhook_settings SET keys_pruned_before = %s", [month_begin(months_ago(3))]
    )

    done = run_cli(
        ["rebuild-counters", "--diff-only", "--json"], environment(db, BISONSYNC_RETENTION__WEBHOOK_EVENT_KEYS="400")
    )

    assert (done.returncode, document(done)["first_month"]) == (0, str(months_ago(3)))
    # Not even where a host with other settings asks for it.
    assert counters.list_differences(counted, None, with_old_month, None) == []
    assert counters.repair(counted, "sim", 1, with_old_month) == []


@pytest.mark.parametrize(
    ("now", "zone", "first"),
    [
        ("2026-03-12T00:00:00Z", "UTC", date(2026, 1, 1)),
        ("2026-03-12T00:00:01Z", "UTC", date(2026, 2, 1)),
        ("2026-03-12T00:00:01Z", "America/New_York", date(2026, 1, 1)),
        ("2026-03-12T00:00:01Z", "Asia/Tokyo", date(2026, 2, 1)),
        ("2026-03-11T15:00:00Z", "Asia/Tokyo", date(2026, 1, 1)),
    ],
)
def test_a_month_closes_when_its_first_moment_is_seventy_days_ago(
    now: str, zone: str, first: date, conn: Connection
) -> None:
    conn.execute("UPDATE bisonsync_private.webhook_settings SET reporting_timezone = %s", [zone])

    months = counters.list_months(conn, retention_days=70, now=datetime.fromisoformat(now))

    assert months.first_open == first


def test_wrong_months_are_wrong_usage(db: str) -> None:
    for wrong in (["--since", "October"], ["--since", "2026-11", "--until", "2026-10"], ["--until", "2026-13"]):
        assert run_cli(["rebuild-counters", *wrong], environment(db)).returncode == 2
