"""Time and waiting, passed into everything that needs them so that tests decide what time it is."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

from bisonsync.errors import Stopped


class Clock(Protocol):
    """``now`` is aware and UTC, ``monotonic`` is seconds; ``sleep`` and ``check`` raise Stopped after a stop."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...

    def check(self) -> None: ...


class SystemClock:
    """The machine's clock; ``stop`` ends every sleep at once."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._signal_number = 0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped(self._signal_number)

    def check(self) -> None:
        if self._stop.is_set():
            raise Stopped(self._signal_number)

    def stop(self, signal_number: int) -> None:
        """Safe in a signal handler. The first signal names the reason."""
        if not self._stop.is_set():
            self._signal_number = signal_number
            self._stop.set()
