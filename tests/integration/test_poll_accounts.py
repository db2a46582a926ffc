"""poll-accounts by the real command line: what it mirrors, what it refuses, what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest
from looking import examine
from office import Connection, Office

from bisonsync.sandbox import Sandbox

pytestmark = pytest.mark.stock

LIST = "/api/sender-emails"
COUNTERS = (
    "emails_sent_count",
    "total_replied_count",
    "unique_replied_count",
    "total_opened_count",
    "unique_opened_count",
    "bounced_count",
    "unsubscribed_count",
    "interested_leads_count",
    "total_leads_contacted_count",
)


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    """Three workspaces with 90, 40 and 20 accounts, registered, never polled."""
    with Sandbox(workspaces=3, accounts=150, skew=(90, 40)) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


def test_the_mirror_is_exactly_what_the_api_serves(office: Office) -> None:
    outcome = office.poll()

    assert outcome.code == 0
    assert outcome.document["verdict"] == "success"
    assert outcome.counts["inserted"] == outcome.counts["accounts_read"] == 150
    rows = office.conn.execute(
        f"SELECT bison_workspace_id, bison_account_id, email_address, account_name, status, daily_limit, account_type,"
        f" warmup_enabled, bison_created_at, tags, {', '.join(COUNTERS)} FROM sender_emails_cache"
    ).fetchall()
    stored = {(row[0], row[1]): row[2:] for row in rows}
    served = {
        (workspace, row["id"]): (
            row["email"].lower(),
            row["name"],
            row["status"],
            row["daily_limit"],
            row["type"],
            row["warmup_enabled"],
            datetime.fromisoformat(row["created_at"]),
            sorted(row["tags"], key=lambda tag: tag["id"]),
            *(row[counter] for counter in COUNTERS),
        )
        for workspace, rows_ in office.sandbox.truth().items()
        for row in rows_
    }
    assert stored == served


def test_a_field_that_decides_nothing_keeps_no_row_out_and_is_noted(office: Office) -> None:
    dated, tagged = sorted(office.sandbox.world.workspaces[1].accounts)[:2]
    tags = {"0": {"id": 1, "name": "Google"}, "2": {"id": 2, "name": "Zapmail"}}
    office.sandbox.add_fault("fields", path=LIST, accounts=(dated,), set={"created_at": "0000-00-00 00:00:00"})
    office.sandbox.add_fault("fields", path=LIST, accounts=(tagged,), set={"tags": tags})

    first, second = office.poll(), office.poll()

    assert [(each.code, each.counts["invalid"], each.document["errors"]) for each in (first, second)] == [
        (0, 0, [])
    ] * 2
    assert (first.counts["inserted"], second.counts["unchanged"]) == (150, 150)
    assert office.live() == office.truth()
    provider = "SELECT email_provider || ', ' || reseller FROM sender_emails_cache WHERE bison_account_id = %s"
    assert office.one(provider, tagged) == "Google, Zapmail"
    notes = "SELECT record_id, field, is_note FROM data_validation_errors WHERE resolved_at IS NULL ORDER BY field"
    assert office.conn.execute(notes).fetchall() == [(str(dated), "created_at", True), (str(tagged), "tags", True)]
    health = examine(office.dsn, "validation", now=office.one("SELECT now()"))
    assert health.state == "OK"
    assert "created_at could not be read of accounts in 1 workspace" in health.detail
    office.sandbox.clear_faults()
    office.poll()
    assert office.one("SELECT count(*) FROM data_validation_errors WHERE resolved_at IS NULL") == 0


def test_a_field_that_cannot_be_read_keeps_its_stored_value(office: Office) -> None:
    office.poll()
    odd = min(office.sandbox.world.workspaces[1].accounts)
    stored = "SELECT to_jsonb(c) - 'updated_at' FROM sender_emails_cache AS c WHERE bison_account_id = %s"
    before = office.one(stored, odd)
    fields = ("name", "daily_limit", "type", "warmup_enabled", "created_at", "tags")
    office.sandbox.add_fault("fields", path=LIST, accounts=(odd,), set={field: {"odd": "value"} for field in fields})

    outcome = office.poll()

    assert (outcome.code, outcome.counts["unchanged"]) == (0, 150)
    assert office.one(stored, odd) == before
    assert office.one("SELECT count(*) FROM data_validation_errors WHERE is_note") == len(fields)


def test_f06_f07_the_same_mailbox_in_two_workspaces_is_two_rows(office: Office) -> None:
    shared = next(iter(office.sandbox.world.workspaces[1].accounts.values()))
    office.sandbox.world.copy_to(shared.id, 2)

    outcome = office.poll()

    assert outcome.counts["inserted"] == 151
    rows = office.conn.execute(
        "SELECT bison_workspace_id FROM sender_emails_cache WHERE email_address = %s ORDER BY 1", [shared.email.lower()]
    ).fetchall()
    assert rows == [(1,), (2,)]
    office.sandbox.world.remove(shared.id)
    assert office.poll().counts["removed"] == 1
    assert office.live() == office.truth()


def test_f10_a_reply_rate_of_1500_percent_is_stored(office: Office) -> None:
    account = next(iter(office.sandbox.world.workspaces[1].accounts))
    office.sandbox.world.change(account, emails_sent_count=1, unique_replied_count=15, total_replied_count=15)

    office.poll()

    rate = office.one("SELECT reply_rate_percentage FROM sender_emails_cache WHERE bison_account_id = %s", account)
    assert rate == 1500


def test_f15_price_comes_from_metadata_then_rules_whatever_the_order(office: Office, tmp_path) -> None:
    config = tmp_path / "bisonsync.toml"
    config.write_text('[[prices]]\nprovider = "Google"\nprice = 3.5\nvolume_per_account = 20\n[[prices]]\nprice = 1\n')
    config.chmod(0o600)
    first = office.sandbox.world.workspaces[1]
    by_hand = next(iter(first.accounts.values()))
    office.conn.execute(
        "INSERT INTO email_account_metadata (bison_instance, email_address, price) VALUES ('sim', %s, 9)",
        [by_hand.email.lower()],
    )

    outcome = office.run("-c", str(config), "poll-accounts", "--json")

    assert outcome.code == 0
    assert office.one("SELECT price FROM sender_emails_cache WHERE email_address = %s", by_hand.email.lower()) == 9
    rows = office.conn.execute(
        "SELECT DISTINCT email_provider = 'Google', price::float, volume_per_account::float FROM sender_emails_cache"
        " WHERE email_address <> %s",
        [by_hand.email.lower()],
    ).fetchall()
    assert set(rows) == {(True, 3.5, 20.0), (False, 1.0, None)}


def test_providers_and_resellers_follow_the_configured_order(office: Office) -> None:
    ids = list(office.sandbox.world.workspaces[1].accounts)
    office.sandbox.world.retag(ids[0], ["Outlook", "gmail", "my zapmail batch", "via CheapInboxes"])
    office.sandbox.world.retag(ids[1], [])
    office.sandbox.world.change(ids[1], type="microsoft_oauth")
    office.sandbox.world.retag(ids[2], ["burned"])
    office.sandbox.world.change(ids[2], type="Inbox", imap_server="imap.mail.yahoo.com", smtp_server=None)
    office.sandbox.world.retag(ids[3], [])
    office.sandbox.world.change(ids[3], type="Inbox", imap_server=None, smtp_server=None)

    office.poll()

    rows = dict(
        office.conn.execute(
            "SELECT bison_account_id, ARRAY[email_provider, reseller] FROM sender_emails_cache"
            " WHERE bison_account_id = any(%s)",
            [ids[:4]],
        ).fetchall()
    )
    assert rows[ids[0]] == ["Google", "CheapInboxes"]
    assert rows[ids[1]] == ["Microsoft", None]
    assert rows[ids[2]] == ["Yahoo", None]
    assert rows[ids[3]] == ["Unknown", None]


def test_f26_what_an_event_changed_after_the_read_began_keeps_the_events_value(office: Office) -> None:
    """An event is newer than a read that began before it: its time lies ahead of the next read's start."""
    office.poll()
    ids = sorted(office.sandbox.world.workspaces[1].accounts)
    office.conn.execute(
        "UPDATE sender_emails_cache SET status = 'Not connected', status_as_of = now() + interval '1 hour'"
        " WHERE bison_account_id = %s",
        [ids[0]],
    )
    office.conn.execute(
        "UPDATE sender_emails_cache SET removed_at = now() + interval '1 hour' WHERE bison_account_id = %s", [ids[1]]
    )
    office.conn.execute(
        "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address,"
        " first_seen_at) VALUES ('sim', 1, 999999, 'new@example.com', now() + interval '1 hour')"
    )

    outcome = office.poll()

    assert outcome.code == 0
    rows = dict(
        office.conn.execute(
            "SELECT bison_account_id, (status, removed_at IS NULL)::text FROM sender_emails_cache"
            " WHERE bison_account_id = any(%s)",
            [[ids[0], ids[1], 999999]],
        ).fetchall()
    )
    assert rows[ids[0]] == '("Not connected",t)'
    assert rows[ids[1]].endswith(",f)")
    assert rows[999999] == "(,t)"


def test_f26_an_event_that_is_committed_while_the_merge_runs_is_not_undone(office: Office) -> None:
    """The merge is held up between its comparison and its update by a lock on a row that an event changes."""
    from cli import environment, finish, start_cli, wait_until

    office.poll()
    event, gone = sorted(office.sandbox.world.workspaces[1].accounts)[:2]
    office.sandbox.world.change(event, status="Connected", daily_limit=77)
    office.sandbox.world.remove(gone)
    with psycopg.connect(office.dsn) as other:
        other.execute(
            "UPDATE sender_emails_cache SET status = 'Disconnected', status_as_of = now() + interval '1 hour'"
            " WHERE bison_account_id = any(%s)",
            [[event, gone]],
        )
        process = start_cli(["poll-accounts", "--json", "-w", "1"], environment(office.dsn, office.sandbox))
        wait_until(
            lambda: office.one(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE NOT granted AND pid <> pg_backend_pid() AND datname = current_database()"
            ),
            "the merge waits for the row",
        )
        other.commit()
    done = finish(process)

    assert done.returncode == 0
    rows = office.conn.execute(
        "SELECT status, removed_at FROM sender_emails_cache WHERE bison_account_id = any(%s)", [[event, gone]]
    ).fetchall()
    assert rows == [("Disconnected", None), ("Disconnected", None)]


def test_f16_a_first_load_of_more_than_10000_accounts_joins_sets_not_rows(db: str, conn: Connection) -> None:
    """Autovacuum is off here: the planner knows nothing of the table, as in the first minutes of a new database."""
    with Sandbox(workspaces=1, accounts=12_000, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()

        first = office.poll()
        changed = sandbox.change(percent=2)
        second = office.poll()

    assert (first.code, first.counts["inserted"]) == (0, 12_000)
    assert (second.code, second.counts["updated"], second.counts["unchanged"]) == (0, len(changed), 11_760)
    assert len(office.live()[1]) == 12_000


def test_f22_a_host_that_ignores_page_sizes_is_read_whole(db: str, conn: Connection) -> None:
    with Sandbox(workspaces=1, accounts=433, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()

        assert office.poll().counts["inserted"] == 433


def test_a_blanket_429_ends_the_run_with_7_and_the_next_one_starts_slowly_and_loses_nothing(office: Office) -> None:
    office.sandbox.set_moods(blanket_429=600.0, retry_after="none")
    refused = office.poll("--deadline", "5s")
    share = office.one("SELECT slow_factor FROM rate_budgets")

    office.sandbox.set_moods(blanket_429=0.0)
    after = office.poll()
    health = office.run("health", "api", "--json")

    assert (refused.code, refused.counts["inserted"]) == (7, 0)
    assert share <= 0.5
    assert (after.code, office.live()) == (0, office.truth())
    assert "after 429s in a row" in health.document["checks"][0]["detail"]
