"""A connection whose waiting can be ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

T = TypeVar("T")

# When time is up the server is asked to cancel what it is at, and so long waited for its answer.
_CANCEL_SECONDS = 1.5


class OutOfTime(psycopg.OperationalError):
    """The deadline came before the answer. ``is_alive``: the server then still answered a request to cancel."""

    is_alive = False


class WatchedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waiting can be ended: libpq by itself waits for ever on a peer that only acknowledges.

    ``may_cancel``: what is under way can be cancelled without harm to others. Not so a BEGIN or COMMIT: behind a
    pooler the server's end may be another client's by the time that the request arrives.
    """

    now: Callable[[], float]
    still_waiting: Callable[[float], None]
    may_cancel = False

    @property
    def is_cancellable(self) -> bool:
        """True while the server is at a statement of ours that may be cancelled."""
        return self.may_cancel and not self.closed and self.pgconn.transaction_status == TransactionStatus.ACTIVE

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """As psycopg's, which looks up ten times a second; ``still_waiting`` then hears for how long, and may raise."""
        return super().wait(self._watch(gen), *args, **kwargs)

    def _watch(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        ready: Any = None
        began = self.now()
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as ended:
                return ended.value
            ready = yield wanted
            try:
                self.still_waiting(self.now() - began)
            except BaseException as error:
                is_alive = yield from self._give_up(gen, ready)
                if isinstance(error, OutOfTime):
                    error.is_alive = is_alive
                raise

    def _give_up(self, gen: Generator[Any, Any, Any], ready: Any) -> Generator[Any, Any, bool]:
        """Have the server end what it is at, which it would go on with, and close; True if it answered in time."""
        try:
            if self.is_cancellable:
                give_up_at = self.now() + _CANCEL_SECONDS
                cancel_all([self], _CANCEL_SECONDS)
                while self.now() < give_up_at:
                    ready = yield gen.send(ready)
        except StopIteration:
            return True
        except psycopg.Error as error:
            return error.sqlstate is not None
        finally:
            # Cancelled or in the middle of an answer: of no use any more, and a roll-back would wait again.
            self.close()
        return False


def cancel_all(connections: Iterable[WatchedConnection], seconds: float) -> None:
    """Ask the server, side by side, to end what these connections are at; return when it has heard, or time is up."""

    def ask(conn: WatchedConnection) -> None:
        with suppress(psycopg.Error):
            conn.cancel_safe(timeout=seconds)

    # In threads, for an older libpq knows no time-out here.
    asking = [threading.Thread(target=ask, args=(conn,), name="cancel", daemon=True) for conn in connections]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(seconds)
