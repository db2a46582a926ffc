"""What tests of the API client share: a clock moved by hand, a budget without end, and hosts that answer as told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from hypothesis import HealthCheck, settings

from bisonsync.api.budget import Grant, RateBudget
from bisonsync.api.client import InstanceClient
from bisonsync.api.conversation import Conversation
from bisonsync.api.http import Http
from bisonsync.errors import Stopped

# A busy machine is no finding.
settings.register_profile("bisonsync", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bisonsync")

HOST = "https://send.example.com"
TOKEN = "12|abcdefghijklmnopqrstuvwxyz"
WHO = "the token of workspace sim/5"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class HandClock:
    """A clock that only sleeping and ``pass_time`` move; remembers how long each sleep was."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.stopped_by = 0
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return NEW_YEAR + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.check()
        self.slept.append(seconds)
        self.pass_time(seconds)

    def check(self) -> None:
        if self.stopped_by:
            raise Stopped(self.stopped_by)

    def pass_time(self, seconds: float) -> None:
        with self._lock:
            self._elapsed += seconds


def endless_budget(clock: HandClock, shared_blocks: list[float] | None = None) -> RateBudget:
    """A budget that always grants; what is told to other processes after a 429 goes to ``shared_blocks``."""
    return RateBudget(
        lambda wanted, told: Grant(wanted, 0.0),
        lambda left, told: None,
        lambda seconds, told: None if shared_blocks is None else shared_blocks.append(seconds),
        clock=clock,
        block_size=100,
    )


def client_of(
    handler: Callable[[httpx.Request], httpx.Response] | str,
    clock: HandClock | None = None,
    *,
    budget: RateBudget | None = None,
    deadline: float = 900.0,
    attempts: int = 3,
    failures_before_giving_up: int = 5,
    read_timeout_seconds: float = 30.0,
) -> InstanceClient:
    """A client of a host that ``handler`` plays, or of the real host under a base URL."""
    clock = clock or HandClock()
    http = Http(
        handler if isinstance(handler, str) else HOST,
        user_agent="bisonsync/test",
        connect_timeout_seconds=5.0,
        read_timeout_seconds=read_timeout_seconds,
        transport_factory=None if isinstance(handler, str) else lambda: httpx.MockTransport(handler),
        monotonic=clock.monotonic,
    )
    conversation = Conversation(
        "sim",
        http,
        budget or endless_budget(clock),
        clock=clock,
        deadline=deadline,
        attempts=attempts,
        failures_before_giving_up=failures_before_giving_up,
    )
    return InstanceClient(conversation)


def in_turn(*answers: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response]:
    """A host that gives these answers one after another, and the last one for ever."""
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        # A response is used up by being read.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return handle


def page(*ids: int, total: Any = None, last_page: Any = 1, **meta: Any) -> httpx.Response:
    """A page of a list whose rows are only ids."""
    counts = {"total": len(ids) if total is None else total, "last_page": last_page, **meta}
    return httpx.Response(200, json={"data": [{"id": number} for number in ids], "meta": counts})


def ask(client: InstanceClient, **options: Any) -> Any:
    """Read one page of the sender emails."""
    return client.get_page("/api/sender-emails", {"page": 1}, token=TOKEN, who=WHO, **options)


@contextlib.contextmanager
def host(*conversations: Callable[[socket.socket], None]) -> Generator[str]:
    """A host that has these conversations, one per connection and the last one for ever. Yields its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = list(conversations)
    opened: list[socket.socket] = []
    talkers: list[threading.Thread] = []

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.append(connection)
            talk = left.pop(0) if len(left) > 1 else left[0]
            talkers.append(threading.Thread(target=converse, args=(connection, talk)))
            talkers[-1].start()

    def converse(connection: socket.socket, talk: Callable[[socket.socket], None]) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Closing alone does not wake a thread that accepts.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for talker in talkers:
            talker.join()


def read_request(connection: socket.socket) -> bytes:
    """One request with its body; empty when the client has hung up."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """The bytes of an answer; ``content_length`` is right unless given."""
    fields: Mapping[str, str] = {"content_length": str(len(body)), "content_type": "application/json", **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def always(answer: bytes) -> Callable[[socket.socket], None]:
    """A conversation that answers each request of a connection alike."""

    def talk(connection: socket.socket) -> None:
        while read_request(connection):
            connection.sendall(answer)

    return talk


EMPTY_LIST = json.dumps({"data": [], "meta": {"total": 0, "last_page": 1}}).encode()
