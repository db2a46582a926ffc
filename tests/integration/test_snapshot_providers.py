"""snapshot-providers by the real command line: what it records, what it refuses, and on which day."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import cli
import psycopg
import pytest
from faultproxy import FaultProxy, Victim, said_by
from office import Office, Outcome

from bisonsync.clock import SystemClock
from bisonsync.jobs import snapshot_providers as job
from bisonsync.run import Problem, WorkspacesRun
from bisonsync.sandbox import Sandbox
from bisonsync.store import leases, partitions, registry, snapshots
from bisonsync.store.db import Database
from bisonsync.store.snapshots import Gap

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]

TABLES = ("sender_email_daily", "workspace_snapshots", "provider_performance_history")
YEARS = 1_000_000_000


@dataclass
class Ledger:
    """A mirror made by hand, without an API: what polls would have left."""

    dsn: str
    conn: Connection

    def workspace(self, number: int, instance: str = "sim", *, registered: str = "2020-01-01") -> None:
        self.conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name, created_at)"
            " VALUES (%s, %s, %s, %s)",
            (instance, number, f"Client {number}", registered),
        )

    def read(
        self, number: int, instance: str = "sim", *, at: object = None, verdict: str = "complete", **more: Any
    ) -> None:
        """How the last read of the workspace went; ``at`` when its last complete read began, now by default.

        ``stored``: how long ago a read began that was stored without being complete.
        """
        values = {"interval_seconds": 180, "last_error": None, "stored": None} | more
        self.conn.execute(
            "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_complete_at,"
            " read_started_at, verdict, interval_seconds, last_error)"
            " VALUES (%(i)s, %(n)s, 'accounts', coalesce(%(at)s, now()),"
            " coalesce(now() - %(stored)s::interval, %(at)s, now()), %(v)s,"
            " %(interval_seconds)s, %(last_error)s)"
            " ON CONFLICT (bison_instance, bison_workspace_id, resource) DO UPDATE SET last_complete_at ="
            " excluded.last_complete_at, read_started_at = excluded.read_started_at, verdict = excluded.verdict,"
            " interval_seconds = excluded.interval_seconds, last_error = excluded.last_error",
            {"i": instance, "n": number, "at": at, "v": verdict, **values},
        )

    def account(self, number: int, account: int, instance: str = "sim", **values: Any) -> None:
        """An account of the mirror, new or changed."""
        columns = {
            "email_address": f"a{account}@example.com",
            "email_provider": "Google",
            "status": "Connected",
        } | values
        names = ", ".join(columns)
        self.conn.execute(
            f"INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, {names})"
            f" VALUES (%s, %s, %s, {', '.join(['%s'] * len(columns))})"
            " ON CONFLICT (bison_instance, bison_workspace_id, bison_account_id) DO UPDATE SET"
            f" ({names}) = ROW (excluded.{names.replace(', ', ', excluded.')})".encode(),
            (instance, number, account, *columns.values()),
        )

    def day(self, on: date, number: int, instance: str = "sim", *, provider: str = "Google", **sent: int) -> None:
        """A day that was recorded: the sent counter of each account, as ``a1=10``."""
        self.conn.execute("SELECT count(*) FROM bisonsync_private.make_daily_partitions(%s, %s)", (on, on))
        for account, count in sent.items():
            self.conn.execute(
                "INSERT INTO sender_email_daily (snapshot_date, bison_instance, bison_workspace_id, bison_account_id,"
                " emails_sent_count, email_provider) VALUES (%s, %s, %s, %s, %s, %s)",
                (on, instance, number, int(account.removeprefix("a")), count, provider),
            )
        self.conn.execute(
            "INSERT INTO workspace_snapshots (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)"
            " VALUES (%s, %s, %s, %s, true)",
            (instance, number, on, len(sent)),
        )

    def run(self, *arguments: str, zone: str = "UTC", dsn: str | None = None) -> Outcome:
        done = cli.finish(self.start(*arguments, zone=zone, dsn=dsn))
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, zone: str = "UTC", dsn: str | None = None) -> Any:
        env = cli.environment(dsn or self.dsn, BISONSYNC_REPORTING_TIMEZONE=zone)
        return cli.start_cli(["snapshot-providers", "--json", *arguments], env)

    def all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.conn.execute(query.encode(), values).fetchall()

    def history(self, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
        return self.all(
            f"SELECT {columns} FROM provider_performance_history WHERE {where}"
            " ORDER BY bison_instance, snapshot_date, email_provider"
        )

    def versions(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row's place and version: what is written, even with the same values, has another."""
        return {
            table: self.all(f"SELECT tableoid::regclass::text, ctid::text, xmin::text FROM {table} ORDER BY 1, 2")
            for table in TABLES
        }

    @property
    def today(self) -> date:
        return self.all("SELECT (now() AT TIME ZONE 'UTC')::date")[0][0]


@pytest.fixture
def book(db: str, conn: Connection) -> Ledger:
    """Two workspaces of one instance, read just now."""
    made = Ledger(db, conn)
    for number in (1, 2):
        made.workspace(number)
        made.read(number)
        made.account(number, 10 * number, emails_sent_count=100, unique_replied_count=4)
        made.account(number, 10 * number + 1, emails_sent_count=50, email_provider="Microsoft", status="Failed")
    return made


# What is recorded


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    with Sandbox(workspaces=2, accounts=40, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        assert office.poll().code == 0
        yield office


def test_after_a_poll_every_account_and_provider_is_recorded(office: Office) -> None:
    outcome = office.run("snapshot-providers", "--json")

    assert (outcome.code, outcome.stderr) == (0, "")
    counts = outcome.counts
    live = sum(len(ids) for ids in office.live().values())
    assert (counts["accounts"], counts["inserted"], counts["workspaces_ok"]) == (live, live, 2)
    differing = office.one(
        "SELECT count(*) FROM sender_emails_cache AS c FULL JOIN sender_email_daily AS d"
        " USING (bison_instance, bison_workspace_id, bison_account_id)"
        " WHERE (c.emails_sent_count, c.unique_replied_count, c.bounced_count, c.email_provider, c.domain,"
        " c.is_connected) IS DISTINCT FROM (d.emails_sent_count, d.unique_replied_count, d.bounced_count,"
        " d.email_provider, d.domain, d.is_connected)"
    )
    assert differing == 0
    assert office.one("SELECT sum(total_accounts) FROM provider_performance_history") == live
    assert office.one("SELECT bool_and(is_complete) FROM provider_performance_history") is True
    assert counts["providers"] == counts["history_inserted"] > 1
    assert office.one("SELECT counts ->> 'inserted' FROM email_sync_logs WHERE job = 'snapshot-providers'") == str(live)


def test_success_is_one_line_off_a_terminal(office: Office) -> None:
    plain = office.run("snapshot-providers")
    quiet = office.run("snapshot-providers", "-q")

    assert (plain.stdout.count("\n"), plain.stderr) == (1, "")
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_a_second_run_writes_no_row(book: Ledger) -> None:
    assert book.run().code == 0
    before = book.versions()

    outcome = book.run()

    assert book.versions() == before
    counts = outcome.counts
    assert (counts["inserted"], counts["updated"], counts["unchanged"]) == (0, 0, 4)
    assert (counts["history_inserted"], counts["history_updated"], counts["history_deleted"]) == (0, 0, 0)


def test_a_later_read_without_changes_is_noted_per_workspace_alone(book: Ledger) -> None:
    assert book.run().code == 0
    before = book.versions()
    book.read(1)

    assert book.run().code == 0

    after = book.versions()
    assert (after["sender_email_daily"], after["provider_performance_history"]) == (
        before["sender_email_daily"],
        before["provider_performance_history"],
    )
    assert len(set(after["workspace_snapshots"]) - set(before["workspace_snapshots"])) == 1


def test_only_what_differs_is_written_and_a_vanished_account_keeps_its_row(book: Ledger) -> None:
    assert book.run().code == 0
    before = book.versions()
    book.account(1, 10, emails_sent_count=101)
    book.account(1, 12, emails_sent_count=7)
    book.conn.execute("UPDATE sender_emails_cache SET removed_at = now() WHERE bison_account_id = 21")

    outcome = book.run()

    counts = outcome.counts
    assert (counts["accounts"], counts["inserted"], counts["updated"], counts["unchanged"]) == (4, 1, 1, 2)
    # The row that was there is gone by its update, and is there anew; another is new.
    assert len(set(book.versions()["sender_email_daily"]) - set(before["sender_email_daily"])) == 2
    assert book.history("email_provider, total_accounts, total_sent") == [("Google", 3, 208), ("Microsoft", 2, 100)]


def test_a_change_of_tags_moves_an_account_between_todays_rows_and_empty_ones_go(book: Ledger) -> None:
    assert book.run().code == 0
    book.conn.execute("UPDATE sender_emails_cache SET email_provider = 'Google' WHERE email_provider = 'Microsoft'")

    outcome = book.run()

    assert (outcome.counts["history_updated"], outcome.counts["history_deleted"]) == (1, 1)
    assert book.history("email_provider, total_accounts, active_accounts") == [("Google", 4, 2)]


def test_resets_and_falling_counters_are_counted(book: Ledger) -> None:
    yesterday = book.today - timedelta(days=1)
    book.day(yesterday, 1, a10=5000, a11=40)
    book.day(yesterday, 2, a20=90, a21=40)
    book.conn.execute("UPDATE sender_email_daily SET unique_replied_count = 9 WHERE bison_account_id = 20")

    outcome = book.run()

    assert (outcome.counts["resets"], outcome.counts["falling_counters"]) == (1, 1)
    # 100 after the reset, 10 of the other.
    assert book.history("sent_1d, unique_replies_1d", "email_provider = 'Google' AND is_complete")[-1] == (110, 4)


def test_a_dry_run_says_what_it_would_write_and_writes_nothing(book: Ledger) -> None:
    outcome = book.run("--dry-run")

    assert (outcome.code, outcome.counts["inserted"]) == (0, 4)
    assert all(rows == [] for rows in book.versions().values())
    assert book.all("SELECT * FROM email_sync_logs") == []

    assert book.run().code == 0
    book.account(1, 10, emails_sent_count=101)
    before = book.versions()
    outcome = book.run("--dry-run")
    assert (outcome.counts["inserted"], outcome.counts["updated"], outcome.counts["unchanged"]) == (0, 1, 3)
    assert book.versions() == before


def test_the_months_are_made_on_demand_and_the_next_one_ahead(book: Ledger) -> None:
    assert book.all("SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sender_email_daily'::regclass") == []

    assert book.run().code == 0

    next_month = (book.today.replace(day=1) + timedelta(days=32)).replace(day=1)
    made = book.all("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'sender_email_daily'::regclass")
    wanted = {f"sender_email_daily_{month:%Y_%m}" for month in (book.today, next_month)}
    assert {name.removeprefix("public.") for (name,) in made} == wanted


def test_f17_a_month_ahead_that_cannot_be_made_now_stops_nothing(book: Ledger) -> None:
    book.all("SELECT bisonsync_private.make_daily_partitions(%s, %s)", book.today, book.today)
    with psycopg.connect(book.dsn) as other:
        # As a VACUUM of the table does: rows may be read and written, partitions not attached.
        other.execute("LOCK TABLE sender_email_daily IN SHARE UPDATE EXCLUSIVE MODE")
        outcome = book.run()

    assert (outcome.code, outcome.counts["inserted"], outcome.counts["history_inserted"]) == (0, 4, 2)
    (warning,) = outcome.document["warnings"]
    assert warning.startswith("could not make sender_email_daily_")


def test_of_two_runs_that_need_the_same_month_the_second_finds_it_made(book: Ledger) -> None:
    month = (book.today, book.today)
    with psycopg.connect(book.dsn) as first, psycopg.connect(book.dsn) as second, ThreadPoolExecutor(1) as thread:
        assert len(partitions.make(first, partitions.DAILY, *month)) == 1
        made = thread.submit(partitions.make, second, partitions.DAILY, *month)
        pid = second.info.backend_pid
        cli.wait_until(lambda: book.all("SELECT true WHERE pg_blocking_pids(%s) <> '{}'", pid), "the second waits")
        first.commit()

        assert made.result(timeout=cli.PATIENCE) == []


def test_a_column_that_somebody_added_to_the_history_is_no_change(book: Ledger) -> None:
    book.conn.execute("ALTER TABLE provider_performance_history ADD COLUMN label text GENERATED ALWAYS AS ('x') STORED")
    book.run()

    again = book.run()

    assert (again.code, again.counts["history_inserted"], again.counts["history_updated"]) == (0, 0, 0)


# What is refused


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"at": "16 minutes"}, "16 minutes ago; at most 15 are allowed"),
        ({"at": "121 minutes", "interval_seconds": 3600}, "121 minutes ago; at most 120 are allowed"),
        ({"at": "-16 minutes"}, "ahead of the clock"),
        ({"verdict": "incomplete", "last_error": "page 3 is missing"}, "its last read was incomplete: page 3"),
        ({"verdict": "guarded"}, "its last read was guarded"),
        (
            {"at": "2 minutes", "verdict": "failed", "stored": "1 minute"},
            "the read that was stored last was not complete",
        ),
        (None, "it was never read completely"),
    ],
    ids=[
        "stale",
        "stale by its own interval",
        "of the future",
        "incomplete",
        "guarded",
        "incomplete, then failed",
        "never read",
    ],
)
def test_what_is_stale_or_incomplete_is_refused_and_the_rest_recorded(
    book: Ledger, state: dict[str, Any] | None, reason: str
) -> None:
    book.workspace(7, "other")
    book.read(7, "other")
    book.account(7, 70, "other", emails_sent_count=1)
    if state is None:
        book.conn.execute("DELETE FROM workspace_sync_state WHERE bison_workspace_id = 2")
    else:
        at = book.all("SELECT now() - %s::interval", state.get("at", "0 s"))[0][0]
        book.read(2, **(state | {"at": at}))

    outcome = book.run()

    assert (outcome.code, outcome.document["verdict"]) == (8, "guarded")
    assert outcome.kinds == {"guard"}
    assert reason in outcome.workspace(2)["error"]
    assert [outcome.workspace(n)["verdict"] for n in (1, 2, 7)] == ["complete", "guarded", "complete"]
    assert all("bisonsync poll-accounts" in error["hint"] for error in outcome.document["errors"])
    counts = outcome.counts
    assert (counts["workspaces_ok"], counts["workspaces_refused"], counts["accounts"]) == (2, 1, 3)
    assert book.all("SELECT DISTINCT bison_workspace_id FROM sender_email_daily ORDER BY 1") == [(1,), (7,)]
    assert book.all("SELECT DISTINCT bison_workspace_id FROM workspace_snapshots ORDER BY 1") == [(1,), (7,)]
    # Totals without a client would be wrong; another instance has nothing to do with it.
    assert book.history("bison_instance, total_accounts") == [("other", 1)]
    assert any(e["message"].startswith("sim: no provider history written for") for e in outcome.document["errors"])


@pytest.mark.parametrize(
    "state",
    [{"at": "14 minutes"}, {"at": "119 minutes", "interval_seconds": 3600}, {"at": "4 minutes", "verdict": "failed"}],
    ids=["a quarter of an hour", "its own interval", "a read that failed since stored nothing"],
)
def test_what_is_fresh_enough_is_not_refused(book: Ledger, state: dict[str, Any]) -> None:
    # In a zone where it is about noon, whenever this test runs.
    hour = book.all("SELECT extract(hour FROM now() AT TIME ZONE 'UTC')::integer")[0][0]
    zone = f"Etc/GMT{(hour - 12):+d}"
    book.read(2, **(state | {"at": book.all("SELECT now() - %s::interval", state["at"])[0][0]}))

    outcome = book.run(zone=zone)

    assert (outcome.code, outcome.counts["workspaces_ok"], outcome.counts["history_inserted"]) == (0, 2, 2)


def test_a_refused_workspace_keeps_the_history_that_there_was(book: Ledger) -> None:
    assert book.run().code == 0
    before = book.versions()["provider_performance_history"]
    book.read(2, verdict="incomplete")
    book.account(1, 10, emails_sent_count=200)

    outcome = book.run()

    assert (outcome.code, outcome.counts["updated"]) == (8, 1)
    assert book.versions()["provider_performance_history"] == before


def test_force_records_what_is_there_and_marks_it_until_a_good_read(book: Ledger) -> None:
    book.read(2, at=datetime(2020, 1, 1, tzinfo=UTC))

    forced = book.run("--force")

    assert (forced.code, forced.counts["accounts"]) == (0, 4)
    assert [forced.workspace(n)["verdict"] for n in (1, 2)] == ["complete", "incomplete"]
    marks = "SELECT bison_workspace_id, snapshot_date, is_complete, source FROM workspace_snapshots ORDER BY 1"
    assert book.all(marks) == [(1, book.today, True, "poll"), (2, book.today, False, "forced")]
    sources = "SELECT DISTINCT bison_workspace_id, source FROM sender_email_daily ORDER BY 1"
    assert book.all(sources) == [(1, "poll"), (2, "forced")]
    assert book.history("is_complete, total_accounts") == [(False, 2), (False, 2)]

    book.read(2)
    assert book.run().code == 0
    assert book.all(marks) == [(1, book.today, True, "poll"), (2, book.today, True, "poll")]
    assert book.all(sources) == [(1, "poll"), (2, "poll")]
    assert book.history("is_complete, total_accounts") == [(True, 2), (True, 2)]


def test_no_active_workspace_is_an_error(book: Ledger) -> None:
    book.conn.execute("UPDATE client_registry SET is_active = false")

    assert book.run().code == 4


# Days


BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


@pytest.mark.parametrize(
    ("zone", "read_at", "day"),
    [
        ("UTC", "2026-03-29 23:30+00", "2026-03-29"),
        # The clock goes forward at 01:00 UTC: midnight is at 23:00 UTC before that day, at 22:00 UTC after it.
        (BERLIN, "2026-03-28 22:59+00", "2026-03-28"),
        (BERLIN, "2026-03-28 23:00+00", "2026-03-29"),
        (BERLIN, "2026-03-29 21:59+00", "2026-03-29"),
        (BERLIN, "2026-03-29 22:00+00", "2026-03-30"),
        # And back: 22:00 UTC before, 23:00 UTC after.
        (BERLIN, "2026-10-24 21:59+00", "2026-10-24"),
        (BERLIN, "2026-10-24 22:00+00", "2026-10-25"),
        (BERLIN, "2026-10-25 22:30+00", "2026-10-25"),
        (BERLIN, "2026-10-25 23:00+00", "2026-10-26"),
        # A late evening in New York is the next day in UTC; an hour later from March to November.
        (NEW_YORK, "2026-07-01 03:59+00", "2026-06-30"),
        (NEW_YORK, "2026-03-08 04:59+00", "2026-03-07"),
        (NEW_YORK, "2026-03-09 03:59+00", "2026-03-08"),
        (NEW_YORK, "2026-03-09 04:00+00", "2026-03-09"),
        (NEW_YORK, "2026-11-02 04:59+00", "2026-11-01"),
        (NEW_YORK, "2026-03-01 04:59+00", "2026-02-28"),
        ("Pacific/Auckland", "2024-02-28 11:00+00", "2024-02-29"),
    ],
)
def test_f9_a_read_belongs_to_its_day_in_the_reporting_zone(
    conn: Connection, zone: str, read_at: str, day: str
) -> None:
    Ledger("", conn).read(1, at=read_at, interval_seconds=YEARS)

    (judged,) = snapshots.list_judgements(conn, [("sim", 1)], zone=zone, force=False)

    assert (str(judged.snapshot_date), judged.refusal) == (day, None)


@pytest.mark.parametrize(
    ("zone", "read_at", "day"),
    [
        (BERLIN, "2026-03-28 23:00+00", "2026-03-29"),
        (BERLIN, "2026-10-25 22:59+00", "2026-10-25"),
        (NEW_YORK, "2026-03-01 04:59+00", "2026-02-28"),
    ],
)
def test_f9_a_late_evening_run_in_another_zone_writes_the_right_day(
    book: Ledger, zone: str, read_at: str, day: str
) -> None:
    for number in (1, 2):
        book.read(number, at=read_at, interval_seconds=YEARS)
    book.conn.execute("UPDATE sender_emails_cache SET bison_created_at = %s", (read_at,))

    outcome = book.run(zone=zone)

    assert outcome.code == 0, outcome.stderr
    assert book.all("SELECT DISTINCT snapshot_date::text, created_on::text FROM sender_email_daily") == [(day, day)]
    assert book.all("SELECT DISTINCT snapshot_date::text FROM workspace_snapshots") == [(day,)]
    # Made on that day: all of it counts.
    assert book.history("snapshot_date::text, sent_1d", "email_provider = 'Google'") == [(day, 200)]
    # And again it finds nothing to write.
    assert book.run(zone=zone).counts["unchanged"] == 4


def test_f9_before_the_first_read_after_midnight_the_day_before_is_recorded_and_todays_history_waits(
    book: Ledger,
) -> None:
    yesterday = book.today - timedelta(days=1)
    book.day(yesterday, 1, a10=60, a11=50)
    book.read(
        2, at=datetime(yesterday.year, yesterday.month, yesterday.day, 23, 59, tzinfo=UTC), interval_seconds=YEARS
    )

    outcome = book.run()

    assert outcome.code == 0
    assert [outcome.workspace(n)["verdict"] for n in (1, 2)] == ["complete", "complete"]
    days = book.all("SELECT bison_workspace_id, snapshot_date FROM workspace_snapshots ORDER BY 1, 2")
    assert days == [(1, yesterday), (1, book.today), (2, yesterday)]
    assert book.history("snapshot_date, total_accounts") == [(yesterday, 3), (yesterday, 1)]
    again = cli.run_cli(["snapshot-providers"], cli.environment(book.dsn))
    assert (again.returncode, again.stderr) == (0, "")
    assert f"history of sim for {book.today} waits for sim/2" in again.stdout


def test_of_chosen_workspaces_alone_the_rows_are_written_and_the_history_waits(book: Ledger) -> None:
    done = cli.run_cli(["snapshot-providers", "-w", "1"], cli.environment(book.dsn))

    assert (done.returncode, done.stderr) == (0, "")
    assert f"history of sim for {book.today} waits for sim/2" in done.stdout
    assert book.all("SELECT DISTINCT bison_workspace_id FROM sender_email_daily") == [(1,)]
    assert book.history("*") == []


def test_what_had_to_wait_yesterday_is_settled_today(book: Ledger) -> None:
    yesterday = book.today - timedelta(days=1)
    book.day(yesterday, 1, a10=60)
    book.day(yesterday, 2, a20=70)

    assert book.run().code == 0

    assert book.history("snapshot_date, total_sent", "email_provider = 'Google'") == [
        (yesterday, 130),
        (book.today, 200),
    ]
    assert book.history("sent_1d, gaps_1d, gaps_7d", f"snapshot_date = '{book.today}'") == [(70, 0, 2), (0, 0, 2)]


def test_today_given_as_a_date_is_as_none(book: Ledger) -> None:
    outcome = book.run("--date", str(book.today))

    assert (outcome.code, outcome.counts["inserted"], outcome.counts["history_inserted"]) == (0, 4, 2)


@pytest.mark.parametrize("text", ["tomorrow", "2026-02-30", "1.7.2026", "2999-01-01"])
def test_a_day_that_is_none_or_still_to_come_is_a_usage_error(book: Ledger, text: str) -> None:
    assert book.run("--date", text).code == 2
    assert all(rows == [] for rows in book.versions().values())


# Past days


@pytest.fixture
def past(book: Ledger) -> Ledger:
    """Three days recorded in both workspaces, none of their history computed."""
    for number in range(3):
        on = date(2026, 2, 27) + timedelta(days=number)
        book.day(on, 1, a10=100 * number, a11=number)
        book.day(on, 2, a20=10 * number)
    return book


def test_a_past_day_is_computed_from_what_was_recorded_never_from_the_mirror(past: Ledger) -> None:
    first = past.run("--date", "2026-03-01")
    assert (first.code, first.counts["history_inserted"], first.counts["accounts"]) == (0, 1, 3)
    shown = past.history("total_sent, sent_1d, gaps_1d, gaps_7d, is_complete")
    assert shown == [(222, 111, 0, 2, True)]
    daily = past.versions()["sender_email_daily"]

    past.conn.execute("TRUNCATE sender_emails_cache, provider_performance_history")
    again = past.run("--date", "2026-03-01")

    assert (again.code, past.history("total_sent, sent_1d, gaps_1d, gaps_7d, is_complete")) == (0, shown)
    assert past.versions()["sender_email_daily"] == daily
    before = past.versions()
    assert past.run("--date", "2026-03-01").counts["history_updated"] == 0
    assert past.versions() == before


def test_f13_a_day_that_was_not_recorded_is_a_gap_and_gets_no_totals(past: Ledger) -> None:
    before = past.versions()

    outcome = past.run("--date", "2026-03-02", "--force")

    assert (outcome.code, outcome.counts["gaps"]) == (8, 2)
    assert outcome.kinds == {"gap"}
    (error,) = outcome.document["errors"]
    assert "2026-03-02 was not recorded in sim/1, sim/2: nothing was written" in error["message"]
    assert "--fill-gaps" in error["hint"]
    assert past.versions() == before


def test_f13_after_missing_days_no_window_holds_what_cannot_be_dated(book: Ledger) -> None:
    for days_ago, sent in ((9, 10), (8, 30)):
        book.day(book.today - timedelta(days=days_ago), 1, a10=sent)
        book.day(book.today - timedelta(days=days_ago), 2, a20=sent)

    outcome = book.run()

    # Seven days without a row in two workspaces, and 2 x 70 mails that belong to some of them.
    assert outcome.counts["gaps"] == 14
    assert book.history("sent_1d, gaps_1d, sent_7d, gaps_7d, sent_30d, gaps_30d", "email_provider = 'Google'") == [
        (0, 2, 0, 2, 180, 2)
    ]


def test_f13_a_day_that_one_workspace_lacks_is_refused_and_by_force_marked(past: Ledger) -> None:
    past.conn.execute("DELETE FROM sender_email_daily WHERE bison_workspace_id = 2 AND snapshot_date = '2026-02-28'")
    past.conn.execute("DELETE FROM workspace_snapshots WHERE bison_workspace_id = 2 AND snapshot_date = '2026-02-28'")

    refused = past.run("--date", "2026-02-28")
    assert (refused.code, refused.counts["gaps"], past.history("*")) == (8, 1, [])
    assert "2026-02-28 was not recorded in sim/2: nothing was written" in refused.document["errors"][0]["message"]
    assert [refused.workspace(n)["verdict"] for n in (1, 2)] == ["complete", "guarded"]

    forced = past.run("--date", "2026-02-28", "--force")
    assert (forced.code, past.history("total_sent, sent_1d, gaps_1d, is_complete")) == (0, [(101, 101, 1, False)])
    assert (forced.document["errors"], forced.workspace(2)["verdict"]) == ([], "incomplete")


def test_a_workspace_added_later_is_not_missing_before(past: Ledger) -> None:
    past.workspace(3, registered="2026-03-05")

    outcome = past.run("--date", "2026-02-28")

    assert (outcome.code, outcome.workspace(3)["verdict"]) == (0, "skipped")
    assert past.history("is_complete") == [(True,)]


# Gaps that are filled


@dataclass(frozen=True)
class FilledDays:
    """What a filler says it did."""

    days: dict[str, frozenset[date]]
    counts: dict[str, int]
    problems: tuple[Problem, ...] = ()
    note: str = "1 gap filled"


def run_job(book: Ledger, policy: job.Policy, fill: job.Fill) -> Any:
    """The job in this process, under leases of a run of its own."""
    clock, run_id = SystemClock(), uuid4()
    database = Database(book.dsn, application_name="test", clock=clock)
    rows = registry.list_workspaces(book.conn)
    book.conn.execute(
        "INSERT INTO email_sync_logs (run_id, job, status, started_at)"
        " VALUES (%s, 'snapshot-providers', 'running', now())",
        (run_id,),
    )
    taken = leases.take(book.conn, "snapshot-providers", [row.key for row in rows], run_id=run_id, ttl_seconds=60.0)
    held = {(lease.bison_instance, lease.bison_workspace_id): lease for lease in taken}
    run = WorkspacesRun(
        job="snapshot-providers",
        run_id=run_id,
        started_at=clock.now(),
        clock=clock,
        deadline=clock.monotonic() + 60,
        db=database,
        bookkeeping=database,
        workspaces=tuple(rows),
        leases=held,
        claim=lambda *_: (),
        clients={},
        concurrency={},
        access={},
        dry_run=False,
        progress=lambda _what, _done, _of: None,
    )
    try:
        return job.run(run, policy, fill)
    finally:
        leases.release(book.conn, run_id)
        database.close()


def test_when_a_gap_is_filled_every_history_that_it_takes_part_in_follows(book: Ledger) -> None:
    ago = {n: book.today - timedelta(days=n) for n in range(45)}
    for n, sent in ((41, 0), (40, 5), (38, 9), (37, 10), (9, 20), (8, 21), (7, 30), (1, 40)):
        book.day(ago[n], 1, a10=sent)
        book.day(ago[n], 2, a20=sent)
        snapshots.write_history(book.conn, "sim", ago[n], zone="UTC")
    told: list[Gap] = []

    def fill(_: WorkspacesRun, gaps: Any) -> FilledDays:
        told.extend(gaps)
        book.day(ago[39], 1, a10=6)
        book.day(ago[39], 2, a20=6)
        return FilledDays({"sim": frozenset({ago[39]})}, {"filled": 2})

    result = run_job(book, job.Policy("UTC"), fill)

    assert result.exit_code == 0
    assert result.counts["filled"] == 2
    assert result.summary.endswith("; 1 gap filled")
    assert (1, ago[40], ago[38]) in [(gap.bison_workspace_id, gap.before, gap.after) for gap in told]
    assert told[0].days == [ago[39]]
    windows = dict(book.all("SELECT snapshot_date, sent_1d FROM provider_performance_history WHERE sent_1d > 0"))
    assert (windows[ago[39]], windows[ago[38]]) == (2, 6)
    # The 30 days that end on the ninth day before today begin after the one that was filled.
    assert book.history("sent_30d, gaps_30d", f"snapshot_date = '{ago[9]}' AND email_provider = 'Google'") == [(28, 0)]
    stored = book.history("to_jsonb(provider_performance_history) - '{created_at,updated_at}'::text[]")
    for (on,) in book.all("SELECT DISTINCT snapshot_date FROM provider_performance_history"):
        snapshots.write_history(book.conn, "sim", on, zone="UTC")
    assert book.history("to_jsonb(provider_performance_history) - '{created_at,updated_at}'::text[]") == stored


# Runs beside each other, and runs that end early


def test_f23_of_two_runs_at_once_each_workspace_is_written_by_one(book: Ledger) -> None:
    both = [book.start() for _ in range(2)]
    codes = sorted(cli.finish(process).returncode for process in both)

    assert codes in ([0, 0], [0, 75])
    assert len(book.all("SELECT * FROM sender_email_daily")) == 4
    assert book.history("email_provider, total_accounts, is_complete") == [
        ("Google", 2, True),
        ("Microsoft", 2, True),
    ]


def test_f23_a_run_that_finds_all_held_says_by_whom_and_writes_nothing(book: Ledger) -> None:
    book.conn.execute(
        "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, heartbeat_at, expires_at)"
        " SELECT 'snapshot-providers', 'sim', n, gen_random_uuid(), 'elsewhere', 1, now(), now() + interval '1 hour'"
        " FROM generate_series(1, 2) AS n"
    )

    outcome = book.run()

    assert outcome.code == 75
    assert "on elsewhere" in outcome.document["errors"][0]["message"]
    assert all(rows == [] for rows in book.versions().values())


KILLS = {
    "before the second workspace's commit": ("commit", "snapshots", "write_snapshot", 2),
    "after the first workspace's commit": ("committed", "snapshots", "write_snapshot", 1),
    "before the history's commit": ("commit", "snapshots", "write_history", 1),
}


@pytest.mark.kills
@pytest.mark.parametrize("point", KILLS)
def test_f1_killed_in_between_leaves_each_workspace_old_or_new_and_the_next_run_goes_on(
    book: Ledger, point: str
) -> None:
    assert book.run().code == 0
    old = dict(book.all("SELECT bison_account_id, emails_sent_count FROM sender_email_daily"))
    for number in (1, 2):
        for account in (10 * number, 10 * number + 1):
            book.account(number, account, emails_sent_count=1000 + account)
    when, family, name, nth = KILLS[point]
    victim = Victim()
    with FaultProxy(book.dsn) as proxy:
        rule = proxy.at(when, said_by(family, name), victim.kill, nth=nth)  # type: ignore[arg-type]
        process = book.start(dsn=proxy.dsn)
        victim.is_(process)
        process.communicate()
    assert rule.hit.is_set()

    now = dict(book.all("SELECT bison_account_id, emails_sent_count FROM sender_email_daily"))
    new = {account: 1000 + account for account in old}
    for accounts in ((10, 11), (20, 21)):
        shown = {account: now[account] for account in accounts}
        assert shown in ({a: old[a] for a in accounts}, {a: new[a] for a in accounts})
    assert book.run().code == 0
    assert dict(book.all("SELECT bison_account_id, emails_sent_count FROM sender_email_daily")) == new
    assert sum(total for (total,) in book.history("total_sent")) == sum(new.values())
    assert book.all("SELECT * FROM email_sync_logs WHERE status = 'running'") == []


def take_lease(book: Ledger) -> leases.Lease:
    """A workspace's, for a run that is in the ledger; there is room for its rows."""
    book.all("SELECT bisonsync_private.make_daily_partitions(%s, %s)", book.today, book.today)
    run_id = uuid4()
    book.conn.execute(
        "INSERT INTO email_sync_logs (run_id, job, status, started_at)"
        " VALUES (%s, 'snapshot-providers', 'running', now())",
        (run_id,),
    )
    (lease,) = leases.take(book.conn, "snapshot-providers", [("sim", 1)], run_id=run_id, ttl_seconds=60.0)
    return lease


def test_a_holder_whose_lease_ran_out_writes_nothing(book: Ledger) -> None:
    lease = take_lease(book)
    book.conn.execute("UPDATE job_leases SET expires_at = clock_timestamp() - interval '1 ms'")

    with pytest.raises(job.BisonsyncError, match="ran out or was taken over"), book.conn.transaction():
        snapshots.write(book.conn, lease, workspace_name="x", zone="UTC", force=False)

    assert all(rows == [] for rows in book.versions().values())


def test_a_holder_whose_lease_ends_while_it_writes_writes_nothing(book: Ledger) -> None:
    lease = take_lease(book)
    # Renewed for less than the server keeps free before a commit.
    short = replace(lease, ttl_seconds=leases.COMMIT_MARGIN_MILLISECONDS / 2000)

    with pytest.raises(job.BisonsyncError, match="ran out or was taken over"), book.conn.transaction():
        snapshots.write(book.conn, short, workspace_name="x", zone="UTC", force=False)

    assert all(rows == [] for rows in book.versions().values())


def test_what_was_committed_before_the_answer_was_lost_counts_once(book: Ledger) -> None:
    lease = take_lease(book)

    written: list[snapshots.Written] = []
    for _ in range(2):
        with book.conn.transaction():
            written.append(snapshots.write(book.conn, lease, workspace_name="x", zone="UTC", force=False))

    assert written[0] == written[1]
    assert written[0].inserted == 2


def test_two_runs_do_not_compute_the_same_history_at_once(book: Ledger) -> None:
    with psycopg.connect(book.dsn) as other:
        snapshots.write_history(other, "sim", book.today, zone="UTC")
        with pytest.raises(psycopg.errors.LockNotAvailable), book.conn.transaction():
            book.conn.execute("SET LOCAL lock_timeout = '50ms'")
            snapshots.write_history(book.conn, "sim", book.today, zone="UTC")
        # Another instance's is nobody else's.
        snapshots.write_history(book.conn, "other", book.today, zone="UTC")


# Who may read


def test_whoever_may_read_the_tables_may_ask_for_the_differences(book: Ledger) -> None:
    public = book.all(
        "SELECT identity FROM bisonsync_private.access_list() WHERE kind = 'FUNCTION' AND reader_columns IS NOT NULL"
    )

    assert {("public.daily_differences",), ("public.performance_by",)} <= set(public)
