"""The receiver's HTTP side: who may deliver, how much, and which answer each delivery gets."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bisonsync import payloads
from bisonsync.receiver.encodings import NotGzip, TooLarge, is_gzip, unpack
from bisonsync.receiver.lines import Access, Lines
from bisonsync.receiver.watch import Undecided, Watch
from bisonsync.receiver.writer import Writer
from bisonsync.store.webhooks import Delivery

# The sender gives up after 15 s.
_BODY_SECONDS = 10.0
_ANSWER_SECONDS = 13.0
# What all requests together may hold in memory, and how many there may be.
MAX_HELD_BYTES = 256 * 1024 * 1024
MAX_REQUESTS = 1000
# Longer ones are read beside the event loop, where others go on.
_LONG_BYTES = 256 * 1024
_RETRY_SECONDS = 10

_TOO_LARGE = f"larger than {payloads.MAX_BYTES // 1024 // 1024} MiB"
_GONE = 499  # what nginx writes where the sender hung up: nobody hears an answer


class Refused(Exception):
    """The request gets this answer; ``reason`` is one line that quotes nothing of it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass
class Counts:
    """What one process did."""

    requests: int = 0
    stored: int = 0
    refused: int = 0
    unavailable: int = 0


class Receiver:
    """The application. Everything in it belongs to the event loop's thread."""

    def __init__(self, writer: Writer, watch: Watch, lines: Lines, *, version: str, keep_bodies: bool) -> None:
        self.counts = Counts()
        self._writer = writer
        self._watch = watch
        self._lines = lines
        self._version = version
        self._keep_bodies = keep_bodies
        self._held_bytes = 0
        self._requests = 0
        routes = [
            Route("/hooks/{secret}", self._deliver, methods=["POST"]),
            Route("/hooks/{secret}/test", self._deliver_test, methods=["POST"]),
            Route("/healthz", self._tell_health, methods=["GET"]),
        ]
        app = Starlette(routes=routes, exception_handlers={Refused: _answer_refused})
        app.router.redirect_slashes = False
        self._app: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and write its line."""
        began = time.perf_counter()
        access = Access(scope["method"], _masked(scope["path"]))
        scope["state"]["access"] = access

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                access.status = message["status"]
            await send(message)

        self._requests += 1
        try:
            await self._app(scope, receive, note_status)
        except ClientDisconnect:
            access.status = _GONE
        except Exception as error:
            access.status = access.status or 500
            self._lines.say(f"a bug: {_where(error)}", level="error")
            if access.status == 500:
                await _answer(500, "an error that is none of yours; deliver it again")(scope, receive, send)
        finally:
            self._requests -= 1
            access.milliseconds = (time.perf_counter() - began) * 1000
            self._count(access.status)
            self._lines.access(access)

    def _count(self, status: int) -> None:
        self.counts.requests += 1
        if 400 <= status < 500:
            self.counts.refused += 1
        elif status >= 500:
            self.counts.unavailable += 1

    async def _deliver(self, request: Request) -> Response:
        return await self._take(request, is_test=False)

    async def _deliver_test(self, request: Request) -> Response:
        return await self._take(request, is_test=True)

    async def _take(self, request: Request, *, is_test: bool) -> Response:
        """Store what was delivered and answer 200 once it is committed."""
        access: Access = request.state.access
        give_up_at = asyncio.get_running_loop().time() + _ANSWER_SECONDS
        if self._requests > MAX_REQUESTS:
            raise Refused(503, "too many deliveries at once")
        try:
            owner = await self._watch.find_owner(request.path_params["secret"], give_up_at)
        except Undecided as error:
            raise Refused(503, error.reason) from None
        if owner is None:
            raise Refused(404, "not found")
        access.workspace = f"{owner[0]}/{owner[1]}"
        held = _Held(self)
        try:
            packed = is_gzip(request.headers.getlist("content-encoding"))
            if packed is None:
                raise Refused(415, "send the body as it is, or with Content-Encoding: gzip")
            body = await _read_body(request, held)
            access.size = len(body)
            if packed:
                body = await _unpack(body, held)
            read = await _parse(body, keep_bodies=self._keep_bodies)
            delivery = Delivery(read.text, "receiver", raw=read.raw, hook=owner, is_test=is_test)
            ticket = self._writer.submit(delivery, len(body))
            try:
                async with asyncio.timeout_at(give_up_at):
                    outcome = await ticket.answer
            except TimeoutError:
                outcome = None
            finally:
                self._writer.withdraw(ticket)
        finally:
            held.release()
        if outcome is None:
            trouble = self._watch.trouble
            raise Refused(503, trouble.reason if trouble else "the database cannot be used, or is too slow")
        access.became = outcome.status
        self.counts.stored += 1
        return PlainTextResponse(f"{outcome.status}\n")

    def hold(self, size: int) -> None:
        """Account for bytes that are kept in memory. Raises Refused when they are too many."""
        if self._held_bytes + size > MAX_HELD_BYTES:
            raise Refused(503, "too many deliveries at once")
        self._held_bytes += size

    def let_go(self, size: int) -> None:
        """Account for bytes that are not kept any more."""
        self._held_bytes -= size

    async def _tell_health(self, _request: Request) -> Response:
        trouble = self._watch.trouble
        stored_at: datetime | None = self._writer.last_stored_at
        state = {
            "status": "ok" if trouble is None else "unavailable",
            "version": self._version,
            "database": "ok" if trouble is None else trouble.kind,
            "reason": trouble and trouble.reason,
            "last_stored_at": stored_at.astimezone(UTC).isoformat(timespec="seconds") if stored_at else None,
            "last_write_ok": self._writer.is_last_stored,
            "waiting": self._watch.asking + self._writer.waiting,
        }
        return JSONResponse(state, 200 if trouble is None else 503, {"cache-control": "no-store"})


class _Held:
    """The bytes of one request, as long as they are kept."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._size = 0

    def add(self, size: int) -> None:
        self._receiver.hold(size)
        self._size += size

    def release(self) -> None:
        self._receiver.let_go(self._size)
        self._size = 0


async def _read_body(request: Request, held: _Held) -> bytes:
    """The whole body, whatever its length is said to be. Raises Refused."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 12 or int(announced) > payloads.MAX_BYTES):
        raise Refused(413, _TOO_LARGE)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > payloads.MAX_BYTES:
                    raise Refused(413, _TOO_LARGE)
                held.add(len(part))
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {_BODY_SECONDS:.0f} s") from None
    return b"".join(parts)


async def _unpack(body: bytes, held: _Held) -> bytes:
    """The body out of gzip, in the place of its bytes. Raises Refused."""
    try:
        # A few bytes may become many.
        unpacked = await asyncio.to_thread(unpack, body, payloads.MAX_BYTES)
    except NotGzip as error:
        raise Refused(400, f"not gzip: {error}") from None
    except TooLarge:
        raise Refused(413, _TOO_LARGE) from None
    held.release()
    held.add(len(unpacked))
    return unpacked


async def _parse(body: bytes, *, keep_bodies: bool) -> payloads.Body:
    read = partial(payloads.read_body, body, keep_bodies=keep_bodies)
    try:
        return read() if len(body) < _LONG_BYTES else await asyncio.to_thread(read)
    except payloads.NotJson as error:
        raise Refused(400, error.reason) from None


async def _answer_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer(error.status, error.reason)


def _answer(status: int, reason: str) -> Response:
    headers: dict[str, str] = {}
    if status == 503:
        headers["retry-after"] = str(_RETRY_SECONDS)
    if status == 415:
        headers["accept-encoding"] = "gzip"
    if status == 408:
        # Elsewhere the rest of a body is read and dropped: who is cut off while sending does not hear why.
        headers["connection"] = "close"
    return PlainTextResponse(f"{reason}\n", status, headers)


def _masked(path: str) -> str:
    """The path as it may be told: whatever could be a secret, also of a mistyped address, is left out."""
    if path == "/healthz":
        return path
    if path.startswith("/hooks/"):
        return "/hooks/…/test" if path.endswith("/test") and path.count("/") == 3 else "/hooks/…"
    return "/…"


def _where(error: Exception) -> str:
    """Kind and place of an error; its text could quote a request."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return f"{type(error).__name__} at " + ", ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
