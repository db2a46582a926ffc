"""What the parts of a run share: what was asked, what was done so far, and how a workspace is told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from bisonsync.errors import DeadlineExceeded
from bisonsync.keys import WorkspaceKey
from bisonsync.run import Problem, WorkspaceOutcome, WorkspacesRun
from bisonsync.store import snapshots
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.snapshots import Gap, HistoryWritten

WORKSPACE_COUNTS = ("accounts", "inserted", "updated", "unchanged")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings and options say. ``on`` is the day asked for; None: today."""

    zone: str
    force: bool = False
    on: date | None = None


class Filled(Protocol):
    """What was filled into gaps: the days of each instance that changed, counts to add, what went wrong, and a note."""

    @property
    def days(self) -> Mapping[str, frozenset[date]]: ...

    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def problems(self) -> tuple[Problem, ...]: ...

    @property
    def note(self) -> str: ...


# Fills gaps from elsewhere and commits what it filled; the history of the days is computed after it.
Fill = Callable[[WorkspacesRun, Sequence[Gap]], Filled]


@dataclass
class Work:
    """What a run has done so far."""

    outcomes: dict[WorkspaceKey, WorkspaceOutcome] = field(default_factory=dict[WorkspaceKey, WorkspaceOutcome])
    # The days that this run has recorded, by instance, and by workspace.
    days: dict[str, set[date]] = field(default_factory=dict[str, set[date]])
    recorded: set[tuple[WorkspaceKey, date]] = field(default_factory=set[tuple[WorkspaceKey, date]])
    changed_days: dict[str, set[date]] = field(default_factory=dict[str, set[date]])
    problems: list[Problem] = field(default_factory=list[Problem])
    notes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    shown: list[HistoryWritten] = field(default_factory=list[HistoryWritten])
    history: list[HistoryWritten] = field(default_factory=list[HistoryWritten])
    extra_counts: dict[str, int] = field(default_factory=dict[str, int])
    gaps: int = 0
    is_history_committed: bool = False


def find_gaps(run: WorkspacesRun, first_day: date, last_day: date) -> list[Gap]:
    """The gaps of the chosen workspaces that have a day in [first_day, last_day]: none was recorded between two."""
    keys = [row.key for row in run.workspaces]
    return run.bookkeeping.run(lambda conn: snapshots.list_gaps(conn, keys, first_day, last_day))


def go_on(run: WorkspacesRun) -> None:
    """Raise Stopped or DeadlineExceeded when it is time to end."""
    run.clock.check()
    if run.clock.monotonic() >= run.deadline:
        raise DeadlineExceeded(
            "the deadline came before everything was recorded",
            hint="the next run does the rest; or give it longer with --deadline",
        )


def outcome_of(row: WorkspaceRow, verdict: str, counts: Mapping[str, int], *problems: Problem) -> WorkspaceOutcome:
    """What is told of a workspace; counts that are not given are 0."""
    zeros = dict.fromkeys(WORKSPACE_COUNTS, 0)
    return WorkspaceOutcome(*row.key, row.workspace_name, verdict, {**zeros, **counts}, problems)  # type: ignore[arg-type]
