"""What the dashboards show: figures of the accounts present, and how fresh each list is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("dashboards")


@dataclass(frozen=True, slots=True)
class AccountCounts:
    """The accounts of one workspace at one provider; counters are those of the accounts' whole life.

    ``workspace_is_active`` is None for a workspace that is not registered, ``as_of`` its last complete read.
    """

    bison_instance: str
    bison_workspace_id: int
    name: str | None
    workspace_is_active: bool | None
    as_of: datetime | None
    age_seconds: float | None
    email_provider: str
    accounts: int
    connected: int
    sent: int
    replies: int
    unique_replies: int
    bounced: int

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class FreshnessRow:
    """How one list of one active workspace stands; ``state`` and ``is_complete`` as the view data_freshness says."""

    bison_instance: str
    bison_workspace_id: int
    name: str | None
    resource: str
    state: str
    verdict: str | None
    is_complete: bool
    as_of: datetime | None
    last_attempt_at: datetime | None
    age_seconds: float | None
    interval_seconds: int
    total: int | None
    distinct_ids: int | None
    consecutive_failures: int
    last_error: str | None

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


def count_accounts(conn: Connection, keys: Sequence[WorkspaceKey] | None) -> list[AccountCounts]:
    """Count the accounts of these workspaces (None: of all), the largest provider of each workspace first."""
    with conn.cursor(row_factory=class_row(AccountCounts)) as cursor:
        return cursor.execute(_Q["count_accounts"], _chosen(keys)).fetchall()


def list_freshness(conn: Connection, keys: Sequence[WorkspaceKey] | None) -> list[FreshnessRow]:
    """How the lists of these workspaces (None: of all active ones) stand, by workspace and resource."""
    with conn.cursor(row_factory=class_row(FreshnessRow)) as cursor:
        return cursor.execute(_Q["list_freshness"], _chosen(keys)).fetchall()


def _chosen(keys: Sequence[WorkspaceKey] | None) -> dict[str, list[str] | list[int] | None]:
    if keys is None:
        return {"instances": None, "workspace_ids": None}
    return {"instances": [instance for instance, _ in keys], "workspace_ids": [number for _, number in keys]}
