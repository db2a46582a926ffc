"""Hook secrets as their SHA-256, in a schema that no API role can see, and whether a test delivery has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("webhook_secrets")


@dataclass(frozen=True, slots=True)
class SecretRow:
    """Whose a secret is; ``retired_at`` is None while deliveries are taken under it."""

    secret_sha256: bytes
    bison_instance: str
    bison_workspace_id: int
    retired_at: datetime | None

    @property
    def key(self) -> WorkspaceKey:
        """The workspace."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class Position:
    """The end of the log of deliveries at some moment."""

    last_id: int
    at: datetime


@dataclass(frozen=True, slots=True)
class TestDelivery:
    """A delivery that came while a test was awaited, and what became of it."""

    __test__ = False

    status: str
    error_message: str | None


def list_secrets(conn: Connection) -> list[SecretRow]:
    """Every stored secret, retired ones too."""
    with conn.cursor(row_factory=class_row(SecretRow)) as cursor:
        return cursor.execute(_Q["list_secrets"]).fetchall()


def add_secret(conn: Connection, instance: str, workspace_id: int, digest: bytes) -> None:
    """Keep a new secret's SHA-256; commit before the platform is told of it."""
    conn.execute(_Q["add_secret"], {"instance": instance, "workspace_id": workspace_id, "digest": digest})


def retire_secrets(conn: Connection, instance: str, workspace_id: int, digests: Sequence[bytes]) -> None:
    """Take no deliveries any more under these secrets of a workspace."""
    conn.execute(_Q["retire_secrets"], {"instance": instance, "workspace_id": workspace_id, "digests": list(digests)})


def get_position(conn: Connection) -> Position:
    """Where the log of deliveries ends now."""
    with conn.cursor(row_factory=class_row(Position)) as cursor:
        position = cursor.execute(_Q["get_position"]).fetchone()
    assert position is not None  # a sequence has one row
    return position


def find_test_delivery(conn: Connection, instance: str, workspace_id: int, since: Position) -> TestDelivery | None:
    """What came under a workspace's secret since then: a test if there is one, else the newest."""
    with conn.cursor(row_factory=class_row(TestDelivery)) as cursor:
        return cursor.execute(
            _Q["find_test_delivery"],
            {"instance": instance, "workspace_id": workspace_id, "last_id": since.last_id, "at": since.at},
        ).fetchone()
