"""The token bucket of each instance: a row that all processes and hosts share."""

from __future__ import annotations

from typing import NamedTuple

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("budgets")


class Taken(NamedTuple):
    """What a bucket gave; with no tokens, when to ask again, and whether a 429 is why."""

    tokens: int
    wait_seconds: float = 0.0
    is_blocked: bool = False


def take(conn: Connection, instance: str, *, wanted: int, requests_per_minute: int) -> Taken:
    """Take up to ``wanted`` tokens; with none, how many seconds until it is worth asking again."""
    parameters = {"instance": instance, "requests_per_minute": requests_per_minute}
    row = conn.execute(_Q["lock_budget"], parameters).fetchone()
    if row is None:
        conn.execute(_Q["create_budget"], parameters)
        row = conn.execute(_Q["lock_budget"], parameters).fetchone()
        assert row is not None  # made just now, in this transaction or another
    tokens, blocked_seconds = row
    if blocked_seconds > 0:
        return Taken(0, blocked_seconds, is_blocked=True)
    granted = min(wanted, int(tokens))
    if granted <= 0:
        return Taken(0, (1 - tokens) * 60 / requests_per_minute)
    conn.execute(_Q["set_budget"], {**parameters, "tokens": tokens - granted})
    return Taken(granted)


def give_back(conn: Connection, instance: str, tokens: int) -> None:
    """Return what was taken and not spent."""
    conn.execute(_Q["give_back"], {"instance": instance, "tokens": tokens})


def block(conn: Connection, instance: str, seconds: float) -> None:
    """Nobody may ask this instance for so long."""
    conn.execute(_Q["block_budget"], {"instance": instance, "seconds": seconds})
