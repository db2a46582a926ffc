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
    """Asking again may help. ``retry_after`` is what the server asked us to wait, in seconds."""

    def __init__(self, reason: str, *, retry_after: float | None = None, rate_limited: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.rate_limited = rate_limited


def backoff_seconds(attempt: int) -> float:
    """How long to wait after the ``attempt``-th failure (from 1)."""
    whole = min(BACKOFF_CAP_SECONDS, 2.0 ** (attempt - 1))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret


def call(
    attempt_once: Callable[[], T],
    *,
    attempts: int,
    rate_limited_attempts: int,
    sleep: Callable[[float], None],
    on_retry: Callable[[Transient, float], None],
) -> T:
    """Call until it answers, ``attempts`` times for faults and ``rate_limited_attempts`` times for 429.

    ``on_retry`` hears of each failure that is tried again, with the wait before the next try in seconds.
    Raises the last Transient.
    """
    failures = {"fault": 0, "rate": 0}

    def count(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, Transient):
            return False
        failures["rate" if error.rate_limited else "fault"] += 1
        return True

    def stop(_: tenacity.RetryCallState) -> bool:
        return failures["fault"] >= attempts or failures["rate"] >= rate_limited_attempts

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Transient) else None
        return min(asked, RETRY_AFTER_CAP_SECONDS) if asked is not None else backoff_seconds(state.attempt_number)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Transient):
            on_retry(error, state.next_action.sleep if state.next_action else 0.0)

    retrying = tenacity.Retrying(
        retry=count, stop=stop, wait=wait, sleep=sleep, before_sleep=before_sleep, reraise=True
    )
    return retrying(attempt_once)
