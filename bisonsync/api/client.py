"""One method per endpoint: pages in, models out."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from bisonsync import retry
from bisonsync.api.budget import RateBudget
from bisonsync.api.http import Answer, Http
from bisonsync.clock import Clock
from bisonsync.errors import ApiRefused, ApiUnavailable, CredentialsError, DeadlineExceeded
from bisonsync.models import MintedToken, Workspace
from bisonsync.retry import Transient

T = TypeVar("T")
M = TypeVar("M", bound="BaseModel")

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})


@dataclass
class EndpointStats:
    """What one endpoint cost in this run; times in milliseconds, one per answered request."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    errors: int = 0
    times_ms: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. ``total`` and ``last_page`` are None where the answer has none (cursor pages, bare lists)."""

    rows: list[Any]
    total: int | None
    last_page: int | None
    next_cursor: str | None


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
            if not self._under_way:
                self._since = now
            left = self.limit_seconds - self._spent - (now - self._since if self._under_way else 0.0)
            if left <= 0:
                raise self.out_of_time()
            self._under_way += 1
            return now + left

    def out_of_time(self) -> ApiUnavailable:
        """The error to raise when the owner's time is up."""
        return ApiUnavailable(
            f"{self.name} kept the API busy for longer than its {self.limit_seconds:.0f} s",
            hint="the host is slow; or raise polling.workspace_deadline_min, polling.workspace_deadline_per_1000",
        )

    def leave(self) -> None:
        """End a request."""
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self._spent += self._clock.monotonic() - self._since


class Breaker:
    """Opens after ``limit`` calls in a row of one instance failed; then its calls fail at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failed_in_a_row = 0
        self._reason = ""
        self._lock = threading.Lock()

    def check(self, instance: str) -> None:
        """Raises ApiUnavailable while open."""
        with self._lock:
            if self._failed_in_a_row >= self._limit:
                raise ApiUnavailable(
                    f"instance {instance}: not asked any more after {self._failed_in_a_row} failures in a row, "
                    f"the last: {self._reason}",
                    hint="check that the host is up; the next run tries again",
                )

    def succeeded(self) -> None:
        with self._lock:
            self._failed_in_a_row = 0

    def failed(self, reason: str) -> None:
        with self._lock:
            self._failed_in_a_row += 1
            self._reason = reason


class InstanceClient:
    """The conversation with one instance; safe to call from many threads.

    Every method raises ApiUnavailable when no usable answer came after all retries, CredentialsError on 401 and
    403, ApiRefused on another 4xx, DeadlineExceeded when time is up, Stopped when the run was stopped.
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
        self.stats: dict[str, EndpointStats] = defaultdict(EndpointStats)
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

    def get_acting_workspace(self, token: str, *, who: str, meter: ServiceMeter | None = None) -> Workspace:
        """The workspace in which a token acts now.

        Source: GET /api/users; the workspace stands under ``team``, on newer hosts under ``workspace``.
        """

        def read(document: Any) -> Workspace:
            user = _object(document.get("data"), "data")
            return _model(Workspace, user.get("team") or user.get("workspace"))

        return self._call("GET", "/api/users", read, token=token, who=who, meter=meter)

    def get_page(
        self, path: str, query: Mapping[str, str | int], *, token: str, who: str, meter: ServiceMeter | None = None
    ) -> Page:
        """One page of any list, rows untouched.

        Source: GET on a list; 15 rows whatever ``per_page`` says; a page past the end is 200 with no rows.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        return self._call("GET", target, _page, token=token, who=who, meter=meter)

    def switch_workspace(self, key: str, workspace_id: int, *, who: str) -> None:
        """Move the user of a super-admin key into a workspace, for every key of that user. Sent once, never retried.

        Source: POST /api/workspaces/v1.1/switch-workspace, body ``{team_id}``.
        """
        self._call(
            "POST", "/api/workspaces/v1.1/switch-workspace", _accept, token=key, who=who, body={"team_id": workspace_id}
        )

    def create_token(self, key: str, workspace_id: int, name: str, *, who: str) -> MintedToken:
        """Make an api-user token of a workspace. Sent once, never retried: each answer is a new token.

        Source: POST /api/workspaces/v1.1/{id}/api-tokens, super-admin only.
        """

        def read(document: Any) -> MintedToken:
            return _model(MintedToken, document.get("data"))

        path = f"/api/workspaces/v1.1/{workspace_id}/api-tokens"
        return self._call("POST", path, read, token=key, who=who, body={"name": name})

    def close(self) -> None:
        """Give unspent budget back and close connections."""
        self._budget.close()
        self._http.close()

    def _call(
        self,
        method: str,
        target: str,
        read: Callable[[Any], T],
        *,
        token: str,
        who: str,
        meter: ServiceMeter | None = None,
        body: dict[str, Any] | None = None,
    ) -> T:
        """Send, read and judge; retried only for GET, for an unsafe request might have been carried out."""
        safe = method == "GET"
        content = None if body is None else json.dumps(body).encode()
        stats = self.stats[_endpoint(method, target)]

        def attempt_once() -> T:
            self._clock.check()
            self._breaker.check(self.instance)
            self._budget.acquire(self._deadline)
            give_up_at = min(self._deadline, meter.enter() if meter else self._deadline)
            began = self._clock.monotonic()
            try:
                answer = self._http.send(method, target, token=token, body=content, give_up_at=give_up_at)
                return self._judge(answer, read, method=method, target=target, who=who)
            except Transient as fault:
                with self._lock:
                    stats.errors += 1
                    stats.rate_limited += fault.rate_limited
                if self._clock.monotonic() >= self._deadline:
                    raise self._out_of_time(method, target, fault.reason) from fault
                if meter and self._clock.monotonic() >= give_up_at:
                    raise meter.out_of_time() from fault
                raise
            finally:
                if meter:
                    meter.leave()
                with self._lock:
                    stats.requests += 1
                    stats.times_ms.append((self._clock.monotonic() - began) * 1000)

        def on_retry(fault: Transient, wait_seconds: float) -> None:
            with self._lock:
                stats.retries += 1
            if fault.rate_limited:
                self._budget.slow_down(wait_seconds)

        try:
            result = retry.call(
                attempt_once,
                attempts=self._attempts if safe else 1,
                rate_limited_attempts=3 * self._attempts if safe else 1,
                sleep=self._sleep,
                on_retry=on_retry,
            )
        except Transient as fault:
            self._breaker.failed(fault.reason)
            again = f" after {self._attempts} tries" if safe else " (sent once: it may have been carried out)"
            raise ApiUnavailable(
                f"instance {self.instance}, {method} {_path(target)}: {fault.reason}{again}",
                hint="check the host and base_url; the next run tries again",
            ) from fault
        self._breaker.succeeded()
        return result

    def _sleep(self, seconds: float) -> None:
        if self._clock.monotonic() + seconds > self._deadline:
            raise DeadlineExceeded(
                f"instance {self.instance}: the run's deadline comes before the next try",
                hint="raise --deadline; what is committed stays",
            )
        self._clock.sleep(seconds)

    def _out_of_time(self, method: str, target: str, reason: str) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"instance {self.instance}, {method} {_path(target)}: the run's deadline has come ({reason})",
            hint="raise --deadline; what is committed stays",
        )

    def _judge(self, answer: Answer, read: Callable[[Any], T], *, method: str, target: str, who: str) -> T:
        """The value of a good answer, Transient for one that may pass, another error for a final one."""
        status = answer.status
        if status in TRANSIENT_STATUS or status >= 500:
            raise Transient(f"HTTP {status}", retry_after=self._retry_after(answer), rate_limited=status == 429)
        if status in (401, 403):
            raise CredentialsError(
                f"instance {self.instance}: {who} was refused with HTTP {status} at {method} {_path(target)}",
                hint="run 'bisonsync workspaces verify'; a token works only on the host that made it",
            )
        if 300 <= status < 400:
            raise ApiRefused(
                f"instance {self.instance}: {method} {_path(target)} answers with a redirect (HTTP {status})",
                status=status,
                hint="base_url is not the API's own host; give the address it redirects to",
            )
        if status >= 400:
            detail = _message(answer)
            raise ApiRefused(
                f"instance {self.instance}: {method} {_path(target)} was refused with HTTP {status}{detail}",
                status=status,
                hint="check that base_url is an Email Bison host",
            )
        try:
            document = json.loads(answer.body)
        except ValueError as error:
            kind = "an HTML page" if answer.body.lstrip()[:1] == b"<" else "no JSON"
            raise Transient(f"HTTP {status} with {kind} instead of JSON") from error
        try:
            if not isinstance(document, dict):
                raise _WrongShapeError("not an object")
            _refuse_hidden_failure(document)
            return read(document)
        except _WrongShapeError as error:
            raise Transient(f"HTTP {status} with JSON of another shape: {error}") from error

    def _retry_after(self, answer: Answer) -> float | None:
        value = answer.headers.get("retry-after", "").strip()
        if not value and answer.status == 429:
            try:
                value = str(json.loads(answer.body).get("retry_after") or "")
            except (ValueError, AttributeError):
                value = ""
        if not value:
            return None
        try:
            seconds = float(value)
        except ValueError:
            try:
                moment = parsedate_to_datetime(value)
            except ValueError:
                return None
            seconds = (_aware(moment) - self._clock.now()).total_seconds()
        return seconds if 0 <= seconds < float("inf") else 0.0


class _WrongShapeError(Exception):
    pass


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _endpoint(method: str, target: str) -> str:
    """The endpoint without ids and queries, to count by."""
    parts = ["{id}" if part.isdigit() else part for part in _path(target).split("/")]
    return f"{method} {'/'.join(parts)}"


def _path(target: str) -> str:
    return target.partition("?")[0]


def _message(answer: Answer) -> str:
    """The API's own words, shortened; never the whole body, which may quote what was sent."""
    try:
        document = json.loads(answer.body)
        inner = document.get("data") if isinstance(document.get("data"), dict) else document
        text = str(inner.get("message") or inner.get("error") or "")
    except (ValueError, AttributeError):
        return ""
    return f": {text[:120]}" if text else ""


def _refuse_hidden_failure(document: dict[str, Any]) -> None:
    """``success: false`` comes with status 200: seen live, at the top or inside ``data``."""
    inner = document.get("data")
    for part in (document, inner):
        if isinstance(part, dict) and part.get("success") is False:
            raise _WrongShapeError(f"success is false: {str(part.get('message') or 'no reason given')[:120]}")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongShapeError(f"{name} is not an object")
    return value


def _model(model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _WrongShapeError(f"{model.__name__} {where}: {first['msg']}") from error


def _number(value: Any, name: str) -> int | None:
    if value is None:
        return None
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or number < 0:
        raise _WrongShapeError(f"meta.{name} is not a count")
    return number


def _page(document: dict[str, Any]) -> Page:
    rows = document.get("data")
    if not isinstance(rows, list):
        raise _WrongShapeError("data is not a list")
    meta = document.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    cursor = meta.get("next_cursor")
    return Page(
        rows=rows,
        total=_number(meta.get("total"), "total"),
        last_page=_number(meta.get("last_page"), "last_page"),
        next_cursor=cursor if isinstance(cursor, str) and cursor else None,
    )


def _accept(_: Any) -> None:
    return None
