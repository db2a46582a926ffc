"""What ends the asking early: an owner's time is up, or an instance has failed too often."""

from __future__ import annotations

import threading

from bisonsync.clock import Clock
from bisonsync.errors import ApiUnavailable

# Less than any request takes, more than floating point loses.
NO_TIME_SECONDS = 0.001


class ServiceMeter:
    """Counts the time in which at least one request of its owner is under way, waiting for budget left out.

    ``limit_seconds`` may be raised while it runs; past it, requests are refused with ApiUnavailable.
    """

    def __init__(self, clock: Clock, limit_seconds: float, *, name: str) -> None:
        self.limit_seconds = limit_seconds
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way = 0
        self._since = 0.0
        self._spent = 0.0

    def enter(self) -> float:
        """Begin a request; returns the monotonic instant at which the owner's time is up."""
        with self._lock:
            now = self._clock.monotonic()
            left = self._left(now)
            if left <= NO_TIME_SECONDS:
                raise self.out_of_time()
            if not self._under_way:
                self._since = now
            self._under_way += 1
            return now + left

    def leave(self) -> None:
        """End a request."""
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self._spent += self._clock.monotonic() - self._since

    @property
    def is_spent(self) -> bool:
        """True when the owner's time is up."""
        with self._lock:
            return self._left(self._clock.monotonic()) <= NO_TIME_SECONDS

    def out_of_time(self) -> ApiUnavailable:
        """The error to raise when the owner's time is up."""
        return ApiUnavailable(
            f"{self.name} kept the API busy for longer than its {self.limit_seconds:.0f} s",
            hint="the host is slow; or raise polling.workspace_deadline_min, polling.workspace_deadline_per_1000",
        )

    def _left(self, now: float) -> float:
        return self.limit_seconds - self._spent - (now - self._since if self._under_way else 0.0)


class Breaker:
    """Opens after ``limit`` calls in a row of one instance failed; then its calls fail at once. A success closes it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failed_in_a_row = 0
        self._reason = ""
        self._lock = threading.Lock()

    def check(self, instance: str) -> None:
        """Raises ApiUnavailable while open."""
        if self._failed_in_a_row >= self._limit:
            raise ApiUnavailable(
                f"instance {instance}: not asked any more after {self._limit} failures in a row, "
                f"the last: {self._reason}",
                hint="check that the host is up; the next run tries again",
                is_carried_out=False,
            )

    def succeeded(self) -> None:
        """A call was answered, be it with a refusal."""
        self._failed_in_a_row = 0

    def failed(self, reason: str) -> None:
        """A call got no usable answer after all retries."""
        with self._lock:
            self._failed_in_a_row += 1
            self._reason = reason
