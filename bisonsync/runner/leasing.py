"""Takes leases for a run, all at once or a few at a time, and renews them until the run is over."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bisonsync.clock import SystemClock
from bisonsync.errors import BisonsyncError, DatabaseError, LeaseBusy
from bisonsync.keys import WorkspaceKey
from bisonsync.run import WorkspaceOutcome
from bisonsync.runner.left_out import LET_IT_END, all_busy, failed, held_by, skipped
from bisonsync.runner.session import Session

if TYPE_CHECKING:
    from bisonsync.store.db import Connection
    from bisonsync.store.leases import Holder, Lease
    from bisonsync.store.registry import WorkspaceRow

RENEWALS_PER_TTL = 4
LOCK_POLL_SECONDS = 0.5
# Stands for the job itself where it works on no workspace.
NO_WORKSPACE = WorkspaceKey("", 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """The leases that are ours now, and what became of the workspaces that others hold."""

    leases: Mapping[WorkspaceKey, Lease] = field(default_factory=dict["WorkspaceKey", "Lease"])
    left_out: tuple[WorkspaceOutcome, ...] = ()


class LeaseKeeper:
    """Takes leases under the name of a job, and keeps them until the session is over."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_renewing = False

    def take(self, job: str, rows: Sequence[WorkspaceRow]) -> Taken:
        """Take what is free, waiting for the rest as long as --lock-wait says; what is not ours then is left out.

        Raises LeaseBusy when other runs hold everything, DatabaseError when what nobody holds is locked.
        """
        held = self._take_patiently(job, [row.key for row in rows])
        if len(held) == len(rows):
            return Taken(held)
        holders = self.holders(job)
        locked = [row.key for row in rows if row.key not in held and row.key not in holders]
        error = self.wait_for_locks(job, locked) if locked else None
        if error is None:
            held |= self._take(job, locked)
        left_out = tuple(
            failed(row, error)
            if error is not None and row.key in locked
            else skipped(row, held_by(holders.get(row.key)))
            for row in rows
            if row.key not in held
        )
        if not held and error is not None:
            raise error
        if not held:
            raise all_busy(job, left_out)
        return Taken(held, left_out)

    def take_for_job(self, job: str) -> Lease:
        """Take the one lease of a job that works on no workspace, waiting for it as long as --lock-wait says.

        Raises LeaseBusy, DatabaseError.
        """
        held = self._take_patiently(job, [NO_WORKSPACE])
        if held:
            return held[NO_WORKSPACE]
        holder = self.holders(job).get(NO_WORKSPACE)
        if holder is None and (error := self.wait_for_locks(job, [NO_WORKSPACE])) is not None:
            raise error
        raise LeaseBusy(f"{job} is at work already, {held_by(holder)}", hint=LET_IT_END)

    def claim(self, job: str, resource: str, keys: Iterable[WorkspaceKey], count: int) -> list[Lease]:
        """Take up to ``count`` of those that are free and whose list nobody has read since this process began."""
        from bisonsync.store import leases

        session = self._session

        def work(conn: Connection) -> list[Lease]:
            unread = leases.Unread(resource, session.elapsed_seconds)
            ttl_seconds = session.lease_ttl_seconds
            return leases.claim(conn, job, keys, count, unread, run_id=session.run_id, ttl_seconds=ttl_seconds)

        return self._kept(session.bookkeeping.run(work))

    def list_read(self, resource: str, keys: Iterable[WorkspaceKey]) -> set[WorkspaceKey]:
        """Those whose list somebody has read since this process began."""
        from bisonsync.store import leases

        unread = leases.Unread(resource, self._session.elapsed_seconds)
        return self._session.bookkeeping.run(lambda conn: leases.list_read(conn, keys, unread))

    def holders(self, job: str) -> dict[WorkspaceKey, Holder]:
        """Which lease of a job another run holds."""
        from bisonsync.store import leases

        listed = self._session.bookkeeping.run(lambda conn: leases.list_holders(conn, job))
        return {one.key: one for one in listed if one.holder != self._session.run_id}

    def wait_for_locks(self, job: str, keys: Sequence[WorkspaceKey]) -> DatabaseError | None:
        """Wait for the end of the transactions that keep leases locked; the error naming them if it does not come."""
        from bisonsync.store import leases

        try:
            self._session.bookkeeping.run(lambda conn: leases.lock(conn, job, keys))
        except DatabaseError as error:
            return error
        return None

    def _take_patiently(self, job: str, keys: Sequence[WorkspaceKey]) -> dict[WorkspaceKey, Lease]:
        clock, options = self._session.clock, self._session.options
        give_up_at = clock.monotonic() + options.lock_wait_seconds
        if options.deadline_seconds is not None:
            give_up_at = min(give_up_at, self._session.began + options.deadline_seconds)
        held = self._take(job, keys)
        while len(held) < len(keys) and clock.monotonic() < give_up_at:
            clock.sleep(LOCK_POLL_SECONDS)
            held |= self._take(job, [key for key in keys if key not in held])
        return held

    def _take(self, job: str, wanted: Sequence[WorkspaceKey]) -> dict[WorkspaceKey, Lease]:
        """Take those that are free now."""
        from bisonsync.store import leases

        session = self._session

        def work(conn: Connection) -> list[Lease]:
            return leases.take(conn, job, wanted, run_id=session.run_id, ttl_seconds=session.lease_ttl_seconds)

        return {lease.key: lease for lease in self._kept(session.bookkeeping.run(work))}

    def _kept(self, taken: list[Lease]) -> list[Lease]:
        if taken and not self._is_renewing:
            self._is_renewing = True
            self._start_renewing()
        return taken

    def _start_renewing(self) -> None:
        from bisonsync.store import leases

        session = self._session
        ttl = session.lease_ttl_seconds
        database = session.database(max_connections=1, clock=SystemClock())

        def renew() -> None:
            while not session.is_over.wait(ttl / RENEWALS_PER_TTL):
                try:
                    database.run(lambda conn: leases.renew(conn, session.run_id, ttl_seconds=ttl))
                except BisonsyncError as error:
                    # The fence in each commit decides; a missed renewal alone harms nobody.
                    session.output.log(f"the leases could not be renewed: {error.message}", level="warning")

        threading.Thread(target=renew, name="renewal", daemon=True).start()
