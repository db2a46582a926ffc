"""Leases: one row per job and workspace says who may write, on all hosts, through any pooler."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from bisonsync.errors import LeaseLost
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("leases")

WorkspaceKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one workspace for one job; valid while its generation is the row's."""

    job: str
    bison_instance: str
    bison_workspace_id: int
    generation: int
    run_id: UUID
    ttl_seconds: float


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease."""

    bison_instance: str
    bison_workspace_id: int
    holder: UUID
    host: str | None
    pid: int | None
    process_key: str | None
    heartbeat_age_seconds: float
    expires_in_seconds: float

    def __str__(self) -> str:
        return (
            f"pid {self.pid} on {self.host} (run {self.holder}, last sign of life {self.heartbeat_age_seconds:.0f} s ago,"
            f" lease ends in {max(0.0, self.expires_in_seconds):.0f} s)"
        )


def host_name() -> str:
    """This host's name, as shown to operators."""
    return socket.gethostname()


def process_key(pid: int | None = None) -> str:
    """What tells a process from any other on any host: boot, pid namespace, pid, and when it started.

    Where /proc is missing the key never matches another process's, so that nothing is taken for dead.
    """
    number = os.getpid() if pid is None else pid
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # not a path
        started = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return f"unknown/{host_name()}/{number}"
    return f"{boot}/{namespace}/{number}/{'dead' if state in 'ZX' else started}"


def is_dead(key: str | None, pid: int | None) -> bool:
    """True only when the process of a key was in our own boot and pid namespace and is gone."""
    mine = process_key()
    if not key or pid is None or mine.startswith("unknown/"):
        return False
    if key.split("/")[:2] != mine.split("/")[:2]:
        return False
    return process_key(pid) != key


def take(
    conn: Connection, job: str, workspaces: Iterable[WorkspaceKey], *, run_id: UUID, ttl_seconds: float
) -> list[Lease]:
    """Take every lease that is free, expired, or held by a dead process of this host; the others are just absent."""
    keys = sorted(set(workspaces))
    parameters = {
        "job": job,
        "instances": [instance for instance, _ in keys],
        "workspace_ids": [workspace_id for _, workspace_id in keys],
        "run_id": run_id,
        "ttl_seconds": ttl_seconds,
        "host": host_name(),
        "pid": os.getpid(),
        "process_key": process_key(),
        "dead_process_keys": _dead_process_keys(list_holders(conn, job)),
    }
    conn.execute(_Q["create_leases"], parameters)
    rows = conn.execute(_Q["take_leases"], parameters).fetchall()
    return [
        Lease(job, instance, workspace_id, generation, run_id, ttl_seconds)
        for instance, workspace_id, generation in rows
    ]


def list_holders(conn: Connection, job: str) -> list[Holder]:
    """Who holds unexpired leases of a job."""
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        return cursor.execute(_Q["list_holders"], {"job": job}).fetchall()


def renew(conn: Connection, run_id: UUID, *, ttl_seconds: float) -> None:
    """Renew all of a run's leases that have not expired."""
    conn.execute(_Q["renew_leases"], {"run_id": run_id, "ttl_seconds": ttl_seconds})


def fence(conn: Connection, lease: Lease) -> None:
    """Hold the lease until this transaction ends. Raises LeaseLost when it is not ours any more."""
    if conn.execute(_Q["fence_lease"], _parameters(lease)).fetchone() is None:
        raise _lost(lease)


def assert_alive(conn: Connection, lease: Lease) -> None:
    """The last look before a commit. Raises LeaseLost when the lease has run out since ``fence``."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(_Q["is_lease_alive"], _parameters(lease)).fetchone():
            raise _lost(lease)


def release(conn: Connection, run_id: UUID) -> None:
    """Free everything a run holds."""
    conn.execute(_Q["release_leases"], {"run_id": run_id})


def _dead_process_keys(holders: Sequence[Holder]) -> list[str]:
    return sorted({h.process_key for h in holders if h.process_key and is_dead(h.process_key, h.pid)})


def _parameters(lease: Lease) -> dict[str, object]:
    return {
        "job": lease.job,
        "instance": lease.bison_instance,
        "workspace_id": lease.bison_workspace_id,
        "run_id": lease.run_id,
        "generation": lease.generation,
        "ttl_seconds": lease.ttl_seconds,
    }


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"{lease.job}: the lease of workspace {lease.bison_instance}/{lease.bison_workspace_id} ran out or was taken over",
        hint="this host or its database connection stood still for too long; nothing was written, run it again",
    )
