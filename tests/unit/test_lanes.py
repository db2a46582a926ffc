"""The lanes: who is served next, what closing and dropping cancel, where errors go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future

import pytest

from bisonsync.api import lanes as lanes_module
from bisonsync.api.lanes import Lanes, side_by_side

PATIENCE_SECONDS = 30


class Gate:
    """A call that says when it has begun and ends when told."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        return "passed"


LanesOf = Callable[[int], Lanes]


@pytest.fixture
def lanes_of() -> Generator[LanesOf]:
    opened: list[Lanes] = []

    def open_lanes(concurrency: int) -> Lanes:
        opened.append(Lanes(concurrency, name="test"))
        return opened[-1]

    yield open_lanes
    for lanes in opened:
        lanes.close(timeout_seconds=PATIENCE_SECONDS)


def hold(lanes: Lanes, owner: str) -> tuple[Gate, Future[str]]:
    """Keep one lane busy for an owner."""
    gate = Gate()
    future = lanes.submit(owner, gate)
    assert gate.begun.wait(PATIENCE_SECONDS)
    return gate, future


def served(lanes: Lanes, calls: str) -> str:
    """The order in which one lane serves these owners' calls, all waiting when it becomes free."""
    order: list[str] = []
    gate, _ = hold(lanes, "holder")
    futures = [lanes.submit(owner, lambda owner=owner: order.append(owner)) for owner in calls]
    gate.go_on.set()
    for future in futures:
        future.result(PATIENCE_SECONDS)
    return "".join(order)


def test_a_call_gives_its_result(lanes_of: LanesOf):
    assert lanes_of(2).submit("a", lambda: 42).result(PATIENCE_SECONDS) == 42


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_belongs_to_whoever_waits_for_the_call(lanes_of: LanesOf, error: BaseException):
    lanes = lanes_of(1)

    def fail() -> None:
        raise error

    assert lanes.submit("a", fail).exception(PATIENCE_SECONDS) is error
    assert lanes.submit("a", lambda: "still serving").result(PATIENCE_SECONDS) == "still serving"


def test_owners_are_served_in_turn(lanes_of: LanesOf):
    assert served(lanes_of(1), "aaaabbc") == "abcabaa"


def test_an_owner_that_comes_later_does_not_wait_for_a_long_list(lanes_of: LanesOf):
    assert served(lanes_of(1), "aaaaaaaaaab").index("b") == 1


def test_a_free_lane_serves_who_has_least_under_way(lanes_of: LanesOf):
    lanes = lanes_of(3)
    gates = [hold(lanes, owner)[0] for owner in "aab"]
    order: list[str] = []
    futures = [lanes.submit(owner, lambda owner=owner: order.append(owner)) for owner in "aabc"]

    gates[1].go_on.set()
    for future in futures:
        future.result(PATIENCE_SECONDS)
    for gate in gates:
        gate.go_on.set()

    # c has none under way, a and b one each while the calls in order end at once.
    assert order[0] == "c"


def test_no_more_calls_than_lanes_are_under_way(lanes_of: LanesOf):
    lanes = lanes_of(2)
    first, second = hold(lanes, "a")[0], hold(lanes, "b")[0]
    third = Gate()
    future = lanes.submit("c", third)

    assert not third.begun.is_set()

    third.go_on.set()
    first.go_on.set()
    assert future.result(PATIENCE_SECONDS) == "passed"
    second.go_on.set()


def test_drop_cancels_what_its_owner_has_waiting_and_nothing_else(lanes_of: LanesOf):
    lanes = lanes_of(1)
    gate, under_way = hold(lanes, "a")
    dropped = [lanes.submit("a", lambda: None) for _ in range(3)]
    kept = lanes.submit("b", lambda: "kept")

    lanes.drop("a")
    lanes.drop("unknown")
    gate.go_on.set()

    assert all(future.cancelled() for future in dropped)
    assert under_way.result(PATIENCE_SECONDS) == "passed"
    assert kept.result(PATIENCE_SECONDS) == "kept"
    assert lanes.submit("a", lambda: "again").result(PATIENCE_SECONDS) == "again"


def test_a_cancelled_call_is_not_made(lanes_of: LanesOf):
    lanes = lanes_of(1)
    gate, _ = hold(lanes, "a")
    made: list[int] = []
    cancelled = lanes.submit("a", lambda: made.append(1))
    last = lanes.submit("a", lambda: "served")

    assert cancelled.cancel()
    gate.go_on.set()

    assert last.result(PATIENCE_SECONDS) == "served"
    assert made == []


def test_close_cancels_what_waits_and_lets_end_what_is_under_way(lanes_of: LanesOf):
    lanes = lanes_of(1)
    gate, under_way = hold(lanes, "a")
    waiting = lanes.submit("b", lambda: None)

    lanes.close(timeout_seconds=0)
    late = lanes.submit("c", lambda: None)
    assert not under_way.done()
    gate.go_on.set()
    lanes.close(timeout_seconds=PATIENCE_SECONDS)

    assert under_way.result(0) == "passed"
    for future in (waiting, late):
        with pytest.raises(CancelledError):
            future.result(0)


def test_the_threads_of_closed_lanes_end():
    before = set(threading.enumerate())
    lanes = Lanes(4, name="ending")
    started = set(threading.enumerate()) - before

    lanes.close()
    for thread in started:
        thread.join(PATIENCE_SECONDS)

    assert len(started) == 4
    assert not any(thread.is_alive() for thread in started)


def test_side_by_side_every_workspace_is_called_once_and_those_of_no_instance_here():
    here = threading.current_thread().name

    def name_thread() -> str:
        return threading.current_thread().name

    calls = {("a", 1): name_thread, ("a", 2): name_thread, ("b", 1): name_thread}

    answers = side_by_side({"a": 2, "unused": 1}, calls, name="work")

    assert list(answers) == list(calls)
    assert [answers[key].startswith("work-a-") for key in calls] == [True, True, False]
    assert answers[("b", 1)] == here


def test_side_by_side_what_a_call_raises_comes_out():
    def fail() -> None:
        raise ValueError("of one workspace")

    with pytest.raises(ValueError, match="of one workspace"):
        side_by_side({"a": 1}, {("a", 1): fail}, name="work")


def test_side_by_side_a_stop_leaves_what_hangs_and_starts_nothing_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes_module, "STOP_GRACE_SECONDS", 0.0)
    gate, called = Gate(), threading.Event()

    def stop(done: int) -> None:
        assert gate.begun.wait(PATIENCE_SECONDS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side({"a": 1}, {("a", 1): gate, ("a", 2): called.set}, name="work", look=stop)

    before = set(threading.enumerate())
    gate.go_on.set()
    for thread in before:
        if thread.name.startswith("work-a"):
            thread.join(PATIENCE_SECONDS)
    assert not called.is_set()
