"""Records every account's counters as of their day, and computes the history of the providers from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from typing import Protocol

from bisonsync.errors import BisonsyncError, DatabaseUnavailable, DeadlineExceeded, GuardRefused, Stopped, UsageError
from bisonsync.keys import WorkspaceKey
from bisonsync.run import Problem, Result, WorkspaceOutcome, WorkspacesRun
from bisonsync.store import partitions, snapshots
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.snapshots import ExpectedWorkspace, Gap, HistoryWritten, Written

# A day takes part in its own windows and in those of so many days after it.
LONGEST_WINDOW_DAYS = 30
# How far back gaps are looked for when they are to be filled.
FILL_DAYS = 90
# Of 100,000 accounts a month is three million rows to sort.
HISTORY_SECONDS = 300.0
# A month that is needed only later is tried again by the next run.
PARTITION_ATTEMPTS, AHEAD_ATTEMPTS = 5, 2

_WORKSPACE_COUNTS = ("accounts", "inserted", "updated", "unchanged")


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
class _Work:
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
    work = _Work()
    try:
        is_today = policy.on is None or policy.on == today
        if is_today:
            _record(run, policy, work, today)
        if fill is not None:
            _fill(run, work, today, fill)
        if is_today:
            _follow(run, policy, work, today)
        elif policy.on is not None:
            _recompute(run, policy, work, policy.on)
            _follow_filled(run, policy, work, today)
    except BisonsyncError as end:
        # What is committed stays, and is told.
        work.problems.insert(0, Problem.of(end))
    return _result(run, policy, work, today)


def find_gaps(run: WorkspacesRun, first_day: date, last_day: date) -> list[Gap]:
    """The gaps of the chosen workspaces that have a day in [first_day, last_day]: none was recorded between two."""
    keys = [row.key for row in run.workspaces]
    return run.bookkeeping.run(lambda conn: snapshots.list_gaps(conn, keys, first_day, last_day))


def _fill(run: WorkspacesRun, work: _Work, today: date, fill: Fill) -> None:
    """Let ``fill`` close the gaps; every history that their days take part in follows."""
    filled = fill(run, find_gaps(run, today - timedelta(days=FILL_DAYS), today))
    for instance, days in filled.days.items():
        work.changed_days.setdefault(instance, set()).update(days)
    work.extra_counts |= filled.counts
    work.problems += filled.problems
    if filled.note:
        work.notes.append(filled.note)


def _record(run: WorkspacesRun, policy: Policy, work: _Work, today: date) -> None:
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
        _go_on(run)
        run.progress("workspaces", number, len(run.workspaces))
        try:
            written = _write(run, policy, row)
        except Stopped:
            raise
        except BisonsyncError as error:
            work.outcomes[row.key] = _outcome(row, "failed", {}, Problem.of(error, str(row.key)))
        else:
            _note_written(run, work, row, written)


def _go_on(run: WorkspacesRun) -> None:
    """Raise Stopped or DeadlineExceeded when it is time to end."""
    run.clock.check()
    if run.clock.monotonic() >= run.deadline:
        raise DeadlineExceeded(
            "the deadline came before everything was recorded",
            hint="the next run does the rest; or give it longer with --deadline",
        )


def _make_partitions(run: WorkspacesRun, work: _Work, days: set[date], today: date) -> None:
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


def _note_written(run: WorkspacesRun, work: _Work, row: WorkspaceRow, written: Written) -> None:
    name = str(row.key)
    if written.refusal is not None:
        problem = Problem(
            GuardRefused.kind,
            f"{name}: not recorded: {written.refusal}",
            f"bisonsync poll-accounts -w {name}; to record it as it is, marked: bisonsync snapshot-providers --force",
            name,
            GuardRefused.exit_code,
        )
        work.outcomes[row.key] = _outcome(row, "guarded", {}, problem)
        return
    verdict = "complete" if written.is_complete else "incomplete"
    note = "" if written.is_complete else "recorded by force, marked as incomplete"
    outcome = WorkspaceOutcome(
        *row.key, row.workspace_name, verdict, written.counts, committed=not run.dry_run, note=note
    )
    work.outcomes[row.key] = outcome
    work.days.setdefault(row.bison_instance, set()).add(written.snapshot_date)
    work.recorded.add((row.key, written.snapshot_date))


def _follow(run: WorkspacesRun, policy: Policy, work: _Work, today: date) -> None:
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


def _follow_filled(run: WorkspacesRun, policy: Policy, work: _Work, today: date) -> None:
    for instance in sorted(work.changed_days):
        _put_right(run, policy, work, instance, set(), set(), today)


def _put_right(
    run: WorkspacesRun, policy: Policy, work: _Work, instance: str, days: set[date], done: set[date], today: date
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


def _list_lacking(run: WorkspacesRun, policy: Policy, work: _Work, instance: str, day: date) -> list[ExpectedWorkspace]:
    expected = run.bookkeeping.run(lambda conn: snapshots.list_expected(conn, [instance], day, zone=policy.zone))
    return [e for e in expected if not e.is_recorded and (e.key, day) not in work.recorded]


def _write_history(
    run: WorkspacesRun, policy: Policy, work: _Work, instance: str, day: date, *, is_shown: bool
) -> None:
    """Compute the history of one instance and day in a transaction of its own; a failure is noted."""
    _go_on(run)
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


def _recompute(run: WorkspacesRun, policy: Policy, work: _Work, day: date) -> None:
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
        return replace(_outcome(row, "incomplete" if is_forced else "guarded", {}), note=f"{day} was not recorded")
    if entry is None:
        return replace(_outcome(row, "skipped", {}), note=f"not known on {day}")
    return _outcome(row, "complete" if entry.is_complete else "incomplete", {})


def _is_refused(outcome: WorkspaceOutcome) -> bool:
    return outcome.verdict == "guarded"


def _outcome(row: WorkspaceRow, verdict: str, counts: Mapping[str, int], *problems: Problem) -> WorkspaceOutcome:
    zeros = dict.fromkeys(_WORKSPACE_COUNTS, 0)
    return WorkspaceOutcome(*row.key, row.workspace_name, verdict, {**zeros, **counts}, problems)  # type: ignore[arg-type]


def _result(run: WorkspacesRun, policy: Policy, work: _Work, today: date) -> Result:
    outcomes = tuple(work.outcomes.get(row.key) or _outcome(row, "skipped", {}) for row in run.workspaces)

    def of(*verdicts: str) -> int:
        return sum(outcome.verdict in verdicts for outcome in outcomes)

    is_past = policy.on is not None and policy.on != today
    totals = {name: sum(outcome.counts.get(name, 0) for outcome in outcomes) for name in _WORKSPACE_COUNTS}
    if is_past:
        totals["accounts"] = sum(written.accounts for written in work.shown)
    counts = {
        "workspaces_total": len(outcomes),
        "workspaces_ok": of("complete"),
        "workspaces_failed": of("failed"),
        "workspaces_refused": of("guarded"),
        **totals,
        "providers": sum(written.providers for written in work.shown),
        "history_inserted": sum(written.inserted for written in work.history),
        "history_updated": sum(written.updated for written in work.history),
        "history_deleted": sum(written.deleted for written in work.history),
        "gaps": work.gaps,
        "resets": sum(written.resets for written in work.shown),
        "falling_counters": sum(written.falling_counters for written in work.shown),
        **work.extra_counts,
    }
    return Result(
        counts=counts,
        workspaces=outcomes,
        problems=tuple(work.problems),
        committed=work.is_history_committed,
        summary=_summary(
            counts, work, policy.on if is_past else None, of("complete", "incomplete"), is_dry_run=run.dry_run
        ),
        warnings=tuple(work.warnings),
    )


def _summary(counts: Mapping[str, int], work: _Work, past_day: date | None, recorded: int, *, is_dry_run: bool) -> str:
    days = sorted({day for days in work.days.values() for day in days})
    parts = [
        f"{past_day} computed again for {recorded} of {counts['workspaces_total']} workspaces"
        if past_day
        else f"{recorded} of {counts['workspaces_total']} workspaces recorded"
        + (f" for {' and '.join(str(day) for day in days)}" if days else ""),
        f"{counts['accounts']} accounts",
    ]
    if not past_day:
        parts += [f"{counts[name]} {name}" for name in ("inserted", "updated", "unchanged")]
    parts.append(
        f"history of {counts['providers']} providers: {counts['history_inserted']} inserted,"
        f" {counts['history_updated']} updated, {counts['history_deleted']} deleted"
        if past_day or not is_dry_run
        else "the history would follow from them"
    )
    for name, words in (("resets", "counters reset"), ("falling_counters", "counters fell")):
        if counts[name]:
            parts.append(f"{counts[name]} {words}")
    if counts["gaps"] and not past_day:
        parts.append(f"{counts['gaps']} days of workspaces missing between recorded ones")
    return "; ".join([", ".join(parts), *work.notes])
