"""What a role, a database, a pooler or another program has set for a session counts neither in our transactions nor in
the functions that others call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from cli import environment
from conftest import database
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from bisonsync.clock import SystemClock
from bisonsync.queries import load_queries, sql_dir
from bisonsync.store import schema_objects
from bisonsync.store.db import Database

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]

# What others may call and what makes or reads texts of dates pins all that its result depends on. Not these: one is
# arithmetic on its arguments alone, the other is part of larger statements and holds no text of a date or number.
BARE = {"public.fall_p_value", "public.daily_differences"}
MAKERS = {
    "bisonsync_private.partition_bounds",
    "bisonsync_private.missing_partitions",
    "bisonsync_private.make_partition",
    "bisonsync_private.make_partition_table",
    "bisonsync_private.make_daily_partitions",
    "bisonsync_private.make_delivery_partitions",
    "bisonsync_private.daily_partitions",
    "bisonsync_private.delivery_partitions",
    "bisonsync_private.drop_daily_partition",
    "bisonsync_private.drop_delivery_partition",
    "bisonsync_private.slim_delivery_partition",
}
PINNED = {
    "search_path": "pg_catalog, pg_temp",
    "jit": "off",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
}
# Each away from its default, in the way that does most harm.
HOSTILE = {
    "search_path": "nowhere",
    "datestyle": "SQL, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Shanghai",
    "client_encoding": "SQL_ASCII",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "array_nulls": "off",
    "backslash_quote": "off",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "exit_on_error": "on",
    "default_tablespace": "pg_default",
    "jit": "on",
    "statement_timeout": "1h",
    "lock_timeout": "1h",
    "idle_in_transaction_session_timeout": "1h",
}


@pytest.fixture(scope="module")
def migrated(server: Connection, server_dsn: str, template: str) -> Iterator[str]:
    """One database for all: nothing here leaves anything behind."""
    with database(server, server_dsn, template) as dsn:
        yield dsn


@pytest.fixture
def conn(migrated: str) -> Iterator[Connection]:
    with psycopg.connect(migrated, autocommit=True) as connection:
        yield connection


def made_hostile(server: Connection, dsn: str, settings: dict[str, str]) -> None:
    name = Identifier(conninfo_to_dict(dsn)["dbname"] or "")
    for setting, value in settings.items():
        server.execute(SQL("ALTER DATABASE {} SET {} = {}").format(name, Identifier(setting), Literal(value)))


def test_every_function_that_others_call_pins_what_its_result_depends_on(conn: Connection) -> None:
    rows = conn.execute(
        "SELECT n.nspname || '.' || p.proname, coalesce(p.proconfig, '{}') FROM pg_proc AS p"
        " INNER JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname IN ('public', 'bisonsync_private')"
    ).fetchall()
    settings = {
        name: {key.lower(): value.replace('"', "") for key, _, value in (entry.partition("=") for entry in config)}
        for name, config in rows
    }

    called = {name for name in settings if name.startswith("public.")} - BARE
    lacking = {name: PINNED.items() - settings[name].items() for name in called | MAKERS}

    assert called >= {"public.ingest_webhook", "public.increment_metric", "public.performance_by"}
    assert {name: missing for name, missing in lacking.items() if missing} == {}


def test_no_function_forbids_a_plan_without_forbidding_the_compiler(conn: Connection) -> None:
    rows = conn.execute("SELECT proname, proconfig FROM pg_proc WHERE proconfig::text LIKE '%enable\\_%'").fetchall()

    assert {name for name, config in rows if "jit=off" not in config} == set()
    assert {name for name, _ in rows} >= {"process_deliveries", "receive_deliveries"}


def test_no_plan_is_forbidden_but_in_transactions_and_functions_that_pin_the_compiler() -> None:
    """A query may forbid a plan for its transaction alone: those of ``Database.run`` have no compiler."""
    spelled = [
        (path.name, text)
        for path in sql_dir().rglob("*.sql")
        for text in re.findall(r"^.*enable_\w+.*$", path.read_text(), re.MULTILINE)
        if not text.lstrip().startswith("--")
    ]

    assert spelled
    for name, text in spelled:
        assert re.fullmatch(r"SET enable_\w+ = off|SELECT set_config\('enable_\w+', 'off', true\);", text), name


def test_a_transaction_has_the_same_settings_whatever_the_database_says(
    server: Connection, db: str, request: pytest.FixtureRequest
) -> None:
    def settings_within(conn: Connection) -> list[tuple[str, str]]:
        return conn.execute(
            "SELECT name, setting FROM pg_settings"
            " WHERE name = any(%s) AND context IN ('user', 'superuser') ORDER BY name",
            [[*HOSTILE, "transaction_isolation", "transaction_timeout", "restrict_nonsystem_relation_kind"]],
        ).fetchall()

    def read() -> list[tuple[str, str]]:
        database = Database(environment(db)["BISONSYNC_DATABASE_URL"], application_name="test", clock=SystemClock())
        request.addfinalizer(database.close)
        return database.run(settings_within)

    newer = {"transaction_timeout": "1h", "restrict_nonsystem_relation_kind": "view, foreign-table"}
    known = {name for (name,) in server.execute("SELECT name FROM pg_settings").fetchall()}
    before = dict(read())
    made_hostile(server, db, HOSTILE | {name: value for name, value in newer.items() if name in known})
    after = dict(read())

    defaults = {"default_transaction_isolation": "serializable"}
    assert after == before | defaults
    assert after["transaction_isolation"] == "read committed"
    assert after["search_path"] == "public, pg_temp"
    assert isinstance(after["jit"], str)


def test_a_transaction_leaves_nothing_behind_in_its_session(migrated: str) -> None:
    """A pooler hands the same session to the next client."""
    database = Database(migrated, application_name="test", clock=SystemClock(), max_connections=1)
    looked = "SELECT name, setting, source FROM pg_settings WHERE source = 'session'"
    database.run(lambda conn: conn.execute("SELECT 1"))

    with database.connect() as fresh:
        untouched = fresh.execute(looked).fetchall()
    conn = database._take()
    left = conn.execute(looked).fetchall()
    conn.close()
    database.close()

    assert left == untouched


def test_a_shadowed_function_of_postgres_is_not_called(server: Connection, db: str) -> None:
    with psycopg.connect(db, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA shadow")
        conn.execute(
            "CREATE FUNCTION shadow.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'the shadow was called'; END $$"
        )
    made_hostile(server, db, {"search_path": "shadow, pg_catalog"})
    database = Database(db, application_name="test", clock=SystemClock())

    row = database.run(lambda conn: conn.execute("SELECT current_setting('search_path')").fetchone())
    database.close()

    assert row == ("public, pg_temp",)


def test_access_rules_say_the_same_however_names_are_spelled(db: str) -> None:
    with psycopg.connect(db, autocommit=True) as conn:
        conn.execute("GRANT EXECUTE ON FUNCTION bisonsync_private.processor_version() TO PUBLIC")
        conn.execute("GRANT SELECT ON client_leads TO PUBLIC")

        plain = schema_objects.list_access_changes(conn, [])
        conn.execute("SET quote_all_identifiers = on")
        quoted = schema_objects.list_access_changes(conn, [])

    assert quoted == plain
    assert len(plain) == 2


def test_migrate_looks_at_the_outcome_and_not_only_at_its_rules(db: str) -> None:
    with psycopg.connect(db, autocommit=True) as conn:
        conn.execute("GRANT EXECUTE ON FUNCTION bisonsync_private.processor_version() TO PUBLIC")

        exposed = conn.execute(load_queries("schema_objects")["list_exposed"]).fetchall()
        conn.execute("SET quote_all_identifiers = on")
        quoted = conn.execute(load_queries("schema_objects")["list_exposed"]).fetchall()

    assert exposed == quoted == [("bisonsync_private.processor_version",)]
