"""The stored deliveries that are due or chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bisonsync.errors import DatabaseError
from bisonsync.jobs.replay_webhooks.crew import Crew
from bisonsync.jobs.replay_webhooks.notes import Notes
from bisonsync.run import Problem, Run
from bisonsync.store import replay, webhooks
from bisonsync.store.db import Connection
from bisonsync.store.replay import Choice, Chosen
from bisonsync.store.webhooks import Outcome

PAGE_ROWS = 100_000


class StoredDeliveries:
    """Those that a choice means, or that are due: ``wanted`` of them, none that came after ``last_id``."""

    def __init__(self, run: Run, crew: Crew, notes: Notes, choice: Choice | None, *, wanted: int, last_id: int) -> None:
        self._run = run
        self._crew = crew
        self._notes = notes
        self._choice = choice
        self._wanted = wanted
        self._last_id = last_id

    def items(self) -> Iterator[Chosen]:
        """Each once, so that one that stays due cannot keep the run going."""
        after = replay.BEFORE_ALL
        left = self._wanted
        while left > 0:
            page = self._crew.do(
                partial(
                    replay.list_chosen,
                    choice=self._choice,
                    after=after,
                    last_id=self._last_id,
                    limit=min(PAGE_ROWS, left),
                )
            )
            if not page:
                return
            after = page[-1]
            left -= len(page)
            for chosen in page:
                # Never applied, whoever asks for it.
                if chosen.status == "test":
                    self._notes.counts["test"] += 1
                else:
                    yield chosen

    def size(self, item: Chosen) -> int:
        """They are not sent to the database, which has them."""
        return 0

    def apply(self, conn: Connection, batch: Sequence[Chosen]) -> list[Outcome]:
        """Those that another transaction holds, and those without payload, are left out."""
        return webhooks.process(conn, [chosen.id for chosen in batch], [chosen.received_at for chosen in batch])

    def count_failures(self, batch: Sequence[Chosen], outcomes: Sequence[Outcome]) -> int:
        """One that was dead before is known."""
        dead = {chosen.id for chosen in batch if chosen.status == "dead"}
        return sum(
            outcome.status == "failed" or (outcome.status == "dead" and outcome.id not in dead) for outcome in outcomes
        )

    def note(self, batch: Sequence[Chosen], outcomes: Sequence[Outcome]) -> None:
        """Count them."""
        dead = frozenset(chosen.id for chosen in batch if chosen.status == "dead")
        self._notes.add(outcomes, known_dead=dead)
        self._notes.counts["skipped"] += len(batch) - len(outcomes)
        self._run.progress("replaying", self._crew.done, self._wanted)

    def lose(self, batch: Sequence[Chosen], error: DatabaseError) -> None:
        """They stay as they are, and are due again."""
        self._notes.counts["skipped"] += len(batch)
        self._notes.problems.append(Problem.of(error))
