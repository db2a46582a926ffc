"""The one retry policy: transport faults, 408, 425, 429, 5xx and answers that are not the JSON asked for.

Back-off is 1 s, 2 s, 4 s … capped at 10 s, less up to half of it by chance, so that hosts do not knock in step. An
answer that says how long to wait is believed, up to two minutes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import tenacity

T = TypeVar("T")

BACKOFF_CAP_SECONDS = 10.0
RETRY_AFTER_CAP_SECONDS = 120.0


class Transient(Exception):  # a condition that passes, not an error an operator sees
    """Asking again may help. ``retry_after`` is what the server asked us to wait, in seconds, more than 0.

    ``was_sent`` is False when no byte of the request can have arrived.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, rate_limited: bool = False, was_sent: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.rate_limited = rate_limited
        self.was_sent = was_sent


def pause_seconds(fault: Transient, attempt: int) -> float:
    """How long to wait after the ``attempt``-th failure (from 1)."""
    if fault.retry_after is not None:
        return min(fault.retry_after, RETRY_AFTER_CAP_SECONDS)
    # Far more attempts than anybody configures; beyond, the power would overflow.
    whole = min(BACKOFF_CAP_SECONDS, 2.0 ** min(attempt - 1, 10))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret


def call(
    attempt_once: Callable[[], T],
    *,
    attempts: int,
    rate_limited_attempts: int,
    sleep: Callable[[float], None],
    on_fault: Callable[[Transient, float, bool], None],
) -> T:
    """Call until it answers, ``attempts`` times for faults and ``rate_limited_attempts`` times for 429.

    ``on_fault`` hears of each failure: the pause that it calls for, and whether it is tried again after that pause.
    Raises the last Transient, and at once whatever else is raised.
    """
    left = {False: attempts, True: rate_limited_attempts}

    def is_final(state: tenacity.RetryCallState) -> bool:
        fault = _fault(state)
        left[fault.rate_limited] -= 1
        final = left[fault.rate_limited] <= 0
        on_fault(fault, state.upcoming_sleep, not final)
        return final

    try:
        return attempt_once()
    except Transient as fault:
        # Almost every call ends above, at a tenth of the cost; from the first failure on tenacity keeps the count.
        first = [fault]

    def try_again() -> T:
        if first:
            raise first.pop()
        return attempt_once()

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Transient),
        wait=lambda state: pause_seconds(_fault(state), state.attempt_number),
        stop=is_final,
        sleep=sleep,
        reraise=True,
    )(try_again)


def _fault(state: tenacity.RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Transient)  # nothing else is retried
    return error
