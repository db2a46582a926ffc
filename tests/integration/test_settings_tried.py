"""Every command does the same and says the same whatever a database has its sessions begin with."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import tour
from cli import environment
from conftest import database, is_owned
from psycopg.conninfo import conninfo_to_dict

Connection = psycopg.Connection[Any]

pytestmark = [pytest.mark.stock, pytest.mark.timeout(600)]


# Compiled before it can say otherwise, and what the other program of the tour itself says; not what its calls do then.
NOT_OURS = (
    "-- Sets for this transaction alone what%",
    "SELECT public.%",
    "SELECT r.%",
    "SELECT count(*)::text FROM public.%",
)


def test_every_command_does_the_same_under_any_settings_of_the_database(
    server: Connection, server_dsn: str, tmp_path: Path
) -> None:
    """All at once in two groups; one by one takes an hour, which benchmarks/settings.py does."""
    found = {setting.name: setting for setting in tour.settings_to_try(server)}
    planning = {
        name: setting.tried for name, setting in found.items() if setting.category.startswith(("Query", "Developer"))
    }
    others = {name: setting.tried for name, setting in found.items() if name not in planning}
    assert {"enable_nestloop", "jit_above_cost", "geqo"} <= set(planning)
    assert {"search_path", "DateStyle", "array_nulls", "default_transaction_isolation"} <= set(others)
    compiled: list[Any] = []

    def make(settings: Mapping[str, str]) -> tour.Tour:
        with database(server, server_dsn, "template0") as dsn:
            tour.settle(server, dsn, settings)
            folder = tmp_path / str(len(settings))
            folder.mkdir()
            made = tour.tour(dsn, folder)
            if "jit" in settings:
                compiled.extend(list_compiled(server, dsn))
            return made

    with ThreadPoolExecutor(3) as threads:
        # Whatever it costs is compiled, but for what forbids it.
        plain, planned, other = threads.map(make, ({}, planning | {"jit": "on", "jit_above_cost": "0"}, others))

    assert plain.differences(planned) == []
    assert plain.differences(other) == []
    assert compiled == []
    assert {step.code for step in plain.steps} <= {0, 1, 3, 143}
    assert all(plain.left[name] for name in ("sender_emails_cache", "client_metrics", "sender_email_daily", "grants"))


def test_the_second_pass_has_a_server_with_a_compiler_and_a_hostile_owner(
    server: Connection, server_dsn: str, db: str
) -> None:
    """Else it would prove nothing; the first pass is about the server of the wheel."""
    if not is_owned():
        return

    with psycopg.connect(environment(db)["BISONSYNC_DATABASE_URL"], autocommit=True) as bare:
        seen = bare.execute("SHOW search_path").fetchone()
    jit = server.execute("SELECT pg_jit_available(), current_setting('jit')").fetchone()

    assert seen == (b"nowhere",)
    assert jit == (True, "on")
    assert list_compiled(server, db) == []
    with psycopg.connect(environment(db)["BISONSYNC_DATABASE_URL"], autocommit=True) as bare:
        bare.execute("SET jit_above_cost = 0")
        bare.execute("SELECT count(*) FROM pg_catalog.pg_class AS compiled_for_the_test")
    assert [text for (text,) in list_compiled(server, db)] == [
        "SELECT count(*) FROM pg_catalog.pg_class AS compiled_for_the_test"
    ]


def list_compiled(server: Connection, dsn: str) -> list[Any]:
    """What was compiled in this database, as far as the server keeps count: the one of the second pass does."""
    if not is_owned():
        return []
    server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    return server.execute(
        "SELECT s.query FROM pg_stat_statements AS s INNER JOIN pg_database AS d ON d.oid = s.dbid"
        " WHERE d.datname = %s AND s.jit_functions > 0 AND NOT s.query LIKE ANY (%s)",
        [conninfo_to_dict(dsn)["dbname"], list(NOT_OURS)],
    ).fetchall()
