"""The sandbox delivers webhooks over real sockets, in the background, and stops in the middle of it."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bisonsync.sandbox import Sandbox

Answer = Callable[[int], int]


class Listener:
    """Takes deliveries; ``answer`` tells what the n-th is answered with (0: the connection is cut)."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []
        self.connections = 0
        self.answer: Answer = lambda _: 200
        self.url = ""
        self.is_closing = False
        """Closes each connection after its answer, without having said so."""
        self.closed = threading.Semaphore(0)


@contextmanager
def listening() -> Generator[Listener]:
    listener, lock = Listener(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            listener.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                listener.taken.append((self.path, json.loads(body)))
                number = len(listener.taken)
            status, is_closing = listener.answer(number), listener.is_closing
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.close_connection = is_closing

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)
            listener.closed.release()

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        listener.url = f"http://127.0.0.1:{server.server_port}/hooks/x?y=1"
        yield listener
        server.shutdown()
        thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as made:
        yield made


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workspaces=2, accounts=40, webhook_spacing=0) as running:
        yield running


def ask(sandbox: Sandbox, method: str, path: str, body: Any = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=20)
    headers = {"Authorization": f"Bearer {sandbox.super_admin_token}", "Accept": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status in (200, 201), answer
    return answer


def register(sandbox: Sandbox, url: str, *events: str) -> None:
    ask(sandbox, "POST", "/api/webhook-url", {"name": "x", "url": url, "events": list(events) or ["email_sent"]})


def statuses(sandbox: Sandbox) -> list[tuple[str, list[int | None]]]:
    rows = ask(sandbox, "GET", "/api/events")["data"]
    deliveries = [delivery for row in rows[::-1] for delivery in row["webhook_deliveries"]]
    return [(d["status"], [attempt["response_code"] for attempt in d["attempts"]]) for d in deliveries]


def test_what_happens_is_posted_to_whoever_listens(sandbox: Sandbox, listener: Listener) -> None:
    register(sandbox, listener.url, "email_sent", "email_account_disconnected")

    sandbox.make_events(count=3, type="email_sent", workspace=1)
    sandbox.make_events(type="email_account_disconnected", workspace=1)
    sandbox.settle()

    assert [path for path, _ in listener.taken] == ["/hooks/x?y=1"] * 4
    events = [body["event"] for _, body in listener.taken]
    assert [event["type"] for event in events] == ["EMAIL_SENT"] * 3 + ["EMAIL_ACCOUNT_DISCONNECTED"]
    assert {(event["instance_url"], event["workspace_id"]) for event in events} == {(sandbox.url, 1)}
    stored = [row["payload"] for row in ask(sandbox, "GET", "/api/events")["data"][::-1]]
    assert [body for _, body in listener.taken] == stored
    assert statuses(sandbox) == [("succeeded", [200])] * 4


def test_anything_but_200_is_tried_again(sandbox: Sandbox, listener: Listener) -> None:
    answers = [503, 0, 204, 200, *[500] * 5]
    listener.answer = lambda number: answers[number - 1]
    register(sandbox, listener.url)

    for _ in range(2):
        sandbox.make_events(type="email_sent", workspace=1)
        sandbox.settle()

    assert statuses(sandbox) == [("succeeded", [503, None, 204, 200]), ("failed", [500] * 5)]
    assert len(listener.taken) == 9


def test_a_listener_that_is_not_there_and_one_elsewhere_get_nothing(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    register(sandbox, f"http://127.0.0.1:{port}/x")
    register(sandbox, "http://192.0.2.1/x")

    sandbox.make_events(type="email_sent", workspace=1)
    sandbox.settle()

    assert statuses(sandbox) == [("failed", [None] * 5)] * 2
    attempts = [d["attempts"][0] for d in ask(sandbox, "GET", "/api/events")["data"][0]["webhook_deliveries"]]
    assert attempts[0]["error"].startswith("ConnectionRefusedError")
    assert attempts[1]["error"] == "not on this machine: see --deliver-anywhere"


def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_costs_no_try(
    sandbox: Sandbox, listener: Listener
) -> None:
    register(sandbox, listener.url)
    sandbox.make_events(type="email_sent", count=5, workspace=1)
    sandbox.settle()
    assert listener.connections == 1

    listener.is_closing = True
    for _ in range(3):
        sandbox.make_events(type="email_sent", workspace=1)
        sandbox.settle()
        assert listener.closed.acquire(timeout=60)

    assert listener.connections == 3
    assert statuses(sandbox) == [("succeeded", [200])] * 8


def test_answers_do_not_wait_for_deliveries_nor_does_the_end(listener: Listener) -> None:
    hanging = threading.Event()
    asked = threading.Event()

    def hang(_: int) -> int:
        asked.set()
        hanging.wait(60)
        return 200

    listener.answer = hang
    with Sandbox(workspaces=2, accounts=40, webhook_workers=2, webhook_timeout=3600) as sandbox:
        register(sandbox, listener.url)
        sandbox.make_events(type="email_sent", count=100, workspace=1)
        asked.wait(60)

        assert ask(sandbox, "GET", "/api/users")["data"]["id"] == 1
        assert sandbox.summary()["webhooks"]["deliveries_waiting"] == 100
        with pytest.raises(TimeoutError, match="100 deliveries"):
            sandbox.settle(0.01)
    hanging.set()

    assert len(listener.taken) <= 2


def test_several_are_delivered_at_once_when_asked_to(listener: Listener) -> None:
    together = threading.Barrier(3, timeout=60)

    def wait(_: int) -> int:
        together.wait()
        return 200

    listener.answer = wait
    with Sandbox(workspaces=1, accounts=20, webhook_workers=3) as sandbox:
        register(sandbox, listener.url)
        sandbox.make_events(type="email_sent", count=3)
        sandbox.settle()

    assert listener.connections == 3


def test_a_reset_in_the_middle_of_a_delivery_forgets_it(sandbox: Sandbox, listener: Listener) -> None:
    going, asked = threading.Event(), threading.Event()

    def hold(number: int) -> int:
        asked.set()
        going.wait(60)
        return 500

    listener.answer = hold
    register(sandbox, listener.url)
    sandbox.make_events(type="email_sent", count=2, workspace=1)
    asked.wait(60)

    sandbox.reset()
    going.set()
    sandbox.settle()

    assert len(listener.taken) == 1
    assert sandbox.summary()["webhooks"] == {"registered": 0, "events": 0, "deliveries_waiting": 0}
    sandbox.make_events(type="email_sent", workspace=1)
    (row,) = ask(sandbox, "GET", "/api/events")["data"]
    assert row["payload"]["event"]["instance_url"] == sandbox.url


def test_a_test_event_arrives(sandbox: Sandbox, listener: Listener) -> None:
    body = {"event_type": "lead_interested", "url": listener.url}

    payload = ask(sandbox, "POST", "/api/webhook-events/test-event", body)["data"]["payload"]
    sandbox.settle()

    assert listener.taken == [("/hooks/x?y=1", payload)]
