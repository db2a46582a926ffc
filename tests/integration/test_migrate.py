"""``migrate``: every step, every refusal, and two of them at once, on a real Postgres."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import named
from psycopg.sql import SQL, Identifier

from bisonsync.errors import DatabaseError, SchemaMismatch
from bisonsync.jobs import migrate
from bisonsync.queries import sql_dir
from bisonsync.store import migrations
from bisonsync.store.db import Database
from bisonsync.store.schema_files import read_schema_files

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]


class StillClock:
    """Time that stands; ``sleep`` does what the test says instead of waiting."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        self._on_sleep = on_sleep

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self._on_sleep()

    def check(self) -> None:
        pass


@pytest.fixture
def open_database() -> Iterator[Callable[..., Database]]:
    opened: list[Database] = []

    def open_database(dsn: str, clock: StillClock | None = None) -> Database:
        opened.append(Database(dsn, application_name="bisonsync test", clock=clock or StillClock()))
        return opened[-1]

    yield open_database
    for database in opened:
        database.close()


@pytest.fixture
def empty(empty_db: str, open_database: Callable[..., Database]) -> Database:
    """A database that migrate has never seen."""
    return open_database(empty_db)


@pytest.fixture
def migrated(db: str, open_database: Callable[..., Database]) -> Database:
    return open_database(db)


@pytest.fixture
def observer(empty_db: str) -> Iterator[Connection]:
    """Looks at the database of ``empty`` from beside."""
    with psycopg.connect(empty_db, autocommit=True) as connection:
        yield connection


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """A copy of the package's SQL that a test may change."""
    return shutil.copytree(sql_dir(), tmp_path / "sql")


def relations(conn: Connection) -> set[str]:
    return {
        name
        for (name,) in conn.execute(
            "SELECT c.oid::regclass::text FROM pg_class AS c INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('public', 'bisonsync_private')"
        )
    }


def test_up_makes_everything_and_says_what(empty: Database, observer: Connection) -> None:
    files = read_schema_files()
    assert migrate.status(empty).verdict == "differences"

    result = migrate.up(empty)

    assert result.applied == tuple(item.name for item in files.migrations)
    assert result.objects_changed == tuple(item.name for item in files.objects)
    assert result.verdict == "success"
    assert {"sender_emails_cache", "email_accounts_live", "bisonsync_private.workspace_tokens"} <= relations(observer)
    recorded = observer.execute("SELECT version, name, checksum FROM bisonsync_migrations ORDER BY version").fetchall()
    assert recorded == [(item.version, item.name, item.checksum) for item in files.migrations]


def test_plan_and_status_change_nothing(empty: Database, observer: Connection) -> None:
    plan, status = migrate.plan(empty), migrate.status(empty)

    assert relations(observer) == set()
    assert plan.pending == status.pending == tuple(item.name for item in read_schema_files().migrations)
    assert plan.applied == status.applied == ()
    assert (plan.verdict, status.verdict) == ("success", "differences")


def test_after_up_nothing_is_left_to_do(empty: Database) -> None:
    migrate.up(empty)

    again, status = migrate.up(empty), migrate.status(empty)

    assert (again.applied, again.objects_changed, again.access_changes) == ((), (), ())
    assert (status.pending, status.objects_changed, status.access_changes) == ((), (), ())
    assert status.applied == tuple(item.name for item in read_schema_files().migrations)
    assert status.verdict == "success"


def test_up_makes_a_week_of_partitions_for_deliveries_ahead(empty: Database, observer: Connection) -> None:
    planned = migrate.plan(empty)

    done = migrate.up(empty)

    assert len(done.partitions) == 9 and set(done.partitions) <= relations(observer)
    assert planned.partitions == done.partitions
    # Each new day lacks one again, which is no reason to call for a migrate.
    observer.execute(f"DROP TABLE {done.partitions[-1]}".encode())
    assert (migrate.status(empty).verdict, migrate.plan(empty).partitions) == ("success", done.partitions[-1:])
    assert migrate.up(empty).partitions == done.partitions[-1:]


def test_a_second_up_writes_nothing(empty: Database, observer: Connection) -> None:
    files = read_schema_files()
    migrate.up(empty)

    with observer.transaction():
        migrations.apply_next(observer, files)
        migrations.refresh_objects(observer, files)
        row = observer.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()

    assert row == (None,)


def test_a_failing_migration_leaves_nothing_of_itself(empty: Database, observer: Connection, sql: Path) -> None:
    (sql / "migrations" / "0900_bad.sql").write_text("CREATE TABLE public.half (id int);\nSELECT 1 / 0;\n")

    with pytest.raises(DatabaseError, match=r"0900_bad\.sql failed.*division by zero") as caught:
        migrate.up(empty, files=read_schema_files(sql))

    assert caught.value.exit_code == 6
    assert "half" not in relations(observer)
    assert "sender_emails_cache" in relations(observer)
    assert migrate.status(empty, files=read_schema_files(sql)).pending == ("0900_bad.sql",)


def test_a_changed_file_is_refused_by_name(empty: Database, observer: Connection, sql: Path) -> None:
    migrate.up(empty, files=read_schema_files(sql))
    path = sql / "migrations" / "0001_initial.sql"
    path.write_text(path.read_text() + "\nSELECT 1;\n")
    (sql / "migrations" / "0900_new.sql").write_text("CREATE TABLE public.newcomer (id int);")

    for command in (migrate.up, migrate.plan, migrate.status):
        with pytest.raises(SchemaMismatch, match=r"0001_initial\.sql was changed") as caught:
            command(empty, files=read_schema_files(sql))

    assert caught.value.exit_code == 6
    assert "restore" in caught.value.hint
    assert "newcomer" not in relations(observer)


def test_other_line_ends_are_no_change(empty: Database, sql: Path) -> None:
    migrate.up(empty, files=read_schema_files(sql))
    for path in [
        *(sql / "migrations").glob("*.sql"),
        *(sql / "views").glob("*.sql"),
        *(sql / "functions").glob("*.sql"),
    ]:
        path.write_bytes(path.read_bytes().replace(b"\n", b" \r\n") + b"\r\n\r\n")

    result = migrate.up(empty, files=read_schema_files(sql))

    assert (result.applied, result.objects_changed) == ((), ())


def test_a_renamed_file_is_refused(empty: Database, sql: Path) -> None:
    migrate.up(empty, files=read_schema_files(sql))
    (sql / "migrations" / "0001_initial.sql").rename(sql / "migrations" / "0001_first.sql")

    with pytest.raises(SchemaMismatch, match=r"0001_first\.sql.*0001_initial\.sql"):
        migrate.up(empty, files=read_schema_files(sql))


def test_a_missing_file_is_refused_by_name(empty: Database, sql: Path) -> None:
    migrate.up(empty, files=read_schema_files(sql))
    (sql / "migrations" / "0001_initial.sql").unlink()

    with pytest.raises(SchemaMismatch, match=r"0001_initial\.sql.*missing") as caught:
        migrate.up(empty, files=read_schema_files(sql))

    assert "install bisonsync again" in caught.value.hint


def test_a_database_of_a_newer_version_is_refused(empty: Database, sql: Path) -> None:
    (sql / "migrations" / "0900_future.sql").write_text("SELECT 1;")
    migrate.up(empty, files=read_schema_files(sql))

    with pytest.raises(SchemaMismatch, match=r"0900_future\.sql") as caught:
        migrate.up(empty)

    assert "upgrade bisonsync" in caught.value.hint


def test_a_late_file_is_refused(empty: Database, observer: Connection, sql: Path) -> None:
    (sql / "migrations" / "0900_new.sql").write_text("SELECT 1;")
    migrate.up(empty, files=read_schema_files(sql))
    (sql / "migrations" / "0800_late.sql").write_text("CREATE TABLE public.late (id int);")

    with pytest.raises(SchemaMismatch, match=r"0800_late\.sql is out of order"):
        migrate.up(empty, files=read_schema_files(sql))

    assert "late" not in relations(observer)


def test_an_earlier_systems_objects_are_all_named_and_left_alone(empty: Database, observer: Connection) -> None:
    observer.execute(
        "CREATE TABLE sender_emails_cache (id int);"
        " CREATE TABLE other_table (id int);"
        " CREATE VIEW email_accounts_live AS SELECT 1 AS one;"
        " CREATE MATERIALIZED VIEW data_freshness AS SELECT 1 AS one;"
        " CREATE FUNCTION get_email_sync_health() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    before = relations(observer)

    for command in (migrate.up, migrate.plan, migrate.status):
        with pytest.raises(SchemaMismatch) as caught:
            command(empty)

        message = caught.value.message
        assert caught.value.exit_code == 6
        assert "table public.sender_emails_cache" in message
        assert "materialized view public.data_freshness" in message
        assert ", view public.email_accounts_live" in message
        assert "function public.get_email_sync_health" in message
        assert "other_table" not in message
    assert relations(observer) == before


def test_a_later_migration_does_not_take_over_a_foreign_table(empty: Database, observer: Connection, sql: Path) -> None:
    migrate.up(empty, files=read_schema_files(sql))
    observer.execute("CREATE TABLE campaigns_elsewhere (id int)")
    (sql / "migrations" / "0900_new.sql").write_text("CREATE TABLE public.campaigns_elsewhere (id bigint);")

    with pytest.raises(SchemaMismatch, match=r"table public\.campaigns_elsewhere"):
        migrate.up(empty, files=read_schema_files(sql))


def test_a_migration_may_make_a_table_of_ours_again(empty: Database, observer: Connection, sql: Path) -> None:
    migrate.up(empty, files=read_schema_files(sql))
    (sql / "migrations" / "0900_again.sql").write_text(
        "DROP TABLE public.rate_budgets;\nCREATE TABLE public.rate_budgets (id bigint PRIMARY KEY);"
    )

    assert migrate.up(empty, files=read_schema_files(sql)).applied == ("0900_again.sql",)


def test_another_tools_history_is_left_alone(empty: Database, observer: Connection) -> None:
    observer.execute(
        "CREATE TABLE schema_migrations (version text); INSERT INTO schema_migrations VALUES ('20260101');"
        " CREATE SCHEMA supabase_migrations; CREATE TABLE supabase_migrations.schema_migrations (version text)"
    )

    migrate.up(empty)

    assert observer.execute("SELECT version FROM schema_migrations").fetchall() == [("20260101",)]
    assert observer.execute("SELECT count(*) FROM supabase_migrations.schema_migrations").fetchone() == (0,)


def test_a_foreign_table_of_our_ledgers_name_is_refused(empty: Database, observer: Connection) -> None:
    observer.execute("CREATE TABLE bisonsync_migrations (id int)")

    with pytest.raises(SchemaMismatch, match="bisonsync_migrations is not the one"):
        migrate.up(empty)

    assert relations(observer) == {"bisonsync_migrations"}


def test_f23_two_migrates_at_once_apply_each_file_once(
    empty_db: str, observer: Connection, open_database: Callable[..., Database]
) -> None:
    start = threading.Barrier(2)
    databases = [open_database(empty_db), open_database(empty_db)]

    def work(database: Database) -> migrate.Result:
        start.wait()
        return migrate.up(database)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, databases))

    files = tuple(item.name for item in read_schema_files().migrations)
    assert sorted(name for result in results for name in result.applied) == list(files)
    assert observer.execute("SELECT count(*) FROM bisonsync_migrations").fetchone() == (len(files),)
    assert migrate.status(databases[0]).verdict == "success"


def test_f17_a_migrate_that_never_ends_is_waited_for_within_bounds(
    empty: Database, empty_db: str, observer: Connection
) -> None:
    with psycopg.connect(empty_db) as other:
        migrations.take_lock(other)
        with pytest.raises(DatabaseError, match="another 'bisonsync migrate' is at work") as caught:
            migrate.up(empty, lock_timeout_seconds=0.02, lock_attempts=3)

    assert caught.value.exit_code == 6
    assert relations(observer) == set()
    assert migrate.up(empty).verdict == "success"


def test_f17_a_lock_held_by_a_session_is_waited_for_within_bounds(
    empty_db: str, observer: Connection, sql: Path, open_database: Callable[..., Database]
) -> None:
    tries: list[int] = []
    database = open_database(empty_db, StillClock(on_sleep=lambda: tries.append(1)))
    migrate.up(database)
    (sql / "migrations" / "0900_add.sql").write_text("ALTER TABLE public.client_registry ADD COLUMN later text;")

    with psycopg.connect(empty_db) as other:
        other.execute("LOCK TABLE client_registry IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseError, match="lock") as caught:
            migrate.up(database, files=read_schema_files(sql), lock_timeout_seconds=0.02, lock_attempts=3)

    assert caught.value.exit_code == 6
    assert len(tries) == 2
    assert observer.execute("SELECT count(*) FROM bisonsync_migrations WHERE version = 900").fetchone() == (0,)
    assert migrate.up(database, files=read_schema_files(sql)).applied == ("0900_add.sql",)


def test_f17_a_lock_that_comes_free_costs_only_a_retry(
    empty_db: str, sql: Path, open_database: Callable[..., Database]
) -> None:
    migrate.up(open_database(empty_db))
    (sql / "migrations" / "0900_add.sql").write_text("ALTER TABLE public.client_registry ADD COLUMN later text;")

    with psycopg.connect(empty_db) as other:
        other.execute("LOCK TABLE client_registry IN ACCESS SHARE MODE")
        database = open_database(empty_db, StillClock(on_sleep=other.rollback))
        result = migrate.up(database, files=read_schema_files(sql), lock_timeout_seconds=0.02)

    assert result.applied == ("0900_add.sql",)


def test_limits_end_with_the_transaction(empty_db: str) -> None:
    with psycopg.connect(empty_db, autocommit=True) as conn:
        before = conn.execute("SELECT name, setting FROM pg_settings WHERE name ~ 'timeout|search_path'").fetchall()
        migrations.apply_all(conn)
        after = conn.execute("SELECT name, setting FROM pg_settings WHERE name ~ 'timeout|search_path'").fetchall()
        locks = conn.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ).fetchone()

    assert after == before
    assert locks == (0,)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused_before_anything_is_written(
    encoding: str, server: Connection, server_dsn: str, open_database: Callable[..., Database]
) -> None:
    name = Identifier(f"test_{encoding.lower()}_{uuid.uuid4().hex[:8]}")
    server.execute(SQL("CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0").format(name, encoding))
    database = open_database(named(server_dsn, name.as_string(None).strip('"')))

    with pytest.raises(DatabaseError, match=f"encoding is {encoding}") as refused:
        migrate.up(database)
    tables = database.run(
        lambda conn: conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    )
    database.close()
    server.execute(SQL("DROP DATABASE {}").format(name))

    assert "ENCODING 'UTF8'" in (refused.value.hint or "")
    assert tables == (0,)


def test_no_right_to_migrate_is_a_clear_error(
    empty_db: str, server: Connection, open_database: Callable[..., Database]
) -> None:
    role = empty_db.rpartition("/")[2]
    server.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
    try:
        with pytest.raises(DatabaseError, match="permission denied") as caught:
            migrate.up(open_database(psycopg.conninfo.make_conninfo(empty_db, user=role)))
    finally:
        server.execute(SQL("DROP ROLE {}").format(Identifier(role)))

    assert caught.value.exit_code == 6
    assert "owner" in caught.value.hint


def test_a_changed_view_is_replaced_and_keeps_what_stands_on_it(
    migrated: Database, conn: Connection, sql: Path
) -> None:
    conn.execute("CREATE VIEW mine AS SELECT state FROM data_freshness")
    path = sql / "views" / "data_freshness.sql"
    path.write_text(path.read_text().replace("    b.job\n", "    b.job,\n    1 AS more\n"))

    result = migrate.up(migrated, files=read_schema_files(sql))

    assert result.objects_changed == ("public.data_freshness",)
    assert conn.execute("SELECT more FROM data_freshness").fetchall() == []
    assert conn.execute("SELECT state FROM mine").fetchall() == []
    assert migrate.up(migrated, files=read_schema_files(sql)).objects_changed == ()


def renamed_column(sql: Path) -> None:
    path = sql / "views" / "data_freshness.sql"
    path.write_text(
        path.read_text()
        .replace("AS age_seconds", "AS age_in_seconds")
        .replace("freshness.age_seconds", "freshness.age_in_seconds")
    )
    path = sql / "views" / "data_cache_metadata.sql"
    path.write_text(path.read_text().replace("f.age_seconds", "f.age_in_seconds AS age_seconds"))
    path = sql / "views" / "dashboard_health_summary.sql"
    path.write_text(path.read_text().replace("f.age_seconds", "f.age_in_seconds"))


def test_a_view_whose_columns_change_is_made_again_with_ours_on_it(
    migrated: Database, conn: Connection, sql: Path
) -> None:
    renamed_column(sql)

    result = migrate.up(migrated, files=read_schema_files(sql))

    assert set(result.objects_changed) == {
        "public.data_freshness",
        "public.dashboard_health_summary",
        "public.data_cache_metadata",
    }
    assert conn.execute("SELECT age_in_seconds FROM data_freshness").fetchall() == []
    assert conn.execute("SELECT age_seconds FROM data_cache_metadata").fetchall() == []
    assert migrate.up(migrated, files=read_schema_files(sql)).objects_changed == ()


def test_a_users_view_on_top_is_named_and_nothing_is_changed(migrated: Database, conn: Connection, sql: Path) -> None:
    conn.execute("CREATE VIEW mine AS SELECT age_seconds FROM data_cache_metadata")
    renamed_column(sql)
    path = sql / "functions" / "get_account_status_stats.sql"
    path.write_text(path.read_text().replace("One row of counts", "A row of counts"))

    with pytest.raises(
        SchemaMismatch, match=r"view public\.mine depends on view public\.data_cache_metadata"
    ) as caught:
        migrate.up(migrated, files=read_schema_files(sql))

    assert caught.value.exit_code == 6
    assert conn.execute("SELECT age_seconds FROM data_freshness").fetchall() == []
    assert conn.execute("SELECT age_seconds FROM mine").fetchall() == []
    assert (
        conn.execute("SELECT obj_description('get_account_status_stats()'::regprocedure)")
        .fetchone()[0]
        .startswith("One")
    )
    conn.execute("DROP VIEW mine")
    assert len(migrate.up(migrated, files=read_schema_files(sql)).objects_changed) == 4


def test_a_function_with_another_result_is_made_again(migrated: Database, conn: Connection, sql: Path) -> None:
    path = sql / "functions" / "cleanup_old_email_sync_logs.sql"
    path.write_text(path.read_text().replace("RETURNS integer", "RETURNS bigint"))

    result = migrate.up(migrated, files=read_schema_files(sql))

    assert result.objects_changed == ("public.cleanup_old_email_sync_logs",)
    assert conn.execute("SELECT pg_typeof(cleanup_old_email_sync_logs())::text").fetchone() == ("bigint",)


def test_a_function_with_other_arguments_leaves_no_old_one(migrated: Database, conn: Connection, sql: Path) -> None:
    path = sql / "functions" / "cleanup_old_email_sync_logs.sql"
    path.write_text(
        path.read_text()
        .replace("keep_days integer DEFAULT", "keep_days bigint DEFAULT")
        .replace("days => keep_days", "days => keep_days::integer")
        .replace("logs(integer)", "logs(bigint)")
    )

    migrate.up(migrated, files=read_schema_files(sql))

    found = conn.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'cleanup_old_email_sync_logs'"
    ).fetchall()
    assert found == [("cleanup_old_email_sync_logs(bigint)",)]
    assert migrate.up(migrated, files=read_schema_files(sql)).objects_changed == ()


def test_an_object_that_somebody_dropped_comes_back(migrated: Database, conn: Connection) -> None:
    conn.execute("DROP VIEW data_cache_metadata; DROP FUNCTION get_email_sync_health()")
    assert migrate.status(migrated).verdict == "differences"

    result = migrate.up(migrated)

    assert set(result.objects_changed) == {"public.data_cache_metadata", "public.get_email_sync_health"}


def test_an_object_that_cannot_be_made_is_named(migrated: Database, conn: Connection, sql: Path) -> None:
    path = sql / "views" / "data_freshness.sql"
    path.write_text(path.read_text().replace("s.verdict,", "s.no_such_column,"))

    with pytest.raises(DatabaseError, match=r"view public\.data_freshness could not be made.*no_such_column"):
        migrate.up(migrated, files=read_schema_files(sql))

    assert migrate.status(migrated).verdict == "success"


def test_a_migrated_database_is_accepted(conn: Connection) -> None:
    migrations.require_schema(conn)


def test_a_database_that_is_not_migrated_is_refused(observer: Connection) -> None:
    with pytest.raises(SchemaMismatch, match="not migrated") as caught:
        migrations.require_schema(observer)

    assert "bisonsync migrate" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("DELETE FROM bisonsync_migrations WHERE version = (SELECT max(version) FROM bisonsync_migrations)", "migrate"),
        ("DELETE FROM bisonsync_migrations WHERE version = 1", "migrate"),
        ("DELETE FROM bisonsync_migrations", "migrate"),
        ("UPDATE bisonsync_migrations SET version = 9000 WHERE version = 1", "upgrade bisonsync"),
        ("INSERT INTO bisonsync_migrations VALUES (9000, '9000_x.sql', '', now(), 1, '9')", "upgrade bisonsync"),
    ],
)
def test_a_database_behind_or_ahead_is_refused(conn: Connection, change: str, hint: str) -> None:
    conn.execute(change.encode())

    with pytest.raises(SchemaMismatch) as caught:
        migrations.require_schema(conn)

    assert hint in caught.value.hint
