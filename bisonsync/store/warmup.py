"""The warm-up figures of the sender emails, as a table that a fresh read is merged into."""

from __future__ import annotations

from bisonsync.queries import load_queries
from bisonsync.store.lists import MergeTable

_Q = load_queries("warmup")

# What a host no longer lists keeps its last figures: whether the account is still there is for the mirror of accounts.
TABLE = MergeTable(resource="warmup", name="sender_email_warmup", upsert=_Q["upsert_warmup"], count=_Q["count_changes"])
