"""prune: each table's edge, batches, months, locks, stops; what it must not touch stays."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from cli import document, environment, finish, run_cli, start_cli
from faultproxy import FaultProxy, Victim, said_by
from looking import NOW, add_part, add_run, add_workspace, insert
from psycopg.types.json import Jsonb

from bisonsync.clock import SystemClock
from bisonsync.jobs import prune
from bisonsync.run import Result, Run
from bisonsync.settings.models import RETENTION
from bisonsync.store import leases, retention
from bisonsync.store.db import Database
from bisonsync.store.retention import DroppedMonth

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]

LEASE = ("", 0)
SECOND = timedelta(seconds=1)


class Clock(SystemClock):
    """The machine's, ahead by what a test says."""

    ahead = timedelta(0)
    elapsed = 0.0

    def now(self) -> datetime:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.elapsed


@dataclass
class Job:
    """The job as its command runs it, at a moment that the test sets."""

    dsn: str
    clock: Clock = field(default_factory=Clock)
    days: Mapping[str, int] = field(default_factory=dict[str, int])
    timezone: str = "UTC"
    batch_rows: int = 1000
    as_of: datetime | None = NOW
    dry_run: bool = False
    has_lease: bool = False
    after_batch: Callable[[str, int], None] = lambda _what, _done: None

    def run(self) -> Result:
        database = Database(self.dsn, application_name="bisonsync prune", clock=self.clock)
        run_id = uuid4()
        lease: leases.Lease | None = None
        if self.has_lease:
            taken = database.run(lambda conn: leases.take(conn, "prune", [LEASE], run_id=run_id, ttl_seconds=60))
            (lease,) = taken
        run = Run(
            job="prune",
            run_id=run_id,
            started_at=self.clock.now(),
            clock=self.clock,
            deadline=self.clock.monotonic() + 60,
            db=database,
            bookkeeping=database,
            lease=lease,
            dry_run=self.dry_run,
            progress=lambda what, done, _: self.after_batch(what, done),
        )
        database.deadline = run.deadline
        try:
            return prune.run(run, prune.Policy(RETENTION | dict(self.days), self.timezone, self.batch_rows, self.as_of))
        finally:
            database.close()


def count(conn: Connection, table: str) -> int:
    row = conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return row[0]


def add_api(conn: Connection, rows: int, at: datetime) -> None:
    conn.execute(
        "INSERT INTO api_health_logs (endpoint, api_name, success, timestamp)"
        " SELECT '/x', 'x', true, %s FROM generate_series(1, %s::integer)",
        [at, rows],
    )


def make_months(conn: Connection, first: date, last: date) -> None:
    """Places for all the months, and of each day a row and a workspace's snapshot."""
    conn.execute("SELECT bisonsync_private.make_daily_partitions(%s::date, %s::date)", [first, last])
    for table, more in (("sender_email_daily", "bison_account_id"), ("workspace_snapshots", "accounts")):
        conn.execute(
            f"INSERT INTO {table} (bison_instance, bison_workspace_id, snapshot_date, {more}"
            f"{', is_complete' if more == 'accounts' else ''})"
            f" SELECT 'sim', 1, d::date, 7{', true' if more == 'accounts' else ''}"
            " FROM generate_series(%s::date::timestamp, %s::date::timestamp, interval '1 day') AS d".encode(),
            [first, last],
        )


def months(conn: Connection) -> list[str]:
    rows = conn.execute("SELECT partition FROM bisonsync_private.daily_partitions()")
    return [name.removeprefix("sender_email_daily_") for (name,) in rows]


# The edge of each table


@dataclass(frozen=True)
class Edge:
    """How a row of some age is made, and for how many days it is kept."""

    table: str
    make: Callable[[Connection, datetime], None]
    days: int


def old_run(conn: Connection, at: datetime) -> None:
    for _ in range(4):
        add_run(conn, "poll-accounts", NOW)
    add_part(conn, add_run(conn, "poll-accounts", at), 1)


def old_fault(conn: Connection, at: datetime) -> None:
    insert(conn, "data_validation_errors", source="t", error_type="t", resolved_at=at)


def old_history(conn: Connection, at: datetime) -> None:
    conn.execute(
        "INSERT INTO provider_performance_history SELECT h.* FROM jsonb_populate_record("
        "NULL::provider_performance_history, (SELECT jsonb_object_agg(attname, 0) FROM pg_attribute"
        " WHERE attrelid = 'provider_performance_history'::regclass AND attnum > 0)"
        " || jsonb_build_object('bison_instance', 'sim', 'email_provider', 'Google', 'snapshot_date', %s::date,"
        " 'is_complete', true, 'created_at', now(), 'updated_at', now())) AS h",
        [at.date()],
    )


def old_episode(conn: Connection, at: datetime, **message: Any) -> None:
    row = conn.execute(
        "INSERT INTO alert_episodes (check_name, state, first_bad_at, last_seen_at, bad_count, closed_at)"
        " VALUES ('freshness', 'WARNING', %(at)s, %(at)s, 3, %(at)s) RETURNING id",
        {"at": at},
    ).fetchone()
    assert row is not None
    fields = {"created_at": at, "next_attempt_at": at, "delivered_at": at, **message}
    insert(conn, "alert_messages", episode_id=row[0], kind="recovery", channel="", body=Jsonb({}), **fields)


EDGES = [
    Edge("email_sync_log_workspaces", old_run, 30),
    Edge("api_health_logs", lambda conn, at: add_api(conn, 1, at), 30),
    Edge("data_validation_errors", old_fault, 90),
    Edge("provider_performance_history", old_history, 1825),
    Edge("alert_episodes", old_episode, 365),
    Edge("alert_messages", old_episode, 365),
]


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.table)
def test_what_is_as_old_as_its_retention_stays_and_what_is_older_goes(db: str, conn: Connection, edge: Edge) -> None:
    age = timedelta(days=edge.days)
    step = timedelta(days=1) if edge.table == "provider_performance_history" else SECOND
    edge.make(conn, NOW - age)
    assert Job(db).run().exit_code == 0
    assert count(conn, edge.table) == 1

    conn.execute(f"TRUNCATE {edge.table} CASCADE".encode())
    edge.make(conn, NOW - age - step)
    result = Job(db).run()

    assert count(conn, edge.table) == 0
    assert (result.exit_code, result.counts[edge.table]) == (0, 1)


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.table)
def test_the_settings_say_for_how_long(db: str, conn: Connection, edge: Edge) -> None:
    owner = {"email_sync_log_workspaces": "email_sync_logs", "alert_messages": "alert_episodes"}
    edge.make(conn, NOW - timedelta(days=9))

    Job(db, days={owner.get(edge.table, edge.table): 10}).run()
    stayed = count(conn, edge.table)
    Job(db, days={owner.get(edge.table, edge.table): 8}).run()

    assert (stayed, count(conn, edge.table)) == (1, 0)


# What stays whatever its age


def test_the_last_runs_of_each_job_and_those_that_run_stay(db: str, conn: Connection) -> None:
    def age(days: int) -> datetime:
        return NOW - timedelta(days=days)

    kept = {
        *(add_run(conn, "poll-accounts", age(days), "failed") for days in (40, 41, 42)),
        add_run(conn, "poll-accounts", age(60), "success"),
        add_run(conn, "poll-accounts", age(39), "skipped"),
        *(add_run(conn, "poll-accounts", age(days), "running") for days in (90, 91)),
        add_run(conn, "migrate", age(400)),
    }
    add_run(conn, "poll-accounts", age(43), "failed")
    add_run(conn, "poll-accounts", age(61), "success")
    add_run(conn, "poll-accounts", age(62), "skipped")

    result = Job(db).run()

    assert {run for (run,) in conn.execute("SELECT run_id FROM email_sync_logs")} == kept
    assert result.counts["email_sync_logs"] == 3


def test_open_faults_and_episodes_and_untold_messages_stay(db: str, conn: Connection) -> None:
    long_ago = NOW - timedelta(days=3000)
    insert(conn, "data_validation_errors", source="t", error_type="t", timestamp=long_ago)
    old_episode(conn, long_ago, delivered_at=None)
    conn.execute(
        "INSERT INTO alert_episodes (check_name, state, first_bad_at, last_seen_at, bad_count)"
        " VALUES ('runs', 'WARNING', %(at)s, %(at)s, 3)",
        {"at": long_ago},
    )
    old_episode(conn, long_ago, delivered_at=None, dropped_at=long_ago)

    Job(db).run()

    assert count(conn, "data_validation_errors") == 1
    assert (count(conn, "alert_episodes"), count(conn, "alert_messages")) == (2, 1)


def test_the_mirror_and_the_registry_are_not_its_business(db: str, conn: Connection) -> None:
    add_workspace(conn, 1, updated_at=NOW - timedelta(days=3000))
    conn.execute(
        "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address,"
        " created_at, updated_at, removed_at) VALUES ('sim', 1, 1, 'x@example.com', %(at)s, %(at)s, %(at)s)",
        {"at": NOW - timedelta(days=3000)},
    )

    Job(db).run()

    assert (count(conn, "client_registry"), count(conn, "sender_emails_cache")) == (1, 1)


# The months of the history


@pytest.mark.parametrize(("today", "first"), [("2026-02-08", "2025_10"), ("2026-02-09", "2025_11")])
def test_a_month_goes_when_all_its_days_are_too_old(db: str, conn: Connection, today: str, first: str) -> None:
    make_months(conn, date(2025, 10, 1), date(2026, 2, 5))

    result = Job(db, days={"sender_email_daily": 100}, as_of=datetime.fromisoformat(f"{today}T12:00:00Z")).run()

    assert months(conn)[0] == first
    for table in ("sender_email_daily", "workspace_snapshots"):
        oldest = conn.execute(f"SELECT min(snapshot_date) FROM {table}".encode()).fetchone()
        assert oldest == (date(2025, int(first[-2:]), 1),)
    assert result.counts["months_dropped"] == (first == "2025_11")


def test_several_months_go_each_by_itself_and_what_goes_with_them_is_said(db: str, conn: Connection) -> None:
    make_months(conn, date(2025, 6, 1), date(2026, 1, 5))

    result = Job(db, days={"sender_email_daily": 62}).run()

    assert months(conn) == ["2025_11", "2025_12", "2026_01", "2026_02", "2026_03"]
    assert result.details["months_dropped"] == [f"sender_email_daily_2025_{n:02}" for n in range(6, 11)]
    assert (
        "days before 2025-11-01 can no longer be computed again, and those before 2025-12-01 not with their 30 days"
        in result.summary
    )


def test_a_month_and_what_is_said_of_its_days_go_in_one_transaction(conn: Connection) -> None:
    make_months(conn, date(2025, 9, 28), date(2025, 11, 5))

    assert retention.drop_month(conn, NOW.date()) == DroppedMonth("sender_email_daily_2025_09", 3)
    assert oldest_day(conn) == date(2025, 10, 1)
    assert retention.drop_month(conn, NOW.date()) == DroppedMonth("sender_email_daily_2025_10", 31)
    assert oldest_day(conn) == date(2025, 11, 1)


def oldest_day(conn: Connection) -> date:
    """The first day that is said to be recorded."""
    row = conn.execute("SELECT min(snapshot_date) FROM workspace_snapshots").fetchone()
    assert row is not None
    return row[0]


def test_the_first_day_that_is_said_to_be_whole_has_both_ends_of_its_windows(db: str, conn: Connection) -> None:
    make_months(conn, date(2025, 10, 1), date(2026, 1, 5))
    kept = Job(db, days={"sender_email_daily": 62}).run().details["first_kept_day"]

    whole = kept + timedelta(days=prune.LONGEST_WINDOW_DAYS)

    ends = "SELECT count(*) FROM workspace_snapshots WHERE snapshot_date IN (%s::date - 30, %s::date)"
    assert [conn.execute(ends, [day, day]).fetchone() for day in (whole - timedelta(days=1), whole)] == [(1,), (2,)]


@pytest.mark.parametrize(("days", "code"), [(61, 8), (62, 0)])
def test_less_than_62_days_of_the_history_are_refused_and_the_others_go_on(
    db: str, conn: Connection, days: int, code: int
) -> None:
    make_months(conn, date(2025, 6, 1), date(2025, 6, 30))
    add_api(conn, 1, NOW - timedelta(days=31))

    result = Job(db, days={"sender_email_daily": days}).run()

    assert result.exit_code == code
    assert ("2025_06" in months(conn)) is (code == 8)
    assert count(conn, "workspace_snapshots") == (30 if code else 0)
    assert count(conn, "api_health_logs") == 0
    if code:
        (problem,) = result.problems
        assert problem.kind == "guard"
        assert "31 days back" in problem.message and "provider-drop" in problem.message and "--date" in problem.message
        assert problem.hint == "set [retention] sender_email_daily to 62 or more"


def test_the_database_itself_keeps_the_last_60_days(conn: Connection) -> None:
    conn.execute("SELECT bisonsync_private.drop_daily_partition(current_date - 60)")

    with pytest.raises(psycopg.errors.InvalidParameterValue, match="are not dropped"):
        conn.execute("SELECT bisonsync_private.drop_daily_partition(current_date - 59)")


@pytest.mark.parametrize(
    ("as_of", "timezone", "made"),
    [
        ("2025-11-20T12:00Z", "UTC", ["2025_11", "2025_12", "2026_01"]),
        ("2025-12-31T23:30Z", "UTC", ["2025_12", "2026_01", "2026_02"]),
        ("2025-12-31T23:30Z", "Asia/Tokyo", ["2026_01", "2026_02", "2026_03"]),
        ("2026-01-01T00:30Z", "America/New_York", ["2025_12", "2026_01", "2026_02"]),
        ("2024-02-29T12:00Z", "UTC", ["2024_02", "2024_03", "2024_04"]),
    ],
)
def test_months_are_made_ahead_across_the_end_of_a_year(
    db: str, conn: Connection, as_of: str, timezone: str, made: list[str]
) -> None:
    job = Job(db, as_of=datetime.fromisoformat(as_of), timezone=timezone)

    first, again = job.run(), job.run()

    assert months(conn) == made
    assert (first.counts["months_made"], again.counts["months_made"]) == (3, 0)


# Batches, and ends before the end


def test_every_batch_is_committed_by_itself(db: str, conn: Connection) -> None:
    add_api(conn, 25, NOW - timedelta(days=40))
    add_api(conn, 3, NOW)
    seen: list[int] = []

    def look(what: str, _: int) -> None:
        if "api_health_logs" in what:
            seen.append(count(conn, "api_health_logs"))

    Job(db, batch_rows=10, after_batch=look).run()

    assert seen == [18, 8, 3]


def test_a_batch_of_runs_is_smaller_for_they_take_their_workspaces_along(db: str, conn: Connection) -> None:
    for days in range(32, 38):
        add_part(conn, add_run(conn, "poll-accounts", NOW - timedelta(days=days)), 1)
    for _ in range(3):
        add_run(conn, "poll-accounts", NOW)
    seen: list[int] = []

    def look(what: str, _: int) -> None:
        if "email_sync_logs" in what:
            seen.append(count(conn, "email_sync_log_workspaces"))

    Job(db, batch_rows=20, after_batch=look).run()

    assert seen == [4, 2, 0, 0]


@pytest.mark.parametrize(("end", "code"), [("deadline", 7), ("TERM", 143), ("INT", 130), ("lease", 8)])
def test_it_ends_between_two_batches_and_the_next_run_does_the_rest(
    db: str, conn: Connection, end: str, code: int
) -> None:
    add_api(conn, 25, NOW - timedelta(days=40))
    clock = Clock()

    def stop(what: str, done: int) -> None:
        if "api_health_logs" not in what or done > 10:
            return
        if end == "deadline":
            clock.elapsed = 61
        elif end == "lease":
            conn.execute("UPDATE job_leases SET generation = generation + 1, holder = gen_random_uuid()")
        else:
            clock.stop(signal.Signals[f"SIG{end}"])

    result = Job(db, clock=clock, batch_rows=10, has_lease=True, after_batch=stop).run()

    assert (result.exit_code, result.counts["api_health_logs"], count(conn, "api_health_logs")) == (code, 10, 15)
    assert result.committed
    assert Job(db, batch_rows=10).run().exit_code == 0
    assert count(conn, "api_health_logs") == 0


def test_killed_between_two_batches_it_leaves_what_is_committed_and_the_next_run_finishes(
    db: str, conn: Connection
) -> None:
    add_api(conn, 12_000, datetime.now(UTC) - timedelta(days=40))
    victim = Victim()
    with FaultProxy(db) as proxy:
        rule = proxy.at("committed", said_by("retention", "delete_api_health"), victim.kill, nth=2)
        process = start_cli(["prune"], environment(proxy.dsn))
        victim.is_(process)
        killed = finish(process)
    assert (killed.returncode, rule.hit.is_set()) == (-signal.SIGKILL, True)
    assert count(conn, "api_health_logs") == 2000

    done = document(run_cli(["prune", "--json"], environment(db)))

    assert (done["verdict"], done["counts"]["api_health_logs"]) == ("success", 2000)
    runs = conn.execute("SELECT status, lost FROM email_sync_logs ORDER BY started_at").fetchall()
    assert runs == [("failed", True), ("success", False)]
    assert conn.execute("SELECT count(*) FROM job_leases WHERE holder IS NOT NULL").fetchone() == (0,)


# Locks and leases


def test_f17_a_lock_held_by_another_session_is_waited_for_and_named_and_the_other_tables_go_on(
    db: str, conn: Connection
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=100)
    add_api(conn, 3, long_ago)
    old_fault(conn, long_ago)
    with psycopg.connect(db, application_name="a long report") as other:
        other.execute("SELECT FROM api_health_logs FOR UPDATE")
        holder = other.info.backend_pid

        done = run_cli(["prune", "--json"], environment(db))

    said = document(done)
    (error,) = said["errors"]
    assert (done.returncode, said["verdict"]) == (3, "partial")
    assert error["message"].startswith("api_health_logs: ")
    assert f"pid {holder} (" in error["message"] and "'a long report'" in error["message"]
    assert "pg_terminate_backend" in error["hint"]
    assert (count(conn, "api_health_logs"), count(conn, "data_validation_errors")) == (3, 0)


def test_f17_a_reader_of_the_history_keeps_its_month_and_nothing_else(
    db: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune.work, "DDL_LOCK_SECONDS", 0.3)
    monkeypatch.setattr(prune.work, "DDL_LOCK_ATTEMPTS", 1)
    make_months(conn, date(2025, 6, 1), date(2025, 6, 30))
    add_api(conn, 3, NOW - timedelta(days=40))
    with psycopg.connect(db, application_name="a long report") as other:
        other.execute("SELECT count(*) FROM sender_email_daily")

        result = Job(db, days={"sender_email_daily": 62}).run()

    (problem,) = result.problems
    assert result.exit_code == 3
    assert problem.message.startswith("sender_email_daily: ") and "a long report" in problem.message
    assert (count(conn, "sender_email_daily"), count(conn, "workspace_snapshots")) == (30, 30)
    assert count(conn, "api_health_logs") == 0


def test_a_view_on_a_month_keeps_the_month_and_nothing_else(db: str, conn: Connection) -> None:
    make_months(conn, date(2025, 6, 1), date(2025, 8, 31))
    conn.execute("CREATE VIEW report AS SELECT 1 AS one FROM sender_email_daily_2025_06")
    conn.execute("CREATE MATERIALIZED VIEW summary AS SELECT 1 AS one FROM sender_email_daily_2025_06")

    planned = Job(db, days={"sender_email_daily": 62}, dry_run=True).run()
    done = Job(db, days={"sender_email_daily": 62}).run()

    (problem,) = done.problems
    assert problem.message == (
        "sender_email_daily_2025_06 is past its retention and stays:"
        " materialized view public.summary, view public.report stands on it"
    )
    assert "sender_email_daily instead" in problem.hint
    assert (planned.problems, planned.exit_code) == (done.problems, done.exit_code) == ((problem,), 3)
    assert planned.details["months_dropped"] == done.details["months_dropped"]
    assert months(conn)[0] == "2025_06" and "2025_07" not in months(conn)


def test_one_prune_at_a_time_works(db: str, conn: Connection) -> None:
    add_api(conn, 3, datetime.now(UTC) - timedelta(days=40))
    insert(
        conn,
        "job_leases",
        job="prune",
        bison_instance="",
        bison_workspace_id=0,
        holder=uuid4(),
        host="elsewhere",
        pid=77,
        heartbeat_at=datetime.now(UTC),
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )

    busy, left = (run_cli(["prune", *more], environment(db)) for more in ([], ["--skip-if-locked"]))

    assert (busy.returncode, left.returncode) == (75, 0)
    assert "prune is at work already, held by another run: pid 77 on elsewhere" in busy.stderr
    assert count(conn, "api_health_logs") == 3


@pytest.mark.parametrize("scope", [["-w", "sim/1"], ["--instance", "sim"]])
def test_what_cannot_be_narrowed_removes_nothing(db: str, conn: Connection, scope: list[str]) -> None:
    add_api(conn, 3, NOW - timedelta(days=40))

    done = run_cli(["prune", *scope], environment(db))

    assert (done.returncode, count(conn, "api_health_logs")) == (2, 3)
    assert "cannot narrow it" in done.stderr


def test_a_wrong_clock_removes_nothing(db: str, conn: Connection) -> None:
    add_api(conn, 3, NOW - timedelta(days=40))
    clock = Clock()
    clock.ahead = timedelta(days=1, minutes=1)

    result = Job(db, clock=clock).run()

    assert (result.exit_code, count(conn, "api_health_logs"), months(conn)) == (8, 3, [])
    assert "the clocks of this host and of the database are 1 days apart" in result.problems[0].message


def test_clocks_that_are_hours_apart_are_no_reason_to_stop(db: str, conn: Connection) -> None:
    add_api(conn, 3, NOW - timedelta(days=40))
    clock = Clock()
    clock.ahead = -timedelta(hours=23)

    assert Job(db, clock=clock).run().exit_code == 0
    assert count(conn, "api_health_logs") == 0


# Tidying up, and what is said


@pytest.mark.superuser
@pytest.mark.parametrize(
    ("present", "deleted", "tidied"),
    [
        (2000, 200, False),
        (2000, 201, True),
        (900, 100, False),
        (900, 101, True),
        (1_000_000, 10_000, False),
        (1_000_000, 10_001, True),
    ],
)
def test_only_what_changed_much_is_tidied_up(conn: Connection, present: int, deleted: int, tidied: bool) -> None:
    conn.execute("UPDATE pg_class SET reltuples = %s WHERE oid = 'api_health_logs'::regclass", [present])

    found = retention.list_vacuums(conn, {"api_health_logs": deleted})

    assert [each.table_name for each in found] == (["api_health_logs"] if tidied else [])


def test_dead_rows_that_others_left_are_tidied_up(conn: Connection) -> None:
    add_api(conn, 200, NOW)
    with conn.transaction():
        conn.execute("DELETE FROM api_health_logs WHERE id <= 150")
        conn.execute("SELECT pg_stat_force_next_flush()")

    assert [each.table_name for each in retention.list_vacuums(conn, {})] == ["api_health_logs"]


def test_what_was_removed_is_vacuumed_and_analysed(db: str, conn: Connection) -> None:
    add_api(conn, 500, NOW - timedelta(days=40))
    add_api(conn, 7, NOW)

    result = Job(db).run()

    assert result.details["vacuumed"] == ["api_health_logs"]
    row = conn.execute("SELECT reltuples FROM pg_class WHERE oid = 'api_health_logs'::regclass").fetchone()
    assert row == (7,)


def test_what_was_removed_and_tidied_up_is_not_counted_as_dead(db: str, conn: Connection) -> None:
    add_api(conn, 500, NOW - timedelta(days=40))
    add_api(conn, 7, NOW)

    assert Job(db).run().details["vacuumed"] == ["api_health_logs"]

    # Its session is over when it can be waited for no more; only then has it counted everything.
    conn.execute(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name LIKE '%prune%' AND datname = current_database()"
    )
    row = conn.execute("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'api_health_logs'").fetchone()
    assert row == (0,)


def test_a_table_that_cannot_be_tidied_up_now_is_passed_over_and_noted(db: str, conn: Connection) -> None:
    add_api(conn, 500, NOW - timedelta(days=40))
    with psycopg.connect(db) as other:
        other.execute("LOCK TABLE api_health_logs IN SHARE UPDATE EXCLUSIVE MODE")

        result = Job(db).run()

    assert (result.exit_code, count(conn, "api_health_logs"), result.details["vacuumed"]) == (0, 0, [])
    assert 'skipping vacuum of "api_health_logs" --- lock not available' in result.details["notes"]


def test_a_dry_run_says_the_same_and_writes_nothing(db: str, conn: Connection) -> None:
    make_months(conn, date(2025, 6, 1), date(2025, 7, 31))
    for edge in EDGES[:5]:
        edge.make(conn, NOW - timedelta(days=2000))
    before = everything(conn)

    planned = Job(db, days={"sender_email_daily": 62}, dry_run=True).run()

    assert everything(conn) == before
    done = Job(db, days={"sender_email_daily": 62}).run()
    for told in ("months_dropped", "first_kept_day", "removed"):
        assert planned.details[told] == done.details[told]
    assert planned.counts["months_made"] == done.counts["months_made"] == 3
    assert done.counts["rows_removed"] == 7 + 61


def everything(conn: Connection) -> dict[str, int]:
    """How many rows each table has, those of the months among them."""
    found = conn.execute("SELECT relid::regclass::text FROM pg_stat_user_tables ORDER BY relname")
    return {name: count(conn, name) for (name,) in found}


def test_a_dry_run_leaves_no_trace_of_itself(db: str, conn: Connection) -> None:
    add_api(conn, 3, datetime.now(UTC) - timedelta(days=40))

    done = run_cli(["prune", "--dry-run"], environment(db))

    assert done.returncode == 0
    assert done.stdout.startswith(
        "prune: success: dry run, nothing written: 3 rows removed (3 api_health_logs); made sender_email_daily_2"
    )
    assert (count(conn, "email_sync_logs"), count(conn, "job_leases"), count(conn, "api_health_logs")) == (0, 0, 3)


def test_the_command_tells_and_keeps_what_it_did(db: str, conn: Connection) -> None:
    add_api(conn, 300, datetime.now(UTC) - timedelta(days=40))
    conn.execute(
        "INSERT INTO data_validation_errors (source, error_type, row_hash, message)"
        " SELECT 't', 't', n::text, (SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 300) AS m)"
        " FROM generate_series(1, 2500) AS n"
    )

    done = run_cli(["prune"], environment(db))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "300 rows removed (300 api_health_logs)" in done.stdout
    (row,) = conn.execute("SELECT job, status, counts FROM email_sync_logs").fetchall()
    assert row[:2] == ("prune", "success")
    counts = row[2]
    assert (counts["rows_removed"], counts["api_health_logs"], counts["months_made"]) == (300, 300, 3)
    # By these health sees what grows; what is small is not noted.
    assert counts["data_validation_errors_mb"] >= 16 and counts["database_mb"] > counts["data_validation_errors_mb"]
    assert "api_health_logs_mb" not in counts


def test_the_settings_of_the_command_are_those_of_the_file(db: str, conn: Connection) -> None:
    add_api(conn, 3, datetime.now(UTC) - timedelta(days=4))

    kept = run_cli(["prune"], environment(db, BISONSYNC_RETENTION__API_HEALTH_LOGS="5"))
    refused = run_cli(
        ["prune"],
        environment(db, BISONSYNC_RETENTION__API_HEALTH_LOGS="3", BISONSYNC_RETENTION__SENDER_EMAIL_DAILY="61"),
    )

    assert (kept.returncode, refused.returncode, count(conn, "api_health_logs")) == (0, 8, 0)
    assert "[retention] sender_email_daily = 61 is refused" in refused.stderr


def test_for_ever_is_said_by_a_large_number(db: str, conn: Connection) -> None:
    add_api(conn, 3, datetime.now(UTC) - timedelta(days=4000))
    for_ever = "9999999999"

    done = run_cli(
        ["prune"],
        environment(
            db,
            BISONSYNC_RETENTION__API_HEALTH_LOGS=for_ever,
            BISONSYNC_RETENTION__EMAIL_SYNC_LOGS=for_ever,
            BISONSYNC_RETENTION__SENDER_EMAIL_DAILY=for_ever,
            BISONSYNC_RETENTION__PROVIDER_PERFORMANCE_HISTORY=for_ever,
        ),
    )

    assert (done.returncode, count(conn, "api_health_logs")) == (0, 3), done.stderr
