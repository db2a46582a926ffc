"""The rate budget of one instance, as this process sees it.

The bucket itself is a row in Postgres that every process and host shares; tokens are taken from it in blocks, so that a
request costs no round trip to the database. What is left of a block is given back at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from bisonsync.clock import Clock
from bisonsync.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Grant:
    """``tokens`` may be spent now; with none, ask again after ``wait_seconds``."""

    tokens: int
    wait_seconds: float


class RateBudget:
    """Hands out permission to send one request; safe to call from many threads."""

    def __init__(
        self,
        take: Callable[[int], Grant],
        give_back: Callable[[int], None],
        block: Callable[[float], None],
        *,
        clock: Clock,
        block_size: int,
    ) -> None:
        self._take = take
        self._give_back = give_back
        self._share_block = block
        self._clock = clock
        self._block_size = block_size
        self._tokens = 0
        self._blocked_until = 0.0
        self._lock = threading.Lock()
        self._refill = threading.Lock()

    def acquire(self, give_up_at: float) -> None:
        """Wait until one request may be sent. Raises DeadlineExceeded when that would be after ``give_up_at``."""
        while True:
            wait = self._blocked_until - self._clock.monotonic()
            if wait <= 0:
                if self._spend() or self._fetch(give_up_at):
                    return
                continue
            self._wait(wait, give_up_at)

    def slow_down(self, seconds: float) -> None:
        """The API said 429: no request of this instance, from any process, for so long."""
        until = self._clock.monotonic() + seconds
        with self._lock:
            if until <= self._blocked_until:
                return
            self._blocked_until = until
            self._tokens = 0
        self._share_block(seconds)

    def close(self) -> None:
        """Give back what was not spent."""
        with self._lock:
            left, self._tokens = self._tokens, 0
        if left:
            self._give_back(left)

    def _spend(self) -> bool:
        with self._lock:
            if self._tokens <= 0:
                return False
            self._tokens -= 1
            return True

    def _fetch(self, give_up_at: float) -> bool:
        """Take one block for everybody who waits; True when a token of it is ours."""
        with self._refill:
            if self._spend():
                return True
            grant = self._take(self._block_size)
            if grant.tokens:
                with self._lock:
                    self._tokens += grant.tokens - 1
                return True
        self._wait(grant.wait_seconds, give_up_at)
        return False

    def _wait(self, seconds: float, give_up_at: float) -> None:
        left = give_up_at - self._clock.monotonic()
        if left <= 0 or seconds > left:
            raise DeadlineExceeded(
                "the request budget is used up and does not refill before the deadline",
                hint="raise requests_per_minute of the instance, or --deadline",
            )
        self._clock.sleep(max(seconds, 0.01))
