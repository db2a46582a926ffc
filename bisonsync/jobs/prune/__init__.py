"""Removes what is older than its retention, makes room for the months to come, and tidies up after itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta

from bisonsync.errors import BisonsyncError, GuardRefused
from bisonsync.jobs.prune.deliveries import LOG, steps_ahead, steps_behind
from bisonsync.jobs.prune.work import Policy, Work
from bisonsync.run import Problem, Result, Run
from bisonsync.store import health_database, partitions, retention
from bisonsync.store.db import Connection
from bisonsync.store.retention import Moment, Removed, Table

__all__ = ["Policy", "run"]

DAILY = "sender_email_daily"
# The windows of 30 days need the day before them, and a day of the last month must stay computable: twice 31 days.
LEAST_DAILY_DAYS = 62
LONGEST_WINDOW_DAYS = 30
# Of two clocks that are so far apart one is wrong, and a wrong clock would throw everything away.
CLOCK_TOLERANCE = timedelta(days=1)
# A run takes its workspaces along.
RUNS_PER_BATCH_ROW = 10

# What becomes of the rows that hang on a table's.
_PARTS: Mapping[str, str] = {"email_sync_logs": "email_sync_log_workspaces", "alert_episodes": "alert_messages"}
# By when they happened; those of days, by the day.
_BY_MOMENT: tuple[Table, ...] = ("api_health_logs", "data_validation_errors", "alert_episodes")


def run(run: Run, policy: Policy) -> Result:
    """Do each step by itself: one that fails is told, the others go on.

    Every batch is a transaction; what is committed stays, and the next run does the rest.
    """
    work = Work(run, policy)
    try:
        moment = run.db.run(lambda conn: retention.get_clock(conn, policy.timezone, policy.as_of))
        _refuse_wrong_clock(run, moment)
        for name, step in _steps(work, moment):
            work.attempt(name, step)
    except BisonsyncError as end:
        work.problems.append(Problem.of(end))
    return _result(work)


def _steps(work: Work, moment: Moment) -> list[tuple[str, Callable[[], None]]]:
    """What is to be done, in this order: room is made first, and what was removed is tidied up last."""
    days = work.policy.retention_days

    def moment_of(table: str) -> datetime:
        return moment.as_of - timedelta(days=days[table])

    def by_moment(table: Table) -> Callable[[], None]:
        return lambda: _remove_old(work, table, moment_of(table))

    history: Table = "provider_performance_history"
    return [
        ("months to come", lambda: _make_months(work, moment.today)),
        *steps_ahead(work, moment),
        ("email_sync_logs", lambda: _remove_runs(work, moment_of("email_sync_logs"))),
        *((table, by_moment(table)) for table in _BY_MOMENT),
        (history, lambda: _remove_old(work, history, moment.today - timedelta(days=days[history]))),
        (DAILY, lambda: _drop_months(work, moment.today, days[DAILY])),
        *steps_behind(work, moment),
        ("tidying up", lambda: _vacuum(work)),
        ("sizes", lambda: _note_sizes(work)),
    ]


def _make_months(work: Work, today: date) -> None:
    last = (today.replace(day=1) + timedelta(days=63)).replace(day=1)
    if work.run.dry_run:
        missing = work.do(lambda conn: partitions.list_missing_months(conn, today, last, today))
        work.made += [each.name for each in missing]
    else:
        work.note_ahead(work.made, partitions.make_months(work.do_ahead, today, last, needed=today))


def _remove_runs(work: Work, before: datetime) -> None:
    keep = work.do(lambda conn: retention.list_runs_to_keep(conn, before))
    limit = max(1, work.policy.batch_rows // RUNS_PER_BATCH_ROW)
    _remove(
        work,
        "email_sync_logs",
        limit,
        count=lambda conn: retention.count_runs(conn, before, keep),
        delete=lambda conn: retention.delete_runs(conn, before, keep, limit),
    )


def _remove_old(work: Work, table: Table, before: datetime | date) -> None:
    limit = work.policy.batch_rows
    _remove(
        work,
        table,
        limit,
        count=lambda conn: retention.count_old(conn, table, before),
        delete=lambda conn: retention.delete_old(conn, table, before, limit),
    )


def _remove(
    work: Work,
    table: str,
    limit: int,
    *,
    count: Callable[[Connection], Removed],
    delete: Callable[[Connection], Removed],
) -> None:
    """Delete batch by batch until one is not full; in a dry run only count."""
    while True:
        done = work.do(count if work.run.dry_run else delete)
        work.count(table, done.rows)
        if parts := _PARTS.get(table):
            work.count(parts, done.parts)
        work.run.progress(f"removing from {table}", work.removed[table], 0)
        if work.run.dry_run or done.rows < limit:
            return


def _drop_months(work: Work, today: date, days: int) -> None:
    """Drop the months of the history all of whose days are too old, each in a transaction of its own."""
    if days < LEAST_DAILY_DAYS:
        raise GuardRefused(
            f"[retention] {DAILY} = {days} is refused, nothing of it was removed: the windows of {LONGEST_WINDOW_DAYS}"
            " days reach 31 days back, the comparison of replies (provider-drop) 15, and the days of the last month"
            f" must stay computable (snapshot-providers --date): {LEAST_DAILY_DAYS} days are needed",
            hint=f"set [retention] {DAILY} to {LEAST_DAILY_DAYS} or more",
        )
    before = today - timedelta(days=days)
    # A month goes whole or not at all: the first day that stays begins one.
    kept = before.replace(day=1)
    months = work.do(lambda conn: retention.list_months_before(conn, before))
    for month in months:
        if month.dependents:
            work.keep(month.name, month.dependents, DAILY)
    if work.run.dry_run:
        work.dropped += [month.name for month in months if not month.dependents]
    else:
        while dropped := work.do(lambda conn: retention.drop_month(conn, before), is_ddl=True):
            work.dropped.append(dropped.name)
            work.count("workspace_snapshots", dropped.snapshots)
            work.run.progress("dropping months", len(work.dropped), 0)
    _remove_old(work, "workspace_snapshots", kept)
    if work.dropped:
        work.first_kept_day = kept


def _vacuum(work: Work) -> None:
    """Tidy up what lost much; a table that is locked just now is passed over until the next run."""
    if work.run.dry_run:
        return
    work.do(retention.flush_statistics)
    # A day that was made slim is a new table: nothing knows yet what is in it.
    changed = work.removed | work.days_slimmed
    for each in work.do(lambda conn: retention.list_vacuums(conn, changed)):
        work.check()
        work.run.progress("tidying up", len(work.vacuumed), 0)
        warnings = retention.vacuum(work.run.db, each.statement)
        work.notes += warnings
        if not warnings:
            work.vacuumed.append(each.table_name)


def _note_sizes(work: Work) -> None:
    """Keep how large the large tables are, by which health sees the next day what has grown."""
    if work.run.dry_run:
        return
    whole, tables = work.do(
        lambda conn: (health_database.get_database_size(conn), health_database.list_table_sizes(conn))
    )
    sizes: dict[str, int] = {}
    for table in tables:
        sizes[table.part_of] = sizes.get(table.part_of, 0) + table.bytes
    large = {name: size for name, size in sizes.items() if size >= health_database.NOTED_BYTES}
    work.megabytes = {
        f"{name}_mb": round(size / health_database.MEGABYTE) for name, size in {"database": whole, **large}.items()
    }


def _refuse_wrong_clock(run: Run, moment: Moment) -> None:
    apart = abs(run.clock.now() - moment.database_now)
    if apart > CLOCK_TOLERANCE:
        raise GuardRefused(
            f"nothing was removed: the clocks of this host and of the database are {apart.days} days apart, and the"
            " wrong one would throw away what is still needed",
            hint="put the clock right that is wrong (bisonsync health clock)",
        )


def _result(work: Work) -> Result:
    removed = {name: rows for name, rows in work.removed.items() if rows}
    counts = {
        "rows_removed": sum(work.removed.values()),
        **work.removed,
        "months_dropped": len(work.dropped),
        "months_made": len(work.made),
        "days_dropped": len(work.days_dropped),
        "days_slimmed": len(work.days_slimmed),
        "payloads_removed": sum(work.days_slimmed.values()),
        "days_made": len(work.days_made),
        "vacuumed": len(work.vacuumed),
        **work.megabytes,
    }
    details = {
        "removed": work.removed,
        "months_dropped": work.dropped,
        "months_made": work.made,
        "days_dropped": work.days_dropped,
        "days_slimmed": work.days_slimmed,
        "days_made": work.days_made,
        "vacuumed": work.vacuumed,
        "notes": work.notes,
        "first_kept_day": work.first_kept_day,
    }
    said = [
        f"{counts['rows_removed']} rows removed"
        + (f" ({', '.join(f'{rows} {name}' for name, rows in removed.items())})" if removed else ""),
        *_said_of_months(work),
        *_said_of_days(work),
    ]
    if work.vacuumed:
        said.append(f"tidied up {', '.join(work.vacuumed)}")
    said += [f"note: {note}" for note in work.notes]
    return Result(
        counts,
        problems=tuple(work.problems),
        committed=work.committed,
        summary="; ".join(said),
        details=details,
    )


def _said_of_months(work: Work) -> list[str]:
    said: list[str] = []
    if work.first_kept_day is not None:
        whole = work.first_kept_day + timedelta(days=LONGEST_WINDOW_DAYS)
        said.append(
            f"dropped {', '.join(work.dropped)}: days before {work.first_kept_day} can no longer be computed again, and"
            f" those before {whole} not with their {LONGEST_WINDOW_DAYS} days (what is computed stays)"
        )
    if work.made:
        said.append(f"made {', '.join(work.made)}")
    return said


def _said_of_days(work: Work) -> list[str]:
    said: list[str] = []
    if work.days_slimmed:
        payloads = sum(work.days_slimmed.values())
        said.append(f"removed {payloads} payloads of {_days(len(work.days_slimmed))} of {LOG}")
    if work.days_dropped:
        said.append(f"dropped {_days(len(work.days_dropped))} of {LOG}, the last {max(work.days_dropped)[-10:]}")
    if work.days_made:
        said.append(f"made {_days(len(work.days_made))} of {LOG}")
    return said


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
