"""Brings 100,000 events in by every door at once, killing all that can be killed: python benchmarks/webhook_truth.py.

What the database says in the end is held against an independent model, then all of it comes once more. Everything is
real: the receiver, replay-webhooks and pull-events in processes of their own, a Postgres in a temporary folder with
fsync on. Options: --events, --seed, --kills.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import psycopg
from webhook_doors import (
    ROOT,
    EventLog,
    Stage,
    increment_all,
    ingest_all,
    keep_receiving,
    kill_all,
    post_all,
    pull_all,
    replay_all,
)
from webhook_events import LATE, NAMES, Sent
from webhook_model import Tenant, differences, fold, metrics_unlike_their_keys, read_books
from webhook_world import World, check_log, install, make_world, register, rows_of

from bisonsync import embedded
from bisonsync.payloads import read_body

ZONE = "Europe/Berlin"
POSTERS, COURIERS = 8, 2
PULLED_DAYS = timedelta(days=9)


@dataclass
class Shares:
    """Which delivery comes in by which door."""

    posted: list[Sent] = field(default_factory=list[Sent])
    ingested: list[Sent] = field(default_factory=list[Sent])
    in_files: list[Sent] = field(default_factory=list[Sent])
    pulled: dict[Tenant, list[Sent]] = field(default_factory=dict[Tenant, "list[Sent]"])


def share_out(world: World, rng: random.Random) -> Shares:
    shares = Shares()
    for sent in sorted(world.deliveries, key=lambda sent: not sent.event.is_windowed):
        event = sent.event
        is_recent = event.at is not None and world.now - PULLED_DAYS < event.at < world.now
        if event.is_windowed:
            # Only for ten minutes it is known again: all its deliveries come first.
            (shares.ingested if sent.hook is None else shares.posted).append(sent)
        elif event.fate == "applied" and sent.hook and is_recent and rng.random() < 0.5:
            shares.pulled.setdefault(sent.hook, []).append(sent)
        elif sent.hook is not None and rng.random() < 0.8:
            shares.posted.append(sent)
        elif sent.hook is None and rng.random() < 0.6 and read_body(sent.body).raw is None:
            shares.ingested.append(sent)
        else:
            shares.in_files.append(sent)
    return shares


def queued(sents: list[Sent]) -> queue.SimpleQueue[Sent]:
    work: queue.SimpleQueue[Sent] = queue.SimpleQueue()
    for sent in sents:
        work.put(sent)
    return work


def bring_all(stage: Stage, world: World, shares: Shares, rng: random.Random, kills: int) -> None:
    """Everything at once; returns when all is acknowledged."""
    stage.total = len(shares.posted) + len(shares.ingested) + len(shares.in_files)
    stage.is_over.clear()
    is_last = threading.Event()
    posted, ingested = queued(shares.posted), queued(shares.ingested)
    keeper = stage.in_thread(lambda: keep_receiving(stage))
    increments = stage.in_thread(lambda: increment_all(stage, world))
    doors = [stage.in_thread(lambda: post_all(stage, posted)) for _ in range(POSTERS)]
    doors += [stage.in_thread(lambda: ingest_all(stage, ingested)) for _ in range(COURIERS)]
    others = [*doors]
    doors.append(
        stage.in_thread(lambda: replay_all(stage, shares.in_files, lambda: not any(door.is_alive() for door in others)))
    )
    pulling = stage.in_thread(lambda: pull_all(stage, is_last))
    increments.join()
    killer = stage.in_thread(lambda: kill_all(stage, rng, kills))
    for door in doors:
        door.join()
    killer.join()
    is_last.set()
    pulling.join()
    stage.is_over.set()
    stage.running["receiver"].terminate()
    keeper.join()
    if stage.failures:
        raise stage.failures[0]


def bring_again(stage: Stage, world: World, rng: random.Random) -> Iterator[str]:
    """All that was stored, from a file and by replay; and a tenth of the events by the receiver, spelled otherwise."""
    export = stage.folder / "export.jsonl"
    with psycopg.connect(stage.dsn) as conn, export.open("w") as file:
        for (row,) in conn.execute("SELECT to_jsonb(l)::text FROM webhook_delivery_log AS l"):
            file.write(f"{row}\n")
    began = time.perf_counter()
    counts = stage.document("replay-webhooks", "--from", str(export), may_exit=(0, 3, 8))["counts"]
    yield f"the log exported and replayed from the file: {_said(counts)}, {time.perf_counter() - began:.0f} s"
    began = time.perf_counter()
    counts = stage.document("replay-webhooks", "--all", may_exit=(0, 3, 8))["counts"]
    yield f"replay-webhooks --all: {_said(counts)}, {time.perf_counter() - began:.0f} s"
    sents = [sent for sent in world.again() if sent.hook and not sent.event.is_windowed and rng.random() < 0.2]
    bring_all(stage, World(world.now, world.setting, [], [], list), Shares(posted=sents), rng, 0)
    yield f"{len(sents):,} of the events posted once more"


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in counts.items() if value)


def prove(stage: Stage, world: World, began_at: datetime) -> Iterator[str]:
    """Raises AssertionError where the database is not what the model says."""
    stage.document("rebuild-counters", "--diff-only")
    with psycopg.connect(stage.dsn, autocommit=True) as conn:
        received = check_log(conn, world, stage.acknowledged)
        expected = fold(world.events, world.legacy(began_at), world.setting, received)
        said = differences(expected, read_books(conn))
        assert not said, "\n".join(said)
        assert metrics_unlike_their_keys(conn) == []
        found = dict(conn.execute("SELECT status, count(*) FROM webhook_delivery_log GROUP BY 1").fetchall())
    counted = sum(part[0] for month in expected.counters.values() for part in month.values())
    dead = sum(event.fate == "dead" for event in world.events)
    yield f"in the log: {', '.join(f'{found[name]:,} {name}' for name in sorted(found))}"
    yield f"equal to the model: {counted:,} counted in {len(expected.counters)} months of workspaces"
    yield f"equal to the model: {len(expected.leads):,} leads, {len(expected.accounts):,} accounts"
    yield f"0 of {stage.acknowledged.total():,} acknowledged deliveries lost, 0 events counted twice"
    yield f"{dead:,} poison events kept with their reasons"


def perform(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    rng = random.Random(options.seed)
    logs = {"east": EventLog(), "west": EventLog()}
    base_urls = {name: log.url for name, log in logs.items()}
    began_at = datetime.now(UTC)
    world = make_world(options.seed, options.events, zone=ZONE, now=began_at, base_urls=base_urls)
    shares = share_out(world, rng)
    stage = set_up(folder, world, logs)
    for (instance, workspace), sents in shares.pulled.items():
        logs[instance].publish(workspace, sents)
    pulled = [sent for sents in shares.pulled.values() for sent in sents]
    yield f"{len(world.events):,} events, {len(world.deliveries):,} deliveries, seed {options.seed}"
    yield (
        f"doors: receiver {len(shares.posted):,}, ingest_webhook {len(shares.ingested):,}, files"
        f" {len(shares.in_files):,}, event logs {len(pulled):,}, increment_metric {len(world.legacy_calls):,}"
    )
    began = time.perf_counter()
    bring_all(stage, world, shares, rng, options.kills)
    # A pull leaves what is known already without a row of its own.
    stage.acknowledged.update({sent.event.number for sent in pulled} - stage.acknowledged.keys())
    kills = ", ".join(f"{count} {kind}" for kind, count in sorted(stage.kills.items()))
    yield f"{time.perf_counter() - began:.0f} s, {stage.kills.total()} kills ({kills}), {stage.resent:,} sent again"
    assert stage.kills.total() >= options.kills
    with psycopg.connect(stage.dsn, autocommit=True) as conn:
        register(conn, LATE, "Late GmbH")
    open_ = [option for status in ("pending", "failed", "unknown_workspace") for option in ("--status", status)]
    counts = stage.document("replay-webhooks", "--all", *open_, may_exit=(0, 3))["counts"]
    yield f"after the last workspace is registered: {_said(counts)}"
    yield from prove(stage, world, began_at)
    with psycopg.connect(stage.dsn) as conn:
        before = rows_of(conn)
    yield from bring_again(stage, world, rng)
    with psycopg.connect(stage.dsn) as conn:
        after = rows_of(conn)
    for table in ("client_metrics", "client_leads", "sender_emails_cache"):
        assert set(before[table]) == set(after[table]), table
    stage.document("rebuild-counters", "--diff-only")
    yield "0 changes of counters, leads and accounts; rebuild-counters --diff-only: no difference"


def set_up(folder: Path, world: World, logs: dict[str, EventLog]) -> Stage:
    dsn = embedded.start(folder / "postgres")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": "/nonexistent",
        "BISONSYNC_DATABASE_URL": dsn,
        "BISONSYNC_REPORTING_TIMEZONE": ZONE,
    }
    for name, log in logs.items():
        env[f"BISONSYNC_INSTANCES__{name.upper()}__BASE_URL"] = log.url
        env[f"BISONSYNC_INSTANCES__{name.upper()}__REQUESTS_PER_MINUTE"] = "100000"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    stage = Stage(dsn, folder, env, port, {tenant: secrets.token_urlsafe(24) for tenant in NAMES})
    stage.run("migrate", "migrate", "-q")
    with psycopg.connect(dsn, autocommit=True) as conn:
        install(conn, world)
        for tenant, secret in stage.secrets.items():
            token = secrets.token_urlsafe(24)
            logs[tenant[0]].workspaces[token] = tenant[1]
            conn.execute(
                "INSERT INTO bisonsync_private.webhook_secrets (secret_sha256, bison_instance, bison_workspace_id)"
                " VALUES (%s, %s, %s)",
                (sha256(secret.encode()).digest(), *tenant),
            )
            conn.execute(
                "INSERT INTO bisonsync_private.workspace_tokens (bison_instance, bison_workspace_id, token, token_name,"
                " status, minted_at, verified_at) VALUES (%s, %s, %s, 'truth', 'valid', now(), now())",
                (*tenant, token),
            )
    return stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=120)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bisonsync-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        for line in perform(folder, options):
            print(line, flush=True)
    finally:
        embedded.stop(folder / "postgres")
    # Left where it failed: the commands' logs tell why.
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
