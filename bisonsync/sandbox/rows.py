"""The rows that the API lists, and how a list keeps them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol, TypeVar

COUNTERS = (
    "emails_sent_count",
    "total_replied_count",
    "total_opened_count",
    "unsubscribed_count",
    "bounced_count",
    "unique_replied_count",
    "unique_opened_count",
    "total_leads_contacted_count",
    "interested_leads_count",
)

# The daily series of the API and the counters whose growth they tell.
SERIES = {
    "Replied": "total_replied_count",
    "Total Opens": "total_opened_count",
    "Unique Opens": "unique_opened_count",
    "Sent": "emails_sent_count",
    "Bounced": "bounced_count",
    "Unsubscribed": "unsubscribed_count",
    "Interested": "interested_leads_count",
}

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Tag(NamedTuple):
    """A label of one workspace; the same name has another id in each workspace."""

    id: int
    name: str
    default: bool


class Account(NamedTuple):
    """One mailbox with the fields of the API's row, in the API's order. Change it by `World.change`."""

    id: int
    name: str
    email: str
    email_signature: str | None
    imap_server: str | None
    imap_port: int | None
    smtp_server: str | None
    smtp_port: int | None
    daily_limit: int
    type: str
    status: str
    warmup_enabled: bool
    emails_sent_count: int
    total_replied_count: int
    total_opened_count: int
    unsubscribed_count: int
    bounced_count: int
    unique_replied_count: int
    unique_opened_count: int
    total_leads_contacted_count: int
    interested_leads_count: int
    created_at: str
    updated_at: str
    tags: tuple[Tag, ...]

    @property
    def is_connected(self) -> bool:
        return self.status.lower() == "connected"

    def row(self) -> dict[str, Any]:
        """Build the row that the API serves."""
        row = self._asdict()
        row["tags"] = [tag._asdict() for tag in self.tags]
        return row


class Campaign(NamedTuple):
    """One campaign with the fields of the API's row, in the API's order. Change it by `World.change_campaign`."""

    id: int
    uuid: str
    sequence_id: int | None
    name: str
    type: str
    status: str
    completion_percentage: float | None
    emails_sent: int
    opened: int
    unique_opens: int
    replied: int
    unique_replies: int
    bounced: int
    unsubscribed: int
    interested: int
    total_leads_contacted: int
    total_leads: int | None
    max_emails_per_day: int
    max_new_leads_per_day: int
    plain_text: bool
    open_tracking: bool
    sequence_prioritization: str
    can_unsubscribe: bool
    unsubscribe_text: str | None
    include_auto_replies_in_stats: bool
    daily_max_sends_per_receiving_domain: int | None
    created_at: str
    updated_at: str
    tags: tuple[Tag, ...]

    def row(self) -> dict[str, Any]:
        """Build the row that the API serves."""
        row = self._asdict()
        row["tags"] = [tag._asdict() for tag in self.tags]
        return row


class Row(Protocol):
    """What every list needs of its rows."""

    @property
    def id(self) -> int: ...

    def row(self) -> dict[str, Any]:
        """Build the row that the API serves."""
        ...


R = TypeVar("R", bound=Row)


class Listed(dict[int, R]):
    """The rows of one list by id. Change it by `put` and `take` alone."""

    def __init__(self) -> None:
        super().__init__()
        self._order: list[int] | None = None
        self._bodies: dict[int, bytes] = {}

    def put(self, row: R) -> None:
        """Add the row, or replace the one with its id."""
        if row.id not in self:
            self._order = None
        self[row.id] = row
        self._bodies.pop(row.id, None)

    def take(self, row_id: int) -> R:
        """Take a row out. Raises KeyError."""
        self._order = None
        self._bodies.pop(row_id, None)
        return self.pop(row_id)

    def order(self) -> list[int]:
        """List the ids as the API orders them, newest first. The list is shared: do not change it."""
        if self._order is None:
            self._order = sorted(self, reverse=True)
        return self._order

    def body(self, row_id: int) -> bytes:
        """Serialise one row, once until it changes."""
        body = self._bodies.get(row_id)
        if body is None:
            body = self._bodies[row_id] = _encode(self[row_id].row()).encode()
        return body
