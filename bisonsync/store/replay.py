"""Which stored deliveries are to be applied, or applied again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("replay")


@dataclass(frozen=True, slots=True)
class Choice:
    """Deliveries that fit all of these; an empty part says nothing, but ``ids`` and ``workspaces`` only when None.

    ``since`` and ``until`` are of received_at, the end not included; event types are in lower case.
    """

    since: datetime | None = None
    until: datetime | None = None
    event_types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    workspaces: tuple[WorkspaceKey, ...] | None = None
    instances: tuple[str, ...] = ()
    ids: tuple[int, ...] | None = None
    older_than: int | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether it says from when, of whom, or which: else it may mean the whole log."""
        return bool(self.since or self.instances) or self.workspaces is not None or self.ids is not None

    def _parameters(self) -> dict[str, object]:
        return {
            "since": self.since,
            "until": self.until,
            "event_types": list(self.event_types) or None,
            "statuses": list(self.statuses) or None,
            "workspace_instances": None if self.workspaces is None else [key[0] for key in self.workspaces],
            "workspace_ids": None if self.workspaces is None else [key[1] for key in self.workspaces],
            "instances": list(self.instances) or None,
            "ids": None if self.ids is None else list(self.ids),
            "older_than": self.older_than,
        }


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of a kind there are; ``pruned``: those of them whose payload is gone; ``last_id``: the latest's."""

    status: str
    event_type: str | None
    bison_instance: str | None
    bison_workspace_id: int | None
    deliveries: int
    pruned: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """A delivery and the status it had when it was chosen."""

    id: int
    received_at: datetime
    status: str


BEFORE_ALL = Chosen(-1, datetime.min.replace(tzinfo=UTC), "")


def count_chosen(conn: Connection, choice: Choice | None) -> list[Tally]:
    """Count what a choice means, or what is due where there is none; the largest first."""
    with conn.cursor(row_factory=class_row(Tally)) as cursor:
        if choice is None:
            return cursor.execute(_Q["count_due"]).fetchall()
        return cursor.execute(_Q["count_chosen"], choice._parameters()).fetchall()


def list_chosen(conn: Connection, choice: Choice | None, *, after: Chosen, last_id: int, limit: int) -> list[Chosen]:
    """The next after one, in the order of arrival: of a choice, or of what is due where there is none."""
    place = {"after_id": after.id, "after_received_at": after.received_at, "last_id": last_id, "limit": limit}
    with conn.cursor(row_factory=class_row(Chosen)) as cursor:
        if choice is None:
            return cursor.execute(_Q["list_due"], place).fetchall()
        return cursor.execute(_Q["list_chosen"], {**choice._parameters(), **place}).fetchall()


def list_missing_ids(conn: Connection, ids: Sequence[int]) -> list[int]:
    """Those of ``ids`` that no delivery has."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_missing_ids"], {"ids": list(ids)}).fetchall()
