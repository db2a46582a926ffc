"""Measures every command on a distribution's PostgreSQL with its JIT compiler on beside the same with it off.

    BISONSYNC_PG_BIN=/usr/lib/postgresql/15/bin python benchmarks/stock.py [rounds]

Both databases are on one server with its own defaults, the rounds of both take turns, and each figure is the median of
all rounds. The world is 4,050 accounts in 27 workspaces (tests/tour.py); commands are whole processes, calls of
functions are statements of another program's session.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import psycopg
from poll import ROOT, database
from psycopg.sql import SQL, Identifier

sys.path.insert(0, str(ROOT / "tests"))

import tour
from conftest import named


def main(rounds: int) -> None:
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"on": [], "off": []})
    with database() as first, psycopg.connect(named(first, "postgres"), autocommit=True) as server:
        row = server.execute("SELECT version(), pg_jit_available(), current_setting('jit')").fetchone()
        assert row is not None
        print(row[0])
        assert row[1:] == (True, "on"), "this server has no JIT compiler, or it is off: there is nothing to compare"
        for number in range(rounds):
            for jit in ("on", "off") if number % 2 else ("off", "on"):
                for step in made(server, first, jit).steps:
                    times[step.name][jit].append(step.seconds)
    print("| command | JIT on | off | ratio |")
    print("| --- | --- | --- | --- |")
    for name, both in times.items():
        on, off = statistics.median(both["on"]), statistics.median(both["off"])
        if off:
            print(f"| {name.partition(' ')[2]} | {on * 1000:.1f} ms | {off * 1000:.1f} ms | {on / off:.2f} |")
    sums = [sum(statistics.median(both[jit]) for both in times.values()) for jit in ("on", "off")]
    print(f"| all | {sums[0]:.2f} s | {sums[1]:.2f} s | {sums[0] / sums[1]:.2f} |")


def made(server: psycopg.Connection, first: str, jit: str) -> tour.Tour:
    name = Identifier(f"with_jit_{jit}")
    server.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
    server.execute(SQL("CREATE DATABASE {}").format(name))
    dsn = named(first, f"with_jit_{jit}")
    if jit == "off":
        tour.settle(server, dsn, {"jit": "off"})
    with tempfile.TemporaryDirectory() as folder:
        return tour.tour(dsn, Path(folder), workspaces=27, accounts=4050)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
