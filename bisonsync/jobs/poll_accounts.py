"""Mirrors every sender email of every chosen workspace into sender_emails_cache."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from operator import attrgetter
from typing import Any

from bisonsync.api.lists import InvalidRow
from bisonsync.models import Mark, SenderEmail, fields_marked
from bisonsync.polling import lists
from bisonsync.polling.lists import ListPolicy, ListSpec
from bisonsync.polling.rows import MOVING, TakenRow, read_row, tags_in_order, unknown_fields
from bisonsync.run import Result, WorkspacesRun
from bisonsync.store import accounts

# Known and of no use to a mirror.
_DROPPED = frozenset({MOVING, "email_signature", "imap_port", "smtp_port"})
# Stored values that stay where the API's own cannot be read; of other fields an absent one keeps what was known anyway.
_KEPT_IF_UNREAD = frozenset({"name", "daily_limit", "type"})
_COUNTERS = fields_marked(SenderEmail, Mark.DECIDES) & fields_marked(SenderEmail, Mark.NO_NULL)


def read_sender_email(raw: Any, ignored: Sequence[str] = ()) -> TakenRow | InvalidRow:
    """Read a sender email, without the unknown fields that are ``ignored``."""
    return read_row(SenderEmail, raw, partial(_encode, ignored=ignored))


def _encode(row: SenderEmail, unread: AbstractSet[str], ignored: Sequence[str]) -> dict[str, Any]:
    mail_host = row.imap_server or row.smtp_server or row.email.rpartition("@")[2]
    fields: dict[str, Any] = {
        "id": row.id,
        "email": row.email,
        "name": row.name,
        "domain": row.email.rpartition("@")[2],
        "mail_host": mail_host.lower(),
        "status": row.status,
        "has_status": "status" in row.model_fields_set,
        "daily_limit": row.daily_limit,
        "warmup_enabled": row.warmup_enabled,
        "type": row.type,
        "tags": row.tags and tags_in_order(row.tags),
        "extra": unknown_fields(row, _DROPPED, ignored),
        "created_at": row.created_at,
    }
    for name in _COUNTERS:
        fields[name] = getattr(row, name)
    if kept := unread & _KEPT_IF_UNREAD:
        fields["unread"] = sorted(kept)
    return fields


SPEC = ListSpec(
    noun="accounts",
    path="/api/sender-emails",
    read_row=read_sender_email,
    table=accounts.TABLE,
    expected=attrgetter("accounts_total"),
)


def run(run: WorkspacesRun, policy: ListPolicy) -> Result:
    """Read every page of each workspace, prove the list complete, merge it in one transaction of its own."""
    return lists.poll(run, SPEC, policy)
