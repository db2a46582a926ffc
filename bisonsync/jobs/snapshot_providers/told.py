"""What the platform tells of one mailbox on the days around a gap, and whether that can be used."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from datetime import date

from bisonsync.errors import ApiRefused
from bisonsync.models import DailyStats
from bisonsync.polling.visit import Visit
from bisonsync.store.snapshot_gaps import DayTold
from bisonsync.store.snapshots import Gap

MISSING_ROUTE = (404, 405)


class HostRefusal(Exception):
    """A host cannot tell what a mailbox did on a day; asking it again would change nothing."""


def ask(visit: Visit, gap: Gap, number: int) -> DailyStats:
    """What the platform tells of one account from the day before a gap to the one after it."""
    return visit.client.get_daily_stats(visit.token, [number], gap.before, gap.after, who=visit.access.who)


def require_usable(future: Future[DailyStats]) -> None:
    """Raises HostRefusal for an answer that every mailbox would get, else what the asking raised."""
    try:
        stats = future.result()
    except ApiRefused as error:
        if error.status not in MISSING_ROUTE:
            raise
        raise HostRefusal(f"it does not tell daily numbers by mailbox (HTTP {error.status})") from error
    missing = [name for name in DailyStats.model_fields if getattr(stats, name) is None]
    if missing:
        raise HostRefusal(f"its daily numbers lack the series {', '.join(name.capitalize() for name in missing)}")


def days_told(gap: Gap, stats: DailyStats) -> list[DayTold]:
    """What an answer tells of each day from the one before the gap to the one after it."""

    def of(series: Mapping[date, int] | None, day: date) -> int | None:
        return (series or {}).get(day)

    return [
        DayTold(day, of(stats.sent, day), of(stats.replied, day), of(stats.bounced, day))
        for day in (gap.before, *gap.days, gap.after)
    ]
