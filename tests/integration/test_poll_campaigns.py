"""poll-campaigns by the real command line: every field as the API serves it. Its guards are in test_poll_lists."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from mirrored import CAMPAIGNS
from office import Connection, Office

from bisonsync.sandbox import Sandbox

pytestmark = pytest.mark.stock

# Where a column has another name than the field.
COLUMNS = {"id": "bison_campaign_id", "created_at": "bison_created_at"}


def served(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The rows of the API under the names of their columns, but for what is not stored."""
    rows = [row for rows in sandbox.campaigns().values() for row in rows]
    return in_order([{COLUMNS.get(name, name): row[name] for name in row if name != "updated_at"} for row in rows])


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of their ids, with moments that can be compared and tags in order."""
    for row in rows:
        row["bison_created_at"] = datetime.fromisoformat(row["bison_created_at"])
        row["tags"].sort(key=lambda tag: tag["id"])
    return sorted(rows, key=lambda row: row["bison_campaign_id"])


def test_the_mirror_is_exactly_what_the_api_serves_also_after_changes(db: str, conn: Connection) -> None:
    with Sandbox(workspaces=3, accounts=3, campaigns=60, skew=(40, 15)) as sandbox:
        office = Office(sandbox, db, conn, CAMPAIGNS)
        office.register()
        for _ in range(2):
            sandbox.advance(minutes=3000)

            assert office.poll().code == 0

            truth = served(sandbox)
            query = "SELECT to_jsonb(c) FROM campaigns_cache AS c WHERE removed_at IS NULL"
            rows = [{name: row[name] for name in truth[0]} for (row,) in conn.execute(query)]
            assert in_order(rows) == truth
