"""What the health checks ask of lists, tokens and quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("health_data")


@dataclass(frozen=True, slots=True)
class ListRow:
    """How one list of an active workspace stands, and the job that reads it.

    What was never tried has neither verdict nor times, and is listed only if it ``is_required``.
    """

    bison_instance: str
    bison_workspace_id: int
    name: str
    resource: str
    job: str
    is_required: bool
    rest_seconds: int
    last_attempt_at: datetime | None
    last_complete_at: datetime | None
    verdict: str | None
    consecutive_failures: int
    last_error: str | None
    error_kind: str | None
    interval_seconds: int

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class DropRow:
    """What became of an active workspace's accounts.

    ``removed`` of ``known`` by the read that removed the largest share, among ``reads``; ``held`` back by the shrink
    guard of ``live``.
    """

    bison_instance: str
    bison_workspace_id: int
    name: str
    reads: int
    removed: int
    known: int
    held_since: datetime | None
    held: int
    live: int

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class TokenState:
    """What is known of a workspace's token: by ``workspaces verify`` (status), and by its last read."""

    bison_instance: str
    bison_workspace_id: int
    name: str
    has_token: bool
    status: str | None
    renewed_at: datetime | None
    last_attempt_at: datetime | None
    verdict: str | None
    last_error: str | None
    error_kind: str | None

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """What a run about the registry said of a super-admin key."""

    job: str
    started_at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """How many records of one source and workspace are kept aside.

    ``total`` is the length of the list, ``job`` what reads it; None where the source is no list.
    """

    source: str
    bison_instance: str | None
    bison_workspace_id: int | None
    name: str | None
    job: str | None
    total: int | None
    records: int
    message: str


@dataclass(frozen=True, slots=True)
class NotedField:
    """A field that could not be read of some records, which were taken all the same; the first of them."""

    source: str
    field: str
    workspaces: int
    record_id: str | None
    workspace: str | None


@dataclass(frozen=True, slots=True)
class MovingField:
    """An unknown field that moves with every read: left out of the comparison since, or for ``reads`` in a row."""

    bison_instance: str
    resource: str
    field: str
    rows: int
    reads: int
    left_out_at: datetime | None


def list_lists(conn: Connection) -> list[ListRow]:
    """Every list of every active workspace that is in use."""
    with conn.cursor(row_factory=class_row(ListRow)) as cursor:
        return cursor.execute(_Q["list_lists"]).fetchall()


def list_drops(conn: Connection, since: datetime) -> list[DropRow]:
    """Every active workspace with its reads since a moment."""
    with conn.cursor(row_factory=class_row(DropRow)) as cursor:
        return cursor.execute(_Q["list_drops"], {"since": since}).fetchall()


def list_token_states(conn: Connection) -> list[TokenState]:
    """Every active workspace with what is known of its token."""
    with conn.cursor(row_factory=class_row(TokenState)) as cursor:
        return cursor.execute(_Q["list_token_states"]).fetchall()


def list_refused_keys(conn: Connection, since: datetime) -> list[RefusedKey]:
    """What the last runs of ``workspaces …`` since a moment said of super-admin keys, the newest first."""
    with conn.cursor(row_factory=class_row(RefusedKey)) as cursor:
        return cursor.execute(_Q["list_refused_keys"], {"since": since}).fetchall()


def list_quarantined(conn: Connection) -> list[Quarantined]:
    """What is kept aside now, the most first."""
    with conn.cursor(row_factory=class_row(Quarantined)) as cursor:
        return cursor.execute(_Q["list_quarantined"]).fetchall()


def list_noted_fields(conn: Connection) -> list[NotedField]:
    """What could not be read and kept no record out."""
    with conn.cursor(row_factory=class_row(NotedField)) as cursor:
        return cursor.execute(_Q["list_noted_fields"]).fetchall()


def list_moving_fields(conn: Connection, *, reads: int) -> list[MovingField]:
    """What is left out of the comparison, and what moved in at least so many reads in a row."""
    with conn.cursor(row_factory=class_row(MovingField)) as cursor:
        return cursor.execute(_Q["list_moving_fields"], {"reads": reads}).fetchall()


def count_read_lists(conn: Connection) -> int:
    """How many lists of active workspaces were ever tried."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["count_read_lists"]).fetchone() or 0
