"""Starts the real receiver in a process of its own, speaks to it over loopback, and reads what it left."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import cli
import psycopg

from bisonsync.clock import SystemClock
from bisonsync.receiver.lines import Lines
from bisonsync.receiver.server import Plan, Server
from bisonsync.store.db import Database

Connection = psycopg.Connection[Any]

INSTANCE_URL = "https://sim.example.com"
INSTANCES = {"BISONSYNC_INSTANCES__SIM__BASE_URL": INSTANCE_URL, "BISONSYNC_INSTANCES__SIM__API_KEY": "unused"}
WORKSPACES = (1, 2, 3)
# What happened long ago is not counted.
_RECENT = datetime.now(UTC) - timedelta(minutes=10)


@dataclass(frozen=True)
class Answer:
    """What the receiver answered."""

    status: int
    text: str
    headers: Mapping[str, str]


@dataclass
class Receiver:
    """A running receiver and everything it said so far."""

    process: subprocess.Popen[str]
    port: int
    said: list[str] = field(default_factory=list[str])
    is_hushed: bool = False

    def post(self, secret: str, body: bytes | Iterable[bytes], *, test: bool = False, **headers: str) -> Answer:
        """Deliver on a connection of its own; an iterable is sent in chunks without a length."""
        return self.ask("POST", f"/hooks/{secret}{'/test' if test else ''}", body, **headers)

    def ask(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, **headers: str) -> Answer:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=cli.PATIENCE)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named, encode_chunked=not isinstance(body, bytes | None))
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(), dict(answer.getheaders()))

    def hush(self) -> None:
        """Read no more of what it says."""
        self.is_hushed = True

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=cli.PATIENCE)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and wait; its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        self.process.wait(cli.PATIENCE)
        return self.process.returncode

    @property
    def log(self) -> str:
        return "".join(self.said)


@contextlib.contextmanager
def receiver(dsn: str, *options: str, **settings: str) -> Generator[Receiver]:
    """A receiver that listens; killed in the end if it still runs."""
    process = cli.start_cli(
        ["receive-webhooks", "--port", "0", *options], cli.environment(dsn, **(INSTANCES | settings))
    )
    running = Receiver(process, 0)
    heard = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            running.said.append(line)
            if running.is_hushed:
                return
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                running.port = int(found[1])
                heard.set()
        heard.set()

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        assert heard.wait(cli.PATIENCE) and running.port, running.log
        yield running
    finally:
        process.kill()
        process.wait()
        reader.join(cli.PATIENCE)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def register(conn: Connection, workspaces: Iterable[int] = WORKSPACES) -> dict[int, str]:
    """Register workspaces and a hook secret of each, as ``webhooks ensure`` does; the secrets."""
    made: dict[int, str] = {}
    for number in workspaces:
        conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
            " VALUES ('sim', %s, %s) ON CONFLICT DO NOTHING",
            (number, f"Workspace {number}"),
        )
        made[number] = add_secret(conn, number)
    return made


def add_secret(conn: Connection, workspace: int) -> str:
    secret = secrets.token_urlsafe(24)
    conn.execute(
        "INSERT INTO bisonsync_private.webhook_secrets (secret_sha256, bison_instance, bison_workspace_id)"
        " VALUES (%s, 'sim', %s)",
        (sha256(secret.encode()).digest(), workspace),
    )
    return secret


def retire_secret(conn: Connection, secret: str) -> None:
    conn.execute(
        "UPDATE bisonsync_private.webhook_secrets SET retired_at = now() WHERE secret_sha256 = %s",
        [sha256(secret.encode()).digest()],
    )


def event(number: int, *, workspace: int = 1, kind: str = "EMAIL_SENT", **more: Any) -> dict[str, Any]:
    """The payload of one event, known by its number."""
    moment = _RECENT.isoformat()
    return {
        "event": {
            "type": kind,
            "name": kind.title().replace("_", " "),
            "instance_url": INSTANCE_URL,
            "workspace_id": workspace,
            "workspace_name": f"Workspace {workspace}",
        },
        "data": {
            "scheduled_email": {"id": number, "lead_id": number, "sent_at": moment},
            "campaign_event": {"id": number, "type": "sent", "created_at": moment},
            "lead": {"id": number, "email": f"lead{number}@example.com", "first_name": "Ann"},
            "sender_email": {"id": 7, "email": "sender@example.com"},
            **more,
        },
    }


def body(number: int, **more: Any) -> bytes:
    return json.dumps(event(number, **more)).encode()


def deliveries(conn: Connection) -> list[tuple[str, int | None]]:
    """Status and workspace of every row of the log, in order of arrival."""
    return conn.execute("SELECT status, bison_workspace_id FROM webhook_delivery_log ORDER BY id").fetchall()


def counted(conn: Connection) -> int:
    """How many sent mails the counters have."""
    row = conn.execute("SELECT coalesce(sum(emails_sent_mtd), 0) FROM client_metrics").fetchone()
    assert row is not None
    return int(row[0])


def transactions(conn: Connection) -> int:
    """In how many transactions the rows of the log were written."""
    row = conn.execute("SELECT count(DISTINCT xmin::text) FROM webhook_delivery_log").fetchone()
    assert row is not None
    return int(row[0])


@contextlib.contextmanager
def serving(dsn: str, *, patience_seconds: float = 0.2) -> Generator[Receiver]:
    """A receiver in this process, whose bounds a test may change."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        lines = Lines(as_json=False, quiet=False)
        clock = SystemClock()

        def connect() -> Database:
            return Database(
                dsn,
                application_name="receiver under test",
                clock=clock,
                max_connections=1,
                first_connect_seconds=patience_seconds,
                reconnect_seconds=patience_seconds,
            )

        server = Server(sock, Plan(dsn, {}, "0", log_json=False, quiet=False), lines, connect)
        server.start()
        try:
            yield Receiver(None, sock.getsockname()[1])  # type: ignore[arg-type]
        finally:
            server.stop()
            lines.close()


def waiting_sessions(conn: Connection) -> int:
    """How many of the receiver's sessions wait for a lock."""
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    assert row is not None
    return int(row[0])


@contextlib.contextmanager
def inbox_locked(dsn: str) -> Generator[None]:
    """Another session lets nobody write to the inbox."""
    with psycopg.connect(dsn, application_name="the lock of a test") as other:
        other.execute("LOCK TABLE webhook_delivery_log IN SHARE MODE")
        yield
        other.rollback()


class Senders:
    """Delivers many at once, each on a thread of its own."""

    def __init__(self, running: Receiver, secret: str) -> None:
        self._running = running
        self._secret = secret
        self._threads: list[threading.Thread] = []
        self.answers: dict[int, Answer | None] = {}

    def send(self, *numbers: int) -> None:
        for number in numbers:
            thread = threading.Thread(target=self._send, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _send(self, number: int) -> None:
        try:
            self.answers[number] = self._running.post(self._secret, body(number))
        except (OSError, http.client.HTTPException):
            self.answers[number] = None

    def wait(self) -> dict[int, Answer | None]:
        for thread in self._threads:
            thread.join(cli.PATIENCE)
        return self.answers
