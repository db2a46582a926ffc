"""The schema itself: what the tables hold, and what the views and functions say of it."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.sql import SQL, Identifier

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]


def register(conn: Connection, workspace_id: int, name: str, *, is_active: bool = True) -> None:
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name, is_active)"
        " VALUES ('a', %s, %s, %s)",
        [workspace_id, name, is_active],
    )


def read(
    conn: Connection,
    workspace_id: int,
    *,
    complete_seconds_ago: float | None = 0,
    verdict: str = "complete",
    interval_seconds: int = 180,
    resource: str = "accounts",
) -> None:
    conn.execute(
        "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_attempt_at,"
        " last_complete_at, verdict, interval_seconds, total, distinct_ids)"
        " VALUES ('a', %s, %s, now(), now() - make_interval(secs => %s), %s, %s, 3, 2)",
        [workspace_id, resource, complete_seconds_ago, verdict, interval_seconds],
    )


def account(conn: Connection, account_id: int, workspace_id: int = 1, **values: object) -> None:
    row = {
        "bison_instance": "a",
        "bison_workspace_id": workspace_id,
        "bison_account_id": account_id,
        "email_address": f"sender{account_id}@example.com",
        **values,
    }
    conn.execute(
        SQL("INSERT INTO sender_emails_cache ({}) VALUES ({})").format(
            SQL(", ").join(map(Identifier, row)), SQL(", ").join(SQL("%s") for _ in row)
        ),
        list(row.values()),
    )


def one(conn: Connection, query: str) -> dict[str, Any]:
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        (row,) = cursor.execute(query.encode()).fetchall()
    return row


def test_f06_the_same_mailbox_in_two_workspaces_is_two_rows(conn: Connection) -> None:
    account(conn, 7, workspace_id=1, email_address="same@example.com")
    account(conn, 7, workspace_id=2, email_address="same@example.com")

    assert conn.execute("SELECT count(*) FROM sender_emails_cache").fetchone() == (2,)
    with pytest.raises(pg.UniqueViolation):
        account(conn, 7, workspace_id=1)


def test_f07_an_address_may_stand_twice_in_one_workspace(conn: Connection) -> None:
    account(conn, 7, email_address="same@example.com")
    account(conn, 8, email_address="same@example.com")

    assert conn.execute("SELECT count(*) FROM sender_emails_cache").fetchone() == (2,)


@pytest.mark.parametrize(
    ("sent", "unique_replies", "rate"),
    [(1, 15, "1500.00"), (0, 5, "0"), (3, 1, "33.33"), (10**12, 10**12, "100.00"), (1, 10**12, "100000000000000.00")],
)
def test_f10_any_reply_rate_stores(conn: Connection, sent: int, unique_replies: int, rate: str) -> None:
    account(conn, 7, emails_sent_count=sent, unique_replied_count=unique_replies, total_replied_count=10**12)

    row = one(conn, "SELECT reply_rate_percentage::text AS rate, emails_sent_count AS sent FROM sender_emails_cache")

    assert row == {"rate": rate, "sent": sent}


@pytest.mark.parametrize(
    ("status", "is_connected"),
    [
        ("Connected", True),
        (" CONNECTED ", True),
        ("Not connected", False),
        ("a new word", False),
        ("", False),
        (None, False),
    ],
)
def test_connected_is_read_in_any_case(conn: Connection, status: str | None, is_connected: bool) -> None:
    account(conn, 7, status=status)

    assert conn.execute("SELECT is_connected, status FROM sender_emails_cache").fetchone() == (is_connected, status)


def test_last_synced_at_is_updated_at(conn: Connection) -> None:
    account(conn, 7, updated_at="2026-01-02T03:04:05Z")

    assert conn.execute("SELECT last_synced_at = updated_at FROM sender_emails_cache").fetchone() == (True,)


def test_the_same_open_fault_is_one_entry(conn: Connection) -> None:
    insert = (
        "INSERT INTO data_validation_errors"
        " (source, bison_instance, bison_workspace_id, record_id, field, error_type, row_hash)"
        " VALUES ('poll-accounts', 'a', %s, %s, 'email', 'missing', 'h') ON CONFLICT"
        " (source, bison_instance, bison_workspace_id, coalesce(record_id, ''), field, error_type, row_hash)"
        " WHERE resolved_at IS NULL DO NOTHING"
    )
    for workspace_id, record_id in [(1, "7"), (1, "7"), (None, None), (None, None), (1, None)]:
        conn.execute(insert, [workspace_id, record_id])
    assert conn.execute("SELECT count(*) FROM data_validation_errors").fetchone() == (3,)

    conn.execute("UPDATE data_validation_errors SET resolved_at = now()")
    conn.execute(insert, [1, "7"])

    assert conn.execute("SELECT count(*) FROM data_validation_errors").fetchone() == (4,)


def test_no_index_stands_on_what_a_poll_changes(conn: Connection) -> None:
    indexed = {
        name
        for (name,) in conn.execute(
            "SELECT a.attname FROM pg_index AS i"
            " INNER JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
            " WHERE i.indrelid = 'sender_emails_cache'::regclass"
        )
    }

    assert indexed == {"id", "bison_instance", "bison_workspace_id", "bison_account_id"}


def test_every_object_has_a_comment(conn: Connection) -> None:
    silent = conn.execute(
        """
        WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('public', 'bisonsync_private'))
        SELECT c.oid::regclass::text FROM pg_class AS c INNER JOIN ours AS n ON n.oid = c.relnamespace
        WHERE coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type')) IS NULL
        UNION ALL
        SELECT c.oid::regclass || '.' || a.attname
        FROM pg_class AS c INNER JOIN ours AS n ON n.oid = c.relnamespace
        INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p', 'v', 'm') AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL
        SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN ours AS n ON n.oid = p.pronamespace
        WHERE obj_description(p.oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT n.nspname FROM ours AS n WHERE obj_description(n.oid, 'pg_namespace') IS NULL
        """
    ).fetchall()

    assert silent == []


def test_no_extension_is_needed(conn: Connection) -> None:
    assert conn.execute("SELECT extname FROM pg_extension").fetchall() == [("plpgsql",)]


def test_every_time_has_a_zone(conn: Connection) -> None:
    naive = conn.execute(
        "SELECT attrelid::regclass, attname FROM pg_attribute INNER JOIN pg_class AS c ON c.oid = attrelid"
        " WHERE c.relnamespace IN ('public'::regnamespace, 'bisonsync_private'::regnamespace)"
        " AND atttypid IN ('timestamp'::regtype, 'time'::regtype)"
    ).fetchall()

    assert naive == []


@pytest.mark.parametrize(
    ("seconds_ago", "state"),
    [
        (0, "fresh"),
        (600, "fresh"),
        (601, "stale"),
        (1200, "stale"),
        (1201, "very_stale"),
        (10**7, "very_stale"),
        (None, "never"),
    ],
)
def test_f11_freshness_is_measured_against_half_open_intervals(
    conn: Connection, seconds_ago: float | None, state: str
) -> None:
    register(conn, 1, "One")
    with conn.transaction():
        read(conn, 1, complete_seconds_ago=seconds_ago, interval_seconds=600)
        row = one(
            conn, "SELECT state, age_seconds, interval_seconds, as_of = last_complete_at AS same FROM data_freshness"
        )

    assert (row["state"], row["age_seconds"], row["interval_seconds"]) == (state, seconds_ago, 600)


def test_a_time_far_ahead_of_the_clock_is_not_fresh(conn: Connection) -> None:
    register(conn, 1, "One")
    read(conn, 1, complete_seconds_ago=-3600)

    assert one(conn, "SELECT state FROM data_freshness") == {"state": "very_stale"}


def test_a_workspace_never_read_is_there_and_says_never(conn: Connection) -> None:
    register(conn, 1, "One")

    row = one(conn, "SELECT * FROM data_freshness")

    assert (row["workspace_name"], row["resource"], row["state"]) == ("One", "accounts", "never")
    assert (row["is_complete"], row["as_of"], row["age"]) == (False, None, None)


@pytest.mark.parametrize("verdict", ["incomplete", "guarded", "failed", "skipped"])
def test_only_a_complete_read_is_complete(conn: Connection, verdict: str) -> None:
    register(conn, 1, "One")
    read(conn, 1, verdict=verdict)

    assert one(conn, "SELECT state, is_complete FROM data_freshness") == {"state": "fresh", "is_complete": False}


def test_inactive_workspaces_are_not_expected_and_unknown_ones_are_not_hidden(conn: Connection) -> None:
    register(conn, 1, "One")
    register(conn, 2, "Two", is_active=False)
    read(conn, 1)
    read(conn, 1, resource="campaigns", interval_seconds=600)
    read(conn, 2)
    read(conn, 3)

    rows = conn.execute(
        "SELECT bison_workspace_id, resource, workspace_name FROM data_freshness ORDER BY 1, 2"
    ).fetchall()

    assert rows == [(1, "accounts", "One"), (1, "campaigns", "One"), (3, "accounts", None)]


def test_data_cache_metadata_says_the_same_in_older_names(conn: Connection) -> None:
    register(conn, 1, "One")
    read(conn, 1, complete_seconds_ago=200)

    row = one(conn, "SELECT * FROM data_cache_metadata")

    assert (row["cache_key"], row["workspace_name"], row["status"], row["record_count"]) == (
        "accounts:a:1",
        "One",
        "stale",
        2,
    )
    assert (row["is_stale"], row["is_complete"]) == (True, True)
    assert row["last_updated"] == row["last_synced_at"] is not None


def test_live_accounts_are_those_of_workspaces_read_within_two_hours(conn: Connection) -> None:
    for workspace_id, seconds_ago in [(1, 60), (2, 7190), (3, 7210), (4, None)]:
        register(conn, workspace_id, f"Workspace {workspace_id}")
        read(conn, workspace_id, complete_seconds_ago=seconds_ago)
        account(conn, workspace_id, workspace_id, workspace_name="old name")
    account(conn, 5, workspace_id=5)
    account(conn, 6, workspace_id=1, removed_at="2026-01-01T00:00:00Z")

    rows = conn.execute("SELECT bison_account_id, workspace_name FROM email_accounts_live ORDER BY 1").fetchall()

    assert rows == [(1, "Workspace 1"), (2, "Workspace 2")]


def test_live_accounts_were_synced_when_their_workspace_was_read(conn: Connection) -> None:
    read(conn, 1, complete_seconds_ago=60)
    account(conn, 7, updated_at="2026-01-01T00:00:00Z")

    row = one(
        conn,
        "SELECT l.last_synced_at = s.last_complete_at AS is_read_time"
        " FROM email_accounts_live AS l, workspace_sync_state AS s",
    )

    assert row == {"is_read_time": True}


def test_the_dashboard_shows_rows_whatever_their_age(conn: Connection) -> None:
    for workspace_id, seconds_ago, verdict in [
        (1, 60, "complete"),
        (2, 10**6, "complete"),
        (3, 60, "guarded"),
        (4, None, "failed"),
    ]:
        register(conn, workspace_id, f"Workspace {workspace_id}")
        read(conn, workspace_id, complete_seconds_ago=seconds_ago, verdict=verdict)
        account(conn, workspace_id, workspace_id)
    account(conn, 5, workspace_id=5, workspace_name="Five")
    account(conn, 6, workspace_id=1, removed_at="2026-01-01T00:00:00Z")

    rows = conn.execute(
        "SELECT bison_account_id, client_name, as_of IS NOT NULL, is_complete, is_stale"
        " FROM infrastructure_dashboard ORDER BY 1"
    ).fetchall()

    assert rows == [
        (1, "Workspace 1", True, True, False),
        (2, "Workspace 2", True, True, True),
        (3, "Workspace 3", True, False, False),
        (4, "Workspace 4", False, False, True),
        (5, "Five", False, False, True),
    ]


def test_views_have_every_column_of_the_accounts(conn: Connection) -> None:
    def columns(relation: str) -> set[str]:
        return {
            name
            for (name,) in conn.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", [relation]
            )
        }

    # The last two order events and reads; they tell nothing of the account.
    accounts = columns("sender_emails_cache") - {"removed_at", "event_applied_at", "presence_as_of"}
    assert accounts <= columns("email_accounts_live")
    assert accounts - {"last_synced_at"} <= columns("infrastructure_dashboard")
    assert {"as_of", "is_complete", "is_stale"} <= columns("infrastructure_dashboard")


def test_sync_health_of_nothing_is_not_healthy(conn: Connection) -> None:
    row = one(conn, "SELECT * FROM get_email_sync_health()")

    assert row == {
        "last_sync_time": None,
        "last_sync_status": None,
        "total_accounts": 0,
        "accounts_by_instance": {},
        "minutes_since_last_sync": None,
        "is_healthy": False,
        "oldest_sync_time": None,
        "workspaces_total": 0,
        "workspaces_behind": 0,
    }


@pytest.mark.parametrize(
    ("seconds_ago", "verdict", "is_healthy"),
    [
        (60, "complete", True),
        (300, "complete", True),
        (400, "complete", False),
        (60, "incomplete", False),
        (None, "failed", False),
    ],
)
def test_sync_health_is_that_of_the_worst_workspace(
    conn: Connection, seconds_ago: float | None, verdict: str, is_healthy: bool
) -> None:
    register(conn, 1, "One")
    register(conn, 2, "Two")
    read(conn, 1, complete_seconds_ago=30)
    read(conn, 2, complete_seconds_ago=seconds_ago, verdict=verdict)
    account(conn, 1)
    account(conn, 2, removed_at="2026-01-01T00:00:00Z")

    row = one(conn, "SELECT * FROM get_email_sync_health()")

    assert (row["is_healthy"], row["workspaces_total"], row["workspaces_behind"]) == (
        is_healthy,
        2,
        0 if is_healthy else 1,
    )
    assert (row["total_accounts"], row["accounts_by_instance"], row["minutes_since_last_sync"]) == (1, {"a": 1}, 0)
    assert (row["oldest_sync_time"] is None) == (seconds_ago is None)


def ledger(conn: Connection, job: str, status: str, days_ago: float) -> uuid.UUID:
    run_id = uuid.uuid4()
    conn.execute(
        "INSERT INTO email_sync_logs (run_id, job, status, started_at)"
        " VALUES (%s, %s, %s, now() - make_interval(secs => %s))",
        [run_id, job, status, days_ago * 86400],
    )
    return run_id


def test_sync_health_tells_how_the_last_run_ended(conn: Connection) -> None:
    for days_ago, job, status in [
        (3, "poll-accounts", "success"),
        (2, "poll-accounts", "partial"),
        (1, "poll-leads", "failed"),
        (0.5, "poll-accounts", "skipped"),
        (0, "poll-accounts", "running"),
    ]:
        ledger(conn, job, status, days_ago)

    assert one(conn, "SELECT last_sync_status FROM get_email_sync_health()") == {"last_sync_status": "partial"}


def test_a_run_of_chosen_workspaces_says_nothing_of_all(conn: Connection) -> None:
    ledger(conn, "poll-accounts", "failed", 0.2)
    chosen = ledger(conn, "poll-accounts", "success", 0.1)
    summary = "SELECT parts -> 'runs' ->> 'score' AS runs FROM dashboard_health_summary"

    conn.execute("UPDATE email_sync_logs SET covers = '{}' WHERE run_id = %s", [chosen])
    of_all = one(conn, summary), one(conn, "SELECT last_sync_status FROM get_email_sync_health()")
    conn.execute("UPDATE email_sync_logs SET covers = NULL")

    assert of_all == ({"runs": "0.0"}, {"last_sync_status": "failed"})
    assert one(conn, summary) == {"runs": "100.0"}


def test_status_stats_count_what_is_present_in_any_case(conn: Connection) -> None:
    register(conn, 1, "One")
    read(conn, 1)
    words = ["Connected", "CONNECTED", "connected ", "Not connected", "disconnected", "Failed", "pending_move", None]
    for number, status in enumerate(words):
        account(conn, number, status=status)
    account(conn, 99, status="Connected", removed_at="2026-01-01T00:00:00Z")

    row = one(conn, "SELECT * FROM get_account_status_stats()")

    assert (row["total"], row["connected"], row["disconnected"], row["failed"], row["other"]) == (8, 3, 2, 1, 2)
    assert str(row["disconnect_rate"]) == "62.50"
    assert (row["is_complete"], row["is_stale"], row["as_of"] is not None) == (True, False, True)


def test_status_stats_of_nothing_have_no_rate(conn: Connection) -> None:
    row = one(conn, "SELECT * FROM get_account_status_stats()")

    assert (row["total"], row["disconnect_rate"], row["is_complete"], row["is_stale"]) == (0, None, False, True)


def test_cleanup_keeps_what_is_young_running_or_the_last_of_its_job(conn: Connection) -> None:
    old, older = ledger(conn, "poll-accounts", "success", 31), ledger(conn, "poll-accounts", "failed", 32)
    conn.execute(
        "INSERT INTO email_sync_log_workspaces (run_id, bison_instance, bison_workspace_id, resource, verdict)"
        " VALUES (%s, 'a', 1, 'accounts', 'complete')",
        [old],
    )
    running = ledger(conn, "poll-accounts", "running", 40)
    young = ledger(conn, "poll-accounts", "success", 29)
    last = ledger(conn, "poll-leads", "success", 400)
    chosen = ledger(conn, "poll-leads", "success", 31)
    conn.execute("UPDATE email_sync_logs SET covers = '{}' WHERE run_id = %s", [chosen])

    row = one(conn, "SELECT cleanup_old_email_sync_logs() AS deleted")

    left = {run_id for (run_id,) in conn.execute("SELECT run_id FROM email_sync_logs")}
    assert row == {"deleted": 2}
    assert left == {running, young, last, chosen}
    assert old not in left and older not in left
    assert conn.execute("SELECT count(*) FROM email_sync_log_workspaces").fetchone() == (0,)
    assert one(conn, "SELECT cleanup_old_email_sync_logs(10) AS deleted") == {"deleted": 0}


@pytest.mark.parametrize("days", ["0", "-1", "NULL"])
def test_cleanup_of_everything_is_refused(conn: Connection, days: str) -> None:
    ledger(conn, "poll-accounts", "success", 2)
    ledger(conn, "poll-accounts", "success", 1)

    with pytest.raises(pg.InvalidParameterValue):
        conn.execute(f"SELECT cleanup_old_email_sync_logs({days})".encode())


def test_two_hundred_thousand_accounts_are_read_in_one_pass(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address)"
        " SELECT 'a', n % 300, n, 'sender' || n || '@example.com' FROM generate_series(1, 200000) AS n"
    )
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
        " SELECT 'a', n, 'W' FROM generate_series(0, 299) AS n"
    )
    conn.execute(
        "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_complete_at, verdict)"
        " SELECT 'a', n, 'accounts', now(), 'complete' FROM generate_series(0, 299) AS n"
    )
    conn.execute("VACUUM ANALYZE sender_emails_cache, client_registry, workspace_sync_state")

    for view in ("email_accounts_live", "infrastructure_dashboard"):
        (plan,) = conn.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM {view}".encode()).fetchone()
        loops = [node["Actual Loops"] for node in nodes(plan[0]["Plan"])]
        assert plan[0]["Plan"]["Actual Rows"] == 200_000, view
        assert max(loops) <= 3, view


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]
