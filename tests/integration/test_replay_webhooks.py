"""replay-webhooks by the real command: what is due and what is chosen, what fails alone, what is never applied."""

from __future__ import annotations

import signal
from datetime import datetime
from pathlib import Path

import cli
import psycopg
import pytest
from conftest import Connection
from faultproxy import FaultProxy, Victim, said_by
from receiving import INSTANCE_URL, INSTANCES, event
from replaying import Inbox, inbox

pytestmark = pytest.mark.stock

RETRIES = ["00:00:05", "00:05:00", "00:30:00", "02:00:00", "05:00:00", "10:00:00", "10:00:00", None]


@pytest.fixture
def box(db: str, conn: Connection) -> Inbox:
    return inbox(db, conn)


def test_takes_what_is_due_and_nothing_else(box: Inbox) -> None:
    due = [
        *box.put(event(1)),
        *box.put(event(2), next_attempt_at=datetime(2026, 1, 1).astimezone()),
        *box.put(event(3), status="failed", next_attempt_at=datetime(2026, 1, 1).astimezone()),
        *box.put(
            event(4, workspace=2),
            status="unknown_workspace",
            bison_workspace_id=2,
            next_attempt_at=datetime(2026, 1, 1).astimezone(),
        ),
    ]
    later = datetime(2999, 1, 1).astimezone()
    other = [
        *box.put(event(5), next_attempt_at=later),
        *box.put(event(6), status="failed", next_attempt_at=later),
        *box.put(event(7), status="failed"),
        *box.put(event(8), status="dead"),
        *box.put(event(9, workspace=99), status="unknown_workspace", bison_workspace_id=99, next_attempt_at=later),
        *box.put(event(10), status="mismatch"),
        *box.put(event(11), status="test"),
        *box.put(event(12), status="ignored"),
    ]

    outcome = box.replay()

    assert (outcome.code, outcome.counts["chosen"], outcome.counts["processed"]) == (0, 4, 4)
    assert box.tried() == set(due)
    assert box.counted == 4
    assert {box.statuses()[number] for number in due} == {"processed"}
    assert "processed" not in {box.statuses()[number] for number in other}


def test_nothing_to_do_is_a_success_that_says_nothing_with_quiet(box: Inbox) -> None:
    done = cli.run_cli(["replay-webhooks", "-q"], box.environment())

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert box.one("SELECT count(*) FROM email_sync_logs WHERE job = 'replay-webhooks' AND status = 'success'") == 1


def test_f24_what_came_46_times_counts_once(box: Inbox) -> None:
    box.put(*[event(1)] * 46)

    outcome = box.replay()

    assert (outcome.counts["processed"], outcome.counts["duplicate"]) == (1, 45)
    assert box.counted == 1


def test_an_unknown_workspace_is_applied_once_it_is_registered(box: Inbox) -> None:
    (number,) = box.put(event(1, workspace=99))
    assert box.replay().counts["unknown_workspace"] == 1
    assert box.replay().counts["chosen"] == 0
    box.conn.execute("UPDATE webhook_delivery_log SET next_attempt_at = now()")
    assert box.replay().counts["chosen"] == 0

    box.conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('sim', 99, 'New')"
    )
    outcome = box.replay()

    assert outcome.counts["processed"] == 1
    assert box.statuses() == {number: "processed"}
    assert box.counted == 1


def test_one_that_stays_due_is_tried_once_in_a_run(box: Inbox) -> None:
    # Its number is registered, but at another instance.
    elsewhere = event(1)
    elsewhere["event"]["instance_url"] = "https://elsewhere.example.com"
    past = datetime(2026, 1, 1).astimezone()
    box.put(elsewhere, status="unknown_workspace", bison_workspace_id=1, next_attempt_at=past)

    outcome = box.replay()

    assert (outcome.code, outcome.counts["unknown_workspace"]) == (0, 1)
    assert box.one("SELECT attempts FROM webhook_delivery_log") == 1
    assert box.one("SELECT next_attempt_at > now() + interval '59 minutes' FROM webhook_delivery_log")


def test_a_poison_delivery_fails_alone_and_by_the_schedule_until_it_is_dead(box: Inbox) -> None:
    box.put(*(event(number) for number in range(1, 21)))
    box.poison(7)

    seen: list[str | None] = []
    for turn in range(len(RETRIES)):
        outcome = box.replay()
        counts = outcome.counts
        assert outcome.code == 3
        assert (counts["processed"], counts["failed"], counts["dead"]) == (
            19 if turn == 0 else 0,
            int(turn < 7),
            int(turn == 7),
        )
        seen.append(
            box.one(
                "SELECT min(next_attempt_at - processed_at)::text FROM webhook_delivery_log"
                " WHERE status IN ('failed', 'dead')"
            )
        )
        assert box.replay().counts["chosen"] == 0
        box.conn.execute("UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE status = 'failed'")

    assert seen == RETRIES
    assert box.counted == 19
    assert box.one("SELECT error_message FROM webhook_delivery_log WHERE status = 'dead'")


def test_errors_name_deliveries_and_never_quote_what_is_in_them(box: Inbox) -> None:
    (number,) = box.put(event(7))
    box.poison(7)

    outcome = box.replay()
    done = cli.run_cli(["replay-webhooks", "--id", str(number)], box.environment())

    assert outcome.document["errors"] == [
        {
            "kind": "event_failed",
            "workspace": None,
            "message": f"1 delivery failed, to be tried again: {number}",
            "hint": f"see why: bisonsync inbox show {number}",
        }
    ]
    assert done.returncode == 3
    assert "somebody" not in outcome.stdout + outcome.stderr + done.stdout + done.stderr


def test_a_known_dead_letter_is_no_news_and_a_cured_one_is_applied(box: Inbox) -> None:
    (number,) = box.put(event(7), status="dead", attempts=8)
    box.poison(7)

    known = box.replay("--id", str(number))
    box.poison()
    cured = box.replay("--status", "dead", "--since", "2020-01-01")

    assert (known.code, known.counts["dead"], known.counts["dead_again"]) == (0, 0, 1)
    assert (cured.code, cured.counts["processed"], box.counted) == (0, 1, 1)


def test_stops_after_so_many_failures_exactly(box: Inbox) -> None:
    box.put(*(event(number) for number in range(1, 61)))
    box.poison(*range(10, 60, 5))

    outcome = box.replay("--max-failures", "3")

    assert (outcome.code, outcome.counts["failed"]) == (3, 3)
    assert outcome.kinds == {"event_failed", "max_failures"}
    assert box.tally()["failed"] == 3
    assert box.tally()["pending"] >= 60 - 24


CHOICES: list[tuple[str, set[int]]] = [
    ("--since 2026-03-01", {2, 3, 4, 5, 6}),
    ("--since 2026-03-01 --until 2026-03-02", {2, 3}),
    ("--since 2026-03-01T23:30 --until 2026-03-02T00:00:00+01:00", {3}),
    ("--since 2026-02-28T23:00:00Z --event Lead_Replied --event email_sent", {2, 3, 4}),
    ("--until 2026-03-01 --all", {1}),
    ("-w 2", {4, 6}),
    ("-w sim/2 --status dead", {6}),
    ("--instance sim --status processed", {1, 2, 3, 4}),
    ("--processor-older-than 1 --all", {3}),
    ("--status dead --status ignored --all", {5, 6}),
    ("--id 2 --id 5", {2, 5}),
    ("--id 2 --status dead --ids-file IDS", {6}),
]


def test_a_choice_means_what_it_says_in_the_reporting_zone(box: Inbox, tmp_path: Path) -> None:
    berlin = [
        ("2026-02-28 23:59:59.999", "email_sent", 1, "processed", 1),
        ("2026-03-01 00:00", "email_sent", 1, "processed", 1),
        ("2026-03-01 23:45", "lead_replied", 1, "processed", 0),
        ("2026-03-02 00:00", "lead_replied", 2, "processed", 1),
        ("2026-03-03 00:00", "tag_attached", 3, "ignored", None),
        ("2026-03-04 00:00", "email_bounced", 2, "dead", 1),
    ]
    for number, (received, kind, workspace, status, version) in enumerate(berlin, 1):
        box.conn.execute(
            "INSERT INTO webhook_delivery_log (id, received_at, event_type, bison_instance, bison_workspace_id, status,"
            " processor_version) VALUES (%s, %s::timestamp AT TIME ZONE 'Europe/Berlin', %s, 'sim', %s, %s, %s)",
            [number, received, kind, workspace, status, version],
        )
    (tmp_path / "ids").write_text("6\n\n 1 \n")
    env = {"BISONSYNC_REPORTING_TIMEZONE": "Europe/Berlin"}

    for text, wanted in CHOICES:
        arguments = [str(tmp_path / "ids") if word == "IDS" else word for word in text.split()]
        shown = box.replay("--dry-run", *arguments, env=env).document["chosen"]

        kinds = {(received[1], received[2], received[3]) for received in (berlin[number - 1] for number in wanted)}
        assert {(one["event_type"], int(one["workspace"][4:]), one["status"]) for one in shown} == kinds, text
        assert sum(one["deliveries"] for one in shown) == len(wanted), text


def test_exactly_what_is_chosen_is_tried(box: Inbox) -> None:
    _, second, third, _ = box.put(*(event(number) for number in range(1, 5)))

    assert box.replay("--id", str(second), "--id", str(third)).code == 0
    assert box.tried() == {second, third}


@pytest.mark.parametrize("choice", [["--status", "failed"], ["--event", "email_sent"], ["--until", "2026-03-01"]])
def test_a_choice_without_bound_is_refused_unless_all_is_meant(box: Inbox, choice: list[str]) -> None:
    box.put(event(1), status="failed", event_type="email_sent", received_at=datetime(2026, 2, 1).astimezone())

    refused = box.replay(*choice)
    assert box.tried() == set()
    meant = box.replay(*choice, "--all")

    assert (refused.code, refused.kinds) == (8, {"guard"})
    assert (meant.code, meant.counts["chosen"]) == (0, 1)


@pytest.mark.parametrize("status", ["mismatch", "test"])
def test_a_test_is_never_applied_and_a_mismatch_not_as_long_as_it_lasts(box: Inbox, status: str) -> None:
    (number,) = box.put(event(1), status=status, hook_instance="sim", hook_workspace_id=2)
    box.put(event(2))

    named = [box.replay("--status", status, "--all"), box.replay("--id", str(number))]
    passed = box.replay("--since", "2020-01-01")

    assert [(outcome.code, outcome.counts[status]) for outcome in named] == [(8, 1), (8, 1)]
    assert (passed.code, passed.counts["processed"], passed.counts[status]) == (0, 1, 1)
    assert box.statuses()[number] == status
    assert box.counted == 1


def test_a_mismatch_is_taken_up_by_itself_once_the_settings_know_its_host(box: Inbox) -> None:
    body = event(1)
    body["event"]["instance_url"] = "https://app.example.com"
    hook = {"status": "mismatch", "hook_instance": "sim", "hook_workspace_id": 1, "error_message": "of another host"}
    (number,) = box.put(body, **hook)

    before = box.replay()
    after = box.replay(env={"BISONSYNC_INSTANCES__SIM__FORMER_URLS": '["https://app.example.com/api"]'})

    assert (before.code, before.counts["chosen"]) == (0, 0)
    assert (after.code, after.counts["processed"], box.statuses()[number], box.counted) == (0, 1, "processed", 1)


def test_one_that_came_without_content_does_not_stay_pending(box: Inbox) -> None:
    (number,) = box.put("null")
    box.conn.execute("UPDATE webhook_delivery_log SET payload = NULL")

    first, second = box.replay(), box.replay()

    assert (first.code, first.counts["dead"], second.counts["chosen"]) == (3, 1, 0)
    assert box.statuses() == {number: "dead"}


def test_an_id_that_is_not_there_is_named(box: Inbox) -> None:
    (number,) = box.put(event(1))

    outcome = box.replay("--id", str(number), "--id", "4711")

    assert (outcome.code, outcome.kinds, outcome.counts["processed"]) == (3, {"not_found"}, 1)
    assert "4711" in outcome.document["errors"][0]["message"]


def test_a_dry_run_counts_and_writes_nothing(box: Inbox) -> None:
    box.put(event(1), event(2), event_type="email_sent", bison_instance="sim", bison_workspace_id=1)
    before = box.one("SELECT jsonb_agg(l ORDER BY id) FROM webhook_delivery_log AS l")

    outcome = box.replay("--dry-run")

    assert outcome.code == 0
    assert outcome.document["chosen"] == [
        {"status": "pending", "event_type": "email_sent", "workspace": "sim/1", "deliveries": 2, "pruned": 0}
    ]
    assert box.one("SELECT jsonb_agg(l ORDER BY id) FROM webhook_delivery_log AS l") == before
    assert box.one("SELECT count(*) FROM email_sync_logs") == 0


def test_takes_no_more_than_the_limit(box: Inbox) -> None:
    box.put(*(event(number) for number in range(1, 6)))

    assert box.replay("--limit", "2").counts["processed"] == 2
    assert box.tally() == {"processed": 2, "pending": 3}


def test_what_another_session_holds_or_was_pruned_is_left_out(box: Inbox) -> None:
    held, gone, free = box.put(event(1), event(2), event(3))
    box.conn.execute("UPDATE webhook_delivery_log SET payload = NULL, status = 'processed' WHERE id = %s", [gone])
    with psycopg.connect(box.dsn) as other:
        other.execute("SELECT FROM webhook_delivery_log WHERE id = %s FOR UPDATE", [held])
        outcome = box.replay("--all")

    assert (outcome.code, outcome.counts["skipped"]) == (0, 2)
    assert box.statuses() == {held: "pending", gone: "processed", free: "processed"}


def test_again_nothing_changes(box: Inbox) -> None:
    box.put(
        *(event(number) for number in range(1, 6)),
        event(6, kind="lead_unsubscribed"),
        event(7, kind="TAG_ATTACHED"),
        event(8, kind="EMAIL_ACCOUNT_DISCONNECTED"),
    )
    first = box.replay()
    before = box.effects()

    again = box.replay("--all")

    assert first.counts["processed"] == again.counts["processed"] == 8
    assert box.effects() == before


def test_brings_partitions_and_the_settings_of_the_rules_up_to_date(box: Inbox) -> None:
    day = box.one(
        "SELECT 'webhook_delivery_log_' || to_char(now() AT TIME ZONE 'UTC' + interval '2 days', 'YYYY_MM_DD')"
    )
    box.conn.execute(f"DROP TABLE {day}".encode())
    box.conn.execute("DELETE FROM bisonsync_private.instance_origins")
    env = {"BISONSYNC_REPORTING_TIMEZONE": "Europe/Berlin"}

    box.replay("--dry-run", env=env)
    assert box.one("SELECT count(*) FROM bisonsync_private.instance_origins") == 0
    assert box.one("SELECT to_regclass(%s) IS NULL", day)
    box.replay(env=env)

    assert box.one("SELECT base_url FROM bisonsync_private.instance_origins") == INSTANCE_URL
    assert box.one("SELECT reporting_timezone FROM bisonsync_private.webhook_settings") == "Europe/Berlin"
    assert not box.one("SELECT to_regclass(%s) IS NULL", day)


def test_f23_a_second_run_leaves_it_to_the_first_and_names_it(box: Inbox) -> None:
    box.put(event(1))
    box.conn.execute(
        "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, heartbeat_at, expires_at)"
        " VALUES ('replay-webhooks', '', 0, gen_random_uuid(), 'elsewhere', 4711, now(), now() + interval '1 hour')"
    )

    busy = box.replay()
    passed = box.replay("--skip-if-locked")

    assert (busy.code, passed.code, box.tried()) == (75, 0, set())
    assert "pid 4711 on elsewhere" in busy.document["errors"][0]["message"]


def test_a_stop_keeps_what_is_committed_and_closes_the_run(box: Inbox) -> None:
    box.put(*(event(number) for number in range(1, 6)))
    victim = Victim()
    with FaultProxy(box.dsn) as proxy:
        proxy.at("committed", said_by("webhooks", "process_deliveries"), victim.signal(signal.SIGTERM), nth=2)
        process = cli.start_cli(
            ["replay-webhooks", "--json", "--rate", "1"], box.environment(BISONSYNC_DATABASE_URL=proxy.dsn)
        )
        victim.is_(process)
        done = cli.finish(process)

    assert done.returncode == 143
    assert cli.document(done)["verdict"] == "stopped"
    assert box.tally() == {"processed": 2, "pending": 3}
    assert box.one("SELECT status FROM email_sync_logs") == "stopped"


WRONG = (
    "--status lost",
    "--since yesterday",
    "--since 2026-03-02 --until 2026-03-02",
    "--ids-file /nonexistent",
    "--limit 0",
    "--rate 0",
    "--from /nonexistent",
    "--from /dev/null --since 2026-03-02",
    "--from /dev/null -w 1",
    "--from /dev/null --all",
)


def test_what_makes_no_sense_is_wrong_usage() -> None:
    # Told before any database is asked: there is none here.
    env = cli.environment("postgresql:///nowhere?host=/nonexistent") | INSTANCES
    for wrong in WRONG:
        done = cli.run_cli(["replay-webhooks", *wrong.split()], env)

        assert done.returncode == 2, (wrong, done.stderr)
        assert "Traceback" not in done.stderr
