"""The retry policy: what is tried again, how often, and after which pause."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisonsync import retry
from bisonsync.retry import BACKOFF_CAP_SECONDS, RETRY_AFTER_CAP_SECONDS, Transient

FAULT = Transient("HTTP 503")
LIMITED = Transient("HTTP 429", rate_limited=True)


class Calls:
    """Fails as told, then answers; remembers pauses and what was heard of each failure."""

    def __init__(self, *faults: Exception) -> None:
        self._faults = list(faults)
        self.made = 0
        self.slept: list[float] = []
        self.heard: list[tuple[Transient, float, bool]] = []

    def once(self) -> str:
        self.made += 1
        if self._faults:
            raise self._faults.pop(0)
        return "answer"

    def run(self, attempts: int = 3, rate_limited_attempts: int = 9) -> str:
        return retry.call(
            self.once,
            attempts=attempts,
            rate_limited_attempts=rate_limited_attempts,
            sleep=self.slept.append,
            on_fault=lambda fault, pause, is_retried: self.heard.append((fault, pause, is_retried)),
        )


def test_gives_the_answer_of_the_first_call_that_succeeds():
    calls = Calls(FAULT, FAULT)

    assert calls.run() == "answer"

    assert calls.made == 3
    assert calls.slept == [pause for _, pause, _ in calls.heard]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_raises_the_last_fault_after_so_many_attempts(attempts: int):
    last = Transient("the last")
    calls = Calls(*[FAULT] * (attempts - 1), last, FAULT)

    with pytest.raises(Transient) as caught:
        calls.run(attempts)

    assert caught.value is last
    assert calls.made == attempts
    assert [is_retried for _, _, is_retried in calls.heard] == [True] * (attempts - 1) + [False]
    assert len(calls.slept) == attempts - 1


def test_counts_rate_limits_and_faults_apart():
    calls = Calls(LIMITED, LIMITED, FAULT, LIMITED, FAULT, LIMITED)

    assert calls.run(attempts=3, rate_limited_attempts=5) == "answer"


def test_gives_up_after_too_many_rate_limits():
    calls = Calls(*[LIMITED] * 20)

    with pytest.raises(Transient):
        calls.run(attempts=3, rate_limited_attempts=5)

    assert calls.made == 5


def test_other_errors_are_raised_at_once_and_heard_by_nobody():
    calls = Calls(KeyError("a bug"))

    with pytest.raises(KeyError):
        calls.run()

    assert (calls.made, calls.heard) == (1, [])


def test_what_a_listener_raises_ends_the_calls():
    calls = Calls(FAULT)

    def raise_late(fault: Transient, pause_seconds: float, is_retried: bool) -> None:
        raise TimeoutError("the deadline comes first")

    with pytest.raises(TimeoutError):
        retry.call(calls.once, attempts=3, rate_limited_attempts=9, sleep=calls.slept.append, on_fault=raise_late)

    assert (calls.made, calls.slept) == (1, [])


@given(st.integers(1, 10_000))
def test_back_off_doubles_to_its_cap_less_at_most_half(attempt: int):
    whole = min(BACKOFF_CAP_SECONDS, 2.0 ** min(attempt - 1, 10))

    assert whole / 2 <= retry.pause_seconds(FAULT, attempt) <= whole


def test_two_hosts_do_not_pause_alike():
    pauses = [retry.pause_seconds(FAULT, 4) for _ in range(20)]

    assert any(first != second for first, second in pairwise(pauses))


@pytest.mark.parametrize(
    ("asked", "pause"), [(0.5, 0.5), (7.0, 7.0), (120.0, 120.0), (3600.0, RETRY_AFTER_CAP_SECONDS)]
)
def test_a_wait_that_was_asked_for_is_kept_up_to_the_cap(asked: float, pause: float):
    assert retry.pause_seconds(Transient("HTTP 503", retry_after=asked), 1) == pause
