"""A visit to one workspace of a run: proven to be that one, and written under its lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from typing import TypeVar

from bisonsync.api.client import InstanceClient
from bisonsync.api.lanes import Lanes
from bisonsync.api.limits import ServiceMeter
from bisonsync.errors import BisonsyncError, ConfigError, CredentialsError, GuardRefused, LeaseLost
from bisonsync.models import Workspace
from bisonsync.polling.switching import switch_into
from bisonsync.run import Problem, WorkspacesRun
from bisonsync.store import leases, visits
from bisonsync.store.db import Connection
from bisonsync.store.leases import Lease
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.visits import ReadStart

T = TypeVar("T")


class Tally:
    """How much has come of how much, for the progress bar; safe to use from many threads."""

    def __init__(self, expected: int = 0) -> None:
        self.expected = expected
        self.done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many more have come."""
        with self._lock:
            self.done += count

    def expect(self, more: int) -> None:
        """So many more, or fewer, are to come than was thought."""
        with self._lock:
            self.expected += more


class Visit:
    """One workspace, visited by one thread; its lists are read one after another.

    ``lanes`` carry its requests side by side, where it has any. ``refusal``: what a token that acts elsewhere means.
    """

    def __init__(
        self,
        run: WorkspacesRun,
        row: WorkspaceRow,
        client: InstanceClient,
        tally: Tally,
        *,
        lanes: Lanes | None = None,
        switch_lease: Lease | None = None,
        refusal: str = "nothing was written",
    ) -> None:
        self.run = run
        self.row = row
        self.client = client
        self.tally = tally
        self.access = run.access[row.key]
        self.lease = run.leases.get(row.key)
        self.meter: ServiceMeter | None = None
        self._lanes = lanes
        self._switch_lease = switch_lease
        self._is_switched = False
        self._refusal = refusal
        self._proof: Future[Workspace] | None = None

    @property
    def lanes(self) -> Lanes:
        """Those of the instance."""
        assert self._lanes is not None  # the crew was told to make some
        return self._lanes

    @property
    def token(self) -> str:
        """With what the workspace is read. Raises ConfigError where there is nothing."""
        return self._require_token()

    def require_own_token(self, why: str = "") -> None:
        """Raise CredentialsError where the workspace could only be read by switching a key, and ``why`` it is not."""
        self._require_token()
        if self.access.by_switch:
            raise CredentialsError(
                f"workspace {self.row.key} has no token of its own{': ' if why else ''}{why}",
                hint="run 'bisonsync workspaces mint-tokens'",
            )

    def begin(self, resource: str) -> ReadStart:
        """Begin a list: the database's time, and the key switched into the workspace where it is read by one.

        No request is spent on a workspace that another run has taken over: raises LeaseLost.
        """
        start = self.run.bookkeeping.run(lambda conn: self._start_read(conn, resource))
        if self._switch_lease is not None and not self._is_switched:
            switch_into(self.run, self.client, self.access, self.row.bison_workspace_id)
            self._is_switched = True
        return start

    def require_lease(self) -> None:
        """Raise LeaseLost where another run has taken over: before a request that changes something."""
        self.run.bookkeeping.run(self._require_lease)

    def limit(self, seconds: float) -> ServiceMeter:
        """A meter for the requests that follow, which may take so long together."""
        self.meter = self.client.meter(seconds, name=f"workspace {self.row.key}")
        return self.meter

    def ask(self) -> Workspace:
        """The workspace in which the token acts now."""
        return self.client.get_acting_workspace(self.token, who=self.access.who, meter=self.meter)

    def ask_before(self) -> Future[Workspace]:
        """The answer that stands before a list: what proved the end of the one before, else asked for now."""
        return self._proof or self._submit()

    def prove(self, answer: Future[Workspace] | None = None) -> None:
        """Raise GuardRefused unless the token acts in this workspace, by an answer or, without one, asked for now.

        What is read between two of these is this workspace's; the second serves the next list as its first.
        """
        answer = answer or self._submit()
        self._proof = None
        acting = answer.result()
        if acting.id != self.row.bison_workspace_id:
            raise GuardRefused(
                f"{self.access.who} acts in workspace {acting.id} ({acting.shown}), not in"
                f" {self.row.bison_workspace_id} ({self.row.workspace_name}): {self._refusal}",
                hint="run 'bisonsync workspaces verify', then 'bisonsync workspaces mint-tokens'",
            )
        self._proof = answer

    def commit(self, work: Callable[[Connection, Lease], T]) -> T:
        """Do ``work``, which fences the lease that it is given, in one transaction, a switched key's too."""
        lease, switch_lease = self.lease, self._switch_lease
        assert lease is not None  # a dry run commits nothing

        def fenced(conn: Connection) -> T:
            with nullcontext() if switch_lease is None else leases.fenced(conn, switch_lease):
                return work(conn, lease)

        return self.run.db.run(fenced)

    def _require_token(self) -> str:
        if self.access.error is not None or self.access.token is None:
            raise self.access.error or ConfigError(f"workspace {self.row.key} has no token")
        return self.access.token

    def _require_lease(self, conn: Connection) -> None:
        if self.lease is not None:
            leases.require(conn, self.lease)

    def _start_read(self, conn: Connection, resource: str) -> ReadStart:
        self._require_lease(conn)
        return visits.start_read(conn, resource, self.row.bison_instance)

    def _submit(self) -> Future[Workspace]:
        if self._lanes is not None:
            return self._lanes.submit(self.row.key, self.ask)
        answer: Future[Workspace] = Future()
        answer.set_result(self.ask())
        return answer


def note_failure(
    run: WorkspacesRun,
    row: WorkspaceRow,
    resource: str,
    error: BisonsyncError,
    *,
    verdict: str,
    interval_seconds: int,
    in_parts: bool = False,
) -> None:
    """Note that a list was not read to its end, as far as that can be: the run itself reports it in any case."""
    lease = run.leases.get(row.key)
    if lease is None or isinstance(error, LeaseLost):
        return
    problem = Problem.of(error)
    with suppress(BisonsyncError):
        run.db.run(
            lambda conn: visits.record_failure(
                conn,
                lease,
                resource,
                workspace_name=row.workspace_name,
                verdict=verdict,
                error={"kind": problem.kind, "message": problem.message},
                interval_seconds=interval_seconds,
                in_parts=in_parts,
            ),
            lock_attempts=1,
        )
