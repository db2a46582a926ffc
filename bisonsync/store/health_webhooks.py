"""What the checks of webhooks look at: what came when, how it fared, and what lies in the inbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("health_webhooks")


@dataclass(frozen=True, slots=True)
class Traffic:
    """When an active workspace's last webhook came, and since when it has a stored secret that is taken.

    ``is_tested``: none ever came but a test.
    """

    bison_instance: str
    bison_workspace_id: int
    name: str
    last_at: datetime | None
    secret_since: datetime | None
    is_tested: bool

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class Silence:
    """What is usual in a workspace while it is as silent as now, and what its accounts did meanwhile.

    Of the last 4 weeks and the last 5 working days: of how many the log tells, and in how many enough came.
    ``is_unmoved``: no account has sent, been answered or bounced since the day of the last delivery.
    """

    bison_instance: str
    bison_workspace_id: int
    weeks_known: int
    weeks_busy: int
    workdays_known: int
    workdays_busy: int
    accounts_read_at: datetime | None
    accounts_interval_seconds: int
    accounts_changed_at: datetime | None
    is_unmoved: bool

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many deliveries of a workspace were decided, and with how many not all is well."""

    bison_instance: str | None
    bison_workspace_id: int | None
    name: str | None
    decided: int
    bad: int

    @property
    def key(self) -> WorkspaceKey | None:
        """The workspace; None where the deliveries do not tell it."""
        if self.bison_instance is None or self.bison_workspace_id is None:
            return None
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)

    @property
    def percent(self) -> float:
        """100 x well / decided."""
        return 100.0 * (self.decided - self.bad) / self.decided


@dataclass(frozen=True, slots=True)
class Backlog:
    """Deliveries that replay should have taken, and since when the first of them is due."""

    due: int
    oldest_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadReason:
    """How many of the newest dead deliveries have a reason; ``total``: how many are dead at all."""

    reason: str | None
    deliveries: int
    total: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What came of others to the address of a workspace; the times are those when it was stored."""

    bison_instance: str
    bison_workspace_id: int
    name: str | None
    deliveries: int
    first_at: datetime
    last_at: datetime
    reason: str | None

    @property
    def key(self) -> WorkspaceKey:
        """The workspace whose address it is."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class Unregistered:
    """A workspace that is not registered, and what waits for it."""

    bison_instance: str | None
    bison_workspace_id: int | None
    name: str | None
    deliveries: int
    first_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True)
class UnknownType:
    """A type of event that the rules do not know, and in how many workspaces it came."""

    event_type: str
    workspaces: int


def list_traffic(conn: Connection, now: datetime) -> list[Traffic]:
    """Every active workspace with its last webhook."""
    with conn.cursor(row_factory=class_row(Traffic)) as cursor:
        return cursor.execute(_Q["list_traffic"], {"now": now}).fetchall()


def list_silences(
    conn: Connection, silent: Sequence[Traffic], now: datetime, timezone: str, *, late_seconds: float, enough: int
) -> list[Silence]:
    """What is usual in workspaces that have had webhooks and have none now.

    A comparable time counts as busy with ``enough`` deliveries; it ends ``late_seconds`` before the time of day.
    """
    with conn.cursor(row_factory=class_row(Silence)) as cursor:
        return cursor.execute(
            _Q["list_silences"],
            {
                "instances": [row.bison_instance for row in silent],
                "workspace_ids": [row.bison_workspace_id for row in silent],
                "last_ats": [row.last_at for row in silent],
                "now": now,
                "timezone": timezone,
                "late_seconds": late_seconds,
                "enough": enough,
            },
        ).fetchall()


def has_deliveries(conn: Connection) -> bool:
    """Whether any delivery is in the log."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(_Q["has_deliveries"]).fetchone())


def has_secrets(conn: Connection) -> bool:
    """Whether any stored secret is taken."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(_Q["has_secrets"]).fetchone())


def find_newest(conn: Connection, since: datetime, until: datetime) -> datetime | None:
    """When the newest delivery of a registered workspace came that is decided, in (since, until]."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["find_newest"], {"since": since, "until": until}).fetchone()


def count_outcomes(conn: Connection, since: datetime, until: datetime) -> list[Outcomes]:
    """Count the decided deliveries received in (since, until], tests and mismatches left out."""
    with conn.cursor(row_factory=class_row(Outcomes)) as cursor:
        return cursor.execute(_Q["count_outcomes"], {"since": since, "until": until}).fetchall()


def sum_backlog(conn: Connection, now: datetime) -> Backlog:
    """What is due by now."""
    with conn.cursor(row_factory=class_row(Backlog)) as cursor:
        return cursor.execute(_Q["sum_backlog"], {"now": now}).fetchone() or Backlog(0, None)


def list_dead(conn: Connection) -> list[DeadReason]:
    """The most frequent reasons of dead deliveries."""
    with conn.cursor(row_factory=class_row(DeadReason)) as cursor:
        return cursor.execute(_Q["list_dead"]).fetchall()


def list_mismatches(conn: Connection) -> list[Mismatch]:
    """What came to wrong addresses and is neither put right nor given up."""
    with conn.cursor(row_factory=class_row(Mismatch)) as cursor:
        return cursor.execute(_Q["list_mismatches"]).fetchall()


def list_unregistered(conn: Connection) -> list[Unregistered]:
    """The workspaces whose deliveries wait for their registration."""
    with conn.cursor(row_factory=class_row(Unregistered)) as cursor:
        return cursor.execute(_Q["list_unregistered"]).fetchall()


def list_unknown_types(conn: Connection, since: datetime, without_effect: Sequence[str]) -> list[UnknownType]:
    """The types that the rules do not know of events since a moment, but for those of ``without_effect``."""
    with conn.cursor(row_factory=class_row(UnknownType)) as cursor:
        return cursor.execute(
            _Q["list_unknown_types"], {"since": since, "without_effect": list(without_effect)}
        ).fetchall()


def has_polled_figures(conn: Connection) -> bool:
    """Whether the figures of any month were ever polled."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(_Q["has_polled_figures"]).fetchone())
