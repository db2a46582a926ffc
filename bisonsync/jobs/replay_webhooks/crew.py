"""Workers that carry out batches, each batch a transaction under the job's lease."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from bisonsync.errors import BisonsyncError, DatabaseError, DatabaseUnavailable, DeadlineExceeded
from bisonsync.run import Run
from bisonsync.store import leases
from bisonsync.store.db import Connection
from bisonsync.store.db_errors import is_lock_fault, is_row_fault
from bisonsync.store.webhooks import Outcome

T = TypeVar("T")

BATCH_ROWS = 1_000
# Of text, before the database takes it in.
BATCH_BYTES = 8 * 1024 * 1024
WORKERS = 2
# A batch that falls back to one event at a time takes as long as so many events.
STATEMENT_SECONDS = 120.0
# A deadlock with another door of the inbox, or a row that one holds, is over soon.
LOCK_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """How many in all, how many a second, and after how many failures to stop; None: no limit."""

    rows: int | None = None
    per_second: float | None = None
    failures: int | None = None
    batch_rows: int = BATCH_ROWS


class Task(Protocol[T]):
    """What is done with items. Only ``apply`` is called by the workers, in a transaction that may be undone."""

    def items(self) -> Iterator[T]:
        """All of them."""
        ...

    def size(self, item: T) -> int:
        """Its bytes, as far as they count."""
        ...

    def apply(self, conn: Connection, batch: Sequence[T]) -> list[Outcome]:
        """Carry out a batch."""
        ...

    def count_failures(self, batch: Sequence[T], outcomes: Sequence[Outcome]) -> int:
        """How many of a batch failed now."""
        ...

    def note(self, batch: Sequence[T], outcomes: Sequence[Outcome]) -> None:
        """Hear of a batch that is committed."""
        ...

    def lose(self, batch: Sequence[T], error: DatabaseError) -> None:
        """Hear of one that could not be carried out."""
        ...


class TooManyFailures(BisonsyncError):
    """The run stops here, as it was asked to."""

    exit_code = 3
    kind = "max_failures"


class _Overshoot(Exception):
    """A batch fails more often than is left: it is undone, and done in parts."""


@dataclass(frozen=True, slots=True)
class _Part(Generic[T]):
    """A batch, or a part of one, and what became of it."""

    batch: Sequence[T]
    ended: list[Outcome] | DatabaseError


class Crew:
    """Carries out tasks within the run's limits. ``done``: items settled; ``committed``: whether anything was."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self._run = run
        self._limits = limits
        self._failures = 0
        self._begun_at: float | None = None
        self._begun = 0
        # Who limits wants to be exact; then one batch must end before the next begins.
        self._workers = 1 if limits.failures is not None or limits.per_second is not None else WORKERS
        self.done = 0
        self.committed = False

    def check(self) -> None:
        """Raise Stopped, DeadlineExceeded or TooManyFailures when it is time to end."""
        self._run.clock.check()
        if self._run.clock.monotonic() >= self._run.deadline:
            raise DeadlineExceeded(
                "the deadline came before everything was replayed", hint="run it again, or give it --deadline 1h"
            )
        if self._failures_left == 0:
            raise TooManyFailures(
                f"stopped after {self._failures} failures (--max-failures)",
                hint="look at one: bisonsync dead-letters list",
            )

    def fail(self) -> None:
        """Count one more failure."""
        self._failures += 1

    def do(self, work: Callable[[Connection], T]) -> T:
        """One transaction that is no batch, for as long as it takes."""
        self.check()
        try:
            return self._run.db.run(work, statement_timeout_seconds=0, lock_attempts=LOCK_ATTEMPTS)
        except DatabaseUnavailable:
            self.check()
            raise

    def carry_out(self, task: Task[T]) -> None:
        """Apply all items of a task in batches; what is under way is brought to its end before anything is raised."""
        under_way: deque[tuple[int, Future[list[_Part[T]]]]] = deque()
        # One more than there are workers, so that none waits for this thread.
        most = self._workers + 1 if self._workers > 1 else 1
        with ThreadPoolExecutor(self._workers, thread_name_prefix="replay") as pool:
            try:
                for batch in self._batches(task):
                    while len(under_way) >= most:
                        self._settle(task, *under_way.popleft())
                    self._pace(len(batch))
                    self.check()
                    under_way.append((len(batch), pool.submit(self._carry, task, batch, self._failures_left)))
                while under_way:
                    self._settle(task, *under_way.popleft())
            except BaseException as error:
                self._wind_up(task, under_way)
                if isinstance(error, DatabaseUnavailable):
                    self.check()
                raise

    @property
    def _failures_left(self) -> int | None:
        most = self._limits.failures
        return None if most is None else max(0, most - self._failures)

    def _batches(self, task: Task[T]) -> Iterator[list[T]]:
        """The items of a task in batches, bounded by rows and bytes; by a second's worth where there is a rate."""
        rate = self._limits.per_second
        rows = self._limits.batch_rows if rate is None else max(1, min(self._limits.batch_rows, int(rate)))
        batch: list[T] = []
        filled = 0
        for item in task.items():
            size = task.size(item)
            if batch and (len(batch) >= rows or filled + size > BATCH_BYTES):
                yield batch
                batch, filled = [], 0
            batch.append(item)
            filled += size
        if batch:
            yield batch

    def _pace(self, count: int) -> None:
        """Wait until so many more may begin."""
        if self._limits.per_second is None:
            return
        clock = self._run.clock
        if self._begun_at is None:
            self._begun_at = clock.monotonic()
        due_at = min(self._begun_at + self._begun / self._limits.per_second, self._run.deadline)
        self._begun += count
        if (wait := due_at - clock.monotonic()) > 0:
            clock.sleep(wait)

    def _settle(self, task: Task[T], count: int, future: Future[list[_Part[T]]]) -> None:
        """Note what became of a batch; raises TooManyFailures where that is why some of it was not begun."""
        for part in (parts := future.result()):
            self.done += len(part.batch)
            if isinstance(part.ended, DatabaseError):
                self._failures += len(part.batch)
                task.lose(part.batch, part.ended)
            else:
                self.committed = True
                self._failures += task.count_failures(part.batch, part.ended)
                task.note(part.batch, part.ended)
        if sum(len(part.batch) for part in parts) < count:
            self.check()

    def _wind_up(self, task: Task[T], under_way: Iterable[tuple[int, Future[list[_Part[T]]]]]) -> None:
        """Note what is still committed; a further error says nothing new."""
        for count, future in [each for each in under_way if not each[1].cancel()]:
            with suppress(BisonsyncError):
                self._settle(task, count, future)

    # In the workers

    def _carry(self, task: Task[T], batch: Sequence[T], failures_left: int | None) -> list[_Part[T]]:
        """Carry out a batch, in parts where it must be; raises what would end every other batch as well."""
        try:
            return [_Part(batch, self._commit(task, batch, failures_left))]
        except _Overshoot:
            pass
        except DatabaseError as error:
            is_of_a_row = is_row_fault(error.__cause__ or error)
            if is_lock_fault(error.__cause__ or error) or (is_of_a_row and len(batch) == 1):
                return [_Part(batch, error)]
            if not is_of_a_row:
                raise
        # One of them harms only itself.
        done: list[_Part[T]] = []
        for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            left = None if failures_left is None else failures_left - self._failed(task, done)
            if left is None or left > 0:
                done += self._carry(task, part, left)
        return done

    def _commit(self, task: Task[T], batch: Sequence[T], failures_left: int | None) -> list[Outcome]:
        def work(conn: Connection) -> list[Outcome]:
            outcomes = task.apply(conn, batch)
            if failures_left is not None and task.count_failures(batch, outcomes) > failures_left:
                raise _Overshoot
            # Only now: the workers share the lease, and would wait for each other with their whole batches.
            with nullcontext() if self._run.lease is None else leases.fenced(conn, self._run.lease):
                return outcomes

        return self._run.db.run(work, statement_timeout_seconds=STATEMENT_SECONDS, lock_attempts=LOCK_ATTEMPTS)

    @staticmethod
    def _failed(task: Task[T], parts: Iterable[_Part[T]]) -> int:
        return sum(
            len(part.batch) if isinstance(part.ended, DatabaseError) else task.count_failures(part.batch, part.ended)
            for part in parts
        )
