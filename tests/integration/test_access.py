"""Who may do what, on a server that looks like Supabase's: its roles, its default privileges, its publication."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from looking import examine
from psycopg import errors as pg
from psycopg.sql import SQL, Identifier

from bisonsync import embedded
from bisonsync.errors import ConfigError
from bisonsync.queries import sql_dir
from bisonsync.store import migrations, schema_objects
from bisonsync.store.schema_files import read_schema_files
from bisonsync.store.snapshots import write_history

Connection = psycopg.Connection[Any]

READER = "11111111-2222-3333-4444-555555555555"
STRANGER = "99999999-2222-3333-4444-555555555555"
DASHBOARDS = [
    "SELECT * FROM infrastructure_dashboard",
    "SELECT * FROM email_accounts_live",
    "SELECT * FROM data_freshness",
    "SELECT * FROM data_cache_metadata",
    "SELECT * FROM dashboard_health_summary",
    "SELECT * FROM sender_emails_cache",
    "SELECT * FROM campaigns_cache",
    "SELECT * FROM sender_email_warmup",
    "SELECT * FROM api_health_logs",
    "SELECT workspace_name, is_active, monthly_kpi_target, price_per_lead, monthly_retainer FROM client_registry",
    "SELECT last_complete_at, verdict, total FROM workspace_sync_state",
    "SELECT job, status, started_at, counts FROM email_sync_logs",
    "SELECT resource, verdict, counts FROM email_sync_log_workspaces",
    "SELECT * FROM get_email_sync_health()",
    "SELECT * FROM get_account_status_stats()",
    "SELECT * FROM sender_email_daily",
    "SELECT * FROM workspace_snapshots",
    "SELECT * FROM provider_performance_history",
    "SELECT * FROM performance_by('provider', date '2026-03-01', date '2026-03-02')",
    "SELECT * FROM check_provider_reply_rate_drop(date '2026-03-01')",
    "SELECT * FROM aggregate_provider_stats()",
    "SELECT * FROM client_metrics",
    "SELECT * FROM client_leads",
]
NEVER_FOR_READERS = [
    "SELECT 1 FROM data_validation_errors",
    "SELECT 1 FROM bisonsync_private.workspace_tokens",
    "SELECT 1 FROM bisonsync_private.token_intents",
    "SELECT 1 FROM job_leases",
    "SELECT 1 FROM rate_budgets",
    "SELECT 1 FROM email_account_metadata",
    "SELECT 1 FROM alert_episodes",
    "SELECT 1 FROM alert_messages",
    "SELECT slack_webhook_url_ref FROM client_registry",
    "SELECT last_error FROM workspace_sync_state",
    "SELECT errors FROM email_sync_logs",
    "SELECT error FROM email_sync_log_workspaces",
    "SELECT cleanup_old_email_sync_logs()",
    "SELECT 1 FROM webhook_delivery_log",
    "SELECT 1 FROM webhook_event_keys",
    "SELECT 1 FROM webhook_health",
    "SELECT 1 FROM bisonsync_private.webhook_secrets",
    "SELECT ingest_webhook('{}')",
    "SELECT increment_metric('One', 'replies_mtd')",
    "SELECT bisonsync_private.access_changes('[]')",
    "UPDATE sender_emails_cache SET status = 'x'",
    "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('a', 9, 'x')",
    "DELETE FROM workspace_sync_state",
    "TRUNCATE sender_emails_cache",
]


@pytest.fixture(scope="module")
def supabase_server(session_folder: Path) -> Iterator[str]:
    """A server of this module's own, for roles belong to a whole server. Its superuser's DSN."""
    folder = session_folder / f"supabase-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    dsn = embedded.start(folder, server_options={"fsync": "off", "synchronous_commit": "off", "wal_level": "logical"})
    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute(
            "CREATE ROLE anon NOLOGIN NOINHERIT; CREATE ROLE authenticated NOLOGIN NOINHERIT;"
            " CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS; CREATE ROLE authenticator LOGIN NOINHERIT;"
            " GRANT anon, authenticated, service_role TO authenticator;"
            " CREATE ROLE metabase LOGIN; CREATE ROLE analyst LOGIN; CREATE ROLE owner_of_all LOGIN CREATEROLE"
        )
    yield dsn
    embedded.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def empty(supabase_server: str) -> Iterator[Connection]:
    """An empty database as Supabase hands it out; the owner is no superuser. Everything new is open to everybody."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(supabase_server, autocommit=True) as server:
        server.execute(SQL("CREATE DATABASE {} TEMPLATE template0 OWNER owner_of_all").format(Identifier(name)))
        with psycopg.connect(supabase_server, dbname=name, user="owner_of_all", autocommit=True) as conn:
            conn.execute("GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role")
            for what in ("TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"):
                grant = f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO anon, authenticated, service_role"
                conn.execute(grant.encode())
            conn.execute("CREATE PUBLICATION supabase_realtime")
            yield conn
        server.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture
def conn(empty: Connection) -> Connection:
    """The same, migrated, with a row in every place a reader could look."""
    migrations.apply_all(empty)
    empty.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('a', 1, 'One');"
        " INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_complete_at, verdict)"
        " VALUES ('a', 1, 'accounts', now(), 'complete');"
        " INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address)"
        " VALUES ('a', 1, 7, 'x@example.com');"
        " INSERT INTO campaigns_cache (bison_instance, bison_workspace_id, bison_campaign_id) VALUES ('a', 1, 3);"
        " INSERT INTO sender_email_warmup (bison_instance, bison_workspace_id, bison_account_id) VALUES ('a', 1, 7);"
        " INSERT INTO data_validation_errors (source, error_type) VALUES ('t', 't');"
        " WITH l AS ("
        "  INSERT INTO email_sync_logs (run_id, job) VALUES (gen_random_uuid(), 'poll-accounts') RETURNING run_id"
        " ) INSERT INTO email_sync_log_workspaces (run_id, bison_instance, bison_workspace_id, resource, verdict)"
        " SELECT run_id, 'a', 1, 'accounts', 'complete' FROM l;"
        " INSERT INTO api_health_logs (endpoint, api_name, success) VALUES ('/', 'x', true);"
        " SELECT bisonsync_private.make_daily_partitions('2026-03-01', '2026-03-01');"
        " INSERT INTO sender_email_daily (snapshot_date, bison_instance, bison_workspace_id, bison_account_id)"
        " VALUES ('2026-03-01', 'a', 1, 7);"
        " INSERT INTO workspace_snapshots (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)"
        " VALUES ('a', 1, '2026-03-01', 1, true)"
    )
    write_history(empty, "a", date(2026, 3, 1), zone="UTC")
    empty.execute("SELECT increment_metric('One', 'replies_mtd')")
    empty.execute(
        "SELECT ingest_webhook(jsonb_build_object('event', jsonb_build_object('type', 'EMAIL_SENT', 'workspace_id', 1),"
        ' \'data\', \'{"campaign_event": {"id": 1}, "lead": {"id": 1}}\'::jsonb))'
    )
    return empty


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    return shutil.copytree(sql_dir(), tmp_path / "sql")


def rights_of_outsiders(conn: Connection) -> list[tuple[str, str, str]]:
    """Every right of anon, authenticated or PUBLIC on anything in our schemas, as object, who, what."""
    return conn.execute(
        """
        WITH acls AS (
            SELECT
                c.oid::regclass::text AS object,
                coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
            FROM pg_class AS c
            WHERE c.relnamespace IN ('public'::regnamespace, to_regnamespace('bisonsync_private'))
            UNION ALL
            SELECT c.oid::regclass || '.' || a.attname, a.attacl
            FROM pg_class AS c INNER JOIN pg_attribute AS a ON a.attrelid = c.oid
            WHERE c.relnamespace IN ('public'::regnamespace, to_regnamespace('bisonsync_private'))
            UNION ALL
            SELECT p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
            FROM pg_proc AS p
            WHERE p.pronamespace IN ('public'::regnamespace, to_regnamespace('bisonsync_private'))
            UNION ALL
            SELECT n.nspname, n.nspacl FROM pg_namespace AS n WHERE n.nspname = 'bisonsync_private'
        )
        SELECT a.object, coalesce(r.rolname, 'PUBLIC'), x.privilege_type
        FROM acls AS a CROSS JOIN LATERAL aclexplode(a.acl) AS x LEFT JOIN pg_roles AS r ON r.oid = x.grantee
        WHERE x.grantee = 0 OR r.rolname IN ('anon', 'authenticated')
        ORDER BY 1, 2, 3
        """
    ).fetchall()


def tables_without_row_security(conn: Connection) -> list[tuple[str]]:
    return conn.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relrowsecurity"
        " AND relnamespace IN ('public'::regnamespace, to_regnamespace('bisonsync_private'))"
    ).fetchall()


def ask(conn: Connection, role: str, query: str, user_id: str | None = None) -> list[tuple[Any, ...]]:
    """What PostgREST does for a caller: become the role, with the claims, for one transaction."""
    with conn.transaction(force_rollback=True):
        claims = json.dumps({"sub": user_id, "role": role}) if user_id else ""
        conn.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
        conn.execute(SQL("SET LOCAL ROLE {}").format(Identifier(role)))
        cursor = conn.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def as_role(supabase_server: str, conn: Connection) -> Iterator[Connection]:
    """A superuser's connection to the same database: it may become any role."""
    with psycopg.connect(supabase_server, dbname=conn.info.dbname, autocommit=True) as connection:
        yield connection


def test_default_privileges_leave_nothing_to_outsiders(conn: Connection) -> None:
    assert rights_of_outsiders(conn) == []


def test_the_check_above_sees_default_privileges(empty: Connection) -> None:
    empty.execute("CREATE TABLE open_to_all (id bigint GENERATED ALWAYS AS IDENTITY)")
    empty.execute("CREATE FUNCTION for_all() RETURNS int LANGUAGE sql AS 'SELECT 1'")

    seen = {(thing, who) for thing, who, _ in rights_of_outsiders(empty)}

    assert {("open_to_all", "anon"), ("open_to_all_id_seq", "anon"), ("for_all()", "PUBLIC")} <= seen


def test_not_even_between_two_migrations(empty: Connection) -> None:
    files = read_schema_files()
    for _ in files.migrations:
        with empty.transaction():
            migrations.apply_next(empty, files)

        assert rights_of_outsiders(empty) == []
        assert tables_without_row_security(empty) == []
    assert empty.execute("SELECT count(*) FROM pg_class WHERE relname = 'sender_emails_cache'").fetchone() == (1,)


def test_without_supabases_roles_nothing_is_open_either(db: str) -> None:
    with psycopg.connect(db, autocommit=True) as plain:
        assert rights_of_outsiders(plain) == []
        assert schema_objects.list_access_changes(plain, ()) == []


def test_every_table_has_row_security(conn: Connection) -> None:
    assert tables_without_row_security(conn) == []


def test_every_object_is_in_the_list_of_rules(conn: Connection) -> None:
    unlisted = conn.execute(
        """
        SELECT c.oid::regclass::text FROM pg_class AS c
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            AND c.relnamespace IN ('public'::regnamespace, 'bisonsync_private'::regnamespace)
            AND NOT EXISTS (SELECT FROM bisonsync_private.access_list() AS l WHERE to_regclass(l.identity) = c.oid)
        UNION ALL
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
        WHERE p.pronamespace IN ('public'::regnamespace, 'bisonsync_private'::regnamespace)
            AND NOT EXISTS (
                SELECT FROM bisonsync_private.access_list() AS l
                WHERE l.kind = 'FUNCTION' AND l.identity = p.pronamespace::regnamespace || '.' || p.proname
            )
        """
    ).fetchall()

    assert unlisted == []


def test_the_list_of_rules_names_nothing_that_is_not_there(conn: Connection) -> None:
    missing = conn.execute(
        "SELECT l.identity FROM bisonsync_private.access_list() AS l WHERE CASE l.kind"
        " WHEN 'SCHEMA' THEN to_regnamespace(l.identity) IS NULL"
        " WHEN 'FUNCTION' THEN to_regproc(l.identity) IS NULL ELSE to_regclass(l.identity) IS NULL END"
        " UNION ALL SELECT l.identity || '.' || c.name FROM bisonsync_private.access_list() AS l"
        " CROSS JOIN LATERAL unnest(l.reader_columns) AS c (name) WHERE c.name <> '*' AND NOT EXISTS ("
        "SELECT FROM pg_attribute AS a WHERE a.attrelid = to_regclass(l.identity) AND a.attname = c.name)"
    ).fetchall()

    assert missing == []


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_outsiders_may_nothing(as_role: Connection, role: str) -> None:
    for query in (*DASHBOARDS, *NEVER_FOR_READERS):
        with pytest.raises(pg.InsufficientPrivilege):
            ask(as_role, role, query, READER)


def test_service_role_writes_all_but_the_tokens(as_role: Connection) -> None:
    for query in (*DASHBOARDS, "SELECT 1 FROM data_validation_errors", "SELECT cleanup_old_email_sync_logs()"):
        assert ask(as_role, "service_role", query), query
    for table in ("client_registry", "sender_emails_cache", "email_sync_logs", "data_validation_errors", "job_leases"):
        ask(as_role, "service_role", f"DELETE FROM {table}")
    inserted = ask(
        as_role,
        "service_role",
        "INSERT INTO data_validation_errors (source, error_type) VALUES ('x', 'y') RETURNING source",
    )
    assert inserted == [("x",)]
    for query in ("SELECT token FROM bisonsync_private.workspace_tokens", "TRUNCATE sender_emails_cache"):
        with pytest.raises(pg.InsufficientPrivilege):
            ask(as_role, "service_role", query)


def test_service_role_that_does_not_bypass_row_security_writes_too(empty: Connection, supabase_server: str) -> None:
    with psycopg.connect(supabase_server, dbname=empty.info.dbname, autocommit=True) as superuser:
        superuser.execute("ALTER ROLE service_role NOBYPASSRLS")
        try:
            migrations.apply_all(empty)
            ask(
                superuser,
                "service_role",
                "INSERT INTO job_leases (job, bison_instance, bison_workspace_id) VALUES ('a', 'a', 1)",
            )
            with empty.transaction():
                assert schema_objects.apply_access(empty, ()) == []
        finally:
            superuser.execute("ALTER ROLE service_role BYPASSRLS")
    with empty.transaction():
        assert any("DROP POLICY bisonsync_service" in statement for statement in schema_objects.apply_access(empty, ()))
    assert empty.execute("SELECT count(*) FROM pg_policy").fetchone() == (0,)


@pytest.mark.parametrize("role", ["metabase", "authenticated"])
def test_a_role_named_as_reader_reads_the_dashboards_and_nothing_else(
    conn: Connection, as_role: Connection, role: str
) -> None:
    migrations.apply_all(conn, role)

    for query in DASHBOARDS:
        assert ask(as_role, role, query), query
    for query in NEVER_FOR_READERS:
        with pytest.raises(pg.InsufficientPrivilege):
            ask(as_role, role, query)
    for query in DASHBOARDS:
        with pytest.raises(pg.InsufficientPrivilege):
            ask(as_role, "anon", query)


def test_user_ids_named_as_readers_read_and_other_users_see_nothing(conn: Connection, as_role: Connection) -> None:
    migrations.apply_all(conn, [READER.upper()])

    # What sums up has a row even of nothing.
    tables = [query for query in DASHBOARDS if "get_" not in query and "_summary" not in query]
    for query in tables:
        assert ask(as_role, "authenticated", query, READER), query
        assert ask(as_role, "authenticated", query, STRANGER) == [], query
        assert ask(as_role, "authenticated", query) == [], query
        with pytest.raises(pg.InsufficientPrivilege):
            ask(as_role, "anon", query, READER)
    assert ask(as_role, "authenticated", "SELECT total FROM get_account_status_stats()", READER) == [(1,)]
    assert ask(as_role, "authenticated", "SELECT total FROM get_account_status_stats()", STRANGER) == [(0,)]
    assert ask(as_role, "authenticated", "SELECT score > 0 FROM dashboard_health_summary", READER) == [(True,)]
    assert ask(as_role, "authenticated", "SELECT score FROM dashboard_health_summary", STRANGER) == [(0,)]
    for query in NEVER_FOR_READERS:
        with pytest.raises(pg.InsufficientPrivilege):
            ask(as_role, "authenticated", query, READER)


def test_another_reader_takes_the_place_of_the_first(conn: Connection, as_role: Connection) -> None:
    migrations.apply_all(conn, "metabase")
    migrations.apply_all(conn, "analyst")

    assert ask(as_role, "analyst", "SELECT 1 FROM infrastructure_dashboard")
    with pytest.raises(pg.InsufficientPrivilege):
        ask(as_role, "metabase", "SELECT 1 FROM infrastructure_dashboard")
    migrations.apply_all(conn)
    with pytest.raises(pg.InsufficientPrivilege):
        ask(as_role, "analyst", "SELECT 1 FROM infrastructure_dashboard")
    assert conn.execute("SELECT count(*) FROM pg_policy").fetchone() == (0,)


@pytest.mark.parametrize("readers", [(), "metabase", "authenticated", [READER, STRANGER]])
def test_the_same_readers_again_write_nothing(conn: Connection, readers: str | list[str]) -> None:
    migrations.apply_all(conn, readers)

    with conn.transaction():
        migrations.refresh_objects(conn, read_schema_files(), readers)
        row = conn.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()

    assert row == (None,)


def test_every_policy_has_a_comment(conn: Connection) -> None:
    migrations.apply_all(conn, [READER])

    rows = conn.execute("SELECT polname, obj_description(oid, 'pg_policy') FROM pg_policy").fetchall()

    assert rows
    assert all(READER in remark for _, remark in rows)


@pytest.mark.parametrize(
    ("readers", "message"),
    [
        ("anon", "anon may never read"),
        ("no_such_role", 'no role "no_such_role"'),
        ([READER, "someone@example.com"], '"someone@example.com" is not a user id'),
    ],
)
def test_wrong_readers_are_a_configuration_error(conn: Connection, readers: str | list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught, conn.transaction():
        migrations.refresh_objects(conn, read_schema_files(), readers)

    assert caught.value.exit_code == 4
    assert "[access]" in caught.value.message
    assert conn.execute("SELECT count(*) FROM pg_policy").fetchone() == (0,)


def test_a_right_given_to_outsiders_later_is_taken_back(conn: Connection) -> None:
    conn.execute(
        "GRANT ALL ON sender_emails_cache TO anon; GRANT SELECT (token) ON bisonsync_private.workspace_tokens TO PUBLIC"
    )
    conn.execute(
        "GRANT EXECUTE ON FUNCTION get_email_sync_health() TO PUBLIC; GRANT USAGE ON SCHEMA bisonsync_private TO anon"
    )
    conn.execute(
        "ALTER TABLE sender_emails_cache DISABLE ROW LEVEL SECURITY; REVOKE SELECT ON job_leases FROM service_role"
    )
    assert len(schema_objects.list_access_changes(conn, ())) == 6

    migrations.apply_all(conn)

    assert rights_of_outsiders(conn) == []
    assert schema_objects.list_access_changes(conn, ()) == []


def test_a_readers_table_grant_on_top_of_columns_leaves_the_columns(conn: Connection, as_role: Connection) -> None:
    migrations.apply_all(conn, "metabase")
    conn.execute("GRANT SELECT ON workspace_sync_state TO metabase")

    migrations.apply_all(conn, "metabase")

    assert ask(as_role, "metabase", "SELECT verdict FROM workspace_sync_state")
    with pytest.raises(pg.InsufficientPrivilege):
        ask(as_role, "metabase", "SELECT last_error FROM workspace_sync_state")


def test_a_view_made_again_keeps_its_grants_and_stays_closed(conn: Connection, as_role: Connection, sql: Path) -> None:
    conn.execute(
        "GRANT SELECT ON data_freshness TO metabase; GRANT SELECT ON data_cache_metadata TO analyst WITH GRANT OPTION"
    )
    path = sql / "views" / "data_freshness.sql"
    path.write_text(path.read_text().replace("s.total,", "s.total + 0.5 AS total,"))

    with conn.transaction():
        names = migrations.refresh_objects(conn, read_schema_files(sql)).objects

    assert names == (
        "public.data_freshness",
        "public.dashboard_health_summary",
        "public.data_cache_metadata",
    )
    assert rights_of_outsiders(conn) == []
    rights = conn.execute(
        "SELECT has_table_privilege('metabase', 'data_freshness', 'SELECT'),"
        " has_table_privilege('analyst', 'data_cache_metadata', 'SELECT WITH GRANT OPTION'),"
        " has_table_privilege('service_role', 'data_freshness', 'SELECT')"
    ).fetchone()
    assert rights == (True, True, True)


def test_service_role_may_ingest_without_entering_the_private_schema(as_role: Connection) -> None:
    body = '{"event": {"type": "LEAD_REPLIED", "workspace_id": 1}, "data": {"reply": {"id": 1}}}'

    assert ask(as_role, "service_role", f"SELECT ingest_webhook('{body}') ->> 'status'") == [("processed",)]
    assert len(ask(as_role, "service_role", "SELECT increment_metric('One', 'replies_mtd', 3)")) == 1
    with pytest.raises(pg.InsufficientPrivilege):
        ask(as_role, "service_role", "SELECT 1 FROM bisonsync_private.webhook_secrets")


def test_realtime_publishes_the_dashboards_tables(conn: Connection) -> None:
    published = conn.execute(
        "SELECT tablename FROM pg_publication_tables WHERE pubname = 'supabase_realtime' ORDER BY 1"
    ).fetchall()

    assert published == [
        ("campaigns_cache",),
        ("client_leads",),
        ("client_metrics",),
        ("client_registry",),
        ("provider_performance_history",),
        ("sender_emails_cache",),
        ("workspace_sync_state",),
    ]
    assert schema_objects.list_unpublished(conn) == []


def test_a_publication_of_all_tables_is_left_as_it_is(empty: Connection, supabase_server: str) -> None:
    with psycopg.connect(supabase_server, dbname=empty.info.dbname, autocommit=True) as superuser:
        superuser.execute("DROP PUBLICATION supabase_realtime; CREATE PUBLICATION supabase_realtime FOR ALL TABLES")

    migrations.apply_all(empty)

    assert empty.execute("SELECT puballtables FROM pg_publication").fetchall() == [(True,)]


def test_a_publication_of_somebody_else_does_not_stop_migrate(empty: Connection, supabase_server: str) -> None:
    with psycopg.connect(supabase_server, dbname=empty.info.dbname, autocommit=True) as superuser:
        superuser.execute("DROP PUBLICATION supabase_realtime; CREATE PUBLICATION supabase_realtime")

    migrations.apply_all(empty)

    assert empty.execute("SELECT count(*) FROM pg_publication_tables").fetchone() == (0,)
    assert schema_objects.list_unpublished(empty) == [
        "public.campaigns_cache",
        "public.client_leads",
        "public.client_metrics",
        "public.client_registry",
        "public.provider_performance_history",
        "public.sender_emails_cache",
        "public.workspace_sync_state",
    ]


@pytest.mark.parametrize(
    ("leak", "subject", "detail"),
    [
        ("GRANT SELECT ON sender_emails_cache TO anon", "public.sender_emails_cache", "anon may SELECT"),
        ("GRANT INSERT ON alert_messages TO authenticated", "public.alert_messages", "authenticated may INSERT"),
    ],
)
def test_health_is_critical_when_outsiders_may_look_or_write(
    conn: Connection, supabase_server: str, leak: str, subject: str, detail: str
) -> None:
    dsn = psycopg.conninfo.make_conninfo(supabase_server, dbname=conn.info.dbname, user="owner_of_all")
    assert examine(dsn, "access").state == "OK"

    conn.execute(leak.encode())
    result = examine(dsn, "access")

    assert (result.state, result.hint) == ("CRITICAL", "bisonsync migrate")
    assert [(each.subject, each.detail) for each in result.findings] == [(subject, detail)]
    migrations.apply_all(conn)
    assert examine(dsn, "access").state == "OK"
