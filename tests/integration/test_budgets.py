"""The bucket that all processes of an instance share, on a real Postgres."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from itertools import accumulate
from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest

from bisonsync.store import budgets
from bisonsync.store.budgets import Taken

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]

# One a second: whatever a busy machine adds stays below what is looked for.
RATE = 60
SLACK = 8
TAKERS = 4
PATIENCE_SECONDS = 60


def take(conn: Connection, wanted: int, instance: str = "sim", rate: int = RATE) -> Taken:
    with conn.transaction():
        return budgets.take(conn, instance, wanted=wanted, requests_per_minute=rate)


def empty(conn: Connection) -> None:
    """Take all there is; what drips in meanwhile is put aside."""
    take(conn, RATE)
    change(conn, "tokens = 0, refilled_at = clock_timestamp()")


def change(conn: Connection, what: LiteralString) -> None:
    """Let time pass, or run backwards, by changing when things happened."""
    conn.execute(f"UPDATE rate_budgets SET {what}")


def block(conn: Connection, seconds: float) -> None:
    with conn.transaction():
        budgets.block(conn, "sim", seconds)


def test_a_new_bucket_holds_one_minutes_worth(conn: Connection):
    assert take(conn, 10_000) == Taken(RATE)
    assert take(conn, 30).tokens <= SLACK


def test_no_more_is_granted_than_wanted(conn: Connection):
    assert [take(conn, 20).tokens for _ in range(3)] == [20, 20, 20]


def test_an_empty_bucket_says_when_to_ask_again(conn: Connection):
    empty(conn)

    taken = take(conn, 30)

    assert (taken.tokens, taken.is_blocked) == (0, False)
    assert 0 < taken.wait_seconds <= 60 / RATE


@pytest.mark.parametrize(("passed", "granted"), [("30 seconds", 30), ("60 seconds", 60), ("1 hour", 60)])
def test_it_fills_with_time_up_to_one_minutes_worth(conn: Connection, passed: LiteralString, granted: int):
    empty(conn)

    change(conn, f"refilled_at = refilled_at - interval '{passed}'")

    assert take(conn, 10_000).tokens == pytest.approx(granted, abs=SLACK)
    assert take(conn, 10_000).tokens <= SLACK


def test_a_clock_that_runs_backwards_takes_nothing_and_grants_nothing(conn: Connection):
    take(conn, RATE - 30)

    change(conn, "refilled_at = clock_timestamp() + interval '1 hour'")

    assert take(conn, 10_000).tokens == pytest.approx(30, abs=SLACK)
    assert take(conn, 10_000).tokens <= SLACK


def test_a_host_with_a_lower_rate_takes_by_its_own(conn: Connection):
    take(conn, 1, rate=1500)

    assert take(conn, 10_000, rate=6).tokens == 6


def test_instances_have_buckets_of_their_own(conn: Connection):
    take(conn, RATE)
    block(conn, 60)

    assert take(conn, 30, instance="other") == Taken(30)


def test_what_is_given_back_can_be_taken_again_up_to_one_minutes_worth(conn: Connection):
    empty(conn)
    budgets.give_back(conn, "sim", 20)
    assert take(conn, 10_000).tokens == pytest.approx(20, abs=SLACK)

    budgets.give_back(conn, "sim", 10_000)

    assert take(conn, 10_000).tokens <= RATE


def test_a_block_holds_for_every_connection_and_says_for_how_long(conn: Connection, db: str):
    take(conn, 30)

    block(conn, 60)

    with psycopg.connect(db, autocommit=True) as other:
        for connection in (conn, other):
            taken = take(connection, 30)
            assert (taken.tokens, taken.is_blocked) == (0, True)
            assert 50 < taken.wait_seconds <= 60


def test_a_shorter_block_does_not_end_a_longer_one(conn: Connection):
    take(conn, 30)
    block(conn, 60)

    block(conn, 1)

    assert take(conn, 30).wait_seconds > 50


def test_after_a_block_there_is_no_burst(conn: Connection):
    take(conn, 30)
    block(conn, 60)

    change(
        conn,
        "blocked_until = blocked_until - interval '70 seconds', refilled_at = refilled_at - interval '70 seconds'",
    )

    # Ten seconds after its end: ten seconds' worth, not a minute's.
    assert take(conn, 10_000).tokens == pytest.approx(10, abs=SLACK)


def note(conn: Connection, remaining: int, *, sent: int = 0, succeeded: int = 0, limit: int = 3000) -> None:
    budgets.note(conn, "sim", sent=sent, succeeded=succeeded, limit=limit, remaining=remaining)


def rate(conn: Connection) -> budgets.Rate:
    (found,) = budgets.list_rates(conn)
    return found


def pass_minute(conn: Connection, seconds: float = 60) -> None:
    """Let time pass by putting everything that happened so much earlier."""
    conn.execute(
        "UPDATE rate_budgets SET (refilled_at, window_at, told_at, foreign_at, slowed_at, blocked_until, limited_at) = "
        "(SELECT refilled_at - ago, window_at - ago, told_at - ago, foreign_at - ago, slowed_at - ago,"
        " blocked_until - ago, limited_at - ago FROM (SELECT make_interval(secs => %s) AS ago) AS t)",
        [seconds],
    )


def fair(conn: Connection, wanted: int, reserve: float = 0.1) -> int:
    with conn.transaction():
        return budgets.take(conn, "sim", wanted=wanted, requests_per_minute=1500, reserve=reserve).tokens


def test_what_other_programs_use_of_a_key_is_left_to_them_and_a_reserve_to_people(conn: Connection):
    fair(conn, 1)
    for _ in range(3):
        note(conn, 3000)
        pass_minute(conn, 50)
        note(conn, 3000 - 2900 * 50 // 60 - 75, sent=75)
        pass_minute(conn, 10)
        fair(conn, 10_000)
    pass_minute(conn)

    granted = fair(conn, 10_000)

    assert rate(conn).foreign_per_minute == pytest.approx(2900, abs=10)
    assert granted == pytest.approx(9, abs=1)


def test_beside_2900_of_3000_requests_a_minute_ours_are_never_refused_after_the_first(conn: Connection):
    fair(conn, 1)
    ours, refused, window_ours = [0] * 5, [0] * 5, 0
    began = now(conn)
    for second in range(300):
        minute, at = divmod(second, 60)
        window_ours = 0 if at == 0 else window_ours
        under_way = min(fair(conn, 30), 25)
        left = 3000 - 2900 * at // 60 - window_ours
        refused[minute] += max(0, under_way - max(0, left))
        window_ours += under_way
        ours[minute] += under_way
        if under_way:
            note(conn, max(0, left - under_way), sent=under_way, succeeded=under_way)
        # However long this took, it was a second.
        began, ended = now(conn), began
        pass_minute(conn, 1 - (began - ended).total_seconds())

    assert refused[1:] == [0, 0, 0, 0]
    assert all(40 <= sent <= 100 for sent in ours[1:])


def test_what_we_sent_ourselves_is_no_other_program(conn: Connection):
    fair(conn, 1)
    note(conn, 3000)
    pass_minute(conn, 30)
    note(conn, 2200, sent=790, succeeded=790)

    assert rate(conn).foreign_per_minute <= 25


def test_a_lower_limit_than_the_configured_one_is_kept_with_its_reserve(conn: Connection):
    fair(conn, 1)
    note(conn, 1000, limit=1000)
    pass_minute(conn)

    assert fair(conn, 10_000) == 90
    pass_minute(conn, 2)
    assert fair(conn, 10_000) == pytest.approx(30, abs=SLACK)


def test_a_limit_that_was_not_told_for_ten_minutes_is_forgotten(conn: Connection):
    fair(conn, 1)
    note(conn, 1000, limit=1000)

    pass_minute(conn, 700)

    assert rate(conn).limit_told is None
    assert fair(conn, 10_000) == 1500


def test_no_more_is_taken_than_the_newest_answer_left(conn: Connection):
    fair(conn, 1)

    note(conn, 20, limit=3000)

    assert fair(conn, 10_000) == 18


def test_other_programs_that_were_not_seen_for_ten_minutes_are_forgotten(conn: Connection):
    fair(conn, 1)
    note(conn, 3000)
    pass_minute(conn, 50)
    note(conn, 500)
    assert fair(conn, 10_000) < 100

    pass_minute(conn, 700)

    assert rate(conn).foreign_per_minute == 0
    assert fair(conn, 10_000) == 1500


def test_a_second_429_in_a_row_halves_the_rate_for_whoever_comes_next(conn: Connection):
    fair(conn, 1)
    block(conn, 5)
    assert rate(conn).slow_share == 1

    pass_minute(conn, 6)
    block(conn, 5)
    halved = rate(conn).slow_share
    pass_minute(conn, 65)

    assert halved == 0.5
    assert fair(conn, 10_000) == pytest.approx(1500 * 0.55, abs=60)


def test_the_rate_rises_again_slowly_and_falls_to_no_less_than_an_eighth(conn: Connection):
    fair(conn, 1)
    for _ in range(9):
        block(conn, 5)
        pass_minute(conn, 6)
    lowest = rate(conn).slow_share

    pass_minute(conn, 300)
    risen = rate(conn).slow_share
    pass_minute(conn, 900)

    assert lowest == pytest.approx(0.125, abs=0.01)
    assert risen == pytest.approx(0.125 + 0.25, abs=0.01)
    assert rate(conn).slow_share == 1


@pytest.mark.parametrize("between", ["an answer", "the same pause"])
def test_a_429_is_no_second_one_after_an_answer_or_within_one_pause(conn: Connection, between: str):
    fair(conn, 1)
    block(conn, 5)

    if between == "an answer":
        pass_minute(conn, 6)
        budgets.note(conn, "sim", sent=1, succeeded=1, limit=None, remaining=None)
    block(conn, 8)

    assert rate(conn).slow_share == 1


class Event(NamedTuple):
    """What was granted, and the database's time before and after."""

    before: datetime
    after: datetime
    tokens: int


def together(db: str, work: Callable[[Connection], list[Event]]) -> list[Event]:
    """What several connections did at the same time, in the order of its end."""
    start = threading.Barrier(TAKERS)
    events: list[Event] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with psycopg.connect(db, autocommit=True) as connection:
                start.wait(PATIENCE_SECONDS)
                events.extend(work(connection))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(TAKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not errors
    return sorted(events, key=lambda event: event.after)


def timed_take(conn: Connection, wanted: int) -> Event:
    before = now(conn)
    tokens = take(conn, wanted).tokens
    return Event(before, now(conn), tokens)


def now(conn: Connection) -> datetime:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


def test_takers_at_the_same_time_never_get_more_than_rate_and_burst_in_any_window(db: str):
    events = together(db, lambda conn: [timed_take(conn, 7) for _ in range(100)])

    sums = [0, *accumulate(event.tokens for event in events)]
    most = max(
        sums[last + 1] - sums[first] - RATE / 60 * (events[last].after - events[first].before).total_seconds()
        for first in range(len(events))
        for last in range(first, len(events))
    )
    assert most <= RATE
    assert sums[-1] >= RATE


def test_nobody_gets_anything_once_a_block_is_told(conn: Connection, db: str):
    change_of_mind = threading.Event()
    told: list[datetime] = []

    def work(connection: Connection) -> list[Event]:
        events = [timed_take(connection, 1) for _ in range(20)]
        if not change_of_mind.is_set():
            change_of_mind.set()
            block(connection, 60)
            told.append(now(connection))
        return events + [timed_take(connection, 1) for _ in range(20)]

    events = together(db, work)

    assert sum(event.tokens for event in events if event.after < told[0]) > 0
    assert sum(event.tokens for event in events if event.before > max(told)) == 0
    assert take(conn, 1).is_blocked
