"""Events for tests of the inbox: delivered by the rule book itself, at times that are counted back from now."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from bisonsync.store import webhooks
from bisonsync.store.webhooks import Delivery, Outcome, Source

Connection = psycopg.Connection[Any]

NOW = datetime.now(UTC)
THIS_MONTH = NOW.date().replace(day=1)


def months_ago(count: int) -> date:
    """The first day of the month that was so many months ago."""
    years, month = divmod(THIS_MONTH.year * 12 + THIS_MONTH.month - 1 - count, 12)
    return date(years, month + 1, 1)


def register(conn: Connection, *workspaces: int, instance: str = "sim") -> None:
    """Put workspaces into the registry."""
    for number in workspaces:
        conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES (%s, %s, %s)",
            (instance, number, f"Workspace {number}"),
        )


def event(
    number: int, *, workspace: int = 1, kind: str = "EMAIL_SENT", at: datetime = NOW, **more: Any
) -> dict[str, Any]:
    """The payload of one event, known by its number; ``more`` are parts of data."""
    by_reply = kind in ("LEAD_REPLIED", "LEAD_INTERESTED", "EMAIL_BOUNCED")
    part = {"id": number, "created_at": at.isoformat()}
    return {
        "event": {"type": kind, "workspace_id": workspace, "workspace_name": f"Workspace {workspace}"},
        "data": {
            ("reply" if by_reply else "campaign_event"): part,
            "lead": {"id": number, "email": f"lead{number}@example.com", "first_name": "Ann", "last_name": "Nobody"},
            **more,
        },
    }


def deliver(conn: Connection, events: Iterable[object], source: Source = "sql", **fields: Any) -> list[Outcome]:
    """Store and apply; ``fields`` are those of Delivery."""
    made = [Delivery(json.dumps(each), source=source, **fields) for each in events]
    with conn.transaction():
        return webhooks.receive(conn, made)


def statuses(conn: Connection) -> dict[str, int]:
    """How many deliveries have each status."""
    return dict(conn.execute("SELECT status, count(*) FROM webhook_delivery_log GROUP BY 1").fetchall())


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)
