"""What happened in a window: examples by hand, and sixty days of generated history against a model in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from bisonsync.store import snapshots

Connection = psycopg.Connection[Any]
Key = tuple[str, int, int]

FIRST = date(2024, 1, 15)
# A leap day, two ends of months, and a month that is one day longer than a window.
DAYS = [FIRST + timedelta(days=n) for n in range(60)]
DIMENSIONS = ("provider", "reseller", "domain", "workspace", "instance")
WINDOWS = (1, 7, 30)
SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Row:
    """A row of sender_email_daily."""

    snapshot_date: date
    bison_instance: str = "a"
    bison_workspace_id: int = 1
    bison_account_id: int = 1
    emails_sent_count: int = 0
    unique_replied_count: int = 0
    bounced_count: int = 0
    total_replied_count: int = 0
    total_opened_count: int = 0
    email_provider: str = "Google"
    reseller: str | None = None
    domain: str | None = "example.com"
    is_connected: bool = True
    daily_limit: int | None = None
    volume_per_account: Decimal | None = None
    created_on: date | None = None

    @property
    def key(self) -> Key:
        return self.bison_instance, self.bison_workspace_id, self.bison_account_id


@dataclass(frozen=True)
class Snapshot:
    """A row of workspace_snapshots."""

    bison_instance: str
    bison_workspace_id: int
    snapshot_date: date
    is_complete: bool = True


@dataclass(frozen=True)
class Sums:
    """What a group did in a window."""

    sent: int = 0
    unique_replies: int = 0
    bounces: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def with_rates(self) -> tuple[Any, ...]:
        return (*astuple(self), rate(self.unique_replies, self.sent), rate(self.bounces, self.sent))


def rate(part: int | Decimal, whole: int | Decimal) -> Decimal | None:
    if not whole:
        return None
    return (Decimal(100) * part / whole).quantize(Decimal("0.0001"), ROUND_HALF_UP)


def day(number: int) -> date:
    """The n-th day of January 2024, also beyond its end."""
    return date(2023, 12, 31) + timedelta(days=number)


# The database's side


def store_rows(conn: Connection, rows: Iterable[Row]) -> None:
    names = [field.name for field in fields(Row)]
    rows = list(rows)
    conn.execute(
        "SELECT count(*) FROM bisonsync_private.make_daily_partitions(%s, %s)",
        (min(row.snapshot_date for row in rows), max(row.snapshot_date for row in rows)),
    )
    with (
        conn.cursor() as cursor,
        cursor.copy(f"COPY sender_email_daily ({', '.join(names)}) FROM STDIN".encode()) as copy,
    ):
        for row in rows:
            copy.write_row(astuple(row))


def store_snapshots(conn: Connection, recorded: Iterable[Snapshot]) -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO workspace_snapshots (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)"
            " VALUES (%s, %s, %s, 0, %s)",
            [astuple(snapshot) for snapshot in recorded],
        )


def performance(conn: Connection, dimension: str, first: date, last: date) -> dict[str, tuple[Any, ...]]:
    """performance_by on the days from ``first`` to ``last``, both included."""
    query = "SELECT * FROM performance_by(%s, %s, %s)"
    return {group: tuple(rest) for group, *rest in conn.execute(query, (dimension, first, last + timedelta(days=1)))}


def sent(conn: Connection, first: int, last: int) -> dict[str, int]:
    """Mails sent by provider between two days of January, where there were any."""
    shown = performance(conn, "provider", day(first), day(last))
    return {provider: values[0] for provider, values in shown.items() if values[0]}


# Examples


def test_a_day_is_the_difference_to_the_day_before(conn: Connection) -> None:
    store_rows(conn, [Row(day(n), emails_sent_count=100 * n, unique_replied_count=3 * n) for n in (1, 2, 3)])

    assert performance(conn, "provider", day(2), day(3)) == {
        "Google": (200, 6, 0, Decimal("3.0000"), Decimal("0.0000"))
    }
    assert [sent(conn, n, n) for n in (1, 2, 3, 4)] == [{}, {"Google": 100}, {"Google": 100}, {}]


def test_ranges_are_half_open(conn: Connection) -> None:
    store_rows(conn, [Row(day(n), emails_sent_count=10**n) for n in (1, 2, 3, 4)])

    rows = conn.execute("SELECT sent FROM performance_by('instance', %s, %s)", (day(2), day(4))).fetchall()

    assert rows == [(990,)]


def test_an_account_counts_whole_on_the_day_it_was_made_and_not_on_another_first_day(conn: Connection) -> None:
    store_rows(
        conn,
        [
            Row(day(5), bison_account_id=1, emails_sent_count=40, email_provider="new", created_on=day(5)),
            Row(day(5), bison_account_id=2, emails_sent_count=9000, email_provider="older", created_on=day(4)),
            Row(day(5), bison_account_id=3, emails_sent_count=9000, email_provider="unknown"),
        ],
    )

    assert sent(conn, 5, 5) == {"new": 40}
    assert sent(conn, 1, 9) == {"new": 40}
    assert sent(conn, 6, 9) == {}


def test_a_reset_counts_from_zero_in_all_counters(conn: Connection) -> None:
    store_rows(
        conn,
        [
            Row(day(1), emails_sent_count=500, unique_replied_count=10, bounced_count=7),
            Row(day(2), emails_sent_count=20, unique_replied_count=11, bounced_count=1),
        ],
    )

    assert performance(conn, "instance", day(2), day(2))["a"][:3] == (20, 11, 1)
    marks = conn.execute("SELECT is_reset, falling_counters FROM daily_differences(%s, %s)", (day(2), day(3)))
    assert marks.fetchall() == [(True, 0)]


def test_another_counter_that_falls_is_no_change_and_is_told(conn: Connection) -> None:
    store_rows(
        conn,
        [
            Row(day(1), emails_sent_count=100, unique_replied_count=10, bounced_count=7, total_opened_count=9),
            Row(day(2), emails_sent_count=150, unique_replied_count=4, bounced_count=9, total_opened_count=8),
            Row(day(3), emails_sent_count=150, unique_replied_count=6, bounced_count=9, total_opened_count=8),
        ],
    )

    assert performance(conn, "instance", day(2), day(2))["a"][:3] == (50, 0, 2)
    assert performance(conn, "instance", day(3), day(3))["a"][:3] == (0, 2, 0)
    marks = conn.execute("SELECT is_reset, falling_counters FROM daily_differences(%s, %s)", (day(2), day(4)))
    assert sorted(marks.fetchall()) == [(False, 0), (False, 2)]


def test_f13_a_difference_across_missing_days_counts_only_where_the_whole_gap_is(conn: Connection) -> None:
    store_rows(conn, [Row(day(n), emails_sent_count=100 * n) for n in (1, 2, 6, 7)])

    assert sent(conn, 2, 7) == {"Google": 600}
    assert sent(conn, 3, 6) == {"Google": 400}
    assert sent(conn, 4, 7) == {"Google": 100}
    assert [sent(conn, n, n) for n in (3, 4, 5, 6)] == [{}] * 4


def test_a_reset_within_missing_days_counts_only_where_the_whole_gap_is(conn: Connection) -> None:
    store_rows(conn, [Row(day(1), emails_sent_count=100), Row(day(4), emails_sent_count=30)])

    assert sent(conn, 2, 4) == {"Google": 30}
    assert sent(conn, 3, 4) == {}


def test_a_moved_account_starts_anew(conn: Connection) -> None:
    store_rows(
        conn,
        [
            Row(day(1), emails_sent_count=100, created_on=day(-9)),
            Row(day(2), emails_sent_count=130, created_on=day(-9)),
            Row(day(2), bison_workspace_id=2, emails_sent_count=130, created_on=day(-9)),
            Row(day(3), bison_workspace_id=2, emails_sent_count=150, created_on=day(-9)),
        ],
    )

    moved = performance(conn, "workspace", day(1), day(3))
    assert {workspace: values[0] for workspace, values in moved.items()} == {"a/1": 30, "a/2": 20}


def test_a_removed_account_counts_until_its_last_day_and_a_restored_one_as_after_a_gap(conn: Connection) -> None:
    store_rows(conn, [Row(day(n), emails_sent_count=10 * n) for n in (1, 2, 3, 8, 9)])

    assert sent(conn, 2, 7) == {"Google": 20}
    assert sent(conn, 4, 9) == {"Google": 60}
    assert sent(conn, 5, 9) == {"Google": 10}


def test_a_difference_belongs_to_the_provider_of_its_later_day(conn: Connection) -> None:
    store_rows(
        conn,
        [
            Row(day(1), emails_sent_count=0),
            Row(day(2), emails_sent_count=5, reseller="Zapmail"),
            Row(day(3), emails_sent_count=12, email_provider="Microsoft", domain="example.net"),
        ],
    )

    assert sent(conn, 2, 3) == {"Google": 5, "Microsoft": 7}
    by_reseller = performance(conn, "reseller", day(2), day(3))
    assert {reseller: values[0] for reseller, values in by_reseller.items()} == {"Zapmail": 5, "Unknown": 7}
    by_domain = performance(conn, "domain", day(2), day(3))
    assert {domain: values[0] for domain, values in by_domain.items()} == {"example.com": 5, "example.net": 7}


def test_windows_pass_the_ends_of_months_and_a_leap_day(conn: Connection) -> None:
    days = [date(2024, 2, 27) + timedelta(days=n) for n in range(4)]
    store_rows(conn, [Row(on, emails_sent_count=10 * n) for n, on in enumerate(days)])

    assert str(days[2]) == "2024-02-29"
    assert performance(conn, "provider", days[2], days[2])["Google"][0] == 10
    assert performance(conn, "provider", days[1], date(2024, 3, 1))["Google"][0] == 30


@pytest.mark.parametrize("dimension", ["Provider", "account", "", None])
def test_an_unknown_dimension_is_refused(conn: Connection, dimension: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("SELECT * FROM performance_by(%s, '2024-01-01', '2024-02-01')", (dimension,))


def test_a_range_without_an_end_is_refused(conn: Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("SELECT * FROM performance_by('provider', '2024-01-01', NULL)")


def test_only_the_months_asked_for_are_read(conn: Connection) -> None:
    store_rows(conn, [Row(date(2024, month, 15)) for month in range(1, 13)])

    plan = conn.execute("EXPLAIN SELECT sum(sent) FROM daily_differences('2024-05-01', '2024-05-31')").fetchall()

    read = {word for (line,) in plan for word in line.split() if word.startswith("sender_email_daily_")}
    assert {name.removesuffix("_pkey") for name in read} == {"sender_email_daily_2024_04", "sender_email_daily_2024_05"}


def test_providers_that_are_gone_keep_a_row_as_long_as_a_window_holds_their_mails(conn: Connection) -> None:
    register(conn, [("a", 1, day(1), True)])
    store_rows(
        conn,
        [
            Row(day(1), emails_sent_count=0, email_provider="Yahoo"),
            Row(day(2), emails_sent_count=9, email_provider="Yahoo"),
            *(Row(day(n), emails_sent_count=9, email_provider="Google") for n in range(3, 40)),
        ],
    )
    store_snapshots(conn, [Snapshot("a", 1, day(n)) for n in range(1, 40)])

    for n in range(1, 40):
        snapshots.write_history(conn, "a", day(n), zone="UTC")

    kept = conn.execute(
        "SELECT snapshot_date, total_accounts, sent_7d, sent_30d FROM provider_performance_history"
        " WHERE email_provider = 'Yahoo' ORDER BY 1"
    ).fetchall()
    assert kept[0] == (day(1), 1, 0, 0)
    assert kept[2] == (day(3), 0, 9, 9)
    assert kept[-1] == (day(31), 0, 0, 9)


def test_what_should_not_be_there_any_more_is_deleted(conn: Connection) -> None:
    register(conn, [("a", 1, day(1), True)])
    store_rows(conn, [Row(day(1))])
    store_snapshots(conn, [Snapshot("a", 1, day(1))])
    snapshots.write_history(conn, "a", day(1), zone="UTC")
    conn.execute("UPDATE sender_email_daily SET email_provider = 'Microsoft'")

    written = snapshots.write_history(conn, "a", day(1), zone="UTC")

    assert (written.inserted, written.updated, written.deleted) == (1, 0, 1)
    assert conn.execute("SELECT email_provider FROM provider_performance_history").fetchall() == [("Microsoft",)]


# The model: written from the rules, knowing nothing of the SQL


@dataclass
class World:
    """A generated history. ``registry``: instance, workspace, day of registration, is active."""

    rows: list[Row]
    recorded: list[Snapshot]
    registry: list[tuple[str, int, date, bool]]


@dataclass(frozen=True)
class Step:
    """What a row adds to windows from ``since`` on: those that begin on that day or before."""

    row: Row
    since: date
    did: Sums
    is_reset: bool = False
    falling: int = 0


def steps(rows: Iterable[Row]) -> list[Step]:
    """Every row against the row before it of the same key."""
    by_key: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        by_key[row.key].append(row)
    made: list[Step] = []
    for mine in by_key.values():
        mine.sort(key=lambda row: row.snapshot_date)
        first = mine[0]
        whole = first.created_on == first.snapshot_date
        made.append(Step(first, first.snapshot_date, counters(first) if whole else Sums()))
        for before, after in pairwise(mine):
            since = before.snapshot_date + timedelta(days=1)
            if after.emails_sent_count < before.emails_sent_count:
                made.append(Step(after, since, counters(after), is_reset=True))
                continue
            pairs = [
                (after.unique_replied_count, before.unique_replied_count),
                (after.bounced_count, before.bounced_count),
                (after.total_replied_count, before.total_replied_count),
                (after.total_opened_count, before.total_opened_count),
            ]
            did = Sums(
                after.emails_sent_count - before.emails_sent_count,
                max(0, pairs[0][0] - pairs[0][1]),
                max(0, pairs[1][0] - pairs[1][1]),
            )
            made.append(Step(after, since, did, falling=sum(now < then for now, then in pairs)))
    return made


def counters(row: Row) -> Sums:
    return Sums(row.emails_sent_count, row.unique_replied_count, row.bounced_count)


def group_of(row: Row, dimension: str) -> str:
    return {
        "provider": row.email_provider,
        "reseller": row.reseller or "Unknown",
        "domain": row.domain or "Unknown",
        "workspace": f"{row.bison_instance}/{row.bison_workspace_id}",
        "instance": row.bison_instance,
    }[dimension]


def window(all_steps: Iterable[Step], dimension: str, first: date, last: date) -> dict[str, Sums]:
    """What every group did on the days from ``first`` to ``last``."""
    sums: dict[str, Sums] = {}
    for step in all_steps:
        if first <= step.row.snapshot_date <= last:
            group = group_of(step.row, dimension)
            sums[group] = sums.get(group, Sums()) + (step.did if step.since >= first else Sums())
    return sums


def expected_history(world: World, all_steps: list[Step], instance: str, on: date) -> dict[str, dict[str, Any]]:
    """The rows of provider_performance_history of an instance and day, by provider."""
    mine = [step for step in all_steps if step.row.bison_instance == instance]
    seen: dict[int, dict[date, bool]] = defaultdict(dict)
    for snapshot in world.recorded:
        if snapshot.bison_instance == instance:
            seen[snapshot.bison_workspace_id][snapshot.snapshot_date] = snapshot.is_complete
    wanted = [
        number
        for where, number, registered, is_active in world.registry
        if where == instance
        and (on in seen[number] or (is_active and (registered <= on or any(d <= on for d in seen[number]))))
    ]
    common = {
        "is_complete": bool(wanted) and all(seen[number].get(on, False) for number in wanted),
        **{
            f"gaps_{n}d": sum(not (on in seen[w] and on - timedelta(days=n) in seen[w]) for w in wanted)
            for n in WINDOWS
        },
    }
    windows = {n: window(mine, "provider", on - timedelta(days=n - 1), on) for n in WINDOWS}
    today: dict[str, list[Step]] = defaultdict(list)
    for step in mine:
        if step.row.snapshot_date == on:
            today[step.row.email_provider].append(step)
    lately = {provider for provider, sums in windows[30].items() if any(astuple(sums))}
    return {
        provider: totals([step.row for step in today[provider]])
        | common
        | {
            f"{name}_{n}d": value
            for n in WINDOWS
            for name, value in zip(
                ("sent", "unique_replies", "bounces", "reply_rate", "bounce_rate"),
                windows[n].get(provider, Sums()).with_rates,
                strict=True,
            )
        }
        | {
            "resets": sum(step.is_reset for step in today[provider] if step.since > on - timedelta(days=30)),
            "falling_counters": sum(step.falling for step in today[provider] if step.since > on - timedelta(days=30)),
        }
        for provider in today.keys() | lately
    }


def totals(rows: list[Row]) -> dict[str, Any]:
    total = sum((counters(row) for row in rows), Sums())
    limit = sum(row.daily_limit or 0 for row in rows if row.is_connected)
    capacity = sum((row.volume_per_account or Decimal(0) for row in rows), Decimal(0))
    average = (Decimal(total.sent) / len(rows)).quantize(Decimal("0.0001"), ROUND_HALF_UP) if rows else None
    return {
        "total_accounts": len(rows),
        "active_accounts": sum(row.is_connected for row in rows),
        "total_sent": total.sent,
        "total_replies": sum(row.total_replied_count for row in rows),
        "unique_replies": total.unique_replies,
        "total_bounces": total.bounces,
        "avg_reply_rate": rate(total.unique_replies, total.sent),
        "avg_emails_per_account": average,
        "total_daily_limit": limit,
        "total_volume_capacity": capacity,
        "utilization_percentage": rate(limit, capacity),
    }


# The generated histories


def register(conn: Connection, registry: Iterable[tuple[str, int, date, bool]]) -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO client_registry"
            " (bison_instance, bison_workspace_id, workspace_name, created_at, is_active)"
            " VALUES (%s, %s, 'some name', %s::date + time '12:00' AT TIME ZONE 'UTC', %s)",
            list(registry),
        )


def generate(seed: int) -> World:
    """Sixty days of two instances, with everything in them that happens."""
    chance = random.Random(seed)
    registry = [
        ("a", 1, FIRST, True),
        ("a", 2, FIRST, True),
        ("a", 3, DAYS[20], True),
        ("b", 1, FIRST, True),
        ("b", 4, FIRST, False),
    ]
    until = {("b", 4): DAYS[35]}
    recorded = [
        Snapshot(instance, number, on, is_complete=chance.random() > 0.03)
        for instance, number, since, _ in registry
        # One is read for the first time some days after it was registered.
        for on in DAYS
        if since + timedelta(days=3 if number == 3 else 0) <= on <= until.get((instance, number), on)
        if chance.random() > 0.06
    ]
    days_of: dict[tuple[str, int], set[date]] = defaultdict(set)
    for snapshot in recorded:
        days_of[snapshot.bison_instance, snapshot.bison_workspace_id].add(snapshot.snapshot_date)
    rows: list[Row] = []
    for account in range(1, 19):
        instance, number, since, _ = chance.choice(registry)
        rows += live_through(chance, Row(since, instance, number, account), days_of)
    return World(rows, recorded, registry)


def live_through(chance: random.Random, start: Row, days_of: dict[tuple[str, int], set[date]]) -> Iterator[Row]:
    """One account's rows: it sends, is reset, corrected, retagged, moved, removed, brought back."""
    made = chance.choice([None, FIRST - timedelta(days=50), *chance.sample(DAYS[3:], 3)])
    count = chance.randint(0, 5000) if made is None or made < FIRST else 0
    row = replace(
        start,
        emails_sent_count=count,
        unique_replied_count=count // 30,
        total_replied_count=count // 20,
        bounced_count=count // 50,
        total_opened_count=count // 3,
        email_provider=chance.choice(["Google", "Microsoft", "Unknown"]),
        reseller=chance.choice([None, "Zapmail", "Mailr"]),
        domain=chance.choice([None, "example.com", "example.net"]),
        created_on=made,
    )
    is_there = True
    for on in DAYS:
        if made is not None and on < made:
            continue
        row = advance(chance, replace(row, snapshot_date=on))
        if chance.random() < 0.04:
            is_there = not is_there
        if chance.random() < 0.02 and row.bison_instance == "a":
            row = replace(row, bison_workspace_id=chance.choice([1, 2, 3]))
        if is_there and on in days_of[row.bison_instance, row.bison_workspace_id]:
            yield row


def advance(chance: random.Random, row: Row) -> Row:
    """A day of an account."""
    mails = chance.choice([0, 0, chance.randint(1, 60)])
    row = replace(
        row,
        emails_sent_count=row.emails_sent_count + mails,
        unique_replied_count=row.unique_replied_count + chance.randint(0, 1 + mails // 10),
        total_replied_count=row.total_replied_count + chance.randint(0, 1 + mails // 8),
        bounced_count=row.bounced_count + chance.randint(0, 1 + mails // 15),
        total_opened_count=row.total_opened_count + mails // 2,
        is_connected=chance.random() > 0.1,
        daily_limit=chance.choice([None, 20, 35]),
        volume_per_account=chance.choice([None, Decimal(0), Decimal("22.5"), Decimal(40)]),
    )
    if chance.random() < 0.03:
        row = replace(row, emails_sent_count=mails // 2, unique_replied_count=mails // 9, bounced_count=mails // 20)
    if chance.random() < 0.05:
        row = replace(row, unique_replied_count=max(0, row.unique_replied_count - 2))
    if chance.random() < 0.05:
        row = replace(row, bounced_count=row.bounced_count // 2, total_opened_count=row.total_opened_count // 2)
    if chance.random() < 0.03:
        row = replace(row, email_provider=chance.choice(["Google", "Microsoft", "Yahoo", "Unknown"]))
    if chance.random() < 0.03:
        row = replace(row, reseller=chance.choice([None, "Zapmail", "ScaledMail"]))
    return row


def stored_history(conn: Connection) -> list[dict[str, Any]]:
    """All history without when it was written, in a certain order."""
    rows = conn.execute(
        "SELECT to_jsonb(h) - '{created_at,updated_at}'::text[] FROM provider_performance_history AS h"
        " ORDER BY bison_instance, snapshot_date, email_provider"
    )
    return [row for (row,) in rows]


@pytest.fixture(scope="module", params=SEEDS)
def world(request: pytest.FixtureRequest) -> World:
    return generate(request.param)


@pytest.fixture
def filled(conn: Connection, world: World) -> Connection:
    """A database with the whole history, none of it computed."""
    register(conn, world.registry)
    store_rows(conn, world.rows)
    store_snapshots(conn, world.recorded)
    return conn


def test_the_generated_histories_hold_everything_that_happens() -> None:
    for seed in SEEDS:
        made = generate(seed)
        all_steps = steps(made.rows)
        by_account: dict[tuple[str, int], set[int]] = defaultdict(set)
        for row in made.rows:
            by_account[row.bison_instance, row.bison_account_id].add(row.bison_workspace_id)
        assert any(step.is_reset for step in all_steps)
        assert any(step.falling for step in all_steps)
        assert any(step.row.snapshot_date - step.since >= timedelta(days=2) for step in all_steps)
        assert any(step.row.created_on == step.row.snapshot_date and step.did.sent for step in all_steps)
        assert any(len(workspaces) > 1 for workspaces in by_account.values())
        assert any(row.snapshot_date == date(2024, 2, 29) for row in made.rows)
        assert {row.email_provider for row in made.rows} >= {"Google", "Microsoft", "Unknown", "Yahoo"}
        assert any(not snapshot.is_complete for snapshot in made.recorded)


def test_every_window_of_every_dimension_is_the_models(filled: Connection, world: World) -> None:
    all_steps = steps(world.rows)

    for on in DAYS[::4]:
        for length in WINDOWS:
            first = on - timedelta(days=length - 1)
            for dimension in DIMENSIONS:
                wanted = window(all_steps, dimension, first, on)
                shown = performance(filled, dimension, first, on)
                assert shown == {group: sums.with_rates for group, sums in wanted.items()}, (dimension, first, on)


def test_the_parts_of_every_dimension_sum_up_to_the_whole(filled: Connection) -> None:
    for on in DAYS[::3]:
        for length in WINDOWS:
            sums = {
                tuple(
                    sum(column)
                    for column in zip(
                        *(v[:3] for v in performance(filled, d, on - timedelta(days=length - 1), on).values()),
                        strict=True,
                    )
                )
                for d in DIMENSIONS
            }
            assert len(sums) == 1


def test_every_row_of_the_history_is_the_models(filled: Connection, world: World) -> None:
    all_steps = steps(world.rows)

    for instance in ("a", "b"):
        for on in DAYS:
            with filled.cursor(row_factory=psycopg.rows.dict_row) as cursor:
                computed = cursor.execute(
                    "SELECT * FROM bisonsync_private.compute_provider_history(%s, %s, 'UTC')", (instance, on)
                ).fetchall()
            shown = {
                row.pop("email_provider"): {
                    k: v for k, v in row.items() if k not in ("bison_instance", "snapshot_date")
                }
                for row in computed
            }
            assert shown == expected_history(world, all_steps, instance, on), (instance, on)


def test_days_computed_in_any_order_and_as_they_came_are_the_same(filled: Connection, world: World) -> None:
    chance = random.Random(7)
    tasks = [(instance, on) for instance in ("a", "b") for on in DAYS]
    results: list[list[dict[str, Any]]] = []

    for _ in range(2):
        chance.shuffle(tasks)
        filled.execute("TRUNCATE provider_performance_history")
        for instance, on in tasks:
            snapshots.write_history(filled, instance, on, zone="UTC")
        results.append(stored_history(filled))
    again = [snapshots.write_history(filled, instance, on, zone="UTC") for instance, on in tasks]

    filled.execute("TRUNCATE provider_performance_history, sender_email_daily, workspace_snapshots")
    for on in DAYS:
        store_rows(filled, [row for row in world.rows if row.snapshot_date == on])
        store_snapshots(filled, [snapshot for snapshot in world.recorded if snapshot.snapshot_date == on])
        for instance in ("a", "b"):
            snapshots.write_history(filled, instance, on, zone="UTC")

    assert results[0] == results[1] == stored_history(filled)
    assert sum(written.inserted + written.updated + written.deleted for written in again) == 0
