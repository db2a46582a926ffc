"""One process that receives: an event loop in a thread of its own, so that the main thread keeps the signals."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import uvicorn

from bisonsync.keys import WorkspaceKey
from bisonsync.receiver.app import Counts, Receiver
from bisonsync.receiver.lines import LibraryHandler, Lines
from bisonsync.receiver.watch import Watch
from bisonsync.receiver.writer import Writer
from bisonsync.store.db import Database

# How long answers are waited for at the end; longer than any of them may take.
_GRACE_SECONDS = 16
_KEEP_ALIVE_SECONDS = 65
_BACKLOG = 2048

Databases = Callable[[], Database]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process needs to know; handed to workers through a pipe, for arguments show in the process list."""

    dsn: str = field(repr=False)
    owners: Mapping[bytes, WorkspaceKey] = field(repr=False)
    version: str
    log_json: bool
    quiet: bool
    keep_bodies: bool = False


class Server:
    """Serves a listening socket from ``start`` to ``stop``."""

    def __init__(self, sock: socket.socket, plan: Plan, lines: Lines, connect: Databases) -> None:
        self._sock = sock
        self._plan = plan
        self._lines = lines
        self._connect = connect
        self._counts = Counts()
        self._uvicorn: uvicorn.Server | None = None
        self._is_stopping = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin to serve; returns when requests are answered, or with ``error`` set."""
        for name in ("uvicorn", "uvicorn.error", "asyncio"):
            logger = logging.getLogger(name)
            logger.handlers = [LibraryHandler(self._lines)]
            logger.propagate = False
            logger.setLevel(logging.WARNING)
        self._thread.start()
        self._ready.wait()

    @property
    def is_serving(self) -> bool:
        """False once it ended, by ``stop`` or by an error."""
        return self._thread.is_alive()

    def look(self) -> None:
        """Raises what ended it, if it ended."""
        if self.error is not None:
            raise self.error

    def stop(self) -> Counts:
        """Take no more, answer what was accepted, and end."""
        self._is_stopping = True
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True
        self._thread.join()
        return self._counts

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # the main thread decides what becomes of it
            self.error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        def warn(message: str) -> None:
            self._lines.say(message, level="warning")

        watch = Watch(self._connect(), self._plan.owners, monotonic=time.monotonic, tell=warn)
        writer = Writer(self._connect(), monotonic=time.monotonic, tell=warn, note=watch.note_write)
        app = Receiver(writer, watch, self._lines, version=self._plan.version, keep_bodies=self._plan.keep_bodies)
        self._counts = app.counts
        server = self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        server.should_exit = self._is_stopping
        try:
            serving = asyncio.ensure_future(server.serve([self._sock]))
            while not (server.started or serving.done()):
                await asyncio.sleep(0.005)
            self._ready.set()
            await serving
        finally:
            await asyncio.to_thread(writer.end)
            await asyncio.to_thread(watch.end)
