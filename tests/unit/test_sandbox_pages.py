"""Pages are cut and described as the stock Laravel paginators do it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisonsync.sandbox.pages import by_cursor, by_number, decode_cursor, encode_cursor, page_number

URL = "http://sandbox.example.com/api/sender-emails"


def falling(count: int) -> list[int]:
    return list(range(count * 3, 0, -3))


def test_describes_a_page_in_the_middle() -> None:
    page = by_number(falling(433), 2, URL)

    assert list(page.ids) == falling(433)[15:30]
    assert page.links == {
        "first": f"{URL}?page=1",
        "last": f"{URL}?page=29",
        "prev": f"{URL}?page=1",
        "next": f"{URL}?page=3",
    }
    links = page.meta.pop("links")
    assert page.meta == {
        "current_page": 2,
        "from": 16,
        "last_page": 29,
        "path": URL,
        "per_page": 15,
        "to": 30,
        "total": 433,
    }
    assert links[0] == {"url": f"{URL}?page=1", "label": "&laquo; Previous", "active": False}
    assert [link["label"] for link in links if link["active"]] == ["2"]


@pytest.mark.parametrize(
    ("current", "last", "labels"),
    [
        (1, 1, "1"),
        (3, 13, "1 2 3 4 5 6 7 8 9 10 11 12 13"),
        (7, 14, "1 2 3 4 5 6 7 8 9 10 ... 13 14"),
        (8, 14, "1 2 ... 5 6 7 8 9 10 11 12 13 14"),
        (15, 29, "1 2 ... 12 13 14 15 16 17 18 ... 28 29"),
        (23, 29, "1 2 ... 20 21 22 23 24 25 26 27 28 29"),
    ],
)
def test_shows_the_page_numbers_that_laravel_shows(current: int, last: int, labels: str) -> None:
    links = by_number(falling(last * 15), current, URL).meta["links"]

    assert " ".join(link["label"] for link in links[1:-1]) == labels


def test_past_the_end_is_empty_and_the_last_page_stays() -> None:
    page = by_number(falling(20), 9, URL)

    assert list(page.ids) == []
    assert (page.meta["from"], page.meta["to"]) == (None, None)
    assert (page.meta["current_page"], page.meta["last_page"], page.meta["total"]) == (9, 2, 20)
    assert (page.links["prev"], page.links["next"]) == (f"{URL}?page=8", None)


def test_an_empty_list_has_one_empty_page() -> None:
    meta = by_number([], 1, URL).meta

    assert (meta["last_page"], meta["total"], meta["from"], meta["to"]) == (1, 0, None, None)


@pytest.mark.parametrize("text", [None, "", "0", "-3", "abc", "1.5", "9" * 40])
def test_what_is_no_page_number_is_page_one(text: str | None) -> None:
    assert page_number(text) == 1


@given(st.integers(0, 100))
def test_following_cursors_reads_everything_once_and_back_again(count: int) -> None:
    ids, cursor, read = falling(count), None, []
    while True:
        page = by_cursor(ids, cursor, URL)
        read += page.ids
        if page.meta["next_cursor"] is None:
            break
        cursor = page.meta["next_cursor"]

    assert read == ids
    assert page.links["last"] is None
    assert "total" not in page.meta
    while page.meta["prev_cursor"] is not None:
        page = by_cursor(ids, page.meta["prev_cursor"], URL)
    assert list(page.ids) == ids[:15]


def test_a_cursor_keeps_its_place_when_rows_come_and_go() -> None:
    first = by_cursor(falling(40), None, URL)
    moved = [1000, 999, *falling(40)[1:]]

    second = by_cursor(moved, first.meta["next_cursor"], URL)

    assert list(second.ids) == falling(40)[15:30]


@pytest.mark.parametrize("cursor", ["", "!", "bm8", "eyJpZCI6e319", "W10", "Ij8i", "ü", encode_cursor(7, forward=True)])
def test_an_unreadable_cursor_is_none(cursor: str) -> None:
    found = decode_cursor(cursor)

    assert found == ((7, True) if cursor == encode_cursor(7, forward=True) else None)
