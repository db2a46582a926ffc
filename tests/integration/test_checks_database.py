"""Checks of the database itself in every state: schema, access, what fills it; and the view that scores all."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from looking import NOW, add_run, add_state, add_workspace, examine, finding, looking
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from bisonsync.checks import database, schema
from bisonsync.jobs import health
from bisonsync.store.schema_files import Migration, read_schema_files

Connection = psycopg.Connection[Any]

RETENTION = {"sender_email_daily": 100}


# Every check


@pytest.mark.parametrize("check", ["schema", "access", "database"])
def test_what_may_not_be_read_is_unknown(db: str, check: str) -> None:
    with looking(make_conninfo(db, options="-c role=pg_signal_backend"), check) as look:
        (result,) = health.run(look, [check], on_bug=pytest.fail)

    assert result.state == "UNKNOWN"
    assert "permission denied" in result.detail


@pytest.mark.parametrize(("check", "state"), [("schema", "CRITICAL"), ("access", "UNKNOWN"), ("database", "UNKNOWN")])
def test_a_database_that_is_not_migrated_is_not_ok(empty_db: str, check: str, state: str) -> None:
    with looking(empty_db, check) as look:
        (result,) = health.run(look, [check], on_bug=pytest.fail)

    assert (result.state, result.hint) == (state, "bisonsync migrate" if check != "database" else result.hint)
    assert "migrate" in result.hint
    assert result.caused_by == (None if check == "schema" else "schema")


# schema


def test_schema_is_ok_after_migrate(db: str) -> None:
    result = examine(db, "schema")

    assert (result.state, result.value, result.hint) == ("OK", 0, "")


def test_schema_is_critical_while_a_migration_is_pending(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = read_schema_files()
    later = Migration(9999, "9999_later.sql", "SELECT 1;")
    monkeypatch.setattr(schema, "read_schema_files", lambda: replace(files, migrations=(*files.migrations, later)))

    result = examine(db, "schema")

    assert (result.state, result.hint) == ("CRITICAL", "bisonsync migrate")
    assert result.detail == f"1 migrations are not applied, {len(files.migrations)} are"
    assert [each.subject for each in result.findings] == ["9999_later.sql"]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("UPDATE bisonsync_migrations SET checksum = 'x' WHERE version = 1", "was changed after it was applied"),
        (
            "INSERT INTO bisonsync_migrations (version, name, checksum, duration_ms, bisonsync_version)"
            " VALUES (999, '0999_new.sql', 'x', 1, '9')",
            "whose file is missing here",
        ),
    ],
)
def test_schema_is_critical_when_migrations_do_not_fit(db: str, conn: Connection, change: str, detail: str) -> None:
    conn.execute(change.encode())

    result = examine(db, "schema")

    assert result.state == "CRITICAL"
    assert detail in result.detail
    assert result.hint


def test_schema_warns_of_a_view_of_another_text(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = read_schema_files()
    (first, *others) = files.objects
    changed = replace(files, objects=(replace(first, text=first.text + "\n-- another"), *others))
    monkeypatch.setattr(schema, "read_schema_files", lambda: changed)

    result = examine(db, "schema")

    assert (result.state, result.value, result.hint) == ("WARNING", 1, "bisonsync migrate")
    assert [each.subject for each in result.findings] == [first.name]


def test_schema_needs_nothing_of_what_it_looks_at(db: str, conn: Connection) -> None:
    conn.execute("ALTER TABLE email_sync_logs RENAME TO gone; ALTER TABLE client_registry RENAME TO also_gone")

    assert examine(db, "schema").state == "OK"


# access


def test_access_is_ok_after_migrate(db: str) -> None:
    result = examine(db, "access")

    assert (result.state, result.value) == ("OK", 0)


@pytest.mark.parametrize(
    ("leak", "subject", "detail"),
    [
        ("GRANT SELECT ON sender_emails_cache TO PUBLIC", "public.sender_emails_cache", "PUBLIC may SELECT"),
        (
            "GRANT SELECT (token) ON bisonsync_private.workspace_tokens TO PUBLIC",
            "bisonsync_private.workspace_tokens",
            "PUBLIC may SELECT (token)",
        ),
        (
            "ALTER TABLE sender_emails_cache DISABLE ROW LEVEL SECURITY",
            "public.sender_emails_cache",
            "row level security is off",
        ),
        ("GRANT USAGE ON SCHEMA bisonsync_private TO PUBLIC", "bisonsync_private", "PUBLIC may USAGE"),
        (
            "GRANT EXECUTE ON FUNCTION cleanup_old_email_sync_logs TO PUBLIC",
            "public.cleanup_old_email_sync_logs(integer)",
            "PUBLIC may EXECUTE",
        ),
    ],
)
def test_access_is_critical_when_something_is_open(
    db: str, conn: Connection, leak: str, subject: str, detail: str
) -> None:
    conn.execute(leak.encode())

    result = examine(db, "access")

    assert (result.state, result.hint) == ("CRITICAL", "bisonsync migrate")
    assert finding(result, subject).detail == detail


def test_access_warns_when_a_reader_lacks_something(db: str) -> None:
    result = examine(db, "access", readers="pg_monitor")

    assert (result.state, result.hint) == ("WARNING", "bisonsync migrate")
    assert result.value is not None and result.value > 10
    assert finding(result, "public.data_freshness").detail.startswith("missing: GRANT SELECT")


def test_access_is_unknown_when_the_settings_name_nobody(db: str) -> None:
    result = examine(db, "access", readers="no such role")

    assert result.state == "UNKNOWN"
    assert "no such role" in result.detail
    assert result.hint


# database


@pytest.fixture
def grown(conn: Connection) -> Connection:
    """A database whose history has its months until the one after NOW."""
    make_months(conn, date(2025, 11, 1), date(2026, 2, 1))
    return conn


def make_months(conn: Connection, first: date, last: date) -> None:
    conn.execute("SELECT bisonsync_private.make_daily_partitions(%s::date, %s::date)", [first, last])


def fill(conn: Connection, megabytes: int) -> None:
    """Make api_health_logs at least so large."""
    conn.execute(
        "INSERT INTO api_health_logs (endpoint, api_name, success) SELECT repeat('x', 1000), 'x', true"
        " FROM generate_series(1, 1000 * %s)",
        [megabytes],
    )


def test_database_is_ok_when_nothing_is_the_matter(db: str, grown: Connection) -> None:
    result = examine(db, "database", retention_days=RETENTION)

    assert (result.state, result.findings, result.hint, result.unit) == ("OK", (), "", "B")
    assert result.value is not None and result.value > 1e6


def test_database_without_a_history_is_unknown(db: str) -> None:
    result = examine(db, "database")

    assert (result.state, result.hint) == ("UNKNOWN", "bisonsync snapshot-providers")
    assert result.findings[0].kinds == ("late", "job:snapshot-providers")


def test_database_needs_no_history_where_none_is_meant_to_be(db: str) -> None:
    assert examine(db, "database", schedule={}).state == "OK"


@pytest.mark.parametrize(("more", "state"), [(0, "OK"), (-1, "WARNING")])
def test_database_warns_beyond_its_size(db: str, grown: Connection, more: int, state: str) -> None:
    size = examine(db, "database").value
    assert size is not None

    result = examine(db, "database", limits={"size": size + more})

    assert result.state == state
    assert [each.subject for each in result.findings] == (["database"] if state != "OK" else [])
    assert result.hint.startswith("bisonsync prune" if state != "OK" else "")


@pytest.mark.parametrize(("more", "state"), [(0, "OK"), (-1, "WARNING")])
def test_database_names_a_table_beyond_its_size(db: str, grown: Connection, more: int, state: str) -> None:
    fill(grown, 3)
    row = grown.execute("SELECT pg_total_relation_size('api_health_logs')").fetchone()
    assert row is not None and row[0] > 3_000_000

    result = examine(db, "database", limits={"table": row[0] + more})

    assert result.state == state
    assert ("api_health_logs: " in result.detail) is (state != "OK")
    if state != "OK":
        assert result.hint.startswith("bisonsync prune ")
        assert "[retention]" in result.hint and "api_health_logs" in result.hint


@pytest.mark.parametrize(
    ("noted_mb", "growth", "state"),
    [(None, 100.0, "WARNING"), (60, 100.0, "WARNING"), (66, 100.0, "OK"), (66, 90.0, "WARNING"), (70, 10.0, "OK")],
)
def test_database_warns_of_a_table_that_grows_too_fast(
    db: str, grown: Connection, monkeypatch: pytest.MonkeyPatch, noted_mb: int | None, growth: float, state: str
) -> None:
    # A table as it is after 128 MB of rows, without writing them.
    monkeypatch.setattr(database, "GROWTH_MATTERS_BYTES", 60 * 1024**2)
    sizes = [database.TableSize("api_health_logs", "api_health_logs", 128 * 1024**2, 100, 0)]
    monkeypatch.setattr(database.health_database, "list_table_sizes", lambda _: sizes)
    counts = {"database_mb": 200} | ({} if noted_mb is None else {"api_health_logs_mb": noted_mb})
    add_run(grown, "prune", NOW - timedelta(hours=9), counts=Jsonb(counts))

    result = examine(db, "database", limits={"growth": growth})

    assert result.state == state
    if state != "OK":
        assert "api_health_logs: grew from" in result.detail
        assert "api_health_logs" in result.hint


@pytest.mark.parametrize(
    ("counts", "days", "state"),
    [(None, 1, "OK"), ({}, 1, "OK"), ({"database_mb": 9}, 8, "OK"), ({"database_mb": 9}, 1, "WARNING")],
)
def test_database_compares_only_with_a_prune_that_noted_sizes(
    db: str,
    grown: Connection,
    monkeypatch: pytest.MonkeyPatch,
    counts: dict[str, int] | None,
    days: int,
    state: str,
) -> None:
    monkeypatch.setattr(database, "GROWTH_MATTERS_BYTES", 0)
    fill(grown, 20)
    if counts is not None:
        add_run(grown, "prune", NOW - timedelta(days=days), counts=Jsonb(counts))

    assert examine(db, "database", limits={"growth": 0}).state == state


def test_database_adds_up_the_months_of_a_table(db: str, grown: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    months = [
        database.TableSize(f"sender_email_daily_2026_0{n}", "sender_email_daily", 90 * 1024**2, 1, 0) for n in (1, 2)
    ]
    monkeypatch.setattr(database.health_database, "list_table_sizes", lambda _: months)
    add_run(grown, "prune", NOW - timedelta(hours=9), counts=Jsonb({"database_mb": 90, "sender_email_daily_mb": 75}))

    result = examine(db, "database")

    assert [each.subject for each in result.findings] == ["sender_email_daily"]


@pytest.mark.parametrize(
    ("live", "dead", "state"),
    [(70_000, 30_000, "OK"), (69_999, 30_001, "WARNING"), (0, 10_000, "OK"), (0, 10_001, "WARNING")],
)
def test_database_warns_beyond_30_percent_dead_rows(
    db: str, grown: Connection, monkeypatch: pytest.MonkeyPatch, live: int, dead: int, state: str
) -> None:
    sizes = [database.TableSize("sender_emails_cache", "sender_emails_cache", 1, live, dead)]
    monkeypatch.setattr(database.health_database, "list_table_sizes", lambda _: sizes)

    result = examine(db, "database")

    assert result.state == state
    assert result.hint == ("bisonsync prune  # for sender_emails_cache" if state != "OK" else "")


def test_database_sees_the_rows_that_are_dead(db: str, grown: Connection) -> None:
    fill(grown, 12)
    with grown.transaction():
        grown.execute("DELETE FROM api_health_logs")
        grown.execute("SELECT pg_stat_force_next_flush()")

    result = examine(db, "database")

    assert finding(result, "api_health_logs").detail == "100 % of its rows are dead (12,000)"


@pytest.mark.parametrize(("today", "state"), [("2026-03-13", "OK"), ("2026-03-14", "WARNING")])
def test_database_warns_of_a_month_two_days_past_its_retention(
    db: str, grown: Connection, today: str, state: str
) -> None:
    # The last day of November is kept for 100 days, until 10 March: it may go on the 11th.
    make_months(grown, date(2026, 3, 1), date(2026, 4, 1))
    now = datetime.fromisoformat(f"{today}T12:00:00Z")

    result = examine(db, "database", now=now, retention_days=RETENTION)

    assert result.state == state
    if state != "OK":
        assert result.findings[0].subject == "sender_email_daily_2025_11"
        assert result.findings[0].detail == "should have been dropped 3 days ago"
        assert result.hint == "bisonsync prune  # for sender_email_daily_2025_11"


@pytest.mark.parametrize(
    ("now", "zone", "state"),
    [
        (datetime(2026, 2, 21, 12, tzinfo=UTC), "UTC", "OK"),
        (datetime(2026, 2, 22, 0, tzinfo=UTC), "UTC", "WARNING"),
        (datetime(2026, 2, 22, 0, tzinfo=UTC), "America/New_York", "OK"),
        (datetime(2026, 2, 28, 23, tzinfo=UTC), "UTC", "WARNING"),
        (datetime(2026, 2, 28, 23, tzinfo=UTC), "Asia/Tokyo", "CRITICAL"),
        (datetime(2026, 3, 1, 0, tzinfo=UTC), "UTC", "CRITICAL"),
    ],
)
def test_database_warns_7_days_before_a_month_without_a_place(
    db: str, grown: Connection, now: datetime, zone: str, state: str
) -> None:
    result = examine(db, "database", now=now, reporting_timezone=zone)

    assert result.state == state
    if state != "OK":
        assert "2026-03" in result.detail
        assert result.hint == "bisonsync prune  # for sender_email_daily"


def test_database_names_the_days_of_the_inbox_that_have_no_partition(db: str, conn: Connection) -> None:
    now = datetime.now(UTC)
    today, last = now.date(), now.date() + timedelta(days=7)
    conn.execute("SELECT bisonsync_private.make_delivery_partitions(%s, %s)", [today, last])

    def seen() -> tuple[str, str, str]:
        result = examine(db, "database", now=now, schedule={})
        return result.state, result.detail, result.hint

    assert seen()[0] == "OK"
    conn.execute(f"DROP TABLE webhook_delivery_log_{last:%Y_%m_%d}".encode())
    hint = "bisonsync prune  # for webhook_delivery_log"
    assert seen() == ("WARNING", f"webhook_delivery_log: no partition for {last}", hint)
    conn.execute(f"DROP TABLE webhook_delivery_log_{today:%Y_%m_%d}".encode())
    said = f"webhook_delivery_log: no partition for {today}, {last}: today's deliveries"
    assert seen() == ("WARNING", f"{said} go to the default partition", hint)
    conn.execute("DROP TABLE webhook_delivery_log_default")
    assert seen() == ("CRITICAL", f"{said} are refused", hint)


def test_database_asks_for_no_partition_where_there_is_no_inbox(db: str) -> None:
    assert examine(db, "database", schedule={}).state == "OK"


# dashboard_health_summary


def summary(conn: Connection) -> tuple[float, str, dict[str, Any]]:
    (row,) = conn.execute("SELECT score, state, parts, as_of = now() FROM dashboard_health_summary").fetchall()
    score, state, parts, is_now = row
    assert is_now
    return float(score), state, parts


@pytest.fixture
def well(conn: Connection) -> Connection:
    """All is well at this very moment: two workspaces, read, recorded and connected."""
    for number in (1, 2):
        add_workspace(conn, number)
        add_state(conn, number, last_complete_at=datetime.now(UTC))
        conn.execute(
            "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address,"
            " status) SELECT 'sim', %s, n, 'x@example.com', 'Connected' FROM generate_series(1, 10) AS n",
            [number],
        )
        conn.execute(
            "INSERT INTO workspace_snapshots (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)"
            " VALUES ('sim', %s, (now() AT TIME ZONE 'UTC')::date, 10, true)",
            [number],
        )
    add_run(conn, "poll-accounts", datetime.now(UTC), counts=Jsonb({"accounts_read": 20, "invalid": 0}))
    conn.execute(
        "INSERT INTO api_health_logs (endpoint, api_name, requests, response_time_ms, success)"
        " VALUES ('/x', 'x', 100, 100, true)"
    )
    return conn


def test_an_empty_database_scores_nothing(conn: Connection) -> None:
    score, state, parts = summary(conn)

    assert (score, state) == (0, "UNKNOWN")
    assert parts.pop("webhooks") is None
    assert set(parts) == {"freshness", "completeness", "runs", "connected", "validation", "api", "history"}
    assert all((part["score"], part["state"]) == (0, "UNKNOWN") and part["detail"] for part in parts.values())
    assert sum(part["weight"] for part in parts.values()) == 100


def test_a_database_that_is_well_scores_everything(well: Connection) -> None:
    score, state, parts = summary(well)

    assert (score, state) == (100, "OK")
    assert {part["score"] for part in parts.values() if part} == {100}


@pytest.mark.parametrize("invalid", [0, 1])
def test_a_poll_that_had_nothing_to_read_hides_no_other(well: Connection, invalid: int) -> None:
    """Of hosts with the same crontab one may find all read; most polls of warm-up find nothing due."""
    counts = {"accounts_read": 20, "invalid": invalid}
    add_run(well, "poll-accounts", datetime.now(UTC) + timedelta(seconds=1), counts=Jsonb(counts))
    before = summary(well)[2]["validation"]

    idle = {"accounts_read": 0, "invalid": 0}
    add_run(well, "poll-accounts", datetime.now(UTC) + timedelta(seconds=2), counts=Jsonb(idle))

    assert summary(well)[2]["validation"] == before
    assert before["detail"] == f"{invalid} of 20 rows read could not be stored"


@pytest.mark.parametrize(
    ("change", "part", "score", "state"),
    [
        (
            "UPDATE workspace_sync_state SET last_complete_at = now() - interval '7 min' WHERE bison_workspace_id = 1",
            "freshness",
            75,
            "WARNING",
        ),
        ("UPDATE workspace_sync_state SET last_complete_at = now() - interval '1 hour'", "freshness", 0, "CRITICAL"),
        ("UPDATE workspace_sync_state SET last_complete_at = now() - interval '6 min'", "freshness", 100, "OK"),
        (
            "UPDATE workspace_sync_state SET verdict = 'incomplete' WHERE bison_workspace_id = 1",
            "completeness",
            50,
            "WARNING",
        ),
        ("UPDATE email_sync_logs SET status = 'partial'", "runs", 50, "WARNING"),
        ("UPDATE email_sync_logs SET status = 'failed'", "runs", 0, "CRITICAL"),
        ("UPDATE email_sync_logs SET started_at = now() - interval '26 hours'", "runs", 0, "UNKNOWN"),
        (
            "UPDATE sender_emails_cache SET status = 'no' WHERE bison_account_id = 1 AND bison_workspace_id = 1",
            "connected",
            95,
            "OK",
        ),
        ("UPDATE sender_emails_cache SET status = 'no' WHERE bison_account_id = 1", "connected", 90, "WARNING"),
        ("UPDATE sender_emails_cache SET removed_at = now()", "connected", 0, "UNKNOWN"),
        ("UPDATE email_sync_logs SET counts = counts || '{\"invalid\": 1}'", "validation", 50, "WARNING"),
        ("UPDATE api_health_logs SET errors = 60", "api", 40, "CRITICAL"),
        ("UPDATE api_health_logs SET response_time_ms = 2000", "api", 100, "OK"),
        ("UPDATE api_health_logs SET response_time_ms = 2001", "api", 50, "WARNING"),
        ("UPDATE api_health_logs SET \"timestamp\" = now() - interval '25 hours'", "api", 0, "UNKNOWN"),
        ("DELETE FROM workspace_snapshots WHERE bison_workspace_id = 1", "history", 50, "WARNING"),
        ("UPDATE workspace_snapshots SET is_complete = false", "history", 50, "WARNING"),
        ("UPDATE workspace_snapshots SET snapshot_date = snapshot_date - 1", "history", 100, "OK"),
        ("UPDATE workspace_snapshots SET snapshot_date = snapshot_date - 2", "history", 0, "CRITICAL"),
    ],
)
def test_what_is_wrong_lowers_its_part_by_its_weight(
    well: Connection, change: str, part: str, score: float, state: str
) -> None:
    # In one transaction time stands still.
    with well.transaction():
        well.execute("UPDATE workspace_sync_state SET last_complete_at = now()")
        well.execute(change.encode())
        whole, overall, parts = summary(well)

    assert (parts[part]["score"], parts[part]["state"]) == (score, state)
    if part not in ("runs", "connected"):
        assert whole == pytest.approx(100 - parts[part]["weight"] * (100 - score) / 100, abs=0.051)
    assert overall == state or (part, overall) == ("connected", "UNKNOWN")


def test_the_worst_part_gives_the_state(well: Connection) -> None:
    well.execute("UPDATE sender_emails_cache SET status = 'no' WHERE bison_account_id = 1")
    assert summary(well)[1] == "WARNING"

    well.execute("DELETE FROM api_health_logs")
    assert summary(well)[1] == "UNKNOWN"

    well.execute("UPDATE email_sync_logs SET status = 'failed'")
    assert summary(well)[1] == "CRITICAL"
