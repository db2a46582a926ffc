"""Bounds every wait of a transport by one instant.

Time-outs alone do not: they begin anew with each byte, so a host that sends one now and then would hold a run for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bisonsync.retry import Transient

if TYPE_CHECKING:
    import httpx


class Bound:
    """The monotonic instant after which nothing is waited for."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.until = float("inf")
        self._monotonic = monotonic

    def left(self, at_most: float | None = None) -> float:
        """The seconds left, no more than ``at_most``. Raises Transient when there are none."""
        left = self.until - self._monotonic()
        if left <= 0:
            raise Transient("no whole answer in time")
        return left if at_most is None else min(left, at_most)


def bind(transport: httpx.HTTPTransport, bound: Bound) -> None:
    """Make every connection that ``transport`` opens obey ``bound``."""
    # httpcore takes a backend of one's own; httpx has no way to hand it on.
    pool: Any = transport._pool
    pool._network_backend = _Backend(pool._network_backend, bound)


class _Backend:
    def __init__(self, backend: Any, bound: Bound) -> None:
        self._backend = backend
        self._bound = bound

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:
        stream = self._backend.connect_tcp(host, port, timeout=self._bound.left(timeout), **options)
        return _Stream(stream, self._bound)


class _Stream:
    def __init__(self, stream: Any, bound: Bound) -> None:
        self._stream = stream
        self._bound = bound
        self.close = stream.close
        self.get_extra_info = stream.get_extra_info

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=self._bound.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout=self._bound.left(timeout))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._bound.left(timeout)), self._bound)
