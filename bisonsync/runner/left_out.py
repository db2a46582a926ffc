"""What is told of workspaces that a run did not get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bisonsync.errors import BisonsyncError, LeaseBusy
from bisonsync.run import Problem, Result, WorkspaceOutcome

if TYPE_CHECKING:
    from bisonsync.store.leases import Holder
    from bisonsync.store.registry import WorkspaceRow

MAX_HOLDERS_NAMED = 3
LET_IT_END = "let it end, or wait for it with --lock-wait 2m"


def skipped(row: WorkspaceRow, note: str) -> WorkspaceOutcome:
    """The outcome of a workspace that another run has, or has had."""
    return WorkspaceOutcome(*row.key, row.workspace_name, "skipped", note=note)


def failed(row: WorkspaceRow, error: BisonsyncError) -> WorkspaceOutcome:
    """The outcome of a workspace whose lease could not be taken."""
    return WorkspaceOutcome(*row.key, row.workspace_name, "failed", problems=(Problem.of(error, str(row.key)),))


def all_busy(job: str, left_out: Sequence[WorkspaceOutcome]) -> LeaseBusy:
    """The end of a run that got no workspace."""
    notes = list(dict.fromkeys(outcome.note for outcome in left_out))
    more = f"; and {len(notes) - MAX_HOLDERS_NAMED} more runs" if len(notes) > MAX_HOLDERS_NAMED else ""
    return LeaseBusy(
        f"{job}: every workspace is {'; '.join(notes[:MAX_HOLDERS_NAMED])}{more}", hint=LET_IT_END, left_out=left_out
    )


def with_left_out(result: Result, left_out: Sequence[WorkspaceOutcome]) -> Result:
    """Name the workspaces that other runs are working on: skipping them is no failure."""
    counts = dict(result.counts)
    for name, verdicts in (("workspaces_total", ("skipped", "failed")), ("workspaces_failed", ("failed",))):
        if name in counts:
            counts[name] += sum(outcome.verdict in verdicts for outcome in left_out)
    workspaces = (*result.workspaces, *left_out)
    named: dict[str, list[str]] = {}
    for outcome in workspaces:
        if outcome.verdict == "skipped" and outcome.note:
            named.setdefault(outcome.note, []).append(str(outcome.key))
    said = "".join(f"; skipped {', '.join(names)}, {note}" for note, names in named.items())
    return replace(result, workspaces=workspaces, counts=counts, summary=result.summary + said)


def held_by(holder: Holder | None) -> str:
    """Why a lease could not be had."""
    return f"held by another run: {holder}" if holder else "held by a run that has just ended; run it again"
