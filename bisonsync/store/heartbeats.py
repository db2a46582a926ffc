"""How the dead-man pings of each job and host fare."""

from __future__ import annotations

from bisonsync.queries import load_queries
from bisonsync.store import leases
from bisonsync.store.db import Connection

_Q = load_queries("heartbeats")


def upsert(conn: Connection, job: str, *, error: str | None) -> None:
    """Note that this host's ping for the end of ``job`` arrived, or why not."""
    conn.execute(_Q["upsert_heartbeat"], {"job": job, "host": leases.host_name(), "error": error})
