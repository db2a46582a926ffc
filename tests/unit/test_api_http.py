"""One exchange with a host of sockets: time, size, damage, proxies, connections."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable

import httpx
import pytest
from conversation import EMPTY_LIST, HOST, TOKEN, HandClock, always, host, read_request, response

from bisonsync.api import http
from bisonsync.api.http import Answer, Http, proxy_for
from bisonsync.errors import ConfigError
from bisonsync.retry import Transient

OK = response(EMPTY_LIST)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def http_of(url: str, clock: HandClock | None = None, *, read_timeout_seconds: float = 30.0) -> Http:
    return Http(
        url,
        user_agent="bisonsync/test",
        connect_timeout_seconds=5.0,
        read_timeout_seconds=read_timeout_seconds,
        monotonic=(clock or HandClock()).monotonic,
    )


def get(url: str, clock: HandClock | None = None, *, give_up_at: float = 900.0, **options: float) -> Answer:
    asking = http_of(url, clock, **options)
    try:
        return asking.send("GET", "/api/sender-emails?page=1", token=TOKEN, give_up_at=give_up_at)
    finally:
        asking.close()


def fault_of(url: str, clock: HandClock | None = None, **options: float) -> Transient:
    with pytest.raises(Transient) as caught:
        get(url, clock, **options)
    assert TOKEN.partition("|")[2] not in str(caught.value)
    return caught.value


def test_gives_status_headers_and_body():
    with host(always(response(b"{}", "422 Unprocessable", retry_after="8"))) as url:
        answer = get(url)

    assert (answer.status, answer.body) == (422, b"{}")
    assert answer.headers["Retry-After"] == answer.headers["retry-after"] == "8"


def test_asks_for_json_with_the_token_and_without_cookies():
    requests: list[bytes] = []

    def remember(connection: socket.socket) -> None:
        while request := read_request(connection):
            requests.append(request)
            connection.sendall(response(EMPTY_LIST, set_cookie="session=1; path=/"))

    with host(remember) as url:
        asking = http_of(url)
        asking.send("GET", "/api/users", token=TOKEN, give_up_at=900.0)
        asking.send("GET", "/api/users?page=2", token=TOKEN, give_up_at=900.0)
        asking.close()

    lines = requests[1].decode().lower().split("\r\n")
    assert lines[0] == "get /api/users?page=2 http/1.1"
    assert {"accept: application/json", f"authorization: bearer {TOKEN}", "user-agent: bisonsync/test"} < set(lines)
    assert not [line for line in lines if line.startswith(("cookie", "content-type"))]


def test_a_body_is_sent_as_json():
    requests: list[bytes] = []

    def remember(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        connection.sendall(OK)

    with host(remember) as url:
        http_of(url).send("POST", "/api/x", token=TOKEN, body=b'{"team_id": 5}', give_up_at=900.0)

    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    assert body == b'{"team_id": 5}'


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_answer_is_unpacked(encoding: str, pack: Callable[[bytes], bytes]):
    with host(always(response(pack(EMPTY_LIST), content_encoding=encoding))) as url:
        assert get(url).body == EMPTY_LIST


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (gzip.compress(EMPTY_LIST, mtime=0)[:-9], "gzip", "the compressed answer ends early"),
        (EMPTY_LIST, "gzip", "could not be decompressed"),
        (b"", "gzip", "the compressed answer ends early"),
        (EMPTY_LIST, "br", "compressed as br"),
        (gzip.compress(b"0" * 5000, mtime=0), "gzip", "larger than 4000 bytes"),
        (b"0" * 5000, "identity", "larger than 4000 bytes"),
    ],
)
def test_a_damaged_or_oversized_answer_may_pass(
    body: bytes, encoding: str, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 4000)

    with host(always(response(body, content_encoding=encoding))) as url:
        assert reason in fault_of(url).reason


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100_000)
    bomb = gzip.compress(bytes(50_000_000), mtime=0)

    with host(always(response(bomb, content_encoding="gzip"))) as url:
        tracemalloc.start()
        try:
            assert "larger than" in fault_of(url).reason
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100_000)
    hung_up = threading.Event()

    def pour(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                connection.sendall(b" " * 65536)
        except OSError:
            hung_up.set()

    with host(pour) as url:
        assert "larger than" in fault_of(url).reason
        assert hung_up.wait(30)


def cut(connection: socket.socket) -> None:
    """Reset the connection, so that what was sent is lost too."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("sent", [b"", OK[:20], OK[:-10]], ids=["nothing", "half a header", "half a body"])
@pytest.mark.parametrize("is_reset", [False, True])
def test_an_answer_that_ends_early_may_pass(sent: bytes, is_reset: bool):
    def break_off(connection: socket.socket) -> None:
        read_request(connection)
        if is_reset:
            cut(connection)
        connection.sendall(sent)

    with host(break_off) as url:
        fault = fault_of(url)

    assert fault.reason.startswith(f"the connection to {url.removeprefix('http://')} failed: ")
    assert fault.was_sent


@pytest.mark.parametrize(
    "greeting", [b"SSH-2.0-server 12|abcdefghijklmnopqrstuvwxyz\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"]
)
def test_what_does_not_speak_http_may_pass(greeting: bytes):
    with host(lambda connection: connection.sendall(greeting)) as url:
        fault_of(url)


def test_a_refused_connection_was_not_sent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    fault = fault_of(f"http://127.0.0.1:{port}")

    assert fault.reason.startswith(f"no connection to 127.0.0.1:{port}: ")
    assert "Connection refused" in fault.reason
    assert not fault.was_sent


@pytest.mark.parametrize(
    ("url", "proxy", "address"),
    [
        ("https://send.example.com/api", "", "send.example.com:443"),
        ("http://user:hidden@send.example.com:8080/hidden", "", "send.example.com:8080"),
        ("http://[2001:db8::1]", "", "[2001:db8::1]:80"),
        (
            "https://send.example.com",
            "http://user:hidden@proxy.example.com:3128",
            "send.example.com:443 through the proxy at proxy.example.com:3128",
        ),
        (
            "https://send.example.com",
            "proxy.example.com",
            "send.example.com:443 through the proxy at proxy.example.com:80",
        ),
    ],
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("[Errno -2] Name or service not known"), "no connection to {}: [Errno -2] Name or"),
        (httpx.ConnectTimeout("x"), "no connection to {} in time"),
        (httpx.ProxyError("407 Proxy Authentication Required"), "no connection to {}: 407 Proxy"),
        (httpx.ReadTimeout("x"), "no answer from {} in time"),
        (httpx.ReadError("[Errno 104] Connection reset by peer"), "the connection to {} failed: [Errno 104]"),
    ],
)
def test_an_error_names_the_address_that_was_tried_and_no_more_of_it(
    url: str, proxy: str, address: str, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("all_proxy", proxy)
    asking = http_of(url)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", fail)
    with pytest.raises(Transient) as caught:
        asking.send("GET", "/", token=TOKEN, give_up_at=900.0)
    asking.close()

    assert caught.value.reason.startswith(reason.format(address))
    assert "hidden" not in caught.value.reason


@pytest.mark.parametrize("error", [httpx.ConnectTimeout("x"), httpx.PoolTimeout("x")])
def test_a_connection_that_never_came_was_not_sent(error: Exception):
    fault = fault_with(error)

    assert fault.reason == f"no connection to {HOST.removeprefix('https://')}:443 in time"
    assert not fault.was_sent


def test_the_library_may_not_quote_the_header_it_stumbles_over():
    fault = fault_with(httpx.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}'"))

    assert fault.reason == "the request cannot be sent"


def fault_with(error: Exception) -> Transient:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    asking = Http(
        HOST,
        user_agent="x",
        connect_timeout_seconds=5.0,
        read_timeout_seconds=30.0,
        transport_factory=lambda: httpx.MockTransport(fail),
        monotonic=HandClock().monotonic,
    )
    with pytest.raises(Transient) as caught:
        asking.send("GET", "/", token=TOKEN, give_up_at=900.0)
    return caught.value


def silent(connection: socket.socket) -> None:
    """Take a request and say nothing until the client hangs up."""
    read_request(connection)
    connection.recv(1)


def test_a_silent_host_is_given_up_after_the_read_timeout():
    with host(silent) as url:
        fault = fault_of(url, read_timeout_seconds=0.02)

    assert fault.reason == f"no answer from {url.removeprefix('http://')} in time"
    assert fault.was_sent


def test_a_silent_host_is_given_up_at_the_deadline():
    with host(silent) as url:
        assert fault_of(url, give_up_at=0.02).reason == f"no answer from {url.removeprefix('http://')} in time"


def test_nothing_is_sent_after_the_deadline():
    clock = HandClock()
    clock.pass_time(10)

    with host(always(OK)) as url:
        fault = fault_of(url, clock, give_up_at=10)

    assert fault.reason == "no whole answer in time"


LONG = response(b"", content_length="100000")


@pytest.mark.parametrize("head", [LONG[:20], LONG], ids=["header", "body"])
@pytest.mark.parametrize(("give_up_at", "read_timeout_seconds"), [(100.0, 1000.0), (1e9, 50.0)])
def test_an_answer_that_trickles_in_ends_with_its_time(head: bytes, give_up_at: float, read_timeout_seconds: float):
    clock = HandClock()
    hung_up = threading.Event()

    def trickle(connection: socket.socket) -> None:
        read_request(connection)
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
            for _ in range(200):
                clock.pass_time(1)
                connection.sendall(b" ")
            connection.recv(1)
        hung_up.set()

    with host(trickle) as url:
        fault = fault_of(url, clock, give_up_at=give_up_at, read_timeout_seconds=read_timeout_seconds)
        assert hung_up.wait(30)

    assert fault.reason == "no whole answer in time"
    assert clock.monotonic() >= 100


def test_a_connection_is_used_again():
    connections: list[int] = []

    def count(connection: socket.socket) -> None:
        connections.append(1)
        always(OK)(connection)

    with host(count) as url:
        asking = http_of(url)
        for _ in range(5):
            asking.send("GET", "/api/users", token=TOKEN, give_up_at=900.0)
        asking.close()

    assert len(connections) == 1


def test_a_kept_connection_that_the_host_has_closed_is_not_used_again():
    closed = threading.Event()

    def answer_once(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)
        connection.close()
        closed.set()

    with host(answer_once) as url:
        asking = http_of(url)
        for _ in range(5):
            closed.clear()
            assert asking.send("GET", "/api/users", token=TOKEN, give_up_at=900.0).status == 200
            assert closed.wait(30)
        asking.close()


def test_what_is_sent_once_gets_a_connection_of_its_own():
    asked: list[list[str]] = []

    def note(connection: socket.socket) -> None:
        methods: list[str] = []
        asked.append(methods)
        while request := read_request(connection):
            methods.append(request.decode().split(" ")[0])
            connection.sendall(OK)

    with host(note) as url:
        asking = http_of(url)
        for method in ("GET", "POST", "GET", "POST"):
            asking.send(method, "/api/x", token=TOKEN, body=b"{}" if method == "POST" else None, give_up_at=900.0)
        asking.close()

    assert sorted(asked) == [["GET", "GET"], ["POST"], ["POST"]]


def test_each_thread_has_a_connection_of_its_own_and_close_ends_them_all():
    together = threading.Barrier(4)
    open_now: set[int] = set()
    most: list[int] = []

    def count(connection: socket.socket) -> None:
        open_now.add(id(connection))
        always(OK)(connection)
        open_now.discard(id(connection))

    with host(count) as url:
        asking = http_of(url)

        def work() -> None:
            for _ in range(3):
                asking.send("GET", "/api/users", token=TOKEN, give_up_at=900.0)
            together.wait(30)
            together.wait(30)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        together.wait(30)
        most.append(len(open_now))
        asking.close()
        together.wait(30)
        for thread in threads:
            thread.join()

    assert most == [3]
    assert not open_now


def test_after_close_it_can_ask_again():
    with host(always(OK)) as url:
        asking = http_of(url)
        asking.send("GET", "/api/users", token=TOKEN, give_up_at=900.0)
        asking.close()

        assert asking.send("GET", "/api/users", token=TOKEN, give_up_at=900.0).status == 200

        asking.close()


def test_a_redirect_is_not_followed():
    with host(always(response(b"", "302 Found", location="/elsewhere")), always(OK)) as url:
        assert get(url).status == 302


def test_all_threads_share_one_tls_context(monkeypatch: pytest.MonkeyPatch):
    contexts: list[ssl.SSLContext] = []

    def create() -> ssl.SSLContext:
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return contexts[-1]

    monkeypatch.setattr(httpx, "create_ssl_context", create)
    with host(lambda connection: None) as url:
        asking = http_of(url.replace("http:", "https:"))

        def ask() -> None:
            with pytest.raises(Transient):
                asking.send("GET", "/", token=TOKEN, give_up_at=900.0)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asking.close()

    assert len(contexts) == 1


def test_a_host_without_tls_is_no_connection():
    with host(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        fault = fault_of(url.replace("http:", "https:"))

    assert not fault.was_sent


def test_certificates_that_cannot_be_read_are_a_matter_of_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")

    with pytest.raises(ConfigError, match="certificates to trust cannot be read"):
        get("https://send.example.com")


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://send.example.com", None),
        ({"https_proxy": "http://proxy.example.com:3128"}, "https://send.example.com", "http://proxy.example.com:3128"),
        ({"https_proxy": "proxy.example.com:3128"}, "https://send.example.com", "http://proxy.example.com:3128"),
        ({"HTTPS_PROXY": "http://proxy.example.com"}, "https://send.example.com", "http://proxy.example.com"),
        ({"all_proxy": "http://proxy.example.com"}, "https://send.example.com", "http://proxy.example.com"),
        ({"http_proxy": "http://proxy.example.com"}, "https://send.example.com", None),
        ({"https_proxy": "http://p.example.com", "no_proxy": "example.com"}, "https://send.example.com", None),
        (
            {"https_proxy": "http://p.example.com", "no_proxy": "send.example.com:8443"},
            "https://send.example.com:8443",
            None,
        ),
        ({"https_proxy": "http://p.example.com", "no_proxy": "*"}, "https://send.example.com", None),
        ({"all_proxy": "http://p.example.com"}, "http://127.0.0.1:8080", None),
        ({"all_proxy": "http://p.example.com"}, "http://[::1]:8080", None),
        ({"all_proxy": "http://p.example.com"}, "http://localhost:8080", None),
    ],
)
def test_the_environments_proxy(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert proxy_for(url) == proxy


def test_a_proxy_is_used_for_a_host_elsewhere(monkeypatch: pytest.MonkeyPatch):
    requests: list[bytes] = []

    def remember(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        connection.sendall(response(b"", "407 Proxy Authentication Required"))

    with host(remember) as url:
        monkeypatch.setenv("https_proxy", url)
        fault = fault_of("https://send.example.com")

    assert requests[0].startswith(b"CONNECT send.example.com:443 ")
    assert TOKEN.encode() not in requests[0]
    assert "407" in fault.reason
    assert not fault.was_sent


@pytest.mark.parametrize(
    "proxy", ["ftp://user:hidden@p.example.com", "socks5://user:hidden@p.example.com", "http://user:hidden@p:port"]
)
def test_a_proxy_that_cannot_be_used_is_a_matter_of_settings(proxy: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", proxy)

    with pytest.raises(ConfigError, match="proxy that the environment names") as caught:
        get("https://send.example.com")

    assert "hidden" not in f"{caught.value}{caught.value.hint}"


def test_the_answer_of_a_get_with_a_body_of_many_chunks_is_whole():
    rows = json.dumps({"data": list(range(50_000))}).encode()

    with host(always(response(rows))) as url:
        assert get(url).body == rows
