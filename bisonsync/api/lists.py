"""Reads a paginated list and proves that it was read whole. Every poll uses this and nothing else.

The proof: every page 1..last_page arrived; ``total`` and ``last_page`` of page 1 are the same on a last look at page 1
after all others; that last look shows no id that was not read; the number of distinct ids equals ``total``. A list that
moved under the reader is read again, up to three times. Pages that the host refuses to give by number are read by cursor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from bisonsync.api.client import InstanceClient, ServiceMeter
from bisonsync.api.lanes import Lanes
from bisonsync.errors import ApiError, ApiRefused, ApiUnavailable

RE_READS = 3
FAILED_PAGES_TOLERATED = 3
# Refusals that mean "not by page number": 422 was reported live beyond some hundreds of pages.
REFUSED_PAGE_STATUS = frozenset({400, 404, 410, 416, 422})


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


@dataclass
class _Attempt(ListRead):
    """One walk over the list, before it is judged."""

    repeated: int = 0
    empty_pages: list[int] = field(default_factory=list[int])
    refused: ApiRefused | None = None
    page_errors: dict[int, ApiError] = field(default_factory=dict[int, ApiError])
    rows_on_page_1: int = 0

    def add(self, page: _ReadPage) -> None:
        for row in page.rows:
            if isinstance(row, InvalidRow):
                self.invalid.append(row)
                record_id = row.record_id
            else:
                record_id, text = row
                self.rows[record_id] = text
            if record_id is None:
                continue
            self.repeated += record_id in self.ids
            self.ids.add(record_id)


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
        return self._lanes.submit(self._owner, lambda: self._get({"page": number}))

    def read(self, first: Future[_ReadPage] | None = None) -> ListRead:
        """Walk the list until it is proven whole, or cannot be.

        ``first`` is page 1 already on its way. Raises what page 1 raises; errors of other pages make the read
        incomplete. Invalid rows with a readable id count as read, without one they make the read incomplete.
        """
        attempt = self._walk(first)
        for number in range(1, RE_READS + 1):
            if not self._worth_reading_again(attempt):
                break
            previous, attempt = attempt, self._walk(None)
            attempt.re_reads = number
            if attempt.total == previous.total and attempt.ids == previous.ids:
                break
        if not attempt.is_complete and self._hidden_behind_numbers(attempt):
            attempt = self._walk_by_cursor(attempt)
        return attempt

    def _walk(self, first: Future[_ReadPage] | None) -> _Attempt:
        attempt = _Attempt()
        self.last_beside = None
        page_1 = (first or self.submit_page(1)).result()
        attempt.total, attempt.last_page = page_1.total, page_1.last_page
        attempt.rows_on_page_1 = len(page_1.rows)
        self._add(attempt, page_1)
        if page_1.total is None:
            attempt.reason = "the answer has no total to prove the list by"
            return attempt
        self._on_total(page_1.total)
        last_page = page_1.last_page or 1
        if last_page > page_1.total + 1:
            attempt.reason = f"the answer speaks of {last_page} pages for {page_1.total} rows"
            return attempt
        self._read_others(attempt, last_page)
        if not attempt.reason:
            self._look_again(attempt)
        return attempt

    def _read_others(self, attempt: _Attempt, last_page: int) -> None:
        pages = deque((number, self.submit_page(number)) for number in range(2, last_page + 1))
        while pages:
            number, future = pages.popleft()
            try:
                page = future.result()
            except ApiRefused as error:
                attempt.refused = error
                attempt.page_errors[number] = error
                self._lanes.drop(self._owner)
            except ApiUnavailable as error:
                attempt.page_errors[number] = error
                if len(attempt.page_errors) >= FAILED_PAGES_TOLERATED:
                    self._lanes.drop(self._owner)
            except CancelledError:
                continue
            except BaseException:
                self._lanes.drop(self._owner)
                raise
            else:
                if not page.rows:
                    attempt.empty_pages.append(number)
                self._add(attempt, page)
        if attempt.page_errors:
            number, error = next(iter(attempt.page_errors.items()))
            attempt.reason = f"page {number} of {last_page} could not be read: {error.message}"

    def _look_again(self, attempt: _Attempt) -> None:
        """The last look at page 1, and the verdict."""
        if self._beside_last_look is not None:
            self.last_beside = self._lanes.submit(self._owner, self._beside_last_look)
        page = self.submit_page(1).result()
        seen = _Attempt()
        seen.add(page)
        attempt.reason = self._objection(attempt, page, seen)

    def _objection(self, attempt: _Attempt, last_look: _ReadPage, seen: _Attempt) -> str:
        """Why the walk proves nothing; "" when it proves the list whole."""
        if (last_look.total, last_look.last_page) != (attempt.total, attempt.last_page):
            return f"the list changed while it was read: total {attempt.total} before, {last_look.total} after"
        if any(row.record_id is None for row in attempt.invalid):
            return "a row has no readable id"
        if len(attempt.ids) != attempt.total:
            twice = f", {attempt.repeated} rows came twice" if attempt.repeated else ""
            return f"{len(attempt.ids)} distinct rows came, total says {attempt.total}{twice}"
        if not seen.ids <= attempt.ids:
            return "the list changed while it was read: page 1 shows a row that was not there before"
        return ""

    @staticmethod
    def _worth_reading_again(attempt: _Attempt) -> bool:
        if attempt.is_complete:
            return attempt.repeated > 0
        if attempt.page_errors or attempt.total is None or any(row.record_id is None for row in attempt.invalid):
            return False
        return not ListReader._hidden_behind_numbers(attempt)

    @staticmethod
    def _hidden_behind_numbers(attempt: _Attempt) -> bool:
        """True when the host keeps rows back from page numbers: a refused or empty page, or too few pages for total."""
        if attempt.refused is not None:
            return attempt.refused.status in REFUSED_PAGE_STATUS
        if attempt.total is None or attempt.page_errors or len(attempt.ids) >= attempt.total:
            return False
        capped = (attempt.last_page or 1) * attempt.rows_on_page_1 < attempt.total
        return bool(attempt.empty_pages) or capped

    def _walk_by_cursor(self, refused: _Attempt) -> ListRead:
        """The whole list again, page after page, by cursor; ``refused`` is what to fall back on."""
        attempt = _Attempt(total=refused.total, last_page=refused.last_page, by_cursor=True, re_reads=refused.re_reads)
        self.last_beside = None
        cursor: str | None = None
        cursors: set[str] = set()
        try:
            while True:
                query: dict[str, str | int] = {"pagination_type": "cursor"} | ({"cursor": cursor} if cursor else {})
                page = self._lanes.submit(self._owner, lambda query=query: self._get(query)).result()
                self._add(attempt, page)
                cursor = page.next_cursor
                if cursor is None:
                    break
                if cursor in cursors or len(cursors) > (refused.total or 0):
                    attempt.reason = "the host's cursors run in a circle"
                    break
                cursors.add(cursor)
            if not attempt.reason:
                self._look_again(attempt)
        except (ApiRefused, ApiUnavailable) as error:
            attempt.reason = f"by cursor: {error.message}"
        if len(attempt.ids) < len(refused.ids):
            refused.reason += f"; {attempt.reason}"
            return refused
        if not attempt.is_complete:
            attempt.reason = f"{refused.reason}; by cursor: {attempt.reason}"
        return attempt

    def _get(self, query: Mapping[str, str | int]) -> _ReadPage:
        page = self._client.get_page(
            self._path, {**self._query, **query}, token=self._token, who=self._who, meter=self._meter
        )
        rows = [self._read_row(raw) for raw in page.rows]
        return _ReadPage(rows, page.total, page.last_page, page.next_cursor)

    def _add(self, attempt: _Attempt, page: _ReadPage) -> None:
        attempt.add(page)
        self._on_page(len(page.rows))
