"""Stands between a command and Postgres, understands what is said, and does harm at a chosen point.

It reads just enough of the protocol (version 3, without TLS) to know each statement, each COMMIT with what its
transaction said before, and where the answer to it ends. Nothing of this is known to the code under test.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from bisonsync.queries import load_queries

When = Literal["statement", "answered", "commit", "committed"]
"""Before a statement is passed on; when its answer is there, before the client hears it; the same of a COMMIT."""

_CANCEL, _SSL, _GSS = 80877102, 80877103, 80877104


def said_by(family: str, name: str) -> str:
    """What only this named query says: the sentence that it opens with."""
    return load_queries(family)[name].splitlines()[0]


@dataclass
class Rule:
    """Do ``act`` the ``nth`` time that ``when`` happens with a statement (of the transaction) that holds ``text``.

    ``nth`` 0 is every time.
    """

    when: When
    text: str
    act: Callable[[Conversation], None]
    nth: int = 1
    seen: int = 0
    hit: threading.Event = field(default_factory=threading.Event)


class Conversation:
    """One connection of a client to the server, through the proxy."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.statements: list[str] = []
        """Of the transaction that is open; of the last one, while its COMMIT is under way."""
        self.backend_pid = 0
        """The server's process, as it says itself."""
        self.is_cut = False
        self._client = client
        self._server = server
        self._asked: tuple[Literal["statement", "commit"], str] | None = None

    def start(self) -> None:
        for pump in (self._from_client, self._from_server):
            threading.Thread(target=self._pump, args=(pump,), name="faultproxy", daemon=True).start()

    def cut(self) -> None:
        """End both sides with a reset; what is being passed on is dropped."""
        self.is_cut = True
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._hang_up(side)

    def _pump(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError:
            pass
        finally:
            for side in (self._client, self._server):
                self._hang_up(side)
            self.proxy._ended(self)

    @staticmethod
    def _hang_up(side: socket.socket) -> None:
        # A close alone would not wake the other thread out of its recv.
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
        side.close()

    def _from_client(self) -> None:
        length, code = struct.unpack("!II", self._take(self._client, 8))
        rest = self._take(self._client, length - 8)
        while code in (_SSL, _GSS):
            self._client.sendall(b"N")
            length, code = struct.unpack("!II", self._take(self._client, 8))
            rest = self._take(self._client, length - 8)
        if code == _CANCEL:
            self.proxy.cancels += 1
        self._pass_on(self._server, struct.pack("!II", length, code) + rest)
        while True:
            kind, body = self._message(self._client)
            self._hear(kind, body)
            self._pass_on(self._server, _frame(kind, body))

    def _hear(self, kind: bytes, body: bytes) -> None:
        if kind == b"Q":
            text = body[:-1].decode()
        elif kind == b"P":
            name, text = (part.decode() for part in body.split(b"\0")[:2])
            text = f"PREPARE {name} AS {text}" if name else text
        else:
            return
        if text.startswith("BEGIN"):
            self.statements = []
            self._asked = None
        elif text == "COMMIT":
            self._asked = "commit", text
            self.proxy._happened("commit", self, self.statements)
        else:
            self.statements.append(text)
            self._asked = "statement", text
            self.proxy._happened("statement", self, [text])

    def _from_server(self) -> None:
        answer = b""
        while True:
            kind, body = self._message(self._server)
            answer += _frame(kind, body)
            if kind == b"K":
                self.backend_pid = struct.unpack("!I", body[:4])[0]
            if kind in (b"Z", b"R", b"E", b"G", b"N"):
                if kind == b"Z":
                    self._answered(body)
                self._pass_on(self._client, answer)
                answer = b""

    def _answered(self, state: bytes) -> None:
        asked, self._asked = self._asked, None
        if asked is None:
            return
        what, text = asked
        if what == "statement":
            self.proxy._happened("answered", self, [text])
        elif state == b"I":
            self.proxy._happened("committed", self, self.statements)

    def _pass_on(self, side: socket.socket, message: bytes) -> None:
        self.proxy._wait_while_holding()
        allowed = self.proxy._allow(len(message))
        if self.is_cut:
            raise ConnectionError
        side.sendall(message[:allowed])
        if allowed < len(message):
            self.proxy._out_of_bytes(self)
            raise ConnectionError

    def _message(self, side: socket.socket) -> tuple[bytes, bytes]:
        head = self._take(side, 5)
        return head[:1], self._take(side, struct.unpack("!I", head[1:])[0] - 4)

    @staticmethod
    def _take(side: socket.socket, count: int) -> bytes:
        taken = bytearray()
        while len(taken) < count:
            part = side.recv(count - len(taken))
            if not part:
                raise ConnectionError
            taken += part
        return bytes(taken)


def _frame(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


class FaultProxy:
    """Listens on a port of 127.0.0.1 in front of the server that a DSN means. Usable as a context manager."""

    def __init__(self, dsn: str) -> None:
        given = conninfo_to_dict(dsn)
        self._host = str(given.get("host") or given.get("hostaddr") or "127.0.0.1")
        self._port = int(given.get("port") or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        password = f":{quote(str(given['password']), safe='')}" if given.get("password") else ""
        user = quote(str(given.get("user") or "postgres"), safe="")
        self.dsn = (
            f"postgresql://{user}{password}@127.0.0.1:{self.port}/{given.get('dbname') or user}"
            "?sslmode=disable&gssencmode=disable"
        )
        self.statements: list[str] = []
        """Everything that clients said, in order."""
        self.cancels = 0
        """How often a client asked to cancel what it had said."""
        self._rules: list[Rule] = []
        self._open: set[Conversation] = set()
        self._lock = threading.RLock()
        self._moving = threading.Event()
        self._moving.set()
        self._bytes_left: int | None = None
        self._at_end: Callable[[Conversation], None] = Conversation.cut

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._listen, name="faultproxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._moving.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def at(self, when: When, text: str, act: Callable[[Conversation], None], *, nth: int = 1) -> Rule:
        """Do harm the ``nth`` time that something happens from now on (0: every time)."""
        rule = Rule(when, text, act, nth)
        with self._lock:
            self._rules.append(rule)
        return rule

    def forget(self) -> None:
        """No rule, no limit, no hole, nothing said."""
        with self._lock:
            self._rules.clear()
            self.statements.clear()
            self._bytes_left = None
        self._moving.set()

    def allow_bytes(self, count: int | None, at_end: Callable[[Conversation], None] = Conversation.cut) -> None:
        """Pass on so many bytes in both directions together, then do harm once; after that without limit."""
        with self._lock:
            self._bytes_left, self._at_end = count, at_end

    def cut_all(self) -> None:
        """Reset every connection."""
        with self._lock:
            conversations = list(self._open)
        for conversation in conversations:
            conversation.cut()

    def hold(self, _: Conversation | None = None) -> None:
        """From now on pass nothing on, and say nothing: what is sent is only acknowledged."""
        self._moving.clear()

    def let_go(self) -> None:
        """Pass on again."""
        self._moving.set()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            for side in (client, server):
                if side.family != socket.AF_UNIX:
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conversation = Conversation(self, client, server)
            with self._lock:
                self._open.add(conversation)
            conversation.start()

    def _connect(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, self._port), timeout=None)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
        except OSError:
            server.close()
            raise
        return server

    def _ended(self, conversation: Conversation) -> None:
        with self._lock:
            self._open.discard(conversation)

    def _happened(self, when: When, conversation: Conversation, texts: list[str]) -> None:
        due: Rule | None = None
        with self._lock:
            if when == "statement":
                self.statements += texts
            for rule in self._rules:
                if rule.when == when and any(rule.text in text for text in texts):
                    rule.seen += 1
                    due = rule if rule.nth in (0, rule.seen) else due
        if due is not None:
            due.act(conversation)
            due.hit.set()

    def _wait_while_holding(self) -> None:
        self._moving.wait()

    def _allow(self, count: int) -> int:
        with self._lock:
            if self._bytes_left is None:
                return count
            allowed = min(count, self._bytes_left)
            self._bytes_left -= allowed
            return allowed

    def _out_of_bytes(self, conversation: Conversation) -> None:
        with self._lock:
            act, self._bytes_left = self._at_end, None
        act(conversation)


class Victim:
    """A process to be harmed by a rule that is made before the process is."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[Any] | None = None
        self._known = threading.Event()

    def is_(self, process: subprocess.Popen[Any]) -> None:
        self._process = process
        self._known.set()

    def kill(self, conversation: Conversation) -> None:
        """kill -9; what was to be passed on is lost."""
        self._send(signal.SIGKILL)
        conversation.cut()

    def pause(self, _: Conversation) -> None:
        """SIGSTOP, and wait until it stands still; what was to be passed on arrives nevertheless."""
        pid = self._send(signal.SIGSTOP)
        while not _is_still(pid):
            pass

    def signal(self, number: signal.Signals) -> Callable[[Conversation], None]:
        """What sends a signal."""
        return lambda _: self._send(number) and None

    def _send(self, number: signal.Signals) -> int:
        self._known.wait()
        assert self._process is not None
        os.kill(self._process.pid, number)
        return self._process.pid


def _is_still(pid: int) -> bool:
    """Whether all threads of a process are stopped."""
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return bool(states) and all(state == "T" for state in states)
