"""The ledger: open before the first request, closed however the run ends, and its counts are what was committed."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import cli
import pytest
from faultproxy import Conversation, Victim, said_by
from scene import CHANGES, Picture, Scene, assert_sums, end, scene

from bisonsync.clock import SystemClock
from bisonsync.errors import Stopped
from bisonsync.queries import sql_dir

WORLD: dict[str, Any] = {"workspaces": 3, "accounts": 60, "skew": (32, 16)}
SIGNALS = [pytest.param(signal.SIGINT, 130, id="INT"), pytest.param(signal.SIGTERM, 143, id="TERM")]
# No answer for so long is given up without a stop too.
GIVEN_UP_SECONDS = 30 + 5


@pytest.fixture
def stage(db: str) -> Iterator[Scene]:
    with scene(db, **WORLD) as made:
        # Nothing but what is tested ends a wait for the API.
        made.env["BISONSYNC_POLLING__READ_TIMEOUT"] = "10h"
        yield made


@pytest.fixture
def polled(stage: Scene) -> Scene:
    """A scene whose mirror is complete, and whose world has changed since."""
    assert stage.poll().returncode == 0
    stage.churn()
    return stage


def stop(process: subprocess.Popen[str], number: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Send a signal; the process ends, though what it waits for never comes."""
    process.send_signal(number)
    return cli.finish(process)


def assert_stopped(stage: Scene, done: subprocess.CompletedProcess[str], code: int) -> dict[str, Any]:
    """Cleanly: one object, one line, a closed row, free leases; the ledger's row."""
    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (code, "stopped")
    assert [error["kind"] for error in document["errors"]] == ["stopped"]
    name = "SIGINT" if code == 130 else "SIGTERM"
    assert done.stderr == f"error: stopped by {name} → what is committed stays; run it again\n"
    run = stage.ledger(document["run_id"])
    assert (run["status"], run["exit_code"]) == ("stopped", code)
    assert_sums(run)
    assert {name: run["counts"][name] for name in document["counts"]} == document["counts"]
    assert (stage.open_runs(), stage.held_leases()) == ([], 0)
    return run


def hits(stage: Scene) -> int:
    return sum(fault["hits"] for fault in stage.sandbox.summary()["faults"])


# Opened and closed


def test_the_row_is_there_before_the_first_request(stage: Scene) -> None:
    stage.sandbox.add_fault("hang", path="/api/")
    process = stage.start("--deadline", "1m", direct=True)
    try:
        cli.wait_until(lambda: hits(stage), "the first request")
        run = stage.ledger()
    finally:
        end(process)

    assert (run["status"], run["job"], run["pid"]) == ("running", "poll-accounts", process.pid)
    assert run["command"] == "poll-accounts --json --deadline 1m"
    assert run["finished_at"] is None


def test_a_dry_run_leaves_no_row_and_no_lease(stage: Scene) -> None:
    done = stage.poll("--dry-run")

    assert done.returncode == 0
    assert cli.document(done)["counts"]["inserted"] == len(stage.truth())
    tables = ("email_sync_logs", "email_sync_log_workspaces", "job_leases", "sender_emails_cache", "api_health_logs")
    for table in (*tables, "workspace_sync_state"):
        assert stage.one(f"SELECT count(*) FROM {table}") == 0, table


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("poll-accounts -w acme-typo", 4),
        ("poll-accounts -w 3", 4),
        ("poll-accounts --instance acme-typo", 4),
        ("pull-events -w acme-typo", 4),
        ("replay-webhooks -w acme-typo --status dead", 4),
        ("rebuild-counters -w acme-typo", 4),
        ("workspaces mint-tokens -w acme-typo", 4),
        ("webhooks ensure -w acme-typo", 4),
        ("snapshot-providers --date 2999-01-01", 2),
    ],
)
def test_a_run_refused_for_its_own_arguments_is_no_run_of_the_job(stage: Scene, command: str, code: int) -> None:
    stage.conn.execute("UPDATE client_registry SET is_active = false WHERE bison_workspace_id = 3")

    done = cli.run_cli([*command.split(), "--json"], stage.environment(direct=True))

    assert done.returncode == code
    assert cli.document(done)["errors"]
    assert stage.one("SELECT count(*) FROM email_sync_logs") == 0
    assert stage.held_leases() == 0


def test_f18_a_poll_without_an_active_workspace_is_a_failed_run_of_the_job(stage: Scene) -> None:
    stage.conn.execute("UPDATE client_registry SET is_active = false")

    assert stage.poll().returncode == 4
    assert stage.ledger()["status"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "covers"), [((), None), (("-w", "1"), []), (("--instance", "SIM"), ["sim"])], ids=str
)
def test_the_ledger_says_what_a_run_was_over(stage: Scene, arguments: tuple[str, ...], covers: object) -> None:
    assert stage.poll(*arguments).returncode == 0

    assert stage.one("SELECT covers FROM email_sync_logs") == covers


@pytest.mark.parametrize(
    ("command", "covers"),
    [
        ("poll-accounts --deadline 4m", None),
        ("poll-accounts -w 17 --allow-shrink", []),
        ("pull-events --workspace=17", []),
        ("poll-accounts --instance Sim --instance=other", ["other", "sim"]),
    ],
)
def test_older_rows_of_the_ledger_tell_what_they_were_over_by_their_arguments(
    stage: Scene, command: str, covers: object
) -> None:
    (migration,) = (sql_dir() / "migrations").glob("0011_*.sql")
    (backfill,) = [text for text in migration.read_text().split(";\n") if "UPDATE public.email_sync_logs" in text]
    stage.conn.execute(
        "INSERT INTO email_sync_logs (run_id, job, command) VALUES (gen_random_uuid(), 'a', %s)", [command]
    )

    stage.conn.execute(backfill.encode())

    assert stage.one("SELECT covers FROM email_sync_logs") == covers


def test_f05_the_counts_of_a_partial_run_are_those_of_its_parts(polled: Scene) -> None:
    before = polled.picture()
    polled.sandbox.add_fault("status", status=404, path="/api/sender-emails", workspace=2)

    done = polled.poll()

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (3, "partial")
    assert {name: document["counts"][name] for name in CHANGES} == before.counts_until(polled.picture())
    run = polled.ledger(document["run_id"])
    assert_sums(run)
    assert (run["status"], run["exit_code"], run["workspaces_failed"]) == ("partial", 3, ["sim/2"])
    assert run["workspaces"][2]["verdict"] == "failed"
    assert run["workspaces"][2]["committed_at"] is None
    assert "404" in run["workspaces"][2]["error"]["message"]
    requests = polled.one("SELECT sum(requests) FROM api_health_logs WHERE run_id = %s", document["run_id"])
    assert requests == document["counts"]["requests"]


def test_a_run_that_cannot_close_its_row_says_so_and_the_next_one_closes_it(polled: Scene) -> None:
    before = polled.picture()
    polled.proxy.at("statement", said_by("runs", "close_run"), Conversation.cut, nth=0)

    done = cli.finish(polled.start())

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (3, "partial")
    assert [error["kind"] for error in document["errors"]] == ["database_unavailable"]
    whole = before.after_reading(polled.truth())
    assert polled.picture() == whole
    assert polled.open_runs() == [document["run_id"]]
    assert polled.poll().returncode == 0
    run = polled.ledger(document["run_id"])
    assert (run["status"], run["lost"]) == ("failed", True)
    assert {name: run["counts"][name] for name in CHANGES} == before.counts_until(whole)


def test_a_lost_run_tells_which_of_its_workspaces_failed(polled: Scene) -> None:
    polled.sandbox.add_fault("status", status=404, path="/api/sender-emails", workspace=2)
    victim = Victim()
    polled.proxy.at("statement", said_by("runs", "close_run"), victim.kill)
    polled.start_victim(victim).communicate()
    polled.proxy.forget()
    polled.sandbox.clear_faults()
    lost = polled.open_runs()

    assert polled.poll().returncode == 0

    run = polled.ledger(lost[0])
    assert (run["lost"], run["workspaces_failed"]) == (True, ["sim/2"])
    assert_sums(run)


# Stopped


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_run_cleanly_though_a_request_hangs(polled: Scene, number: signal.Signals, code: int) -> None:
    before, whole = polled.picture(), polled.picture().after_reading(polled.truth())
    polled.sandbox.add_fault("hang", path="/api/sender-emails", workspace=1)
    process = polled.start(direct=True)
    committed = "SELECT count(*) FROM email_sync_log_workspaces WHERE run_id IN (SELECT holder FROM job_leases)"
    cli.wait_until(lambda: polled.one(committed) == 2, "two workspaces are done")

    run = assert_stopped(polled, stop(process, number), code)

    now = polled.picture()
    assert [now.of(n) for n in (1, 2, 3)] == [before.of(1), whole.of(2), whole.of(3)]
    assert {n: row["verdict"] for n, row in run["workspaces"].items()} == {1: "skipped", 2: "complete", 3: "complete"}
    assert run["workspaces_failed"] == []
    polled.sandbox.clear_faults()
    assert polled.poll().returncode == 0


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_run_of_which_everything_hangs(stage: Scene, number: signal.Signals, code: int) -> None:
    stage.sandbox.add_fault("hang", path="/api/")
    process = stage.start(direct=True)
    cli.wait_until(lambda: hits(stage) >= 3, "requests hang")

    assert_stopped(stage, stop(process, number), code)

    assert stage.picture() == Picture({}, frozenset())


def test_a_signal_ends_the_wait_before_a_retry(stage: Scene) -> None:
    stage.sandbox.add_fault("status", status=429, retry_after="60", path="/api/")
    process = stage.start(direct=True)
    cli.wait_until(lambda: hits(stage) >= 1, "a request is refused")

    assert_stopped(stage, stop(process, signal.SIGTERM), 143)


def test_a_signal_ends_the_wait_for_the_rate_budget(stage: Scene) -> None:
    process = stage.start(direct=True, BISONSYNC_INSTANCES__SIM__REQUESTS_PER_MINUTE="2")
    cli.wait_until(lambda: stage.sandbox.summary()["requests"]["total"] == 2, "the budget is spent")

    assert_stopped(stage, stop(process, signal.SIGTERM), 143)


def test_a_signal_ends_the_wait_for_leases(stage: Scene) -> None:
    with stage.sandbox.lock:
        first = stage.start(direct=True)
        cli.wait_until(lambda: stage.held_leases() == 3, "the first has its leases")
        process = stage.start("--lock-wait", "10m", direct=True)
        cli.wait_until(lambda: len(stage.open_runs()) == 2, "the second waits")
        done = stop(process, signal.SIGTERM)
    assert cli.finish(first).returncode == 0

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (143, "stopped")
    run = stage.ledger(document["run_id"])
    assert (run["status"], run["exit_code"]) == ("stopped", 143)


def test_a_stop_ends_a_sleep() -> None:
    clock = SystemClock()
    stopper = threading.Timer(0.05, clock.stop, [signal.SIGTERM])
    stopper.start()

    with pytest.raises(Stopped) as caught:
        clock.sleep(36_000)

    assert caught.value.signal_number == signal.SIGTERM
    clock.stop(signal.SIGINT)
    with pytest.raises(Stopped, match="SIGTERM"):
        clock.check()
    stopper.join()


def test_a_signal_ends_the_jitter_before_there_is_a_row(stage: Scene) -> None:
    process = cli.start_cli(["poll-accounts", "--jitter", "10h"], stage.environment(direct=True))
    handles = f"/proc/{process.pid}/status"
    cli.wait_until(lambda: catches_term(handles), "it handles signals")
    done = stop(process, signal.SIGTERM)

    assert (done.returncode, done.stdout) == (143, "")
    assert stage.one("SELECT count(*) FROM email_sync_logs") == 0


def catches_term(status: str) -> bool:
    with open(status) as lines:
        caught = next(line for line in lines if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))


def test_a_merge_under_way_may_end(polled: Scene) -> None:
    before, whole = polled.picture(), polled.picture().after_reading(polled.truth())
    victim = Victim()
    polled.proxy.at("statement", said_by("visits", "record_read"), victim.signal(signal.SIGTERM))

    process = polled.start_victim(victim, "-w", "1")
    done = cli.finish(process)

    run = assert_stopped(polled, done, 143)
    assert run["workspaces"][1]["verdict"] == "complete"
    assert [polled.picture().of(n) for n in (1, 2)] == [whole.of(1), before.of(2)]


def test_a_merge_that_hangs_is_cut_off(polled: Scene) -> None:
    before = polled.picture()
    rule = polled.proxy.at("statement", said_by("accounts", "upsert_accounts"), polled.proxy.hold)
    process = polled.start()
    cli.wait_until(rule.hit.is_set, "the merge hangs")

    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = cli.finish(process)

    # Two seconds of grace for what is under way, and some for closing the ledger, which hangs as well.
    assert time.monotonic() - began < GIVEN_UP_SECONDS
    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (143, "stopped")
    assert "Traceback" not in done.stderr
    polled.proxy.cut_all()
    assert polled.poll().returncode == 0
    assert polled.picture() == before.after_reading(polled.truth())
    assert polled.open_runs() == []


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)],
)
def test_a_second_signal_ends_the_run_at_once(polled: Scene, first: signal.Signals, second: signal.Signals) -> None:
    rule = polled.proxy.at("statement", said_by("accounts", "upsert_accounts"), polled.proxy.hold)
    process = polled.start()
    cli.wait_until(rule.hit.is_set, "the merge hangs")
    process.send_signal(first)
    # Two signals that arrive together are one to the kernel.
    cli.wait_until(lambda: not is_pending(process.pid, first), "the first has arrived")

    process.send_signal(second)
    done = cli.finish(process)

    # After one signal alone it would have said what it did.
    assert (done.returncode, done.stdout) == (128 + second, "")
    assert "Traceback" not in done.stderr
    polled.proxy.cut_all()
    polled.proxy.forget()
    assert polled.poll().returncode == 0
    assert polled.open_runs() == []


def is_pending(pid: int, number: signal.Signals) -> bool:
    with open(f"/proc/{pid}/status") as lines:
        pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask & 1 << (number - 1) for mask in pending)


def test_a_signal_ends_other_commands_as_well(stage: Scene) -> None:
    stage.sandbox.add_fault("hang", path="/api/workspaces")
    process = cli.start_cli(["workspaces", "discover", "--json"], stage.environment(direct=True))
    cli.wait_until(lambda: hits(stage), "a request hangs")

    assert_stopped(stage, stop(process, signal.SIGTERM), 143)
