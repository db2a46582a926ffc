"""Reads a paginated list and proves that it was read whole. Every poll uses this and nothing else.

The proof: every page 1..last_page arrived; ``total`` and ``last_page`` are the same on page 1 and on a last look at it
after all others; the number of distinct ids equals ``total``; no row came twice; no page told another total; the last
look shows no id that was not read. A list that moved under the reader is read again, up to three times; two readings in
a row that agree settle a row that came twice or a page's own total. Pages that the host refuses are read by cursor.

What that proves: the ids are those of the list at the time of the last look, if meanwhile rows were only added, or only
removed, or only moved to other pages; also if some were added and others removed, as long as new rows come first (as
observed, newest id first) and fewer than a page of them came and went again. Rows added elsewhere while as many are
removed between the same two answers cannot be told from a list at rest, short of reading it twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from bisonsync.api.client import InstanceClient
from bisonsync.api.lanes import Lanes
from bisonsync.api.limits import ServiceMeter
from bisonsync.errors import ApiError, ApiRefused

RE_READS = 3
# The rows of the other pages are worth having; a host that fails more often is not asked for the rest.
FAILED_PAGES_TOLERATED = 3
# Enough for the lanes to go on while one page is tried again; not so many that an absurd last_page fills the memory.
PAGES_AHEAD = 256
# Waking this thread for each page costs as much as reading the page; waking it late asks a failing host for more.
PAGES_PER_WAKE = 16


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that could not be read. ``record_id`` is None when not even its id is readable."""

    record_id: int | None
    field: str
    error_type: str
    message: str
    row: Any


ReadRow = Callable[[Any], "tuple[int, str] | InvalidRow"]


@dataclass(frozen=True, slots=True)
class _ReadPage:
    """A page whose rows are already encoded: the API's own form of a row is large and not kept."""

    rows: list[tuple[int, str] | InvalidRow]
    total: int | None
    last_page: int | None
    next_cursor: str | None


@dataclass
class ListRead:
    """What a read of a list brought.

    ``rows`` maps id to the row as the caller's ``read_row`` encoded it. ``reason`` says why the read is incomplete,
    "" when it is proven complete. ``ids`` are those of all rows, the invalid ones included.
    """

    rows: dict[int, str] = field(default_factory=dict[int, str])
    ids: set[int] = field(default_factory=set[int])
    invalid: list[InvalidRow] = field(default_factory=list[InvalidRow])
    total: int | None = None
    last_page: int | None = None
    reason: str = ""
    by_cursor: bool = False
    re_reads: int = 0

    @property
    def is_complete(self) -> bool:
        """True when the read is proven to be the whole list."""
        return not self.reason


# Why a walk proves nothing. Only a second walk that agrees is wanting; rows moved; a page came empty or there are too
# few pages for total; a page was refused for good; something else failed.
_Trouble = Literal["doubtful", "moving", "hiding", "refused", "failed"]


@dataclass
class _Walk(ListRead):
    """One walk over the list. It is complete when nothing speaks against it."""

    trouble: _Trouble | None = None
    repeated: int = 0
    other_total: int | None = None
    page_size: int = 0
    empty_page: int | None = None
    pages_missing: int = 0

    def add(self, page: _ReadPage) -> int:
        """Take a page's rows; the number of ids that are new."""
        before = len(self.ids)
        for row in page.rows:
            if isinstance(row, InvalidRow):
                self.invalid.append(row)
                record_id = row.record_id
            else:
                record_id, self.rows[record_id] = row
            if record_id is not None:
                self.repeated += record_id in self.ids
                self.ids.add(record_id)
        if page.total not in (None, self.total):
            self.other_total = page.total
        return len(self.ids) - before

    def fail(self, trouble: _Trouble, reason: str) -> _Walk:
        self.trouble, self.reason = trouble, reason
        return self

    def judge(self, look: _ReadPage) -> None:
        """Say what speaks against this walk; ``look`` is the last look at page 1."""
        if (look.total, look.last_page) != (self.total, self.last_page):
            said = f"total {self.total} before, {look.total} after"
            self.fail("moving", f"the list changed while it was read: {said}")
        elif any(row.record_id is None for row in self.invalid):
            self.fail("failed", "a row has no readable id")
        elif self._has_hidden_rows:
            where = f"page {self.empty_page} of {self.last_page} came empty" if self.empty_page else "too few pages"
            self.fail("hiding", f"{where}: {self._count}")
        elif len(self.ids) != self.total:
            self.fail("moving", self._count)
        elif not {row.record_id if isinstance(row, InvalidRow) else row[0] for row in look.rows} <= self.ids:
            self.fail("moving", "the list changed while it was read: page 1 shows a row that was not there before")
        elif self.repeated or self.other_total is not None:
            said = f", a page's total {self.other_total}" if self.other_total is not None else ""
            self.fail("doubtful", f"the list changed while it was read: {self._count}{said}")

    def agrees_with(self, other: _Walk) -> bool:
        """True when both saw the same list."""
        return (self.total, self.last_page, self.ids) == (other.total, other.last_page, other.ids)

    @property
    def _has_hidden_rows(self) -> bool:
        """True when rows seem to lie behind the pages: one came empty, or all of them cannot hold ``total``."""
        if self.by_cursor or self.total is None:
            return False
        too_few = (self.last_page or 1) * self.page_size < self.total
        return self.pages_missing > 0 or (len(self.ids) < self.total and (too_few or self.empty_page is not None))

    @property
    def _count(self) -> str:
        twice = f", {self.repeated} rows came twice" if self.repeated else ""
        return f"{len(self.ids)} distinct rows came, total says {self.total}{twice}"


class ListReader:
    """Reads one list of one owner (a workspace) with one token.

    ``beside_last_look`` is called beside the last look at page 1, when every row has arrived; ``last_beside`` is its
    future, None when the last walk ended before that.
    """

    def __init__(
        self,
        client: InstanceClient,
        lanes: Lanes,
        *,
        owner: Hashable,
        path: str,
        token: str,
        who: str,
        read_row: ReadRow,
        meter: ServiceMeter | None = None,
        query: Mapping[str, str | int] | None = None,
        on_total: Callable[[int], None] = lambda total: None,
        on_page: Callable[[int], None] = lambda rows: None,
        beside_last_look: Callable[[], Any] | None = None,
    ) -> None:
        self._client = client
        self._lanes = lanes
        self._owner = owner
        self._path = path
        self._token = token
        self._who = who
        self._read_row = read_row
        self._meter = meter
        self._query = dict(query or {})
        self._on_total = on_total
        self._on_page = on_page
        self._beside_last_look = beside_last_look
        self.last_beside: Future[Any] | None = None

    def submit_page(self, number: int) -> Future[_ReadPage]:
        """Queue one page by number."""
        return self._submit({"page": number})

    def read(self, first: Future[_ReadPage] | None = None) -> ListRead:
        """Walk the list until it is proven whole, or cannot be.

        ``first`` is page 1 already on its way. Raises what page 1 raises; errors of other pages make the read
        incomplete. Invalid rows with a readable id count as read, without one they make the read incomplete.
        Of several incomplete walks the one that brought most is given.
        """
        page_1 = (first or self.submit_page(1)).result()
        walk = self._settle(self._walk_by_number, self._walk_by_number(page_1))
        if walk.trouble not in ("hiding", "refused"):
            return walk
        by_cursor = self._settle(self._walk_by_cursor, self._walk_by_cursor())
        if by_cursor.is_complete:
            return by_cursor
        if walk.trouble == "hiding":
            # It may have been a mishap after all.
            walk = _best([walk, self._settle(self._walk_by_number, self._walk_by_number())])
        if not walk.is_complete:
            by_cursor.reason = walk.reason = f"{walk.reason}; by cursor: {by_cursor.reason}"
        return _best([by_cursor, walk])

    def _settle(self, walk_once: Callable[[], _Walk], walk: _Walk) -> _Walk:
        """Walk again while the list moves; two walks that agree end it, be they proof or not."""
        walks = [walk]
        while walks[-1].trouble in ("moving", "doubtful") and len(walks) <= RE_READS:
            again = walk_once()
            again.re_reads = len(walks)
            walks.append(again)
            if again.agrees_with(walks[-2]):
                if again.trouble == "doubtful":
                    again.trouble, again.reason = None, ""
                break
        return _best(walks)

    def _walk_by_number(self, page_1: _ReadPage | None = None) -> _Walk:
        walk = _Walk()
        self.last_beside = None
        try:
            page_1 = page_1 or self.submit_page(1).result()
        except ApiError as error:
            return walk.fail("failed", f"page 1 could not be read again: {error.message}")
        walk.total, walk.last_page, walk.page_size = page_1.total, page_1.last_page, len(page_1.rows)
        self._add(walk, page_1)
        if walk.total is None:
            return walk.fail("failed", "the answer has no total to prove the list by")
        self._on_total(walk.total)
        self._read_others(walk)
        return walk if walk.trouble else self._look_again(walk)

    def _read_others(self, walk: _Walk) -> None:
        """Pages 2 to ``last_page``, some ahead of the one waited for. An empty or refused page ends the asking."""
        last_page = walk.last_page or 1
        ahead: deque[tuple[int, Future[_ReadPage]]] = deque()
        numbers = iter(range(2, last_page + 1))
        errors: list[tuple[int, ApiError]] = []
        arrived = 1
        while True:
            free = PAGES_AHEAD - len(ahead)
            ahead.extend((number, self.submit_page(number)) for number in islice(numbers, free))
            if not ahead:
                break
            if not ahead[0][1].done():
                _wait(ahead[min(len(ahead) // 2, PAGES_PER_WAKE)][1])
            number, future = ahead.popleft()
            goes_on = False
            try:
                page = future.result()
                arrived += 1
                self._add(walk, page)
                goes_on = bool(page.rows)
                if not page.rows:
                    walk.empty_page = walk.empty_page or number
            except ApiError as error:
                errors.append((number, error))
                goes_on = not isinstance(error, ApiRefused) and len(errors) < FAILED_PAGES_TOLERATED
            except CancelledError:
                # Dropped here, or the lanes are closed and the last look will say so.
                pass
            finally:
                if not goes_on:
                    numbers = iter(())
                    self._lanes.drop(self._owner)
        walk.pages_missing = last_page - arrived
        if errors:
            number, error = errors[0]
            trouble = "refused" if any(isinstance(error, ApiRefused) for _, error in errors) else "failed"
            walk.fail(trouble, f"page {number} of {last_page} could not be read: {error.message}")

    def _walk_by_cursor(self) -> _Walk:
        """The whole list page after page, between two looks at page 1 that tell its total."""
        walk = _Walk(by_cursor=True)
        self.last_beside = None
        cursor: str | None = ""
        try:
            page_1 = self.submit_page(1).result()
            walk.total, walk.last_page = page_1.total, page_1.last_page
            while cursor is not None:
                page = self._submit({"pagination_type": "cursor", **({"cursor": cursor} if cursor else {})}).result()
                if not cursor and page.next_cursor is None and page.last_page is not None:
                    return walk.fail("failed", "the host does not page by cursor")
                if not self._add(walk, page) and page.next_cursor is not None:
                    return walk.fail("failed", "the host's cursors run in a circle")
                cursor = page.next_cursor
        except ApiError as error:
            return walk.fail("failed", error.message)
        return self._look_again(walk)

    def _look_again(self, walk: _Walk) -> _Walk:
        """The last look at page 1, and the verdict."""
        if self._beside_last_look is not None:
            self.last_beside = self._lanes.submit(self._owner, self._beside_last_look)
        try:
            walk.judge(self.submit_page(1).result())
        except ApiError as error:
            walk.fail("failed", f"the last look at page 1 failed: {error.message}")
        return walk

    def _submit(self, query: Mapping[str, str | int]) -> Future[_ReadPage]:
        def get() -> _ReadPage:
            page = self._client.get_page(
                self._path, {**self._query, **query}, token=self._token, who=self._who, meter=self._meter
            )
            rows = [self._read_row(raw) for raw in page.rows]
            return _ReadPage(rows, page.total, page.last_page, page.next_cursor)

        return self._lanes.submit(self._owner, get)

    def _add(self, walk: _Walk, page: _ReadPage) -> int:
        self._on_page(len(page.rows))
        return walk.add(page)


def _wait(future: Future[_ReadPage]) -> None:
    """Until it is done, whatever its outcome."""
    with suppress(CancelledError):
        future.exception()


def _best(walks: Sequence[_Walk]) -> _Walk:
    """The one that proves the list, else the one that brought most, among equals the latest."""
    return max(reversed(walks), key=lambda walk: (walk.is_complete, len(walk.ids)))
