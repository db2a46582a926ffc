"""A host whose rows move under the reader, that hides pages, changes its way of paging, or says what is not so.

Requests are answered one at a time, in an order that each test draws; changes of the list happen between two answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
from conversation import TOKEN, WHO, HandClock, client_of
from hypothesis import strategies as st

from bisonsync.api.lanes import Lanes
from bisonsync.api.lists import InvalidRow, ListRead, ListReader

PAGE_SIZE = 15
Rows = list[int]
Change = Callable[[Rows], None]
# A page by its number, or the cursor that was asked for.
Asked = int | str


@dataclass
class Host:
    """Serves a list of ids, page after page, as it is when each request comes.

    ``changes`` happen before the request of that number (from 1), and so do changes of its ``mode``: it pages as it is
    asked to ("both"), or knows nothing but cursors and tells no total ("cursor"), or nothing but numbers ("number").
    It counts no further than ``cap``; with ``links`` its last page then links to another, which has rows (None: each
    page links to another, whether there is one or not). ``spoil`` may change or replace an answer.
    """

    rows: Rows
    page_size: int = PAGE_SIZE
    max_page: int | None = None
    beyond: str = "refuse"
    cursor: str = "works"
    mode: str = "both"
    cap: int = 10**9
    links: bool | None = False
    changes: dict[int, list[Change]] = field(default_factory=dict[int, list[Change]])
    modes: dict[int, str] = field(default_factory=dict[int, str])
    spoil: Callable[[Host, Asked, dict[str, Any]], httpx.Response | None] = lambda host, asked, document: None
    asked: list[Asked] = field(default_factory=list[Asked])
    seen: list[frozenset[int]] = field(default_factory=list[frozenset[int]])
    told: list[int | None] = field(default_factory=list["int | None"])
    moved: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    _anchors: list[frozenset[tuple[int, int]]] = field(default_factory=list[frozenset[tuple[int, int]]])

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        self.asked.append(query.get("cursor", "") if "pagination_type" in query else int(query["page"]))
        self.mode = self.modes.get(len(self.asked), self.mode)
        for change in self.changes.get(len(self.asked), []):
            self._let(change)
        is_as_before = self.seen and not self.changes.get(len(self.asked))
        self.seen.append(self.seen[-1] if is_as_before else frozenset(self.rows))
        is_by_cursor = query.get("pagination_type") == "cursor" and self.cursor != "ignored" and self.mode != "number"
        if is_by_cursor and self.cursor == "refused":
            self.told.append(None)
            return httpx.Response(422, json={"message": "Unknown pagination type."})
        if is_by_cursor or self.mode == "cursor":
            document = self._by_cursor(query.get("cursor", "") if is_by_cursor else "")
        else:
            number = int(query.get("page", 1))
            if self.max_page is not None and number > self.max_page and self.beyond == "refuse":
                self.told.append(None)
                return httpx.Response(422, json={"message": "Page too deep."})
            document = self._by_number(number)
        self.told.append(document["meta"].get("total"))
        return self.spoil(self, self.asked[-1], document) or httpx.Response(200, json=document)

    def _let(self, change: Change) -> None:
        before = list(self.rows)
        change(self.rows)
        both = set(before) & set(self.rows)
        was, is_now = [row for row in before if row in both], [row for row in self.rows if row in both]
        if was != is_now:
            at_rest = [[row for row in was if row != moved] == [row for row in is_now if row != moved] for moved in was]
            self.moved.append((len(self.asked), was[at_rest.index(True)]))

    def _by_number(self, number: int) -> dict[str, Any]:
        total = min(len(self.rows), self.cap)
        last_page = max(1, -(-total // self.page_size))
        end = number * self.page_size
        rows = self.rows[(number - 1) * self.page_size : end if self.links else min(end, self.cap)]
        if self.max_page is not None and self.beyond == "clamp":
            last_page = min(last_page, self.max_page)
        if self.max_page is not None and number > self.max_page:
            rows = []
        meta = {"current_page": number, "per_page": self.page_size, "total": total, "last_page": last_page}
        following = f"https://example.com/?page={number + 1}" if len(self.rows) > number * self.page_size else None
        always = f"https://example.com/?page={number + 1}"
        links = {} if self.links is False else {"links": {"next": following if self.links else always}}
        return {"data": [{"id": row} for row in rows], **links, "meta": meta}

    def _by_cursor(self, cursor: str) -> dict[str, Any]:
        """The rows that come after those that the cursor stands for, but for those of them that have moved."""
        start = self._start(cursor)
        rows = self.rows[start : start + self.page_size]
        following = None
        if start + self.page_size < len(self.rows) or self.cursor == "circular":
            following = self._cursor_to(0 if self.cursor == "circular" else start + self.page_size)
        if self.cursor == "ends early" and cursor:
            following = None
        return {"data": [{"id": row} for row in rows], "meta": {"per_page": self.page_size, "next_cursor": following}}

    def _start(self, cursor: str) -> int:
        if not cursor.startswith("after "):
            return int(cursor or 0)
        passed = self._anchors[int(cursor.removeprefix("after "))]
        return max((at + 1 for at, row in enumerate(self.rows) if (row, self._moves(row)) in passed), default=0)

    def _cursor_to(self, start: int) -> str:
        if not self.changes:
            return str(start)
        self._anchors.append(frozenset((row, self._moves(row)) for row in self.rows[:start]))
        return f"after {len(self._anchors) - 1}"

    def _moves(self, row: int) -> int:
        return sum(moved == row for _, moved in self.moved)

    @property
    def seen_at_last_look(self) -> frozenset[int]:
        """The list as it was at the last request for page 1."""
        return self.seen[self.looks[-1]]

    @property
    def looks(self) -> list[int]:
        """At which requests page 1 was asked for, from 0."""
        return [at for at, asked in enumerate(self.asked) if asked == 1]

    @property
    def numbers(self) -> list[int]:
        """The pages asked for by number."""
        return [asked for asked in self.asked if isinstance(asked, int)]


class DrawnLanes:
    """Lanes that make one call at a time, when somebody waits for one; which is next is drawn."""

    def __init__(self, draw: Callable[[int], int] = lambda waiting: 0) -> None:
        self.is_closed = False
        self._draw = draw
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, owner: str, call: Callable[[], Any]) -> Future[Any]:
        future = _Awaited(self)
        if self.is_closed:
            future.cancel()
        else:
            self._waiting.append((future, call))
        return future

    def drop(self, owner: str) -> None:
        for future, _ in self._waiting:
            future.cancel()
        self._waiting.clear()

    def close(self) -> None:
        self.is_closed = True
        self.drop("")

    def run_until_done(self, awaited: Future[Any]) -> None:
        while not awaited.done():
            future, call = self._waiting.pop(self._draw(len(self._waiting)))
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)


class _Awaited(Future[Any]):
    def __init__(self, lanes: DrawnLanes) -> None:
        super().__init__()
        self._lanes = lanes

    def result(self, timeout: float | None = None) -> Any:
        self._lanes.run_until_done(self)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._lanes.run_until_done(self)
        return super().exception(0)


def read_row(raw: Any) -> tuple[int, str] | InvalidRow:
    number = raw.get("id")
    if not isinstance(number, int):
        return InvalidRow(None, "id", "missing", "no id", raw)
    if "odd" in raw:
        return InvalidRow(number, "odd", "odd", "an odd row", raw)
    return number, json.dumps(raw)


def reader_of(host: Host, lanes: DrawnLanes | Lanes | None = None, **options: Any) -> ListReader:
    return ListReader(
        client_of(host, HandClock(), attempts=1, failures_before_giving_up=1_000_000),
        cast("Lanes", lanes or DrawnLanes()),
        owner="sim/5",
        path="/api/sender-emails",
        token=TOKEN,
        who=WHO,
        read_row=read_row,
        **options,
    )


def read(host: Host, lanes: DrawnLanes | Lanes | None = None, **options: Any) -> ListRead:
    result = reader_of(host, lanes, **options).read()
    assert result.is_complete == (not result.reason)
    assert set(result.rows) | {row.record_id for row in result.invalid} - {None} == result.ids
    if result.is_complete and not result.by_cursor:
        assert len(result.ids) == result.total
    return result


def in_any_order(seed: int) -> DrawnLanes:
    chance = random.Random(seed)
    return DrawnLanes(chance.randrange)


def insert(number: int, at: int = 0) -> Change:
    return lambda rows: rows.insert(at, number)


def remove(at: int) -> Change:
    return lambda rows: rows.pop(at) and None


def move(source: int, target: int) -> Change:
    return lambda rows: rows.insert(target, rows.pop(source))


def times(count: int, status: int, *pages: Asked) -> Callable[[Host, Asked, dict[str, Any]], httpx.Response | None]:
    """Answer so often with a status instead of these pages."""

    def spoil(host: Host, asked: Asked, document: dict[str, Any]) -> httpx.Response | None:
        nonlocal count
        if asked in pages and count:
            count -= 1
            return httpx.Response(status)
        return None

    return spoil


def on_page(number: Asked, change: Callable[[dict[str, Any]], None]) -> Any:
    """Change every answer to this page."""

    def spoil(host: Host, asked: Asked, document: dict[str, Any]) -> None:
        if asked == number:
            change(document)

    return spoil


def changes(*kinds: str) -> st.SearchStrategy[list[tuple[int, str, int, int]]]:
    """Up to some changes: before which request, what, and two positions."""
    change = st.tuples(st.integers(1, 40), st.sampled_from(kinds), st.integers(0, 40), st.integers(0, 40))
    return st.lists(change, max_size=12)


def moving_host(count: int, page_size: int, drawn: Iterable[tuple[int, str, int, int]]) -> Host:
    """A host whose rows come, go and move as drawn; ids grow, and "comes first" puts the newest in front."""
    newest = iter(range(count + 1, 10_000))

    def change_of(kind: str, source: int, target: int) -> Change:
        def change(rows: Rows) -> None:
            if kind == "comes first":
                rows.insert(0, next(newest))
            elif kind == "comes":
                rows.insert(source % (len(rows) + 1), next(newest))
            elif kind == "goes" and rows:
                rows.pop(source % len(rows))
            elif kind == "moves" and rows:
                rows.insert(target % len(rows), rows.pop(source % len(rows)))

        return change

    host = Host(list(range(count, 0, -1)), page_size)
    for request, kind, source, target in drawn:
        host.changes.setdefault(request, []).append(change_of(kind, source, target))
    return host
