"""pull-events by the real command line: what was never delivered counts once, and no read loses or repeats anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import looking
import pytest
from cli import INSTANCE
from looking import add_state, add_workspace, examine
from office import Connection, Office, Outcome

from bisonsync.sandbox import Sandbox
from bisonsync.sandbox.hooks import Event
from bisonsync.sandbox.payloads import envelope
from bisonsync.store import webhooks
from bisonsync.store.webhooks import Delivery

pytestmark = pytest.mark.stock

EVENTS = "/api/events"
MIX = {"email_sent": 60, "lead_replied": 7, "lead_interested": 3, "email_bounced": 4, "lead_unsubscribed": 2}
COUNTERS = {
    "email_sent": "emails_sent_mtd",
    "lead_replied": "replies_mtd",
    "lead_interested": "interested_mtd",
    "email_bounced": "bounced_mtd",
    "lead_unsubscribed": "unsubscribed_mtd",
}


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    """Three workspaces; in the first two a few dozen events happened yesterday, in the third nothing ever did."""
    with Sandbox(workspaces=3, accounts=30, skew=(15, 10), start=datetime.now(UTC) - timedelta(days=1)) as sandbox:
        made = Office(sandbox, db, conn)
        made.register()
        for number in (1, 2):
            happen(made, number, **MIX)
        yield made


def happen(office: Office, workspace: int, **counts: int) -> None:
    """Let so many events of these types happen, a minute after what happened last."""
    pass_time(office, 1)
    for event_type, count in counts.items():
        office.sandbox.make_events(type=event_type, count=count, workspace=workspace)


def pass_time(office: Office, minutes: int) -> None:
    """Let so much time pass at the host, in which nothing happens."""
    office.sandbox.advance(minutes=minutes, active=0, disconnect=0, reconnect=0, retag=0)


def events(office: Office, workspace: int) -> list[Event]:
    with office.sandbox.lock:
        return list(office.sandbox.world.hooks.events.get(workspace, []))


def happened(office: Office) -> Counter[tuple[int, str]]:
    """What happened, by workspace and type."""
    return Counter((number, event.happening.type) for number in (1, 2, 3) for event in events(office, number))


def counted(office: Office) -> Counter[tuple[int, str]]:
    """What took effect, by workspace and type."""
    rows = office.conn.execute(
        "SELECT bison_workspace_id, event_type, count(*) FROM webhook_event_keys GROUP BY 1, 2"
    ).fetchall()
    return Counter({(number, event_type): count for number, event_type, count in rows})


def metrics(office: Office) -> Counter[tuple[int, str]]:
    """The counters, by workspace and type of event, whatever the month."""
    found: Counter[tuple[int, str]] = Counter()
    for event_type, column in COUNTERS.items():
        rows = office.conn.execute(
            f"SELECT bison_workspace_id, sum({column}) FROM client_metrics GROUP BY 1".encode()
        ).fetchall()
        found.update({(number, event_type): int(total) for number, total in rows})
    return +found


def deliver(office: Office, workspace: int, several: list[Event]) -> None:
    """Have these events delivered to the receiver."""
    url = office.sandbox.world.hooks.instance_url
    with office.conn.transaction():
        webhooks.receive(
            office.conn,
            [
                Delivery(json.dumps(envelope(event.happening, url)), "receiver", hook=(INSTANCE, workspace))
                for event in several
            ],
        )


def pull(office: Office, *arguments: str, **env: str) -> Outcome:
    return office.run("pull-events", "--json", *arguments, env=env)


def stored(office: Office) -> int:
    return office.one("SELECT count(*) FROM webhook_delivery_log")


def state(office: Office, workspace: int) -> dict[str, Any]:
    return office.one(
        "SELECT to_jsonb(p) FROM bisonsync_private.event_pulls AS p WHERE bison_workspace_id = %s", workspace
    )


def test_a_lost_delivery_counts_and_one_that_came_does_not_count_again(office: Office) -> None:
    one = events(office, 1)
    deliver(office, 1, one[::2])

    first, second = pull(office), pull(office)

    assert (first.code, first.document["verdict"]) == (0, "success")
    assert (first.workspace(1)["counts"]["known"], first.workspace(1)["counts"]["new"]) == (38, 38)
    assert (first.counts["new"], first.counts["workspaces_ok"]) == (38 + 76, 3)
    assert (second.counts["new"], second.counts["duplicate"]) == (0, 0)
    assert counted(office) == happened(office)
    assert metrics(office) == Counter({key: n for key, n in happened(office).items() if key[1] in COUNTERS})
    assert stored(office) == 2 * 76
    assert office.one("SELECT count(*) FROM webhook_delivery_log_default") == 0
    ledger = office.one("SELECT counts FROM email_sync_logs ORDER BY started_at DESC LIMIT 1")
    assert ledger == second.counts


def test_a_delivery_that_comes_after_the_pull_is_a_duplicate(office: Office) -> None:
    pull(office)

    deliver(office, 1, events(office, 1))

    assert counted(office) == happened(office)
    assert office.one("SELECT count(*) FROM webhook_delivery_log WHERE status = 'duplicate'") == 76


def test_what_is_new_is_found_with_the_pages_that_it_fills(office: Office) -> None:
    pull(office)
    pass_time(office, 120)
    happen(office, 1, lead_replied=1)
    pull(office)
    happen(office, 1, lead_replied=3)

    outcome = pull(office)

    assert outcome.workspace(1)["counts"]["new"] == 3
    assert [outcome.workspace(number)["counts"]["pages"] for number in (1, 2, 3)] == [1, 6, 1]
    assert counted(office) == happened(office)


@pytest.mark.superuser
def test_a_pull_that_finds_nothing_new_writes_a_few_rows_for_each_workspace(office: Office) -> None:
    pull(office)
    office.conn.execute("SELECT pg_create_logical_replication_slot('unchanged', 'test_decoding')")

    outcome = pull(office)

    # A commit that is flushed, and with it every one before.
    office.conn.execute("SET synchronous_commit = on")
    office.conn.execute("SELECT pg_logical_emit_message(true, 'test', 'flushed')")
    lines = [
        row[0] for row in office.conn.execute("SELECT data FROM pg_logical_slot_get_changes('unchanged', NULL, NULL)")
    ]
    office.conn.execute("SELECT pg_drop_replication_slot('unchanged')")
    written = Counter(line.split(":")[0].removeprefix("table ") for line in lines if line.startswith("table "))
    assert outcome.counts["known"] > 0
    assert written.pop("public.workspace_sync_state") == 3
    assert written.pop("public.email_sync_log_workspaces") == 3
    assert not [table for table in written if "webhook" in table or "client" in table or "event_pulls" in table]


def test_once_a_day_the_log_is_read_whole(office: Office) -> None:
    pull(office)
    pass_time(office, 300)
    happen(office, 1, lead_replied=20)
    pull(office)
    # As if the log had not shown it until now.
    office.conn.execute(
        "DELETE FROM webhook_event_keys WHERE delivery_id ="
        " (SELECT max(id) FROM webhook_delivery_log WHERE bison_workspace_id = 1 AND event_type = 'email_sent')"
    )

    soon = pull(office)
    office.conn.execute("UPDATE bisonsync_private.event_pulls SET whole_at = whole_at - interval '1 day'")
    later = pull(office)

    assert soon.counts["new"] == 0
    assert later.counts["new"] == 1
    assert counted(office) == happened(office)


def test_a_page_that_fails_is_where_the_next_run_goes_on(office: Office) -> None:
    happen(office, 1, email_sent=700)
    pass_time(office, 120)
    happen(office, 1, lead_replied=1)
    office.sandbox.add_fault("status", path=EVENTS, workspace=1, after=45)

    first = pull(office)
    before = state(office, 1)
    office.sandbox.clear_faults()
    happen(office, 1, lead_replied=2)
    second = pull(office)

    assert (first.code, first.kinds) == (3, {"api_unavailable"})
    assert first.workspace(1)["verdict"] == "incomplete"
    assert first.workspace(1)["counts"]["new"] == 45 * 15
    assert [first.workspace(number)["verdict"] for number in (2, 3)] == ["complete", "complete"]
    assert (before["pulled_until"], before["walk_cursor"] is None) == (None, False)
    assert (second.code, second.workspace(1)["verdict"]) == (0, "complete")
    assert second.workspace(1)["counts"]["new"] == 777 - 45 * 15 + 2
    assert second.workspace(1)["counts"]["pages"] == 7 + 1
    assert counted(office) == happened(office)
    assert stored(office) == happened(office).total()
    assert state(office, 1)["walk_cursor"] is None


def test_a_cursor_that_the_host_takes_no_more_is_forgotten(office: Office) -> None:
    office.sandbox.add_fault("status", path=EVENTS, workspace=1, after=2)
    pull(office)
    office.sandbox.clear_faults()
    assert state(office, 1)["walk_cursor"]
    office.sandbox.add_fault("status", path=EVENTS, workspace=1, status=422, times=1)

    outcome = pull(office)

    assert (outcome.code, outcome.workspace(1)["verdict"]) == (0, "complete")
    assert counted(office) == happened(office)
    assert stored(office) == happened(office).total()


def test_a_deadline_ends_the_run_and_what_is_stored_stays(office: Office) -> None:
    happen(office, 1, email_sent=600)
    office.sandbox.add_fault("hang", path=EVENTS, workspace=1, after=42)

    outcome = pull(office, "-w", "1", "--deadline", "12s")

    assert (outcome.code, outcome.document["verdict"]) == (7, "partial")
    assert outcome.workspace(1)["counts"]["new"] == 40 * 15
    office.sandbox.clear_faults()
    assert pull(office).code == 0
    assert counted(office) == happened(office)


@pytest.mark.parametrize("after", [0, 3], ids=["before the first page", "between pages"])
def test_f04_a_token_that_changes_its_workspace_writes_nothing(office: Office, after: int) -> None:
    office.sandbox.add_fault("identity", workspace=1, to=2, after=after)

    outcome = pull(office, "-w", "1")

    assert (outcome.code, outcome.document["verdict"]) == (8, "guarded")
    assert outcome.workspace(1)["verdict"] == "guarded"
    assert stored(office) == 0
    assert office.one("SELECT count(*) FROM bisonsync_private.event_pulls") == 0


def test_f04_what_was_read_before_the_token_changed_stays_and_no_more(office: Office) -> None:
    happen(office, 1, email_sent=700)
    office.sandbox.add_fault("identity", workspace=1, to=2, after=45)

    outcome = pull(office, "-w", "1")

    assert outcome.code == 8
    assert outcome.workspace(1)["counts"]["new"] == stored(office) == 40 * 15
    assert set(counted(office)) == {(1, "email_sent")}


def test_an_event_of_another_workspace_is_not_applied_and_told_as_long_as_it_lies_there(office: Office) -> None:
    foreign = envelope(events(office, 1)[0].happening, office.sandbox.url)
    answer_with(office, 3, {"id": 1, "payload": foreign, "created_at": ago(minutes=30)})

    first, second = pull(office, "-w", "3"), pull(office, "-w", "3")
    office.sandbox.clear_faults()
    third = pull(office, "-w", "3")

    for outcome, mismatches in ((first, 1), (second, 1), (third, 0)):
        assert (outcome.code, outcome.kinds) == (8, {"mismatch"})
        assert (outcome.counts["mismatch"], outcome.counts["known"]) == (mismatches, 0)
    assert office.conn.execute("SELECT status FROM webhook_delivery_log").fetchall() == [("mismatch",)]
    assert counted(office) == Counter()


def test_what_a_wrong_base_url_kept_out_counts_with_the_next_pull_once_it_is_right(office: Office) -> None:
    office.sandbox.world.hooks.instance_url = "https://app.example.com"
    wrong = pull(office)
    health = office.run("health", "inbox", "--json")

    right = pull(office, BISONSYNC_INSTANCES__SIM__FORMER_URLS='["https://app.example.com/"]')

    assert (wrong.code, wrong.kinds, wrong.counts["mismatch"]) == (8, {"mismatch"}, happened(office).total())
    assert "76 mismatches" in health.document["checks"][0]["detail"]
    assert (right.code, right.counts["judged_again"]) == (0, happened(office).total())
    assert counted(office) == happened(office)


def test_an_account_event_is_dated_by_the_log_and_what_is_ignored_is_told(office: Office) -> None:
    lost = {"id": 7, "email": "box@example.com", "updated_at": ago(days=90)}
    event = {"type": "EMAIL_ACCOUNT_DISCONNECTED", "workspace_id": 3}
    at = ago(hours=5)
    answer_with(
        office,
        3,
        {"id": 2, "payload": {"event": event, "data": {"sender_email": lost}}, "created_at": at},
        {"id": 1, "payload": {"event": {**event, "type": "UNHEARD_OF"}, "data": {}}, "created_at": ago(hours=6)},
    )

    outcome = office.run("pull-events", "-w", "3")

    assert (outcome.code, ", 1 new, 0 known, 1 ignored, " in outcome.stdout) == (0, True), outcome.stdout
    row = office.conn.execute("SELECT status, status_as_of FROM sender_emails_cache").fetchall()
    assert row == [("Not connected", datetime.fromisoformat(at))]


def test_one_that_cannot_be_applied_is_kept_once_and_harms_no_other(office: Office) -> None:
    good = envelope(events(office, 1)[0].happening, office.sandbox.url)
    good["event"]["workspace_id"] = 3
    rows = [
        {"id": 3, "payload": {"event": {"workspace_id": 3}, "data": {}}, "created_at": ago(minutes=20)},
        {"id": 2, "payload": good, "created_at": ago(minutes=25)},
        "no object at all",
    ]
    answer_with(office, 3, *rows)

    first, second = pull(office, "-w", "3"), pull(office, "-w", "3")

    assert (first.code, first.kinds) == (3, {"event"})
    assert first.workspace(3)["verdict"] == "complete"
    assert (first.counts["new"], first.counts["failed"]) == (1, 2)
    assert "dead-letters list -w sim/3" in first.document["errors"][0]["hint"]
    assert second.code == 0
    assert (second.counts["known"], second.counts["failed"]) == (3, 0)
    statuses = office.conn.execute("SELECT status, count(*) FROM webhook_delivery_log GROUP BY 1 ORDER BY 1").fetchall()
    assert statuses == [("dead", 2), ("processed", 1)]


def test_one_that_waits_for_its_next_try_is_not_stored_again(office: Office) -> None:
    office.conn.execute("ALTER TABLE client_leads ADD CONSTRAINT odd CHECK (lead_email NOT LIKE '%%@%%')")
    first = pull(office, "-w", "1")
    office.conn.execute("ALTER TABLE client_leads DROP CONSTRAINT odd")

    second = pull(office, "-w", "1")

    assert first.code == 3
    assert first.counts["failed"] == stored(office) == 76
    assert (second.code, second.counts["new"], second.counts["known"]) == (0, 0, second.counts["events_read"])


def test_a_host_without_an_event_log_is_told_of_once(office: Office) -> None:
    office.sandbox.set_moods(has_events=False)

    first = office.run("pull-events", "-q")
    second = office.run("pull-events", "-q")
    third = pull(office)
    asked = office.sandbox.summary()["requests"]["by_path"]
    office.sandbox.set_moods(has_events=True)
    office.conn.execute("UPDATE bisonsync_private.event_pulls SET absent_at = absent_at - interval '1 day'")
    fourth = pull(office)

    assert (first.code, first.stdout) == (0, "")
    assert "sim has no event log" in first.stderr
    assert first.stderr.count("\n") == 1
    assert (second.code, second.stdout, second.stderr) == (0, "", "")
    assert (third.code, third.document["verdict"], third.document["errors"]) == (0, "success", [])
    assert third.counts["workspaces_absent"] == 3
    assert third.workspace(1)["verdict"] == "skipped"
    assert "no event log" in third.workspace(1)["error"]
    assert sum(asked[EVENTS].values()) == 3
    assert (fourth.code, fourth.counts["workspaces_ok"]) == (0, 3)
    assert counted(office) == happened(office)


def test_a_host_that_has_no_event_log_any_more_is_not_expected_to_be_fresh(office: Office) -> None:
    pull(office)
    fresh = lists(office)
    office.sandbox.set_moods(has_events=False)
    outcome = pull(office)

    assert (outcome.code, [error["kind"] for error in outcome.document["errors"]]) == (0, ["no_event_log"])
    assert (fresh, lists(office)) == ({"accounts", "events"}, {"accounts"})


@pytest.mark.parametrize("check", ["freshness", "completeness", "workspace-failures"])
def test_health_looks_at_the_event_logs_while_they_are_to_be_read(db: str, conn: Connection, check: str) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1)

    without = examine(db, check)
    add_state(
        conn, 1, resource="events", verdict="failed", consecutive_failures=9, last_complete_at=looking.ago(minutes=59)
    )
    failing = examine(db, check)
    off = examine(db, check, schedule={"poll-accounts": timedelta(minutes=3)})

    assert (without.state, off.state) == ("OK", "OK")
    assert failing.state != "OK"
    assert "events" in failing.findings[0].detail
    assert failing.hint.startswith("bisonsync pull-events")


def test_a_pull_is_as_fresh_as_its_interval_allows(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1)
    add_state(conn, 1, resource="events", last_complete_at=looking.ago(minutes=24))

    assert examine(db, "freshness").state == "OK"


def test_a_dry_run_says_what_is_new_and_writes_nothing(office: Office) -> None:
    deliver(office, 1, events(office, 1)[:10])
    tables = ("email_sync_logs", "webhook_event_keys", "bisonsync_private.event_pulls", "workspace_sync_state")
    before = [office.one(f"SELECT count(*) FROM {table}") for table in tables]

    outcome = pull(office, "--dry-run")

    assert outcome.code == 0
    assert (outcome.counts["new"], outcome.counts["known"]) == (66 + 76, 10)
    assert [office.one(f"SELECT count(*) FROM {table}") for table in tables] == before
    assert stored(office) == 10
    assert pull(office).counts["new"] == 66 + 76


def test_a_workspace_without_a_token_of_its_own_is_named_and_the_others_are_pulled(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 1")

    none = pull(office)
    by_switch = pull(office, BISONSYNC_INSTANCES__SIM__ALLOW_SWITCH="true")

    for outcome in (none, by_switch):
        assert (outcome.code, outcome.kinds) == (3, {"credentials"})
        assert outcome.workspace(1)["verdict"] == "failed"
        assert outcome.workspace(2)["verdict"] == "complete"
    assert "switch-workspace" not in str(office.sandbox.summary()["requests"]["by_path"])


def test_a_host_that_is_down_is_an_error_and_the_log_is_read_later(office: Office) -> None:
    office.sandbox.add_fault("html", path=EVENTS)

    outcome = pull(office)

    assert (outcome.code, outcome.document["verdict"]) == (5, "failed")
    assert office.one("SELECT count(*) FROM workspace_sync_state WHERE verdict = 'failed' AND resource = 'events'") == 3
    office.sandbox.clear_faults()
    assert pull(office).code == 0
    assert counted(office) == happened(office)


def lists(office: Office) -> set[str]:
    return {row[0] for row in office.conn.execute("SELECT DISTINCT resource FROM data_freshness").fetchall()}


def ago(**units: float) -> str:
    return (datetime.now(UTC) - timedelta(**units)).isoformat()


def answer_with(office: Office, workspace: int, *rows: Any) -> None:
    """Let a workspace's event log have exactly these rows."""
    page = {"data": list(rows), "meta": {"per_page": 15, "next_cursor": None, "prev_cursor": None}}
    office.sandbox.add_fault(
        "reply", path=EVENTS, workspace=workspace, status=200, content_type="application/json", body=json.dumps(page)
    )
