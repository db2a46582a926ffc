"""``inbox``: what was delivered and what became of it."""

from __future__ import annotations

from dataclasses import replace

from bisonsync.errors import ConfigError
from bisonsync.masking import mask_addresses, mask_payload
from bisonsync.store import inbox
from bisonsync.store.db import Database
from bisonsync.store.inbox import DeliveryDetail, DeliveryRow, Filter

STATUSES = ("pending", "processed", "failed", "dead", "duplicate", "ignored", "test", "unknown_workspace", "mismatch")
SOURCES = ("receiver", "sql", "file", "events", "legacy")


def list_deliveries(database: Database, fit: Filter, *, before_id: int | None, limit: int) -> list[DeliveryRow]:
    """Those stored last first, addresses in their errors masked."""
    found = database.run(lambda conn: inbox.list_deliveries(conn, fit, before_id=before_id, limit=limit))
    return [replace(row, error_message=mask_addresses(row.error_message)) for row in found]


def show(database: Database, delivery_id: int, *, full: bool) -> DeliveryDetail:
    """Everything about one delivery; what tells who wrote to whom masked unless ``full``.

    Raises ConfigError when there is none of this id.
    """
    found = database.run(lambda conn: inbox.find_delivery(conn, delivery_id))
    if found is None:
        raise ConfigError(f"there is no delivery {delivery_id}", hint="see 'bisonsync inbox list'; old ones are pruned")
    if full:
        return found
    return replace(found, payload=mask_payload(found.payload), error_message=mask_addresses(found.error_message))
