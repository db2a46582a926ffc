"""The mirror of the sender emails, as a table that a fresh read is merged into."""

from __future__ import annotations

from bisonsync.queries import load_queries
from bisonsync.store.lists import MergeTable

_Q = load_queries("accounts")

TABLE = MergeTable(
    resource="accounts",
    name="sender_emails_cache",
    upsert=_Q["upsert_accounts"],
    count=_Q["count_changes"],
    missing=_Q["list_missing"],
    tombstone=_Q["tombstone_accounts"],
)
