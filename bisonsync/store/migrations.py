"""Brings a database's schema to what the files under sql/ say."""

from __future__ import annotations

from typing import Any

import psycopg

from bisonsync.queries import sql_dir


def apply_all(connection: psycopg.Connection[Any]) -> None:
    """Apply every migration."""
    with connection.transaction():
        for path in sorted((sql_dir() / "migrations").glob("*.sql")):
            connection.execute(path.read_bytes())
