"""Several lists of one workspace in one run: each is merged, each has its row in the ledger and is found there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from conftest import Connection

from bisonsync.jobs.poll_accounts import read_sender_email
from bisonsync.keys import WorkspaceKey
from bisonsync.models import SenderEmail
from bisonsync.polling.rows import TakenRow
from bisonsync.queries import sql_dir
from bisonsync.store import accounts, campaigns, event_pulls, leases, lists, partitions, runs, snapshots
from bisonsync.store.leases import Lease
from bisonsync.store.lists import Changes, Fresh, Merged, MergeTable, ShrinkGuard

pytestmark = pytest.mark.stock

KEY = WorkspaceKey("sim", 1)
GUARD = ShrinkGuard(0.2, 5, 1800.0)


def sender_email(number: int) -> str:
    """A sender email of the API as the mirror wants it."""
    row = read_sender_email({"id": number, "email": f"a{number}@example.com", "name": "A", "tags": [], **COUNTERS})
    assert isinstance(row, TakenRow)
    return row.fields


COUNTERS = dict.fromkeys((name for name in SenderEmail.model_fields if name.endswith("_count")), 0)
ROWS = {
    "accounts": {1: sender_email(1), 2: sender_email(2)},
    "campaigns": {7: json.dumps({"bison_campaign_id": 7, "name": "Spring"})},
}


@pytest.fixture
def lease(conn: Connection) -> Lease:
    """That of the workspace for an open run of a job that reads several lists."""
    run_id = uuid4()
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('sim', 1, 'Acme')"
    )
    runs.open_run(conn, run_id, "sync", command="sync", version="1", covers=None)
    (taken,) = leases.take(conn, "sync", [KEY], run_id=run_id, ttl_seconds=60.0)
    return taken


def merge(conn: Connection, lease: Lease, table: MergeTable) -> Merged:
    rows, now = ROWS[table.resource], datetime.now(UTC)
    fresh = Fresh(*KEY, "Acme", rows, frozenset(rows), (), now, len(rows), "")
    counts = {f"{table.resource}_read": len(rows)}
    with conn.transaction():
        return lists.merge(conn, lease, table, fresh, guard=GUARD, rules={}, counts=counts, interval_seconds=180)


def close(conn: Connection, run_id: UUID) -> dict[str, int]:
    """Close the run; the sums it closed with."""
    counts = runs.close_run(
        conn,
        run_id,
        status="success",
        exit_code=0,
        duration_ms=1,
        counts={},
        workspaces_failed=[],
        errors=[],
        outcomes=[],
        api_health=[],
    )
    assert counts is not None
    return {name: counts[name] for name in counts if counts[name]}


def test_a_second_list_is_merged_too_and_each_is_found_again_after_a_lost_answer(
    conn: Connection, lease: Lease
) -> None:
    first = [merge(conn, lease, table) for table in (accounts.TABLE, campaigns.TABLE)]
    # The answer to either COMMIT may be lost.
    again = [merge(conn, lease, table) for table in (accounts.TABLE, campaigns.TABLE)]

    assert [merged.changes for merged in first] == [Changes(inserted=2), Changes(inserted=1)]
    assert [merged.changes for merged in again] == [merged.changes for merged in first]
    listed = runs.list_run_workspaces(conn, lease.run_id)
    assert [(row.resource, row.verdict, row.counts["inserted"]) for row in listed] == [
        ("accounts", "complete", 2),
        ("campaigns", "complete", 1),
    ]
    assert close(conn, lease.run_id) == {
        "accounts_read": 2,
        "campaigns_read": 1,
        "accounts.inserted": 2,
        "campaigns.inserted": 1,
    }


def test_a_snapshot_and_an_event_log_are_not_taken_for_a_list_that_was_merged(conn: Connection, lease: Lease) -> None:
    merge(conn, lease, accounts.TABLE)
    pull = event_pulls.Pull(*KEY)
    part = event_pulls.Part([], 0, 3, pull, "Acme", event_pulls.Counts(), 180, datetime.now(UTC))
    with conn.transaction():
        pulled = event_pulls.store(conn, lease, part)
    today = datetime.now(UTC).date()
    partitions.make_months(lambda work, **_: work(conn), today, today + timedelta(days=1), needed=today)
    with conn.transaction():
        written = snapshots.write(conn, lease, workspace_name="Acme", zone="UTC", force=False)

    assert (pulled.counts.pages, written.inserted) == (3, 2)
    listed = runs.list_run_workspaces(conn, lease.run_id)
    assert [row.resource for row in listed] == ["accounts", "events", "snapshot-providers"]


@pytest.mark.parametrize(
    ("job", "counts", "resource"),
    [
        ("poll-accounts", {"accounts_read": 3}, "accounts"),
        ("pull-events", {}, "events"),
        ("snapshot-providers", {"accounts": 3, "gap_days_filled": 1}, "snapshot-providers"),
        ("snapshot-providers", {"gap_days_filled": 1}, "gaps"),
        ("webhooks-ensure", {}, "webhooks-ensure"),
    ],
)
def test_older_rows_of_the_ledger_get_the_list_that_their_job_read(
    conn: Connection, job: str, counts: dict[str, int], resource: str
) -> None:
    (migration,) = (sql_dir() / "migrations").glob("0012_*.sql")
    (backfill,) = [text for text in migration.read_text().split(";\n") if "UPDATE public." in text]
    run_id = uuid4()
    runs.open_run(conn, run_id, job, command=job, version="1", covers=None)
    conn.execute(
        "INSERT INTO email_sync_log_workspaces (run_id, bison_instance, bison_workspace_id, resource, verdict, counts)"
        " VALUES (%s, 'sim', 1, '?', 'complete', %s)",
        [run_id, json.dumps(counts)],
    )

    conn.execute(backfill.encode())

    assert [row.resource for row in runs.list_run_workspaces(conn, run_id)] == [resource]
