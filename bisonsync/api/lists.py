"""Reads a paginated list and proves that it was read whole. Every poll uses this and nothing else.

``complete`` may be trusted as follows; in every other case it is not given.

*By number*: every page 1..last_page arrived, and no rows are on a page that the last of them links to; ``total`` and
``last_page`` are the same on page 1 and on a last look at it after all others; the number of distinct ids equals
``total``; no row came twice; no page told another total; the last look shows no id that was not read. Two readings in a
row that agree settle a row that came twice or a page's own total. Then the ids are those of the list at the last look,
if meanwhile rows were only added, or only removed, or only moved to other pages; also if some were added and others
removed, as long as new rows come first (as observed, newest id first) and fewer than a page of them came and went
again. Rows added elsewhere while as many are removed between the same two answers cannot be told from a list at rest,
short of reading it twice.

*By cursor, with a total*: the chain of cursors ended, and what is said above holds between two looks at page 1.

*By cursor, without a total that can be believed* (the host tells none, or one at which hosts stop counting: a whole
number of 500 full pages; or its last numbered page links to another): two walks in a row ended and brought the same
ids, no fewer than any total told in between. Then each of these rows was in the list between the two walks, and
whatever else was in it came after the first walk had passed its place and went before the second did. That holds for
any adding and removing, where the cursor goes by something that does not change (as observed, the id); a row that
moves is missed only if it jumps over both walks. A host that tells no total and whose cursors end too early, at the
same place twice, cannot be found out; nor can one that counts only so far, and no further than its pages go, at any
other number without a link to the next.

A list that moved under the reader is read again, up to three times. A list of more than 450 pages, whose last pages
hosts refuse or leave empty, begins by cursor, and so does one without a total; numbered pages that are refused, come
empty or lose their total lead to the cursor, and a host without cursors back to the numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from itertools import islice
from typing import Any

from bisonsync.api.client import InstanceClient
from bisonsync.api.lanes import Lanes
from bisonsync.api.limits import ServiceMeter
from bisonsync.api.proof import InvalidRow, ListRead, ReadPage, ReadRow, Walk, looks_capped
from bisonsync.errors import ApiError, ApiRefused

__all__ = ["InvalidRow", "ListRead", "ListReader", "ReadRow"]

RE_READS = 3
# Some hosts refuse pages from 500 on.
PAGES_BY_NUMBER = 450
# The rows of the other pages are worth having; a host that fails more often is not asked for the rest.
FAILED_PAGES_TOLERATED = 3
# Enough for the lanes to go on while one page is tried again; not so many that an absurd last_page fills the memory.
PAGES_AHEAD = 256
# Waking this thread for each page costs as much as reading the page; waking it late asks a failing host for more.
PAGES_PER_WAKE = 16


class ListReader:
    """Reads one list of one owner (a workspace) with one token.

    ``on_total`` hears how many rows the list has, and of a list that does not tell, how many were read so far; it may
    hear it many times. ``beside_last_look`` is called beside the last look at page 1, when every row has arrived;
    ``last_beside`` is its future, None when the last walk ended before that.
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
        self._told: int | None = None
        self._uncounted = 0
        self._is_followed = False
        self.last_beside: Future[Any] | None = None

    def submit_page(self, number: int) -> Future[ReadPage]:
        """Queue one page by number."""
        return self._submit({"page": number})

    def read(self, first: Future[ReadPage] | None = None) -> ListRead:
        """Walk the list until it is proven whole, or cannot be.

        ``first`` is page 1 already on its way. Raises what page 1 raises; errors of other pages make the read
        incomplete. Invalid rows with a readable id count as read, without one they make the read incomplete.
        Of several incomplete walks the one that brought most is given.
        """
        page_1 = (first or self.submit_page(1)).result()
        if not _is_better_by_cursor(page_1):
            return self._read_by_number(page_1)
        by_cursor = self._settle(self._walk_by_cursor, page_1)
        if by_cursor.trouble not in ("unpaged", "refused"):
            return by_cursor
        walk = self._settle(self._walk_by_number)
        return walk if walk.is_complete else _neither(walk, by_cursor)

    def _read_by_number(self, page_1: ReadPage) -> ListRead:
        walk = self._settle(self._walk_by_number, page_1)
        if walk.trouble not in ("hiding", "refused", "switched"):
            return walk
        by_cursor = self._settle(self._walk_by_cursor)
        if by_cursor.is_complete:
            return by_cursor
        if walk.trouble != "refused":
            # A page that came empty may have been a mishap after all, and the host may tell its total again.
            walk = _best([walk, self._settle(self._walk_by_number)])
        return walk if walk.is_complete else _neither(walk, by_cursor)

    def _settle(self, walk_once: Callable[[ReadPage | None], Walk], page_1: ReadPage | None = None) -> Walk:
        """Walk again while the list moves; two walks that agree end it, be they proof or not."""
        walks = [walk_once(page_1)]
        while walks[-1].trouble in ("moving", "doubtful") and len(walks) <= RE_READS:
            again = walk_once(None)
            again.re_reads = len(walks)
            walks.append(again)
            if again.agrees_with(walks[-2]):
                if again.trouble == "doubtful":
                    again.trouble, again.reason = None, ""
                break
        best = _best(walks)
        # Whether the other way may help is for the last to say, whichever brought most.
        best.trouble = walks[-1].trouble
        return best

    def _walk_by_number(self, page_1: ReadPage | None = None) -> Walk:
        walk = Walk()
        self.last_beside = None
        try:
            page_1 = page_1 or self.submit_page(1).result()
        except ApiError as error:
            return walk.fail("failed", f"page 1 could not be read again: {error.message}")
        self._begin(walk, page_1)
        self._add(walk, page_1)
        if walk.total is None:
            return walk.fail("switched", "the answer has no total to prove the list by")
        self._read_others(walk)
        if walk.is_followed and not walk.trouble:
            self._look_behind(walk)
        return walk if walk.trouble else self._look_again(walk)

    def _look_behind(self, walk: Walk) -> None:
        """Ask for the page after the last, which links to it: hosts differ in whether such a link means anything."""
        try:
            walk.is_followed = bool(self.submit_page((walk.last_page or 1) + 1).result().rows)
        except ApiRefused:
            pass
        except ApiError as error:
            walk.fail("failed", f"the page after the last, which links to it, could not be read: {error.message}")
        self._is_followed = walk.is_followed

    def _read_others(self, walk: Walk) -> None:
        """Pages 2 to ``last_page``, some ahead of the one waited for. The first that brings no rows ends the asking."""
        last_page = walk.last_page or 1
        ahead: deque[tuple[int, Future[ReadPage]]] = deque()
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
                goes_on = bool(page.rows)
                if page.total is None:
                    # A host that pages by cursor meanwhile drops the number: this is not the page asked for.
                    walk.fail("switched", f"page {number} of {last_page} came without a total")
                    goes_on = False
                else:
                    arrived += 1
                    self._add(walk, page)
                    walk.is_followed |= number == last_page and page.has_next
                    walk.empty_page = walk.empty_page or (None if page.rows else number)
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
        if errors and walk.trouble is None:
            number, error = errors[0]
            trouble = "refused" if any(isinstance(error, ApiRefused) for _, error in errors) else "failed"
            walk.fail(trouble, f"page {number} of {last_page} could not be read: {error.message}")

    def _walk_by_cursor(self, page_1: ReadPage | None = None) -> Walk:
        """The whole list page after page, between two looks at page 1 that tell its total if the host does."""
        walk = Walk(by_cursor=True)
        self.last_beside = None
        cursor: str | None = ""
        try:
            self._begin(walk, page_1 or self.submit_page(1).result())
            while cursor is not None:
                page = self._submit({"pagination_type": "cursor", **({"cursor": cursor} if cursor else {})}).result()
                if not page.is_by_cursor:
                    since = f" after {len(walk.ids)} rows" if cursor else ""
                    return walk.fail("unpaged", f"the host does not page by cursor{since}")
                if not self._add(walk, page) and page.next_cursor is not None:
                    return walk.fail("failed", "the host's cursors run in a circle")
                cursor = page.next_cursor
        except ApiError as error:
            return walk.fail("refused" if isinstance(error, ApiRefused) else "failed", error.message)
        return self._look_again(walk)

    def _begin(self, walk: Walk, page_1: ReadPage) -> None:
        walk.begin(page_1)
        walk.told_before = self._told
        # What numbered pages showed of the total holds for the cursor's too.
        is_last = not walk.by_cursor and page_1.last_page == 1
        walk.is_followed = (walk.by_cursor and self._is_followed) or (is_last and page_1.has_next)
        if walk.total is not None:
            self._told = walk.total
            self._on_total(walk.total)

    def _look_again(self, walk: Walk) -> Walk:
        """The last look at page 1, and the verdict."""
        if self._beside_last_look is not None:
            self.last_beside = self._lanes.submit(self._owner, self._beside_last_look)
        try:
            walk.judge(self.submit_page(1).result())
        except ApiError as error:
            walk.fail("failed", f"the last look at page 1 failed: {error.message}")
        return walk

    def _submit(self, query: Mapping[str, str | int]) -> Future[ReadPage]:
        def get() -> ReadPage:
            page = self._client.get_page(
                self._path, {**self._query, **query}, token=self._token, who=self._who, meter=self._meter
            )
            rows = [self._read_row(raw) for raw in page.rows]
            return ReadPage(rows, page.total, page.last_page, page.next_cursor, page.is_by_cursor, page.has_next)

        return self._lanes.submit(self._owner, get)

    def _add(self, walk: Walk, page: ReadPage) -> int:
        self._on_page(len(page.rows))
        if walk.by_cursor:
            self._uncounted += len(page.rows)
            if self._uncounted > (self._told or 0):
                self._on_total(self._uncounted)
        return walk.add(page)


def _is_better_by_cursor(page_1: ReadPage) -> bool:
    """True for a list whose numbered pages would prove nothing, or are known to end before the list does."""
    is_long = (page_1.last_page or 1) > PAGES_BY_NUMBER
    return page_1.total is None or is_long or looks_capped(page_1.total, len(page_1.rows))


def _wait(future: Future[ReadPage]) -> None:
    """Until it is done, whatever its outcome."""
    with suppress(CancelledError):
        future.exception()


def _best(walks: Sequence[Walk]) -> Walk:
    """The one that proves the list, else the one that brought most, among equals the latest."""
    return max(reversed(walks), key=lambda walk: (walk.is_complete, len(walk.ids)))


def _neither(walk: Walk, by_cursor: Walk) -> Walk:
    """The better of two ways that both failed, with both reasons."""
    by_cursor.reason = walk.reason = f"{walk.reason}; by cursor: {by_cursor.reason}"
    return _best([by_cursor, walk])
