"""Partitions made ahead: by bounds and not by names, whatever columns there are; a failure is mostly a warning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
import receiving
from cli import document, environment, run_cli
from psycopg import errors

from bisonsync.clock import SystemClock
from bisonsync.errors import DatabaseError
from bisonsync.store import partitions
from bisonsync.store.db import Database
from bisonsync.store.partitions import Ahead

Connection = psycopg.Connection[Any]

TODAY = date.min
AHEAD = [TODAY]


@pytest.fixture(autouse=True)
def days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's own: midnight may pass between two of them."""
    today = datetime.now(UTC).date()
    monkeypatch.setitem(globals(), "TODAY", today)
    monkeypatch.setitem(globals(), "AHEAD", [today + timedelta(days=days) for days in range(9)])


def inbox_name(day: date) -> str:
    return f"webhook_delivery_log_{day:%Y_%m_%d}"


def make(conn: Connection, first: date, last: date) -> list[str]:
    return partitions.make(conn, partitions.INBOX, first, last)


def make_ahead(dsn: str) -> Ahead:
    database = Database(dsn, application_name="bisonsync tests", clock=SystemClock())
    try:
        return partitions.make_days(partitions.briefly(database))
    finally:
        database.close()


def bounds(conn: Connection, table: str = "webhook_delivery_log") -> dict[str, tuple[str, str]]:
    """Every partition but the default one, in UTC."""
    rows = conn.execute(
        "SELECT partition, to_char(lower_bound, 'MM-DD HH24'), to_char(upper_bound, 'MM-DD HH24')"
        " FROM bisonsync_private.partition_bounds(%s) WHERE NOT is_default",
        [table],
    ).fetchall()
    return {name: (lower, upper) for name, lower, upper in rows}


@contextmanager
def reader(dsn: str) -> Iterator[None]:
    """A dump or report that has read the inbox and is not done."""
    with psycopg.connect(dsn, application_name="a long report") as conn:
        conn.execute("SELECT count(*) FROM webhook_delivery_log")
        yield


# A failure


@pytest.mark.parametrize("command", [["replay-webhooks"], ["migrate"], ["prune"], ["pull-events"]], ids=lambda c: c[0])
def test_a_long_reader_of_the_inbox_stops_no_command(db: str, conn: Connection, command: list[str]) -> None:
    make(conn, AHEAD[0], AHEAD[-2])
    receiving.register(conn)
    env = environment(db, **receiving.INSTANCES)

    with reader(db):
        done = run_cli(command, env)

    said = f"could not make {inbox_name(AHEAD[-1])} ahead"
    assert said in done.stderr + done.stdout and "a long report" in done.stderr + done.stdout
    assert done.returncode == (0 if command != ["pull-events"] else 4)


def test_a_long_reader_of_the_inbox_does_not_keep_the_receiver_from_listening(db: str, conn: Connection) -> None:
    make(conn, AHEAD[0], AHEAD[-2])
    receiving.register(conn)

    with reader(db), receiving.receiver(db) as running:
        assert running.stop() == 143

    assert f"warning: could not make {inbox_name(AHEAD[-1])} ahead" in running.log


def test_only_today_without_any_place_is_an_error(db: str, conn: Connection) -> None:
    make(conn, AHEAD[1], AHEAD[-1])
    with reader(db):
        assert inbox_name(TODAY) in make_ahead(db).warning

    conn.execute("DROP TABLE webhook_delivery_log_default")
    with psycopg.connect(db) as other:
        other.execute("LOCK TABLE webhook_delivery_log IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(DatabaseError, match=f"neither a partition for {TODAY} nor a default one: .*lock"):
            make_ahead(db)
        done = run_cli(["replay-webhooks"], environment(db, **receiving.INSTANCES))

    assert done.returncode == 6
    assert set(make_ahead(db).made) == {inbox_name(TODAY)}


def test_a_month_may_fail_where_somebody_has_made_a_default_one(db: str, conn: Connection) -> None:
    conn.execute("CREATE TABLE other_months PARTITION OF sender_email_daily DEFAULT")
    conn.execute("INSERT INTO sender_email_daily VALUES (%s, 'sim', 1, 7)", [TODAY])
    database = Database(db, application_name="bisonsync tests", clock=SystemClock())

    def make_this_month() -> Ahead:
        return partitions.make_months(partitions.briefly(database), TODAY, TODAY, needed=TODAY)

    with psycopg.connect(db) as other:
        other.execute("SELECT FROM sender_email_daily")
        assert f"could not make sender_email_daily_{TODAY:%Y_%m} ahead" in make_this_month().warning
    made = make_this_month()
    database.close()

    assert made == Ahead((f"sender_email_daily_{TODAY:%Y_%m}",))
    assert conn.execute("SELECT tableoid::regclass::text FROM sender_email_daily").fetchall() == [(made.made[0],)]


def test_a_day_that_cannot_be_made_keeps_no_other_from_it(db: str, conn: Connection) -> None:
    conn.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it stays'; END $$")
    conn.execute(
        "CREATE TRIGGER refuse BEFORE DELETE ON webhook_delivery_log_default FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    conn.execute("INSERT INTO webhook_delivery_log (received_at) VALUES (%s)", [AHEAD[3]])

    done = make_ahead(db)

    assert set(done.made) == {inbox_name(day) for day in AHEAD} - {inbox_name(AHEAD[3])}
    assert done.warning.startswith(f"could not make {inbox_name(AHEAD[3])} ahead: ") and "it stays" in done.warning


def test_quiet_and_json_say_it_in_their_way(db: str, conn: Connection) -> None:
    env = environment(db, **receiving.INSTANCES)
    with reader(db):
        quiet = run_cli(["replay-webhooks", "-q"], env)
        as_json = run_cli(["replay-webhooks", "--json", "-q"], env)

    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert document(as_json)["warnings"][0].startswith("could not make webhook_delivery_log_")


# Bounds


def test_what_a_partition_of_another_name_covers_is_there(db: str, conn: Connection) -> None:
    for table, name, first, last in (
        ("webhook_delivery_log", "inbox_of_old", "MINVALUE", f"'{AHEAD[2]}'"),
        ("webhook_delivery_log", "inbox_to_come", f"'{AHEAD[4]}'", "MAXVALUE"),
        ("sender_email_daily", "days_of_all_years", f"'{TODAY.year - 1}-01-01'", f"'{TODAY.year + 2}-01-01'"),
    ):
        conn.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({last})".encode())

    done = run_cli(["prune", "--json"], environment(db))

    assert (done.returncode, document(done)["months_made"]) == (0, [])
    assert document(done)["days_made"] == [inbox_name(AHEAD[2]), inbox_name(AHEAD[3])]
    health = run_cli(["health", "database"], environment(db))
    assert health.returncode == 0, health.stdout


def test_of_a_day_that_others_cover_in_part_the_rest_is_made(conn: Connection) -> None:
    # As a session with another DateStyle once made them: a day begins at two in the afternoon.
    conn.execute(
        "CREATE TABLE webhook_delivery_log_2026_05_01 PARTITION OF webhook_delivery_log"
        " FOR VALUES FROM ('2026-05-01 14:00+00') TO ('2026-05-02 14:00+00')"
    )
    conn.execute(
        "INSERT INTO webhook_delivery_log (received_at) VALUES ('2026-05-01 13:00+00'), ('2026-05-02 15:00+00')"
    )

    made = make(conn, date(2026, 5, 1), date(2026, 5, 3))

    assert made == [
        "webhook_delivery_log_2026_05_01_2",
        "webhook_delivery_log_2026_05_02",
        "webhook_delivery_log_2026_05_03",
    ]
    assert bounds(conn) == {
        "webhook_delivery_log_2026_05_01_2": ("05-01 00", "05-01 14"),
        "webhook_delivery_log_2026_05_01": ("05-01 14", "05-02 14"),
        "webhook_delivery_log_2026_05_02": ("05-02 14", "05-03 00"),
        "webhook_delivery_log_2026_05_03": ("05-03 00", "05-04 00"),
    }
    assert conn.execute("SELECT count(*) FROM webhook_delivery_log_default").fetchone() == (0,)


def test_a_table_that_only_has_the_name_is_no_partition(conn: Connection) -> None:
    conn.execute("SELECT bisonsync_private.make_daily_partitions('2026-05-01', '2026-06-30')")
    conn.execute("ALTER TABLE sender_email_daily DETACH PARTITION sender_email_daily_2026_05")

    made = partitions.make(conn, partitions.DAILY, date(2026, 5, 9), date(2026, 6, 9))

    assert made == ["sender_email_daily_2026_05_2"]
    assert bounds(conn, "sender_email_daily")["sender_email_daily_2026_05_2"] == ("05-01 00", "06-01 00")


@pytest.mark.parametrize(
    ("style", "zone"),
    [("SQL, DMY", "Asia/Kolkata"), ("Postgres, MDY", "Pacific/Auckland"), ("German", "America/St_Johns")],
)
def test_bounds_are_the_same_in_every_session(conn: Connection, style: str, zone: str) -> None:
    conn.execute("SELECT set_config('DateStyle', %s, false), set_config('TimeZone', %s, false)", [style, zone])

    days = make(conn, date(2026, 5, 6), date(2026, 5, 7))
    months = partitions.make(conn, partitions.DAILY, date(2026, 5, 6), date(2026, 5, 7))

    conn.execute("SET DateStyle = 'ISO'; SET TimeZone = 'UTC'")
    assert (days, months) == (
        ["webhook_delivery_log_2026_05_06", "webhook_delivery_log_2026_05_07"],
        ["sender_email_daily_2026_05"],
    )
    assert bounds(conn)[days[0]] == ("05-06 00", "05-07 00")
    assert bounds(conn, "sender_email_daily") == {months[0]: ("05-01 00", "06-01 00")}


# Columns that somebody added


def columns(conn: Connection) -> list[str]:
    """Ways in which a column is not written to, that this server knows."""
    virtual = ["text GENERATED ALWAYS AS (source || '!')"] if conn.info.server_version >= 180000 else []
    return ["text GENERATED ALWAYS AS (source || '!') STORED", *virtual]


def test_generated_columns_of_somebody_else_stop_no_partition(conn: Connection) -> None:
    make(conn, TODAY, TODAY)
    old, older = TODAY - timedelta(days=20), TODAY - timedelta(days=100)
    make(conn, older, older)
    for number, column in enumerate(columns(conn)):
        conn.execute(f"ALTER TABLE webhook_delivery_log ADD COLUMN added_{number} {column}".encode())
        conn.execute(f"ALTER TABLE sender_email_daily ADD COLUMN added_{number} {column}".encode())
    rows = "INSERT INTO webhook_delivery_log (received_at, source, status, payload) VALUES (%s, 'sql', %s, '{}')"
    for day, status in ((old, "processed"), (old, "dead"), (older, "dead"), (TODAY + timedelta(days=1), "test")):
        conn.execute(rows, [day, status])

    made = [*make(conn, old, old), *make(conn, TODAY, AHEAD[-1])]
    slim = conn.execute("SELECT bisonsync_private.slim_delivery_partition(%s)", [inbox_name(old)]).fetchone()
    dropped = conn.execute(
        "SELECT * FROM bisonsync_private.drop_delivery_partition(%s, %s, 1000)",
        [inbox_name(older), datetime.now(UTC) - timedelta(days=71)],
    ).fetchone()
    months = partitions.make(conn, partitions.DAILY, TODAY, TODAY)

    assert (len(made), slim, dropped, len(months)) == (9, (1,), (True, 1), 1)
    found = conn.execute("SELECT status, added_0, payload IS NULL FROM webhook_delivery_log ORDER BY received_at, id")
    assert found.fetchall() == [
        ("dead", "sql!", False),
        ("processed", "sql!", True),
        ("dead", "sql!", False),
        ("test", "sql!", False),
    ]


def test_identities_of_somebody_else_stop_no_partition(conn: Connection) -> None:
    make(conn, TODAY, TODAY)
    try:
        conn.execute("ALTER TABLE webhook_delivery_log ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY")
    except errors.InvalidTableDefinition:
        assert conn.info.server_version < 170000
        return
    day = TODAY + timedelta(days=1)
    conn.execute("INSERT INTO webhook_delivery_log (received_at) VALUES (%s)", [day])

    assert make(conn, day, day) == [inbox_name(day)]
    assert conn.execute(f"SELECT count(number) FROM {inbox_name(day)}".encode()).fetchone() == (1,)
