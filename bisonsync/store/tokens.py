"""Workspace tokens, in a schema that no API role can see."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("tokens")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A stored token and what was last known of it: valid, mismatch, refused or minting."""

    bison_instance: str
    bison_workspace_id: int
    token: str = field(repr=False)
    status: str

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """A token that may exist at the API and was never stored here."""

    id: int
    bison_instance: str
    bison_workspace_id: int
    token_name: str
    intent_at: datetime

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


def list_tokens(conn: Connection) -> list[TokenRow]:
    """Every stored token."""
    with conn.cursor(row_factory=class_row(TokenRow)) as cursor:
        return cursor.execute(_Q["list_tokens"]).fetchall()


def open_intent(conn: Connection, instance: str, workspace_id: int, token_name: str) -> int:
    """Note that a token is about to be made; commit before asking for it."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        intent_id = cursor.execute(
            _Q["open_intent"], {"instance": instance, "workspace_id": workspace_id, "token_name": token_name}
        ).fetchone()
    assert intent_id is not None  # RETURNING of one row
    return intent_id


def close_intent(conn: Connection, intent_id: int, outcome: str, detail: str | None = None) -> None:
    """Note how it ended: stored, failed or unknown."""
    conn.execute(_Q["close_intent"], {"intent_id": intent_id, "outcome": outcome, "detail": detail})


def list_open_intents(conn: Connection) -> list[OpenIntent]:
    """Tokens that may have been made and were never stored."""
    with conn.cursor(row_factory=class_row(OpenIntent)) as cursor:
        return cursor.execute(_Q["list_open_intents"]).fetchall()


def store_token(
    conn: Connection,
    instance: str,
    workspace_id: int,
    *,
    token: str,
    token_name: str,
    token_id: int | None,
    status: str,
) -> None:
    """Keep a token in place of an older one."""
    conn.execute(
        _Q["store_token"],
        {
            "instance": instance,
            "workspace_id": workspace_id,
            "token": token,
            "token_name": token_name,
            "bison_token_id": token_id,
            "status": status,
        },
    )


def set_status(conn: Connection, instance: str, workspace_id: int, status: str, error: str | None = None) -> None:
    """Note what the API said of a stored token."""
    conn.execute(
        _Q["set_token_status"], {"instance": instance, "workspace_id": workspace_id, "status": status, "error": error}
    )
