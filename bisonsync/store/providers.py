"""What the dashboard of providers shows: the last recorded day, the days before it, and what replies cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from psycopg.rows import class_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("providers")


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A provider at one instance on the instance's last recorded day.

    ``first_day`` is the first recorded one. ``_1d``, ``_7d``, ``_30d``: that day, it and the 6, the 29 before. ``gaps``
    are workspaces of the instance that lack an end of the window. ``comparison`` says whether the last 7 days are
    ``compared`` with the 7 before, as check_provider_reply_rate_drop does; the p values are those of a fall and of a
    rise by chance alone.
    """

    bison_instance: str
    email_provider: str
    snapshot_date: date
    first_day: date
    days_ago: int
    is_complete: bool
    total_accounts: int
    active_accounts: int
    total_daily_limit: int
    total_volume_capacity: float
    sent_1d: int
    unique_replies_1d: int
    bounces_1d: int
    gaps_1d: int
    sent_7d: int
    unique_replies_7d: int
    bounces_7d: int
    gaps_7d: int
    sent_30d: int
    unique_replies_30d: int
    bounces_30d: int
    gaps_30d: int
    recent_reply_rate: float | None
    previous_reply_rate: float | None
    change_percent: float | None
    fall_p_value: float | None
    rise_p_value: float | None
    is_drop: bool | None
    comparison: str
    workspaces_left_out: int


@dataclass(frozen=True, slots=True)
class DayRow:
    """One recorded day of a provider: the replies per mail of the 7 days that end with it, in percent."""

    bison_instance: str
    email_provider: str
    snapshot_date: date
    reply_rate_7d: float | None
    gaps_7d: int


@dataclass(frozen=True, slots=True)
class CostRow:
    """What accounts cost in 30 days and what they did for it: of a provider at one instance, or of a reseller.

    ``accounts`` are those of the last day, ``unpriced`` the ones among them whose price is not known.
    """

    dimension: str
    bison_instance: str | None
    group_value: str
    accounts: int
    unpriced: int
    sent: int
    unique_replies: int
    bounces: int
    cost: float | None


def list_providers(conn: Connection, instances: Sequence[str] | None, *, timezone: str) -> list[ProviderRow]:
    """The providers of these instances (None: of all), each instance on its last recorded day, the largest first."""
    with conn.cursor(row_factory=class_row(ProviderRow)) as cursor:
        parameters = {**_chosen(instances), "timezone": timezone}
        return cursor.execute(_Q["list_providers"], parameters).fetchall()


def list_days(conn: Connection, instances: Sequence[str] | None) -> list[DayRow]:
    """Those of the last 30 days that are recorded, by instance, provider and day."""
    with conn.cursor(row_factory=class_row(DayRow)) as cursor:
        return cursor.execute(_Q["list_days"], _chosen(instances)).fetchall()


def sum_costs(conn: Connection, instances: Sequence[str] | None) -> list[CostRow]:
    """Costs by instance and provider, then by reseller over these instances (None: over all), the largest first."""
    with conn.cursor(row_factory=class_row(CostRow)) as cursor:
        return cursor.execute(_Q["sum_costs"], _chosen(instances)).fetchall()


def _chosen(instances: Sequence[str] | None) -> dict[str, list[str] | None]:
    return {"instances": None if instances is None else list(instances)}
