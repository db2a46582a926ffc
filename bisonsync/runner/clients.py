"""The conversation with an instance, within the rate budget that all hosts share in the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from bisonsync import __version__
from bisonsync.errors import DatabaseError, DatabaseUnavailable
from bisonsync.runner.session import Session

if TYPE_CHECKING:
    from bisonsync.api.budget import Grant, Told
    from bisonsync.api.client import InstanceClient
    from bisonsync.settings.models import Instance
    from bisonsync.store.db import Connection

T = TypeVar("T")

# A block serves all lanes of an instance for a round or two; the rest of the budget stays for other processes.
BUDGET_BLOCK_PER_LANE = 3


def open_client(session: Session, name: str, instance: Instance, *, deadline: float) -> InstanceClient:
    """Begin the conversation with one instance; it is closed with the run."""
    from bisonsync.api.budget import Grant, RateBudget
    from bisonsync.api.client import InstanceClient
    from bisonsync.api.conversation import Conversation
    from bisonsync.api.http import Http
    from bisonsync.store import budgets

    polling = session.settings.polling
    locked_out: list[DatabaseError] = []

    def with_note(told: Told | None, work: Callable[[Connection], T]) -> T:
        """Store what the answers told in the transaction of the next thing that is asked of the budget."""

        def both(conn: Connection) -> T:
            if told is not None:
                budgets.note(conn, name, **asdict(told))
            return work(conn)

        return session.bookkeeping.run(both)

    def take(wanted: int, told: Told | None) -> Grant:
        rate, reserve = instance.requests_per_minute, instance.reserve
        # Every request asks: they must not wait for the same lock one after another.
        if locked_out:
            raise locked_out[0]
        try:
            taken = with_note(
                told,
                lambda conn: budgets.take(conn, name, wanted=wanted, requests_per_minute=rate, reserve=reserve),
            )
        except DatabaseUnavailable:
            raise
        except DatabaseError as error:
            locked_out.append(error)
            raise
        return Grant(taken.tokens, taken.wait_seconds, taken.is_blocked)

    budget = RateBudget(
        take,
        lambda tokens, told: with_note(told, lambda conn: budgets.give_back(conn, name, tokens)),
        lambda seconds, told: with_note(told, lambda conn: budgets.block(conn, name, seconds)),
        clock=session.clock,
        block_size=min(BUDGET_BLOCK_PER_LANE * instance.concurrency, instance.requests_per_minute),
    )
    http = Http(
        instance.base_url,
        user_agent=f"bisonsync/{__version__}",
        connect_timeout_seconds=polling.connect_timeout.total_seconds(),
        read_timeout_seconds=polling.read_timeout.total_seconds(),
        monotonic=session.clock.monotonic,
    )
    conversation = Conversation(
        name,
        http,
        budget,
        clock=session.clock,
        deadline=deadline,
        attempts=polling.retry_attempts,
        failures_before_giving_up=polling.failures_before_giving_up,
    )
    client = InstanceClient(conversation)
    session.clients.append(client)
    return client
