"""Removes what is older than its retention, makes room for the months to come, and tidies up after itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TypeVar

from bisonsync.errors import (
    BisonsyncError,
    DatabaseError,
    DatabaseUnavailable,
    DeadlineExceeded,
    GuardRefused,
    SchemaMismatch,
)
from bisonsync.run import Problem, Result, Run
from bisonsync.store import health_database, leases, retention
from bisonsync.store.db import Connection
from bisonsync.store.retention import Moment, Removed, Table

T = TypeVar("T")

DAILY = "sender_email_daily"
# The windows of 30 days need the day before them, and a day of the last month must stay computable: twice 31 days.
LEAST_DAILY_DAYS = 62
LONGEST_WINDOW_DAYS = 30
# Of two clocks that are so far apart one is wrong, and a wrong clock would throw everything away.
CLOCK_TOLERANCE = timedelta(days=1)
BATCH_ROWS = 5_000
# A run takes its workspaces along.
RUNS_PER_BATCH_ROW = 10
# DDL waits a second at most, so that the readers queued behind it do not stand; then it lets them pass.
DDL_LOCK_SECONDS = 1.0
DDL_LOCK_ATTEMPTS = 8
ROW_LOCK_SECONDS = 3.0

# What becomes of the rows that hang on a table's.
_PARTS: Mapping[str, str] = {"email_sync_logs": "email_sync_log_workspaces", "alert_episodes": "alert_messages"}
# By when they happened; those of days, by the day.
_BY_MOMENT: tuple[Table, ...] = ("api_health_logs", "data_validation_errors", "alert_episodes")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say; ``as_of`` takes the place of the database's clock in a rehearsal."""

    retention_days: Mapping[str, int]
    timezone: str
    batch_rows: int = BATCH_ROWS
    as_of: datetime | None = None


@dataclass
class _Work:
    """What was done so far, or in a dry run what would be."""

    run: Run
    policy: Policy
    removed: dict[str, int] = field(default_factory=dict[str, int])
    dropped: list[str] = field(default_factory=list[str])
    made: list[str] = field(default_factory=list[str])
    vacuumed: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    problems: list[Problem] = field(default_factory=list[Problem])
    megabytes: dict[str, int] = field(default_factory=dict[str, int])
    committed: bool = False
    first_kept_day: date | None = None

    def check(self) -> None:
        """Raise Stopped or DeadlineExceeded when it is time to end."""
        self.run.clock.check()
        if self.run.clock.monotonic() >= self.run.deadline:
            raise _deadline()

    def count(self, table: str, rows: int) -> None:
        """Add to what was removed from a table."""
        self.removed[table] = self.removed.get(table, 0) + rows

    def do(self, work: Callable[[Connection], T], *, is_ddl: bool = False) -> T:
        """One transaction, written only while the lease is ours."""
        lease = next(iter(self.run.leases.values()), None)

        def fenced(conn: Connection) -> T:
            if lease is not None:
                leases.require(conn, lease)
            return work(conn)

        self.check()
        done = self.run.db.run(
            fenced,
            statement_timeout_seconds=0,
            lock_timeout_seconds=DDL_LOCK_SECONDS if is_ddl else ROW_LOCK_SECONDS,
            lock_attempts=DDL_LOCK_ATTEMPTS if is_ddl else 1,
        )
        self.committed = self.committed or not self.run.dry_run
        return done


def run(run: Run, policy: Policy) -> Result:
    """Do each step by itself: one that fails is told, the others go on.

    Every batch is a transaction; what is committed stays, and the next run does the rest.
    """
    work = _Work(run, policy)
    try:
        moment = run.db.run(lambda conn: retention.get_clock(conn, policy.timezone, policy.as_of))
        _refuse_wrong_clock(run, moment)
        for name, step in _steps(work, moment):
            _attempt(work, name, step)
    except BisonsyncError as end:
        work.problems.append(Problem.of(end))
    return _result(work)


def _steps(work: _Work, moment: Moment) -> list[tuple[str, Callable[[], None]]]:
    """What is to be done, in this order: room is made first, and what was removed is tidied up last."""
    days = work.policy.retention_days

    def moment_of(table: str) -> datetime:
        return moment.as_of - timedelta(days=days[table])

    def by_moment(table: Table) -> Callable[[], None]:
        return lambda: _remove_old(work, table, moment_of(table))

    history: Table = "provider_performance_history"
    return [
        ("months to come", lambda: _make_months(work, moment.today)),
        ("email_sync_logs", lambda: _remove_runs(work, moment_of("email_sync_logs"))),
        *((table, by_moment(table)) for table in _BY_MOMENT),
        (history, lambda: _remove_old(work, history, moment.today - timedelta(days=days[history]))),
        (DAILY, lambda: _drop_months(work, moment.today, days[DAILY])),
        ("tidying up", lambda: _vacuum(work)),
        ("sizes", lambda: _note_sizes(work)),
    ]


def _attempt(work: _Work, name: str, step: Callable[[], None]) -> None:
    """Do one step; raises what ends the whole run."""
    try:
        step()
    except (DatabaseUnavailable, SchemaMismatch):
        if work.run.clock.monotonic() >= work.run.deadline:
            raise _deadline() from None
        raise
    except DatabaseError as error:
        if work.run.clock.monotonic() >= work.run.deadline:
            raise _deadline() from None
        work.problems.append(replace(Problem.of(error), message=f"{name}: {error.message}"))
    except GuardRefused as error:
        work.problems.append(Problem.of(error))


def _make_months(work: _Work, today: date) -> None:
    missing = work.do(lambda conn: retention.list_months_missing(conn, today))
    if work.run.dry_run or not missing:
        work.made += missing
        return
    work.made += work.do(lambda conn: retention.make_months(conn, today), is_ddl=True)


def _remove_runs(work: _Work, before: datetime) -> None:
    keep = work.do(lambda conn: retention.list_runs_to_keep(conn, before))
    limit = max(1, work.policy.batch_rows // RUNS_PER_BATCH_ROW)
    _remove(
        work,
        "email_sync_logs",
        limit,
        count=lambda conn: retention.count_runs(conn, before, keep),
        delete=lambda conn: retention.delete_runs(conn, before, keep, limit),
    )


def _remove_old(work: _Work, table: Table, before: datetime | date) -> None:
    limit = work.policy.batch_rows
    _remove(
        work,
        table,
        limit,
        count=lambda conn: retention.count_old(conn, table, before),
        delete=lambda conn: retention.delete_old(conn, table, before, limit),
    )


def _remove(
    work: _Work,
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


def _drop_months(work: _Work, today: date, days: int) -> None:
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
    if work.run.dry_run:
        work.dropped += work.do(lambda conn: retention.list_months_before(conn, before))
    else:
        while dropped := work.do(lambda conn: retention.drop_month(conn, before), is_ddl=True):
            work.dropped.append(dropped.name)
            work.count("workspace_snapshots", dropped.snapshots)
            work.run.progress("dropping months", len(work.dropped), 0)
    _remove_old(work, "workspace_snapshots", kept)
    if work.dropped:
        work.first_kept_day = kept


def _vacuum(work: _Work) -> None:
    """Tidy up what lost much; a table that is locked just now is passed over until the next run."""
    if work.run.dry_run:
        return
    work.do(retention.flush_statistics)
    for each in work.do(lambda conn: retention.list_vacuums(conn, work.removed)):
        work.check()
        work.run.progress("tidying up", len(work.vacuumed), 0)
        warnings = retention.vacuum(work.run.db, each.statement)
        work.notes += warnings
        if not warnings:
            work.vacuumed.append(each.table_name)


def _note_sizes(work: _Work) -> None:
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


def _deadline() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the deadline came before everything was removed", hint="the next run goes on; or give it --deadline 1h"
    )


def _result(work: _Work) -> Result:
    removed = {name: rows for name, rows in work.removed.items() if rows}
    counts = {
        "rows_removed": sum(work.removed.values()),
        **work.removed,
        "months_dropped": len(work.dropped),
        "months_made": len(work.made),
        "vacuumed": len(work.vacuumed),
        **work.megabytes,
    }
    details = {
        "removed": work.removed,
        "months_dropped": work.dropped,
        "months_made": work.made,
        "vacuumed": work.vacuumed,
        "notes": work.notes,
        "first_kept_day": work.first_kept_day,
    }
    said = [
        f"{counts['rows_removed']} rows removed"
        + (f" ({', '.join(f'{rows} {name}' for name, rows in removed.items())})" if removed else ""),
        *_said_of_months(work),
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


def _said_of_months(work: _Work) -> list[str]:
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
