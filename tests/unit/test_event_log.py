"""Reading an event log backwards: where a walk ends, whatever the order, and how the next one begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from conversation import TOKEN, WHO, client_of

from bisonsync.api.event_log import EventLogReader, Part, Walk
from bisonsync.errors import ApiUnavailable, ListChanged
from bisonsync.jobs.pull_events.walks import KEPT, OVERLAP, advanced, delivery_of, first_walk, interrupted_walk
from bisonsync.models import StoredEvent
from bisonsync.store.event_pulls import Pull

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
KEY = ("sim", 5)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def log_of(*minutes: float, page_size: int = 3) -> Callable[[httpx.Request], httpx.Response]:
    """A host whose log has these rows in this order, each named by how many minutes ago it was stored."""

    def handle(request: httpx.Request) -> httpx.Response:
        begin = int(request.url.params.get("cursor", 0))
        end = begin + page_size
        rows = [
            {"id": number, "created_at": ago(number).isoformat(), "payload": {"event": {}, "data": {"id": number}}}
            for number in minutes[begin:end]
        ]
        cursor = str(end) if end < len(minutes) else None
        return httpx.Response(200, json={"data": rows, "meta": {"per_page": page_size, "next_cursor": cursor}})

    return handle


def walk(kind: Any = "newest", *, low: float = 60, **fields: Any) -> Walk:
    return Walk(ago(low), NOW - KEPT, NOW, kind, **fields)


def read(handler: Callable[[httpx.Request], httpx.Response], a_walk: Walk, pages: int = 100) -> Part:
    client = client_of(handler, attempts=1)
    reader = EventLogReader(client, a_walk, token=TOKEN, who=WHO, on_page=lambda rows: None)
    return reader.read_part(pages, client.meter(60, name="workspace sim/5"))


def numbers(part: Part) -> list[int]:
    return [row.payload["data"]["id"] for row in part.rows]


def test_newest_first_ends_with_the_page_that_goes_beyond_what_is_known() -> None:
    part = read(log_of(1, 2, 3, 50, 59, 61, 70, 80), walk())

    assert part.is_end
    assert numbers(part) == [1, 2, 3, 50, 59, 61]
    assert part.walk.top == ago(1)


def test_what_was_stored_at_the_same_time_may_come_in_any_order() -> None:
    part = read(log_of(1, 9, 2, 50, 59, 61, 70, 80), walk())

    assert numbers(part) == [1, 9, 2, 50, 59, 61]


@pytest.mark.parametrize(
    "rows",
    [
        (80, 70, 61, 59, 50, 3, 2, 1),
        (66, 65, 64, 63, 62, 61, 60, 1),
        (66, 66, 66, 66, 66, 66, 66, 1),
        (61, 62, 63, 1, 64, 65, 66),
    ],
)
def test_in_any_other_order_the_log_is_read_to_its_end(rows: Sequence[float]) -> None:
    part = read(log_of(*rows), walk(known=ago(2)))

    assert numbers(part) == list(rows)
    assert part.walk.top == ago(1)


def test_a_walk_that_has_seen_disorder_stays_one_to_the_end() -> None:
    begun = read(log_of(1, 62, 2, 63, 64, 65, 66, 67, 68), walk(), pages=1)

    assert begun.walk.kind == "unordered"
    assert read(log_of(1, 62, 2, 63, 64, 65, 66, 67, 68), begun.walk).is_end
    assert len(read(log_of(1, 62, 2, 63, 64, 65, 66, 67, 68), begun.walk).rows) == 6


def test_a_row_that_does_not_tell_its_time_proves_no_order() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        answer = log_of(1, 2, 61, 62, 63, 70, 3)(request)
        document = json.loads(answer.content)
        document["data"][0] |= {"created_at": "soon"}
        return httpx.Response(200, json=document)

    assert len(read(handle, walk()).rows) == 7


def test_a_whole_read_goes_to_the_end_of_the_log_but_not_beyond_what_hosts_keep() -> None:
    days = 24 * 60

    assert numbers(read(log_of(1, 70, 80, 90, 100), walk("whole"))) == [1, 70, 80, 90, 100]
    assert len(read(log_of(1, 11 * days, 12 * days, 13 * days, 14 * days), walk("whole")).rows) == 3


def test_a_part_ends_after_its_pages_and_tells_where_to_go_on() -> None:
    handler = log_of(1, 2, 3, 4, 5, 6, 7)

    first = read(handler, walk(), pages=2)
    second = read(handler, first.walk, pages=2)

    assert (numbers(first), first.is_end) == ([1, 2, 3, 4, 5, 6], False)
    assert (numbers(second), second.is_end) == ([7], True)


def test_a_page_that_fails_leaves_those_before_it() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("cursor") == "3":
            return httpx.Response(500)
        return log_of(1, 2, 3, 4, 5)(request)

    part = read(handle, walk())

    assert numbers(part) == [1, 2, 3]
    assert (part.is_end, part.walk.cursor) == (False, "3")
    assert isinstance(part.error, ApiUnavailable)


def test_cursors_that_run_in_a_circle_are_given_up() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        answer = json.loads(log_of(1, 2, 3, 4, 5, 6, 7)(request).content)
        answer["meta"]["next_cursor"] = "3"
        return httpx.Response(200, json=answer)

    part = read(handle, walk())

    assert isinstance(part.error, ListChanged)
    assert (part.is_end, part.walk.cursor) == (False, None)


def test_a_host_that_pages_by_number_alone_is_not_believed() -> None:
    rows = {"data": [{"id": 1}], "meta": {"current_page": 1, "last_page": 7, "total": 100}}

    part = read(lambda request: httpx.Response(200, json=rows), walk())

    assert part.error is not None
    assert "does not page by cursor" in part.error.message
    assert (part.rows, part.is_end) == ([], False)


def test_the_filter_names_a_day_that_no_zone_begins_later() -> None:
    asked: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("start_date"))
        return log_of(1)(request)

    for low in (datetime(2026, 1, 20, 11, tzinfo=UTC), datetime(2026, 1, 20, 12, tzinfo=UTC)):
        read(handle, Walk(low, NOW - KEPT, NOW, "newest"))
    read(handle, Walk(NOW - KEPT, NOW - KEPT, NOW, "whole", is_filtered=False))

    assert asked == ["2026-01-19", "2026-01-20", None]


def test_a_time_to_come_moves_no_watermark_beyond_now() -> None:
    assert read(log_of(-1000, 5), walk()).walk.top == NOW


# From one read to the next


def test_the_first_read_of_a_workspace_is_whole_and_as_long_as_hosts_keep() -> None:
    first = first_walk(Pull(*KEY), NOW)

    assert (first.kind, first.low, first.is_filtered) == ("whole", NOW - KEPT, False)


def test_reads_overlap_and_once_a_day_one_trusts_no_order() -> None:
    pull = Pull(*KEY, pulled_until=ago(15), whole_until=ago(600), whole_at=ago(600))

    soon, next_day = first_walk(pull, NOW), first_walk(pull, NOW + timedelta(hours=14))

    assert (soon.kind, soon.low) == ("newest", ago(15) - OVERLAP)
    assert (next_day.kind, next_day.low) == ("whole", ago(600) - OVERLAP)


def test_a_log_that_was_not_read_for_long_is_read_as_far_as_it_is_kept() -> None:
    long_ago = NOW - timedelta(days=30)

    assert first_walk(Pull(*KEY, long_ago, long_ago, long_ago), NOW).low == NOW - KEPT


def test_the_watermark_moves_only_at_the_end_of_a_walk() -> None:
    pull = Pull(*KEY, pulled_until=ago(600), whole_until=ago(700), whole_at=ago(700))
    begun = walk(low=660, top=ago(3), cursor="next")

    interrupted = advanced(pull, Part(begun, pages=1), NOW)
    gone_on = interrupted_walk(interrupted, NOW)
    assert gone_on is not None
    ended = advanced(interrupted, Part(gone_on, pages=1, is_end=True), NOW)

    assert interrupted.pulled_until == ago(600)
    assert (gone_on.low, gone_on.top, gone_on.kind, gone_on.cursor) == (ago(660), ago(3), "newest", "next")
    assert (ended.pulled_until, ended.whole_until, ended.walk_cursor) == (ago(3), ago(700), None)


def test_a_whole_read_moves_both_watermarks_also_when_it_finds_nothing() -> None:
    some = advanced(Pull(*KEY), Part(walk("whole", top=ago(3)), pages=1, is_end=True), NOW)
    none = advanced(Pull(*KEY), Part(walk("whole"), pages=1, is_end=True), NOW)

    assert (some.pulled_until, some.whole_until, some.whole_at) == (ago(3), ago(3), NOW)
    assert (none.pulled_until, none.whole_until, none.whole_at) == (None, None, NOW)


def test_a_walk_without_a_cursor_is_not_gone_on_with() -> None:
    assert interrupted_walk(advanced(Pull(*KEY), Part(walk(), pages=1), NOW), NOW) is None


# Rows


def test_an_event_comes_as_received_when_the_host_stored_it() -> None:
    row = {"id": 7, "uuid": "u", "payload": {"event": {"type": "EMAIL_SENT"}}, "created_at": "2026-01-20T10:00:00Z"}

    delivery = delivery_of(StoredEvent.model_validate(row), KEY, NOW)

    assert json.loads(delivery.payload) == {"event": {"type": "EMAIL_SENT"}}
    assert (delivery.source, delivery.hook, delivery.raw) == ("events", KEY, None)
    assert delivery.received_at == datetime(2026, 1, 20, 10, tzinfo=UTC)


@pytest.mark.parametrize("created_at", [None, "2026-01-20T18:00:00Z", "soon", 17])
def test_without_a_time_that_can_be_it_comes_now(created_at: Any) -> None:
    event = StoredEvent.model_validate({"payload": {}, "created_at": created_at})

    assert delivery_of(event, KEY, NOW).received_at in (NOW, datetime(1970, 1, 1, 0, 0, 17, tzinfo=UTC))


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (None, None),
        ([1], [1]),
        ({"payload": None}, None),
        ({"id": 7, "webhook_deliveries": [{"url": "https://x.example.com/hooks/s3cret"}]}, {"id": 7}),
    ],
)
def test_a_row_of_any_shape_is_kept_without_the_addresses_of_hooks(row: Any, kept: Any) -> None:
    delivery = delivery_of(StoredEvent.model_validate(row), KEY, NOW)

    assert json.loads(delivery.payload) == kept


def test_what_jsonb_cannot_hold_is_replaced_and_kept_as_it_came() -> None:
    delivery = delivery_of(StoredEvent.model_validate({"payload": {"a": "\x00\ud800"}}), KEY, NOW)

    assert json.loads(delivery.payload) == {"a": "\ufffd\ufffd"}
    assert delivery.raw is not None
    assert b"\\ud800" in delivery.raw


def test_what_is_no_json_any_more_is_kept_as_far_as_it_can_be() -> None:
    deep: Any = {"event": {"type": "x"}, "data": {"n": float("inf")}}
    for _ in range(100):
        deep = {"payload": deep}

    shallow = delivery_of(StoredEvent.model_validate({"payload": {"data": {"n": float("inf")}}}), KEY, NOW)
    nested = delivery_of(StoredEvent.model_validate({"payload": deep}), KEY, NOW)

    assert json.loads(shallow.payload) == {"data": {"n": None}}
    assert '"payload"' in nested.payload
