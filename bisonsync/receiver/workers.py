"""Several processes on one socket: started, started again when one dies, and stopped together."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from bisonsync.receiver.app import Counts
from bisonsync.receiver.lines import Lines
from bisonsync.receiver.server import Plan, Server

# A process that dies at once is not started again and again without a pause.
_RESTART_SECONDS = 1.0
_GRACE_SECONDS = 20.0


class Pipe(Protocol):
    """One end of a pipe between two processes."""

    def poll(self, timeout: float = ..., /) -> bool: ...

    def recv(self) -> Any: ...

    def send(self, obj: Any, /) -> None: ...

    def close(self) -> None: ...


class Crew(Protocol):
    """One process, or several: what serves from ``start`` to ``stop``."""

    def start(self) -> None: ...

    def look(self) -> None: ...

    def stop(self) -> Counts: ...


Work = Callable[[Plan, socket.socket, Pipe], None]


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Pipe = field(repr=False)
    started_at: float


class Workers:
    """As many processes as wanted. Each ends by itself when its pipe to this one breaks."""

    def __init__(self, count: int, work: Work, plan: Plan, sock: socket.socket, lines: Lines) -> None:
        self._count = count
        self._work = work
        self._plan = plan
        self._sock = sock
        self._lines = lines
        # A fork would share the database connections and locks of this process.
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._counts = Counts()

    def start(self) -> None:
        """Start all, and return when each of them answers or has died."""
        while len(self._workers) < self._count:
            self._add()
        for worker in self._workers:
            self._hear(worker)

    def look(self) -> None:
        """Start again what died."""
        for worker in list(self._workers):
            if worker.process.is_alive() or time.monotonic() - worker.started_at < _RESTART_SECONDS:
                continue
            self._lines.say(f"worker {worker.process.pid} {_ending(worker.process)}; started again", level="warning")
            self._workers.remove(worker)
            worker.pipe.close()
            self._add()

    def stop(self) -> Counts:
        """Have all of them answer what they accepted, and end."""
        for worker in self._workers:
            worker.process.terminate()
        # As long as one process listens, new connections are taken and never answered.
        self._sock.close()
        give_up_at = time.monotonic() + _GRACE_SECONDS
        for worker in self._workers:
            self._hear(worker)
            worker.process.join(max(0.0, give_up_at - time.monotonic()))
            if worker.process.is_alive():
                self._lines.say(f"worker {worker.process.pid} does not end and is killed", level="warning")
                worker.process.kill()
                worker.process.join()
        return self._counts

    def _add(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=self._work, args=(self._plan, self._sock, theirs), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, time.monotonic()))

    def _hear(self, worker: _Worker) -> None:
        """What a worker says: first that it is ready, at its end what it did; nothing if it was killed."""
        try:
            while worker.pipe.poll(_GRACE_SECONDS):
                said = worker.pipe.recv()
                if said is None:
                    return
                for name, count in zip(("requests", "stored", "refused", "unavailable"), said, strict=True):
                    setattr(self._counts, name, getattr(self._counts, name) + count)
        except (EOFError, OSError):
            return


def work(server: Server, pipe: Pipe) -> None:
    """Be a worker: serve until TERM, INT, or the end of the process at the other end of ``pipe``."""
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: stopped.append(number))
    server.start()
    pipe.send(None)
    try:
        while not stopped and server.is_serving:
            # Nothing is ever sent this way: what can be read is the end.
            if pipe.poll(0.1):
                break
    except (EOFError, OSError):
        pass
    counts = server.stop()
    try:
        pipe.send(astuple(counts))
    except OSError:
        return


def _ending(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with {code}" if code is not None else "ended"
