"""Runs a sandbox: in a background thread for tests, or in the foreground until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

from bisonsync.sandbox import control
from bisonsync.sandbox.advance import Advance, advance, change_some
from bisonsync.sandbox.app import App
from bisonsync.sandbox.config import Config, with_moods
from bisonsync.sandbox.faults import Fault
from bisonsync.sandbox.listener import Listener
from bisonsync.sandbox.state import World


class Sandbox:
    """A local Email Bison look-alike in a background thread.

    Usable as a context manager; keyword arguments are fields of `Config`. Whoever touches `world` while requests
    may come in holds `lock`.
    """

    def __init__(self, config: Config | None = None, *, host: str = "127.0.0.1", port: int = 0, **fields: Any) -> None:
        self.app = App(replace(config or Config(), **fields))
        self._host = host
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: Listener | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def config(self) -> Config:
        return self.app.config

    @property
    def lock(self) -> threading.RLock:
        return self.app.lock

    @property
    def world(self) -> World:
        return self.app.world

    @property
    def port(self) -> int:
        return self._listener.port if self._listener else self._port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def super_admin_token(self) -> str:
        return self.config.super_admin_token

    def start(self) -> Sandbox:
        """Listen, and return when connections are accepted. Raises OSError when the port is taken."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="sandbox", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def stop(self) -> None:
        """Cut all connections and end the thread. Stopping twice is fine."""
        if self._thread is not None:
            self._in_loop(lambda: self._stopping and self._stopping.set())
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def mint(self, workspace_id: int, name: str = "token") -> str:
        """Make an api-user token of a workspace and return its text."""
        with self.lock:
            return self.world.mint(workspace_id, name).plain

    def add_fault(self, fault: Fault | str, **fields: Any) -> int:
        """Put a fault in force, as `Fault` or as its kind and fields, and return its number."""
        with self.lock:
            return self.app.faults.add(Fault(kind=fault, **fields) if isinstance(fault, str) else fault)  # pyright: ignore[reportArgumentType]

    def clear_faults(self, fault_id: int | None = None) -> None:
        with self.lock:
            self.app.faults.clear(fault_id)

    def set_moods(self, **moods: Any) -> None:
        """Change moods: fields of `Config` such as latency, rate_limit, identity_key."""
        with self.lock:
            self.app.config = with_moods(self.app.config, moods)

    def advance(self, **fields: Any) -> dict[str, int]:
        """Move time on by one step; the fields are those of `Advance`."""
        with self.lock:
            return advance(self.world, Advance(**fields))

    def change(self, **fields: Any) -> list[int]:
        """Change exactly `percent` or `count` accounts (or campaigns) and return their ids; see `change_some`."""
        with self.lock:
            return change_some(self.world, **fields)

    def truth(self) -> Mapping[int, list[dict[str, Any]]]:
        """Return every account's row per workspace, newest first."""
        with self.lock:
            return self.world.truth()

    def campaigns(self) -> Mapping[int, list[dict[str, Any]]]:
        """Return every campaign's row per workspace, newest first."""
        with self.lock:
            return self.world.campaigns()

    def make_events(self, **fields: Any) -> dict[str, Any]:
        """Let so many events of a type happen at once; the fields are those of the control `events`."""
        with self.lock:
            return control.make_events(self.app, fields)

    def settle(self, timeout: float = 30.0) -> None:
        """Wait until every webhook is delivered or given up. Raises TimeoutError."""
        self.app.courier.settle(timeout)

    def summary(self) -> dict[str, Any]:
        """Tell the state in figures, as GET /_sandbox/state does."""
        with self.lock:
            return control.summary(self.app)

    def forget_requests(self) -> None:
        """Start counting requests anew."""
        with self.lock:
            self.app.counters.forget()

    def reset(self, **fields: Any) -> None:
        """Begin anew, with other fields of `Config` if given; minted tokens are gone."""
        self.app.reset(replace(self.config, **fields))

    @contextlib.contextmanager
    def refusing(self) -> Generator[None]:
        """Refuse every connection while the block runs."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("the sandbox is not running")
        self._in_loop(listener.close)
        try:
            yield
        finally:
            self._in_loop(listener.open)

    def _in_loop(self, call: Callable[[], object]) -> None:
        """Run a call in the loop's thread and wait until it has run. Raises what it raises."""

        async def run() -> None:
            call()

        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._main(lambda: ready.set()))
        except BaseException as failure:  # raised again in the thread that waits
            self._failure = failure
        finally:
            ready.set()

    async def _main(self, on_ready: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._listener = Listener(self.app.handle, self._host, self._port)
        self._listener.open()
        self.app.refuse = self._listener.refuse
        self.app.url = self.url
        self.app.courier.start()
        on_ready()
        try:
            await self._stopping.wait()
        finally:
            # A courier may be waiting for an answer of somebody who waits for one of ours.
            await asyncio.to_thread(self.app.courier.stop)
            await self._listener.stop()

    async def _serve(self, on_ready: Callable[[Sandbox], object]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: self._stopping and self._stopping.set())
        await self._main(lambda: on_ready(self))


def serve(
    config: Config | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8025,
    on_ready: Callable[[Sandbox], object] = lambda _: None,
) -> None:
    """Serve in the foreground until INT or TERM. Raises OSError when the port is taken.

    `on_ready` is called once connections are accepted; it can print `.url` and `.super_admin_token`.
    """
    sandbox = Sandbox(config, host=host, port=port)
    asyncio.run(sandbox._serve(on_ready))
