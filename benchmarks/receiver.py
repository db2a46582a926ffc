"""Measures receive-webhooks beside its floors, in one run: python benchmarks/receiver.py [--rate 500] [--seconds 60].

The load generator is the part "Load" of this file: it sends at fixed times, however long answers take, and counts from
the time at which a request was due. With --at-once N it keeps so many on their way instead, which tells how many a
second are the most. It, the server and Postgres share a machine: one in a temporary folder with fsync on, or, with
--postgres DSN, a database of its own on a server that runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bisonsync import embedded  # noqa: E402

WORKSPACES = (1, 2, 3)
BODY_BYTES = 3_000
FLOOR_CONNECTIONS = 8


# Load


@dataclass
class Load:
    """So many requests a second, each sent when it is due, on a connection that is free or on a new one.

    Or, where ``at_once`` is given, so many at once: each as soon as another one is answered.
    """

    port: int
    rate: float
    requests: list[bytes]
    at_once: int = 0
    latencies: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    free: list[Client] = field(default_factory=list)
    connections: int = 0
    sending: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        if self.at_once:
            waiting = iter(self.requests)
            await asyncio.gather(*(self._send_on(waiting) for _ in range(self.at_once)))
            return
        loop = asyncio.get_running_loop()
        began = loop.time() + 0.2
        for number, request in enumerate(self.requests):
            due = began + number / self.rate
            while (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            task = loop.create_task(self._send(request, due))
            self.sending.add(task)
            task.add_done_callback(self.sending.discard)
        await asyncio.gather(*self.sending)

    async def _send_on(self, waiting: Iterator[bytes]) -> None:
        loop = asyncio.get_running_loop()
        for request in waiting:
            await self._send(request, loop.time())

    async def _send(self, request: bytes, due: float) -> None:
        loop = asyncio.get_running_loop()
        client = next((client for client in iter(self._pop, None) if client.is_open), None)
        if client is None:
            self.connections += 1
            _, client = await loop.create_connection(Client, "127.0.0.1", self.port)
        status = await client.ask(request)
        self.latencies.append(loop.time() - due)
        self.statuses.append(status)
        self.free.append(client)

    def _pop(self) -> Client | None:
        return self.free.pop() if self.free else None


class Client(asyncio.Protocol):
    """One keep-alive connection with one request under way; answers have a length and fit in few reads."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.is_open = True
        self.answer: asyncio.Future[int] | None = None

    def ask(self, request: bytes) -> asyncio.Future[int]:
        answer = self.answer = asyncio.get_running_loop().create_future()
        self.read = b""
        self.transport.write(request)
        return answer

    def data_received(self, data: bytes) -> None:
        self.read += data
        head, end, rest = self.read.partition(b"\r\n\r\n")
        if end and len(rest) >= int(re.search(rb"(?i)content-length: (\d+)", head)[1]):
            self.answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self.answer is not None and not self.answer.done():
            # Counts as an answer that is not 200.
            self.answer.set_result(0)


def event(number: int, workspace: int, at: datetime) -> bytes:
    """An email_sent as the platform sends it."""
    text = "x" * (BODY_BYTES - 1_900)
    moment = at.isoformat()
    return json.dumps(
        {
            "event": {
                "type": "EMAIL_SENT",
                "name": "Email Sent",
                "instance_url": "https://sim.example.com",
                "workspace_id": workspace,
                "workspace_name": f"Workspace {workspace}",
            },
            "data": {
                "scheduled_email": {
                    "id": number,
                    "lead_id": number % 5_000 + 1,
                    "sequence_step_id": 17,
                    "sequence_step_order": 1,
                    "sequence_step_variant": None,
                    "email_subject": "A question about your roof",
                    "email_body": f"<p>{text}</p>",
                    "status": "sent",
                    "scheduled_date_est": moment,
                    "scheduled_date_local": moment,
                    "local_timezone": "America/New_York",
                    "sent_at": moment,
                    "opens": 0,
                    "replies": 0,
                    "unique_opens": 0,
                    "unique_replies": 0,
                    "interested": False,
                    "raw_message_id": f"<{number}.campaign@example.com>",
                },
                "campaign_event": {
                    "id": number,
                    "type": "sent",
                    "created_at_local": moment,
                    "local_timezone": "America/New_York",
                    "created_at": moment,
                },
                "lead": {
                    "id": number % 5_000 + 1,
                    "email": f"lead{number % 5_000 + 1}@example.com",
                    "first_name": "Ann",
                    "last_name": "Example",
                    "status": "verified",
                    "title": "Owner",
                    "company": "Example Roofing",
                    "custom_variables": [{"name": "city", "value": "Springfield"}],
                    "emails_sent": 1,
                    "opens": 0,
                    "unique_opens": 0,
                    "replies": 0,
                    "unique_replies": 0,
                    "bounces": 0,
                },
                "campaign": {"id": 3, "name": "Roofs in spring"},
                "sender_email": {
                    "id": 41,
                    "name": "Sam Sender",
                    "email": "sam@example.com",
                    "status": "connected",
                    "type": "google_workspace_oauth",
                    "daily_limit": 30,
                    "emails_sent": 100,
                    "replied": 3,
                    "opened": 0,
                    "unsubscribed": 0,
                    "bounced": 1,
                    "unique_replies": 3,
                    "unique_opens": 0,
                    "total_leads_contacted": 90,
                    "interested": 1,
                    "created_at": moment,
                    "updated_at": moment,
                },
            },
        }
    ).encode()


def requests(count: int, hooks: dict[int, str], *, first: int) -> list[bytes]:
    at = datetime.now(UTC) - timedelta(hours=1)
    made: list[bytes] = []
    for number in range(first, first + count):
        workspace = WORKSPACES[number % len(WORKSPACES)]
        body = event(number, workspace, at)
        head = f"POST /hooks/{hooks[workspace]} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return made


# What is measured


@contextlib.contextmanager
def receiver(dsn: str, workers: int) -> Iterator[tuple[int, int]]:
    """The real command; its port and process id."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": "/nonexistent",
        "BISONSYNC_DATABASE_URL": dsn,
        "BISONSYNC_INSTANCES__SIM__BASE_URL": "https://sim.example.com",
    }
    command = [sys.executable, "-m", "bisonsync", "receive-webhooks", "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield int(re.search(r":(\d+)/hooks", line)[1]), process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def floor(kind: str, dsn: str) -> Iterator[tuple[int, int]]:
    """A bare ASGI app under the same server: answers at once, or after one INSERT and COMMIT of its own."""
    # Named as TCP, else asyncio leaves the two parts of an answer to Nagle's algorithm: 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(2048)
        process = multiprocessing.get_context("spawn").Process(target=serve_floor, args=(kind, dsn, sock), daemon=True)
        process.start()
        time.sleep(2)
        try:
            yield sock.getsockname()[1], process.pid or 0
        finally:
            process.terminate()
            process.join()


def serve_floor(kind: str, dsn: str, sock: socket.socket) -> None:
    import concurrent.futures
    import queue

    import uvicorn

    pool: queue.SimpleQueue[psycopg.Connection[Any]] = queue.SimpleQueue()
    threads = concurrent.futures.ThreadPoolExecutor(FLOOR_CONNECTIONS)
    for _ in range(FLOOR_CONNECTIONS if kind == "insert" else 0):
        pool.put(psycopg.connect(dsn, autocommit=True))

    def insert(body: bytes) -> None:
        conn = pool.get()
        conn.execute("INSERT INTO floor_inbox (payload) VALUES (%s::jsonb)", [body.decode()])
        pool.put(conn)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        if kind == "insert":
            await asyncio.get_running_loop().run_in_executor(threads, insert, body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"ok\n"})

    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    uvicorn.Server(config).run([sock])


def measure(name: str, port: int, pid: int, dsn: str, options: argparse.Namespace, sent: list[bytes]) -> None:
    load = Load(port, options.rate, sent, options.at_once)
    # Those that ended meanwhile are missing: the server's processes of the sessions must be ours to look at.
    before, before_server, began = cpu_seconds(pid), sessions_cpu_seconds(dsn), time.monotonic()
    asyncio.run(load.run())
    seconds, cpu = time.monotonic() - began, cpu_seconds(pid) - before
    server = sessions_cpu_seconds(dsn) - before_server
    times = sorted(1000 * seconds for seconds in load.latencies)
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    bad = sum(status != 200 for status in load.statuses)
    each = 1000 * cpu / len(times)
    print(
        f"| {name} | p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {times[-1]:.0f} ms |"
        f" {len(times) / seconds:.0f} a second: {len(times)} answers, {bad} not 200, {load.connections} connections,"
        f" {each:.2f} ms CPU each and {1000 * server / len(times):.2f} ms of Postgres's |",
        flush=True,
    )


def sessions_cpu_seconds(dsn: str) -> float:
    """Of the sessions in this database but one's own, as far as they are on this machine."""
    with psycopg.connect(dsn) as conn:
        pids = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return sum(cpu_seconds(pid) for (pid,) in pids)


def cpu_seconds(pid: int) -> float:
    """Of a process and its children."""
    pids = {pid}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                pids.add(int(stat.parent.name))
    total = 0
    for each in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def set_up(dsn: str) -> dict[int, str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "BISONSYNC_DATABASE_URL": dsn}
    subprocess.run([sys.executable, "-m", "bisonsync", "migrate", "-q"], env=env, check=True)
    hooks = {number: secrets.token_urlsafe(24) for number in WORKSPACES}
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE floor_inbox (id bigserial PRIMARY KEY, payload jsonb NOT NULL)")
        for number, secret in hooks.items():
            conn.execute(
                "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
                " VALUES ('sim', %s, %s)",
                [number, f"Workspace {number}"],
            )
            conn.execute(
                "INSERT INTO bisonsync_private.webhook_secrets (secret_sha256, bison_instance, bison_workspace_id)"
                " VALUES (%s, 'sim', %s)",
                [sha256(secret.encode()).digest(), number],
            )
    return hooks


@contextlib.contextmanager
def server(given: str | None) -> Iterator[str]:
    """A database that nobody else uses: of a new Postgres, or of the one that is given."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="bisonsync-bench-", dir="/tmp") as folder:
            Path(folder).chmod(0o711)
            try:
                yield embedded.start(Path(folder) / "postgres")
            finally:
                embedded.stop(Path(folder) / "postgres")
        return
    name = f"bench_receiver_{os.getpid()}"
    with psycopg.connect(given, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
        try:
            yield make_conninfo(given, dbname=name)
        finally:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--at-once", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--postgres", metavar="DSN")
    parser.add_argument("--only", choices=["receiver", "answer", "insert"])
    options = parser.parse_args()
    # At once they last as long as they last.
    count = int(options.rate * options.seconds)
    with server(options.postgres) as dsn:
        hooks = set_up(dsn)
        how = f"{options.at_once} at once" if options.at_once else f"{options.rate:.0f} a second"
        with psycopg.connect(dsn) as conn:
            version, jit = conn.execute(
                "SELECT current_setting('server_version'), current_setting('jit')::boolean AND pg_jit_available()"
            ).fetchone()
        where = f"PostgreSQL {version}, JIT {'on' if jit else 'off'}, load {os.getloadavg()[0]:.1f}"
        print(f"{count} requests, {how}; {where}")
        for kind, name in (("answer", "answer at once"), ("insert", "INSERT, COMMIT, answer")):
            if options.only in (None, kind):
                with floor(kind, dsn) as (port, pid):
                    measure(name, port, pid, dsn, options, requests(count, hooks, first=1))
        if options.only in (None, "receiver"):
            name = f"receive-webhooks, {options.workers} worker{'s' if options.workers > 1 else ''}"
            with receiver(dsn, options.workers) as (port, pid):
                measure(name, port, pid, dsn, options, requests(count, hooks, first=1))
            with psycopg.connect(dsn) as conn:
                told = conn.execute(
                    "SELECT count(*), count(*) FILTER (WHERE status = 'processed'), count(DISTINCT xmin::text),"
                    " (SELECT sum(emails_sent_mtd) FROM client_metrics) FROM webhook_delivery_log"
                ).fetchone()
            assert told is not None
            print("in the log {}, processed {}, in {} transactions; counted {}".format(*told))


if __name__ == "__main__":
    main()
