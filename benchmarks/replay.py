"""Measures replay-webhooks beside COPY and beside one event at a time: python benchmarks/replay.py [events].

92 % of the events are sent mails, each has a text of its own of 3 KB; the real command in a process of its own, with
start-up, and a Postgres in a temporary folder with fsync on share this machine.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bisonsync import embedded  # noqa: E402

WORKSPACES = 27
PAYLOAD_BYTES = 3_000
ONE_BY_ONE = 5_000
KINDS = (
    (92, "EMAIL_SENT"),
    (3, "LEAD_FIRST_CONTACTED"),
    (2, "LEAD_REPLIED"),
    (1, "LEAD_INTERESTED"),
    (1, "EMAIL_BOUNCED"),
    (1, "LEAD_UNSUBSCRIBED"),
)
WORDS = [f"{a}{b}" for a in ("re", "pro", "un", "in", "ex") for b in ("port", "cede", "late", "form", "pose", "tend")]
STATE = (
    "SELECT md5(string_agg(m::text, '|' ORDER BY m::text)) FROM"
    " (SELECT to_jsonb(c) AS m FROM client_metrics AS c UNION ALL SELECT to_jsonb(l) FROM client_leads AS l) AS s"
)


def payload(number: int, kind: str, at: datetime, chance: random.Random) -> str:
    """An event as the platform sends it, its mail body stripped already: its other text is in custom variables."""
    moment = at.isoformat().replace("+00:00", "Z")
    lead = number * 7919 % (max(1, number) // 3 + 5_000) + 1
    made: dict[str, Any] = {
        "event": {
            "type": kind,
            "name": kind.title().replace("_", " "),
            "instance_url": "https://sim.example.com",
            "workspace_id": number % WORKSPACES + 1,
            "workspace_name": f"Client {number % WORKSPACES + 1}",
        },
        "data": {
            "scheduled_email": {
                "id": number,
                "lead_id": lead,
                "sequence_step_id": 17,
                "sequence_step_order": 1,
                "sequence_step_variant": None,
                "email_subject": " ".join(chance.choices(WORDS, k=6)),
                "email_body": {"length": 1800, "sha256": f"{number:064x}"},
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
                "id": lead,
                "email": f"lead{lead}@example.com",
                "first_name": "Ann",
                "last_name": "Example",
                "status": "verified",
                "title": "Owner",
                "company": "Example Roofing",
                "custom_variables": [],
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
    if kind in ("LEAD_REPLIED", "LEAD_INTERESTED", "EMAIL_BOUNCED"):
        made["data"]["reply"] = {"id": number, "uuid": f"{number:032x}", "created_at": moment}
    text = json.dumps(made)
    filling = " ".join(chance.choices(WORDS, k=(PAYLOAD_BYTES - len(text)) // 7))
    made["data"]["lead"]["custom_variables"] = [{"name": "notes", "value": filling}]
    return json.dumps(made)


def payloads(count: int) -> list[str]:
    chance = random.Random(1)
    kinds = chance.choices([kind for _, kind in KINDS], [weight for weight, _ in KINDS], k=count)
    first = datetime.now(UTC) - timedelta(days=5)
    return [
        payload(number, kind, first + timedelta(seconds=4 * 86400 * number / count), chance)
        for number, kind in enumerate(kinds, 1)
    ]


@dataclass
class Bench:
    """A migrated database of its own for each measurement."""

    server: str
    events: Sequence[str]
    file: Path

    def database(self, name: str) -> str:
        with psycopg.connect(self.server, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            conn.execute(f"CREATE DATABASE {name}".encode())
        dsn = psycopg.conninfo.make_conninfo(self.server, dbname=name)
        self.run(dsn, "migrate", "-q")
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
                " SELECT 'sim', n, 'Client ' || n FROM generate_series(1, %s) AS n",
                [WORKSPACES],
            )
        # Settings and partitions, as any earlier run would have left them.
        self.run(dsn, "replay-webhooks", "-q")
        return dsn

    def run(self, dsn: str, *arguments: str) -> dict[str, Any]:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": "/nonexistent",
            "BISONSYNC_DATABASE_URL": dsn,
            "BISONSYNC_INSTANCES__SIM__BASE_URL": "https://sim.example.com",
        }
        command = [sys.executable, "-m", "bisonsync", *arguments]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout) if "--json" in arguments else {}

    def copy(self, dsn: str) -> None:
        """A plain COPY into a jsonb column."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS floor_inbox (payload jsonb NOT NULL)")
            conn.execute("TRUNCATE floor_inbox")
            with conn.cursor().copy("COPY floor_inbox (payload) FROM STDIN") as copy:
                for event in self.events:
                    copy.write_row((event,))

    def fill(self, dsn: str) -> None:
        """Put all events into the inbox as pending."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            with conn.cursor().copy("COPY webhook_delivery_log (source, payload) FROM STDIN") as copy:
                for event in self.events:
                    copy.write_row(("sql", event))
            conn.execute("VACUUM ANALYZE")
            conn.execute("CHECKPOINT")

    def one_by_one(self, dsn: str) -> float:
        """Events a second through ingest_webhook, a transaction each."""
        some = self.events[:ONE_BY_ONE]
        with psycopg.connect(dsn, autocommit=True) as conn:
            began = time.perf_counter()
            for event in some:
                conn.execute("SELECT ingest_webhook(%s::jsonb)", [event])
            return len(some) / (time.perf_counter() - began)

    def state(self, dsn: str) -> str:
        with psycopg.connect(dsn) as conn:
            row = conn.execute(STATE.encode()).fetchone()
        assert row is not None
        return row[0]


@dataclass
class Cost:
    """Seconds of a clock on the wall, and of CPU in the server's sessions and the client together."""

    wall: float
    cpu: float


class Meter:
    """Costs of what is done, between two COPYs as its floor: other work on the machine comes and goes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        with psycopg.connect(bench.server) as conn:
            row = conn.execute("SHOW data_directory").fetchone()
        assert row is not None
        self.server_pid = int(Path(row[0], "postmaster.pid").read_text().split()[0])

    def cost(self, work: Callable[[], object]) -> Cost:
        wall, cpu = time.perf_counter(), self._cpu()
        work()
        wall = time.perf_counter() - wall
        # A session's CPU is told to the server's first process when that has seen its end.
        time.sleep(0.5)
        return Cost(wall, self._cpu() - cpu)

    def line(self, what: str, dsn: str, *arguments: str, **wanted: int) -> str:
        counts: dict[str, int] = {}
        before = self.cost(lambda: self.bench.copy(dsn))
        taken = self.cost(lambda: counts.update(self.bench.run(dsn, "replay-webhooks", "--json", *arguments)["counts"]))
        after = self.cost(lambda: self.bench.copy(dsn))
        assert wanted.items() <= counts.items(), counts
        wall, cpu = (before.wall + after.wall) / 2, (before.cpu + after.cpu) / 2
        events = len(self.bench.events)
        return (
            f"| {what} | {taken.wall:.1f} s, {events / taken.wall:,.0f} a second, CPU {taken.cpu:.1f} s |"
            f" COPY {wall:.1f} s, CPU {cpu:.1f} s | {wall / taken.wall:.2f} |"
        )

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.server_pid}/stat").read_text().rpartition(")")[2].split()
        ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended + own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(bench: Bench) -> Iterator[str]:
    count = len(bench.events)
    meter = Meter(bench)
    dsn = bench.database("replay_log")
    bench.fill(dsn)
    yield meter.line("pending rows", dsn, processed=count)
    before = bench.state(dsn)
    yield meter.line("the same again (--all)", dsn, "--all", processed=count)
    assert bench.state(dsn) == before, "it changed something"

    dsn = bench.database("replay_file")
    yield meter.line("--from FILE", dsn, "--from", str(bench.file), processed=count)
    before = bench.state(dsn)
    yield meter.line("the same again", dsn, "--from", str(bench.file), duplicate=count)
    assert bench.state(dsn) == before, "it changed something"

    rate = bench.one_by_one(bench.database("replay_single"))
    yield f"| one by one: ingest_webhook of the first {ONE_BY_ONE:,} | {rate:,.0f} a second | | |"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="bisonsync-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        try:
            events = payloads(count)
            file = Path(folder) / "events.jsonl"
            file.write_text("".join(f"{event}\n" for event in events))
            server = embedded.start(Path(folder) / "postgres")
            size = sum(map(len, events)) / count
            print(f"{count:,} events of {size:,.0f} bytes, load {os.getloadavg()[0]:.1f}")
            for line in measure(Bench(server, events, file)):
                print(line, flush=True)
        finally:
            embedded.stop(Path(folder) / "postgres")


if __name__ == "__main__":
    main()
