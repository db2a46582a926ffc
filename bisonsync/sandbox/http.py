"""A small HTTP/1.1 server: hand-parsed keep-alive requests, answers that can be late, damaged or missing."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal, cast

_MAX_HEAD = 64 * 1024
_DRIPS = 20
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True)
class Request:
    """One request as it came in; header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    is_local: bool = True


@dataclass(slots=True)
class Answer:
    """What is sent, when, and how much of it arrives. A `payload` is serialised into the body at the end."""

    status: int = 200
    body: bytes = b""
    payload: Any = None
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    delivery: Literal["whole", "drip", "truncate", "reset", "close", "hang"] = "whole"
    fraction: float = 0.5
    seconds: float = 0.0
    on_finished: Callable[[], None] | None = None

    def seal(self) -> None:
        """Serialise the payload, if there is one."""
        if self.payload is not None:
            self.body, self.payload = _encode(self.payload).encode(), None


Handle = Callable[[Request], Answer]


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


def head_of(answer: Answer, *, close: bool) -> bytes:
    """Write the status line and the headers."""
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}",
        f"Date: {_http_date(int(time.time()))}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-cache, private",
    ]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines.append("Connection: close" if close else "Connection: keep-alive")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _parse_head(head: bytes) -> Request:
    """Parse a request's head. Raises ValueError when it is none."""
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise ValueError(version)
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(line)
        headers[name.lower()] = value.strip()
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    path, _, query = target.partition("?")
    return Request(method, path, query, headers)


def _take_chunked(buffer: bytearray) -> tuple[bytes, int] | None:
    """Read a chunked body; returns it with its length on the wire, or None while it is incomplete."""
    body, position = bytearray(), 0
    while True:
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return None
        size = int(buffer[position:line_end].split(b";")[0], 16)
        if size < 0:
            raise ValueError("negative chunk")
        position = line_end + 2 + size + 2
        if len(buffer) < position:
            return None
        body += buffer[line_end + 2 : position - 2]
        if size == 0:
            return bytes(body), position


class Connection(asyncio.Protocol):
    """One client connection: requests one after another, pipelined ones wait for their turn."""

    def __init__(self, handle: Handle, connections: set[Connection]) -> None:
        self._handle = handle
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: Answer | None = None
        self._body = b""
        self._timer: asyncio.TimerHandle | None = None
        self._is_local = False
        self._closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._is_local = not isinstance(peer, tuple) or ipaddress.ip_address(cast(str, peer[0])).is_loopback
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._connections.discard(self)
        self._finish()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve()

    def abort(self) -> None:
        """Cut the connection at once, with a reset."""
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _take(self) -> Request | None:
        """Take the next whole request out of the buffer. Raises ValueError when it is malformed."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise ValueError("head too long")
            return None
        request = _parse_head(bytes(self._buffer[:end]))
        start = end + 4
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            taken = _take_chunked(self._buffer[start:])
            if taken is None:
                return None
            request.body, length = taken
        else:
            length = int(request.headers.get("content-length", "0"))
            if length < 0:
                raise ValueError("negative length")
            if len(self._buffer) < start + length:
                return None
            request.body = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        request.is_local = self._is_local
        return request

    def _serve(self) -> None:
        while self._answer is None and self._buffer and self._transport is not None and not self._closes:
            try:
                request = self._take()
            except ValueError:
                self._closes = True
                self._transport.write(head_of(Answer(400), close=True))
                self._transport.close()
                return
            if request is None:
                return
            self._closes = request.headers.get("connection", "").lower() == "close"
            self._answer = answer = self._handle(request)
            self._body = b"" if request.method == "HEAD" else answer.body
            if answer.delay > 0:
                self._later(answer.delay, self._deliver)
            else:
                self._deliver()

    def _later(self, seconds: float, call: Callable[..., None], *args: object) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, call, *args)

    def _deliver(self) -> None:
        answer, transport = self._answer, self._transport
        if answer is None or transport is None:
            return
        match answer.delivery:
            case "whole":
                transport.write(head_of(answer, close=self._closes) + self._body)
                self._next()
            case "hang":
                if answer.seconds > 0:
                    self._later(answer.seconds, transport.close)
            case "close":
                transport.close()
            case "drip":
                transport.write(head_of(answer, close=self._closes))
                self._drip(0)
            case "truncate" | "reset":
                cut = int(len(self._body) * answer.fraction)
                transport.write(head_of(answer, close=self._closes) + self._body[:cut])
                if answer.delivery == "truncate":
                    transport.close()
                else:  # the part must have arrived before the reset discards what is unread
                    self._later(0.02, self.abort)

    def _drip(self, sent: int) -> None:
        answer, transport = self._answer, self._transport
        if answer is None or transport is None:
            return
        if sent >= len(self._body):
            self._next()
            return
        step = max(1, -(-len(self._body) // _DRIPS))
        transport.write(self._body[sent : sent + step])
        self._later(answer.seconds / _DRIPS, self._drip, sent + step)

    def _next(self) -> None:
        self._finish()
        if self._closes and self._transport is not None:
            self._transport.close()
        elif self._buffer:
            self._serve()

    def _finish(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and answer.on_finished is not None:
            answer.on_finished()
