"""A publication can keep every UPDATE and DELETE from a table: the check ``access`` says so, with what cures it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from looking import examine
from psycopg import errors as pg

from bisonsync.store import migrations

Connection = psycopg.Connection[Any]

# Those with generated columns, and a statement that changes each.
CHANGES = {
    "sender_emails_cache": "UPDATE sender_emails_cache SET status = 'Connected'",
    "client_metrics": "UPDATE client_metrics SET emails_sent_webhook = 1",
    "client_leads": "DELETE FROM client_leads",
}
STORED = "SET (publish_generated_columns = stored)"


def refuses_generated(conn: Connection) -> bool:
    """Since 18 a server knows to publish generated columns, and refuses changes where they are needed and left out."""
    return conn.info.server_version >= 180_000


@pytest.mark.parametrize("table", CHANGES)
@pytest.mark.parametrize(
    "scope", ["ALL TABLES", "TABLES IN SCHEMA public", "TABLE {}", "TABLE {} WHERE (bison_workspace_id > 0)"]
)
def test_full_replica_identity_is_told_with_its_cure(db: str, conn: Connection, table: str, scope: str) -> None:
    conn.execute(f"CREATE PUBLICATION everything FOR {scope.format(table)}".encode())
    conn.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL".encode())

    told = examine(db, "access")

    if not refuses_generated(conn):
        assert (told.state, told.findings) == ("OK", ())
        conn.execute(CHANGES[table].encode())
        return
    with pytest.raises(pg.InvalidColumnReference):
        conn.execute(CHANGES[table].encode())
    assert (told.state, told.hint) == ("CRITICAL", f"in psql, as the owner: ALTER PUBLICATION everything {STORED}")
    assert [finding.subject for finding in told.findings] == [f"public.{table}"]
    assert "generated columns, which publication everything leaves out" in told.findings[0].detail
    conn.execute(told.hint.partition(": ")[2].encode())
    conn.execute(CHANGES[table].encode())
    assert examine(db, "access").state == "OK"


def test_a_column_list_that_lacks_the_identity_is_told_on_every_server(db: str, conn: Connection) -> None:
    conn.execute(
        "CREATE PUBLICATION narrow FOR TABLE client_leads (bison_instance, bison_workspace_id, bison_lead_id);"
        "ALTER TABLE client_leads REPLICA IDENTITY FULL"
    )

    told = examine(db, "access")

    with pytest.raises(pg.InvalidColumnReference):
        conn.execute(CHANGES["client_leads"].encode())
    assert told.state == "CRITICAL"
    assert told.hint == "in psql, as the owner: ALTER TABLE public.client_leads REPLICA IDENTITY DEFAULT"
    conn.execute(told.hint.partition(": ")[2].encode())
    conn.execute(CHANGES["client_leads"].encode())
    assert examine(db, "access").state == "OK"


def test_a_filter_that_the_identity_does_not_hold_is_told_on_every_server(db: str, conn: Connection) -> None:
    conn.execute("CREATE PUBLICATION narrow FOR TABLE client_metrics WHERE (emails_sent_webhook > 0)")

    told = examine(db, "access")

    with pytest.raises(pg.InvalidColumnReference):
        conn.execute(CHANGES["client_metrics"].encode())
    assert (told.state, told.findings[0].subject) == ("CRITICAL", "public.client_metrics")
    conn.execute(told.hint.partition(": ")[2].encode())
    conn.execute(CHANGES["client_metrics"].encode())


def test_a_partition_that_is_published_with_its_table_is_asked_about(db: str, conn: Connection) -> None:
    conn.execute(
        "SELECT bisonsync_private.make_daily_partitions('2026-03-01', '2026-03-01');"
        "CREATE PUBLICATION whole FOR TABLE sender_email_daily WITH (publish_via_partition_root);"
        "ALTER TABLE sender_email_daily_2026_03 REPLICA IDENTITY NOTHING"
    )

    told = examine(db, "access")

    assert [finding.subject for finding in told.findings] == ["public.sender_email_daily_2026_03"]


def test_what_publishes_no_changes_refuses_none(db: str, conn: Connection) -> None:
    conn.execute(
        "CREATE PUBLICATION new FOR ALL TABLES WITH (publish = 'insert');ALTER TABLE client_leads REPLICA IDENTITY FULL"
    )

    assert examine(db, "access").state == "OK"


def test_migrate_lets_realtime_publish_generated_columns_where_the_server_can(db: str, conn: Connection) -> None:
    conn.execute("CREATE PUBLICATION supabase_realtime; ALTER TABLE client_metrics REPLICA IDENTITY FULL")
    conn.execute("ALTER PUBLICATION supabase_realtime ADD TABLE client_metrics")
    before = examine(db, "access")

    migrations.apply_all(conn)

    assert before.hint == "bisonsync migrate"
    conn.execute(CHANGES["client_metrics"].encode())
    assert examine(db, "access").state == "OK"
    stored = conn.execute("SELECT to_jsonb(p) ->> 'pubgencols' FROM pg_publication AS p").fetchone()
    assert stored == ("s" if refuses_generated(conn) else None,)
