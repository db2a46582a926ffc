"""The mirror of the campaigns, as a table that a fresh read is merged into."""

from __future__ import annotations

from bisonsync.queries import load_queries
from bisonsync.store.lists import MergeTable

_Q = load_queries("campaigns")

TABLE = MergeTable(
    resource="campaigns",
    name="campaigns_cache",
    upsert=_Q["upsert_campaigns"],
    count=_Q["count_changes"],
    missing=_Q["list_missing"],
    tombstone=_Q["tombstone_campaigns"],
)
