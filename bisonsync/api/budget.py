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

# An empty bucket is not asked for each token as it drips in, but for what has gathered meanwhile.
LEAST_WAIT_SECONDS = 0.25
# Requests under way answer 429 one after another; a block that differs by less is not told to the others again.
SHARED_BLOCK_STEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Grant:
    """``tokens`` may be spent now; with none, ask again after ``wait_seconds``.

    ``is_blocked``: the wait is not for the bucket to fill but for the end of a 429, which another process may have met.
    """

    tokens: int
    wait_seconds: float
    is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What the answers since the last time told: requests sent, how many brought something, and the newest headers."""

    sent: int
    succeeded: int
    limit: int | None
    remaining: int | None


class RateBudget:
    """Hands out permission to send one request; safe to call from many threads."""

    def __init__(
        self,
        take: Callable[[int, Told | None], Grant],
        give_back: Callable[[int, Told | None], None],
        block: Callable[[float, Told | None], None],
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
        self._sent = 0
        self._succeeded = 0
        self._limit: int | None = None
        self._remaining: int | None = None
        self._newest_asked_at = float("-inf")
        self._empty_until = float("-inf")
        self._blocked_until = float("-inf")
        self._shared_until = float("-inf")
        self._lock = threading.Lock()
        self._refill = threading.Lock()

    def acquire(self, give_up_at: float) -> None:
        """Wait until one request may be sent. Raises DeadlineExceeded when that would be after ``give_up_at``."""
        while not self._spend():
            self._wait(give_up_at)
            self._fetch()

    def note(self, asked_at: float, *, is_success: bool, limit: int | None, remaining: int | None) -> None:
        """Hear what the answer to a request of that monotonic instant told; it is shared with the next block."""
        with self._lock:
            self._succeeded += is_success
            # Of answers that overtook each other the one that was asked for last knows best.
            if remaining is not None and limit is not None and asked_at >= self._newest_asked_at:
                self._newest_asked_at = asked_at
                self._limit, self._remaining = limit, remaining

    def slow_down(self, seconds: float) -> None:
        """The API said 429: no request of this instance, from any process, for so long."""
        now = self._clock.monotonic()
        until = now + seconds
        with self._lock:
            self._blocked_until = max(self._blocked_until, until)
            # What is left was granted for the time before; the shared bucket starts from nothing too.
            self._tokens = 0
            is_news = self._shared_until <= now or until >= self._shared_until + SHARED_BLOCK_STEP_SECONDS
            if is_news:
                self._shared_until = until
        if is_news:
            self._share_block(seconds, self._report())

    def close(self) -> None:
        """Give back what was not spent, and share what the last answers told."""
        with self._lock:
            left, self._tokens = self._tokens, 0
        told = self._report()
        if left or told:
            self._give_back(left, told)

    def _report(self) -> Told | None:
        with self._lock:
            if not self._sent:
                return None
            told = Told(self._sent, self._succeeded, self._limit, self._remaining)
            self._sent, self._succeeded, self._limit, self._remaining = 0, 0, None, None
            return told

    def _spend(self) -> bool:
        with self._lock:
            if not self._tokens:
                return False
            self._tokens -= 1
            self._sent += 1
            return True

    def _wait(self, give_up_at: float) -> None:
        """Sleep until the bucket may be asked again."""
        now = self._clock.monotonic()
        ready_at = max(now, self._blocked_until, now if self._tokens else self._empty_until)
        if ready_at >= give_up_at:
            if self._blocked_until >= give_up_at:
                raise DeadlineExceeded(
                    f"the API said 429: no more requests for another {self._blocked_until - now:.0f} s, "
                    "which is after the deadline",
                    hint="wait; if it comes often, lower requests_per_minute of the instance",
                )
            raise DeadlineExceeded(
                "the request budget is used up and does not refill before the deadline",
                hint="raise requests_per_minute of the instance, or --deadline",
            )
        if ready_at > now:
            self._clock.sleep(ready_at - now)

    def _fetch(self) -> None:
        """Take one block for everybody who waits, unless another thread just did or found none."""
        with self._refill:
            now = self._clock.monotonic()
            if self._tokens or max(self._empty_until, self._blocked_until) > now:
                return
            grant = self._take(self._block_size, self._report())
            with self._lock:
                if grant.tokens and self._blocked_until <= self._clock.monotonic():
                    self._tokens += grant.tokens
                elif grant.is_blocked:
                    self._blocked_until = max(self._blocked_until, now + grant.wait_seconds)
                elif not grant.tokens:
                    self._empty_until = now + max(grant.wait_seconds, LEAST_WAIT_SECONDS)
