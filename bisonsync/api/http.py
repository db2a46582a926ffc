"""The only module that asks through httpx: one request, one answer, under one deadline.

Each thread has its own transport, driven below httpx's client: with many requests in flight that costs about half
the processor time of a shared client, and redirects, cookies and environment credentials cannot happen by accident.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from bisonsync.api.bounds import Bound, bind
from bisonsync.api.quoting import quote
from bisonsync.errors import ConfigError
from bisonsync.retry import Transient

if TYPE_CHECKING:
    import ssl

MAX_BODY_BYTES = 64 * 2**20
# The read time-out bounds one silence; a whole answer may take so many of them.
READ_TIMEOUTS_PER_ANSWER = 2
URLS_KEPT = 1024

TransportFactory = Callable[[], httpx.BaseTransport]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole. Header names are found in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """Sends requests to one origin; safe to call from many threads.

    ``base_url`` has no trailing slash. Raises Transient for everything that went wrong on the way, ConfigError when
    the certificates or the proxy that the environment names cannot be used. Of both addresses errors name host and
    port alone: the rest may be a secret.
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
        self._factory = transport_factory
        # Workspaces share their page numbers, and parsing a URL is a tenth of a request's cost.
        self._url = lru_cache(URLS_KEPT)(self._parse_url)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._ssl_context: ssl.SSLContext | None = None
        self._opened: list[httpx.BaseTransport] = []

    def send(self, method: str, path: str, *, token: str, give_up_at: float, body: bytes | None = None) -> Answer:
        """One exchange. ``give_up_at`` is a monotonic instant after which no more bytes are waited for.

        An empty ``token`` is not sent.
        """
        headers = {
            "Accept": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
            "User-Agent": self._user_agent,
            "Accept-Encoding": "gzip",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            if method == "GET":
                return self._exchange(self._kept_transport(), method, path, headers, body, give_up_at)
            # A kept connection may be closed by the server just now; what is sent only once shall not meet that.
            transport = self._open()
            with transport[0]:
                return self._exchange(transport, method, path, headers, body, give_up_at)
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Transient(f"no connection to {self._address()} in time", was_sent=False) from error
        except httpx.TimeoutException as error:
            raise Transient(f"no answer from {self._address()} in time") from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            reason = f"no connection to {self._address()}: {_reason(error, token)}"
            raise Transient(reason, was_sent=False) from error
        except httpx.LocalProtocolError as error:
            # Its text quotes the header it stumbles over.
            raise Transient("the request cannot be sent", was_sent=False) from error
        except httpx.TransportError as error:
            raise Transient(f"the connection to {self._address()} failed: {_reason(error, token)}") from error

    def _address(self) -> str:
        proxy = None if self._factory is not None else proxy_for(self.base_url)
        through = f" through the proxy at {_host_and_port(proxy)}" if proxy else ""
        return _host_and_port(self.base_url) + through

    def close(self) -> None:
        """Close every thread's connections."""
        with self._lock:
            opened, self._opened = self._opened, []
            self._local = threading.local()
        for transport in opened:
            transport.close()

    def _exchange(
        self,
        opened: tuple[httpx.BaseTransport, Bound],
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        give_up_at: float,
    ) -> Answer:
        transport, bound = opened
        bound.until = min(give_up_at, self._monotonic() + self._read_timeout * READ_TIMEOUTS_PER_ANSWER)
        connect, read = bound.left(self._connect_timeout), bound.left(self._read_timeout)
        timeout = {"connect": connect, "read": read, "write": read, "pool": connect}
        request = httpx.Request(method, self._url(path), headers=headers, content=body, extensions={"timeout": timeout})
        response = transport.handle_request(request)
        try:
            # httpx's own decoding would hold a bomb whole before its size could be seen.
            raw = _read_whole(cast("Iterable[bytes]", response.stream))
        finally:
            response.close()
        return Answer(response.status_code, response.headers, _decoded(raw, response.headers))

    def _parse_url(self, path: str) -> httpx.URL:
        return httpx.URL(self.base_url + path)

    def _kept_transport(self) -> tuple[httpx.BaseTransport, Bound]:
        opened: tuple[httpx.BaseTransport, Bound] | None = getattr(self._local, "opened", None)
        if opened is None:
            opened = self._local.opened = self._open()
            with self._lock:
                self._opened.append(opened[0])
        return opened

    def _open(self) -> tuple[httpx.BaseTransport, Bound]:
        bound = Bound(self._monotonic)
        if self._factory is not None:
            return self._factory(), bound
        proxy = proxy_for(self.base_url)
        try:
            transport = httpx.HTTPTransport(verify=self._verify(), proxy=proxy)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            # Not its text: the URL may hold a password.
            raise ConfigError(
                f"the proxy that the environment names for {self.base_url} cannot be used",
                hint="set HTTPS_PROXY to http://HOST:PORT, or name the host in NO_PROXY",
            ) from error
        bind(transport, bound)
        return transport, bound

    def _verify(self) -> ssl.SSLContext | bool:
        """One context for all threads: loading the certificates costs more than many requests."""
        if not self.base_url.startswith("https:"):
            return False
        with self._lock:
            if self._ssl_context is None:
                try:
                    self._ssl_context = httpx.create_ssl_context()
                except OSError as error:
                    raise ConfigError(
                        f"the certificates to trust cannot be read: {quote(str(error))}",
                        hint="set SSL_CERT_FILE or SSL_CERT_DIR to a file or folder that exists, or unset it",
                    ) from error
            return self._ssl_context


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this URL (HTTPS_PROXY, NO_PROXY …); never one for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _host_and_port(url: str) -> str:
    """What a connection is made to, and no more of a URL than that."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        port = 0
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if port else host


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _read_whole(chunks: Iterable[bytes]) -> bytes:
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decoded(body: bytes, headers: Mapping[str, str]) -> bytes:
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Transient(f"the answer is compressed as {quote(encoding)}, which was not asked for")
    # 32 + 15: gzip or zlib, whichever the first bytes say.
    unpacker = zlib.decompressobj(47)
    try:
        plain = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise Transient("the answer could not be decompressed") from error
    if len(plain) > MAX_BODY_BYTES:
        raise _too_large()
    if not unpacker.eof:
        raise Transient("the compressed answer ends early")
    return plain


def _too_large() -> Transient:
    return Transient(f"the answer is larger than {MAX_BODY_BYTES} bytes")


def _reason(error: Exception, token: str) -> str:
    return quote(str(error), secret=token) or type(error).__name__
