"""Dead-man pings: tells a watcher elsewhere that a run began and how it ended, so that our silence is noticed.

The watcher's address is ``URL/start`` at the begin, ``URL`` after a success, ``URL/EXIT-CODE`` after anything else. No
text of this module names more of the address than its host: whoever knows the rest can feign our life.
"""

from __future__ import annotations

import re
import threading
import time
from urllib.parse import urlsplit

from bisonsync.api.quoting import quote
from bisonsync.errors import ConfigError

# How long a run that is over waits for its watcher, with all tries.
PATIENCE_SECONDS = 5.0
TRIES = 2
PAUSE_SECONDS = 0.3


class Heartbeat:
    """The pings of one run. Nothing here raises, and nothing waits longer than ``PATIENCE_SECONDS``."""

    def __init__(self, url: str, *, user_agent: str) -> None:
        self._url = url
        self._user_agent = user_agent
        self._begin: _Ping | None = None

    @property
    def begin_error(self) -> str | None:
        """Why the watcher does not know of the begin; None when it does."""
        return self._begin.error if self._begin else None

    def begin(self) -> None:
        """Tell of the begin, in a thread that nobody waits for."""
        self._begin = self._ping("/start", tries=1, seconds=PATIENCE_SECONDS)

    def end(self, exit_code: int) -> str | None:
        """Tell how the run ended. Returns why the watcher could not be told, None when it was."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        if self._begin is not None:
            # A begin that arrives after the end would look like a run that never ends.
            self._begin.join(PATIENCE_SECONDS / 2)
        suffix = f"/{exit_code}" if exit_code else ""
        ping = self._ping(suffix, tries=TRIES, seconds=give_up_at - time.monotonic())
        # The name of the host may be looked up for longer than any time-out says.
        ping.join(max(0.0, give_up_at - time.monotonic()))
        return ping.error

    def _ping(self, suffix: str, *, tries: int, seconds: float) -> _Ping:
        ping = _Ping(self._url, suffix, self._user_agent, tries, time.monotonic() + seconds)
        ping.start()
        return ping


class _Ping(threading.Thread):
    """One ping, tried up to ``tries`` times until ``give_up_at``. ``error`` is None once it has arrived."""

    def __init__(self, url: str, suffix: str, user_agent: str, tries: int, give_up_at: float) -> None:
        super().__init__(name="ping", daemon=True)
        self.error: str | None = "no answer in time"
        self._parts = urlsplit(url)
        self._suffix = suffix
        self._user_agent = user_agent
        self._tries = tries
        self._give_up_at = give_up_at

    def run(self) -> None:
        for left in range(self._tries, 0, -1):
            self.error, may_pass = self._try_once((self._give_up_at - time.monotonic()) / left)
            if not may_pass or time.monotonic() + PAUSE_SECONDS >= self._give_up_at:
                return
            if left > 1:
                time.sleep(PAUSE_SECONDS)

    def _try_once(self, seconds: float) -> tuple[str | None, bool]:
        """Why it did not arrive, and whether another try may help."""
        # httpx is imported here, beside the job's own work.
        from bisonsync.api.http import Http
        from bisonsync.retry import Transient

        parts = self._parts
        path = parts.path.rstrip("/") + self._suffix + (f"?{parts.query}" if parts.query else "")
        try:
            http = Http(
                f"{parts.scheme}://{parts.netloc}",
                user_agent=self._user_agent,
                connect_timeout_seconds=seconds,
                read_timeout_seconds=seconds,
                monotonic=time.monotonic,
            )
            try:
                answer = http.send("GET", path or "/", token="", give_up_at=time.monotonic() + seconds)
            finally:
                http.close()
        except Transient as fault:
            # The other side may have echoed the rest.
            secrets = [part for part in re.split(r"[/?&=]", f"{parts.path}?{parts.query}") if len(part) > 3]
            return quote(fault.reason, secrets=[*secrets, parts.username or "", parts.password or ""]), True
        except ConfigError as error:
            return f"this machine's proxy or certificates cannot be used: {error.hint}", False
        except Exception as error:  # its text may hold the address
            return type(error).__name__, False
        if 200 <= answer.status < 300:
            return None, False
        return f"HTTP {answer.status}", answer.status >= 500 or answer.status in (408, 425, 429)
