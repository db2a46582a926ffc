"""How runs on several hosts share their workspaces."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from bisonsync.errors import BisonsyncError, DatabaseError, Stopped
from bisonsync.keys import WorkspaceKey
from bisonsync.run import WorkspaceOutcome, fits
from bisonsync.runner.leasing import LeaseKeeper
from bisonsync.runner.left_out import all_busy, failed, held_by, skipped

if TYPE_CHECKING:
    from bisonsync.store.leases import Holder, Lease
    from bisonsync.store.registry import WorkspaceRow


class SharedWorkspaces:
    """Workspaces of which several runs take some each, a few at a time.

    ``leases`` grows with what is claimed; what does not fail is kept until the run is over. What anybody has read since
    this process began is left alone; what failed on another host may be that host's fault, and is tried here too.
    """

    def __init__(self, keeper: LeaseKeeper, job: str, resource: str, rows: Sequence[WorkspaceRow]) -> None:
        self.leases: dict[WorkspaceKey, Lease] = {}
        self._keeper = keeper
        self._job = job
        self._resource = resource
        self._open = {row.key: row for row in rows}
        self._locked: dict[WorkspaceKey, DatabaseError] = {}
        self._end: BisonsyncError | None = None
        self._lock = threading.Lock()

    def require_any(self) -> None:
        """Raise LeaseBusy when others hold all that is unread; nothing is taken yet."""
        holders, read = self._look(self._open)
        if self._open.keys() <= holders.keys() | read:
            self._require_not_busy(self._skipped(holders, read), holders)

    def claim(
        self, instance: str, count: int, among: AbstractSet[WorkspaceKey] | None = None, /
    ) -> tuple[WorkspaceRow, ...]:
        """Up to ``count`` more of an instance, the longest unread first; why there are no more is in ``left_out``."""
        with self._lock:
            keys = [key for key in self._open if key not in self._locked and fits(key, instance, among)]
            if self._end is not None or not keys:
                return ()
            try:
                taken = self._claim(keys, count)
            except BisonsyncError as error:
                self._end = error
                return ()
            self.leases |= {lease.key: lease for lease in taken}
            return tuple(self._open.pop(lease.key) for lease in taken)

    def left_out(self, *, told: AbstractSet[WorkspaceKey]) -> tuple[WorkspaceOutcome, ...]:
        """What became of those that were not claimed, but for those of which the job itself has ``told``.

        Raises LeaseBusy when that is all there is, for others hold them.
        """
        self._open = {key: row for key, row in self._open.items() if key not in told}
        rows = self._open.values()
        try:
            if self._end is not None:
                raise self._end
            holders, read = self._look(self._open)
        except Stopped:
            return tuple(skipped(row, "") for row in rows)
        except BisonsyncError as error:
            return tuple(failed(row, error) for row in rows)
        left_out = self._skipped(holders, read)
        if not self.leases and not told:
            self._require_not_busy(left_out, holders)
        return left_out

    def _claim(self, keys: Sequence[WorkspaceKey], count: int) -> list[Lease]:
        while not (taken := self._keeper.claim(self._job, self._resource, keys, count)):
            holders, read = self._look(keys)
            locked = [key for key in keys if key not in holders and key not in read]
            error = self._keeper.wait_for_locks(self._job, locked) if locked else None
            if error is not None:
                self._locked |= dict.fromkeys(locked, error)
            if error is not None or not locked:
                break
        return taken

    def _look(self, keys: Iterable[WorkspaceKey]) -> tuple[dict[WorkspaceKey, Holder], set[WorkspaceKey]]:
        """Who holds a lease of this job, and which of ``keys`` somebody has read meanwhile."""
        return self._keeper.holders(self._job), self._keeper.list_read(self._resource, keys)

    def _require_not_busy(self, left_out: Sequence[WorkspaceOutcome], holders: Container[WorkspaceKey]) -> None:
        if any(outcome.key in holders for outcome in left_out):
            raise all_busy(self._job, left_out)

    def _skipped(
        self, holders: Mapping[WorkspaceKey, Holder], read: Container[WorkspaceKey]
    ) -> tuple[WorkspaceOutcome, ...]:
        def outcome(key: WorkspaceKey, row: WorkspaceRow) -> WorkspaceOutcome:
            if key in self._locked:
                return failed(row, self._locked[key])
            is_read = key in read and key not in holders
            return skipped(row, "read by another run meanwhile" if is_read else held_by(holders.get(key)))

        return tuple(outcome(key, row) for key, row in self._open.items())
