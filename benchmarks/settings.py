"""Tries every setting that a role or a database may set, one by one, on every command: python benchmarks/settings.py

Which settings there are pg_settings says: all of context "user" that can change how a statement is read, planned, run
or answered (tests/tour.py says which categories these are, and which few settings cannot be tried). Each is set for a
database to another value than the server begins with; the tour of all commands there must say, exit with and leave what
it does without. Prints the table; exits 1 when anything differs. A value takes about ten seconds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from poll import ROOT, database
from psycopg.sql import SQL, Identifier

sys.path.insert(0, str(ROOT / "tests"))

import tour
from conftest import named


def main() -> int:
    with database() as first, psycopg.connect(named(first, "postgres"), autocommit=True) as server:
        wanted = tour.settings_to_try(server)
        row = server.execute("SHOW server_version").fetchone()

        def differences(numbered: tuple[int, tour.Setting]) -> list[str]:
            number, setting = numbered
            return plain.differences(made(server, first, f"tried_{number}", {setting.name: setting.tried}))

        plain = made(server, first, "plain", {})
        print(f"PostgreSQL {row[0] if row else ''}: {len(wanted)} values of {len({s.name for s in wanted})} settings,")
        print(f"{len(plain.steps)} commands and calls each.")
        print("\n| setting | tried | differs |\n| --- | --- | --- |")
        found = 0
        with ThreadPoolExecutor(2) as threads:
            for setting, lines in zip(wanted, threads.map(differences, enumerate(wanted)), strict=True):
                found += bool(lines)
                print(f"| {setting.name} | {setting.tried} | {'; '.join(lines) or 'nothing'} |", flush=True)
    return 1 if found else 0


def made(server: psycopg.Connection, first: str, database_name: str, settings: Mapping[str, str]) -> tour.Tour:
    name = Identifier(database_name)
    server.execute(SQL("CREATE DATABASE {}").format(name))
    dsn = named(first, database_name)
    try:
        tour.settle(server, dsn, settings)
        with tempfile.TemporaryDirectory() as folder:
            return tour.tour(dsn, Path(folder))
    finally:
        server.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(name))


if __name__ == "__main__":
    sys.exit(main())
