"""Deliveries of webhooks: stored, applied, and applied again. The rules are in SQL (apply_events)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg import errors as pg
from psycopg.rows import class_row

from bisonsync.errors import DatabaseUnavailable, SchemaMismatch
from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection
from bisonsync.store.db_errors import is_lock_fault

_Q = load_queries("webhooks")

Source = Literal["receiver", "sql", "file", "events", "legacy"]

# As large as many a delivery, and compressed to no less than half: it has to find room.
_TRIAL_BYTES = 8_192


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery as it came in.

    ``payload``: JSON text that jsonb can hold; ``raw``: the bytes as they came, only where it had to be changed for
    that; mail bodies that are not to be stored are replaced in both (payloads.read_body). ``hook``: instance and
    workspace id of the secret or token it came with. ``received_at``: None for now.
    ``is_mismatch``: it was found to be of another workspace, and by whose address it came is not known any more.
    """

    payload: str
    source: Source
    raw: bytes | None = None
    received_at: datetime | None = None
    hook: WorkspaceKey | None = None
    is_test: bool = False
    is_mismatch: bool = False

    @property
    def forced_verdict(self) -> str | None:
        """The status it has whatever its payload says."""
        return "test" if self.is_test else "mismatch" if self.is_mismatch else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery: its status, and why where it is not processed."""

    id: int
    received_at: datetime
    status: str
    event_type: str | None
    bison_instance: str | None
    bison_workspace_id: int | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class _Placed(Outcome):
    place: int


def receive(conn: Connection, deliveries: Sequence[Delivery]) -> list[Outcome]:
    """Store deliveries and apply them, in the transaction of ``conn``; the outcomes in the order given.

    One that cannot be applied is stored as failed or dead, and harms no other. Raises what psycopg raises for locks
    and lost connections: nothing is stored then.
    """
    if not deliveries:
        return []
    with conn.cursor(row_factory=class_row(_Placed)) as cursor:
        placed = cursor.execute(
            _Q["receive_deliveries"],
            {
                "received_ats": [delivery.received_at for delivery in deliveries],
                "sources": [delivery.source for delivery in deliveries],
                "hook_instances": [delivery.hook[0] if delivery.hook else None for delivery in deliveries],
                "hook_workspace_ids": [delivery.hook[1] if delivery.hook else None for delivery in deliveries],
                "forced_verdicts": [delivery.forced_verdict for delivery in deliveries],
                "payloads": [delivery.payload for delivery in deliveries],
                "raws": [delivery.raw for delivery in deliveries],
            },
        ).fetchall()
    placed.sort(key=lambda outcome: outcome.place)
    return [*placed]


def try_store(conn: Connection) -> None:
    """Store a delivery as ``receive`` does and take it back, so that only a commit is left. Raises what that meets."""
    with conn.transaction(force_rollback=True):
        receive(conn, [Delivery(f'"{secrets.token_hex(_TRIAL_BYTES // 2)}"', "receiver", is_test=True)])


def explain(error: Exception) -> str:
    """Why deliveries cannot be stored, for everybody: without names, addresses and values."""
    cause = error.__cause__
    if isinstance(error, SchemaMismatch):
        return "the database does not have the schema of this version; run 'bisonsync migrate'"
    if isinstance(error, DatabaseUnavailable):
        return "the database cannot be reached"
    if isinstance(cause, pg.ReadOnlySqlTransaction):
        return "the database can only be read"
    if isinstance(cause, pg.DiskFull):
        return "the disk of the database's server is full"
    if isinstance(cause, pg.InsufficientPrivilege):
        return "the database's role may not write to the inbox"
    if isinstance(cause, psycopg.Error) and is_lock_fault(cause):
        return "another session keeps the inbox locked"
    if isinstance(cause, pg.QueryCanceled):
        return "the database is too slow"
    return "deliveries cannot be stored; the receiver's log says why"


def is_write_refused(error: Exception) -> bool:
    """True while the database writes nothing for anybody: read only, or without room."""
    return isinstance(error.__cause__, pg.ReadOnlySqlTransaction | pg.DiskFull)


def is_for_all(error: Exception) -> bool:
    """True for errors that every delivery meets, whatever is in it."""
    return (
        is_write_refused(error)
        or isinstance(error, DatabaseUnavailable | SchemaMismatch)
        or isinstance(error.__cause__, pg.InsufficientPrivilege)
    )


def process(conn: Connection, ids: Sequence[int], received_ats: Sequence[datetime]) -> list[Outcome]:
    """Apply stored deliveries by today's rules, in the transaction of ``conn``; those decided, in order of id.

    Left out are those that another transaction holds, tests, what was discarded, and those whose payload was pruned.
    """
    with conn.cursor(row_factory=class_row(Outcome)) as cursor:
        done = cursor.execute(
            _Q["process_deliveries"], {"ids": list(ids), "received_ats": list(received_ats)}
        ).fetchall()
    return sorted(done, key=lambda outcome: outcome.id)


def write_settings(
    conn: Connection,
    *,
    timezone: str,
    store_bodies: bool,
    base_urls: Mapping[str, str],
    former_urls: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Bring what the rules need of the settings up to date; writes only what differs.

    ``base_urls`` and ``former_urls`` by instance; the addresses of other instances stay as another host told them.
    """
    conn.execute(_Q["update_webhook_settings"], {"timezone": timezone, "store_bodies": store_bodies})
    addresses = [(instance, url, False) for instance, url in base_urls.items()]
    addresses += [(instance, url, True) for instance, urls in (former_urls or {}).items() for url in urls]
    conn.execute(
        _Q["upsert_instance_origins"],
        {
            "instances": [instance for instance, _, _ in addresses],
            "base_urls": [url for _, url, _ in addresses],
            "are_former": [is_former for _, _, is_former in addresses],
        },
    )
