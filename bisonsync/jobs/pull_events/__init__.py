"""Pulls each workspace's event log into the webhook inbox: what was never delivered counts all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bisonsync.errors import BisonsyncError
from bisonsync.jobs.pull_events.pull import Policy, WorkspacePull
from bisonsync.keys import WorkspaceKey
from bisonsync.polling import crew
from bisonsync.polling.results import outcome_of, problems_of_run, sum_up
from bisonsync.polling.visit import Visit
from bisonsync.run import Problem, Result, WorkspaceOutcome, WorkspacesRun
from bisonsync.store import event_pulls, partitions
from bisonsync.store.event_pulls import Counts, Pull
from bisonsync.store.partitions import Ahead
from bisonsync.store.registry import WorkspaceRow

__all__ = ["Policy", "run"]

# In the summary where there are any.
TOLD_WHERE_ANY = {
    "duplicate": "duplicate",
    "ignored": "ignored",
    "failed": "failed",
    "mismatch": "of another workspace",
    "left_out": "left out",
    "judged_again": "judged again",
}


def run(run: WorkspacesRun, policy: Policy) -> Result:
    """Read the event log of each workspace back to where it was read before, and store what the inbox does not have.

    Each part of a log is committed with how far it goes, so that a run that ends early is gone on with by the next.
    Nothing is raised for what one workspace did; the causes are in the result.
    """
    pulls = run.bookkeeping.run(event_pulls.list_pulls)
    ahead = Ahead() if run.dry_run else partitions.make_days(partitions.briefly(run.bookkeeping))
    begun: dict[WorkspaceKey, WorkspacePull] = {}

    def pull(visit: Visit) -> WorkspaceOutcome:
        key = visit.row.key
        begun[key] = WorkspacePull(visit, policy, pulls.get(key) or Pull(*key))
        return begun[key].carry_out()

    def failed(row: WorkspaceRow, error: BisonsyncError) -> WorkspaceOutcome:
        return begun[row.key].failed(error) if row.key in begun else outcome_of(row, error, asdict(Counts()))

    visited = crew.over(run, pull, failed, crew.Plan("events", refusal="nothing of what was read since was written"))
    outcomes = tuple(visited.answers.values())
    problems = problems_of_run(run, outcomes, visited.stop) or _first_absences(outcomes, pulls)
    counts = sum_up(run, outcomes, tuple(asdict(Counts())))
    counts["workspaces_absent"] = sum(bool(outcome.silent_note) for outcome in outcomes)
    warnings = (ahead.warning,) if ahead.warning else ()
    return Result(counts=counts, workspaces=outcomes, problems=problems, summary=_summary(counts), warnings=warnings)


def _summary(counts: Mapping[str, int]) -> str:
    absent = counts["workspaces_absent"]
    return (
        f"{counts['workspaces_ok']} of {counts['workspaces_total']} workspaces complete, "
        + (f"{absent} without an event log, " if absent else "")
        + f"{counts['events_read']} events read, {counts['new']} new, {counts['known']} known, "
        + "".join(f"{counts[name]} {what}, " for name, what in TOLD_WHERE_ANY.items() if counts[name])
        + f"{counts['requests']} requests"
    )


def _first_absences(outcomes: Sequence[WorkspaceOutcome], pulls: Mapping[WorkspaceKey, Pull]) -> tuple[Problem, ...]:
    """That an instance has no event log, where no run found that before."""
    known = {instance for (instance, _), pull in pulls.items() if pull.absent_at is not None}
    found = {outcome.bison_instance for outcome in outcomes if outcome.silent_note}
    return tuple(
        Problem(
            "no_event_log",
            f"instance {instance} has no event log: GET /api/events answers 404. What it does not deliver stays lost",
            "nothing needs doing: it is asked again once a day, and this is not said again",
            exit_code=0,
        )
        for instance in sorted(found - known)
    )
