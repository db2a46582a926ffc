"""Delivers webhooks in the background: one POST per listening URL, tried again until it is answered with 200."""

from __future__ import annotations

import contextlib
import heapq
import http.client
import ipaddress
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from bisonsync.sandbox.config import Config
from bisonsync.sandbox.hooks import Attempt, Delivery, HookBook
from bisonsync.sandbox.payloads import body_of

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "EmailBison-Sandbox"}


class Outcome(NamedTuple):
    """What one try came to."""

    code: int | None
    error: str | None


def is_loopback(host: str | None) -> bool:
    """Tell by its spelling alone whether a host is this machine: no name is looked up."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Tell whether a connection that was kept is still there."""
    if connection.sock is None:
        return False
    # What can be read before anything was asked is that the other side has closed it.
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)


class Postman:
    """Posts bodies, one after another; keeps the connection to the host that it posted to last."""

    def __init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None
        self._to: tuple[str, str, float] | None = None
        self._is_cut = False

    def post(self, url: str, body: bytes, config: Config) -> Outcome:
        """Send one body and wait for the answer."""
        try:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                return Outcome(None, "no http address")
            if not (config.deliver_anywhere or is_loopback(parts.hostname)):
                return Outcome(None, "not on this machine: see --deliver-anywhere")
            return Outcome(self._send(parts, body, config.webhook_timeout), None)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            self.close()
            return Outcome(None, f"{type(problem).__name__}: {problem}"[:200])

    def cut(self) -> None:
        """End what is being sent, from another thread; nothing can be sent any more."""
        self._is_cut = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, parts: SplitResult, body: bytes, timeout: float) -> int:
        to = (parts.scheme, parts.netloc, timeout)
        if to != self._to:
            self.close()
            self._to = to
        if self._connection is not None and _is_open(self._connection):
            return self._ask(self._connection, parts, body)
        self.close()
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = make(parts.hostname or "", parts.port, timeout=timeout)
        self._connection.connect()
        return self._ask(self._connection, parts, body)

    def _ask(self, connection: http.client.HTTPConnection, parts: SplitResult, body: bytes) -> int:
        if self._is_cut:
            raise ConnectionError("the sandbox has stopped")
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("POST", target, body, _HEADERS)
        answer = connection.getresponse()
        answer.read()
        return answer.status


class Courier:
    """The deliveries that are due, and the threads that make them.

    `lock` is the sandbox's: outcomes are noted under it, and nothing is sent while it is held.
    """

    def __init__(self, lock: threading.RLock, config: Callable[[], Config], hooks: Callable[[], HookBook]) -> None:
        self._lock = lock
        self._config = config
        self._hooks = hooks
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Delivery]] = []
        self._put = 0
        self._under_way = 0
        self._is_running = False
        self._threads: list[threading.Thread] = []
        self._postmen: list[Postman] = []

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries on; they are sent in this order, each when its delay is over."""
        with self._changed:
            for delivery in deliveries:
                self._put += 1
                heapq.heappush(self._due, (time.monotonic() + delivery.delay, self._put, delivery))
            self._changed.notify_all()
            self._hire()

    def clear(self) -> None:
        """Forget all that is still to be sent."""
        with self._changed:
            self._due.clear()
            self._changed.notify_all()

    def waiting(self) -> int:
        """Count the deliveries that are to be sent, now or again, or under way."""
        with self._changed:
            return len(self._due) + self._under_way

    def take_next(self) -> Delivery | None:
        """Take what is to be sent next, however long it should wait still."""
        with self._changed:
            return heapq.heappop(self._due)[2] if self._due else None

    def note(self, delivery: Delivery, outcome: Outcome) -> None:
        """Write down what a try came to, and put the delivery again where it is to be repeated."""
        with self._lock:
            config, hooks = self._config(), self._hooks()
            attempt = Attempt(hooks.number("attempt"), hooks.now(), *outcome)
            delivery.attempts.append(attempt)
            hooks.attempts[attempt.id] = delivery
            if outcome.code == 200:
                delivery.status = "succeeded"
                return
            made = len(delivery.attempts)
            if made < (config.webhook_tries if delivery.tries is None else delivery.tries):
                delivery.status, delivery.delay = "pending", config.webhook_spacing
                self.put([delivery])
            else:
                delivery.status = "failed"

    def settle(self, timeout: float) -> None:
        """Wait until nothing is left to be sent. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._due and not self._under_way, timeout):
                raise TimeoutError(f"{len(self._due) + self._under_way} deliveries are still to be made")

    def start(self) -> None:
        """Begin to send what is put."""
        with self._changed:
            self._is_running = True
            self._hire()

    def stop(self) -> None:
        """End all threads, in the middle of a delivery too."""
        with self._changed:
            self._is_running = False
            threads, postmen = self._threads, self._postmen
            self._threads, self._postmen = [], []
            self._changed.notify_all()
        for postman in postmen:
            postman.cut()
        for thread in threads:
            thread.join()

    def _hire(self) -> None:
        while self._is_running and self._due and len(self._threads) < max(1, self._config().webhook_workers):
            postman = Postman()
            thread = threading.Thread(target=self._work, args=(postman,), name="sandbox-courier", daemon=True)
            self._postmen.append(postman)
            self._threads.append(thread)
            thread.start()

    def _work(self, postman: Postman) -> None:
        while (delivery := self._take()) is not None:
            try:
                self._deliver(delivery, postman)
            finally:
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify_all()
        postman.close()

    def _take(self) -> Delivery | None:
        with self._changed:
            while self._is_running:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    self._under_way += 1
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
            return None

    def _deliver(self, delivery: Delivery, postman: Postman) -> None:
        with self._lock:
            config, hooks = self._config(), self._hooks()
        outcome = postman.post(delivery.url, body_of(delivery, hooks.instance_url), config)
        with self._lock:
            # After a reset nobody knows of it any more.
            if hooks is self._hooks():
                self.note(delivery, outcome)
