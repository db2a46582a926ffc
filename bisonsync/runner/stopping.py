"""Work that is left behind when a run is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bisonsync.errors import Stopped
from bisonsync.run import STOP_GRACE_SECONDS, Result
from bisonsync.runner.session import Session

LOOK_SECONDS = 0.2


def until_stopped(session: Session, work: Callable[[], Result]) -> Result:
    """Do ``work`` in a thread that is left behind when the run is stopped and a request hangs. Raises Stopped."""
    from concurrent.futures import Future, wait

    future: Future[Result] = Future()

    def call() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it belongs to whoever waits
            future.set_exception(error)

    threading.Thread(target=call, name="job", daemon=True).start()
    clock = session.clock
    give_up_at: float | None = None
    while not future.done():
        wait([future], timeout=LOOK_SECONDS)
        try:
            clock.check()
        except Stopped:
            give_up_at = give_up_at or clock.monotonic() + STOP_GRACE_SECONDS
            if clock.monotonic() >= give_up_at:
                raise
    return future.result()
