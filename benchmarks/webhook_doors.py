"""The doors by which webhooks come in, each driven until all is acknowledged, and what kills them."""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from webhook_events import Sent  # noqa: E402
from webhook_model import Tenant  # noqa: E402
from webhook_world import World  # noqa: E402

from bisonsync.payloads import read_body  # noqa: E402

LINES_PER_FILE = 2_000
EVENTS_PER_PAGE = 15
# More often no command is killed; one that fails for good is not tried for ever.
MOST_RUNS = 40
# Out of so many kills: of the receiver, replay, pull, a backend (asked to end), a backend (and so the whole server).
KINDS = {"receiver": 36, "replay": 18, "pull": 12, "backend": 31, "server": 3}


# The platform's side


class EventLog(ThreadingHTTPServer):
    """An instance's API as far as pull-events asks for it: whose a token is, and its events, newest first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.workspaces: dict[str, int] = {}
        self.rows: dict[int, list[str]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is none of its troubles."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, workspace: int, sents: Sequence[Sent]) -> None:
        """Let the log of a workspace have these events."""
        newest_first = sorted(sents, key=lambda sent: sent.event.at or datetime.max, reverse=True)
        self.rows[workspace] = [
            f'{{"id": {sent.event.number}, "created_at": "{sent.event.at:%Y-%m-%dT%H:%M:%S.%fZ}",'
            f' "payload": {sent.body.decode()}, "webhook_deliveries": []}}'
            for sent in newest_first
        ]


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EventLog  # type: ignore[assignment]

    def do_GET(self) -> None:
        workspace = self.server.workspaces[self.headers["Authorization"].removeprefix("Bearer ")]
        path = urlsplit(self.path)
        if path.path == "/api/users":
            answer = json.dumps({"data": {"id": 1, "name": "A", "workspace": {"id": workspace, "name": "W"}}})
        else:
            rows = self.server.rows.get(workspace, [])
            begin = int(parse_qs(path.query).get("cursor", ["0"])[0])
            end = begin + EVENTS_PER_PAGE
            cursor = json.dumps(str(end) if end < len(rows) else None)
            answer = f'{{"data": [{", ".join(rows[begin:end])}], "meta": {{"next_cursor": {cursor}}}}}'
        body = answer.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


# Ours


@dataclass
class Stage:
    """A database, the environment of commands, and what was acknowledged and killed so far."""

    dsn: str
    folder: Path
    env: dict[str, str]
    port: int
    secrets: dict[Tenant, str]
    total: int = 0
    acknowledged: Counter[int] = field(default_factory=Counter[int])
    settled: int = 0
    resent: int = 0
    kills: Counter[str] = field(default_factory=Counter[str])
    running: dict[str, subprocess.Popen[Any]] = field(default_factory=dict[str, "subprocess.Popen[Any]"])
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    failures: list[BaseException] = field(default_factory=list[BaseException])

    def acknowledge(self, *sents: Sent) -> None:
        with self.lock:
            self.acknowledged.update(sent.event.number for sent in sents)
            self.settled += len(sents)

    def spawn(self, name: str, *arguments: str) -> subprocess.Popen[Any]:
        log = (self.folder / f"{name}.log").open("ab")
        command = [sys.executable, "-m", "bisonsync", *arguments]
        with log:
            process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)
        self.running[name] = process
        return process

    def run(self, name: str, *arguments: str, may_exit: Sequence[int] = (0,)) -> int:
        """Run a command until it ends by itself, again and again where it was killed."""
        code = 0
        for _ in range(MOST_RUNS):
            code = self.spawn(name, *arguments).wait()
            del self.running[name]
            if code in may_exit:
                return code
            # Killed, or the server was away for longer than it waits.
            if code not in (-signal.SIGKILL, 5, 6, 7):
                break
        raise AssertionError(f"{' '.join(arguments)} exited with {code}: see {self.folder}/{name}.log")

    def document(self, *arguments: str, may_exit: Sequence[int] = (0,)) -> dict[str, Any]:
        """What a command prints with --json."""
        command = [sys.executable, "-m", "bisonsync", *arguments, "--json"]
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode in may_exit, (arguments, done.returncode, done.stdout[:2000])
        return json.loads(done.stdout)

    def in_thread(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.failures.append(error)
                self.is_over.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread


# Doors


def keep_receiving(stage: Stage) -> None:
    """A receiver that is started again whenever it ends, as systemd does."""
    while not stage.is_over.is_set():
        stage.spawn("receiver", "receive-webhooks", "--port", str(stage.port), "-q").wait()


def post_all(stage: Stage, work: queue.SimpleQueue[Sent]) -> None:
    """Deliver as the platform does: anything but 200 is sent again."""
    connection: http.client.HTTPConnection | None = None
    while not stage.is_over.is_set():
        try:
            sent = work.get_nowait()
        except queue.Empty:
            return
        assert sent.hook is not None
        path = f"/hooks/{stage.secrets[sent.hook]}{'/test' if sent.is_test else ''}"
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", stage.port, timeout=15)
            connection.request("POST", path, sent.body)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            if connection is not None:
                connection.close()
            connection = None
            status = 0
            stage.is_over.wait(0.05)
        else:
            status = answer.status
        if status == 200:
            stage.acknowledge(sent)
        else:
            assert status in (0, 503), status
            stage.resent += 1
            work.put(sent)
    if connection is not None:
        connection.close()


def ingest_all(stage: Stage, work: queue.SimpleQueue[Sent]) -> None:
    """Any code that calls the SQL function."""
    conn: psycopg.Connection[Any] | None = None
    while not stage.is_over.is_set():
        try:
            sent = work.get_nowait()
        except queue.Empty:
            break
        try:
            if conn is None or conn.closed:
                conn = psycopg.connect(stage.dsn, autocommit=True, application_name="courier")
            conn.execute("SELECT ingest_webhook(%s)", (read_body(sent.body).text,))
        except psycopg.OperationalError:
            stage.resent += 1
            work.put(sent)
            stage.is_over.wait(0.05)
        else:
            stage.acknowledge(sent)
    if conn is not None:
        conn.close()


def as_line(sent: Sent) -> bytes:
    """A plain payload, or where it came with a secret a row as it is exported from a log."""
    if sent.hook is None:
        return sent.body + b"\n"
    row = {
        "received_at": datetime.now(UTC).isoformat(),
        "status": "test" if sent.is_test else "pending",
        "source": "receiver",
        "hook_instance": sent.hook[0],
        "hook_workspace_id": sent.hook[1],
    }
    return json.dumps(row).encode()[:-1] + b', "payload": ' + sent.body + b"}\n"


def replay_all(stage: Stage, sents: list[Sent], are_others_done: Callable[[], bool]) -> None:
    """Files one after the other, each with lines that are no JSON; between them what is due, then what was applied."""
    for number, begin in enumerate(range(0, len(sents), LINES_PER_FILE)):
        part = sents[begin : begin + LINES_PER_FILE]
        file = stage.folder / f"deliveries-{number}.jsonl"
        file.write_bytes(b"{broken\n" + b"".join(map(as_line, part)) + b'{"event": \n')
        stage.run("replay", "replay-webhooks", "--from", str(file), "-q", may_exit=(3,))
        stage.acknowledge(*part)
        stage.run("replay", "replay-webhooks", "-q", may_exit=(0, 3))
    while sents and not are_others_done() and not stage.is_over.is_set():
        stage.run("replay", "replay-webhooks", "--all", "--limit", "5000", "-q", may_exit=(0, 3, 8))


def pull_all(stage: Stage, is_last: threading.Event) -> None:
    """Pull the event logs again and again, the last time when all else has come."""
    while not stage.is_over.is_set():
        was_last = is_last.is_set()
        stage.run("pull", "pull-events", "-q", "--lock-wait", "30s", may_exit=(0, 3))
        if was_last:
            return
        is_last.wait(2)


def increment_all(stage: Stage, world: World) -> None:
    """An older caller, who is never disturbed: it could not know whether to call again."""
    with psycopg.connect(stage.dsn, autocommit=True, application_name="calm") as conn:
        for name, metric, amount in world.legacy_calls:
            conn.execute("SELECT increment_metric(%s, %s, %s)", (name, metric, amount))


# Harm


def kill_all(stage: Stage, rng: random.Random, kills: int) -> None:
    """So many kills, spread over the deliveries."""
    while not stage.is_over.is_set() and stage.kills.total() < kills:
        due = kills * 1.15 * stage.settled / stage.total
        if stage.kills.total() < due:
            kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
            is_done = harm_backend(stage, rng, kind) if kind in ("backend", "server") else harm_process(stage, kind)
            stage.kills[kind] += is_done
        stage.is_over.wait(rng.uniform(0.05, 0.3))


def harm_process(stage: Stage, name: str) -> bool:
    """kill -9."""
    process = stage.running.get(name)
    if process is None or process.poll() is not None:
        return False
    process.kill()
    return True


def harm_backend(stage: Stage, rng: random.Random, kind: str) -> bool:
    """End one backend of a door; with kill -9 the server ends all and recovers from its log."""
    try:
        with psycopg.connect(stage.dsn, autocommit=True, application_name="harm") as conn:
            busy = conn.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND (application_name LIKE 'bisonsync%' OR application_name = 'courier')"
            ).fetchall()
            if not busy:
                return False
            (pid,) = rng.choice(busy)
            if kind == "server":
                if "calm" in {name for (name,) in conn.execute("SELECT application_name FROM pg_stat_activity")}:
                    return False
                os.kill(pid, signal.SIGKILL)
                return True
            return bool(conn.execute("SELECT pg_terminate_backend(%s)", (pid,)).fetchone())
    except (psycopg.OperationalError, ProcessLookupError):
        return False
