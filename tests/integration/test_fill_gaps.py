"""snapshot-providers --fill-gaps by the real command line: what is filled, from what, and what stays a gap."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import uuid4

import pytest
from cli import environment, finish, run_cli, start_cli, wait_until
from faultproxy import Conversation, FaultProxy, Victim, said_by
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from office import Connection, Office, Outcome

from bisonsync.errors import LeaseLost
from bisonsync.sandbox import Sandbox
from bisonsync.store import leases, snapshot_gaps, snapshots
from bisonsync.store.leases import Lease
from bisonsync.store.snapshot_gaps import DayTold, Filled, Filling
from bisonsync.store.snapshots import Gap

STATS = "/api/campaign-events/stats"
QUIET = {"come": 0, "go": 0, "disconnect": 0, "reconnect": 0, "move": 0, "retag": 0}
DAY_MINUTES = 1440
TOLD = ("emails_sent_count", "total_replied_count", "bounced_count")
CARRIED = ("total_opened_count", "unsubscribed_count", "interested_leads_count", "total_leads_contacted_count")

Rows = dict[tuple[int, int], dict[str, Any]]


class Diary:
    """An office whose sandbox lives through five days that ended some days ago, the first and the last recorded."""

    def __init__(self, office: Office, *, active: float = 0.6) -> None:
        self.office = office
        self.sandbox = office.sandbox
        self.conn = office.conn
        self.active = active
        self.first = self.sandbox.world.now.date()
        self.days = [self.first + timedelta(days=n) for n in range(5)]
        self.gap = self.days[1:-1]
        self.conn.execute(
            "SELECT count(*) FROM bisonsync_private.make_daily_partitions(%s, %s)", (self.days[0], self.days[-1])
        )
        self.conn.execute("UPDATE client_registry SET created_at = %s", (self.first,))

    def rows(self) -> Rows:
        """Every account as the sandbox has it now."""
        return {(number, row["id"]): row for number, rows in self.sandbox.truth().items() for row in rows}

    def record(self, day: date) -> Rows:
        """What a snapshot on this day would have left, but for prices."""
        rows = self.rows()
        for (workspace, number), row in rows.items():
            values = {
                **{name: row[name] for name in (*TOLD, *CARRIED, "unique_replied_count", "unique_opened_count")},
                "snapshot_date": day,
                "bison_instance": "sim",
                "bison_workspace_id": workspace,
                "bison_account_id": number,
                "email_provider": "Google" if number % 2 else "Microsoft",
                "domain": row["email"].partition("@")[2],
                "is_connected": row["status"] == "Connected",
                "daily_limit": row["daily_limit"],
                "created_on": row["created_at"][:10],
            }
            self.conn.execute(
                f"INSERT INTO sender_email_daily ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})",
                list(values.values()),
            )
        for workspace in self.sandbox.truth():
            self.conn.execute(
                "INSERT INTO workspace_snapshots"
                " (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)"
                " VALUES ('sim', %s, %s, %s, true)",
                (workspace, day, sum(key[0] == workspace for key in rows)),
            )
        return rows

    def advance(self, minutes: float = DAY_MINUTES, **fields: Any) -> Rows:
        """Let so much time go by; what then is."""
        self.sandbox.advance(minutes=minutes, **{"active": self.active, **QUIET, **fields})
        return self.rows()

    def live(self) -> dict[date, Rows]:
        """Record the first day, live on through the others, record the last; what was at the end of each."""
        truth = {self.days[0]: self.record(self.days[0])}
        for day in self.days[1:]:
            truth[day] = self.advance()
        self.record(self.days[-1])
        return truth

    @property
    def arguments(self) -> list[str]:
        """To fill without recording today."""
        return ["--fill-gaps", "--date", str(self.days[-1]), "--json"]

    def fill(self, *arguments: str, **env: str) -> Outcome:
        """Fill, without recording today."""
        return self.office.run("snapshot-providers", *self.arguments, *arguments, env=env)

    def stored(self, day: date | None = None) -> Rows:
        """The rows of a day, or of the whole gap by day too."""
        cursor = self.conn.execute("SELECT to_jsonb(d) FROM sender_email_daily AS d WHERE snapshot_date = %s", (day,))
        found = [row for (row,) in cursor.fetchall()]
        return {(row["bison_workspace_id"], row["bison_account_id"]): row for row in found}

    def filled_days(self, workspace: int) -> list[date]:
        cursor = self.conn.execute(
            "SELECT snapshot_date FROM workspace_snapshots WHERE bison_workspace_id = %s AND source = 'api'"
            " AND NOT is_complete AND read_at IS NULL ORDER BY 1",
            (workspace,),
        )
        return [day for (day,) in cursor.fetchall()]

    def everything(self) -> list[Any]:
        """All that was written, with the times of writing."""
        return [
            self.conn.execute(f"SELECT to_jsonb(t) FROM {table} AS t ORDER BY to_jsonb(t)::text").fetchall()
            for table in ("sender_email_daily", "workspace_snapshots", "provider_performance_history")
        ]

    def asked(self) -> int:
        """How often the sandbox was asked for daily numbers."""
        by_path = self.sandbox.summary()["requests"]["by_path"]
        return sum(by_path.get(STATS, {}).values())

    def add_told(self, day: date, account: int, amount: int, workspace: int = 1) -> None:
        """Let the platform tell more than was."""
        with self.sandbox.lock:
            self.sandbox.world.workspaces[workspace].daily[day][account]["emails_sent_count"] += amount

    def forget_told(self, account: int, workspace: int = 1) -> None:
        with self.sandbox.lock:
            for accounts in self.sandbox.world.workspaces[workspace].daily.values():
                accounts.pop(account, None)


def some_time_ago(conn: Connection, *, at: time = time(23, 59)) -> datetime:
    """Ten days ago in UTC, by the database's clock: within the days that are looked through for gaps."""
    row = conn.execute("SELECT (now() AT TIME ZONE 'UTC')::date - 10").fetchone()
    assert row is not None
    return datetime.combine(row[0], at, UTC)


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    """Two workspaces with 24 and 12 accounts, whose world begins a minute before midnight."""
    with Sandbox(workspaces=2, accounts=36, skew=(24,), start=some_time_ago(conn)) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


@pytest.fixture
def diary(office: Office) -> Diary:
    return Diary(office)


def moved(truth: dict[date, Rows]) -> list[tuple[int, int]]:
    first, *_, last = truth.values()
    return [key for key in first if key in last and any(first[key][name] < last[key][name] for name in TOLD)]


def assert_equal(stored: Rows, truth: Rows, first: Rows, last: Rows) -> None:
    """What was filled is what a snapshot of that day would have been, as far as the platform tells it."""
    assert stored.keys() == first.keys() & last.keys()
    for key, row in stored.items():
        assert {name: row[name] for name in TOLD} == {name: truth[key][name] for name in TOLD}
        assert {name: row[name] for name in CARRIED} == {name: first[key][name] for name in CARRIED}
        unique = "unique_replied_count"
        assert first[key][unique] <= row[unique] <= last[key][unique]
        assert row["source"] == "api"


def test_missing_days_are_filled_as_if_they_had_been_recorded(diary: Diary) -> None:
    truth = diary.live()

    outcome = diary.fill()

    assert outcome.code == 0, outcome.stderr
    for day in diary.gap:
        assert_equal(diary.stored(day), truth[day], truth[diary.days[0]], truth[diary.days[-1]])
    assert diary.filled_days(1) == diary.filled_days(2) == diary.gap
    assert 0 < len(moved(truth)) < 36
    # Each that moved, and once a mailbox that cannot be; the others are not asked for.
    assert diary.asked() == len(moved(truth)) + 1
    counts = outcome.counts
    assert (counts["gaps_found"], counts["gap_days"], counts["gap_days_filled"]) == (2, 6, 6)
    assert (counts["gap_accounts_filled"], counts["gap_accounts_left"], counts["gap_accounts_refused"]) == (36, 0, 0)
    assert counts["gap_requests"] == counts_of_ledger(diary)["gap_requests"] == len(moved(truth)) + 1 + 4
    assert counts_of_ledger(diary)["gap_days_filled"] == 6


def counts_of_ledger(diary: Diary) -> dict[str, int]:
    return diary.office.one("SELECT counts FROM email_sync_logs ORDER BY started_at DESC LIMIT 1")


def test_the_history_of_filled_days_and_of_those_after_follows(diary: Diary) -> None:
    truth = diary.live()
    diary.fill()

    history = {
        (provider, day): (sent, gaps, is_complete)
        for provider, day, sent, gaps, is_complete in diary.conn.execute(
            "SELECT email_provider, snapshot_date, sent_1d, gaps_1d, is_complete FROM provider_performance_history"
        ).fetchall()
    }

    for before, day in zip(diary.days, diary.days[1:], strict=False):
        sent = {"Google": 0, "Microsoft": 0}
        for key, row in truth[day].items():
            name = "Google" if key[1] % 2 else "Microsoft"
            sent[name] += row["emails_sent_count"] - truth[before][key]["emails_sent_count"]
        for provider in sent:
            assert history[provider, day] == (sent[provider], 0, day == diary.days[-1])
    assert diary.office.one("SELECT sum(sent_1d) FROM provider_performance_history") > 0


def test_filling_twice_changes_nothing(diary: Diary) -> None:
    diary.live()
    diary.fill()
    before, asked = diary.everything(), diary.asked()

    outcome = diary.fill()

    assert outcome.code == 0
    assert diary.everything() == before
    assert diary.asked() == asked
    assert outcome.counts["gaps_found"] == 0


def test_by_the_jobs_themselves_with_today_as_the_end(db: str, conn: Connection) -> None:
    start = some_time_ago(conn) + timedelta(days=6)
    with Sandbox(workspaces=2, accounts=20, skew=(12,), start=start) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        diary = Diary(office)
        office.poll()
        office.run("snapshot-providers")
        for table in ("sender_email_daily", "workspace_snapshots", "provider_performance_history"):
            conn.execute(f"UPDATE {table} SET snapshot_date = %s".encode(), (diary.first,))
        truth = {diary.first: diary.rows(), **{day: diary.advance() for day in diary.gap}}
        truth[diary.days[-1]] = diary.advance(600, come=1)
        office.poll()

        planned = office.run("snapshot-providers", "--fill-gaps", "--json", "--dry-run")
        untouched = diary.stored(diary.gap[0]), diary.filled_days(1), diary.asked()
        outcome = office.run("snapshot-providers", "--fill-gaps")

        assert planned.code == 0
        assert untouched == ({}, [], 0)
        assert planned.counts["gap_requests"] == counts_of_ledger(diary)["gap_requests"] == len(moved(truth)) + 5
        assert planned.counts["gap_days"] == 6
        assert (outcome.code, outcome.stderr) == (0, "")
        assert "6 of 6 missing days of workspaces filled without 1 accounts that came" in outcome.stdout
        assert "approximately" not in outcome.stdout
        for day in diary.gap:
            assert_equal(diary.stored(day), truth[day], truth[diary.first], truth[diary.days[-1]])
        gaps = conn.execute(
            "SELECT snapshot_date, max(gaps_1d) FROM provider_performance_history GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert gaps == [(diary.first, 2), *((day, 0) for day in diary.days[1:])]


def test_what_came_after_the_last_look_at_the_first_day_counts_for_the_day_after(db: str, conn: Connection) -> None:
    """A tool that stops at noon has read half of that day; the afternoon is in none of the gap's days."""
    with Sandbox(workspaces=1, accounts=20, start=some_time_ago(conn, at=time(12))) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        diary = Diary(office, active=1.0)
        truth = {diary.first: diary.record(diary.first)}
        afternoon = diary.advance(719)
        for day in diary.gap:
            truth[day] = diary.advance()
        # The less is told of the last day, the more is left for the first: nothing told is told, too.
        truth[diary.days[-1]] = diary.advance(active=0.3)
        diary.record(diary.days[-1])

        assert diary.fill().code == 0

        assert afternoon != truth[diary.first]
        for day in diary.gap:
            assert_equal(diary.stored(day), truth[day], truth[diary.first], truth[diary.days[-1]])


def test_accounts_that_came_went_or_were_reset_are_left_out_and_counted(diary: Diary) -> None:
    diary.record(diary.first)
    diary.advance()
    reset, removed, _ = sorted(diary.sandbox.world.workspaces[1].accounts)[:3]
    diary.sandbox.world.change(reset, emails_sent_count=0)
    diary.sandbox.world.remove(removed)
    diary.advance(come=2)
    diary.advance()
    last = diary.advance()
    diary.record(diary.days[-1])

    outcome = diary.fill()

    assert outcome.code == 0
    assert outcome.counts["gap_accounts_left"] == 4
    assert outcome.counts["gap_accounts_filled"] == 36 - 2
    assert not {number for _, number in diary.stored(diary.gap[1])} & {reset, removed}
    assert diary.stored(diary.gap[1]).keys() < last.keys()


def test_an_account_of_which_too_much_or_nothing_is_told_is_refused_alone(diary: Diary) -> None:
    diary.active = 1.0
    truth = diary.live()
    too_much, nothing = [number for workspace, number in moved(truth) if workspace == 1][:2]
    diary.add_told(diary.gap[1], too_much, 1_000)
    diary.forget_told(nothing)

    outcome = diary.fill()

    assert outcome.code == 3
    assert outcome.counts["gap_accounts_refused"] == 2
    assert diary.stored(diary.gap[0]).keys() == truth[diary.first].keys() - {(1, too_much), (1, nothing)}
    messages = {error["message"] for error in outcome.document["errors"]}
    assert messages == {
        "instance sim: the platform tells more than the counters moved for an account"
        f" (the first: {too_much} of workspace sim/1); these were not filled",
        "instance sim: the platform tells nothing of what was sent for an account"
        f" (the first: {nothing} of workspace sim/1); these were not filled",
    }
    assert diary.fill().counts["gaps_found"] == 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.set_moods(daily_stats="whole"), "the same whichever mailbox is asked for"),
        (lambda s: s.set_moods(daily_stats="none"), "does not tell daily numbers by mailbox (HTTP 404)"),
        (
            lambda s: s.add_fault("fields", path=STATS, rows=(3, 4), set={"label": "Posted"}),
            "its daily numbers lack the series Sent, Bounced",
        ),
        (
            lambda s: s.add_fault("fields", path=STATS, rows=(3,), set={"dates": []}),
            "the platform does not tell every missing day",
        ),
    ],
    ids=["whole", "none", "label", "days"],
)
def test_a_host_that_cannot_tell_fills_nothing_and_is_named_once(
    diary: Diary, spoil: Callable[[Sandbox], Any], said: str
) -> None:
    diary.active = 1.0
    diary.live()
    before = diary.everything()[:2]
    spoil(diary.sandbox)

    outcome = diary.fill()

    assert outcome.code == 3
    (message,) = [error["message"] for error in outcome.document["errors"]]
    assert said in message
    assert diary.everything()[:2] == before
    assert outcome.counts["gap_days_filled"] == 0
    assert diary.fill().code == 3


def test_where_nothing_moved_nobody_needs_to_be_asked(diary: Diary) -> None:
    diary.active = 0.0
    truth = diary.live()
    diary.sandbox.set_moods(daily_stats="none")

    outcome = diary.fill()

    assert outcome.code == 0
    assert outcome.counts["gap_requests"] == diary.asked() == 0
    assert_equal(diary.stored(diary.gap[2]), truth[diary.first], truth[diary.first], truth[diary.first])


def test_counts_as_strings_are_understood(diary: Diary) -> None:
    truth = diary.live()
    diary.sandbox.add_fault("strings", path=STATS)

    assert diary.fill().code == 0

    assert_equal(diary.stored(diary.gap[1]), truth[diary.gap[1]], truth[diary.first], truth[diary.days[-1]])


def test_a_workspace_that_fails_stays_a_gap_until_the_next_run(diary: Diary) -> None:
    truth = diary.live()
    fault = diary.sandbox.add_fault("status", status=503, path=STATS, workspace=2, after=2)

    outcome = diary.fill()

    assert outcome.code == 3
    assert outcome.kinds == {"api_unavailable"}
    assert (diary.filled_days(1), diary.filled_days(2)) == (diary.gap, [])
    assert {workspace for workspace, _ in diary.stored(diary.gap[0])} == {1}
    first = {key: row for key, row in diary.stored(diary.gap[0]).items() if key[0] == 1}
    diary.sandbox.clear_faults(fault)
    assert diary.fill().code == 0
    again = diary.stored(diary.gap[0])
    assert {key: again[key] for key in first} == first
    assert_equal(again, truth[diary.gap[0]], truth[diary.first], truth[diary.days[-1]])


def test_f04_a_token_that_acts_elsewhere_fills_nothing_of_its_workspace(diary: Diary) -> None:
    diary.live()
    diary.sandbox.add_fault("identity", path=STATS, workspace=1, after=3, to=2)

    outcome = diary.fill()

    assert outcome.code == 8
    assert "acts in workspace 2" in outcome.document["errors"][0]["message"]
    assert (diary.filled_days(1), diary.filled_days(2)) == ([], diary.gap)


def test_a_workspace_without_a_token_is_named_and_the_others_are_filled(diary: Diary) -> None:
    diary.live()
    diary.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 1")

    outcome = diary.fill()

    assert outcome.code == 3
    assert outcome.kinds == {"credentials"}
    assert (diary.filled_days(1), diary.filled_days(2)) == ([], diary.gap)


def test_the_deadline_ends_the_asking_and_nothing_is_half_written(diary: Diary) -> None:
    diary.live()
    diary.sandbox.set_moods(workspace_latency={1: 30.0})

    outcome = diary.fill("--deadline", "2s")

    assert outcome.code == 7
    hints = [error["hint"] for error in outcome.document["errors"]]
    assert hints.count("what is filled stays; run it again with a longer --deadline") == 1
    assert diary.filled_days(1) == diary.filled_days(2) == []
    assert not diary.stored(diary.gap[0])


def test_what_was_recorded_is_never_overwritten(diary: Diary) -> None:
    diary.live()
    account = min(diary.sandbox.world.workspaces[1].accounts)
    diary.conn.execute(
        "INSERT INTO sender_email_daily (snapshot_date, bison_instance, bison_workspace_id, bison_account_id,"
        " emails_sent_count) VALUES (%s, 'sim', 1, %s, 77)",
        (diary.gap[1], account),
    )
    ends = diary.stored(diary.first), diary.stored(diary.days[-1])

    assert diary.fill().code == 0

    kept = diary.stored(diary.gap[1])[1, account]
    assert (kept["emails_sent_count"], kept["source"]) == (77, "poll")
    assert (diary.stored(diary.first), diary.stored(diary.days[-1])) == ends


def test_a_run_that_ended_before_the_history_followed_is_made_up_for(diary: Diary) -> None:
    diary.live()
    diary.fill()
    whole = history(diary)
    diary.conn.execute("DELETE FROM provider_performance_history WHERE snapshot_date = ANY(%s)", (diary.gap,))
    diary.conn.execute("UPDATE provider_performance_history SET sent_7d = 0")

    outcome = diary.fill()

    assert outcome.counts["gaps_found"] == 0
    assert history(diary) == whole


def test_the_gap_of_a_workspace_without_accounts_is_closed_and_the_history_says_so(diary: Diary) -> None:
    for account in list(diary.sandbox.world.workspaces[2].accounts):
        diary.sandbox.world.remove(account)
    for day in diary.days:
        diary.record(day)
    diary.conn.execute(
        "DELETE FROM workspace_snapshots WHERE bison_workspace_id = 2 AND snapshot_date = ANY(%s)", (diary.gap,)
    )
    for day in diary.days:
        with diary.conn.transaction():
            snapshots.write_history(diary.conn, "sim", day, zone="UTC")
    assert [row["gaps_1d"] for row in history(diary)] == [2, 2, 1, 1, 1, 1, 1, 1, 1, 1]

    assert diary.fill().code == 0

    assert [row["gaps_1d"] for row in history(diary)] == [2, 2, 0, 0, 0, 0, 0, 0, 0, 0]


def history(diary: Diary) -> Any:
    query = "SELECT jsonb_agg(to_jsonb(h) - '{created_at,updated_at}'::text[] ORDER BY snapshot_date, email_provider)"
    return diary.office.one(f"{query} FROM provider_performance_history AS h")


@pytest.mark.parametrize("when", ["statement", "commit", "committed"])
def test_f01_killed_while_it_fills_leaves_a_workspace_filled_or_a_gap(diary: Diary, when: Any) -> None:
    truth = diary.live()
    victim = Victim()
    with FaultProxy(diary.office.dsn) as proxy:
        rule = proxy.at(when, said_by("snapshot_gaps", "record_days"), victim.kill, nth=2)
        process = start_cli(["snapshot-providers", *diary.arguments], environment(proxy.dsn, diary.sandbox))
        victim.is_(process)
        process.communicate()
    assert rule.hit.is_set()
    wait_until(lambda: not sessions(diary), "the killed run's sessions have ended")

    assert diary.filled_days(1) == diary.gap
    assert diary.filled_days(2) == (diary.gap if when == "committed" else [])
    asked = diary.asked()
    assert diary.fill().code == 0
    assert (diary.asked() == asked) is (when == "committed")
    for day in diary.gap:
        assert_equal(diary.stored(day), truth[day], truth[diary.first], truth[diary.days[-1]])
    days = [row["snapshot_date"] for row in history(diary) if not row["gaps_1d"]]
    assert set(map(str, diary.days[1:])) == set(days)


def sessions(diary: Diary) -> int:
    return diary.office.one(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'bisonsync%%'"
    )


def test_what_was_refused_is_named_also_when_the_answer_to_its_commit_was_lost(diary: Diary) -> None:
    diary.active = 1.0
    truth = diary.live()
    account = next(number for workspace, number in moved(truth) if workspace == 1)
    diary.add_told(diary.gap[1], account, 1_000)
    with FaultProxy(diary.office.dsn) as proxy:
        rule = proxy.at("committed", said_by("snapshot_gaps", "record_days"), Conversation.cut)
        done = run_cli(["snapshot-providers", *diary.arguments], environment(proxy.dsn, diary.sandbox))

    assert rule.hit.is_set()
    assert done.returncode == 3
    assert json.loads(done.stdout)["counts"]["gap_accounts_filled"] == 35
    assert f"the first: {account} of workspace sim/1" in done.stderr + done.stdout


@pytest.mark.parametrize("asked", ["/api/users", STATS])
def test_stopped_while_it_asks_it_leaves_a_gap(diary: Diary, asked: str) -> None:
    diary.live()
    diary.sandbox.add_fault("hang", path=asked)
    waits = environment(diary.office.dsn, diary.sandbox, BISONSYNC_POLLING__READ_TIMEOUT="1h")
    process = start_cli(["snapshot-providers", *diary.arguments], waits)
    wait_until(lambda: asked in diary.sandbox.summary()["requests"]["by_path"], "it has asked")

    process.terminate()
    finish(process)

    assert process.returncode == 143
    assert diary.filled_days(1) == diary.filled_days(2) == []


def test_days_of_another_zone_are_said_to_be_approximate(diary: Diary) -> None:
    diary.live()

    outcome = diary.office.run(
        "snapshot-providers",
        "--fill-gaps",
        "--date",
        str(diary.days[-1]),
        env={"BISONSYNC_INSTANCES__SIM__STATS_TIMEZONE": "Asia/Tokyo"},
    )

    assert outcome.code == 0
    assert "approximately: days begin in Asia/Tokyo there and in UTC here" in outcome.stdout


# What one transaction does


@pytest.fixture
def lease(conn: Connection) -> Lease:
    """The lease of workspace 1 for a run of this test."""
    run_id = uuid4()
    with conn.transaction():
        conn.execute(
            "INSERT INTO email_sync_logs (run_id, job, host, status) VALUES (%s, 't', 'h', 'running')", [run_id]
        )
        (taken,) = leases.take(conn, "snapshot-providers", [("sim", 1)], run_id=run_id, ttl_seconds=60.0)
    return taken


def fillings(diary: Diary, *, sent: int = 0) -> list[Filling]:
    """A mail on the first day for every account that moved, and so many on each of the others."""
    gap = Gap("sim", 1, diary.days[0], diary.days[-1])
    told = [DayTold(day, 1 if day == diary.days[0] else sent, 0, 0) for day in diary.days]
    ends = snapshot_gaps.list_ends(diary.conn, gap)
    return [Filling(gap, {e.bison_account_id: told if e.state == "moved" else [] for e in ends})]


def fill(diary: Diary, lease: Lease, given: list[Filling]) -> Filled:
    with diary.conn.transaction():
        return snapshot_gaps.fill(diary.conn, lease, given, workspace_name="Acme", counts={"gap_accounts_left": 4})


def test_a_commit_whose_answer_was_lost_counts_once(diary: Diary, lease: Lease) -> None:
    diary.live()
    given = fillings(diary)
    diary.conn.execute("UPDATE job_leases SET expires_at = now() + interval '20 s'")

    first = fill(diary, lease, given)
    again = fill(diary, lease, given)

    assert first == again == Filled(days=3, accounts=24)
    assert diary.office.one("SELECT counts FROM email_sync_log_workspaces") == {
        "gap_days_filled": 3,
        "gap_accounts_filled": 24,
        "gap_accounts_left": 4,
    }
    # Held and renewed before anything was read.
    assert diary.office.one("SELECT expires_at > now() + interval '40 s' FROM job_leases WHERE bison_workspace_id = 1")


def test_a_gap_that_was_closed_meanwhile_is_left_alone(diary: Diary, lease: Lease) -> None:
    diary.live()
    given = fillings(diary)
    diary.record(diary.gap[1])
    before = diary.everything()

    assert fill(diary, lease, given) == Filled()

    assert diary.everything() == before


def test_a_lease_that_was_lost_fills_nothing(diary: Diary, lease: Lease) -> None:
    diary.live()
    given = fillings(diary)
    diary.conn.execute("UPDATE job_leases SET generation = generation + 1")

    with pytest.raises(LeaseLost):
        fill(diary, lease, given)

    assert diary.filled_days(1) == []


def test_many_accounts_are_written_in_parts(diary: Diary, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_gaps, "ROWS_PER_STATEMENT", 15)
    diary.live()

    assert fill(diary, lease, fillings(diary)) == Filled(days=3, accounts=24)

    assert len(diary.stored(diary.gap[2])) == 24


def test_a_gap_of_which_no_numbers_can_be_right_stays_one(diary: Diary, lease: Lease) -> None:
    diary.active = 1.0
    diary.live()
    (given,) = fillings(diary, sent=1_000)
    given = Filling(given.gap, {number: told for number, told in given.told.items() if told})

    filled = fill(diary, lease, [given])

    assert (filled.days, filled.accounts, filled.exceeding) == (0, 0, tuple(sorted(given.told)))
    assert diary.filled_days(1) == []


# The rule itself

COUNT = st.integers(0, 40)
END = st.tuples(COUNT, COUNT, COUNT, COUNT)
# Mostly less than an account moved, sometimes more.
TOLD_OF_A_DAY = st.integers(0, 6)
SERIES = st.lists(st.tuples(TOLD_OF_A_DAY, TOLD_OF_A_DAY, TOLD_OF_A_DAY), min_size=5, max_size=5)


def spread(conn: Connection, was: tuple[int, ...], is_now: tuple[int, ...], told: list[tuple[int, ...]]) -> list[Any]:
    """What the rule makes of one account and a gap of three days."""
    first = date(2026, 3, 1)
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT count(*) FROM bisonsync_private.make_daily_partitions('2026-03-01', '2026-03-01')")
        for day, counters in ((first, was), (first + timedelta(days=4), is_now)):
            conn.execute(
                "INSERT INTO sender_email_daily (snapshot_date, bison_instance, bison_workspace_id, bison_account_id,"
                " emails_sent_count, total_replied_count, bounced_count, unique_replied_count)"
                " VALUES (%s, 'sim', 1, 9, %s, %s, %s, %s)",
                (day, *counters),
            )
        days = [
            {"id": 9, "day": str(first + timedelta(days=n)), "sent": day[0], "replied": day[1], "bounced": day[2]}
            for n, day in enumerate(told)
        ]
        return conn.execute(
            "SELECT verdict, emails_sent_count, total_replied_count, bounced_count, unique_replied_count"
            " FROM bisonsync_private.spread_over_gap('sim', 1, %s, %s, '{9}', %s) ORDER BY snapshot_date",
            (first, first + timedelta(days=4), json.dumps(days)),
        ).fetchall()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(was=END, more=END, fallen=st.booleans(), told=SERIES)
def test_filled_counters_never_fall_never_pass_the_next_and_hold_what_is_told(
    conn: Connection, was: tuple[int, ...], more: tuple[int, ...], fallen: bool, told: list[tuple[int, ...]]
) -> None:
    is_now = tuple(a + b for a, b in zip(was, more, strict=True))
    if fallen:
        is_now = (*is_now[:2], was[2] // 2, is_now[3])
    inside = [sum(day[n] for day in told[1:4]) for n in range(3)]
    exceeds = any(is_now[n] >= was[n] and inside[n] > is_now[n] - was[n] for n in range(3))
    explains = is_now[0] == was[0] or any(day[0] for day in told)

    rows = spread(conn, was, is_now, told)

    assert len(rows) == 3
    if exceeds or not explains:
        assert rows == [("exceeding" if exceeds else "unexplained", None, None, None, None)] * 3
        return
    path = [was, *(row[1:] for row in rows), is_now]
    for n in range(4):
        values = [counters[n] for counters in path]
        if is_now[n] < was[n]:
            assert values[:4] == [was[n]] * 4
            continue
        assert values == sorted(values)
        if n < 3:
            # What the gap's days and the last one do not explain belongs to the first day, as far as that has so much.
            rest = min(max(is_now[n] - was[n] - inside[n] - told[4][n], 0), told[0][n])
            assert values[1:4] == [was[n] + rest + sum(day[n] for day in told[1 : 2 + k]) for k in range(3)]
