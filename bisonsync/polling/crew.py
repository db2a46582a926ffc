"""Takes a run through its workspaces, several side by side: the only place of a poll with threads, lanes and stops."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Generic, TypeVar

from bisonsync.api.client import InstanceClient
from bisonsync.api.lanes import Lanes
from bisonsync.errors import BisonsyncError, ConfigError, Stopped
from bisonsync.keys import WorkspaceKey
from bisonsync.polling.switching import take_key
from bisonsync.polling.visit import Tally, Visit
from bisonsync.run import STOP_GRACE_SECONDS, WorkspacesRun
from bisonsync.store.leases import Lease
from bisonsync.store.registry import WorkspaceRow

T = TypeVar("T")

# More workspaces than lanes are open at a time, so that lanes do not idle while one waits for its first or last page.
SPARE_WORKSPACES = 2
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job goes about its workspaces.

    ``what`` is counted for the progress bar, with ``expected`` of it in all (0: not known). ``side_by_side``: a visit
    sends its requests on lanes; else one after another, and as many visits go on at a time as requests may.
    ``switch_ttl_seconds``: how long a key is leased that has to be switched; None where the job switches none.
    ``refusal``: see Visit.
    """

    what: str
    expected: int = 0
    side_by_side: bool = False
    switch_ttl_seconds: float | None = None
    refusal: str = "nothing was written"


@dataclass(frozen=True, slots=True)
class Visited(Generic[T]):
    """What came of each workspace that this run had, in its order; ``stop``: what ended it early."""

    answers: dict[WorkspaceKey, T]
    stop: Stopped | None


def over(
    run: WorkspacesRun,
    visit: Callable[[Visit], T],
    failed: Callable[[WorkspaceRow, BisonsyncError], T],
    plan: Plan,
) -> Visited[T]:
    """Visit the workspaces of a run, its instances side by side.

    Of each instance it begins with as many as can be read at once, and claims one more whenever one is done: what
    other hosts take meanwhile is theirs, and has no answer here.

    What goes wrong in a visit is that workspace's answer, by ``failed``: also a bug, whose traceback goes to stderr,
    and a stop, for those that it kept from being visited. Nothing is raised for what one workspace did.
    """
    crew = _Crew(run, visit, failed, plan)
    crew.start()
    stop = crew.watch()
    return Visited(crew.all_answers(stop), stop)


class _Crew(Generic[T]):
    def __init__(
        self,
        run: WorkspacesRun,
        visit: Callable[[Visit], T],
        failed: Callable[[WorkspaceRow, BisonsyncError], T],
        plan: Plan,
    ) -> None:
        self._run = run
        self._visit = visit
        self._failed = failed
        self._plan = plan
        self._rows = run.workspaces
        self._tally = Tally(plan.expected)
        self._answers: dict[WorkspaceKey, T] = {}
        self._threads: list[threading.Thread] = []
        self._lanes: dict[str, Lanes] = {}
        self._met_stop = False
        self._surprises: list[Exception] = []

    def start(self) -> None:
        """Begin with as many workspaces of each instance as can be read at once."""
        for row in self._rows:
            if row.bison_instance not in self._run.clients:
                missing = ConfigError(f"instance {row.bison_instance} is not in the settings")
                self._answers[row.key] = self._failed(row, self._run.access[row.key].error or missing)
        for instance, client in self._run.clients.items():
            keys = {row.key for row in self._rows if row.bison_instance == instance}
            if not keys:
                continue
            concurrency = self._run.concurrency[instance]
            if self._plan.side_by_side:
                self._lanes[instance] = Lanes(concurrency, name=f"api-{instance}")
            by_switch = {key for key in keys if self._run.access[key].by_switch and self._switches}
            spare = SPARE_WORKSPACES if self._plan.side_by_side else 0
            first = self._run.claim(instance, concurrency + spare, keys - by_switch)
            for row in first:
                self._spawn(instance, lambda row=row, client=client, keys=keys - by_switch: self._go(row, client, keys))
            if by_switch:
                self._spawn(f"{instance}-switch", lambda client=client, keys=by_switch: self._switch(client, keys))

    def watch(self) -> Stopped | None:
        """Wait for the end; after a stop for what may end a moment later. That stop, if there was one."""
        stop: Stopped | None = None
        try:
            for thread in self._threads:
                while thread.is_alive():
                    thread.join(LOOK_SECONDS)
                    self._run.progress(self._plan.what, self._tally.done, self._tally.expected)
                    self._run.clock.check()
            if self._met_stop:
                # It came so early that every thread had ended before it could be waited for.
                self._run.clock.check()
        except Stopped as error:
            stop = error
            for lanes in self._lanes.values():
                lanes.close(timeout_seconds=0)
            # A commit under way may end; a read may not.
            give_up_at = self._run.clock.monotonic() + STOP_GRACE_SECONDS
            for thread in self._threads:
                thread.join(max(0.0, give_up_at - self._run.clock.monotonic()))
        else:
            for lanes in self._lanes.values():
                lanes.close()
        return stop

    def all_answers(self, stop: Stopped | None) -> dict[WorkspaceKey, T]:
        """The answers in the order of the workspaces; what a stop kept from being visited has one too."""
        if self._surprises:
            raise self._surprises[0]
        found = dict(self._answers)
        if stop is not None:
            found |= {row.key: self._failed(row, stop) for row in self._rows if row.key not in found}
        return {row.key: found[row.key] for row in self._rows if row.key in found}

    @property
    def _switches(self) -> bool:
        return self._plan.switch_ttl_seconds is not None

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # not even the answer for what went wrong could be had
                self._surprises.append(error)

        thread = threading.Thread(target=guarded, name=f"{self._run.job}-{name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _go(self, row: WorkspaceRow, client: InstanceClient, keys: AbstractSet[WorkspaceKey]) -> None:
        """Visit one workspace, then the next that nobody has, until nothing is left."""
        rows: Sequence[WorkspaceRow] = (row,)
        while rows and not self._met_stop:
            for each in rows:
                self._answers[each.key] = self._answer(each, client, None)
            rows = self._run.claim(client.instance, 1, keys)

    def _switch(self, client: InstanceClient, keys: AbstractSet[WorkspaceKey]) -> None:
        """One workspace at a time under the lease of the key; without it none of them is taken."""
        assert self._plan.switch_ttl_seconds is not None  # else nothing is read by switching
        try:
            lease = take_key(self._run, client.instance, ttl_seconds=self._plan.switch_ttl_seconds)
        except BisonsyncError as error:
            self._answers.update({row.key: self._failed(row, error) for row in self._rows if row.key in keys})
            return
        while not self._met_stop and (rows := self._run.claim(client.instance, 1, keys)):
            for row in rows:
                self._answers[row.key] = self._answer(row, client, lease)

    def _answer(self, row: WorkspaceRow, client: InstanceClient, switch_lease: Lease | None) -> T:
        """What a visit comes to, whatever happens in it."""
        lanes = self._lanes.get(row.bison_instance)
        try:
            self._run.clock.check()
            visit = Visit(
                self._run,
                row,
                client,
                self._tally,
                lanes=lanes,
                switch_lease=switch_lease,
                refusal=self._plan.refusal,
            )
            return self._visit(visit)
        except CancelledError:
            # Only a stop closes the lanes while a workspace waits for them.
            return self._failed(row, self._stop())
        except Stopped as error:
            self._met_stop = True
            return self._failed(row, error)
        except BisonsyncError as error:
            return self._failed(row, error)
        except Exception as error:  # one workspace's surprise must not stop the others
            traceback.print_exc()
            bug = BisonsyncError(f"{type(error).__name__}: {error}", hint="this is a bug; the traceback is above")
            return self._failed(row, bug)
        finally:
            if lanes is not None:
                lanes.drop(row.key)

    def _stop(self) -> BisonsyncError:
        try:
            self._run.clock.check()
        except Stopped as stop:
            return stop
        return BisonsyncError("its requests were given up", hint="this is a bug")
