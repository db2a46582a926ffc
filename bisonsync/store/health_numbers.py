"""What the checks of numbers look at: accounts connected, bounces, replies, capacity, how the API answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from psycopg.rows import class_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("health_numbers")


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The accounts of one active workspace; ``is_comparable``: the day before was recorded."""

    bison_instance: str
    bison_workspace_id: int
    name: str
    accounts: int
    disconnected: int
    newly_disconnected: int
    is_comparable: bool

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class RecordedDays:
    """The days of the history until today; all None when none was ever recorded."""

    first_day: date | None
    last_day: date | None
    days_ago: int | None


@dataclass(frozen=True, slots=True)
class Bounces:
    """Mails sent and bounced in a group of accounts. ``dimension``: provider, reseller, domain, or all."""

    dimension: str
    group_value: str
    sent: int
    bounces: int

    @property
    def percent(self) -> float:
        """100 x bounces / sent."""
        return 100.0 * self.bounces / self.sent


@dataclass(frozen=True, slots=True)
class Drop:
    """A provider's last 7 days against the 7 before. ``state``: compared, too few sends, or gap."""

    bison_instance: str
    email_provider: str
    recent_sent: int
    recent_reply_rate: float | None
    previous_reply_rate: float | None
    change_percent: float | None
    p_value: float | None
    is_drop: bool
    state: str
    workspaces_left_out: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one active workspace's connected accounts may send a day, and what they are meant to carry."""

    bison_instance: str
    bison_workspace_id: int
    name: str
    accounts: int
    priced: int
    connected: int
    daily_limit: float
    capacity: float

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class ApiFigures:
    """How one instance answered; ``mean_ms`` is None when no answer was timed."""

    bison_instance: str
    requests: int
    rate_limited: int
    errors: int
    refused: int
    mean_ms: float | None


def count_disconnected(conn: Connection, now: datetime, timezone: str) -> list[Disconnected]:
    """Count what is not connected in each active workspace that has accounts."""
    with conn.cursor(row_factory=class_row(Disconnected)) as cursor:
        return cursor.execute(_Q["count_disconnected"], {"now": now, "timezone": timezone}).fetchall()


def find_recorded_days(conn: Connection, now: datetime, timezone: str) -> RecordedDays:
    """Find the ends of the history."""
    with conn.cursor(row_factory=class_row(RecordedDays)) as cursor:
        found = cursor.execute(_Q["find_recorded_days"], {"now": now, "timezone": timezone}).fetchone()
    return found or RecordedDays(None, None, None)


def sum_bounces(conn: Connection, from_date: date, to_date: date) -> list[Bounces]:
    """Sum the bounces of the days [from_date, to_date); the sum of all is always there."""
    with conn.cursor(row_factory=class_row(Bounces)) as cursor:
        return cursor.execute(_Q["sum_bounces"], {"from_date": from_date, "to_date": to_date}).fetchall()


def list_drops(conn: Connection, on_date: date, *, min_sends: int, min_fall_percent: float, alpha: float) -> list[Drop]:
    """Compare the reply rates of each provider."""
    with conn.cursor(row_factory=class_row(Drop)) as cursor:
        return cursor.execute(
            _Q["list_drops"],
            {"on_date": on_date, "min_sends": min_sends, "min_fall_percent": min_fall_percent, "alpha": alpha},
        ).fetchall()


def sum_capacity(conn: Connection) -> list[Capacity]:
    """Sum limits and volumes of each active workspace that has accounts."""
    with conn.cursor(row_factory=class_row(Capacity)) as cursor:
        return cursor.execute(_Q["sum_capacity"]).fetchall()


def sum_api_health(conn: Connection, since: datetime, until: datetime) -> list[ApiFigures]:
    """Sum how each instance that was asked answered in (since, until]."""
    with conn.cursor(row_factory=class_row(ApiFigures)) as cursor:
        return cursor.execute(_Q["sum_api_health"], {"since": since, "until": until}).fetchall()
