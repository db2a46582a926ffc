"""``dashboard``: the mirror in figures, and how fresh it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from bisonsync.keys import WorkspaceKey
from bisonsync.store import dashboards, providers
from bisonsync.store.dashboards import AccountCounts, FreshnessRow
from bisonsync.store.db import Connection, Database
from bisonsync.store.providers import CostRow, DayRow, ProviderRow

ACCOUNTS = "accounts"
TREND_DAYS = 30
# A difference this improbable by chance is told as one.
SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over accounts; counters are those of the accounts' whole life."""

    accounts: int = 0
    connected: int = 0
    sent: int = 0
    replies: int = 0
    unique_replies: int = 0
    bounced: int = 0

    @property
    def disconnected(self) -> int:
        """Every account whose status is anything but connected."""
        return self.accounts - self.connected

    @property
    def reply_rate(self) -> float | None:
        """Unique replies in percent of mails sent; None when nothing was sent."""
        return round(100 * self.unique_replies / self.sent, 2) if self.sent else None


@dataclass(frozen=True, slots=True)
class WorkspaceAccounts:
    """One workspace: its figures, its accounts per provider, and how its list of accounts stands.

    ``state`` is that of data_freshness, or ``disabled`` or ``unregistered`` for rows that nothing keeps fresh.
    ``verdict`` is that of the last read, None before the first.
    """

    key: WorkspaceKey
    name: str
    figures: Figures
    providers: dict[str, int]
    state: str
    verdict: str | None
    is_complete: bool
    as_of: datetime | None
    age_seconds: float | None

    @property
    def is_in_order(self) -> bool:
        """True when its figures are fresh and the last read was complete."""
        return self.state == "fresh" and self.is_complete


@dataclass(frozen=True, slots=True)
class Window:
    """Sums over the last ``days`` days; ``gaps`` workspaces lack an end of them."""

    days: int
    sent: int
    unique_replies: int
    bounces: int
    gaps: int = 0

    @property
    def reply_rate(self) -> float | None:
        """Unique replies in percent of mails sent; None when nothing was sent."""
        return _percent(self.unique_replies, self.sent)

    @property
    def bounce_rate(self) -> float | None:
        """Bounces in percent of mails sent; None when nothing was sent."""
        return _percent(self.bounces, self.sent)


@dataclass(frozen=True, slots=True)
class Cost:
    """What accounts cost in 30 days and what they did; ``cost`` is None when no price is known."""

    name: str
    accounts: int
    unpriced: int
    window: Window
    cost: float | None

    @property
    def per_reply(self) -> float | None:
        """Cost of one unique reply; None when it is not known or there was none."""
        if self.cost is None or not self.window.unique_replies:
            return None
        return round(self.cost / self.window.unique_replies, 4)


@dataclass(frozen=True, slots=True)
class TrendDay:
    """The reply rate of the 7 days that end with this one; None when nothing was sent, or when it is not recorded."""

    day: date
    reply_rate: float | None
    is_recorded: bool


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider at one instance; ``row`` is its last recorded day."""

    row: ProviderRow
    windows: tuple[Window, Window, Window]
    cost: Cost
    trend: tuple[TrendDay, ...]

    @property
    def utilization(self) -> float | None:
        """Daily limit of the connected accounts in percent of what all are meant to carry."""
        return _percent(self.row.total_daily_limit, self.row.total_volume_capacity)

    @property
    def judgement(self) -> str:
        """How the last 7 days stand to the 7 before, in a word."""
        row = self.row
        if row.fall_p_value is None or row.rise_p_value is None:
            return "gap" if row.comparison == "gap" else "too few"
        if row.is_drop:
            return "drop"
        if row.fall_p_value <= SIGNIFICANT:
            return "lower"
        return "higher" if row.rise_p_value <= SIGNIFICANT else "steady"

    @property
    def is_significant(self) -> bool | None:
        """Whether the two weeks differ by more than chance; None when they cannot be compared."""
        return None if self.row.fall_p_value is None else self.judgement != "steady"


@dataclass(frozen=True, slots=True)
class Providers:
    """What ``dashboard providers`` shows; ``resellers`` are those of all these providers' accounts."""

    providers: tuple[Provider, ...]
    resellers: tuple[Cost, ...]
    totals: tuple[Window, ...]

    @property
    def instances(self) -> tuple[ProviderRow, ...]:
        """One row of each instance, for what all its providers have in common."""
        return tuple({one.row.bison_instance: one.row for one in self.providers}.values())


@dataclass(frozen=True, slots=True)
class Accounts:
    """What ``dashboard accounts`` shows."""

    workspaces: tuple[WorkspaceAccounts, ...]
    providers: dict[str, Figures]
    totals: Figures

    @property
    def needing_attention(self) -> tuple[WorkspaceAccounts, ...]:
        """Active workspaces whose figures are not fresh or not proven complete."""
        return tuple(one for one in self.workspaces if one.state != "disabled" and not one.is_in_order)


def accounts(database: Database, keys: Sequence[WorkspaceKey] | None) -> Accounts:
    """The accounts present in these workspaces (None: in all that are active or hold accounts)."""

    def read(conn: Connection) -> tuple[list[AccountCounts], list[FreshnessRow]]:
        return dashboards.count_accounts(conn, keys), dashboards.list_freshness(conn, keys)

    counted, lists = database.run(read)
    fresh = {row.key: row for row in lists if row.resource == ACCOUNTS}
    of: dict[WorkspaceKey, list[AccountCounts]] = {key: [] for key in fresh}
    for row in counted:
        of.setdefault(row.key, []).append(row)
    return Accounts(
        workspaces=tuple(_workspace(key, of[key], fresh.get(key)) for key in sorted(of)),
        providers=_by_provider(counted),
        totals=_sum(counted),
    )


def freshness(database: Database, keys: Sequence[WorkspaceKey] | None) -> tuple[FreshnessRow, ...]:
    """How the lists of these workspaces (None: of all active ones) stand."""
    return tuple(database.run(lambda conn: dashboards.list_freshness(conn, keys)))


def list_providers(database: Database, instances: Sequence[str] | None, *, timezone: str) -> Providers:
    """The providers of these instances (None: of all that were ever recorded) on the last recorded day of each."""

    def read(conn: Connection) -> tuple[list[ProviderRow], list[DayRow], list[CostRow]]:
        rows = providers.list_providers(conn, instances, timezone=timezone)
        return rows, providers.list_days(conn, instances), providers.sum_costs(conn, instances) if rows else []

    rows, days, costs = database.run(read)
    of = {(cost.bison_instance, cost.group_value): cost for cost in costs if cost.dimension == "provider"}
    shown = tuple(
        Provider(
            row=row,
            windows=(
                Window(1, row.sent_1d, row.unique_replies_1d, row.bounces_1d, row.gaps_1d),
                Window(7, row.sent_7d, row.unique_replies_7d, row.bounces_7d, row.gaps_7d),
                Window(30, row.sent_30d, row.unique_replies_30d, row.bounces_30d, row.gaps_30d),
            ),
            cost=_cost(row.email_provider, of.get((row.bison_instance, row.email_provider))),
            trend=_trend(row, [day for day in days if day.bison_instance == row.bison_instance]),
        )
        for row in rows
    )
    return Providers(
        providers=shown,
        resellers=tuple(_cost(cost.group_value, cost) for cost in costs if cost.dimension == "reseller"),
        totals=tuple(_total([one.windows[index] for one in shown]) for index in range(3)) if shown else (),
    )


def _cost(name: str, row: CostRow | None) -> Cost:
    if row is None:
        return Cost(name, 0, 0, Window(30, 0, 0, 0), None)
    window = Window(30, row.sent, row.unique_replies, row.bounces)
    return Cost(name, row.accounts, row.unpriced, window, None if row.cost is None else round(row.cost, 2))


def _trend(row: ProviderRow, days: Sequence[DayRow]) -> tuple[TrendDay, ...]:
    """The last 30 days of one provider, from those that its instance has recorded."""
    recorded = {day.snapshot_date for day in days}
    own = {day.snapshot_date: day for day in days if day.email_provider == row.email_provider}
    shown: list[TrendDay] = []
    for ago in range(TREND_DAYS - 1, -1, -1):
        day = row.snapshot_date - timedelta(days=ago)
        found = own.get(day)
        rate = found.reply_rate_7d if found else None
        is_gap = found is not None and rate is None and found.gaps_7d > 0
        shown.append(TrendDay(day, rate, day in recorded and not is_gap))
    return tuple(shown)


def _total(windows: Sequence[Window]) -> Window:
    return Window(
        days=windows[0].days,
        sent=sum(window.sent for window in windows),
        unique_replies=sum(window.unique_replies for window in windows),
        bounces=sum(window.bounces for window in windows),
        gaps=max(window.gaps for window in windows),
    )


def _percent(part: float, whole: float) -> float | None:
    return round(100 * part / whole, 4) if whole else None


def _workspace(key: WorkspaceKey, rows: Sequence[AccountCounts], fresh: FreshnessRow | None) -> WorkspaceAccounts:
    if fresh is None:
        first = rows[0]
        state = "unregistered" if first.workspace_is_active is None else "disabled"
        name, verdict, is_complete, as_of, age = first.name, None, False, first.as_of, first.age_seconds
    else:
        state, verdict, is_complete = fresh.state, fresh.verdict, fresh.is_complete
        name, as_of, age = fresh.name, fresh.as_of, fresh.age_seconds
    return WorkspaceAccounts(
        key=key,
        name=name or "",
        figures=_sum(rows),
        providers={row.email_provider: row.accounts for row in rows},
        state=state,
        verdict=verdict,
        is_complete=is_complete,
        as_of=as_of,
        age_seconds=age,
    )


def _by_provider(rows: Sequence[AccountCounts]) -> dict[str, Figures]:
    names = {row.email_provider for row in rows}
    sums = {name: _sum(row for row in rows if row.email_provider == name) for name in names}
    return dict(sorted(sums.items(), key=lambda item: (-item[1].accounts, item[0])))


def _sum(rows: Iterable[AccountCounts]) -> Figures:
    found = list(rows)
    return Figures(
        accounts=sum(row.accounts for row in found),
        connected=sum(row.connected for row in found),
        sent=sum(row.sent for row in found),
        replies=sum(row.replies for row in found),
        unique_replies=sum(row.unique_replies for row in found),
        bounced=sum(row.bounced for row in found),
    )
