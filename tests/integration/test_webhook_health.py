"""The view webhook_health: how each workspace's webhooks fare, also where nothing arrives."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from looking import add_workspace, insert
from psycopg import errors as pg
from psycopg.rows import dict_row

Connection = psycopg.Connection[Any]


@pytest.fixture
def now(conn: Connection) -> datetime:
    """The view's own clock, as the transaction of a test sees it."""
    conn.autocommit = False
    row = conn.execute("SELECT now()").fetchone()
    assert row is not None
    return row[0]


def came(conn: Connection, at: datetime, status: str = "processed", count: int = 1, **values: Any) -> None:
    """So many deliveries of workspace 1 at a moment."""
    success = {"processed": True, "duplicate": True, "ignored": True, "test": True}.get(status, False)
    fields = {"bison_instance": "sim", "bison_workspace_id": 1, "source": "receiver", "success": success, **values}
    for _ in range(count):
        insert(conn, "webhook_delivery_log", received_at=at, status=status, **fields)


def seen(conn: Connection, number: int = 1) -> dict[str, Any]:
    """The row of a workspace."""
    with conn.cursor(row_factory=dict_row) as cursor:
        (row,) = cursor.execute("SELECT * FROM webhook_health WHERE bison_workspace_id = %s", [number]).fetchall()
    return row


def test_a_workspace_to_which_nothing_ever_came_has_a_row(conn: Connection) -> None:
    add_workspace(conn, 1, "Acme")
    add_workspace(conn, 2, is_active=False)

    assert seen(conn) == {
        "bison_instance": "sim",
        "bison_workspace_id": 1,
        "workspace_name": "Acme",
        "is_active": True,
        "last_webhook_at": None,
        "webhook_count_24h": 0,
        "success_rate_24h": None,
        "is_healthy": False,
        "last_error_message": None,
    }
    assert seen(conn, 2)["is_active"] is False


def test_it_is_right_when_nothing_arrives_any_more(conn: Connection, now: datetime) -> None:
    add_workspace(conn, 1)
    last_at = now - timedelta(hours=24)
    came(conn, last_at)

    row = seen(conn)

    assert (row["last_webhook_at"], row["webhook_count_24h"], row["success_rate_24h"]) == (last_at, 0, None)
    assert row["is_healthy"] is False

    came(conn, last_at + timedelta(seconds=1))

    row = seen(conn)
    assert (row["webhook_count_24h"], row["success_rate_24h"], row["is_healthy"]) == (1, 100, True)


@pytest.mark.parametrize(("bad", "rate", "is_healthy"), [(0, "100.00", True), (1, "95.00", True), (2, "90.48", False)])
def test_the_success_rate_is_that_of_decided_deliveries(
    conn: Connection, now: datetime, bad: int, rate: str, is_healthy: bool
) -> None:
    add_workspace(conn, 1)
    came(conn, now, count=17)
    came(conn, now, "duplicate")
    came(conn, now, "ignored")
    came(conn, now, "failed", bad)
    came(conn, now, "pending", 5, success=None)

    row = seen(conn)

    assert (str(row["success_rate_24h"]), row["is_healthy"]) == (rate, is_healthy)
    assert row["webhook_count_24h"] == 24 + bad


def test_what_waits_alone_is_not_healthy(conn: Connection, now: datetime) -> None:
    add_workspace(conn, 1)
    came(conn, now, "pending", success=None)

    row = seen(conn)

    assert (row["webhook_count_24h"], row["success_rate_24h"], row["is_healthy"]) == (1, None, False)


@pytest.mark.parametrize("values", [{"status": "test"}, {"source": "events"}, {"source": "file"}])
def test_f19_tests_and_what_was_fetched_are_no_webhooks(
    conn: Connection, now: datetime, values: dict[str, Any]
) -> None:
    add_workspace(conn, 1)
    came(conn, now - timedelta(days=3))
    came(conn, now, **values)

    row = seen(conn)

    assert (row["last_webhook_at"], row["webhook_count_24h"]) == (now - timedelta(days=3), 0)


@pytest.mark.parametrize("source", ["receiver", "sql", "legacy"])
def test_every_way_of_delivery_counts(conn: Connection, now: datetime, source: str) -> None:
    add_workspace(conn, 1)
    came(conn, now, source=source)

    assert seen(conn)["webhook_count_24h"] == 1


def test_the_last_error_is_that_of_the_newest_delivery_not_processed(conn: Connection, now: datetime) -> None:
    add_workspace(conn, 1)
    came(conn, now - timedelta(days=9), "dead", error_message="first")
    came(conn, now - timedelta(days=8), "mismatch", error_message="second")
    came(conn, now - timedelta(days=7), "failed", error_message="third")
    came(conn, now - timedelta(days=6), "ignored", error_message="unknown type of event")
    came(conn, now - timedelta(days=5), "dead", error_message="of another", bison_workspace_id=2)

    assert seen(conn)["last_error_message"] == "third"

    conn.execute("UPDATE webhook_delivery_log SET status = 'processed', error_message = NULL WHERE status = 'failed'")

    assert seen(conn)["last_error_message"] == "second"


def test_it_reads_the_index_alone(conn: Connection, now: datetime) -> None:
    """A log of ten million deliveries is far larger than its index."""
    add_workspace(conn, 1)
    came(conn, now)
    conn.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")

    plan = conn.execute("EXPLAIN SELECT success_rate_24h, last_webhook_at FROM webhook_health").fetchall()

    scans = [line for (line,) in plan if "Scan" in line and "webhook_delivery_log" in line]
    by_workspace = [line for line in scans if "_bison_instance_" in line]
    assert by_workspace
    assert all("Index Only Scan" in line for line in by_workspace)
    assert len(by_workspace) + sum("_status_" in line for line in scans) == len(scans)


def test_it_gives_nobody_rights_on_the_inbox(conn: Connection) -> None:
    conn.execute("GRANT SELECT ON webhook_health, client_registry TO pg_signal_backend")
    conn.execute("SET ROLE pg_signal_backend")

    with pytest.raises(pg.InsufficientPrivilege, match="webhook_delivery_log"):
        conn.execute("SELECT * FROM webhook_health")
