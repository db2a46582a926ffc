"""Lists read with proof, from a host whose rows move under the reader, that hides pages, or that says what is not so.

Requests are answered one at a time, in an order that each test draws; changes of the list happen between two answers.
"""

from __future__ import annotations

import random
from concurrent.futures import CancelledError
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from list_host import (
    PAGE_SIZE,
    Asked,
    DrawnLanes,
    Host,
    changes,
    in_any_order,
    insert,
    moving_host,
    on_page,
    read,
    reader_of,
    remove,
    times,
)

from bisonsync.api import lists
from bisonsync.api.lanes import Lanes
from bisonsync.api.lists import FAILED_PAGES_TOLERATED, PAGES_PER_WAKE, RE_READS
from bisonsync.errors import ApiRefused, ApiUnavailable, CredentialsError, DeadlineExceeded

SEEDS = st.integers(0, 2**32)


# A list at rest


@given(st.sets(st.integers(1, 10_000), max_size=60), st.integers(1, 9), SEEDS, st.booleans())
def test_a_list_at_rest_is_complete_whatever_the_order_of_its_rows_and_pages(
    ids: set[int], page_size: int, seed: int, numbers_are_strings: bool
):
    def as_strings(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if numbers_are_strings:
            document["meta"] = {name: str(number) for name, number in document["meta"].items()}

    rows = list(ids)
    random.Random(seed).shuffle(rows)
    host = Host(rows, page_size, spoil=as_strings)

    result = read(host, in_any_order(seed))

    assert result.is_complete
    assert (result.ids, result.total, result.re_reads, result.by_cursor) == (ids, len(ids), 0, False)
    pages = max(1, -(-len(ids) // page_size))
    assert sorted(host.asked) == sorted([*range(1, pages + 1), 1])
    assert host.asked[0] == host.asked[-1] == 1


@given(st.sets(st.integers(1, 10_000), max_size=60), st.integers(1, 9), SEEDS)
def test_f15_what_was_read_does_not_tell_in_which_order_pages_arrived(ids: set[int], page_size: int, seed: int):
    in_order = read(Host(list(ids), page_size))
    shuffled = read(Host(list(ids), page_size), in_any_order(seed))

    assert list(shuffled.rows.items()) == list(in_order.rows.items())


def test_f21_an_empty_list_is_complete_and_left_to_the_guard():
    host = Host([])

    result = read(host)

    assert (result.is_complete, result.ids, result.total) == (True, set(), 0)
    assert host.asked == [1, 1]


def test_f22_reads_all_433_when_the_host_ignores_per_page():
    host = Host(list(range(1, 434)))

    result = read(host, query={"per_page": 100})

    assert result.is_complete
    assert result.ids == set(range(1, 434))
    assert len(host.asked) == 30


@pytest.mark.parametrize("count", [1_001, 10_050])
def test_f16_reads_more_than_1000_and_10000_rows(count: int):
    result = read(Host(list(range(count, 0, -1))))

    assert result.is_complete
    assert result.ids == set(range(1, count + 1))


def test_real_lanes_read_it_too():
    lanes = Lanes(4, name="test")
    try:
        result = read(Host(list(range(1, 434))), lanes)
    finally:
        lanes.close()

    assert result.ids == set(range(1, 434))


@pytest.mark.parametrize("total", [15, 16, 30, 31])
def test_a_last_page_too_many_is_no_harm(total: int):
    def one_more(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        document["meta"]["last_page"] += 1

    result = read(Host(list(range(1, total + 1)), spoil=one_more))

    assert result.is_complete


# A list that moves


@settings(max_examples=400)
@given(st.integers(0, 30), st.integers(1, 6), SEEDS, changes("comes", "comes first", "goes", "moves"))
def test_whatever_happens_complete_means_both_looks_and_every_page_agree(
    count: int, page_size: int, seed: int, drawn: list[tuple[int, str, int, int]]
):
    totals: list[tuple[Asked, int, int]] = []

    def note(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        totals.append((asked, document["meta"]["total"], document["meta"]["last_page"]))

    host = moving_host(count, page_size, drawn)
    host.cursor = "ignored"
    host.spoil = note

    result = read(host, in_any_order(seed))

    if result.is_complete:
        # The last walk: from the look at page 1 before the last one to the end.
        looks = [index for index, (asked, _, _) in enumerate(totals) if asked == 1]
        walk = totals[looks[-2] :]
        assert walk[0] == walk[-1]
        assert {asked for asked, _, _ in walk} == set(range(1, walk[0][2] + 1))
        assert len(result.ids) == walk[0][1]


@settings(max_examples=200)
@given(st.integers(1, 40), st.integers(1, 6), SEEDS, st.data())
def test_it_is_never_complete_without_a_page(count: int, page_size: int, seed: int, data: st.DataObject):
    pages = -(-count // page_size)
    missing = data.draw(st.sets(st.integers(2, max(2, pages)), min_size=1, max_size=3))
    status = data.draw(st.sampled_from([500, 503, 422, 404]))
    host = Host(list(range(count, 0, -1)), page_size, cursor="ignored", spoil=times(10_000, status, *missing))

    result = read(host, in_any_order(seed))

    assert result.is_complete == (min(missing) > pages)
    assert result.ids <= set(host.rows)


def test_a_row_added_while_reading_is_read_again():
    host = Host(list(range(1, 41)), changes={3: [insert(99)]})

    result = read(host)

    assert result.is_complete
    assert (result.re_reads, result.ids) == (1, {*range(1, 41), 99})


def test_a_row_removed_while_reading_is_read_again():
    host = Host(list(range(1, 41)), changes={2: [remove(0)]})

    result = read(host)

    assert result.is_complete
    assert (result.re_reads, result.ids) == (1, set(range(2, 41)))


def test_a_last_page_that_empties_while_reading_is_read_again_by_number():
    host = Host(list(range(1, 32)), changes={2: [remove(0)]}, cursor="ignored")

    result = read(host)

    assert result.is_complete
    assert (result.re_reads, result.ids) == (1, set(range(2, 32)))


def test_one_removed_and_one_added_behind_the_reader_shows_at_the_last_look():
    host = Host(list(range(1, 31)), changes={2: [remove(0), lambda rows: rows.append(99)]})

    result = read(host)

    assert result.is_complete
    assert (result.re_reads, result.ids) == (1, {*range(2, 31), 99})


def test_a_total_that_differs_on_a_page_between_is_read_again():
    host = Host(list(range(1, 41)), changes={2: [insert(99, at=40)], 3: [remove(40)]})

    result = read(host)

    assert result.is_complete
    assert (result.re_reads, result.ids) == (1, set(range(1, 41)))


def test_a_list_that_never_rests_is_read_four_times_and_is_incomplete():
    newest = iter(range(100, 1000))
    host = Host(
        list(range(1, 41)), changes={number: [lambda rows: rows.insert(0, next(newest))] for number in range(1, 99)}
    )

    result = read(host)

    assert not result.is_complete
    assert "the list changed while it was read" in result.reason
    assert host.numbers.count(1) == 2 * (RE_READS + 1)


def test_a_list_that_rests_at_the_third_re_read_is_complete():
    newest = iter(range(100, 1000))
    host = Host(
        list(range(1, 41)), changes={number: [lambda rows: rows.insert(0, next(newest))] for number in (2, 7, 12)}
    )

    result = read(host)

    assert result.is_complete
    assert result.re_reads == RE_READS


# A list that is wrong in itself


@pytest.mark.parametrize("wrong", [-3, +1])
def test_a_total_that_is_always_wrong_is_read_twice_and_incomplete(wrong: int):
    def lie(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        document["meta"]["total"] += wrong

    host = Host(list(range(1, 41)), spoil=lie)

    result = read(host)

    assert result.reason == f"40 distinct rows came, total says {40 + wrong}"
    assert result.ids == set(range(1, 41))
    assert host.numbers.count(1) == 4


def test_a_row_on_two_pages_makes_the_count_too_small():
    host = Host([*range(1, 31), 15, *range(31, 40)])

    result = read(host)

    assert result.reason == "39 distinct rows came, total says 40, 1 rows came twice"


def test_a_row_that_always_comes_twice_is_settled_by_a_second_reading():
    def pin(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if asked == 2:
            document["data"].append({"id": 1})

    host = Host(list(range(1, 41)), spoil=pin)

    result = read(host)

    assert result.is_complete
    assert (result.ids, result.re_reads) == (set(range(1, 41)), 1)


def test_a_page_that_came_short_once_is_read_again():
    cut: list[int] = []

    def cut_once(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if asked == 2 and not cut:
            cut.append(1)
            del document["data"][3:]

    result = read(Host(list(range(1, 41)), spoil=cut_once))

    assert result.is_complete
    assert (result.ids, result.re_reads) == (set(range(1, 41)), 1)


@pytest.mark.parametrize("cursor", ["works", "ignored", "refused"])
def test_a_page_that_came_empty_once_is_no_lasting_harm(cursor: str):
    emptied: list[int] = []

    def empty(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if asked == 2 and not emptied:
            emptied.append(1)
            document["data"].clear()

    result = read(Host(list(range(1, 61)), cursor=cursor, spoil=empty))

    assert result.is_complete
    assert result.ids == set(range(1, 61))


@pytest.mark.parametrize(
    "meta", [{}, {"last_page": 3}, {"total": None, "last_page": 3}, {"current_page": 1, "per_page": 15}]
)
def test_without_total_and_cursor_nothing_is_proven(meta: dict[str, Any]):
    spoil = on_page(1, lambda document: document.update(meta=meta))

    result = read(Host(list(range(1, 16)), cursor="ignored", spoil=spoil))

    without = "the answer has no total to prove the list by"
    assert result.reason == f"{without}; by cursor: the host does not page by cursor"
    assert result.ids == set(range(1, 16))


def test_a_total_that_is_gone_at_the_last_look_proves_nothing():
    def forget(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if host.numbers.count(1) % 2 == 0:
            del document["meta"]["total"]

    result = read(Host(list(range(1, 16)), cursor="ignored", spoil=forget))

    assert result.reason.startswith("the answer has no total to prove the list by; by cursor: ")


@pytest.mark.parametrize("last_page", [5_000, 10**12])
def test_a_huge_last_page_is_not_walked_to_its_end(last_page: int):
    def boast(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        document["meta"]["last_page"] = last_page

    host = Host(list(range(1, 41)), cursor="ignored", spoil=boast)

    result = read(host)

    assert not result.is_complete
    assert result.reason.startswith(f"page 4 of {last_page} came empty")
    assert result.ids == set(range(1, 41))
    assert max(host.numbers) <= 4 + PAGES_PER_WAKE


def test_a_missing_last_page_means_one_page():
    result = read(Host(list(range(1, 11)), spoil=on_page(1, lambda document: document["meta"].pop("last_page"))))

    assert result.is_complete


@pytest.mark.parametrize("last_page", [-1, "many", 2.5])
def test_a_last_page_that_is_no_count_is_no_page(last_page: object):
    host = Host([1], spoil=on_page(1, lambda document: document["meta"].update(last_page=last_page)))

    with pytest.raises(ApiUnavailable, match="last_page is not a count"):
        read(host)


def test_a_last_page_that_changes_alone_is_a_change_too():
    def grow(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if len(host.asked) > 3:
            document["meta"]["last_page"] = 4

    result = read(Host(list(range(1, 41)), spoil=grow))

    assert result.is_complete
    assert (result.last_page, result.re_reads) == (4, 1)


# Rows that cannot be read


def test_an_unreadable_row_with_an_id_counts_as_read():
    host = Host(list(range(1, 41)), spoil=on_page(2, lambda document: document["data"][3].update(odd=True)))

    result = read(host)

    assert result.is_complete
    assert [row.record_id for row in result.invalid] == [19]
    assert 19 in result.ids
    assert 19 not in result.rows


def test_a_row_without_an_id_makes_the_read_incomplete_and_is_not_read_again():
    host = Host(list(range(1, 41)), spoil=on_page(2, lambda document: document["data"][3].update(id="?")))

    result = read(host)

    assert result.reason == "a row has no readable id"
    assert len(result.rows) == 39
    assert host.asked == [1, 2, 3, 1]


def test_a_row_too_many_without_an_id_makes_the_read_incomplete_though_the_count_is_right():
    host = Host(list(range(1, 41)), spoil=on_page(2, lambda document: document["data"].append({"id": None})))

    assert read(host).reason == "a row has no readable id"


# Pages that cannot be had


def test_f3_a_refused_deep_page_leads_to_the_cursor():
    host = Host(list(range(1, 201)), max_page=5)

    result = read(host)

    assert result.is_complete
    assert result.by_cursor
    assert result.ids == set(range(1, 201))


@pytest.mark.parametrize("beyond", ["empty", "clamp"])
def test_f3_rows_that_are_silently_kept_back_lead_to_the_cursor(beyond: str):
    host = Host(list(range(1, 201)), max_page=5, beyond=beyond)

    result = read(host)

    assert result.is_complete
    assert result.by_cursor
    assert result.ids == set(range(1, 201))


def test_f3_a_last_page_that_is_kept_back_leads_to_the_cursor():
    result = read(Host(list(range(1, 201)), max_page=13, beyond="empty"))

    assert result.is_complete
    assert result.by_cursor


@pytest.mark.parametrize("beyond", ["refuse", "empty", "clamp"])
@pytest.mark.parametrize("cursor", ["ignored", "refused", "circular", "ends early"])
def test_f3_without_a_cursor_that_helps_the_read_is_incomplete(beyond: str, cursor: str):
    host = Host(list(range(1, 201)), max_page=5, beyond=beyond, cursor=cursor)

    result = read(host)

    assert not result.is_complete
    assert "; by cursor: " in result.reason
    assert len(result.ids) == 75
    assert len(host.asked) < 60


def test_a_refused_page_is_asked_for_once():
    host = Host(list(range(1, 201)), max_page=5, cursor="ignored")

    read(host)

    assert host.numbers.count(6) == 1


def test_the_pages_before_a_refused_one_are_kept():
    host = Host(list(range(1, 201)), max_page=5, cursor="ignored")

    result = read(host)

    assert result.rows.keys() == set(range(1, 76))
    assert "page 6 of 14 could not be read" in result.reason
    assert "the host does not page by cursor" in result.reason


def test_a_list_that_changed_while_read_by_cursor_is_read_again():
    host = Host(list(range(1, 101)), max_page=2, changes={8: [insert(999)]})

    result = read(host)

    assert result.is_complete
    assert result.by_cursor
    assert result.re_reads == 1
    assert 999 in result.ids


@pytest.mark.parametrize("failing", [1, FAILED_PAGES_TOLERATED - 1])
def test_pages_that_fail_leave_the_rows_of_the_others(failing: int):
    host = Host(list(range(1, 151)), spoil=times(99, 503, *range(3, 3 + failing)))

    result = read(host)

    assert result.reason.startswith("page 3 of 10 could not be read: instance sim: GET /api/sender-emails: HTTP 503")
    assert len(result.rows) == 150 - failing * PAGE_SIZE
    assert host.numbers.count(1) == 1


def test_a_host_that_fails_page_after_page_is_not_asked_for_all_of_them():
    host = Host(list(range(1, 1501)), spoil=times(999, 503, *range(2, 101)))

    result = read(host)

    assert not result.is_complete
    assert len(host.asked) <= 1 + FAILED_PAGES_TOLERATED + PAGES_PER_WAKE


def test_a_last_look_that_fails_leaves_the_rows():
    def fail(host: Host, asked: Asked, document: dict[str, Any]) -> httpx.Response | None:
        return httpx.Response(503) if host.numbers.count(1) == 2 else None

    result = read(Host(list(range(1, 41)), spoil=fail))

    assert result.reason.startswith("the last look at page 1 failed: ")
    assert len(result.rows) == 40


def test_a_re_read_that_fails_leaves_the_rows_of_the_first():
    def fail(host: Host, asked: Asked, document: dict[str, Any]) -> httpx.Response | None:
        return httpx.Response(503) if host.numbers.count(1) > 2 else None

    result = read(Host(list(range(1, 41)), changes={3: [insert(99)]}, spoil=fail))

    assert "the list changed while it was read" in result.reason
    assert len(result.rows) == 40


@pytest.mark.parametrize(("status", "error"), [(503, ApiUnavailable), (404, ApiRefused), (401, CredentialsError)])
def test_the_error_of_page_1_is_raised(status: int, error: type[Exception]):
    with pytest.raises(error):
        read(Host([1], spoil=times(1, status, 1)))


def test_a_refused_token_on_any_page_is_raised_and_the_rest_is_not_asked():
    host = Host(list(range(1, 1501)), spoil=times(1, 401, 3))

    with pytest.raises(CredentialsError):
        read(host)

    assert len(host.asked) <= 3 + PAGES_PER_WAKE


def test_the_deadline_on_any_page_is_raised():
    def late(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if asked == 3:
            raise DeadlineExceeded("the deadline has come")

    with pytest.raises(DeadlineExceeded):
        read(Host(list(range(1, 151)), spoil=late))


def test_closed_lanes_end_the_read():
    lanes = DrawnLanes()

    def close(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if asked == 2:
            lanes.close()

    with pytest.raises(CancelledError):
        read(Host(list(range(1, 151)), spoil=close), lanes)


def test_no_more_pages_are_queued_than_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "PAGES_AHEAD", 4)
    lanes = DrawnLanes()
    most = 0

    def look(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        nonlocal most
        most = max(most, len(lanes._waiting) + 1)

    result = read(Host(list(range(1, 301)), spoil=look), lanes)

    assert result.is_complete
    assert most == 4


# What the caller hears


def test_the_caller_hears_of_total_and_pages():
    totals: list[int] = []
    pages: list[int] = []

    read(Host(list(range(1, 41))), on_total=totals.append, on_page=pages.append)

    assert totals == [40]
    assert pages == [15, 15, 10]


def test_the_call_beside_the_last_look_is_made_after_every_page():
    host = Host(list(range(1, 41)))
    asked_by_then: list[int] = []
    reader = reader_of(host, beside_last_look=lambda: asked_by_then.append(len(host.asked)))

    reader.read()

    assert asked_by_then == [3]
    assert reader.last_beside is not None


def test_there_is_no_call_beside_a_last_look_that_is_not_made():
    reader = reader_of(Host(list(range(1, 41)), spoil=times(9, 503, 2)), beside_last_look=lambda: None)

    reader.read()

    assert reader.last_beside is None


def test_a_first_page_that_is_under_way_is_used():
    host = Host(list(range(1, 41)))
    reader = reader_of(host)

    result = reader.read(reader.submit_page(1))

    assert result.is_complete
    assert host.asked == [1, 2, 3, 1]


def test_the_callers_filter_is_in_every_request():
    queries: list[str] = []

    class Noting(Host):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            queries.append(request.url.params["status"])
            return super().__call__(request)

    read(Noting(list(range(1, 101)), max_page=2), query={"status": "connected"})

    assert set(queries) == {"connected"}
