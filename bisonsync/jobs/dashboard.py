"""``dashboard``: the mirror in figures, and how fresh it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bisonsync.run import WorkspaceKey
from bisonsync.store import dashboards
from bisonsync.store.dashboards import AccountCounts, FreshnessRow
from bisonsync.store.db import Connection, Database

ACCOUNTS = "accounts"


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
