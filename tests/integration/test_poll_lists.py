"""Every poll of a list by the real command line: what it mirrors, what it refuses, what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from cli import heard
from mirrored import BOTH, Mirrored
from office import Connection, Office

from bisonsync.sandbox import Sandbox

pytestmark = pytest.mark.stock


@pytest.fixture(params=BOTH, ids=str)
def office(db: str, conn: Connection, request: pytest.FixtureRequest) -> Iterator[Office]:
    """Three workspaces with 90, 40 and 20 rows of a list, registered, never polled."""
    mirrored: Mirrored = request.param
    rows: dict[str, Any] = {"accounts": 3, "campaigns": 0, mirrored.noun: 150}
    with Sandbox(workspaces=3, skew=(90, 40), **rows) as sandbox:
        office = Office(sandbox, db, conn, mirrored)
        office.register()
        yield office


def test_the_mirror_holds_what_the_api_serves(office: Office) -> None:
    outcome = office.poll()

    assert outcome.code == 0
    assert outcome.document["verdict"] == "success"
    assert outcome.counts["inserted"] == outcome.counts[f"{office.list.noun}_read"] == 150
    assert office.live() == office.truth()


def test_f05_the_ledger_counts_what_the_table_shows(office: Office) -> None:
    office.poll()
    office.sandbox.advance(**office.list.step(minutes=600, come=7, go=5))

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
    assert after[0] - before[0] == counts["inserted"] == 7
    assert after[1] - before[1] == counts["updated"] + counts["removed"] + counts["restored"] > 5
    assert counts["removed"] == 5
    assert office.live() == office.truth()


@pytest.mark.superuser
def test_an_unchanged_poll_writes_nothing_and_a_small_change_only_itself(office: Office) -> None:
    office.poll()
    office.conn.execute("SELECT pg_create_logical_replication_slot('unchanged', 'test_decoding')")
    before = office.writes()

    office.change_some(percent=100, only_updated_at=True)
    unchanged = office.poll()
    changes = _decoded(office)
    quiet = office.writes()
    changed_ids = office.change_some(percent=2)
    changed = office.poll()
    decoded = _decoded(office)
    office.conn.execute("SELECT pg_drop_replication_slot('unchanged')")

    assert unchanged.counts["unchanged"] == 150
    assert quiet == before
    assert changes
    assert not [line for line in changes if office.list.table in line]
    assert changed.counts["updated"] == len(changed_ids) == 3
    assert office.writes() == (before[0], before[1] + 3, before[2])
    assert len([line for line in decoded if line.startswith(f"table public.{office.list.table}: UPDATE")]) == 3


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(office: Office) -> None:
    office.poll()
    office.sandbox.advance(**office.list.step(minutes=60, active=0, come=4, go=3))
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
    odd = office.ids()[40]
    check = f"ALTER TABLE {office.list.table} ADD CONSTRAINT odd CHECK ({office.list.id} <> {odd})"
    office.conn.execute(check.encode())

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
    odd = office.ids()[40]
    counter = office.list.counter
    sent = office.stored(counter, odd)
    office.damage(
        "fields",
        accounts=(odd,),
        set={counter: "many", "api_password": "hunter2"},
    )

    first, second = office.poll(), office.poll()

    assert (first.code, second.code) == (3, 3)
    assert first.workspace(1)["verdict"] == "complete"
    assert odd in office.live()[1]
    assert office.stored(counter, odd) == sent
    field, row = office.conn.execute('SELECT field, "row" FROM data_validation_errors').fetchone() or ("", {})
    assert field == counter
    assert row[counter] == "many"
    assert "hunter2" not in json.dumps(row) + first.stdout + first.stderr
    office.sandbox.clear_faults()
    assert office.poll().code == 0
    assert office.one("SELECT count(*) FROM data_validation_errors WHERE resolved_at IS NULL") == 0


def test_notes_on_many_rows_are_few_and_are_not_written_again(office: Office) -> None:
    office.damage("fields", set={"created_at": "0000-00-00 00:00:00"})

    office.poll()
    ids = "SELECT array_agg(id ORDER BY id) FROM data_validation_errors"
    first = office.one(ids)
    office.poll()

    assert office.live() == office.truth()
    assert len(first) == 20 + 20 + 20
    assert office.one(ids) == first


def test_a_fault_that_kept_a_row_out_becomes_a_note_when_it_no_longer_does(office: Office) -> None:
    dated = office.ids()[0]
    office.damage("fields", accounts=(dated,), set={"created_at": "0000-00-00 00:00:00"})
    office.poll()
    office.conn.execute("UPDATE data_validation_errors SET is_note = false")

    office.poll()

    kept = office.conn.execute("SELECT is_note, resolved_at IS NULL FROM data_validation_errors ORDER BY id").fetchall()
    assert kept == [(False, False), (True, True)]


def test_a_row_without_an_id_makes_the_read_incomplete(office: Office) -> None:
    office.poll()
    gone = office.ids()[0]
    office.take(gone)
    office.damage("no_id", workspace=1, page=2, rows=(3,))

    outcome = office.poll()

    assert outcome.code == 3
    assert outcome.workspace(1)["verdict"] == "incomplete"
    assert gone in office.live()[1]


@pytest.mark.parametrize("row", [None, "text", [1], {}])
def test_a_row_of_no_such_thing_is_kept_and_the_others_are_stored(office: Office, row: object) -> None:
    good = list(office.list.serve(office.sandbox)[3])
    page = {"data": [row, *good[:14]], "meta": {"current_page": 1, "last_page": 1, "total": 15}}
    office.damage(
        "reply",
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
    nulled, left_out = office.ids()[:2]
    known = office.stored("status", left_out)
    office.damage("fields", accounts=(nulled,), set={"status": None})
    office.damage("fields", accounts=(left_out,), drop=("status",))

    assert office.poll().code == 0

    assert office.stored("status", nulled) is None
    assert office.stored("status", left_out) == known is not None


def test_f03_a_page_cap_is_read_by_cursor_or_removes_nothing(office: Office) -> None:
    office.poll()
    gone = office.ids()[0]
    office.take(gone)
    office.damage("status", status=422, from_page=4)

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
    gone = office.ids()[0]
    office.take(gone)
    office.damage("turn", page=2, workspace=1, body="cursor")
    ends_early = office.damage("meta", page=0, set={"next_cursor": None})

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
    office.change_some(percent=50)
    office.take(*office.ids()[:2], office.ids(2)[0])
    before = office.live()
    office.damage("status", status=503, page=3, workspace=1)

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


def test_f08_a_renamed_workspace_is_the_same_workspace(office: Office) -> None:
    office.poll()
    office.sandbox.world.rename(1, "  A New Name  ")

    discovered = office.run("workspaces", "discover", "--json")
    outcome = office.poll()

    assert discovered.code == 0
    assert discovered.counts == {"instances": 1, "workspaces_total": 3, "added": 0, "changed": 1, "vanished": 0}
    assert (outcome.counts["inserted"], outcome.counts["removed"]) == (0, 0)
    names = f"SELECT array_agg(DISTINCT workspace_name) FROM {office.list.table} WHERE bison_workspace_id = 1"
    assert office.one(names) == ["A New Name"]


def test_f21_an_empty_list_from_a_healthy_api_removes_nothing(office: Office) -> None:
    office.poll()
    before = office.live()
    office.damage("empty_list", workspace=1)

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
    ids = office.ids()
    office.take(*ids[:30])

    first, second = office.poll(), office.poll()
    held = office.live()[1]
    later = _an_hour_later(office)

    assert [first.code, second.code, later.code] == [8, 8, 0]
    assert held == set(ids)
    assert later.counts["removed"] == 30
    assert office.live() == office.truth()


def test_what_was_not_missing_at_the_first_look_is_not_confirmed_by_it(office: Office) -> None:
    office.poll()
    ids = office.ids()
    office.take(*ids[:30])
    office.poll()
    office.take(*ids[30:60])

    later = _an_hour_later(office)

    assert later.code == 8
    assert later.counts["removed"] == 30
    assert office.live()[1] == set(ids[30:])


def test_a_shrink_below_the_limit_is_believed_and_one_above_is_not(office: Office) -> None:
    office.poll()
    ids = office.ids()
    office.take(*ids[:18])
    at_the_limit = office.poll()
    small = office.ids(3)
    office.take(*small[:5])
    five_of_twenty = office.poll()
    office.take(*small[5:11])
    six_of_fifteen = office.poll()

    assert (at_the_limit.code, at_the_limit.counts["removed"]) == (0, 18)
    assert (five_of_twenty.code, five_of_twenty.counts["removed"]) == (0, 5)
    assert (six_of_fifteen.code, six_of_fifteen.counts["removed"]) == (8, 0)


def test_a_row_that_comes_back_is_restored(office: Office) -> None:
    office.poll()
    row_id = office.ids()[0]
    first_seen = office.stored("first_seen_at", row_id)
    row = office.take(row_id)
    office.poll()

    office.list.held(office.sandbox.world.workspaces[1]).put(row)
    outcome = office.poll()

    assert (outcome.counts["restored"], outcome.counts["inserted"]) == (1, 0)
    assert office.stored("ARRAY[removed_at, first_seen_at]", row_id) == [None, first_seen]


def test_no_delete_removes_nothing(office: Office) -> None:
    office.poll()
    gone = office.ids()[0]
    office.take(gone)

    outcome = office.poll("--no-delete")

    assert outcome.code == 0
    assert gone in office.live()[1]


def test_f26_what_changed_after_the_read_began_is_left_as_it_is(office: Office) -> None:
    office.poll()
    came, went = office.ids()[:2]
    office.take(came)
    later = f"now() + interval '1 hour' WHERE {office.list.id} ="
    office.conn.execute(f"UPDATE {office.list.table} SET first_seen_at = {later} {came}".encode())
    office.conn.execute(f"UPDATE {office.list.table} SET removed_at = {later} {went}".encode())

    outcome = office.poll()

    assert (outcome.code, outcome.counts["removed"], outcome.counts["restored"]) == (0, 0, 0)
    assert came in office.live()[1]
    assert went not in office.live()[1]


def test_what_is_held_back_or_leased_of_another_list_is_none_of_this_one(office: Office) -> None:
    office.poll()
    gone = office.ids()[:30]
    office.take(*gone)
    office.conn.execute(
        "INSERT INTO workspace_sync_state"
        " (bison_instance, bison_workspace_id, resource, shrink_pending_since, shrink_missing_ids)"
        " VALUES ('sim', 1, 'others', now() - interval '1 hour', %s)",
        [gone],
    )
    office.conn.execute(
        "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, heartbeat_at, expires_at)"
        " VALUES ('poll-others', 'sim', 1, gen_random_uuid(), 'elsewhere', 1, now(), now() + interval '1 hour')"
    )

    outcome = office.poll()

    assert (outcome.code, outcome.counts["removed"]) == (8, 0)
    assert set(gone) <= office.live()[1]
    held = "SELECT shrink_missing_ids FROM workspace_sync_state WHERE resource = %s AND bison_workspace_id = 1"
    assert sorted(office.one(held, office.list.noun)) == gone


def test_a_missing_counter_keeps_its_value_and_unknown_fields_are_kept(office: Office) -> None:
    office.poll()
    counter = office.list.counter
    row = office.list.held(office.sandbox.world.workspaces[1])[office.ids()[0]]
    office.change(row.id, **{counter: getattr(row, counter) + 5})
    office.damage(
        "fields",
        accounts=(row.id,),
        drop=(counter, "tags", "status"),
        set={"health": {"score": 9, "webhook_secret": "s3cr3t"}, "seen_at": "now", "nul": "a\u0000b"},
    )

    outcome = office.poll("-w", "1")

    assert outcome.code == 0
    assert office.stored(counter, row.id) == getattr(row, counter)
    assert office.stored("jsonb_array_length(tags)", row.id) == len(row.tags)
    assert office.stored("status", row.id) == row.status
    assert office.stored("extra", row.id) == {"health": {"score": 9}, "seen_at": "now", "nul": "a\ufffdb"}
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

    outcome = office.run(office.list.job)

    assert outcome.code == 4
    assert "mint-tokens" in outcome.stderr


def test_f25_an_html_page_with_status_200_is_tried_again_then_reported(office: Office) -> None:
    office.damage("html", workspace=1, page=1, times=1)
    recovered = office.poll("-w", "1", env={"BISONSYNC_POLLING__RETRY_ATTEMPTS": "2"})
    office.sandbox.clear_faults()
    office.damage("html", workspace=1, page=1)

    reported = office.poll("-w", "1")

    assert (recovered.code, recovered.counts["retries"]) == (0, 1)
    assert reported.code == 5
    assert "HTML" in reported.document["errors"][0]["message"]
    assert office.live()[1] == office.truth()[1]


def test_a_list_that_moves_while_it_is_read_is_read_again(office: Office) -> None:
    office.damage("shift", workspace=1, page=2, insert=1)

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


def test_numbers_as_strings_and_any_case_of_status_are_understood(office: Office) -> None:
    office.sandbox.add_fault("strings", path="/api/")
    office.damage("statuses", words=("CONNECTED", "connected"))
    office.sandbox.set_moods(identity_key="workspace", webhook_secret=True)

    outcome = office.poll()

    assert outcome.code == 0
    assert office.live() == office.truth()
    connected = f"SELECT count(*) FROM {office.list.table} WHERE lower(status) = 'connected'"
    assert office.one(connected) == 150


def test_listeners_hear_once_per_workspace_that_changed(office: Office) -> None:
    with psycopg.connect(office.dsn, autocommit=True) as listener:
        listener.execute("LISTEN bisonsync")
        office.poll()
        told = heard(listener)
        office.poll()
        again = heard(listener)

    assert sorted(note["workspace"] for note in told) == ["sim/1", "sim/2", "sim/3"]
    assert {(note["table"], note["kind"]) for note in told} == {(office.list.table, "changed")}
    assert again == []


def test_the_deadline_ends_the_run_and_keeps_what_is_committed(office: Office) -> None:
    office.damage("hang", workspace=1)

    outcome = office.poll("--deadline", "6s")

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
