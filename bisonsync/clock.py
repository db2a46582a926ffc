"""Time and waiting, passed into everything that needs them so that tests decide what time it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from bisonsync.errors import Stopped

# How often a sleeper looks whether the run was stopped.
_LOOK_SECONDS = 0.1


class Clock(Protocol):
    """``now`` is aware and UTC, ``monotonic`` is seconds; ``sleep`` and ``check`` raise Stopped after a stop."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...

    def check(self) -> None: ...


class SystemClock:
    """The machine's clock; ``stop`` ends every sleep at once."""

    def __init__(self) -> None:
        self._stopped_by = 0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.check()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))
            self.check()

    def check(self) -> None:
        if self._stopped_by:
            raise Stopped(self._stopped_by)

    def stop(self, signal_number: int) -> None:
        """The first one counts. Safe in a signal handler: an Event's lock might be held by what was interrupted."""
        self._stopped_by = self._stopped_by or signal_number
