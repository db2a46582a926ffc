"""The inbox as an operator sees it: what came, what is dead, and what is to become of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("inbox")


@dataclass(frozen=True, slots=True)
class Filter:
    """Deliveries that fit all of these; None says nothing. Times are those of received_at, the end not included."""

    statuses: tuple[str, ...] | None = None
    event_types: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    instances: tuple[str, ...] | None = None
    workspace_ids: tuple[int, ...] | None = None
    ids: tuple[int, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def _parameters(self) -> dict[str, Any]:
        return {
            "statuses": _list(self.statuses),
            "event_types": _list(self.event_types),
            "sources": _list(self.sources),
            "instances": _list(self.instances),
            "workspace_ids": _list(self.workspace_ids),
            "ids": _list(self.ids),
            "since": self.since,
            "until": self.until,
        }


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery in a list."""

    id: int
    received_at: datetime
    status: str
    event_type: str | None
    bison_instance: str | None
    bison_workspace_id: int | None
    workspace_name: str | None
    source: str
    attempts: int
    next_attempt_at: datetime | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class LetterCount:
    """How many deliveries ended so, of a type and for a reason; ``first_id`` is one of them."""

    status: str
    event_type: str | None
    error_message: str | None
    deliveries: int
    first_id: int


@dataclass(frozen=True, slots=True)
class DeliveryDetail:
    """Everything about a delivery. ``counted_by``: the delivery that has its key; None: none has it (any more)."""

    id: int
    received_at: datetime
    source: str
    event_type: str | None
    bison_instance: str | None
    bison_workspace_id: int | None
    workspace_name: str | None
    hook_instance: str | None
    hook_workspace_id: int | None
    occurred_at: datetime | None
    occurred_rule: str | None
    payload: Any
    payload_raw_bytes: int | None
    dedup_key: str | None
    dedup_rule: str | None
    status: str
    success: bool | None
    attempts: int
    next_attempt_at: datetime | None
    error_message: str | None
    processing_time_ms: float | None
    processed_at: datetime | None
    processor_version: int | None
    counted_by: int | None
    metric: str | None
    amount: int | None


@dataclass(frozen=True, slots=True)
class DeliveryKey:
    """Which delivery."""

    id: int
    received_at: datetime


def list_deliveries(conn: Connection, fit: Filter, *, before_id: int | None, limit: int) -> list[DeliveryRow]:
    """Those stored last first; ``before_id`` goes on where a list ended."""
    with conn.cursor(row_factory=class_row(DeliveryRow)) as cursor:
        return cursor.execute(
            _Q["list_deliveries"], {**fit._parameters(), "before_id": before_id, "limit": limit}
        ).fetchall()


def count_letters(conn: Connection, fit: Filter) -> list[LetterCount]:
    """Count by status, type and reason, the largest first. ``fit.statuses``: which kinds; times say nothing."""
    with conn.cursor(row_factory=class_row(LetterCount)) as cursor:
        return cursor.execute(_Q["count_letters"], fit._parameters()).fetchall()


def find_delivery(conn: Connection, delivery_id: int) -> DeliveryDetail | None:
    """Everything about one."""
    with conn.cursor(row_factory=class_row(DeliveryDetail)) as cursor:
        return cursor.execute(_Q["get_delivery"], {"id": delivery_id}).fetchone()


def requeue(conn: Connection, fit: Filter, *, after_id: int, limit: int) -> list[DeliveryKey]:
    """Have dead deliveries begin their tries anew, in order of id; those that others hold are left out.

    With them mismatches: any of ``fit.ids``, else those that are none any more.
    """
    return _keys(conn, "requeue_letters", fit, {"after_id": after_id, "limit": limit})


def discard(conn: Connection, fit: Filter, *, reason: str, after_id: int, limit: int) -> list[DeliveryKey]:
    """Settle deliveries that will never be applied, in order of id; those that others hold are left out.

    ``reason`` is kept, and what was wrong with them after it. ``fit.statuses``: which kinds.
    """
    return _keys(conn, "discard_letters", fit, {"after_id": after_id, "limit": limit, "reason": reason})


def _keys(conn: Connection, name: str, fit: Filter, more: dict[str, Any]) -> list[DeliveryKey]:
    conn.execute(_Q["hold_days"])
    with conn.cursor(row_factory=class_row(DeliveryKey)) as cursor:
        return sorted(
            cursor.execute(_Q[name], {**fit._parameters(), **more}).fetchall(), key=lambda delivery: delivery.id
        )


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
