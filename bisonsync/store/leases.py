"""Leases: one row per job and workspace says who may write, on all hosts, through any pooler."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from psycopg.rows import args_row, class_row

from bisonsync.errors import LeaseLost
from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("leases")

# So much before a lease ends by the database's clock the server takes no commit any more.
COMMIT_MARGIN_MILLISECONDS = 100


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one workspace for one job; valid while its generation is the row's."""

    job: str
    bison_instance: str
    bison_workspace_id: int
    generation: int
    run_id: UUID
    ttl_seconds: float

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease. ``age_seconds`` is that of its run; None when the ledger does not know the run."""

    bison_instance: str
    bison_workspace_id: int
    holder: UUID
    host: str | None
    pid: int | None
    process_key: str | None
    age_seconds: float | None
    heartbeat_age_seconds: float
    expires_in_seconds: float

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)

    def __str__(self) -> str:
        age = "" if self.age_seconds is None else f", started {self.age_seconds:.0f} s ago"
        return (
            f"pid {self.pid} on {self.host} (run {self.holder}{age}; lease renewed "
            f"{self.heartbeat_age_seconds:.0f} s ago, expires in {max(0.0, self.expires_in_seconds):.0f} s)"
        )


@dataclass(frozen=True, slots=True)
class Unread:
    """A list that nobody has read for so long; an attempt that failed is no read."""

    resource: str
    unread_seconds: float


@dataclass(frozen=True, slots=True)
class _Claimant:
    """Who takes leases, and from which dead processes."""

    run_id: UUID
    ttl_seconds: float
    host: str
    pid: int
    process_key: str
    dead_process_keys: list[str]


def host_name() -> str:
    """This host's name, as shown to operators."""
    return socket.gethostname()


def process_key(pid: int | None = None) -> str:
    """What tells a process from any other on any host: boot, pid namespace, pid, and when it started.

    Where /proc is missing the key never matches another process's, so that nothing is taken for dead.
    """
    number = os.getpid() if pid is None else pid
    place, started = _boot_and_namespace(), _started(number)
    return f"{place}/{number}/{started}" if place and started else f"unknown/{host_name()}/{number}"


def is_alive(key: str | None, pid: int | None) -> bool | None:
    """Whether the process of a key still runs; None when that cannot be told from here."""
    place = _boot_and_namespace()
    if not key or not place or not pid or not key.startswith(f"{place}/{pid}/"):
        return None
    started = _started(pid)
    if started is not None:
        return key == f"{place}/{pid}/{started}"
    # /proc may hide other users' processes; the kernel still says whether there is one of this number.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return None


def take(
    conn: Connection, job: str, workspaces: Iterable[WorkspaceKey], *, run_id: UUID, ttl_seconds: float
) -> list[Lease]:
    """Take every lease that is free, expired, or held by a dead process of this host; the others are just absent.

    Safe to repeat after a commit whose answer was lost.
    """
    return _take(conn, job, workspaces, _claimant(conn, job, run_id, ttl_seconds))


def claim(
    conn: Connection,
    job: str,
    workspaces: Iterable[WorkspaceKey],
    count: int,
    unread: Unread,
    *,
    run_id: UUID,
    ttl_seconds: float,
) -> list[Lease]:
    """Take up to ``count`` of the leases that ``take`` would take, of lists that are ``unread``: the longest first."""
    claimant = _claimant(conn, job, run_id, ttl_seconds)
    parameters = {**_keys(job, workspaces), **asdict(claimant), **asdict(unread)}
    with conn.cursor(row_factory=args_row(WorkspaceKey)) as cursor:
        waiting = deque(cursor.execute(_Q["list_claimable"], parameters).fetchall())
    taken: list[Lease] = []
    # What another session takes in this moment is passed over, and the next ones are tried.
    while waiting and len(taken) < count:
        some = [waiting.popleft() for _ in range(min(count - len(taken), len(waiting)))]
        taken += _take(conn, job, some, claimant)
    return taken


def list_read(conn: Connection, workspaces: Iterable[WorkspaceKey], unread: Unread) -> set[WorkspaceKey]:
    """Those whose list is not ``unread``."""
    parameters = {**_keys("", workspaces), **asdict(unread)}
    with conn.cursor(row_factory=args_row(WorkspaceKey)) as cursor:
        return set(cursor.execute(_Q["list_read"], parameters).fetchall())


def lock(conn: Connection, job: str, workspaces: Iterable[WorkspaceKey]) -> None:
    """Wait until no other session has these leases locked: what nobody holds and ``take`` does not get is locked."""
    conn.execute(_Q["lock_leases"], _keys(job, workspaces))


def list_holders(conn: Connection, job: str) -> list[Holder]:
    """Who holds unexpired leases of a job."""
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        return cursor.execute(_Q["list_holders"], {"job": job}).fetchall()


def renew(conn: Connection, run_id: UUID, *, ttl_seconds: float) -> None:
    """Renew all of a run's leases that have not expired."""
    conn.execute(_Q["renew_leases"], {"run_id": run_id, "ttl_seconds": ttl_seconds})


def require(conn: Connection, lease: Lease) -> None:
    """Raise LeaseLost when the lease is not ours any more; a look without a lock, before work that costs something."""
    if conn.execute(_Q["is_held"], _parameters(lease)).fetchone() is None:
        raise _lost(lease)


@contextmanager
def fenced(conn: Connection, lease: Lease) -> Generator[None]:
    """Within it a transaction writes under a lease; however it is left, the commit is taken only while the lease lasts.

    Nobody can take the lease over until the transaction ends. Leaving it is the last statement before the commit: a
    process that stands still between the two finds its session ended by the server and nothing written. Fences may
    be nested; the outer lease was renewed first, so it is the one that ends first. Raises LeaseLost, on entering when
    the lease is not ours any more, on leaving when it has run out since.
    """
    parameters = _parameters(lease)
    if conn.execute(_Q["fence_lease"], parameters).fetchone() is None:
        raise _lost(lease)
    yield
    parameters["margin_milliseconds"] = COMMIT_MARGIN_MILLISECONDS
    if conn.execute(_Q["commit_before_expiry"], parameters).fetchone() is None:
        raise _lost(lease)


def give_up(conn: Connection, lease: Lease) -> None:
    """Free one lease before its run is over: nothing can be written under it any more."""
    conn.execute(_Q["release_lease"], _parameters(lease))


def release(conn: Connection, run_id: UUID) -> None:
    """Free everything a run holds, after its commits that are under way."""
    conn.execute(_Q["release_leases"], {"run_id": run_id})


def release_unlocked(conn: Connection, run_ids: Sequence[UUID]) -> None:
    """Free what runs hold and no session has locked."""
    conn.execute(_Q["release_unlocked_leases"], {"run_ids": list(run_ids)})


def _boot_and_namespace() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  # not a path
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot; "dead" when it only waits to be reaped; None if not to be seen."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if len(words) < 20:
        return None
    return "dead" if words[0] in "ZX" else words[19]


def _claimant(conn: Connection, job: str, run_id: UUID, ttl_seconds: float) -> _Claimant:
    dead = _dead_process_keys(list_holders(conn, job))
    return _Claimant(run_id, ttl_seconds, host_name(), os.getpid(), process_key(), dead)


def _take(conn: Connection, job: str, workspaces: Iterable[WorkspaceKey], claimant: _Claimant) -> list[Lease]:
    parameters = {**_keys(job, workspaces), **asdict(claimant)}
    conn.execute(_Q["create_leases"], parameters)
    rows = conn.execute(_Q["take_leases"], parameters).fetchall()
    run_id, ttl_seconds = claimant.run_id, claimant.ttl_seconds
    return [Lease(job, instance, number, generation, run_id, ttl_seconds) for instance, number, generation in rows]


def _dead_process_keys(holders: Sequence[Holder]) -> list[str]:
    return sorted({h.process_key for h in holders if h.process_key and is_alive(h.process_key, h.pid) is False})


def _keys(job: str, workspaces: Iterable[WorkspaceKey]) -> dict[str, object]:
    keys = sorted(set(workspaces))
    return {
        "job": job,
        "instances": [instance for instance, _ in keys],
        "workspace_ids": [workspace_id for _, workspace_id in keys],
    }


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
        f"{lease.job}: the lease of workspace {lease.key} ran out or was taken over",
        hint="this host or its database connection stood still for too long; nothing was written, run it again",
    )
