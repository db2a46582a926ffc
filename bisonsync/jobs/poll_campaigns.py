"""Mirrors every campaign of every chosen workspace into campaigns_cache."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

from bisonsync.api.lists import InvalidRow
from bisonsync.models import Campaign
from bisonsync.polling import lists
from bisonsync.polling.lists import ListPolicy, ListSpec
from bisonsync.polling.rows import MOVING, TakenRow, as_named, read_row, tags_in_order, unknown_fields
from bisonsync.run import Result, WorkspacesRun
from bisonsync.store import campaigns

# Where a column has another name than the field.
_COLUMNS = {"id": "bison_campaign_id", "created_at": "bison_created_at"}


def read_campaign(raw: Any, ignored: Sequence[str] = ()) -> TakenRow | InvalidRow:
    """Read a campaign, without the unknown fields that are ``ignored``."""
    return read_row(Campaign, raw, partial(_encode, ignored=ignored))


def _encode(row: Campaign, _unread: AbstractSet[str], ignored: Sequence[str]) -> dict[str, Any]:
    fields = as_named(row, _COLUMNS)
    if "tags" in fields:
        fields["tags"] = tags_in_order(fields["tags"])
    return {**fields, "extra": unknown_fields(row, {MOVING}, ignored)}


SPEC = ListSpec(noun="campaigns", path="/api/campaigns", read_row=read_campaign, table=campaigns.TABLE)


def run(run: WorkspacesRun, policy: ListPolicy) -> Result:
    """Read every page of each workspace, prove the list complete, merge it in one transaction of its own."""
    return lists.poll(run, SPEC, policy)
