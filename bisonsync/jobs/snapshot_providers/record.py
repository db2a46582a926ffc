"""Records every account's counters as of their day, each workspace in one transaction of its own."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial

from bisonsync.errors import BisonsyncError, GuardRefused, Stopped
from bisonsync.jobs.snapshot_providers.work import Policy, Work, go_on, outcome_of
from bisonsync.run import Problem, WorkspaceOutcome, WorkspacesRun
from bisonsync.store import partitions, snapshots
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.snapshots import Written

# A month that is needed only later is tried again by the next run.
PARTITION_ATTEMPTS, AHEAD_ATTEMPTS = 5, 2


def record(run: WorkspacesRun, policy: Policy, work: Work, today: date) -> None:
    """Record every workspace that may be."""
    judgements = run.bookkeeping.run(
        lambda conn: snapshots.list_judgements(
            conn, [row.key for row in run.workspaces], zone=policy.zone, force=policy.force
        )
    )
    if not run.dry_run:
        days = {judgement.snapshot_date for judgement in judgements if judgement.refusal is None}
        _make_partitions(run, work, days, today)
    for number, row in enumerate(run.workspaces):
        go_on(run)
        run.progress("workspaces", number, len(run.workspaces))
        try:
            written = _write(run, policy, row)
        except Stopped:
            raise
        except BisonsyncError as error:
            work.outcomes[row.key] = outcome_of(row, "failed", {}, Problem.of(error, str(row.key)))
        else:
            _note_written(run, work, row, written)


def _make_partitions(run: WorkspacesRun, work: Work, days: set[date], today: date) -> None:
    """Make the months that these days need, and the next one; that one can wait for the next run."""
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    ranges = [(min(days), max(days), PARTITION_ATTEMPTS)] if days else []
    for first, last, attempts in [*ranges, (next_month, next_month, AHEAD_ATTEMPTS)]:
        needed = max(days, default=today)
        ahead = partitions.make_months(partitions.briefly(run.db, attempts), first, last, needed=needed)
        work.warnings += [ahead.warning] if ahead.warning else []


def _write(run: WorkspacesRun, policy: Policy, row: WorkspaceRow) -> Written:
    if run.dry_run:
        return run.db.run(partial(snapshots.plan, key=row.key, zone=policy.zone, force=policy.force))
    return run.db.run(
        partial(
            snapshots.write,
            lease=run.leases[row.key],
            workspace_name=row.workspace_name,
            zone=policy.zone,
            force=policy.force,
        )
    )


def _note_written(run: WorkspacesRun, work: Work, row: WorkspaceRow, written: Written) -> None:
    name = str(row.key)
    if written.refusal is not None:
        problem = Problem(
            GuardRefused.kind,
            f"{name}: not recorded: {written.refusal}",
            f"bisonsync poll-accounts -w {name}; to record it as it is, marked: bisonsync snapshot-providers --force",
            name,
            GuardRefused.exit_code,
        )
        work.outcomes[row.key] = outcome_of(row, "guarded", {}, problem)
        return
    verdict = "complete" if written.is_complete else "incomplete"
    note = "" if written.is_complete else "recorded by force, marked as incomplete"
    outcome = WorkspaceOutcome(
        *row.key, row.workspace_name, verdict, written.counts, committed=not run.dry_run, note=note
    )
    work.outcomes[row.key] = outcome
    work.days.setdefault(row.bison_instance, set()).add(written.snapshot_date)
    work.recorded.add((row.key, written.snapshot_date))
