"""Lines on stderr, written by a thread of their own: a reader that stands still must not stop deliveries."""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# So many lines wait for a slow reader; what comes then is counted and dropped.
_MOST_WAITING = 10_000
_END_SECONDS = 2.0


@dataclass(slots=True)
class Access:
    """What is told of a request: nothing of its path, its headers or its body."""

    method: str
    path: str = "/…"
    workspace: str | None = None
    status: int = 0
    size: int = 0
    milliseconds: float = 0.0
    became: str | None = None


class Lines:
    """The log of one process. ``quiet`` leaves out requests that went well."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="lines", daemon=True)
        self._thread.start()

    def access(self, request: Access) -> None:
        """One line for one request."""
        if self._quiet and request.status < 400:
            return
        milliseconds = round(request.milliseconds, 1)
        if self._as_json:
            self._put(
                {
                    "time": _now(),
                    "level": "info",
                    "message": "request",
                    "method": request.method,
                    "path": request.path,
                    "workspace": request.workspace,
                    "status": request.status,
                    "bytes": request.size,
                    "ms": milliseconds,
                    "delivery": request.became,
                }
            )
            return
        workspace, became = request.workspace or "-", request.became or "-"
        parts = (request.method, request.path, workspace, request.status, became, request.size, "B", milliseconds, "ms")
        self._put(" ".join([_now(), *map(str, parts)]))

    def say(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """One line about the receiver itself."""
        if self._quiet and level == "info":
            return
        if self._as_json:
            self._put({"time": _now(), "level": level, "message": message, **fields})
        else:
            self._put(f"{_now()} {message}" if level == "info" else f"{_now()} {level}: {message}")

    def close(self) -> None:
        """Write what waits, as far as somebody reads it."""
        self._waiting.put(None)
        self._thread.join(_END_SECONDS)

    def _put(self, line: str | dict[str, Any]) -> None:
        if self._waiting.qsize() >= _MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.put(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False))

    def _write_all(self) -> None:
        ended = False
        while not ended:
            lines = [self._waiting.get()]
            while not self._waiting.empty():
                lines.append(self._waiting.get())
            ended = None in lines
            if self._dropped:
                lines.append(f"{_now()} warning: {self._dropped} lines were dropped: nobody read them fast enough")
                self._dropped = 0
            try:
                sys.stderr.write("".join(f"{line}\n" for line in lines if line is not None))
                sys.stderr.flush()
            except (OSError, ValueError):
                # The reader is gone; deliveries go on.
                continue


class LibraryHandler(logging.Handler):
    """Turns what the server's libraries warn of into lines, without their tracebacks, which could quote a request."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        has_numbers_alone = isinstance(record.args, tuple) and all(isinstance(arg, int) for arg in record.args)
        said = record.getMessage() if has_numbers_alone or not record.args else str(record.msg)
        first = said.strip().partition("\n")[0]
        self._lines.say(f"{first} ({kind.__name__})" if kind else first, level=record.levelname.lower())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
