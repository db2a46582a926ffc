"""The registry of workspaces: which there are, what they are called, which are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("registry")


@dataclass(frozen=True, slots=True)
class WorkspaceRow:
    """A registered workspace. ``accounts_total``: how many the API told at the last read of them, 0 when never read."""

    bison_instance: str
    bison_workspace_id: int
    workspace_name: str
    display_name: str | None
    is_active: bool
    vanished_at: datetime | None
    previous_name: str | None
    renamed_at: datetime | None
    token_status: str | None
    token_verified_at: datetime | None
    last_complete_at: datetime | None
    accounts_total: int

    @property
    def key(self) -> WorkspaceKey:
        """Its identity: names change and repeat."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class RegistryChanges:
    """How many workspaces were added, and how many took a new name or came back."""

    added: int
    changed: int


def list_workspaces(conn: Connection) -> list[WorkspaceRow]:
    """Every registered workspace, by instance and id."""
    with conn.cursor(row_factory=class_row(WorkspaceRow)) as cursor:
        return cursor.execute(_Q["list_workspaces"]).fetchall()


def upsert_workspaces(conn: Connection, instance: str, names: Mapping[int, str]) -> RegistryChanges:
    """Register what is new (as active) and note new names; ``names`` maps id to name."""
    with conn.cursor(row_factory=class_row(RegistryChanges)) as cursor:
        changes = cursor.execute(
            _Q["upsert_workspaces"], {"instance": instance, "ids": list(names), "names": list(names.values())}
        ).fetchone()
    assert changes is not None  # an aggregate always has a row
    return changes


def count_changes(conn: Connection, instance: str, names: Mapping[int, str]) -> RegistryChanges:
    """What ``upsert_workspaces`` would do. Reads only."""
    known = {row.bison_workspace_id: row for row in list_workspaces(conn) if row.bison_instance == instance}
    changed = sum(
        bool(name and name != known[number].workspace_name) or known[number].vanished_at is not None
        for number, name in names.items()
        if number in known
    )
    return RegistryChanges(added=len(names.keys() - known.keys()), changed=changed)


def list_missing(conn: Connection, instance: str, seen_ids: Sequence[int]) -> dict[int, bool]:
    """Registered workspaces that a complete list did not show, and whether they are active."""
    found = conn.execute(_Q["list_missing_workspaces"], {"instance": instance, "ids": list(seen_ids)})
    return dict(found.fetchall())


def mark_vanished(conn: Connection, instance: str, ids: Sequence[int]) -> None:
    """Note that workspaces are not listed any more."""
    conn.execute(_Q["mark_vanished"], {"instance": instance, "ids": list(ids)})


def set_active(conn: Connection, instance: str, workspace_id: int, *, active: bool) -> bool:
    """Switch a workspace on or off; False when it already was so."""
    parameters = {"instance": instance, "workspace_id": workspace_id, "active": active}
    return conn.execute(_Q["set_active"], parameters).rowcount > 0
