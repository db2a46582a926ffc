"""The token bucket of each instance: a row that all processes and hosts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from psycopg.rows import class_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("budgets")


class Taken(NamedTuple):
    """What a bucket gave; with no tokens, when to ask again, and whether a 429 is why."""

    tokens: int
    wait_seconds: float = 0.0
    is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class Rate:
    """What is known of an instance's rate; ``slow_share`` is what 429s have left of it, 1 when nothing slows it.

    ``requests_per_minute`` is the configured rate, ``limit_told`` what the API allows the key.
    """

    bison_instance: str
    requests_per_minute: int
    limit_told: int | None
    foreign_per_minute: float
    slow_share: float


def take(conn: Connection, instance: str, *, wanted: int, requests_per_minute: int, reserve: float = 0.0) -> Taken:
    """Take up to ``wanted`` tokens; with none, how many seconds until it is worth asking again.

    ``reserve`` is the share of what the API allows that is left to others.
    """
    parameters = {"instance": instance, "requests_per_minute": requests_per_minute, "reserve": reserve}
    row = conn.execute(_Q["lock_budget"], parameters).fetchone()
    if row is None:
        conn.execute(_Q["create_budget"], parameters)
        row = conn.execute(_Q["lock_budget"], parameters).fetchone()
        assert row is not None  # made just now, in this transaction or another
    tokens, per_minute, blocked_seconds = row
    if blocked_seconds > 0:
        return Taken(0, blocked_seconds, is_blocked=True)
    granted = min(wanted, int(tokens))
    if granted <= 0:
        return Taken(0, (1 - tokens) * 60 / per_minute)
    conn.execute(_Q["set_budget"], {**parameters, "tokens": tokens - granted})
    return Taken(granted)


def note(
    conn: Connection, instance: str, *, sent: int, succeeded: int, limit: int | None, remaining: int | None
) -> None:
    """Store what the answers to ``sent`` requests told; ``succeeded`` of them brought something."""
    told = {"sent": sent, "succeeded": succeeded, "limit": limit, "remaining": remaining}
    conn.execute(_Q["note_answers"], {"instance": instance, **told})


def give_back(conn: Connection, instance: str, tokens: int) -> None:
    """Return what was taken and not spent."""
    conn.execute(_Q["give_back"], {"instance": instance, "tokens": tokens})


def block(conn: Connection, instance: str, seconds: float) -> None:
    """Nobody may ask this instance for so long; the second time in a row slows it for minutes."""
    conn.execute(_Q["block_budget"], {"instance": instance, "seconds": seconds})


def list_rates(conn: Connection) -> list[Rate]:
    """The rate of every instance that was ever asked."""
    with conn.cursor(row_factory=class_row(Rate)) as cursor:
        return cursor.execute(_Q["list_rates"]).fetchall()
