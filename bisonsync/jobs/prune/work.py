"""What every step shares: the limits of a transaction, what is counted and told, and when it is time to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TypeVar

from bisonsync.errors import DatabaseError, DatabaseUnavailable, DeadlineExceeded, GuardRefused, SchemaMismatch
from bisonsync.run import Problem, Run
from bisonsync.store import leases
from bisonsync.store.db import Connection
from bisonsync.store.partitions import Ahead

T = TypeVar("T")

BATCH_ROWS = 5_000
# DDL waits a second at most, so that the readers queued behind it do not stand; then it lets them pass.
DDL_LOCK_SECONDS = 1.0
DDL_LOCK_ATTEMPTS = 8
AHEAD_LOCK_ATTEMPTS = 2
ROW_LOCK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say; ``as_of`` takes the place of the database's clock in a rehearsal."""

    retention_days: Mapping[str, int]
    timezone: str
    batch_rows: int = BATCH_ROWS
    as_of: datetime | None = None


@dataclass
class Work:
    """What was done so far, or in a dry run what would be."""

    run: Run
    policy: Policy
    removed: dict[str, int] = field(default_factory=dict[str, int])
    dropped: list[str] = field(default_factory=list[str])
    made: list[str] = field(default_factory=list[str])
    days_made: list[str] = field(default_factory=list[str])
    days_slimmed: dict[str, int] = field(default_factory=dict[str, int])
    days_dropped: list[str] = field(default_factory=list[str])
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
            raise deadline()

    def count(self, table: str, rows: int) -> None:
        """Add to what was removed from a table."""
        self.removed[table] = self.removed.get(table, 0) + rows

    def do(self, work: Callable[[Connection], T], *, is_ddl: bool = False, lock_attempts: int | None = None) -> T:
        """One transaction, written only while the lease is ours."""

        def fenced(conn: Connection) -> T:
            if self.run.lease is not None:
                leases.require(conn, self.run.lease)
            return work(conn)

        self.check()
        done = self.run.db.run(
            fenced,
            statement_timeout_seconds=0,
            lock_timeout_seconds=DDL_LOCK_SECONDS if is_ddl else ROW_LOCK_SECONDS,
            lock_attempts=lock_attempts or (DDL_LOCK_ATTEMPTS if is_ddl else 1),
        )
        self.committed = self.committed or not self.run.dry_run
        return done

    def do_ddl(self, work: Callable[[Connection], T], /) -> T:
        """One transaction that may have to wait for everybody who uses a table."""
        return self.do(work, is_ddl=True)

    def do_ahead(self, work: Callable[[Connection], T], /) -> T:
        """The same where there is time until the next run."""
        return self.do(work, is_ddl=True, lock_attempts=AHEAD_LOCK_ATTEMPTS)

    def note_ahead(self, made: list[str], ahead: Ahead) -> None:
        """Add to the partitions made; what could not be made in advance is noted."""
        made += ahead.made
        self.notes += [ahead.warning] if ahead.warning else []

    def keep(self, name: str, dependents: str, table: str) -> None:
        """Tell that a partition stays because of what stands on it."""
        self.problems.append(
            Problem(
                "dependents",
                f"{name} is past its retention and stays: {dependents} stands on it",
                f"drop that, or let it read {table} instead; the next prune drops {name}",
            )
        )

    def attempt(self, name: str, step: Callable[[], None]) -> None:
        """Do one step; raises what ends the whole run."""
        try:
            step()
        except (DatabaseUnavailable, SchemaMismatch):
            if self.run.clock.monotonic() >= self.run.deadline:
                raise deadline() from None
            raise
        except DatabaseError as error:
            if self.run.clock.monotonic() >= self.run.deadline:
                raise deadline() from None
            self.problems.append(replace(Problem.of(error), message=f"{name}: {error.message}"))
        except GuardRefused as error:
            self.problems.append(Problem.of(error))


def deadline() -> DeadlineExceeded:
    """The end of a run that is out of time."""
    return DeadlineExceeded(
        "the deadline came before everything was removed", hint="the next run goes on; or give it --deadline 1h"
    )
