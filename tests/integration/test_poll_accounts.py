"""poll-accounts by the real command line: what it mirrors, what it refuses, what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest
from cli import heard
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


def test_f05_the_ledger_counts_what_the_table_shows(office: Office) -> None:
    office.poll()
    office.sandbox.advance(minutes=600, come=7, go=5, disconnect=4, retag=3, move=2)

    before = office.writes()
    outcome = office.poll()

    counts = outcome.counts
    ledger = office.one("SELECT counts FROM email_sync_logs ORDER BY started_at DESC LIMIT 1")
    sums = office.one(
        "SELECT jsonb_object_agg(key, total) FROM (SELECT key, sum(value::int) AS total FROM email_sync_log_workspaces,"
        " jsonb_each_text(counts) WHERE run_id = %s GROUP BY key) AS t",
        outcome.document["run_id"],
    )
    after = office.writes()
    assert outcome.code == 0
    assert ledger == counts
    assert {name: counts[name] for name in sums} == sums
    assert after[0] - before[0] == counts["inserted"] == 7 + 2
    assert after[1] - before[1] == counts["updated"] + counts["removed"] + counts["restored"]
    assert counts["removed"] == 5 + 2
    assert office.live() == office.truth()


@pytest.mark.superuser
def test_an_unchanged_poll_writes_nothing_and_a_small_change_only_itself(office: Office) -> None:
    office.poll()
    office.conn.execute("SELECT pg_create_logical_replication_slot('unchanged', 'test_decoding')")
    before = office.writes()

    office.sandbox.change(percent=100, only_updated_at=True)
    unchanged = office.poll()
    changes = _decoded(office)
    quiet = office.writes()
    changed_ids = office.sandbox.change(percent=2)
    changed = office.poll()
    decoded = _decoded(office)
    office.conn.execute("SELECT pg_drop_replication_slot('unchanged')")

    assert unchanged.counts["unchanged"] == 150
    assert quiet == before
    assert changes
    assert not [line for line in changes if "sender_emails_cache" in line]
    assert changed.counts["updated"] == len(changed_ids) == 3
    assert office.writes() == (before[0], before[1] + 3, before[2])
    assert len([line for line in decoded if line.startswith("table public.sender_emails_cache: UPDATE")]) == 3


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(office: Office) -> None:
    office.poll()
    office.sandbox.advance(minutes=60, active=0, come=4, go=3, disconnect=0, reconnect=0, move=0, retag=0)
    before = office.writes(), office.one("SELECT count(*) FROM email_sync_logs"), office.live()

    outcome = office.poll("--dry-run")

    assert outcome.code == 0
    assert (outcome.counts["inserted"], outcome.counts["removed"]) == (4, 3)
    assert outcome.counts["requests"] > 0
    assert (office.writes(), office.one("SELECT count(*) FROM email_sync_logs"), office.live()) == before
    assert office.one("SELECT count(*) FROM job_leases WHERE holder IS NOT NULL") == 0
    really = office.poll().counts
    assert {k: really[k] for k in ("inserted", "updated", "removed", "unchanged")} == {
        k: outcome.counts[k] for k in ("inserted", "updated", "removed", "unchanged")
    }


def test_f02_one_row_that_cannot_be_stored_is_put_aside_and_shows(office: Office) -> None:
    odd = sorted(office.sandbox.world.workspaces[1].accounts)[40]
    office.conn.execute(f"ALTER TABLE sender_emails_cache ADD CONSTRAINT odd CHECK (bison_account_id <> {odd})")

    outcome = office.poll()

    assert outcome.code == 3
    assert outcome.counts["inserted"] == 149
    assert outcome.counts["invalid"] == 1
    assert "validation" in outcome.kinds
    assert outcome.workspace(1)["verdict"] == "complete"
    kept = office.conn.execute(
        "SELECT record_id, error_type, bison_workspace_id FROM data_validation_errors"
    ).fetchall()
    assert kept == [(str(odd), "store: CheckViolation", 1)]
    assert office.truth()[1] - office.live()[1] == {odd}


def test_a_row_that_cannot_be_read_keeps_its_stored_row_and_is_kept_once(office: Office) -> None:
    office.poll()
    odd = sorted(office.sandbox.world.workspaces[1].accounts)[40]
    sent = office.one("SELECT emails_sent_count FROM sender_emails_cache WHERE bison_account_id = %s", odd)
    office.sandbox.add_fault(
        "fields",
        accounts=(odd,),
        set={"emails_sent_count": "many", "api_password": "hunter2"},
        path="/api/sender-emails",
    )

    first, second = office.poll(), office.poll()

    assert (first.code, second.code) == (3, 3)
    assert first.workspace(1)["verdict"] == "complete"
    assert odd in office.live()[1]
    assert office.one("SELECT emails_sent_count FROM sender_emails_cache WHERE bison_account_id = %s", odd) == sent
    field, row = office.conn.execute('SELECT field, "row" FROM data_validation_errors').fetchone() or ("", {})
    assert field == "emails_sent_count"
    assert row["emails_sent_count"] == "many"
    assert "hunter2" not in json.dumps(row) + first.stdout + first.stderr
    office.sandbox.clear_faults()
    assert office.poll().code == 0
    assert office.one("SELECT count(*) FROM data_validation_errors WHERE resolved_at IS NULL") == 0


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


def test_notes_on_many_rows_are_few_and_are_not_written_again(office: Office) -> None:
    office.sandbox.add_fault("fields", path=LIST, set={"created_at": "0000-00-00 00:00:00"})

    office.poll()
    ids = "SELECT array_agg(id ORDER BY id) FROM data_validation_errors"
    first = office.one(ids)
    office.poll()

    assert office.one("SELECT count(*) FROM sender_emails_cache") == 150
    assert len(first) == 20 + 20 + 20
    assert office.one(ids) == first


def test_a_fault_that_kept_a_row_out_becomes_a_note_when_it_no_longer_does(office: Office) -> None:
    dated = min(office.sandbox.world.workspaces[1].accounts)
    office.sandbox.add_fault("fields", path=LIST, accounts=(dated,), set={"created_at": "0000-00-00 00:00:00"})
    office.poll()
    office.conn.execute("UPDATE data_validation_errors SET is_note = false")

    office.poll()

    kept = office.conn.execute("SELECT is_note, resolved_at IS NULL FROM data_validation_errors ORDER BY id").fetchall()
    assert kept == [(False, False), (True, True)]


def test_a_row_without_an_id_makes_the_read_incomplete(office: Office) -> None:
    office.poll()
    gone = next(iter(office.sandbox.world.workspaces[1].accounts))
    office.sandbox.world.remove(gone)
    office.sandbox.add_fault("no_id", workspace=1, page=2, rows=(3,))

    outcome = office.poll()

    assert outcome.code == 3
    assert outcome.workspace(1)["verdict"] == "incomplete"
    assert gone in office.live()[1]


@pytest.mark.parametrize("row", [None, "text", [1], {}])
def test_a_row_that_is_no_account_is_kept_and_the_others_are_stored(office: Office, row: object) -> None:
    good = list(office.sandbox.truth()[3])
    page = {"data": [row, *good[:14]], "meta": {"current_page": 1, "last_page": 1, "total": 15}}
    office.sandbox.add_fault(
        "reply",
        path="/api/sender-emails",
        workspace=3,
        status=200,
        content_type="application/json",
        body=json.dumps(page),
    )

    first, second = office.poll(), office.poll()

    assert (first.code, second.code) == (3, 3)
    assert first.workspace(3)["verdict"] == "incomplete"
    assert office.live()[3] == {entry["id"] for entry in good[:14]}
    assert office.one("SELECT count(*) FROM data_validation_errors WHERE resolved_at IS NULL") == 1


def test_a_null_status_is_stored_and_a_missing_one_keeps_what_was_known(office: Office) -> None:
    office.poll()
    nulled, left_out = sorted(office.sandbox.world.workspaces[1].accounts)[:2]
    known = office.one("SELECT status FROM sender_emails_cache WHERE bison_account_id = %s", left_out)
    office.sandbox.add_fault("fields", path="/api/sender-emails", accounts=(nulled,), set={"status": None})
    office.sandbox.add_fault("fields", path="/api/sender-emails", accounts=(left_out,), drop=("status",))

    assert office.poll().code == 0

    rows = office.conn.execute(
        "SELECT bison_account_id, status, is_connected FROM sender_emails_cache WHERE bison_account_id = any(%s)",
        [[nulled, left_out]],
    ).fetchall()
    assert sorted(rows) == sorted([(nulled, None, False), (left_out, known, known == "Connected")])


def test_f03_a_page_cap_is_read_by_cursor_or_removes_nothing(office: Office) -> None:
    office.poll()
    gone = next(iter(office.sandbox.world.workspaces[1].accounts))
    office.sandbox.world.remove(gone)
    office.sandbox.add_fault("status", status=422, from_page=4, path="/api/sender-emails")

    office.sandbox.set_moods(paging="number")
    without = office.poll()
    kept = office.live()[1]
    office.sandbox.set_moods(paging="both")
    with_cursor = office.poll()

    assert without.code == 3
    assert without.workspace(1)["verdict"] == "incomplete"
    assert gone in kept
    assert with_cursor.code == 0
    assert office.live() == office.truth()


def test_f03_a_host_that_tells_no_total_any_more_is_read_by_cursor_or_removes_nothing(office: Office) -> None:
    office.poll()
    gone = next(iter(office.sandbox.world.workspaces[1].accounts))
    office.sandbox.world.remove(gone)
    office.sandbox.add_fault("turn", page=2, workspace=1, body="cursor")
    ends_early = office.sandbox.add_fault("meta", path="/api/sender-emails", page=0, set={"next_cursor": None})

    cut_short = office.poll("-w", "1")
    kept = office.live(1)[1]
    office.sandbox.clear_faults(ends_early)
    whole = office.poll()

    assert (cut_short.code, cut_short.workspace(1)["verdict"]) == (3, "incomplete")
    assert gone in kept
    assert whole.code == 0
    assert office.live() == office.truth()


def test_f03_a_failed_page_updates_what_came_and_removes_nothing(office: Office) -> None:
    office.poll()
    office.sandbox.advance(minutes=60, active=1.0, come=0, go=4, disconnect=0, reconnect=0, move=0, retag=0)
    before = office.live()
    office.sandbox.add_fault("status", status=503, page=3, workspace=1)

    outcome = office.poll()

    assert outcome.code == 3
    assert outcome.workspace(1)["verdict"] == "incomplete"
    assert outcome.workspace(1)["counts"]["updated"] > 0
    assert outcome.workspace(1)["counts"]["removed"] == 0
    assert office.live()[1] == before[1]
    assert office.live()[2] == office.truth()[2]
    assert office.one("SELECT verdict FROM workspace_sync_state WHERE bison_workspace_id = 1") == "incomplete"


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_f04_a_token_that_changes_its_workspace_writes_nothing(office: Office, after: int) -> None:
    office.poll()
    office.sandbox.advance(minutes=600)
    before = office.writes()
    office.sandbox.add_fault("identity", workspace=1, to=2, after=after)

    outcome = office.poll("-w", "1")

    assert outcome.code == 8
    assert outcome.document["verdict"] == "guarded"
    assert outcome.workspace(1)["verdict"] == "guarded"
    assert office.writes() == before


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


def test_f08_a_renamed_workspace_is_the_same_workspace(office: Office) -> None:
    office.poll()
    office.sandbox.world.rename(1, "  A New Name  ")

    discovered = office.run("workspaces", "discover", "--json")
    outcome = office.poll()

    assert discovered.code == 0
    assert discovered.counts == {"instances": 1, "workspaces_total": 3, "added": 0, "changed": 1, "vanished": 0}
    assert (outcome.counts["inserted"], outcome.counts["removed"]) == (0, 0)
    names = office.conn.execute(
        "SELECT DISTINCT workspace_name FROM sender_emails_cache WHERE bison_workspace_id = 1"
    ).fetchall()
    assert names == [("A New Name",)]


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


def test_f21_an_empty_list_from_a_healthy_api_removes_nothing(office: Office) -> None:
    office.poll()
    before = office.live()
    office.sandbox.add_fault("empty_list", workspace=1)

    guarded = office.poll()
    after_a_long_time = _an_hour_later(office)
    allowed = office.poll("--allow-shrink", "-w", "1")

    assert guarded.code == 8
    assert guarded.workspace(1)["verdict"] == "guarded"
    assert guarded.workspace(2)["verdict"] == "complete"
    assert after_a_long_time.code == 8
    assert before[1] and allowed.code == 0
    assert allowed.counts["removed"] == 90
    assert 1 not in office.live()


def test_a_large_removal_waits_for_a_later_complete_read_that_agrees(office: Office) -> None:
    office.poll()
    ids = list(office.sandbox.world.workspaces[1].accounts)
    for number in ids[:30]:
        office.sandbox.world.remove(number)

    first, second = office.poll(), office.poll()
    held = office.live()[1]
    later = _an_hour_later(office)

    assert [first.code, second.code, later.code] == [8, 8, 0]
    assert held == set(ids)
    assert later.counts["removed"] == 30
    assert office.live() == office.truth()


def test_what_was_not_missing_at_the_first_look_is_not_confirmed_by_it(office: Office) -> None:
    office.poll()
    ids = list(office.sandbox.world.workspaces[1].accounts)
    for number in ids[:30]:
        office.sandbox.world.remove(number)
    office.poll()
    for number in ids[30:60]:
        office.sandbox.world.remove(number)

    later = _an_hour_later(office)

    assert later.code == 8
    assert later.counts["removed"] == 30
    assert office.live()[1] == set(ids[30:])


def test_a_shrink_below_the_limit_is_believed_and_one_above_is_not(office: Office) -> None:
    office.poll()
    ids = list(office.sandbox.world.workspaces[1].accounts)
    for number in ids[:18]:
        office.sandbox.world.remove(number)
    at_the_limit = office.poll()
    small = list(office.sandbox.world.workspaces[3].accounts)
    for number in small[:5]:
        office.sandbox.world.remove(number)
    five_of_twenty = office.poll()
    for number in small[5:11]:
        office.sandbox.world.remove(number)
    six_of_fifteen = office.poll()

    assert (at_the_limit.code, at_the_limit.counts["removed"]) == (0, 18)
    assert (five_of_twenty.code, five_of_twenty.counts["removed"]) == (0, 5)
    assert (six_of_fifteen.code, six_of_fifteen.counts["removed"]) == (8, 0)


def test_an_account_that_comes_back_is_restored(office: Office) -> None:
    office.poll()
    account = next(iter(office.sandbox.world.workspaces[1].accounts.values()))
    first_seen = office.one("SELECT first_seen_at FROM sender_emails_cache WHERE bison_account_id = %s", account.id)
    office.sandbox.world.remove(account.id)
    office.poll()

    office.sandbox.world.workspaces[1].accounts.put(account)
    outcome = office.poll()

    assert (outcome.counts["restored"], outcome.counts["inserted"]) == (1, 0)
    removed_at, seen = office.conn.execute(
        "SELECT removed_at, first_seen_at FROM sender_emails_cache WHERE bison_account_id = %s", [account.id]
    ).fetchone() or (None, None)
    assert removed_at is None
    assert seen == first_seen


def test_no_delete_removes_nothing(office: Office) -> None:
    office.poll()
    gone = next(iter(office.sandbox.world.workspaces[1].accounts))
    office.sandbox.world.remove(gone)

    outcome = office.poll("--no-delete")

    assert outcome.code == 0
    assert gone in office.live()[1]


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
            lambda: office.one("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"),
            "the merge waits for the row",
        )
        other.commit()
    done = finish(process)

    assert done.returncode == 0
    rows = office.conn.execute(
        "SELECT status, removed_at FROM sender_emails_cache WHERE bison_account_id = any(%s)", [[event, gone]]
    ).fetchall()
    assert rows == [("Disconnected", None), ("Disconnected", None)]


def test_a_missing_counter_keeps_its_value_and_unknown_fields_are_kept(office: Office) -> None:
    office.poll()
    account = next(iter(office.sandbox.world.workspaces[1].accounts.values()))
    office.sandbox.world.change(account.id, emails_sent_count=account.emails_sent_count + 5)
    office.sandbox.add_fault(
        "fields",
        accounts=(account.id,),
        path="/api/sender-emails",
        drop=("emails_sent_count", "tags", "status"),
        set={"health": {"score": 9, "webhook_secret": "s3cr3t"}, "seen_at": "now", "nul": "a\u0000b"},
    )

    outcome = office.poll("-w", "1")

    sent, tags, extra = office.conn.execute(
        "SELECT emails_sent_count, jsonb_array_length(tags), extra FROM sender_emails_cache"
        " WHERE bison_account_id = %s",
        [account.id],
    ).fetchone() or (0, 0, {})
    assert outcome.code == 0
    assert sent == account.emails_sent_count
    assert tags == len(account.tags)
    assert extra == {"health": {"score": 9}, "seen_at": "now", "nul": "a\ufffdb"}
    assert office.poll("-w", "1").counts["updated"] == 0


def test_one_workspace_that_fails_does_not_stop_the_others(office: Office) -> None:
    office.conn.execute(
        "UPDATE bisonsync_private.workspace_tokens SET token = '9|expired-token-value' WHERE bison_workspace_id = 2"
    )

    outcome = office.poll()

    assert outcome.code == 3
    assert outcome.workspace(2)["verdict"] == "failed"
    assert outcome.kinds == {"credentials"}
    assert "sim/2" in outcome.document["errors"][0]["message"]
    assert "expired-token-value" not in outcome.stdout + outcome.stderr
    assert set(office.live()) == {1, 3}
    state = office.conn.execute(
        "SELECT verdict, consecutive_failures, last_complete_at FROM workspace_sync_state WHERE bison_workspace_id = 2"
    ).fetchone()
    assert state == ("failed", 1, None)


def test_tokens_refused_everywhere_are_a_credentials_error(office: Office) -> None:
    office.conn.execute("UPDATE bisonsync_private.workspace_tokens SET token = '9|expired'")

    assert office.poll().code == 4


def test_no_token_at_all_says_what_to_run(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens")

    outcome = office.run("poll-accounts")

    assert outcome.code == 4
    assert "mint-tokens" in outcome.stderr


def test_f25_an_html_page_with_status_200_is_tried_again_then_reported(office: Office) -> None:
    office.sandbox.add_fault("html", workspace=1, page=1, times=1)
    recovered = office.poll("-w", "1", env={"BISONSYNC_POLLING__RETRY_ATTEMPTS": "2"})
    office.sandbox.clear_faults()
    office.sandbox.add_fault("html", workspace=1, page=1)

    reported = office.poll("-w", "1")

    assert (recovered.code, recovered.counts["retries"]) == (0, 1)
    assert reported.code == 5
    assert "HTML" in reported.document["errors"][0]["message"]
    assert office.live()[1] == office.truth()[1]


def test_a_list_that_moves_while_it_is_read_is_read_again(office: Office) -> None:
    office.sandbox.add_fault("shift", workspace=1, page=2, insert=1)

    outcome = office.poll("-w", "1")

    assert outcome.code == 0
    assert office.live()[1] == office.truth()[1]


def test_a_workspace_without_a_token_is_read_by_switching_only_where_allowed(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id <> 3")

    refused = office.poll()
    allowed = office.poll(env={"BISONSYNC_INSTANCES__SIM__ALLOW_SWITCH": "true"})

    assert refused.code == 3
    assert allowed.code == 0
    assert office.live() == office.truth()


def test_f04_a_switch_under_us_writes_nothing(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 1")
    office.sandbox.add_fault("switch", to=2, after=4)

    outcome = office.poll("-w", "1", env={"BISONSYNC_INSTANCES__SIM__ALLOW_SWITCH": "true"})

    assert outcome.code == 8
    assert office.live() == {}


def test_a_dry_run_does_not_move_the_super_admin_key(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 2")
    before = office.sandbox.summary()["requests"]["by_path"]

    outcome = office.poll("--dry-run", env={"BISONSYNC_INSTANCES__SIM__ALLOW_SWITCH": "true"})

    asked = set(office.sandbox.summary()["requests"]["by_path"]) - set(before)
    assert outcome.code == 0
    assert outcome.workspace(2)["verdict"] == "skipped"
    assert not any("switch-workspace" in path for path in asked)


def test_a_key_that_another_run_switches_is_left_to_it(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 2")
    office.conn.execute(
        "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, heartbeat_at, expires_at)"
        " VALUES ('switch-workspace', 'sim', 0, gen_random_uuid(), 'elsewhere', 42, now(), now() + interval '1 hour')"
    )
    allow = {"BISONSYNC_INSTANCES__SIM__ALLOW_SWITCH": "true"}

    beside = office.poll(env=allow)
    alone = office.poll("-w", "2", env=allow)

    assert beside.code == 0
    assert beside.workspace(2)["verdict"] == "skipped"
    assert "pid 42 on elsewhere" in beside.workspace(2)["error"]
    assert set(office.live()) == {1, 3}
    assert alone.code == 75
    assert office.one("SELECT count(*) FROM workspace_sync_state WHERE bison_workspace_id = 2") == 0


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


def test_numbers_as_strings_and_any_case_of_status_are_understood(office: Office) -> None:
    office.sandbox.add_fault("strings", path="/api/")
    office.sandbox.add_fault("statuses", words=("CONNECTED", "connected"))
    office.sandbox.set_moods(identity_key="workspace", webhook_secret=True)

    outcome = office.poll()

    assert outcome.code == 0
    assert office.live() == office.truth()
    assert office.one("SELECT count(*) FROM sender_emails_cache WHERE is_connected") == 150


def test_listeners_hear_once_per_workspace_that_changed(office: Office) -> None:
    with psycopg.connect(office.dsn, autocommit=True) as listener:
        listener.execute("LISTEN bisonsync")
        office.poll()
        told = heard(listener)
        office.poll()
        again = heard(listener)

    assert sorted(note["workspace"] for note in told) == ["sim/1", "sim/2", "sim/3"]
    assert {(note["table"], note["kind"]) for note in told} == {("sender_emails_cache", "changed")}
    assert again == []


def test_the_deadline_ends_the_run_and_keeps_what_is_committed(office: Office) -> None:
    office.sandbox.add_fault("hang", workspace=1)

    outcome = office.poll("--deadline", "3s")

    assert outcome.code == 7
    assert outcome.document["verdict"] == "partial"
    assert set(office.live()) == {2, 3}
    assert outcome.kinds == {"deadline"}
    assert office.one("SELECT status FROM email_sync_logs") == "partial"


def _an_hour_later(office: Office):
    """Poll as if the guard had first held back an hour ago."""
    office.conn.execute(
        "UPDATE workspace_sync_state SET shrink_pending_since = shrink_pending_since - interval '1 hour'"
        " WHERE shrink_pending_since IS NOT NULL"
    )
    return office.poll()


def _decoded(office: Office) -> list[str]:
    """What logical decoding shows since the last look; a synchronous commit first brings out all that waits."""
    office.conn.execute("SET synchronous_commit = on")
    office.conn.execute("SELECT pg_logical_emit_message(true, 'test', 'flush')")
    rows = office.conn.execute("SELECT data FROM pg_logical_slot_get_changes('unchanged', NULL, NULL)").fetchall()
    return [line for (line,) in rows]
