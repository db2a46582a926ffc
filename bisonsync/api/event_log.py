"""Reads a workspace's event log backwards, in parts that can be stored one by one, each of which tells where it ended.

Newest first is what hosts are seen to do, not what they promise. A read ends at an event that is old enough only if
the log begins with the newest event that is known, or a newer one, and goes back in time from there; else at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Literal

from bisonsync.api.client import InstanceClient
from bisonsync.api.limits import ServiceMeter
from bisonsync.errors import BisonsyncError, ListChanged
from bisonsync.models import StoredEvent

# Events of one moment are stored by several hands; so much they may come out of order.
SLACK = timedelta(minutes=10)
# From no zone's midnight it is longer to the next one of UTC: the filter's days may be those of any zone.
ZONES = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Walk:
    """A read from the newest event back to ``low``, or how far one has come.

    ``kind``: newest may end at the first event before ``low``; unordered and whole go to the end of the log, or to
    ``floor``, before which nothing is of use. ``known`` is the newest event that was read before; ``top`` the newest
    seen now, at most ``now``; ``cursor`` where the host goes on. ``is_filtered``: from about ``low`` on is asked for.
    """

    low: datetime
    floor: datetime
    now: datetime
    kind: Literal["newest", "unordered", "whole"]
    is_filtered: bool = True
    known: datetime | None = None
    top: datetime | None = None
    cursor: str | None = None

    @property
    def start(self) -> date | None:
        """The first day that is asked for."""
        return (self.low - ZONES).date() if self.is_filtered else None


@dataclass
class Part:
    """Some pages of an event log, and how far the walk came with them.

    ``is_end``: nothing is left to read. ``error``: why it is no longer than it is; the pages before it are good.
    """

    walk: Walk
    rows: list[StoredEvent] = field(default_factory=list[StoredEvent])
    pages: int = 0
    is_end: bool = False
    error: BisonsyncError | None = None


class EventLogReader:
    """One walk over the event log of one workspace, part by part."""

    def __init__(
        self, client: InstanceClient, walk: Walk, *, token: str, who: str, on_page: Callable[[int], None]
    ) -> None:
        self.walk = walk
        self._client = client
        self._token = token
        self._who = who
        self._on_page = on_page
        self._cursors = {walk.cursor}
        self._last: datetime | None = None
        self._lowest: datetime | None = None
        # Of pairs of neighbours, those that go forwards in time less those that go back.
        self._rises = 0
        self._is_mixed = False

    def read_part(self, pages: int, meter: ServiceMeter) -> Part:
        """Read up to so many pages. What ends it early is in the part, never raised."""
        part = Part(self.walk)
        while part.pages < pages and not part.is_end and part.error is None:
            try:
                self._read_page(part, meter)
            except BisonsyncError as error:
                part.error = error
        self.walk = part.walk
        return part

    def _read_page(self, part: Part, meter: ServiceMeter) -> None:
        walk = part.walk
        page = self._client.list_events(self._token, who=self._who, start=walk.start, cursor=walk.cursor, meter=meter)
        part.rows += page.rows
        part.pages += 1
        self._on_page(len(page.rows))
        walk = replace(self._look_at(walk, page.rows), cursor=page.next_cursor)
        part.is_end = page.next_cursor is None or self._is_far_enough(walk)
        if not part.is_end and page.next_cursor in self._cursors:
            walk = replace(walk, cursor=None)
            part.error = ListChanged(
                f"{self._who}: the cursors of GET /api/events run in a circle",
                hint="the next run begins anew; if it stays so, ask the host's support",
            )
        self._cursors.add(page.next_cursor)
        part.walk = walk

    def _look_at(self, walk: Walk, rows: tuple[StoredEvent, ...]) -> Walk:
        """Note the newest event, and whether they still come newest first."""
        for row in rows:
            at = row.created_at
            if at is None:
                self._is_mixed = True
                continue
            if self._last is not None and self._lowest is not None:
                self._rises += (at > self._last) - (at < self._last)
                self._is_mixed |= at > self._lowest + SLACK
            self._last, self._lowest = at, at if self._lowest is None else min(at, self._lowest)
            seen = min(at, walk.now)
            walk = replace(walk, top=seen if walk.top is None else max(seen, walk.top))
        return replace(walk, kind="unordered") if walk.kind == "newest" and self._is_mixed else walk

    def _is_far_enough(self, walk: Walk) -> bool:
        if self._is_mixed or self._rises >= 0 or self._lowest is None or walk.kind == "unordered":
            return False
        begins_late = walk.known is None or (walk.top is not None and walk.top >= walk.known - SLACK)
        return begins_late and self._lowest < (walk.low if walk.kind == "newest" else walk.floor)
