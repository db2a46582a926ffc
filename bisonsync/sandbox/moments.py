"""Moments as the API writes them, and what happens in a time cut into days."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta


def stamp(moment: datetime) -> str:
    """Write a moment the way the API does: UTC, six decimals, Z."""
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def shares_by_day(amount: int, began: datetime, ended: datetime) -> dict[date, int]:
    """Spread an amount evenly over a time, cut at midnight; the parts are whole numbers and add up to it."""
    shares: dict[date, int] = {}
    taken, day = 0, began.date()
    while day < ended.date():
        midnight = datetime.combine(day + timedelta(days=1), time(), ended.tzinfo)
        upto = int(amount * ((midnight - began) / (ended - began)))
        shares[day], taken = upto - taken, upto
        day += timedelta(days=1)
    return {**shares, day: amount - taken}
