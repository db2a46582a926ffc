"""Listens on a port, can stop listening for a while, and cuts connections when it does."""

from __future__ import annotations

import asyncio
import socket

from bisonsync.sandbox.http import Connection, Handle


class Listener:
    """The listening socket and its connections; lives in the event loop's thread.

    Not an `asyncio.Server`: closing one loses connections that are just being accepted, and they hang.
    """

    def __init__(self, handle: Handle, host: str, port: int) -> None:
        self._handle = handle
        self._host = host
        self.port = port
        self._socket: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._reopening: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        if self._socket is None:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            self._socket = socket.create_server((self._host, self.port), family=family, backlog=1024)
            self._socket.setblocking(False)
            self.port = self._socket.getsockname()[1]
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Stop listening and cut every connection: from now on the port refuses."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for connection in list(self._connections):
            connection.abort()

    def refuse(self, seconds: float) -> None:
        """Refuse connections for so long, once the answer that is being written has left."""
        loop = asyncio.get_running_loop()
        if self._reopening is not None:
            self._reopening.cancel()
        loop.call_later(0.05, self.close)
        self._reopening = loop.call_later(0.05 + seconds, self._reopen)

    def _reopen(self) -> None:
        try:
            self.open()
        except OSError:  # somebody borrowed the port meanwhile
            self._reopening = asyncio.get_running_loop().call_later(0.05, self._reopen)

    async def stop(self) -> None:
        """Close for good, with every socket."""
        if self._reopening is not None:
            self._reopening.cancel()
        self.close()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        while self._connections:
            await asyncio.sleep(0)

    def _accept(self) -> None:
        while self._socket is not None:
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            task = asyncio.get_running_loop().create_task(self._welcome(sock))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _welcome(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        _, connection = await loop.connect_accepted_socket(lambda: Connection(self._handle, self._connections), sock)
        if self._socket is None:
            connection.abort()
