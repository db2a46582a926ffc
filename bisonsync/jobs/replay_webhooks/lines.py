"""The lines of a file of deliveries: plain payloads, exported rows of the log, rows of the platform's event list."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import select
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Literal

from bisonsync.keys import WorkspaceKey
from bisonsync.payloads import MAX_BYTES, NotJson, read_body
from bisonsync.store.webhooks import Delivery

Kind = Literal["payload", "log row", "event row"]

# How often one who waits for a pipe looks whether it is time to end.
LOOK_SECONDS = 0.2
_READ_BYTES = 1024 * 1024
# Nothing can have been received so much later than now, by whatever clock.
_CLOCKS_APART = timedelta(hours=1)
# Nearly every line, told without looking further.
_PLAIN = re.compile(r'\s*\{\s*"event"\s*:')
_BLANKS = re.compile(r"[ \t\n\r]*")
# Numbers stay text: nothing here reckons with them, and Python refuses to convert the longest.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that can be stored; ``length`` is its bytes."""

    number: int
    kind: Kind
    length: int
    delivery: Delivery = field(repr=False)


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that cannot; ``reason`` quotes nothing of it."""

    number: int
    reason: str


class NotReadable(Exception):
    """The file itself ends in the middle; ``reason`` says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_lines(
    stream: BinaryIO,
    *,
    received_at: datetime,
    now: datetime,
    check: Callable[[], None],
    keep_bodies: bool = False,
) -> Iterator[Line | Broken]:
    """Read a file line by line, never more of it than a line; blank lines are passed over.

    ``received_at`` is for lines that do not tell it: each counts as received a moment after the one before. ``check``
    is called while a pipe gives nothing, and may raise. Raises NotReadable.
    """
    buffered = io.BufferedReader(_Patient(stream, check), _READ_BYTES)
    lines = _split(gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == b"\x1f\x8b" else buffered)
    number = 0
    while True:
        number += 1
        try:
            line = next(lines, b"")
        except (OSError, EOFError, zlib.error) as error:
            raise NotReadable(f"the file cannot be read on at line {number}: {error}") from None
        if not line:
            return
        if len(line) > MAX_BYTES:
            yield Broken(number, f"larger than {MAX_BYTES // 1024 // 1024} MiB")
        elif line.strip():
            yield _read_line(number, line, received_at + number * timedelta.resolution, now, keep_bodies=keep_bodies)


class _Patient(io.RawIOBase):
    """Reads a file or pipe, looking up from time to time: a read that blocks would not hear of a stop."""

    def __init__(self, stream: BinaryIO, check: Callable[[], None]) -> None:
        self._number = stream.fileno()
        self._check = check

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not select.select([self._number], [], [], LOOK_SECONDS)[0]:
            self._check()
        return os.readv(self._number, [buffer])


def _split(stream: io.BufferedIOBase) -> Iterator[bytes]:
    """The lines of a stream; of one that is too long only its beginning, a little more than is allowed."""
    while line := stream.readline(MAX_BYTES + 2):
        yield line.rstrip(b"\r\n") or b" "
        while line[-1:] != b"\n" and (line := stream.readline(_READ_BYTES)):
            pass


def _read_line(number: int, line: bytes, received_at: datetime, now: datetime, *, keep_bodies: bool) -> Line | Broken:
    try:
        body = read_body(line, keep_bodies=keep_bodies)
    except NotJson as error:
        return Broken(number, error.reason_in_line)
    parts = {} if _PLAIN.match(body.text) else _parts(body.text)
    if "event" in parts or "payload" not in parts:
        delivery = Delivery(body.text, "file", raw=body.raw, received_at=received_at)
        return Line(number, "payload", len(line), delivery)
    # The parts again, but as they came: only of the payload the bytes are kept where jsonb cannot hold them.
    parts = parts if body.raw is None else _parts(line.decode("utf-8-sig"))
    try:
        if "received_at" in parts:
            return Line(number, "log row", len(line), _of_log_row(parts, now, keep_bodies=keep_bodies))
        if "created_at" in parts:
            return Line(number, "event row", len(line), _of_event_row(parts, now, keep_bodies=keep_bodies))
    except NotJson as error:
        return Broken(number, error.reason_in_line)
    delivery = Delivery(body.text, "file", raw=body.raw, received_at=received_at)
    return Line(number, "payload", len(line), delivery)


@dataclass(frozen=True, slots=True)
class _Part:
    """A value of an object, and its text as it stands there."""

    value: Any
    text: str = field(repr=False)


def _parts(text: str) -> dict[str, _Part]:
    """The values of an object by their keys; none of anything else. ``text`` is valid JSON."""
    parts: dict[str, _Part] = {}
    place = _skip(text, 0)
    if text[place] != "{":
        return parts
    place = _skip(text, place + 1)
    while text[place] != "}":
        key, place = _DECODER.raw_decode(text, place)
        begin = _skip(text, _skip(text, place) + 1)
        value, place = _DECODER.raw_decode(text, begin)
        parts[key] = _Part(value, text[begin:place])
        place = _skip(text, place)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return parts


def _skip(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place


def _of_log_row(parts: dict[str, _Part], now: datetime, *, keep_bodies: bool) -> Delivery:
    """An exported row of the log: what it came with stays so, what became of it is found out again. Raises NotJson."""
    payload = parts["payload"]
    if payload.value is None:
        raise NotJson("its payload was pruned")
    status, source = (_text(parts, name) for name in ("status", "source"))
    instance, number = _text(parts, "hook_instance"), _text(parts, "hook_workspace_id")
    is_told = re.fullmatch(r"[0-9]{1,18}", number or "") is not None
    hook = WorkspaceKey(instance, int(number)) if instance and number and is_told else None
    body = read_body(payload.text.encode(), keep_bodies=keep_bodies)
    return Delivery(
        body.text,
        "legacy" if source == "legacy" else "file",
        raw=_bytes(parts, keep_bodies=keep_bodies) or body.raw,
        received_at=_moment(parts, "received_at", now),
        hook=hook,
        is_test=status == "test",
        # By whose address it came is all that could tell that it is none.
        is_mismatch=status == "mismatch" and hook is None,
    )


def _of_event_row(parts: dict[str, _Part], now: datetime, *, keep_bodies: bool) -> Delivery:
    """A row of the platform's event list: received when it was made, hence the same whenever it is read."""
    body = read_body(parts["payload"].text.encode(), keep_bodies=keep_bodies)
    return Delivery(body.text, "file", raw=body.raw, received_at=_moment(parts, "created_at", now))


def _text(parts: dict[str, _Part], name: str) -> str | None:
    value = parts[name].value if name in parts else None
    return value if isinstance(value, str) else None


def _bytes(parts: dict[str, _Part], *, keep_bodies: bool) -> bytes | None:
    """The bytes of payload_raw, which is exported as \\x and hexadecimal digits; mail bodies in them replaced."""
    text = _text(parts, "payload_raw")
    if text is None:
        return None
    try:
        return read_body(bytes.fromhex(text.removeprefix("\\x")), keep_bodies=keep_bodies).raw
    except NotJson as error:
        raise NotJson(f"payload_raw is {error.reason_in_line}") from None
    except ValueError:
        raise NotJson("payload_raw is not \\x and hexadecimal digits") from None


def _moment(parts: dict[str, _Part], name: str, now: datetime) -> datetime:
    text = _text(parts, name)
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        raise NotJson(f"{name} is no time") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now + _CLOCKS_APART:
        raise NotJson(f"{name} lies in the future")
    return moment
