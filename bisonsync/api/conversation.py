"""Carries a question to an instance: within budget and deadline, tried again where that is safe, and counted."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bisonsync import retry
from bisonsync.api import answers
from bisonsync.api.answers import Document, Question
from bisonsync.api.budget import RateBudget
from bisonsync.api.http import Http
from bisonsync.api.limits import Breaker, ServiceMeter
from bisonsync.clock import Clock
from bisonsync.errors import ApiRefused, ApiUnavailable, CredentialsError, DeadlineExceeded
from bisonsync.retry import Transient

T = TypeVar("T")


@dataclass
class EndpointStats:
    """What one endpoint cost in this run; times in milliseconds, one per request sent, answered or not."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    errors: int = 0
    times_ms: list[float] = field(default_factory=list[float])


class Conversation:
    """The conversation with one instance; safe to hold from many threads.

    ``stats`` are by endpoint.
    """

    def __init__(
        self,
        instance: str,
        http: Http,
        budget: RateBudget,
        *,
        clock: Clock,
        deadline: float,
        attempts: int,
        failures_before_giving_up: int,
    ) -> None:
        self.instance = instance
        self.stats: dict[str, EndpointStats] = {}
        self._http = http
        self._budget = budget
        self._clock = clock
        self._deadline = deadline
        self._attempts = attempts
        self._breaker = Breaker(failures_before_giving_up)
        self._lock = threading.Lock()

    def meter(self, limit_seconds: float, *, name: str) -> ServiceMeter:
        """A meter for one owner of requests (a workspace)."""
        return ServiceMeter(self._clock, limit_seconds, name=name)

    def close(self) -> None:
        """Give unspent budget back and close connections."""
        self._budget.close()
        self._http.close()

    def call(
        self,
        method: str,
        target: str,
        read: Callable[[Document], T],
        *,
        token: str,
        who: str,
        meter: ServiceMeter | None = None,
        body: dict[str, Any] | None = None,
        hide: tuple[str, ...] = (),
    ) -> T:
        """Send, read and judge; retried only for GET, for an unsafe request might have been carried out.

        ``hide`` are secrets in ``body``, which no message may quote. Raises ApiUnavailable when no usable answer came
        after all retries, CredentialsError on 401 and 403, ApiRefused on another 4xx, DeadlineExceeded when time is
        up, Stopped when the run was stopped.
        """
        path = target.partition("?")[0]
        question = Question(self.instance, method, path, who, token, hide)
        _require_sendable(question)
        is_safe = method == "GET"
        attempts = self._attempts if is_safe else 1
        content = None if body is None else json.dumps(body).encode()
        stats = self._stats(method, path)
        tries = 0

        def attempt_once() -> T:
            nonlocal tries
            self._clock.check()
            self._breaker.check(self.instance)
            if self._clock.monotonic() >= self._deadline:
                raise _out_of_time(question, "the run's deadline has come")
            self._budget.acquire(self._deadline)
            give_up_at = self._deadline if meter is None else min(self._deadline, meter.enter())
            tries += 1
            began = self._clock.monotonic()
            try:
                answer = self._http.send(method, target, token=token, body=content, give_up_at=give_up_at)
                limit, remaining = answers.read_rate(answer)
                self._budget.note(began, is_success=answer.status < 400, limit=limit, remaining=remaining)
            finally:
                if meter is not None:
                    meter.leave()
                took_ms = (self._clock.monotonic() - began) * 1000
                with self._lock:
                    stats.requests += 1
                    stats.times_ms.append(took_ms)
            return answers.judge(answer, question, read, now=self._clock.now())

        def on_fault(fault: Transient, pause_seconds: float, is_retried: bool) -> None:
            with self._lock:
                stats.errors += 1
                stats.rate_limited += fault.rate_limited
            if fault.rate_limited:
                self._budget.slow_down(pause_seconds)
            next_try_at = self._clock.monotonic() + (pause_seconds if is_retried else 0.0)
            if is_safe and next_try_at >= self._deadline:
                late = f"the run's deadline comes before the next try, after: {fault.reason}"
                raise _out_of_time(question, late) from fault
            if meter is not None and meter.is_spent:
                self._breaker.failed(fault.reason)
                raise meter.out_of_time() from fault
            with self._lock:
                stats.retries += is_retried

        try:
            result = retry.call(
                attempt_once,
                attempts=attempts,
                # A host that only asks for patience gets it until the deadline.
                rate_limited_attempts=sys.maxsize if is_safe else 1,
                sleep=self._clock.sleep,
                on_fault=on_fault,
            )
        except Transient as fault:
            self._breaker.failed(fault.reason)
            raise _unavailable(question, fault, tries) from fault
        except (ApiRefused, CredentialsError):
            with self._lock:
                stats.errors += 1
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        return result

    def _stats(self, method: str, path: str) -> EndpointStats:
        """Those of the endpoint, whatever the ids in its path."""
        name = f"{method} {'/'.join('{id}' if part.isdigit() else part for part in path.split('/'))}"
        with self._lock:
            return self.stats.setdefault(name, EndpointStats())


def _out_of_time(question: Question, reason: str) -> DeadlineExceeded:
    return DeadlineExceeded(f"{question}: {reason}", hint="raise --deadline; what is committed stays")


def _require_sendable(question: Question) -> None:
    """Raises CredentialsError for a token that no header can carry; the library's own error would quote it."""
    token = question.token
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CredentialsError(
            f"instance {question.instance}: {question.who} is empty or holds a blank or another character no token has",
            hint="store it again; a token is one word such as 12|abc…",
        )


def _unavailable(question: Question, fault: Transient, tries: int) -> ApiUnavailable:
    is_undone = fault.rate_limited or not fault.was_sent
    if question.method == "GET":
        how = f"after {tries} attempts" if tries > 1 else "(1 attempt)"
    elif is_undone:
        how = "and was not carried out"
    else:
        how = "(sent once: it may have been carried out)"
    return ApiUnavailable(
        f"{question}: {fault.reason} {how}",
        hint="check the host and base_url; the next run tries again",
        is_carried_out=False if is_undone else None,
    )
