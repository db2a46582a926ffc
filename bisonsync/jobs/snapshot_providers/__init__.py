"""Records every account's counters as of their day, and computes the history of the providers from them."""

from __future__ import annotations

from datetime import date, timedelta

from bisonsync.errors import BisonsyncError, UsageError
from bisonsync.jobs.snapshot_providers.history import follow, follow_filled, recompute
from bisonsync.jobs.snapshot_providers.record import record
from bisonsync.jobs.snapshot_providers.summary import result_of
from bisonsync.jobs.snapshot_providers.work import Fill, Filled, Policy, Work, find_gaps
from bisonsync.run import Problem, Result, WorkspacesRun
from bisonsync.store import snapshots

__all__ = ["Fill", "Filled", "Policy", "run"]

# How far back gaps are looked for when they are to be filled.
FILL_DAYS = 90


def run(run: WorkspacesRun, policy: Policy, fill: Fill | None = None) -> Result:
    """Record today's counters of each workspace in one transaction of its own, then compute what follows from them.

    For a past day nothing is recorded: its history is computed again from what was. A workspace that may not be
    recorded is refused and the others go on. ``fill`` is given the gaps once today ends the last of them. Raises
    UsageError for a day to come.
    """
    today = run.bookkeeping.run(lambda conn: snapshots.get_today(conn, policy.zone))
    if policy.on is not None and policy.on > today:
        raise UsageError(
            f"{policy.on} is still to come: in {policy.zone} it is {today}",
            hint="give a day that has been, or none for today",
        )
    work = Work()
    try:
        is_today = policy.on is None or policy.on == today
        if is_today:
            record(run, policy, work, today)
        if fill is not None:
            _fill(run, work, today, fill)
        if is_today:
            follow(run, policy, work, today)
        elif policy.on is not None:
            recompute(run, policy, work, policy.on)
            follow_filled(run, policy, work, today)
    except BisonsyncError as end:
        # What is committed stays, and is told.
        work.problems.insert(0, Problem.of(end))
    return result_of(run, policy, work, today)


def _fill(run: WorkspacesRun, work: Work, today: date, fill: Fill) -> None:
    """Let ``fill`` close the gaps; every history that their days take part in follows."""
    filled = fill(run, find_gaps(run, today - timedelta(days=FILL_DAYS), today))
    for instance, days in filled.days.items():
        work.changed_days.setdefault(instance, set()).update(days)
    work.extra_counts |= filled.counts
    work.problems += filled.problems
    if filled.note:
        work.notes.append(filled.note)
