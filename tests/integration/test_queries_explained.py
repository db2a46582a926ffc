"""Postgres plans every named query on the migrated schema: a misspelt column or type is found without calling it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import database

from bisonsync.queries import load_queries, sql_dir

QUERIES = [
    pytest.param(text, id=f"{path.stem}.{name}")
    for path in sorted((sql_dir() / "queries").glob("*.sql"))
    for name, text in load_queries(path.stem).items()
]
PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES")


def numbered(text: str) -> str:
    """The query with $1 for the first named parameter, and so on."""
    names: list[str] = []

    def place(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"%\((\w+)\)[sbt]|%%", place, text)


def bare(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text).strip()


@pytest.fixture(scope="module")
def conn(server: psycopg.Connection[Any], server_dsn: str, template: str) -> Iterator[psycopg.Connection[Any]]:
    """One database for all: nothing here writes."""
    with database(server, server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("text", QUERIES)
def test_postgres_accepts(text: str, conn: psycopg.Connection[Any]) -> None:
    statement = bare(numbered(text))
    if not statement.upper().startswith(PLANNED):
        pytest.fail("only what Postgres can plan belongs into a named query")
    if conn.info.server_version < 160000:
        pytest.skip("EXPLAIN (GENERIC_PLAN) came with PostgreSQL 16")

    plan = conn.execute(f"EXPLAIN (GENERIC_PLAN) {statement}".encode()).fetchall()

    assert plan


def test_a_wrong_column_is_found(conn: psycopg.Connection[Any]) -> None:
    statement = numbered("SELECT emial_address FROM public.sender_emails_cache WHERE id = %(id)s::uuid")

    with pytest.raises(psycopg.errors.UndefinedColumn):
        conn.execute(f"EXPLAIN (GENERIC_PLAN) {statement}".encode())
