"""The rate budget of a process: blocks, waits, the pause after a 429, the deadline."""

from __future__ import annotations

import threading

import pytest
from conversation import HandClock

from bisonsync.api.budget import LEAST_WAIT_SECONDS, Grant, RateBudget, Told
from bisonsync.errors import DeadlineExceeded

FOREVER = 1e9


class Bucket:
    """A shared bucket of ``tokens`` that refills ``per_second``; remembers what was asked and told."""

    def __init__(self, clock: HandClock, tokens: float = 1000, per_second: float = 0.0) -> None:
        self._clock = clock
        self._tokens = tokens
        self._per_second = per_second
        self._since = 0.0
        self.asked: list[int] = []
        self.given_back: list[int] = []
        self.blocks: list[float] = []
        self.told: list[Told | None] = []

    def take(self, wanted: int, told: Told | None) -> Grant:
        self.asked.append(wanted)
        self.told.append(told)
        now = self._clock.monotonic()
        self._tokens += (now - self._since) * self._per_second
        self._since = now
        granted = min(wanted, int(self._tokens + 1e-9))
        self._tokens -= granted
        return Grant(granted, 0.0 if granted else (1 - self._tokens) / self._per_second)

    def budget(self, block_size: int = 30) -> RateBudget:
        return RateBudget(self.take, self.give_back, self.block, clock=self._clock, block_size=block_size)

    def give_back(self, tokens: int, told: Told | None) -> None:
        self.given_back.append(tokens)
        self.told.append(told)

    def block(self, seconds: float, told: Told | None) -> None:
        self.blocks.append(seconds)
        self.told.append(told)


def test_one_block_serves_many_requests():
    bucket = Bucket(HandClock())
    budget = bucket.budget(block_size=30)

    for _ in range(31):
        budget.acquire(FOREVER)

    assert bucket.asked == [30, 30]


def test_what_is_left_is_given_back_once():
    bucket = Bucket(HandClock())
    budget = bucket.budget(block_size=30)
    budget.acquire(FOREVER)

    budget.close()
    budget.close()

    assert bucket.given_back == [29]


def test_an_empty_bucket_is_asked_for_what_has_gathered_and_not_for_each_token():
    clock = HandClock()
    bucket = Bucket(clock, tokens=0, per_second=25)
    budget = bucket.budget()

    for _ in range(100):
        budget.acquire(FOREVER)

    # At 25 a second, 100 tokens take 4 s.
    assert clock.monotonic() == pytest.approx(4.0, abs=2 * LEAST_WAIT_SECONDS)
    assert len(bucket.asked) <= 40


def test_a_slow_bucket_is_waited_for_as_long_as_it_says():
    clock = HandClock()
    bucket = Bucket(clock, tokens=0, per_second=0.1)

    bucket.budget().acquire(FOREVER)

    assert clock.slept == [pytest.approx(10.0)]


def test_a_partial_block_is_taken_as_it_is():
    clock = HandClock()
    bucket = Bucket(clock, tokens=3, per_second=1)
    budget = bucket.budget(block_size=30)

    for _ in range(3):
        budget.acquire(FOREVER)

    assert clock.slept == []


def test_a_wait_beyond_the_deadline_is_not_begun():
    clock = HandClock()
    budget = Bucket(clock, tokens=0, per_second=0.1).budget()

    with pytest.raises(DeadlineExceeded, match="request budget is used up"):
        budget.acquire(give_up_at=9.0)

    assert clock.slept == []


def test_after_a_429_nobody_asks_until_the_pause_is_over():
    clock = HandClock()
    bucket = Bucket(clock)
    budget = bucket.budget()
    budget.acquire(FOREVER)

    budget.slow_down(7.0)
    budget.acquire(FOREVER)

    assert clock.slept == [7.0]
    assert bucket.blocks == [7.0]
    # The block from before the pause is not spent after it, nor given back.
    assert bucket.asked == [30, 30]
    assert bucket.given_back == []


def test_a_shorter_pause_does_not_end_a_longer_one():
    clock = HandClock()
    bucket = Bucket(clock)
    budget = bucket.budget()

    budget.slow_down(7.0)
    budget.slow_down(1.0)
    budget.acquire(FOREVER)

    assert clock.slept == [7.0]
    assert bucket.blocks == [7.0]


def test_the_429s_of_requests_under_way_are_told_once():
    clock = HandClock()
    bucket = Bucket(clock)
    budget = bucket.budget()

    for _ in range(10):
        budget.slow_down(7.0)
        clock.pass_time(0.01)
    budget.acquire(FOREVER)

    assert bucket.blocks == [7.0]
    assert clock.monotonic() == pytest.approx(7.09)


def test_a_429_after_a_pause_is_told_again_however_short():
    clock = HandClock()
    bucket = Bucket(clock)
    budget = bucket.budget()

    for _ in range(3):
        budget.slow_down(0.5)
        budget.acquire(FOREVER)

    assert bucket.blocks == [0.5, 0.5, 0.5]


def test_a_much_longer_pause_is_told_at_once():
    bucket = Bucket(HandClock())
    budget = bucket.budget()

    budget.slow_down(1.0)
    budget.slow_down(60.0)

    assert bucket.blocks == [1.0, 60.0]


def test_a_pause_beyond_the_deadline_ends_the_asking():
    clock = HandClock()
    budget = Bucket(clock).budget()
    budget.slow_down(60.0)

    with pytest.raises(DeadlineExceeded, match="429"):
        budget.acquire(give_up_at=30.0)

    assert clock.slept == []


def test_a_block_that_arrives_during_a_pause_is_not_spent_in_it():
    clock = HandClock()
    bucket = Bucket(clock)
    calls: list[int] = []

    def take(wanted: int, told: Told | None) -> Grant:
        calls.append(wanted)
        if len(calls) == 1:
            # Another thread hears of a 429 while this one waits for the bucket.
            budget.slow_down(5.0)
        return Grant(wanted, 0.0)

    budget = RateBudget(take, bucket.give_back, bucket.block, clock=clock, block_size=30)

    budget.acquire(FOREVER)

    assert clock.slept == [5.0]
    assert len(calls) == 2


def test_what_answers_told_is_shared_with_the_next_block_and_at_the_end():
    bucket = Bucket(HandClock(), tokens=6)
    budget = bucket.budget(block_size=3)

    for asked_at in (1.0, 3.0, 2.0, 4.0):
        budget.acquire(FOREVER)
        budget.note(asked_at, is_success=asked_at < 4, limit=3000, remaining=3000 - int(asked_at))
    budget.close()

    assert bucket.told == [None, Told(3, 3, 3000, 2997), Told(1, 0, 3000, 2996)]


def test_many_threads_spend_no_more_than_they_were_granted():
    clock = HandClock()
    bucket = Bucket(clock)
    budget = bucket.budget(block_size=7)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(30)
        for _ in range(50):
            budget.acquire(FOREVER)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    budget.close()

    assert sum(bucket.asked) - sum(bucket.given_back) == 400
