"""The deliveries in a file, stored and applied as they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import BinaryIO

from bisonsync.errors import DatabaseError
from bisonsync.jobs.replay_webhooks.crew import Crew
from bisonsync.jobs.replay_webhooks.lines import Broken, Line, read_lines
from bisonsync.jobs.replay_webhooks.notes import Notes
from bisonsync.run import Problem, Run
from bisonsync.store import webhooks
from bisonsync.store.db import Connection
from bisonsync.store.db_errors import is_row_fault
from bisonsync.store.webhooks import Outcome

# Beyond so many broken lines only their number is told.
MAX_NAMED = 100
_HINT = "put it right and replay the file again: what is stored already counts once"


class FileDeliveries:
    """The lines of a file, up to a number of them. ``received_at`` is for lines that do not tell it.

    ``keep_bodies``: mail bodies in them are stored.
    """

    def __init__(
        self,
        run: Run,
        crew: Crew,
        notes: Notes,
        stream: BinaryIO,
        *,
        received_at: datetime,
        limit: int | None,
        keep_bodies: bool,
    ) -> None:
        self._run = run
        self._crew = crew
        self._notes = notes
        self._stream = stream
        self._received_at = received_at
        self._limit = limit
        self._keep_bodies = keep_bodies
        self._broken: list[Broken] = []
        self.kinds: Counter[str] = Counter()

    def items(self) -> Iterator[Line]:
        """Those that can be stored; the others are kept for ``problems``."""
        now = self._run.clock.now()
        lines = read_lines(
            self._stream,
            received_at=self._received_at,
            now=now,
            check=self._crew.check,
            keep_bodies=self._keep_bodies,
        )
        for line in lines:
            self._notes.counts["chosen"] += 1
            if isinstance(line, Broken):
                self._break(line)
                self._crew.check()
            else:
                self.kinds[line.kind] += 1
                yield line
            if self._limit is not None and self._notes.counts["chosen"] >= self._limit:
                return

    def size(self, item: Line) -> int:
        """The length of the line."""
        return item.length

    def apply(self, conn: Connection, batch: Sequence[Line]) -> list[Outcome]:
        """Store and apply lines."""
        return webhooks.receive(conn, [line.delivery for line in batch])

    def count_failures(self, batch: Sequence[Line], outcomes: Sequence[Outcome]) -> int:
        """All are new."""
        return sum(outcome.status in ("failed", "dead") for outcome in outcomes)

    def note(self, batch: Sequence[Line], outcomes: Sequence[Outcome]) -> None:
        """Count them."""
        self._notes.add(outcomes)
        self._run.progress("replaying", self._crew.done, 0)

    def lose(self, batch: Sequence[Line], error: DatabaseError) -> None:
        """They are not stored."""
        if is_row_fault(error.__cause__ or error):
            self._broken.append(Broken(batch[0].number, "the database does not take it"))
            self._notes.counts["broken"] += 1
            return
        self._notes.counts["skipped"] += len(batch)
        message = f"lines {batch[0].number} to {batch[-1].number} were not stored: {error.message}"
        self._notes.problems.append(Problem(error.kind, message, error.hint))

    def problems(self) -> list[Problem]:
        """The broken lines by their numbers."""
        named = sorted(self._broken, key=lambda line: line.number)[:MAX_NAMED]
        found = [Problem("broken_line", f"line {line.number}: {line.reason}", _HINT) for line in named]
        if (more := self._notes.counts["broken"] - len(named)) > 0:
            found.append(Problem("broken_line", f"and {more} more broken lines", _HINT))
        return found

    def _break(self, line: Broken) -> None:
        self._notes.counts["broken"] += 1
        self._crew.fail()
        if len(self._broken) < MAX_NAMED:
            self._broken.append(line)
