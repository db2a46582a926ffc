"""Cuts lists into pages of 15 and describes them as the stock Laravel paginators do."""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

PER_PAGE = 15


class Page(NamedTuple):
    """The ids of one page with its `links` and `meta`."""

    ids: Sequence[int]
    links: dict[str, Any]
    meta: dict[str, Any]


def read_number(text: str | None) -> int | None:
    """Read an id or a page number: plain digits that fit a bigint, else None."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 18 else None


def page_number(text: str | None) -> int:
    """Read a page number; anything but a positive integer is page 1."""
    return read_number(text) or 1


def _numbers(current: int, last: int) -> list[int | None]:
    """List the page numbers a Laravel paginator shows; None is a gap."""
    if last < 14:
        return list(range(1, last + 1))
    if current <= 7:
        return [*range(1, 11), None, last - 1, last]
    if current > last - 7:
        return [1, 2, None, *range(last - 9, last + 1)]
    return [1, 2, None, *range(current - 3, current + 4), None, last - 1, last]


def by_number(ids: Sequence[int], current: int, url: str, *, cap: int = 0) -> Page:
    """Cut one numbered page; past the end, or past a cap, it is empty and `last_page` stays what it is."""
    ids = ids[:cap] if cap else ids
    total = len(ids)
    last = max(1, -(-total // PER_PAGE))
    chosen = ids[(current - 1) * PER_PAGE : current * PER_PAGE]
    previous = f"{url}?page={current - 1}" if current > 1 else None
    following = f"{url}?page={current + 1}" if current < last else None
    middle = [
        {"url": None, "label": "...", "active": False}
        if number is None
        else {"url": f"{url}?page={number}", "label": str(number), "active": number == current}
        for number in _numbers(current, last)
    ]
    meta: dict[str, Any] = {
        "current_page": current,
        "from": (current - 1) * PER_PAGE + 1 if chosen else None,
        "last_page": last,
        "links": [
            {"url": previous, "label": "&laquo; Previous", "active": False},
            *middle,
            {"url": following, "label": "Next &raquo;", "active": False},
        ],
        "path": url,
        "per_page": PER_PAGE,
        "to": (current - 1) * PER_PAGE + len(chosen) if chosen else None,
        "total": total,
    }
    links = {"first": f"{url}?page=1", "last": f"{url}?page={last}", "prev": previous, "next": following}
    return Page(chosen, links, meta)


def encode_cursor(row_id: int, *, forward: bool) -> str:
    """Write a cursor: the id of a row and the direction to read from it."""
    text = json.dumps({"id": row_id, "_pointsToNextItems": forward}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str | None) -> tuple[int, bool] | None:
    """Read a cursor; one that cannot be read is none, and the list starts at its head."""
    if not text:
        return None
    try:
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return int(value["id"]), bool(value["_pointsToNextItems"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None


def by_cursor(ids: Sequence[int], cursor: str | None, url: str) -> Page:
    """Cut the page after (or before) a cursor out of ids that fall from the newest to the oldest."""
    low, position = 0, decode_cursor(cursor)
    if position and position[1]:
        low = bisect_right(ids, -position[0], key=lambda row_id: -row_id)
    elif position:
        low = max(0, bisect_left(ids, -position[0], key=lambda row_id: -row_id) - PER_PAGE)
    chosen = ids[low : low + PER_PAGE]
    following = encode_cursor(chosen[-1], forward=True) if low + PER_PAGE < len(ids) else None
    previous = encode_cursor(chosen[0], forward=False) if chosen and low > 0 else None
    links = {
        "first": None,
        "last": None,
        "prev": f"{url}?cursor={previous}" if previous else None,
        "next": f"{url}?cursor={following}" if following else None,
    }
    meta = {"path": url, "per_page": PER_PAGE, "next_cursor": following, "prev_cursor": previous}
    return Page(chosen, links, meta)
