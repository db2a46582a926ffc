"""A fixed number of threads that send one instance's requests, shared fairly by its workspaces."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from bisonsync.keys import WorkspaceKey

T = TypeVar("T")

LOOK_SECONDS = 0.2
# Longer than a stopped run lets its database work go on.
STOP_GRACE_SECONDS = 2.5


class Lanes:
    """Runs calls on ``concurrency`` threads.

    A free lane serves the owner with the fewest calls under way, among equals the one it has not served for longest;
    so a slow workspace cannot take the lanes that others could use, nor a large one be served before all others.
    """

    def __init__(self, concurrency: int, *, name: str) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[Hashable, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._under_way: dict[Hashable, int] = {}
        self._closed = False
        for n in range(concurrency):
            threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True).start()

    def submit(self, owner: Hashable, call: Callable[[], T]) -> Future[T]:
        """Queue a call. Its future is cancelled when the lanes close first."""
        future: Future[T] = Future()
        with self._condition:
            if self._closed:
                future.cancel()
                return future
            self._waiting.setdefault(owner, deque()).append((future, call))
            self._condition.notify()
        return future

    def drop(self, owner: Hashable) -> None:
        """Cancel what an owner still has waiting."""
        with self._condition:
            dropped = self._waiting.pop(owner, deque())
        for future, _ in dropped:
            future.cancel()

    def close(self, *, timeout_seconds: float = 5.0) -> None:
        """Cancel what waits; let what is under way end, for at most so long in all."""
        with self._condition:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            self._condition.notify_all()
        for queue in waiting.values():
            for future, _ in queue:
                future.cancel()
        with self._condition:
            self._condition.wait_for(lambda: not self._under_way, timeout_seconds)

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._waiting:
                    if self._closed:
                        return
                    self._condition.wait()
                owner, future, call = self._next()
                self._under_way[owner] = self._under_way.get(owner, 0) + 1
            try:
                _carry_out(future, call)
            finally:
                with self._condition:
                    self._under_way[owner] -= 1
                    if not self._under_way[owner]:
                        del self._under_way[owner]
                    if self._closed:
                        self._condition.notify_all()

    def _next(self) -> tuple[Hashable, Future[Any], Callable[[], Any]]:
        owner = min(self._waiting, key=lambda candidate: self._under_way.get(candidate, 0))
        queue = self._waiting.pop(owner)
        future, call = queue.popleft()
        if queue:
            # To the end: an owner's place is the time since it was last served.
            self._waiting[owner] = queue
        return owner, future, call


def _carry_out(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # it belongs to whoever waits for the future
        future.set_exception(error)
    else:
        future.set_result(result)


def side_by_side(
    concurrency: Mapping[str, int],
    calls: Mapping[WorkspaceKey, Callable[[], T]],
    *,
    name: str,
    look: Callable[[int], None] = lambda done: None,
) -> dict[WorkspaceKey, T]:
    """Make one call for each workspace on lanes of its instance; the answers by workspace.

    ``concurrency`` is by instance; calls of other instances, which ask nobody, are made here. ``look`` hears now and
    then how many are done; what it raises, as what a call raises, ends the waiting.
    """
    lanes = {
        instance: Lanes(width, name=f"{name}-{instance}")
        for instance, width in concurrency.items()
        if any(key[0] == instance for key in calls)
    }
    grace_seconds = STOP_GRACE_SECONDS
    try:
        futures = {key: lanes[key[0]].submit(key, call) for key, call in calls.items() if key[0] in lanes}
        waiting = set(futures.values())
        while waiting:
            _, waiting = wait(waiting, timeout=LOOK_SECONDS)
            look(len(futures) - len(waiting))
        answers = {key: future.result() for key, future in futures.items()}
        grace_seconds = 1.0
    finally:
        for lane in lanes.values():
            lane.close(timeout_seconds=grace_seconds)
    return {key: answers[key] if key in answers else call() for key, call in calls.items()}
