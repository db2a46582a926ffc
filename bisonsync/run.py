"""What a job is given and what it gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

from bisonsync.errors import BisonsyncError, Stopped
from bisonsync.keys import WorkspaceKey

if TYPE_CHECKING:
    from bisonsync.api.client import InstanceClient
    from bisonsync.clock import Clock
    from bisonsync.store.db import Database
    from bisonsync.store.leases import Lease
    from bisonsync.store.registry import WorkspaceRow

WorkspaceVerdict = Literal["complete", "incomplete", "guarded", "failed", "skipped"]
PARTIAL_EXIT = 3
# The kind of a problem that is none: it is told once, and changes no exit code.
NOTICE = "notice"
# How long work goes on after a stop; longer than a statement may then take, and the request to cancel it.
STOP_GRACE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Problem:
    """One cause of an exit code other than 0, as shown and stored. ``workspace`` is ``instance/id``."""

    kind: str
    message: str
    hint: str = ""
    workspace: str | None = None
    exit_code: int = PARTIAL_EXIT

    @classmethod
    def of(cls, error: BisonsyncError, workspace: str | None = None) -> Problem:
        """The problem that an error is."""
        code = 128 + error.signal_number if isinstance(error, Stopped) else error.exit_code
        return cls(error.kind, error.message, error.hint, workspace, code)

    def as_json(self) -> dict[str, Any]:
        """Its form in ``--json`` and in the ledger."""
        return {"kind": self.kind, "workspace": self.workspace, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class WorkspaceOutcome:
    """What became of one workspace in a run.

    ``note`` says why, where that is no problem; ``silent_note`` the same where only --json and the ledger tell it.
    """

    bison_instance: str
    bison_workspace_id: int
    name: str
    verdict: WorkspaceVerdict
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    problems: tuple[Problem, ...] = ()
    committed: bool = False
    note: str = ""
    silent_note: str = ""

    @property
    def key(self) -> WorkspaceKey:
        """The workspace's identity."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)

    @property
    def reason(self) -> str | None:
        """Why it is not complete."""
        return self.problems[0].message if self.problems else self.note or self.silent_note or None

    def as_json(self) -> dict[str, Any]:
        """Its form in ``--json``."""
        return {
            "instance": self.bison_instance,
            "id": self.bison_workspace_id,
            "name": self.name,
            "verdict": self.verdict,
            "counts": dict(self.counts),
            "error": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What a job did. ``problems`` are those of no single workspace; ``details`` is shown by its own command alone.

    ``warnings``: what went wrong without any harm yet; they do not count for the exit code.
    """

    counts: Mapping[str, int]
    workspaces: tuple[WorkspaceOutcome, ...] = ()
    problems: tuple[Problem, ...] = ()
    committed: bool = False
    summary: str = ""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    warnings: tuple[str, ...] = ()

    @property
    def all_problems(self) -> tuple[Problem, ...]:
        """Every cause, those of the run first."""
        return (*self.problems, *(problem for outcome in self.workspaces for problem in outcome.problems))

    @property
    def exit_code(self) -> int:
        """Stopped before guarded before deadline before partial; else the first of 4, 5, 6; else 0."""
        return exit_code(
            [problem.exit_code for problem in self.all_problems],
            committed=self.committed or any(outcome.committed for outcome in self.workspaces),
        )


def exit_code(codes: list[int], *, committed: bool) -> int:
    """The exit code of a run with these causes, in the order in which they came."""
    codes = [code for code in codes if code]
    for first in (130, 143, 8, 7):
        if first in codes:
            return first
    if not codes:
        return 0
    if committed or PARTIAL_EXIT in codes:
        return PARTIAL_EXIT
    return codes[0]


VERDICTS = {
    0: "success",
    1: "failed",
    2: "failed",
    3: "partial",
    4: "failed",
    5: "failed",
    6: "failed",
    7: "partial",
    8: "guarded",
    9: "differences",
    75: "skipped",
    130: "stopped",
    143: "stopped",
}


@dataclass(frozen=True, slots=True)
class WorkspaceAccess:
    """How a workspace is read: with a token of its own, or by switching a super-admin key into it.

    ``token`` is None when there is neither; ``error`` then says what to do.
    """

    token: str | None = field(repr=False)
    who: str
    by_switch: bool = False
    error: BisonsyncError | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a job, as the job sees it."""

    #: The job's name, which its leases and its row in the ledger bear.
    job: str
    #: The ledger's key of this run; what it writes refers to it.
    run_id: UUID
    #: When it began, by this host's clock.
    started_at: datetime
    #: The time, and every wait: both end with a stop.
    clock: Clock
    #: The monotonic instant at which it has to end.
    deadline: float
    #: For the work itself.
    db: Database
    #: For leases, ledger and what is looked up beside the work: never waits behind it.
    bookkeeping: Database
    #: The lease of a job that works on no workspace; None where every workspace has its own, and in a dry run.
    lease: Lease | None = None
    #: Nothing may be written.
    dry_run: bool
    #: Shows how far it is: what, how many are done, of how many (0: not known).
    progress: Callable[[str, int, int], None]


class Claim(Protocol):
    """The next workspaces of an instance to work on: up to ``count``, of those in ``among`` if that is given.

    Empty when nothing is left for this run; never raises.
    """

    def __call__(
        self, instance: str, count: int, among: AbstractSet[WorkspaceKey] | None = None, /
    ) -> tuple[WorkspaceRow, ...]: ...


def hand_out(rows: Sequence[WorkspaceRow]) -> Claim:
    """Workspaces that are this run's own already: the largest first, so that no long list begins when others end."""
    waiting = sorted(rows, key=lambda row: -row.accounts_total)
    lock = threading.Lock()

    def claim(instance: str, count: int, among: AbstractSet[WorkspaceKey] | None = None, /) -> tuple[WorkspaceRow, ...]:
        with lock:
            found = [row for row in waiting if fits(row.key, instance, among)][:count]
            for row in found:
                waiting.remove(row)
        return tuple(found)

    return claim


def fits(key: WorkspaceKey, instance: str, among: AbstractSet[WorkspaceKey] | None) -> bool:
    """Whether a workspace is one of those that are to be claimed."""
    return key.bison_instance == instance and (among is None or key in among)


@dataclass(frozen=True, kw_only=True)
class WorkspacesRun(Run):
    """A run over workspaces."""

    #: Those to work on; those that may be claimed, where the run shares them with other hosts.
    workspaces: tuple[WorkspaceRow, ...]
    #: The lease of each, live: it grows with what is claimed. None in a dry run, and where nothing of it is written.
    leases: Mapping[WorkspaceKey, Lease]
    #: The way to the next ones, each of which is handed out once.
    claim: Claim
    #: The conversation with each instance that is in the settings.
    clients: Mapping[str, InstanceClient]
    #: How many requests may be under way at a time, by instance.
    concurrency: Mapping[str, int]
    #: How each workspace is read.
    access: Mapping[WorkspaceKey, WorkspaceAccess]


@dataclass(frozen=True, slots=True)
class InstanceAccess:
    """One configured instance: its client, its super-admin key, and the workspace tokens that stand in the settings."""

    client: InstanceClient
    api_key: str | None = field(repr=False)
    workspace_keys: Mapping[int, str] = field(repr=False)
    concurrency: int = 10


@dataclass(frozen=True)
class SetupRun:
    """A run over instances and their registry rather than over lists."""

    run_id: UUID
    host: str
    bookkeeping: Database
    instances: Mapping[str, InstanceAccess]
    dry_run: bool
    max_shrink: float
