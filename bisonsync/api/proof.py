"""What one walk over a paginated list brought, and what speaks against its being the whole list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

# Hosts end their numbered pages at 500 or 1,000 pages, and some count no further either.
PAGES_TO_A_CAP = 500
_UNSETTLED = ", and no two readings in a row by cursor brought the same rows"


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
class ReadPage:
    """A page whose rows are already encoded: the API's own form of a row is large and not kept.

    ``is_by_cursor``: it says which page comes next, or that none does. ``has_next``: it links to a next page.
    """

    rows: list[tuple[int, str] | InvalidRow]
    total: int | None
    last_page: int | None
    next_cursor: str | None
    is_by_cursor: bool
    has_next: bool = False


@dataclass
class ListRead:
    """What a read of a list brought.

    ``rows`` maps id to the row as the caller's ``read_row`` encoded it. ``reason`` says why the read is incomplete,
    "" when it is proven complete. ``ids`` are those of all rows, the invalid ones included. ``total`` is what the host
    told: None when it told none; a host that counts only so far may tell less than there are ``ids``.
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


Trouble = Literal[
    "doubtful",  # nothing speaks against it but that a second walk must agree
    "moving",  # rows came, went or moved
    "hiding",  # a page came empty, the last links to another, the pages cannot hold ``total``, or that may be a cap
    "refused",  # the host refused a page for good
    "switched",  # the host tells no total, or stopped telling it
    "unpaged",  # the host does not page by cursor, or stopped doing it
    "failed",  # something else
]


def looks_capped(total: int | None, page_size: int) -> bool:
    """True for a total at which hosts are known to stop counting."""
    return bool(total and page_size and total % (PAGES_TO_A_CAP * page_size) == 0)


@dataclass
class Walk(ListRead):
    """One walk over the list. It is complete when nothing speaks against it.

    ``told_before`` is the last total that the host told before, in the same read. ``is_followed``: the last page links
    to another, so there are more rows than the host counts.
    """

    trouble: Trouble | None = None
    repeated: int = 0
    other_total: int | None = None
    page_size: int = 0
    empty_page: int | None = None
    is_followed: bool = False
    pages_missing: int = 0
    told_before: int | None = None

    def begin(self, page_1: ReadPage) -> None:
        """Take what the first look at page 1 told of the list."""
        self.total, self.last_page, self.page_size = page_1.total, page_1.last_page, len(page_1.rows)

    def add(self, page: ReadPage) -> int:
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

    def fail(self, trouble: Trouble, reason: str) -> Walk:
        self.trouble, self.reason = trouble, reason
        return self

    def judge(self, look: ReadPage) -> None:
        """Say what speaks against this walk; ``look`` is the last look at page 1."""
        told, tells = self.total is not None, look.total is not None
        floor = self.total if told else look.total if tells else self.told_before
        if ((told and tells) or not self.by_cursor) and (look.total, look.last_page) != (self.total, self.last_page):
            said = f"total {self.total} before, {look.total} after"
            self.fail("moving" if tells else "switched", f"the list changed while it was read: {said}")
        elif any(row.record_id is None for row in self.invalid):
            self.fail("failed", "a row has no readable id")
        elif self._has_hidden_rows:
            where = f"page {self.empty_page} of {self.last_page} came empty" if self.empty_page else "too few pages"
            where = f"the last page, {self.last_page}, links to another" if self.is_followed else where
            self.fail("hiding", f"{where}: {self._count(floor)}")
        elif len(self.ids) < (floor or 0) or (self._is_counted and len(self.ids) != self.total):
            self.fail("moving", self._count(floor))
        elif not {row.record_id if isinstance(row, InvalidRow) else row[0] for row in look.rows} <= self.ids:
            self.fail("moving", "the list changed while it was read: page 1 shows a row that was not there before")
        elif not (self._is_counted and tells):
            said = f"total {self.total} may be where the host stops counting" if told else "the host tells no total"
            self.fail("doubtful" if self.by_cursor else "hiding", said + (_UNSETTLED if self.by_cursor else ""))
        elif self.repeated or self.other_total is not None:
            said = f", a page's total {self.other_total}" if self.other_total is not None else ""
            self.fail("doubtful", f"the list changed while it was read: {self._count(floor)}{said}")

    def agrees_with(self, other: Walk) -> bool:
        """True when both saw the same list. Of two by cursor the ids say it all."""
        if self.by_cursor and other.by_cursor:
            return self.ids == other.ids
        return (self.total, self.last_page, self.ids) == (other.total, other.last_page, other.ids)

    @property
    def _is_counted(self) -> bool:
        """True when ``total`` can be believed."""
        return self.total is not None and not self.is_followed and not looks_capped(self.total, self.page_size)

    @property
    def _has_hidden_rows(self) -> bool:
        """True when rows seem to lie behind the pages: one is empty, the last links on, they cannot hold ``total``."""
        if self.by_cursor or self.total is None:
            return False
        too_few = (self.last_page or 1) * self.page_size < self.total
        return (
            self.is_followed
            or self.pages_missing > 0
            or (len(self.ids) < self.total and (too_few or self.empty_page is not None))
        )

    def _count(self, told: int | None) -> str:
        twice = f", {self.repeated} rows came twice" if self.repeated else ""
        return f"{len(self.ids)} distinct rows came, total says {told}{twice}"
