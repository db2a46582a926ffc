"""The sandbox over real sockets: keep-alive, answers that are late, cut or missing, its own process."""

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from bisonsync.sandbox import Config, Sandbox
from bisonsync.sandbox.listener import Listener

LIST = "/api/sender-emails"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Config(workspaces=3, accounts=90, skew=(60, 20))) as running:
        yield running


def connect(sandbox: Sandbox) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=20)


def ask(
    connection: http.client.HTTPConnection, path: str, token: str, method: str = "GET", body: Any = None
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def raw(sandbox: Sandbox, *requests: bytes) -> socket.socket:
    """Open a connection and send bytes."""
    sock = socket.create_connection(("127.0.0.1", sandbox.port), timeout=20)
    for request in requests:
        sock.sendall(request)
    return sock


def head(path: str, token: str, *, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{more}\r\n".encode()


def read_all(sock: socket.socket) -> bytes:
    with sock:
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_one_connection_serves_a_whole_walk(sandbox: Sandbox) -> None:
    token, connection = sandbox.mint(1), connect(sandbox)

    pages = [ask(connection, f"{LIST}?page={n}", token)[1] for n in (1, 2, 3, 4)]
    connection.close()

    assert [row for page in pages for row in page["data"]] == sandbox.truth()[1]
    assert sandbox.summary()["requests"]["by_path"] == {LIST: {"200": 4}}


@pytest.mark.parametrize("latency", [0.0, 0.02])
def test_pipelined_requests_are_answered_in_order_also_when_they_come_in_pieces(
    sandbox: Sandbox, latency: float
) -> None:
    token = sandbox.mint(2)
    sandbox.set_moods(latency=latency)
    stream = head(LIST, token) + head("/api/users", token) + head("/api/tags", token, more="Connection: close\r\n")

    sock = raw(sandbox, *(stream[i : i + 7] for i in range(0, len(stream), 7)))
    answers = read_all(sock).split(b"HTTP/1.1 200 OK\r\n")[1:]

    bodies = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert [type(body["data"]) for body in bodies] == [list, dict, list]
    assert b"Connection: keep-alive" in answers[0]
    assert b"Connection: close" in answers[2]


def test_a_chunked_body_is_read(sandbox: Sandbox) -> None:
    chunks = b'8\r\n{"name":\r\n8;x=y\r\n "sync"}\r\n0\r\n\r\n'
    request = head(
        "/api/workspaces/v1.1/2/api-tokens",
        sandbox.super_admin_token,
        method="POST",
        more="Transfer-Encoding: chunked\r\nConnection: close\r\n",
    )

    answer = read_all(raw(sandbox, request, chunks[:11], chunks[11:]))

    assert b'"name":"sync"' in answer


@pytest.mark.parametrize(
    "rubbish",
    [
        b"hello\r\n\r\n",
        b"GET / SPDY/1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_what_is_no_http_gets_400(sandbox: Sandbox, rubbish: bytes) -> None:
    assert read_all(raw(sandbox, rubbish)).startswith(b"HTTP/1.1 400 ")


def test_head_has_the_length_and_no_body(sandbox: Sandbox) -> None:
    token = sandbox.mint(2)
    connection = connect(sandbox)
    connection.request("HEAD", LIST, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()

    assert int(response.headers["Content-Length"]) > 1000
    assert response.read() == b""
    assert ask(connection, "/api/users", token)[0] == 200
    connection.close()


def test_an_old_client_is_answered_and_left(sandbox: Sandbox) -> None:
    answer = read_all(raw(sandbox, b"GET /api/none HTTP/1.0\r\nAccept: application/json\r\n\r\n"))

    assert answer.endswith(b'{"message":"The route api/none could not be found."}')


def test_many_delayed_requests_are_in_flight_at_once_and_delay_nobody_else(sandbox: Sandbox) -> None:
    sandbox.set_moods(workspace_latency={1: 3600.0})
    slow, fast = sandbox.mint(1), sandbox.mint(2)

    waiting = [raw(sandbox, head(f"{LIST}?page={n}", slow)) for n in range(200)]
    connection = connect(sandbox)
    while sandbox.summary()["requests"]["in_flight"] < 200:
        assert ask(connection, LIST, fast)[0] == 200
    for sock in waiting:
        sock.close()
    while sandbox.summary()["requests"]["in_flight"]:
        assert ask(connection, LIST, fast)[0] == 200
    connection.close()

    assert sandbox.summary()["workspaces"][0]["requests"]["max_in_flight"] == 200


def test_a_short_delay_ends(sandbox: Sandbox) -> None:
    sandbox.set_moods(latency=0.01, jitter=0.01)
    connection = connect(sandbox)

    assert [ask(connection, LIST, sandbox.mint(1))[0] for _ in range(3)] == [200, 200, 200]
    connection.close()


def test_a_truncated_body_ends_early(sandbox: Sandbox) -> None:
    sandbox.add_fault("truncate", fraction=0.5, times=1)
    token, connection = sandbox.mint(1), connect(sandbox)

    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(connection, LIST, token)
    connection.close()

    assert abs(len(caught.value.partial) - (caught.value.expected or 0)) <= 1
    assert ask(connection, LIST, token)[0] == 200
    connection.close()


def test_a_reset_comes_in_mid_body(sandbox: Sandbox) -> None:
    sandbox.add_fault("reset", times=1)
    sock = raw(sandbox, head(LIST, sandbox.mint(1)))

    start = sock.recv(100_000)
    with pytest.raises(ConnectionResetError):
        while sock.recv(100_000):
            pass
    sock.close()

    assert start.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_connection_is_closed_without_an_answer(sandbox: Sandbox) -> None:
    sandbox.add_fault("close", times=1)
    connection = connect(sandbox)

    with pytest.raises(http.client.RemoteDisconnected):
        ask(connection, LIST, sandbox.mint(1))
    connection.close()


def test_a_hanging_answer_never_comes_or_the_connection_ends_without_it(sandbox: Sandbox) -> None:
    token = sandbox.mint(1)
    sandbox.add_fault("hang", times=1)
    sandbox.add_fault("hang", after=1, seconds=0.01)

    hanging = raw(sandbox, head(LIST, token))
    ended = read_all(raw(sandbox, head(LIST, token)))

    assert ended == b""
    hanging.setblocking(False)
    with pytest.raises(BlockingIOError):
        hanging.recv(1)
    hanging.close()


def test_a_dripping_body_arrives_whole_in_pieces(sandbox: Sandbox) -> None:
    sandbox.add_fault("drip", seconds=0.02, times=1)
    token, connection = sandbox.mint(2), connect(sandbox)

    assert ask(connection, LIST, token)[1]["data"] == sandbox.truth()[2][:15]
    assert ask(connection, LIST, token)[0] == 200
    connection.close()


def test_connections_are_refused_while_asked_and_accepted_again_on_the_same_port(sandbox: Sandbox) -> None:
    port, token = sandbox.port, sandbox.mint(1)
    kept = connect(sandbox)
    assert ask(kept, LIST, token)[0] == 200

    with sandbox.refusing():
        with pytest.raises(ConnectionRefusedError):
            connect(sandbox).connect()
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            ask(kept, LIST, token)
    kept.close()

    assert sandbox.port == port
    assert ask(kept, LIST, token)[0] == 200
    kept.close()


def test_a_connection_that_arrives_while_the_port_closes_is_cut(sandbox: Sandbox) -> None:
    async def close_while_arriving() -> socket.socket:
        listener = Listener(sandbox.app.handle, "127.0.0.1", 0)
        listener.open()
        sock = socket.create_connection(("127.0.0.1", listener.port), timeout=20)
        listener._accept()
        await listener.stop()
        return sock

    with asyncio.run(close_while_arriving()) as sock, pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_connections_are_refused_for_a_while_by_control(sandbox: Sandbox) -> None:
    connection = connect(sandbox)
    assert ask(connection, "/_sandbox/refuse", "", "POST", {"seconds": 0.05}) == (200, {"seconds": 0.05})

    answers: list[str] = []
    while answers[-2:] != ["refused", "served"]:
        connection.close()
        try:
            ask(connection, "/_sandbox/state", "")
            answers.append("served")
        except OSError:
            answers.append("refused")
    connection.close()


def test_control_works_over_the_wire_and_by_python_alike(sandbox: Sandbox) -> None:
    connection = connect(sandbox)
    sandbox.change(percent=10)
    sandbox.advance(minutes=30)

    status, truth = ask(connection, "/_sandbox/accounts", "")

    assert (status, truth) == (200, json.loads(json.dumps({str(w): rows for w, rows in sandbox.truth().items()})))
    sandbox.reset()
    assert ask(connection, "/_sandbox/accounts", "")[1] != truth
    connection.close()


def test_stopping_cuts_connections_and_frees_the_port() -> None:
    sandbox = Sandbox(workspaces=1, accounts=1).start()
    sandbox.add_fault("hang")
    sock = raw(sandbox, head(LIST, sandbox.mint(1)))
    while not sandbox.summary()["requests"]["in_flight"]:
        pass

    sandbox.stop()
    sandbox.stop()

    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    sock.close()
    with Sandbox(workspaces=1, accounts=1, port=sandbox.port) as again:
        assert again.port == sandbox.port


def test_a_port_that_is_taken_is_an_error_at_once(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="in use"):
        Sandbox(workspaces=1, accounts=1, port=sandbox.port).start()


@pytest.mark.parametrize(
    ("number", "more", "years"),
    [
        (signal.SIGTERM, [], range(2026, 9999)),
        (signal.SIGINT, ["--start", "2021-03-04T05:00"], [2021]),
        (signal.SIGTERM, ["--start", "2021-03-04T05:00", "--clock", "real"], range(2026, 9999)),
    ],
)
def test_its_own_process_says_when_it_is_ready_and_ends_cleanly(
    number: signal.Signals, more: list[str], years: Collection[int]
) -> None:
    command = [sys.executable, "-m", "bisonsync.sandbox", "--mint", *["--workspaces", "2", "--accounts", "20"], *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        connection = http.client.HTTPConnection(ready["url"].removeprefix("http://"), timeout=20)
        answers = [ask(connection, "/api/users", token) for token in ready["tokens"].values()]
        now = ask(connection, "/_sandbox/state", "")[1]["now"]
        connection.close()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)

    assert [answer["data"]["team"]["id"] for _, answer in answers] == [1, 2]
    assert ready["super_admin_token"] == Config().super_admin_token
    assert (process.returncode, rest, errors) == (0, "", "")
    assert int(now[:4]) in years
    assert not now.startswith("2026-01-05T09"), "it stands still"


def test_a_wrong_flag_is_a_usage_error() -> None:
    command = [sys.executable, "-m", "bisonsync.sandbox", "--workspaces", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)

    assert done.returncode == 2
    assert "at least one workspace" in done.stderr
