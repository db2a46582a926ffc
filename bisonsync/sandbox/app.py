"""Answers requests without a socket: counts, limits, opens the token, lets faults act, asks the route."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, cast

from bisonsync.sandbox import control, effects, pages, routes
from bisonsync.sandbox.calls import Call, Refused
from bisonsync.sandbox.config import Config, with_moods
from bisonsync.sandbox.counters import Counters
from bisonsync.sandbox.courier import Courier
from bisonsync.sandbox.faults import NO_HITS, FaultBook, Hits, Target
from bisonsync.sandbox.happenings import Watcher
from bisonsync.sandbox.hooks import Delivery
from bisonsync.sandbox.http import Answer, Request
from bisonsync.sandbox.seed import make_world
from bisonsync.sandbox.workspaces import Token


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _Asked(NamedTuple):
    request: Request
    route: routes.Route | None
    args: tuple[str, ...]
    token: Token | None
    query: list[tuple[str, str]]


class App:
    """One sandbox: its world, moods, faults and counters. `lock` guards all of them."""

    def __init__(
        self,
        config: Config,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.lock = threading.RLock()
        self.courier = Courier(self.lock, lambda: self.config, lambda: self.world.hooks)
        self.counters = Counters()
        self.refuse: Callable[[float], None] | None = None
        """Set by what listens: refuse connections for so many seconds."""
        self._monotonic = monotonic
        self._now = now
        self._url = "http://localhost"
        self.reset(config)

    @property
    def url(self) -> str:
        """The address that events name as theirs; set by what listens."""
        return self._url

    @url.setter
    def url(self, url: str) -> None:
        self._url = self.world.hooks.instance_url = url

    def reset(self, config: Config) -> None:
        """Begin anew: the world as the seed makes it, no tokens but the super-admin's, the first faults."""
        with self.lock:
            self.config = config
            self.world = make_world(
                seed=config.seed,
                workspaces=config.workspaces,
                accounts=config.accounts,
                campaigns=config.campaigns_made,
                skew=config.skew,
                start=self._now() if config.clock == "real" else config.start,
                real=self._now if config.clock == "real" else None,
            )
            self.watcher = self.world.watch = Watcher(self.world)
            self.world.hooks.instance_url = self._url
            self.world.hooks.send = self._send
            self.world.hooks.resend = self.courier.put
            self.courier.clear()
            self.world.add_super_admin(config.super_admin_token)
            self.faults = FaultBook(config.faults, self.world.rng("faults"))
            self._jitter = self.world.rng("jitter")
            self._windows: dict[str, tuple[float, int]] = {}
            self._blanket_since: float | None = None
            self.counters.forget()

    def _send(self, deliveries: list[Delivery]) -> None:
        """Let the faults have the deliveries, and put what they leave."""
        self.courier.put(effects.damage_webhooks(self.faults, deliveries, self.world))

    def handle(self, request: Request) -> Answer:
        """Answer one request; the transport calls `on_finished` of the answer when it is gone."""
        with self.lock:
            if request.path.startswith("/_sandbox/"):
                answer = control.handle(self, request)
            else:
                answer = self._handle_api(request)
        answer.seal()
        return answer

    def _handle_api(self, request: Request) -> Answer:
        found = routes.find_route(request.path) or (None, ())
        token = self._token(request)
        if token is not None and token.kind == "super-admin":
            self.world.note_super_admin_request()
        asked = _Asked(request, found[0], found[1], token, routes.parse_query(request.query))
        subject = self._acting_id(token)
        self.counters.start(subject)
        limited, limits = self._limit(token)
        answer = limited or self._answer(asked)
        answer.headers += limits
        answer.delay += self._latency(subject)
        self.counters.answered(subject, asked.route.template if asked.route else "(unknown)", answer.status)
        answer.on_finished = partial(self._finished, subject)
        if answer.status >= 400 and answer.payload is not None and "json" not in request.headers.get("accept", ""):
            # The framework sends pages to clients that do not ask for JSON.
            page = effects.html_page(answer.status, "Error")
            answer.body, answer.payload, answer.content_type = page.body, None, page.content_type
        return answer

    def _finished(self, subject: int | None) -> None:
        with self.lock:
            self.counters.finish(subject)

    def _token(self, request: Request) -> Token | None:
        scheme, _, plain = request.headers.get("authorization", "").partition(" ")
        token = self.world.tokens.get(plain.strip()) if scheme.lower() == "bearer" else None
        return None if token is None or token.revoked else token

    def _acting_id(self, token: Token | None) -> int | None:
        workspace = self.world.acting_workspace(token) if token else None
        return workspace.id if workspace else None

    def _latency(self, workspace_id: int | None) -> float:
        config = self.config
        fixed = config.workspace_latency.get(workspace_id, config.latency) if workspace_id else config.latency
        return fixed + self._jitter.uniform(0, config.jitter) if config.jitter else fixed

    def _answer(self, asked: _Asked) -> Answer:
        hits = self._hits(asked)
        for fault in hits.scope:
            effects.move_scope(fault, self.world, asked.token)
        if hits.instead is not None:
            answer = effects.answer_instead(hits.instead, hits.turn)
        else:
            answer = self._serve(asked, is_plain=not hits.content)
        if isinstance(answer.payload, dict) and answer.status < 400:
            for fault in hits.content:
                effects.spoil(fault, cast(dict[str, Any], answer.payload))
        for fault in hits.after:
            if fault.kind == "turn":
                self.config = with_moods(self.config, {"paging": fault.body})
            else:
                effects.shift_rows(fault, self.world, self._acting_id(asked.token))
        for fault in hits.delivery:
            effects.damage_delivery(fault, answer)
        return answer

    def _hits(self, asked: _Asked) -> Hits:
        if not self.faults.entries:
            return NO_HITS
        subject, page = self._acting_id(asked.token), None
        if asked.route and "{team_id}" in asked.route.template and asked.args[0].isdecimal():
            subject = int(asked.args[0])
        query = dict(asked.query)
        if asked.route and asked.route.is_list and asked.request.method == "GET":
            page = 0 if "cursor" in query else pages.page_number(query.get("page"))
        kind = asked.token.kind if asked.token else ""
        return self.faults.pick(Target(asked.request.method, asked.request.path, subject, page, kind))

    def _serve(self, asked: _Asked, *, is_plain: bool) -> Answer:
        request, route = asked.request, asked.route
        path = request.path.lstrip("/")
        if route is None:
            return Answer(404, payload={"message": f"The route {path} could not be found."})
        handler = route.handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in route.handlers)
            message = f"The {request.method} method is not supported for route {path}. Supported methods: {allowed}."
            return Answer(405, payload={"message": message}, headers=(("Allow", allowed),))
        token = asked.token
        workspace = self.world.acting_workspace(token) if token else None
        if token is None or workspace is None:
            return effects.refusal(401)
        url = f"http://{request.headers.get('host', 'localhost')}{request.path}"
        call = Call(request, url, self.world, self.config, token, workspace, asked.args, asked.query, is_plain)
        try:
            return handler(call)
        except Refused as refused:
            return refused.answer

    def _limit(self, token: Token | None) -> tuple[Answer | None, tuple[tuple[str, str], ...]]:
        """Count the request against the allowance; return the refusal, if any, and the headers that tell of it.

        A window opens with its first request, as the framework's limiter does it.
        """
        config, now = self.config, self._monotonic()
        if config.blanket_429:
            self._blanket_since = now if self._blanket_since is None else self._blanket_since
            left = self._blanket_since + config.blanket_429 - now
            if left > 0:
                return effects.too_many(config.retry_after, left), ()
        else:
            self._blanket_since = None
        if not config.rate_limit:
            return None, ()
        key = token.plain if token and config.rate_limit_per == "token" else ""
        opened, count = self._windows.get(key, (now, 0))
        if now - opened >= config.rate_window:
            opened, count = now, 0
        self._windows[key] = (opened, count + 1)
        count += int(config.foreign_rate * (now - opened) / 60)
        left = max(0, config.rate_limit - count - 1)
        headers = (("X-RateLimit-Limit", str(config.rate_limit)), ("X-RateLimit-Remaining", str(left)))
        if count < config.rate_limit:
            return None, headers
        return effects.too_many(config.retry_after, opened + config.rate_window - now), headers
