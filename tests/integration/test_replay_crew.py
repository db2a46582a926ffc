"""How batches are carried out: their size, their pace, their end, and what one of them breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from receiving import event
from replaying import inbox

from bisonsync.errors import DatabaseError, DeadlineExceeded, Stopped
from bisonsync.jobs.replay_webhooks import log
from bisonsync.jobs.replay_webhooks.crew import BATCH_BYTES, Crew, Limits, TooManyFailures
from bisonsync.jobs.replay_webhooks.notes import Notes
from bisonsync.run import Run
from bisonsync.store.db import Connection, Database
from bisonsync.store.replay import Choice, Chosen
from bisonsync.store.webhooks import Outcome

NOW = datetime(2026, 5, 6, tzinfo=UTC)


@dataclass
class Clock:
    """Goes only when somebody sleeps."""

    at: float = 0.0
    slept: list[float] = field(default_factory=list[float])
    is_stopped: bool = False

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def check(self) -> None:
        if self.is_stopped:
            raise Stopped(15)


@dataclass
class Divisions:
    """A task of numbers: 0 is refused by the database, a negative one fails."""

    numbers: Sequence[int]
    weight: int = 0
    batches: list[list[int]] = field(default_factory=list[list[int]])
    noted: list[int] = field(default_factory=list[int])
    lost: list[int] = field(default_factory=list[int])
    after: Callable[[], None] = lambda: None

    def items(self) -> Iterator[int]:
        yield from self.numbers

    def size(self, item: int) -> int:
        return self.weight

    def apply(self, conn: Connection, batch: Sequence[int]) -> list[Outcome]:
        self.batches.append([*batch])
        conn.execute("SELECT 1 / n FROM unnest(%s::integer[]) AS n", [[*batch]])
        return [Outcome(n, NOW, "failed" if n < 0 else "processed", None, None, None, None) for n in batch]

    def count_failures(self, batch: Sequence[int], outcomes: Sequence[Outcome]) -> int:
        return sum(outcome.status == "failed" for outcome in outcomes)

    def note(self, batch: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        self.noted += batch
        self.after()

    def lose(self, batch: Sequence[int], error: DatabaseError) -> None:
        self.lost += batch


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(db: str, clock: Clock) -> Iterator[Run]:
    database = Database(db, application_name="a crew", clock=clock, max_connections=4)
    yield Run(
        job="replay-webhooks",
        run_id=uuid4(),
        started_at=NOW,
        clock=clock,
        deadline=100.0,
        db=database,
        bookkeeping=database,
        dry_run=False,
        progress=lambda what, done, total: None,
    )
    database.close()


def test_batches_are_bounded_by_rows_and_by_bytes(run: Run) -> None:
    by_rows, by_bytes = Divisions([1] * 25), Divisions([1] * 5, weight=BATCH_BYTES // 2)

    Crew(run, Limits(batch_rows=10)).carry_out(by_rows)
    Crew(run, Limits(batch_rows=10)).carry_out(by_bytes)

    assert sorted(map(len, by_rows.batches)) == [5, 10, 10]
    assert sorted(map(len, by_bytes.batches)) == [1, 2, 2]


def test_so_many_a_second_by_the_clock_of_the_run(run: Run, clock: Clock) -> None:
    fast, slow = Divisions([1] * 25), Divisions([1] * 3)

    Crew(run, Limits(per_second=10)).carry_out(fast)
    assert (clock.slept, list(map(len, fast.batches))) == ([1.0, 1.0], [10, 10, 5])
    clock.slept.clear()
    Crew(run, Limits(per_second=0.5)).carry_out(slow)

    assert clock.slept == [2.0, 2.0]


def test_the_deadline_ends_it_between_batches(run: Run, clock: Clock) -> None:
    task = Divisions([1] * 5)
    crew = Crew(run, Limits(per_second=0.03))

    with pytest.raises(DeadlineExceeded):
        crew.carry_out(task)

    assert (crew.done, crew.committed, clock.at) == (3, True, 100.0)


def test_a_stop_is_heard_between_batches_and_what_is_under_way_is_noted(run: Run, clock: Clock) -> None:
    task = Divisions([1] * 100)
    task.after = lambda: setattr(clock, "is_stopped", True)
    crew = Crew(run, Limits(batch_rows=5))

    with pytest.raises(Stopped):
        crew.carry_out(task)

    assert 0 < len(task.noted) < 100
    assert crew.done == len(task.noted)


def test_what_the_database_refuses_is_lost_alone(run: Run) -> None:
    task = Divisions([*range(1, 20), 0, *range(20, 40), 0])

    Crew(run, Limits()).carry_out(task)

    assert task.lost == [0, 0]
    assert sorted(task.noted) == [*range(1, 40)]


def test_failures_are_counted_to_the_last_one(run: Run) -> None:
    task = Divisions([1, 2, -1, 3, -2, 0, 4, 5, -3, 6, 7])
    crew = Crew(run, Limits(failures=3))

    with pytest.raises(TooManyFailures, match="stopped after 3 failures"):
        crew.carry_out(task)

    assert (task.noted, task.lost) == ([1, 2, -1, 3, -2], [0])


def test_as_many_failures_as_are_allowed_in_the_end_are_no_stop(run: Run) -> None:
    task = Divisions([1, -1, 2])

    Crew(run, Limits(failures=2)).carry_out(task)

    assert task.noted == [1, -1, 2]


def test_pages_of_a_choice_have_each_once_and_nothing_that_came_later(
    db: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = inbox(db, conn)
    monkeypatch.setattr(log, "PAGE_ROWS", 2)
    ids = box.put(*(event(number) for number in range(1, 8)))
    box.conn.execute("UPDATE webhook_delivery_log SET received_at = received_at - id * interval '1 hour'")

    found: list[int] = []
    with psycopg.connect(box.dsn) as other:

        class Straight:
            """Does what it is given, at once."""

            @staticmethod
            def do(work: Callable[[Connection], list[Chosen]]) -> list[Chosen]:
                return work(other)

        for choice in (None, Choice(statuses=("pending",))):
            task = log.StoredDeliveries(
                None,  # type: ignore[arg-type]
                Straight,  # type: ignore[arg-type]
                Notes(),
                choice,
                wanted=100,
                last_id=ids[5],
            )
            for chosen in task.items():
                found.append(chosen.id)
                box.put(event(chosen.id + 100))

    assert found == ids[:6] * 2
