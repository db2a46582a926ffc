"""Days and moments as an operator writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from bisonsync.errors import UsageError


def parse_moment(text: str | None, option: str, *, zone: str) -> datetime | None:
    """The moment that an option gives: a day is its beginning; what names no zone is in ``zone``.

    Raises UsageError.
    """
    if text is None:
        return None
    written = text.strip()
    try:
        moment = datetime.combine(date.fromisoformat(written), time())
    except ValueError:
        try:
            moment = datetime.fromisoformat(written)
        except ValueError:
            raise UsageError(
                f"{option} {text!r} is neither a day nor a moment",
                hint="write it as 2026-05-06, 2026-05-06T07:30 or 2026-05-06T07:30:00Z",
            ) from None
    # UTC needs no time zone database, which a small container may lack.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))
