"""Computes the history of the providers for the days that are recorded."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from functools import partial

from bisonsync.errors import BisonsyncError, DatabaseUnavailable, DeadlineExceeded, GuardRefused, Stopped
from bisonsync.jobs.snapshot_providers.work import Policy, Work, find_gaps, go_on, outcome_of
from bisonsync.run import Problem, WorkspaceOutcome, WorkspacesRun
from bisonsync.store import snapshots
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.snapshots import ExpectedWorkspace

# A day takes part in its own windows and in those of so many days after it.
LONGEST_WINDOW_DAYS = 30
# Of 100,000 accounts a month is three million rows to sort.
HISTORY_SECONDS = 300.0


def follow(run: WorkspacesRun, policy: Policy, work: Work, today: date) -> None:
    """Compute the history of the days recorded, of the day before, and of those whose windows hold a changed day."""
    keys = [row.key for row in run.workspaces]
    gaps = find_gaps(run, today - timedelta(days=LONGEST_WINDOW_DAYS), today)
    work.gaps = sum(day > today - timedelta(days=LONGEST_WINDOW_DAYS + 1) for gap in gaps for day in gap.days)
    for instance in sorted({key[0] for key in keys}):
        mine = work.days.get(instance, set())
        refused = [
            key for key in keys if key[0] == instance and key in work.outcomes and _is_refused(work.outcomes[key])
        ]
        if refused:
            number = sum(key[0] == instance for key in keys)
            work.problems.append(
                Problem(
                    GuardRefused.kind,
                    f"{instance}: no provider history written for {max(mine, default=today)}:"
                    f" {len(refused)} of {number} workspaces were refused",
                    "bisonsync poll-accounts, then bisonsync snapshot-providers; or with --force, marked as incomplete",
                    exit_code=GuardRefused.exit_code,
                )
            )
        for day in sorted(mine):
            lacking = [] if policy.force else _list_lacking(run, policy, work, instance, day)
            if lacking and not refused:
                work.notes.append(
                    f"history of {instance} for {day} waits for {', '.join(str(e.key) for e in lacking[:3])}"
                    + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
                )
            if not lacking and not refused and not run.dry_run:
                _write_history(run, policy, work, instance, day, is_shown=day == max(mine))
        # What was recorded late yesterday, when its history had to wait, is settled now.
        _put_right(run, policy, work, instance, {today - timedelta(days=1)}, mine, today)


def follow_filled(run: WorkspacesRun, policy: Policy, work: Work, today: date) -> None:
    """Compute the history of the days whose windows hold a day that was filled."""
    for instance in sorted(work.changed_days):
        _put_right(run, policy, work, instance, set(), set(), today)


def _put_right(
    run: WorkspacesRun, policy: Policy, work: Work, instance: str, days: set[date], done: set[date], today: date
) -> None:
    """Compute these earlier days, and all whose windows hold a day that this run changed; not those already ``done``.

    Only days that are recorded whole, or that have a history: no other gets one this way.
    """
    changed = work.changed_days.get(instance, set()) | {day for day in done if day < today}
    wanted = days | {
        later
        for day in changed
        for later in (day + timedelta(days=n) for n in range(LONGEST_WINDOW_DAYS + 1))
        if later <= today
    }
    wanted -= done
    if not wanted or run.dry_run:
        return
    due = run.bookkeeping.run(
        lambda conn: snapshots.list_days_due(conn, instance, min(wanted), max(wanted), zone=policy.zone)
    )
    for day in due:
        if day in wanted:
            _write_history(run, policy, work, instance, day, is_shown=False)


def _list_lacking(run: WorkspacesRun, policy: Policy, work: Work, instance: str, day: date) -> list[ExpectedWorkspace]:
    expected = run.bookkeeping.run(lambda conn: snapshots.list_expected(conn, [instance], day, zone=policy.zone))
    return [e for e in expected if not e.is_recorded and (e.key, day) not in work.recorded]


def _write_history(run: WorkspacesRun, policy: Policy, work: Work, instance: str, day: date, *, is_shown: bool) -> None:
    """Compute the history of one instance and day in a transaction of its own; a failure is noted."""
    go_on(run)
    do = snapshots.plan_history if run.dry_run else snapshots.write_history
    try:
        written = run.db.run(
            partial(do, instance=instance, day=day, zone=policy.zone), statement_timeout_seconds=HISTORY_SECONDS
        )
    except (Stopped, DeadlineExceeded, DatabaseUnavailable):
        raise
    except BisonsyncError as error:
        work.problems.append(replace(Problem.of(error), message=f"history of {instance} for {day}: {error.message}"))
        return
    work.is_history_committed |= not run.dry_run
    work.history.append(written)
    if is_shown:
        work.shown.append(written)


def recompute(run: WorkspacesRun, policy: Policy, work: Work, day: date) -> None:
    """Compute the history of a past day again from its daily rows; never from the mirror.

    An instance of which a workspace was not recorded on that day is refused, unless forced; one of which nothing was
    recorded always is: there is nothing to compute from.
    """
    instances = sorted({row.bison_instance for row in run.workspaces})
    expected = run.bookkeeping.run(lambda conn: snapshots.list_expected(conn, instances, day, zone=policy.zone))
    by_key = {entry.key: entry for entry in expected}
    for instance in instances:
        mine = [entry for entry in expected if entry.bison_instance == instance]
        chosen = [row for row in run.workspaces if row.bison_instance == instance]
        is_recorded = any(entry.is_recorded for entry in mine)
        lacking = [entry.key for entry in mine if not entry.is_recorded]
        if not is_recorded:
            lacking = sorted({*lacking, *(row.key for row in chosen)})
        work.gaps += len(lacking)
        is_written = is_recorded and (policy.force or not lacking)
        if lacking:
            missing = f"{instance}: {day} was not recorded in {', '.join(str(key) for key in lacking)}"
            if is_written:
                work.notes.append(f"{missing}: computed without, marked as incomplete")
            else:
                hint = "fill it from the platform's daily numbers: bisonsync snapshot-providers --fill-gaps"
                problem = Problem("gap", f"{missing}: nothing was written", hint, exit_code=GuardRefused.exit_code)
                work.problems.append(problem)
        for row in chosen:
            work.outcomes[row.key] = _past_outcome(
                row, by_key.get(row.key), day, is_lacking=row.key in lacking, is_forced=is_written
            )
        if is_written:
            _write_history(run, policy, work, instance, day, is_shown=True)


def _past_outcome(
    row: WorkspaceRow, entry: ExpectedWorkspace | None, day: date, *, is_lacking: bool, is_forced: bool
) -> WorkspaceOutcome:
    if is_lacking:
        # The instance says it once for all.
        return replace(outcome_of(row, "incomplete" if is_forced else "guarded", {}), note=f"{day} was not recorded")
    if entry is None:
        return replace(outcome_of(row, "skipped", {}), note=f"not known on {day}")
    return outcome_of(row, "complete" if entry.is_complete else "incomplete", {})


def _is_refused(outcome: WorkspaceOutcome) -> bool:
    return outcome.verdict == "guarded"
