"""Lists of hosts that change their way of paging, tell no total, count only so far, or go only so deep."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from list_host import PAGE_SIZE, Asked, Host, in_any_order, insert, moving_host, read, times

from bisonsync.api import lists, proof
from bisonsync.api.lists import PAGES_PER_WAKE, ListRead
from bisonsync.api.proof import looks_capped

DEEP = 500 * PAGE_SIZE


def rows(count: int) -> list[int]:
    return list(range(count, 0, -1))


# The promise


KINDS = {
    "only come": ("comes", "comes first"),
    "only go": ("goes",),
    "only move": ("moves",),
    "new ones come first, others go": ("comes first", "goes"),
    "anything": ("comes", "comes first", "goes", "moves"),
}
HOSTS = {
    "by number": {"cursor": "ignored"},
    "by number or cursor": {},
    "refuses deep pages": {"max_page": 1},
    "keeps deep pages back": {"max_page": 1, "beyond": "empty"},
    "tells fewer pages": {"max_page": 2, "beyond": "clamp"},
    "no total": {"mode": "cursor"},
    "counts only so far": {"cap": 0},
    "changes its way": {},
}


@st.composite
def moving_hosts(draw: st.DrawFn) -> tuple[str, Host]:
    """A host of any habits, whose rows come, go and move before any of its answers."""
    kinds, habits = draw(st.sampled_from(sorted(KINDS))), draw(st.sampled_from(sorted(HOSTS)))
    place = st.integers(0, 40)
    change = st.tuples(st.integers(1, 40), st.sampled_from(KINDS[kinds]), place, place)
    host = moving_host(draw(st.integers(0, 30)), draw(st.integers(2, 6)), draw(st.lists(change, max_size=12)))
    for name, value in HOSTS[habits].items():
        setattr(host, name, value)
    if habits == "changes its way":
        mode = st.sampled_from(["both", "cursor", "number"])
        host.modes = draw(st.dictionaries(st.integers(1, 40), mode, max_size=4))
    return kinds, host


def is_between_two_walks(host: Host, ids: set[int]) -> bool:
    """True when these are the rows as they were between the last two walks, but for those that no walk can meet."""
    began, ended, again, last = host.looks[-4:]
    if not ids <= host.seen[again]:
        return False
    for row in host.seen[again] - ids:
        came_and_went = row not in host.seen[began] and row not in host.seen[last]
        jumped = [
            any(start < at <= end + 1 and moved == row for at, moved in host.moved)
            for start, end in ((began, ended), (again, last))
        ]
        if not came_and_went and not all(jumped):
            return False
    return True


def is_kept(kinds: str, host: Host, result: ListRead) -> bool:
    """True when what `complete` promises of this list is so."""
    first, last = host.looks[-2:]
    if host.told[first] is None or host.told[last] is None or looks_capped(host.told[last], host.page_size):
        return is_between_two_walks(host, result.ids)
    came_and_went = {row for row in result.ids - host.seen[first] if row not in host.seen[-1]}
    is_promised = kinds != "anything" and len(came_and_went) < host.page_size
    return not is_promised or result.ids == host.seen_at_last_look


@settings(max_examples=1000, derandomize=True)
@given(moving_hosts(), st.integers(0, 2**32), st.sampled_from([(450, 500), (3, 2)]))
def test_complete_is_never_wrong_where_it_is_promised(drawn: tuple[str, Host], seed: int, limits: tuple[int, int]):
    kinds, host = drawn
    host.cap = host.cap or limits[1] * host.page_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "PAGES_BY_NUMBER", limits[0])
        patch.setattr(proof, "PAGES_TO_A_CAP", limits[1])

        result = read(host, in_any_order(seed))

        assert result.ids <= frozenset[int]().union(*host.seen)
        assert not result.is_complete or is_kept(kinds, host, result)


# No total


def test_a_list_without_a_total_is_walked_twice():
    host = Host(rows(40), mode="cursor")

    result = read(host)

    assert (result.is_complete, result.by_cursor, result.total, result.re_reads) == (True, True, None, 1)
    assert result.ids == set(rows(40))
    assert host.asked == [1, "", "15", "30", 1] * 2


def test_without_a_total_walks_that_differ_prove_nothing():
    newest = iter(range(100, 200))
    host = Host(rows(40), mode="cursor", changes={n: [insert(next(newest), at=20)] for n in range(3, 80, 5)})

    result = read(host)

    assert result.reason == "the host tells no total, and no two readings in a row by cursor brought the same rows"
    assert result.ids >= set(rows(40))


def test_without_a_total_a_row_that_one_walk_missed_is_in_the_next_two():
    host = Host(rows(40), mode="cursor", changes={4: [lambda all_rows: all_rows.insert(0, all_rows.pop(35))]})

    result = read(host)

    assert (result.is_complete, result.ids, result.re_reads) == (True, set(rows(40)), 2)


def test_a_chain_that_once_ended_early_is_walked_until_two_agree():
    cut: list[int] = []

    def cut_once(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if asked == "15" and not cut:
            cut.append(1)
            document["meta"]["next_cursor"] = None

    result = read(Host(rows(60), mode="cursor", spoil=cut_once))

    assert (result.is_complete, result.ids, result.re_reads) == (True, set(rows(60)), 2)


def test_without_a_total_rows_are_told_as_they_come():
    totals: list[int] = []

    read(Host(rows(40), mode="cursor"), on_total=totals.append)

    assert totals == [15, 30, 40, 55, 70, 80]


# A change in mid-read


@pytest.mark.parametrize("at", range(2, 6))
@pytest.mark.parametrize("back_at", [99, 8, 11])
def test_a_host_that_turns_to_cursors_in_mid_read_is_read_by_cursor(at: int, back_at: int):
    host = Host(rows(70), modes={at: "cursor", back_at: "both"})

    result = read(host)

    assert (result.is_complete, result.ids) == (True, set(rows(70)))


@pytest.mark.parametrize("at", range(2, 14))
def test_a_host_that_turns_back_to_numbers_in_mid_read_is_read_by_number(at: int):
    host = Host(rows(70), mode="cursor", modes={at: "number"})

    result = read(host)

    assert (result.is_complete, result.ids) == (True, set(rows(70)))


def test_a_chain_that_ends_before_the_total_told_earlier_proves_nothing():
    host = Host(rows(70), modes={2: "cursor"}, cursor="ends early")

    result = read(host)

    assert not result.is_complete
    assert "30 distinct rows came, total says 70" in result.reason


def test_a_page_without_its_total_ends_the_asking_by_number():
    host = Host(rows(1500), modes={3: "cursor"})

    result = read(host)

    assert (result.is_complete, result.by_cursor, len(result.ids)) == (True, True, 1500)
    assert len(host.numbers) <= 3 + PAGES_PER_WAKE + 2 * 2


# A total that is a cap, and pages that end


@pytest.mark.parametrize("cap", [DEEP, 2 * DEEP])
def test_a_total_that_is_a_cap_is_not_believed(cap: int):
    result = read(Host(rows(cap + 40), cap=cap))

    assert (result.is_complete, result.by_cursor, result.total) == (True, True, cap)
    assert len(result.ids) == cap + 40


@pytest.mark.parametrize("cap", [15, 75, 90])
@pytest.mark.parametrize("cursor", ["works", "refused"])
def test_a_last_page_that_links_to_another_proves_nothing_by_number(cap: int, cursor: str):
    host = Host(list(range(1, 101)), cap=cap, links=True, cursor=cursor)

    result = read(host)

    assert (result.is_complete, len(result.ids)) == ((True, 100) if cursor == "works" else (False, cap))
    assert result.is_complete or "links to another" in result.reason


@pytest.mark.parametrize("links", [True, None])
@pytest.mark.parametrize("count", [0, 7, 15, 100])
def test_a_last_page_that_nothing_follows_is_the_last(links: bool | None, count: int):
    host = Host(list(range(1, count + 1)), links=links)

    result = read(host)

    assert (result.is_complete, result.by_cursor, len(result.ids)) == (True, False, count)


@pytest.mark.parametrize(("count", "walks"), [(DEEP, 2), (DEEP + 1, 1), (450 * PAGE_SIZE + 1, 1)])
def test_a_long_list_begins_by_cursor_and_one_that_may_be_capped_is_walked_twice(count: int, walks: int):
    host = Host(rows(count), max_page=400)

    result = read(host)

    assert (result.is_complete, result.by_cursor, len(result.ids)) == (True, True, count)
    assert (set(host.numbers), host.asked.count("")) == ({1}, walks)


def test_a_total_that_may_be_a_cap_is_not_believed_without_a_cursor():
    result = read(Host(rows(DEEP), cursor="ignored"))

    assert "total 7500 may be where the host stops counting" in result.reason
    assert len(result.ids) == DEEP


@pytest.mark.parametrize("beyond", ["refuse", "empty"])
@pytest.mark.parametrize("cap", [10**9, 1000 * PAGE_SIZE])
def test_20_000_rows_behind_1_000_pages_are_read_to_the_last(beyond: str, cap: int):
    host = Host(rows(20_000), max_page=1000, beyond=beyond, cap=cap)

    result = read(host)

    assert (result.is_complete, len(result.ids)) == (True, 20_000)


@pytest.mark.parametrize("beyond", ["refuse", "empty"])
@pytest.mark.parametrize("cursor", ["ignored", "refused", "ends early", "circular"])
def test_20_000_rows_that_cannot_be_had_are_incomplete_with_the_reason(beyond: str, cursor: str):
    host = Host(rows(20_000), max_page=1000, beyond=beyond, cap=1000 * PAGE_SIZE, cursor=cursor)

    result = read(host)

    assert not result.is_complete
    assert result.reason


def test_a_long_list_of_a_host_without_cursors_is_read_by_number():
    result = read(Host(rows(DEEP + 15), cursor="ignored"))

    assert (result.is_complete, result.by_cursor, len(result.ids)) == (True, False, DEEP + 15)


def test_a_page_of_a_chain_that_fails_leaves_the_rows_before_it():
    result = read(Host(rows(60), mode="cursor", spoil=times(9, 503, "30")))

    assert "HTTP 503" in result.reason
    assert len(result.rows) == 30
