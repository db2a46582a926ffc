"""Measures poll-accounts beside its floor or a rival, in one run: python benchmarks/poll.py [latency|large|startup …].

Everything is on this machine: the sandbox in a process of its own, a Postgres in a temporary folder with fsync on.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import queue
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bisonsync import embedded  # noqa: E402

PYTHON = sys.executable


@contextmanager
def sandbox(*flags: str) -> Iterator[dict[str, Any]]:
    process = subprocess.Popen(
        [PYTHON, "-m", "bisonsync.sandbox", "--mint", *flags], stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


@contextmanager
def database() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bisonsync-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        try:
            yield embedded.start(Path(folder) / "postgres")
        finally:
            embedded.stop(Path(folder) / "postgres")


def environment(dsn: str | None = None, server: dict[str, Any] | None = None) -> dict[str, str]:
    made = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    if dsn:
        made["BISONSYNC_DATABASE_URL"] = dsn
    if server:
        made |= {
            "BISONSYNC_INSTANCES__SIM__BASE_URL": server["url"],
            "BISONSYNC_INSTANCES__SIM__API_KEY": server["super_admin_token"],
            "BISONSYNC_INSTANCES__SIM__REQUESTS_PER_MINUTE": "1000000",
        }
    return made


def bisonsync(env: dict[str, str], *arguments: str) -> tuple[float, int, dict[str, Any]]:
    """Seconds of the whole process, its peak memory in MB, and its report."""
    began = time.perf_counter()
    process = subprocess.Popen([PYTHON, "-m", "bisonsync", *arguments, "--json"], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        sys.exit(f"bisonsync {' '.join(arguments)} ended with {process.returncode}: {output.decode()[-2000:]}")
    return seconds, usage.ru_maxrss // 1024, json.loads(output)


def set_up(dsn: str, server: dict[str, Any]) -> dict[str, str]:
    env = environment(dsn, server)
    for command in (["migrate"], ["workspaces", "discover"], ["workspaces", "mint-tokens"]):
        bisonsync(env, *command)
    return env


def startup_seconds(env: dict[str, str]) -> float:
    """What a run costs that finds no work: every workspace held by another."""
    with psycopg.connect(env["BISONSYNC_DATABASE_URL"], autocommit=True) as conn:
        conn.execute(
            "INSERT INTO job_leases"
            " (job, bison_instance, bison_workspace_id, holder, host, pid, heartbeat_at, expires_at)"
            " SELECT 'poll-accounts', bison_instance, bison_workspace_id, gen_random_uuid(), 'elsewhere', 1, now(),"
            " now() + interval '1 hour' FROM client_registry ON CONFLICT (job, bison_instance, bison_workspace_id)"
            " DO UPDATE SET holder = excluded.holder, host = 'elsewhere', expires_at = excluded.expires_at"
        )
        times = median_seconds([[PYTHON, "-m", "bisonsync", "poll-accounts", "-q", "--skip-if-locked"]], env)
        conn.execute("UPDATE job_leases SET holder = NULL, expires_at = NULL")
    return times[0]


def median_seconds(commands: list[list[str]], env: dict[str, str], rounds: int = 15) -> list[float]:
    """Median seconds of each command, taken in turn so that a slow moment hits all alike."""
    times: list[list[float]] = [[] for _ in commands]
    for _ in range(rounds + 1):
        for index, command in enumerate(commands):
            began = time.perf_counter()
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            times[index].append(time.perf_counter() - began)
    return [statistics.median(column[1:]) for column in times]


def latency() -> None:
    """Latency-bound polls against ceil(requests / concurrency) x latency."""
    for name, flags, delay in (
        (
            "27 workspaces, 4,050 accounts, 150 ms",
            ["--workspaces", "27", "--accounts", "4050", "--latency", "0.15"],
            0.15,
        ),
        (
            "1 workspace, 1,600 accounts, 0.5 s",
            ["--workspaces", "1", "--accounts", "1600", "--skew", "", "--latency", "0.5"],
            0.5,
        ),
    ):
        with database() as dsn, sandbox(*flags) as server:
            env = set_up(dsn, server)
            start = startup_seconds(env)
            for which in ("first poll", "nothing changed"):
                seconds, rss, report = bisonsync(env, "poll-accounts")
                requests = report["counts"]["requests"]
                floor = math.ceil(requests / 10) * delay
                line(
                    f"{name}, {which}",
                    f"{seconds:.2f} s, {rss} MB",
                    f"floor {floor:.2f} s ({requests} requests), start-up {start:.2f} s",
                    (seconds - start) / floor,
                )


def large() -> None:
    """Throughput-bound polls against a bare threaded reader with COPY, which proves nothing and guards nothing."""
    for name, workspaces, accounts, skew in (
        ("100,000 accounts, 150 workspaces, 2 ms", 150, 100_000, "1,1"),
        ("200,000 accounts, 300 workspaces, 2 ms", 300, 200_000, "1,1"),
        ("200,000 accounts, one workspace of 79,000, 2 ms", 300, 200_000, "79000,21400"),
    ):
        flags = ["--workspaces", str(workspaces), "--accounts", str(accounts), "--skew", skew, "--latency", "0.002"]
        with database() as dsn, sandbox(*flags) as server:
            env = set_up(dsn, server)
            seconds, rss, _ = bisonsync(env, "poll-accounts")
            rival, rival_rss = bare_reader(server, dsn)
            line(
                f"{name}, first poll",
                f"{seconds:.1f} s, {rss} MB",
                f"rival {rival:.1f} s, {rival_rss} MB",
                seconds / rival,
            )
            again, rss, report = bisonsync(env, "poll-accounts")
            assert report["counts"]["unchanged"] == accounts
            line(f"{name}, nothing changed", f"{again:.1f} s, {rss} MB", f"rival {rival:.1f} s", again / rival)


def bare_reader(server: dict[str, Any], dsn: str) -> tuple[float, int]:
    """The rival in a process of its own: its seconds and peak memory in MB."""
    done = subprocess.run(
        [PYTHON, __file__, "rival"],
        input=json.dumps({"server": server, "dsn": dsn}),
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    seconds, rss = done.stdout.split()
    return float(seconds), int(rss)


def rival() -> None:
    """20 threads of http.client, one COPY into a table like the mirror."""
    given = json.load(sys.stdin)
    began = time.perf_counter()
    address = given["server"]["url"].removeprefix("http://")
    pages: queue.Queue[tuple[str, int]] = queue.Queue()
    rows: queue.Queue[list[dict[str, Any]] | None] = queue.Queue(maxsize=100)
    for token in given["server"]["tokens"].values():
        pages.put((token, 1))

    def work() -> None:
        connection = http.client.HTTPConnection(address)
        while True:
            token, page = pages.get()
            connection.request("GET", f"/api/sender-emails?page={page}", headers={"Authorization": f"Bearer {token}"})
            document = json.loads(connection.getresponse().read())
            if page == 1:
                for number in range(2, document["meta"]["last_page"] + 1):
                    pages.put((token, number))
            rows.put(document["data"])
            pages.task_done()

    for _ in range(20):
        threading.Thread(target=work, daemon=True).start()
    threading.Thread(target=lambda: (pages.join(), rows.put(None)), daemon=True).start()
    columns = [
        "id", "email", "name", "status", "daily_limit", "type", "emails_sent_count", "total_replied_count",
        "unique_replied_count", "bounced_count", "unsubscribed_count", "interested_leads_count",
    ]  # fmt: skip
    with psycopg.connect(given["dsn"]) as conn:
        conn.execute("DROP TABLE IF EXISTS rival")
        conn.execute(f"CREATE TABLE rival ({', '.join(f'{c} text' for c in columns)}, tags jsonb, PRIMARY KEY (id))")
        with conn.cursor().copy(f"COPY rival ({', '.join(columns)}, tags) FROM STDIN") as copy:
            while (batch := rows.get()) is not None:
                for row in batch:
                    copy.write_row([*(row[c] for c in columns), json.dumps(row["tags"])])
    print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def startup() -> None:
    """Start-up against the imports it cannot do without."""
    with database() as dsn, sandbox("--workspaces", "3", "--accounts", "30") as server:
        env = set_up(dsn, server)
        empty = "import typer; a = typer.Typer(); a.command()(lambda: None); a()"
        idle = startup_seconds(env)
        floor, migrate, typer_help, version, our_help = median_seconds(
            [
                [PYTHON, "-c", "import psycopg"],
                [PYTHON, "-m", "bisonsync", "migrate", "-q"],
                [PYTHON, "-c", empty, "--help"],
                [PYTHON, "-m", "bisonsync", "--version"],
                [PYTHON, "-m", "bisonsync", "poll-accounts", "--help"],
            ],
            env,
        )
        line("migrate, nothing pending", f"{migrate:.3f} s", f"import psycopg {floor:.3f} s", migrate / floor)
        line("poll-accounts, all held elsewhere", f"{idle:.3f} s", f"import psycopg {floor:.3f} s", idle / floor)
        line("--version", f"{version:.3f} s", f"an empty typer app {typer_help:.3f} s", version / typer_help)
        line(
            "poll-accounts --help", f"{our_help:.3f} s", f"an empty typer app {typer_help:.3f} s", our_help / typer_help
        )


def line(what: str, measured: str, beside: str, ratio: float) -> None:
    print(f"| {what} | {measured} | {beside} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["latency", "startup", "large"]
    if chosen == ["rival"]:
        rival()
    else:
        print("| what | measured | beside | ratio |\n| --- | --- | --- | --- |")
        for name in chosen:
            {"latency": latency, "large": large, "startup": startup}[name]()
