"""replay-webhooks --from: lines of every kind through the real command, once, again, and broken."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cli
import psycopg
import pytest
from conftest import Connection, database
from receiving import event
from replaying import Inbox, inbox, write_lines

pytestmark = pytest.mark.stock


@pytest.fixture
def box(db: str, conn: Connection) -> Inbox:
    return inbox(db, conn)


def recently(box: Inbox) -> str:
    return box.one("SELECT to_json(now() - interval '1 hour')")


def test_f24_what_stands_in_a_file_46_times_in_every_form_counts_once(box: Inbox, tmp_path: Path) -> None:
    one = event(1)
    turned = {
        "data": dict(reversed(one["data"].items())),
        "event": {**one["event"], "name": "Sent", "type": "email_sent"},
    }
    forms = [
        one,
        turned,
        {"data": one},
        {"payload": turned},
        {"id": 5, "uuid": "x", "payload": one, "created_at": recently(box)},
        {"id": 9, "received_at": recently(box), "status": "processed", "payload": one},
    ]
    file = write_lines(tmp_path / "46.jsonl", *(forms[number % len(forms)] for number in range(46)))

    outcome = box.replay("--from", str(file))

    assert (outcome.code, outcome.counts["processed"], outcome.counts["duplicate"]) == (0, 1, 45)
    assert outcome.document["kinds"] == {"payload": 32, "event row": 7, "log row": 7}
    assert box.counted == 1


def test_again_everything_is_a_duplicate_and_nothing_changes(box: Inbox, tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "again.jsonl",
        *(event(number) for number in range(1, 6)),
        event(6, kind="lead_interested", reply={"id": 6, "uuid": "r"}),
        # Without an id or a time of its own: told by its body, and by when the file was written.
        {**event(7, kind="TAG_ATTACHED"), "data": {"tag_id": 1, "taggable_id": 2}},
        {**event(8), "data": {"lead": {"id": 8}}},
    )
    first = box.replay("--from", str(file))
    before = box.effects()
    # As if a long time had passed: the log alone knows when.
    box.conn.execute("UPDATE webhook_delivery_log SET processed_at = processed_at - interval '2 days'")

    again = box.replay("--from", str(file))

    assert (first.counts["processed"], again.counts["processed"]) == (8, 0)
    assert (again.code, again.counts["duplicate"]) == (0, 8)
    assert box.effects() == before


def test_a_file_is_the_same_however_late_it_is_replayed(box: Inbox, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "old.jsonl", {**event(8), "data": {"lead": {"id": 8}}})
    written = box.one("SELECT extract(EPOCH FROM now() - interval '3 hours')::float")
    os.utime(file, (written, written))

    box.replay("--from", str(file))

    assert box.one("SELECT abs(extract(EPOCH FROM received_at) - %s) < 1 FROM webhook_delivery_log", written)
    assert box.one("SELECT occurred_at = received_at FROM webhook_delivery_log")


def test_broken_lines_are_named_and_the_others_stored(box: Inbox, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "broken.jsonl", event(1), "no json", "", event(2), b"\xff", {"odd": 1}, event(3))

    outcome = box.replay("--from", str(file))

    assert outcome.code == 3
    broken, dead = outcome.document["errors"][:2], outcome.document["errors"][2]
    assert [error["message"].partition(":")[0] for error in broken] == ["line 2", "line 5"]
    assert dead["kind"] == "event_dead"
    assert (outcome.counts["chosen"], outcome.counts["broken"]) == (6, 2)
    assert (outcome.counts["processed"], outcome.counts["dead"]) == (3, 1)
    assert box.tally() == {"processed": 3, "dead": 1}


def test_of_many_broken_lines_the_first_are_named(box: Inbox, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "wrong.csv", *(f"a,b,{number}" for number in range(150)))

    outcome = box.replay("--from", str(file))
    soon = box.replay("--from", str(file), "--max-failures", "5")

    assert (outcome.code, outcome.counts["broken"]) == (3, 150)
    assert len(outcome.document["errors"]) == 101
    assert outcome.document["errors"][-1]["message"] == "and 50 more broken lines"
    assert (soon.code, soon.counts["broken"], soon.kinds) == (3, 5, {"broken_line", "max_failures"})
    assert box.statuses() == {}


def test_a_poison_line_fails_alone(box: Inbox, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "poison.jsonl", *(event(number) for number in range(1, 31)))
    box.poison(7)

    outcome = box.replay("--from", str(file))

    assert (outcome.code, outcome.counts["processed"], outcome.counts["failed"]) == (3, 29, 1)
    assert "somebody" not in outcome.stdout + outcome.stderr
    assert box.counted == 29


def test_stops_after_so_many_failures_exactly_and_stores_no_more(box: Inbox, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "poison.jsonl", *(event(number) for number in range(1, 31)))
    box.poison(5, 6, 7, 20)

    outcome = box.replay("--from", str(file), "--max-failures", "2")

    assert (outcome.code, outcome.kinds) == (3, {"event_failed", "max_failures"})
    assert (box.tally()["failed"], box.one("SELECT count(*) < 20 FROM webhook_delivery_log")) == (2, True)


def test_a_mismatch_is_judged_again_by_whose_address_it_came_to(box: Inbox, tmp_path: Path) -> None:
    row = {"received_at": recently(box), "status": "mismatch", "payload": event(1, workspace=2)}
    file = write_lines(tmp_path / "log.jsonl", {**row, "hook_instance": "sim", "hook_workspace_id": 2}, row)

    outcome = box.replay("--from", str(file))

    # Of the second nobody knows whose address it came to.
    assert (outcome.counts["processed"], outcome.counts["mismatch"], box.counted) == (1, 1, 1)


def test_a_hook_still_tells_a_mismatch(box: Inbox, tmp_path: Path) -> None:
    row = {"received_at": recently(box), "source": "receiver", "hook_instance": "sim", "hook_workspace_id": 2}
    file = write_lines(
        tmp_path / "log.jsonl",
        {**row, "status": "mismatch", "payload": event(1, workspace=1)},
        {**row, "status": "processed", "payload": event(2, workspace=1)},
        {**row, "status": "test", "payload": event(3, workspace=2)},
        {**row, "status": "processed", "payload": event(4, workspace=2)},
    )

    outcome = box.replay("--from", str(file))

    assert (outcome.code, outcome.counts["mismatch"], outcome.counts["test"], outcome.counts["processed"]) == (
        0,
        2,
        1,
        1,
    )
    assert box.counted == 1


def test_an_exported_log_makes_the_same_numbers_in_another_database(
    box: Inbox, tmp_path: Path, server: psycopg.Connection[Any], server_dsn: str, template: str
) -> None:
    box.put(*(event(number) for number in range(1, 8)), event(3), event(9, kind="lead_unsubscribed", workspace=3))
    box.replay()
    box.conn.execute("SELECT increment_metric('Workspace 2', 'bounces_mtd', 4)")
    packed = tmp_path / "inbox.jsonl.gz"
    rows = box.conn.execute("SELECT row_to_json(l)::text FROM webhook_delivery_log AS l").fetchall()
    packed.write_bytes(gzip.compress("\n".join(row[0] for row in rows).encode()))
    counters = "SELECT jsonb_agg(to_jsonb(m) - 'updated_at' ORDER BY m::text) FROM client_metrics AS m"

    with database(server, server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        other = inbox(dsn, conn)
        outcome = other.replay("--from", str(packed))

        assert (outcome.code, outcome.document["kinds"]) == (0, {"log row": 10})
        assert other.one(counters) == box.one(counters)
        assert other.one("SELECT sum(bounced_mtd) FROM client_metrics") == 4


def test_a_dry_run_reads_the_file_and_writes_nothing(box: Inbox, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "dry.jsonl", event(1), "no json", event(2))

    outcome = box.replay("--from", str(file), "--dry-run")

    assert (outcome.code, outcome.counts["chosen"], outcome.counts["broken"]) == (3, 3, 1)
    assert outcome.document["kinds"] == {"payload": 2}
    assert (box.statuses(), box.one("SELECT count(*) FROM email_sync_logs")) == ({}, 0)


def test_lines_may_come_by_stdin_and_a_silent_pipe_can_be_stopped(box: Inbox) -> None:
    command = [sys.executable, "-m", "bisonsync", "replay-webhooks", "--json", "--from", "-", "--limit", "3"]
    process = subprocess.Popen(
        command, env=box.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(json.dumps(event(number)).encode() + b"\n" for number in range(1, 4)))
    process.stdin.flush()
    # After its third line it does not wait for more.
    out, _ = process.communicate(timeout=cli.PATIENCE)
    assert (process.returncode, json.loads(out)["counts"]["processed"]) == (0, 3)

    silent = subprocess.Popen(
        command, env=box.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    leased = "SELECT count(*) FROM job_leases WHERE holder IS NOT NULL"
    cli.wait_until(lambda: box.one(leased), "it holds its lease")
    silent.send_signal(signal.SIGTERM)
    # Its stdin stays open until it is gone.
    silent.wait(cli.PATIENCE)
    out, err = silent.communicate(timeout=cli.PATIENCE)
    assert (silent.returncode, json.loads(out)["verdict"]) == (143, "stopped"), err
