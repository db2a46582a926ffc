"""The lines of a file of deliveries, read without a database."""

from __future__ import annotations

import gzip
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bisonsync.errors import Stopped
from bisonsync.jobs.replay_webhooks.lines import Broken, Line, NotReadable, read_lines

NOW = datetime(2026, 5, 6, 12, tzinfo=UTC)
WRITTEN = datetime(2026, 5, 1, tzinfo=UTC)
EVENT: dict[str, Any] = {"event": {"type": "EMAIL_SENT", "workspace_id": 1}, "data": {"campaign_event": {"id": 7}}}
LOG_ROW: dict[str, Any] = {
    "id": 4,
    "received_at": "2026-05-02T03:04:05.678901+00:00",
    "source": "receiver",
    "hook_instance": "sim",
    "hook_workspace_id": 17,
    "payload": EVENT,
    "payload_raw": None,
    "status": "processed",
}
EVENT_ROW: dict[str, Any] = {
    "id": 5,
    "uuid": "x",
    "payload": EVENT,
    "webhook_deliveries": [],
    "created_at": "2026-05-02T03:04:05Z",
}


def read(path: Path) -> list[Line | Broken]:
    with path.open("rb", buffering=0) as stream:
        return list(read_lines(stream, received_at=WRITTEN, now=NOW, check=lambda: None))


def read_one(tmp_path: Path, line: Any) -> Line | Broken:
    path = tmp_path / "one.jsonl"
    path.write_bytes(line if isinstance(line, bytes) else json.dumps(line).encode())
    (found,) = read(path)
    return found


def write(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "several.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def broken(tmp_path: Path, line: Any) -> str:
    found = read_one(tmp_path, line)
    assert isinstance(found, Broken)
    return found.reason


def whole(tmp_path: Path, line: Any) -> Line:
    found = read_one(tmp_path, line)
    assert isinstance(found, Line), found
    return found


@pytest.mark.parametrize("line", [EVENT, {"data": EVENT}, {"payload": EVENT}, {"odd": 1}, [1], "text", 5])
def test_a_payload_of_whatever_shape_stays_as_it_is(tmp_path: Path, line: Any) -> None:
    found = whole(tmp_path, line)

    assert found.kind == "payload"
    assert json.loads(found.delivery.payload) == line
    assert (found.delivery.source, found.delivery.hook) == ("file", None)
    assert found.delivery.received_at == WRITTEN + timedelta(microseconds=1)
    assert found.delivery.raw is None


def test_an_event_is_one_whatever_else_stands_beside_it(tmp_path: Path) -> None:
    line = {"received_at": "never", "payload": {"event": 1}, **EVENT}

    assert whole(tmp_path, line).kind == "payload"


def test_a_row_of_the_log_keeps_when_and_by_whose_address_it_came(tmp_path: Path) -> None:
    found = whole(tmp_path, LOG_ROW)

    assert found.kind == "log row"
    assert json.loads(found.delivery.payload) == EVENT
    assert found.delivery.received_at == datetime(2026, 5, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert (found.delivery.source, found.delivery.hook) == ("file", ("sim", 17))
    assert not (found.delivery.is_mismatch or found.delivery.is_test)


def test_a_row_of_the_log_stays_what_its_payload_does_not_say(tmp_path: Path) -> None:
    legacy = whole(tmp_path, {**LOG_ROW, "source": "legacy", "hook_instance": None, "hook_workspace_id": None})

    assert (legacy.delivery.source, legacy.delivery.hook) == ("legacy", None)
    assert whole(tmp_path, {**LOG_ROW, "status": "test"}).delivery.is_test
    assert whole(tmp_path, {**LOG_ROW, "payload_raw": f"\\x{b'[1e999]'.hex()}"}).delivery.raw == b"[1e999]"


def test_a_mismatch_is_judged_again_where_the_row_tells_by_whose_address_it_came(tmp_path: Path) -> None:
    row = {**LOG_ROW, "status": "mismatch"}

    assert not whole(tmp_path, row).delivery.is_mismatch
    assert whole(tmp_path, {**row, "hook_workspace_id": None}).delivery.is_mismatch


@pytest.mark.parametrize("keep_bodies", [False, True])
def test_mail_bodies_are_kept_only_where_they_are_to_be(tmp_path: Path, keep_bodies: bool) -> None:
    payload = {"event": {}, "data": [{"text_body": "secret", "n": "\0"}]}
    raw = json.dumps(payload).encode()
    path = write(tmp_path, payload, {**LOG_ROW, "payload": payload, "payload_raw": f"\\x{raw.hex()}"}, EVENT_ROW)

    with path.open("rb", buffering=0) as stream:
        lines = read_lines(stream, received_at=WRITTEN, now=NOW, check=lambda: None, keep_bodies=keep_bodies)
        found = [line.delivery for line in lines if isinstance(line, Line)]

    assert len(found) == 3
    for delivery in found[:2]:
        assert ("secret" in delivery.payload, b"secret" in (delivery.raw or b"")) == (keep_bodies, keep_bodies)
        assert b'"n": "\\u0000"' in (delivery.raw or b"")


def test_what_tells_no_time_came_line_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, EVENT, EVENT_ROW, EVENT)

    times = [line.delivery.received_at for line in read(path) if isinstance(line, Line) and line.kind == "payload"]

    assert times == [WRITTEN + timedelta(microseconds=number) for number in (1, 3)]


def test_a_row_of_the_event_list_was_received_when_it_was_made(tmp_path: Path) -> None:
    found = whole(tmp_path, EVENT_ROW)

    assert found.kind == "event row"
    assert json.loads(found.delivery.payload) == EVENT
    assert found.delivery.received_at == datetime(2026, 5, 2, 3, 4, 5, tzinfo=UTC)


def test_what_jsonb_cannot_hold_is_kept_as_it_came(tmp_path: Path) -> None:
    payload = b'{"event":{"type":"\\u0000"},"data":{"n":1e999999,"text":"\\ud800 \xc3\xa4"}}'
    plain = whole(tmp_path, payload).delivery
    listed = whole(tmp_path, b'{"id":1, "payload" : ' + payload + b' ,"created_at":"2026-05-02T03:04:05Z"}').delivery

    assert (plain.raw, listed.raw) == (payload, payload)
    assert plain.payload == listed.payload
    assert "\\u0000" not in plain.payload


def test_numbers_and_spaces_in_a_row_are_not_touched(tmp_path: Path) -> None:
    digits = b"1.000000000000000000000001"
    line = b'\t{ "created_at" : "2026-05-02T03:04:05Z" , "payload" : {"event": {}, "data" : [' + digits + b"] } }"

    assert whole(tmp_path, line).delivery.payload == f'{{"event": {{}}, "data" : [{digits.decode()}] }}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"a":NaN}', "not JSON: NaN is no number there"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b'"\xff"', "not UTF-8: byte 2 fits nowhere"),
        ({**LOG_ROW, "payload": None}, "its payload was pruned"),
        ({**LOG_ROW, "received_at": "yesterday"}, "received_at is no time"),
        ({**LOG_ROW, "received_at": 5}, "received_at is no time"),
        ({**LOG_ROW, "payload_raw": "\\xzz"}, "payload_raw is not \\x and hexadecimal digits"),
        (
            {**LOG_ROW, "payload_raw": "\\x7b"},
            "payload_raw is not JSON: Expecting property name enclosed in double quotes at column 2",
        ),
        ({**EVENT_ROW, "created_at": "2026-05-06T13:00:01Z"}, "created_at lies in the future"),
    ],
)
def test_a_broken_line_says_why_and_quotes_nothing(tmp_path: Path, line: Any, reason: str) -> None:
    assert broken(tmp_path, line) == reason


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a":1}\r\n\n  \nbroken\n{"a":2}')

    found = read(path)

    assert [(type(line), line.number) for line in found] == [(Line, 1), (Broken, 4), (Line, 5)]


def test_a_line_beyond_16_mib_is_broken_and_the_next_is_read(tmp_path: Path) -> None:
    most = 16 * 1024 * 1024
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'"' + b"x" * (most - 2) + b'"\n"' + b"x" * (3 * most) + b'"\n{"a":1}\n')

    found = read(path)

    assert [line.number for line in found] == [1, 2, 3]
    assert [type(line) for line in found] == [Line, Broken, Line]
    assert found[1] == Broken(2, "larger than 16 MiB")


def test_gzip_is_recognised_and_its_broken_end_told(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"a":1}\n' * 1000)
    (tmp_path / "whole.gz").write_bytes(packed)
    (tmp_path / "half.gz").write_bytes(packed[:-10])

    assert len(read(tmp_path / "whole.gz")) == 1000
    with pytest.raises(NotReadable, match="the file cannot be read on at line"):
        read(tmp_path / "half.gz")


def test_a_pipe_is_read_as_it_is_written_and_a_stop_is_heard_while_it_is_silent() -> None:
    reading, writing = os.pipe()
    silent = threading.Event()

    def check() -> None:
        silent.set()
        raise Stopped(15)

    with os.fdopen(reading, "rb", buffering=0) as stream, os.fdopen(writing, "wb", buffering=0) as other:
        lines = read_lines(stream, received_at=NOW, now=NOW, check=check)
        other.write(b'{"a":1}\n')
        first = next(lines)
        with pytest.raises(Stopped):
            next(lines)

    assert isinstance(first, Line)
    assert silent.is_set()


def test_an_hour_is_forgiven_to_clocks(tmp_path: Path) -> None:
    ahead = NOW + timedelta(minutes=59)

    assert whole(tmp_path, {**LOG_ROW, "received_at": ahead.isoformat()}).delivery.received_at == ahead
