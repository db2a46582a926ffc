"""The nights in which clocks change, and when cron starts a line in them: a model of the main loop of Debian's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

# By an hour, by half of one, by two; in Casablanca an hour back before the summer; one where it changes at 2:45.
ZONES = (
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "Africa/Casablanca"),
    "Pacific/Chatham",
)
YEAR = 2027
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1)
# How far a clock may jump (in minutes) for cron to take it for late, and for a change of clocks.
_LATE, _CHANGE = 5, 180


def changes(zone: str) -> list[datetime]:
    """The hours, in UTC, within which the clocks of a zone change in a year."""
    hours = [datetime(YEAR, 1, 1, tzinfo=UTC) + n * HOUR for n in range(365 * 24)]
    offsets = [hour.astimezone(ZoneInfo(zone)).utcoffset() for hour in hours]
    return [hour for hour, before, after in zip(hours, offsets, offsets[1:], strict=False) if before != after]


@dataclass(frozen=True, slots=True)
class Line:
    """The five fields of a crontab line."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    # Written with * in front, which is what cron goes by, not by how many they are.
    is_wild: bool
    is_either_day: bool

    def is_due(self, clock: int) -> bool:
        """Whether these fields name a minute of the local clock (counted from 1970 on)."""
        if clock % 60 not in self.minutes or clock // 60 % 24 not in self.hours:
            return False
        local = _EPOCH + clock * MINUTE
        if local.month not in self.months:
            return False
        is_day, is_weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (is_day or is_weekday) if self.is_either_day else (is_day and is_weekday)


def read_line(fields: str) -> Line:
    """Read the five fields, blank between them."""
    minute, hour, day, month, weekday = fields.split()
    return Line(
        minutes=_numbers(minute, 0, 59),
        hours=_numbers(hour, 0, 23),
        days=_numbers(day, 1, 31),
        months=_numbers(month, 1, 12),
        weekdays=frozenset(number % 7 for number in _numbers(weekday, 0, 7)),
        is_wild=minute.startswith("*") or hour.startswith("*"),
        is_either_day=not (day.startswith("*") or weekday.startswith("*")),
    )


def _numbers(field: str, first: int, last: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = (f"{first}-{last}" if span == "*" else span).partition("-")
        found.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return frozenset(found)


def starts(line: Line, zone: str, begin: datetime, end: datetime) -> Iterator[datetime]:
    """When (in UTC) a cron that has run for long starts a line.

    It keeps a count of its own of the local clock's minutes. Where the clock jumps ahead, lines with * in the minute or
    the hour are looked at for the minute that it is, and the others for each minute that was left out. Where it jumps
    back, the others wait until the clock has come again to where it was.
    """
    now, counted = begin, _clock(begin, zone) - 1
    while now < end:
        clock = _clock(now, zone)
        ahead = clock - counted
        left_out = range(counted + 1, clock + 1)
        if not -_CHANGE < ahead <= _CHANGE:
            due, counted = line.is_due(clock), clock
        elif line.is_wild and not 0 < ahead <= _LATE:
            due, counted = line.is_due(clock), max(counted, clock)
        else:
            due, counted = sum(map(line.is_due, left_out)), max(counted, clock)
        yield from [now] * due
        now += MINUTE


@cache
def _clock(now: datetime, zone: str) -> int:
    return (now.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - _EPOCH) // MINUTE
