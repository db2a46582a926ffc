"""A stand-in for Slack's incoming webhooks: remembers what is posted, and answers as it is told to.

What breaks a documented limit fails the test in the end, whatever it looks at.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK = (200, b"ok", {})
HANG = "hang"
CUT = "cut"
Answer = tuple[int, bytes, dict[str, str]] | str


@dataclass
class Post:
    """One request: where to, what, and with which headers."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def text(self) -> str:
        return self.body["text"]

    @property
    def heading(self) -> str:
        """The first line of the fallback text, which is the header's."""
        return self.text.partition("\n")[0]


@dataclass
class SlackHook:
    """Use as a context manager. ``answers`` are given in turn, then ``always`` for ever; ``refuse`` only some paths."""

    always: Answer = OK
    answers: deque[Answer] = field(default_factory=deque[Answer])
    by_path: dict[str, Answer] = field(default_factory=dict[str, Answer])
    posts: list[Post] = field(default_factory=list[Post])
    accepted: list[Post] = field(default_factory=list[Post])
    faults: list[AssertionError] = field(default_factory=list[AssertionError])
    _released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> SlackHook:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                post = Post(self.path, json.loads(self.rfile.read(length)), dict(self.headers))
                hook.posts.append(post)
                try:
                    check_limits(post.body)
                except AssertionError as fault:
                    hook.faults.append(fault)
                answer = hook.answers.popleft() if hook.answers else hook.by_path.get(self.path, hook.always)
                if answer == HANG:
                    hook._released.wait(30)
                    answer = CUT
                if isinstance(answer, str):
                    # A reset, not an orderly end.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    return
                status, body, headers = answer
                if status == 200 and body == b"ok":
                    hook.accepted.append(post)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle(self) -> None:
                try:
                    super().handle()
                except (OSError, ValueError):
                    return

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        assert self.faults == []

    def url(self, path: str = "/services/T0SECRET/B0SECRET/xSecretKey9") -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{path}"

    @property
    def headings(self) -> list[str]:
        """The headings of what was accepted, in order."""
        return [post.heading for post in self.accepted]


def units(text: str) -> int:
    """The larger of the two ways to count characters."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def texts(body: dict[str, Any]) -> list[str]:
    found = [body["text"]]
    for block in body["blocks"]:
        found += [one["text"] for one in ([block["text"]] if "text" in block else block["elements"])]
    return found


def check_limits(body: dict[str, Any]) -> None:
    """What Slack's reference says of messages and blocks, and what we say of plain text."""
    assert 1 <= units(body["text"]) <= 4000
    assert body["mrkdwn"] is False
    assert 1 <= len(body["blocks"]) <= 50
    for block in body["blocks"]:
        assert block["type"] in ("header", "section", "context")
        if block["type"] == "context":
            assert 1 <= len(block["elements"]) <= 10
            objects = block["elements"]
        else:
            objects = [block["text"]]
        for one in objects:
            assert one["type"] == "plain_text"
            assert one["emoji"] is False
            assert 1 <= units(one["text"]) <= (150 if block["type"] == "header" else 3000)
    for text in texts(body):
        assert "<" not in text
        assert ">" not in text
        assert re.fullmatch(r"(?:[^&]|&(?:amp|lt|gt);)*", text)
        assert all(char.isprintable() or char == "\n" for char in text)
    json.dumps(body, ensure_ascii=False).encode()
