"""Puts deliveries into the database: everything that waits goes into one transaction, and nothing waits for company."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bisonsync.errors import DatabaseError
from bisonsync.store import webhooks
from bisonsync.store.db import Database
from bisonsync.store.db_errors import is_row_fault
from bisonsync.store.webhooks import Delivery, Outcome

# Bounds of one transaction; a single delivery may be larger.
MAX_ROWS = 500
MAX_BYTES = 8 * 1024 * 1024
# The sender gives up after 15 s: an answer that comes later is none.
PATIENCE_SECONDS = 8.0
_LOCK_SECONDS = 3.0

Told = Callable[[str], None]
Noted = Callable[[Exception | None], None]


@dataclass(slots=True, eq=False)
class Ticket:
    """A delivery on its way; ``answer`` is what became of it, or None where it could not be stored."""

    delivery: Delivery = field(repr=False)
    size: int
    answer: asyncio.Future[Outcome | None]
    is_withdrawn: bool = False


class Writer:
    """One thread with one connection. ``submit`` and ``withdraw`` belong to the event loop's thread.

    ``note`` hears of each transaction's error, and None where it was committed; not of the faults of a delivery.
    """

    def __init__(self, db: Database, *, monotonic: Callable[[], float], tell: Told, note: Noted) -> None:
        self._db = db
        self._monotonic = monotonic
        self._tell = tell
        self._note = note
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._is_ending = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_all, name="writer", daemon=True)
        self.last_stored_at: datetime | None = None
        self.is_last_stored: bool | None = None
        self.stored = 0
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many deliveries wait for their transaction."""
        return len(self._waiting)

    def submit(self, delivery: Delivery, size: int) -> Ticket:
        """Have a delivery stored with the next transaction, which begins at once when none is under way."""
        ticket = Ticket(delivery, size, self._loop.create_future())
        with self._changed:
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for its answer any more; it is left out where its transaction has not begun."""
        ticket.is_withdrawn = True

    def end(self) -> None:
        """Store what waits, and end."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join(2 * PATIENCE_SECONDS)
        self._db.close()

    def _write_all(self) -> None:
        while group := self._take():
            try:
                answers: Sequence[Outcome | None] = self._write(group)
            except Exception as error:  # whatever it is, the thread must live and the senders must hear
                frames = "".join(traceback.format_tb(error.__traceback__)[-3:])
                self._tell(f"a bug: {type(error).__name__} while {len(group)} deliveries were stored:\n{frames}")
                self._note(error)
                answers = [None] * len(group)
            self._settle(group, answers)

    def _take(self) -> list[Ticket]:
        """Everything that waits, up to the bounds; empty at the end."""
        group: list[Ticket] = []
        size = 0
        with self._changed:
            while not group:
                self._changed.wait_for(lambda: self._waiting or self._is_ending)
                if not self._waiting:
                    return []
                while self._waiting and len(group) < MAX_ROWS:
                    ticket = self._waiting[0]
                    if not ticket.is_withdrawn and group and size + ticket.size > MAX_BYTES:
                        break
                    self._waiting.popleft()
                    if not ticket.is_withdrawn:
                        group.append(ticket)
                        size += ticket.size
        return group

    def _write(self, group: Sequence[Ticket]) -> Sequence[Outcome | None]:
        self._db.deadline = self._monotonic() + PATIENCE_SECONDS
        try:
            return self._store(group)
        except DatabaseError as error:
            if webhooks.is_for_all(error):
                self._tell(f"{len(group)} deliveries could not be stored: {error.message}")
                self._note(error)
                return [None] * len(group)
            if len(group) == 1:
                return self._give_up(error)
        # What one of them breaks must not be broken for the others.
        return [answer for ticket in group for answer in self._write_alone(ticket)]

    def _write_alone(self, ticket: Ticket) -> Sequence[Outcome | None]:
        if self._db.deadline is not None and self._monotonic() >= self._db.deadline:
            return [None]
        try:
            return self._store([ticket])
        except DatabaseError as error:
            return self._give_up(error)

    def _give_up(self, error: DatabaseError) -> Sequence[None]:
        cause = error.__cause__
        is_its_own = cause is not None and is_row_fault(cause)
        # A fault of the row's values is not quoted, for they are somebody's mail.
        told = f"Postgres refuses its values ({type(cause).__name__})" if is_its_own else error.message
        self._tell(f"a delivery could not be stored: {told}")
        if not is_its_own:
            self._note(error)
        return [None]

    def _store(self, group: Sequence[Ticket]) -> Sequence[Outcome]:
        """Store and apply in one transaction, which is committed when this returns.

        A lost connection is tried once more; where the commit had come through, the second one finds duplicates.
        """
        outcomes = self._db.run(
            lambda conn: webhooks.receive(conn, [ticket.delivery for ticket in group]),
            statement_timeout_seconds=PATIENCE_SECONDS,
            lock_timeout_seconds=_LOCK_SECONDS,
        )
        assert len(outcomes) == len(group), "one outcome for each delivery"
        self._note(None)
        return outcomes

    def _settle(self, group: Sequence[Ticket], answers: Sequence[Outcome | None]) -> None:
        stored = sum(answer is not None for answer in answers)
        self.stored += stored
        self.is_last_stored = stored == len(group)
        if stored:
            self.last_stored_at = datetime.now(UTC)
        self._loop.call_soon_threadsafe(_answer, list(zip(group, answers, strict=True)))


def _answer(pairs: Sequence[tuple[Ticket, Outcome | None]]) -> None:
    for ticket, outcome in pairs:
        if not ticket.answer.done():
            ticket.answer.set_result(outcome)
