"""What a run over workspaces comes to: the outcome of an error, and the counts that every such run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bisonsync.errors import BisonsyncError, GuardRefused, LeaseBusy, Stopped
from bisonsync.run import Problem, WorkspaceOutcome, WorkspacesRun, WorkspaceVerdict
from bisonsync.store.registry import WorkspaceRow


def verdict_of(error: BisonsyncError) -> WorkspaceVerdict:
    """What an error makes of a workspace: nothing was tried after a stop, nor while others have what it needs."""
    if isinstance(error, Stopped) or error.exit_code == LeaseBusy.exit_code:
        return "skipped"
    return "guarded" if error.exit_code == GuardRefused.exit_code else "failed"


def outcome_of(row: WorkspaceRow, error: BisonsyncError, counts: Mapping[str, int]) -> WorkspaceOutcome:
    """The outcome of a workspace in which nothing was committed. Of a stop the run tells once for all."""
    verdict = verdict_of(error)
    if verdict == "skipped":
        note = "" if isinstance(error, Stopped) else error.message
        return WorkspaceOutcome(*row.key, row.workspace_name, verdict, counts, note=note)
    return WorkspaceOutcome(*row.key, row.workspace_name, verdict, counts, (Problem.of(error, str(row.key)),))


def sum_up(run: WorkspacesRun, outcomes: Sequence[WorkspaceOutcome], names: Sequence[str]) -> dict[str, int]:
    """The counts of a run: its workspaces, the sums of ``names`` over them, and what it cost the API."""

    def of(*verdicts: WorkspaceVerdict) -> int:
        return sum(outcome.verdict in verdicts for outcome in outcomes)

    stats = [stat for client in run.clients.values() for stat in client.stats.values()]
    return {
        "workspaces_total": len(outcomes),
        "workspaces_ok": of("complete"),
        "workspaces_failed": of("failed", "guarded"),
        "workspaces_incomplete": of("incomplete"),
        **{name: sum(outcome.counts.get(name, 0) for outcome in outcomes) for name in names},
        "requests": sum(stat.requests for stat in stats),
        "retries": sum(stat.retries for stat in stats),
        "rate_limited": sum(stat.rate_limited for stat in stats),
    }


def problems_of_run(
    run: WorkspacesRun, outcomes: Sequence[WorkspaceOutcome], stop: Stopped | None
) -> tuple[Problem, ...]:
    """The problems of no single workspace: the stop, or that others have the key that all of them need."""
    if stop is not None:
        return (Problem.of(stop),)
    busy = sorted({outcome.note for outcome in outcomes if outcome.verdict == "skipped" and outcome.note})
    # What says why in silence was looked at, and nothing had to be done.
    looked_at = any(outcome.verdict != "skipped" or outcome.silent_note for outcome in outcomes)
    if not busy or run.dry_run or looked_at:
        return ()
    hint = "let it end, or give each workspace a token of its own: 'bisonsync workspaces mint-tokens'"
    return (Problem.of(LeaseBusy(f"{run.job}: {'; '.join(busy)}", hint=hint)),)
