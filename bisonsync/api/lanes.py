"""A fixed number of threads that send one instance's requests, shared fairly by its workspaces."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Lanes:
    """Runs calls on ``concurrency`` threads.

    A free lane serves the owner with the fewest calls under way, the longest waiting among equals; so a slow
    workspace cannot take the lanes that others could use.
    """

    def __init__(self, concurrency: int, *, name: str) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[Hashable, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._under_way: dict[Hashable, int] = {}
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True) for n in range(concurrency)
        ]
        for thread in self._threads:
            thread.start()

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
        """Cancel what waits; let what is under way end, for at most so long."""
        with self._condition:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            self._condition.notify_all()
        for queue in waiting.values():
            for future, _ in queue:
                future.cancel()
        for thread in self._threads:
            thread.join(timeout_seconds)

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._closed:
                    self._condition.wait()
                if not self._waiting:
                    return
                owner = min(self._waiting, key=lambda candidate: self._under_way.get(candidate, 0))
                queue = self._waiting[owner]
                future, call = queue.popleft()
                if not queue:
                    del self._waiting[owner]
                self._under_way[owner] = self._under_way.get(owner, 0) + 1
            try:
                if future.set_running_or_notify_cancel():
                    try:
                        result = call()
                    except BaseException as error:  # it belongs to whoever waits for the future
                        future.set_exception(error)
                    else:
                        future.set_result(result)
            finally:
                with self._condition:
                    self._under_way[owner] -= 1
                    if not self._under_way[owner]:
                        del self._under_way[owner]
