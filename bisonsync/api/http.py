"""The only module that knows httpx: one request, one answer, under one deadline.

Each thread has its own transport, driven below httpx's client: with many requests in flight that costs about half
the processor time of a shared client, and redirects, cookies and environment credentials cannot happen by accident.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from bisonsync.retry import Transient

if TYPE_CHECKING:
    import ssl

MAX_BODY_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


TransportFactory = Callable[[], httpx.BaseTransport]


class Http:
    """Sends requests to one origin; safe to call from many threads.

    ``base_url`` has no trailing slash. Raises Transient for everything that went wrong on the way.
    """

    def __init__(
        self,
        base_url: str,
        *,
        user_agent: str,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        transport_factory: TransportFactory | None = None,
        monotonic: Callable[[], float],
    ) -> None:
        self.base_url = base_url
        self._user_agent = user_agent
        self._connect_timeout = connect_timeout_seconds
        self._read_timeout = read_timeout_seconds
        self._monotonic = monotonic
        self._factory = transport_factory or self._real_transport
        self._local = threading.local()
        self._lock = threading.Lock()
        self._ssl_context: ssl.SSLContext | None = None
        self._opened: list[httpx.BaseTransport] = []

    def send(
        self, method: str, path: str, *, token: str, body: bytes | None = None, give_up_at: float | None = None
    ) -> Answer:
        """One exchange. ``give_up_at`` is a monotonic instant after which no more bytes are waited for."""
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {token}",
            "User-Agent": self._user_agent,
            "Accept-Encoding": "gzip",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return self._exchange(method, path, headers, body, give_up_at)
        except httpx.TimeoutException as error:
            raise Transient(f"no answer in time ({type(error).__name__})") from error
        except httpx.TransportError as error:
            raise Transient(f"connection failed: {_reason(error)}") from error
        except httpx.DecodingError as error:
            raise Transient(f"the answer could not be decompressed: {_reason(error)}") from error

    def close(self) -> None:
        """Close every thread's connections."""
        with self._lock:
            opened, self._opened = self._opened, []
        for transport in opened:
            transport.close()
        self._local = threading.local()

    def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, give_up_at: float | None
    ) -> Answer:
        left = float("inf") if give_up_at is None else give_up_at - self._monotonic()
        if left <= 0:
            raise httpx.PoolTimeout("no time left")
        timeout = {
            "connect": min(self._connect_timeout, left),
            "read": min(self._read_timeout, left),
            "write": min(self._read_timeout, left),
            "pool": min(self._connect_timeout, left),
        }
        request = httpx.Request(
            method, self.base_url + path, headers=headers, content=body, extensions={"timeout": timeout}
        )
        until = min(self._monotonic() + self._read_timeout * 2, give_up_at if give_up_at is not None else float("inf"))
        response = self._transport().handle_request(request)
        # Content decoding (gzip) needs the request attached, as httpx's client does.
        response.request = request
        try:
            chunks: list[bytes] = []
            size = 0
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise Transient(f"the answer is larger than {MAX_BODY_BYTES} bytes")
                if self._monotonic() > until:
                    raise httpx.ReadTimeout("the answer trickles in too slowly")
        finally:
            response.close()
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, b"".join(chunks))

    def _transport(self) -> httpx.BaseTransport:
        transport: httpx.BaseTransport | None = getattr(self._local, "transport", None)
        if transport is None:
            transport = self._factory()
            self._local.transport = transport
            with self._lock:
                self._opened.append(transport)
        return transport

    def _real_transport(self) -> httpx.BaseTransport:
        with self._lock:
            if self._ssl_context is None and self.base_url.startswith("https:"):
                self._ssl_context = httpx.create_ssl_context()
        return httpx.HTTPTransport(
            verify=self._ssl_context if self._ssl_context is not None else False, proxy=_proxy_for(self.base_url)
        )


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this URL (HTTPS_PROXY, NO_PROXY …), by the standard library's rules."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return None if not proxy or proxy_bypass(parts.hostname or "") else proxy


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text or type(error).__name__
