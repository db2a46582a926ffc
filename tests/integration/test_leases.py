"""Who may write: two runs at once, runs that died, runs that stood still, by the real command line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import cli
import psycopg
import pytest
from faultproxy import Conversation, Victim, said_by
from scene import Scene, assert_sums, end, scene

from bisonsync.errors import LeaseLost
from bisonsync.keys import WorkspaceKey
from bisonsync.store import leases

WORLD: dict[str, Any] = {"workspaces": 3, "accounts": 60, "skew": (32, 16)}
KEY = WorkspaceKey("sim", 1)
LEASE_TTL = "BISONSYNC_POLLING__LEASE_TTL"
# Short enough to wait for its end, long enough for a busy machine to renew it in time.
TTL_SECONDS = 8.0


@pytest.fixture
def stage(db: str) -> Iterator[Scene]:
    with scene(db, **WORLD) as made:
        yield made


@contextmanager
def reading(
    stage: Scene, *arguments: str, workspace: int | None = None, **more: str
) -> Iterator[subprocess.Popen[str]]:
    """A poll that has its leases and waits for an answer of the API (about one workspace) that never comes."""
    number = stage.sandbox.add_fault("hang", path="/api/", workspace=workspace)
    process = stage.start(*arguments, direct=True, **more)
    try:
        cli.wait_until(lambda: hits(stage, number) or process.poll() is not None, "the poll reads")
        yield process
    finally:
        stage.sandbox.clear_faults(number)
        if process.stdout and not process.stdout.closed:
            end(process)


def hits(stage: Scene, number: int) -> int:
    return next(fault["hits"] for fault in stage.sandbox.summary()["faults"] if fault["id"] == number)


def take_all(stage: Scene, *, host: str, expires_in: int = 60) -> str:
    """Let a run on another host hold every lease; its id."""
    run_id = str(uuid.uuid4())
    stage.conn.execute(
        "INSERT INTO email_sync_logs (run_id, job, host, pid, process_key, status, started_at)"
        " VALUES (%s, 'poll-accounts', %s, 4711, 'another-boot/pid:[1]/4711/99', 'running', now() - interval '42 s')",
        (run_id, host),
    )
    for workspace in stage.workspaces:
        stage.conn.execute(
            "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, process_key, "
            " generation, heartbeat_at, expires_at)"
            " VALUES ('poll-accounts', %s, %s, %s, %s, 4711, 'another-boot/pid:[1]/4711/99', 7,"
            " now(), now() + make_interval(secs => %s))",
            (cli.INSTANCE, workspace, run_id, host, expires_in),
        )
    return run_id


# Two at once


def test_f23_of_two_runs_one_works_and_the_other_says_who(stage: Scene) -> None:
    with reading(stage) as first:
        second = stage.poll()
        first_run = stage.one("SELECT holder::text FROM job_leases LIMIT 1")

    document = cli.document(second)
    assert (second.returncode, document["verdict"]) == (75, "skipped")
    (error,) = document["errors"]
    assert error["kind"] == "lease_busy"
    for part in (f"pid {first.pid} on {socket.gethostname()}", f"run {first_run}, started ", "lease renewed "):
        assert part in error["message"]
    assert [(one["id"], one["verdict"]) for one in document["workspaces"]] == [(n, "skipped") for n in stage.workspaces]
    assert all(f"pid {first.pid}" in one["error"] for one in document["workspaces"])
    assert f"pid {first.pid}" in second.stderr
    run = stage.ledger(document["run_id"])
    assert (run["status"], run["exit_code"], run["workspaces_failed"]) == ("skipped", 75, [])
    assert {row["verdict"] for row in run["workspaces"].values()} == {"skipped"}
    assert stage.picture().live == {}


def test_f23_the_one_that_works_is_not_disturbed(stage: Scene) -> None:
    with stage.sandbox.lock:
        first = stage.start(direct=True)
        cli.wait_until(lambda: stage.held_leases() == 3, "the first has its leases")
        second = stage.poll()

    done = cli.finish(first)

    assert (second.returncode, done.returncode) == (75, 0)
    assert stage.picture().live == stage.truth()
    assert stage.held_leases() == 0


def test_f23_skip_if_locked_is_no_failure(stage: Scene) -> None:
    with reading(stage) as first:
        second = stage.poll("--skip-if-locked")

    document = cli.document(second)
    assert (second.returncode, document["verdict"]) == (0, "skipped")
    assert f"pid {first.pid}" in document["errors"][0]["message"]
    run = stage.ledger(document["run_id"])
    assert (run["status"], run["exit_code"]) == ("skipped", 0)


def test_f23_lock_wait_waits_until_the_other_has_ended(stage: Scene) -> None:
    with stage.sandbox.lock:
        first = stage.start(direct=True)
        cli.wait_until(lambda: stage.held_leases() == 3, "the first has its leases")
        second = stage.start("--lock-wait", "50s", direct=True)
        cli.wait_until(lambda: len(stage.open_runs()) == 2, "the second waits")

    assert cli.finish(first).returncode == 0
    done = cli.finish(second)

    assert done.returncode == 0
    assert cli.document(done)["counts"]["unchanged"] == len(stage.truth())


def test_f23_lock_wait_ends(stage: Scene) -> None:
    take_all(stage, host="elsewhere.example.com")

    assert stage.poll("--lock-wait", "1s").returncode == 75


def test_f23_a_busy_workspace_is_skipped_and_named_and_the_others_are_read(stage: Scene) -> None:
    with reading(stage, "-w", "1", workspace=1) as first:
        second = stage.poll()
        third = cli.run_cli(["poll-accounts"], stage.environment(direct=True))

    document = cli.document(second)
    assert (second.returncode, document["verdict"], document["errors"], second.stderr) == (0, "success", [], "")
    verdicts = {one["id"]: one["verdict"] for one in document["workspaces"]}
    assert verdicts == {1: "skipped", 2: "complete", 3: "complete"}
    (busy,) = (one for one in document["workspaces"] if one["id"] == 1)
    assert f"pid {first.pid} on {socket.gethostname()}" in busy["error"]
    assert (document["counts"]["workspaces_total"], document["counts"]["workspaces_ok"]) == (3, 2)
    assert document["counts"]["workspaces_failed"] == 0
    run = stage.ledger(document["run_id"])
    assert (run["status"], run["workspaces_failed"]) == ("success", [])
    assert run["workspaces"][1]["verdict"] == "skipped"
    assert f"pid {first.pid}" in run["workspaces"][1]["error"]["message"]
    assert run["workspaces"][1]["committed_at"] is None
    assert_sums(run)
    assert {key[0] for key in stage.picture().live} == {2, 3}
    assert (third.returncode, third.stderr, third.stdout.count("\n")) == (0, "", 1)
    assert f"skipped {cli.INSTANCE}/1, held by another run: pid {first.pid}" in third.stdout


def test_a_workspace_being_read_alone_is_busy_for_whoever_wants_it_alone(stage: Scene) -> None:
    with reading(stage, "-w", "1", workspace=1):
        second = stage.poll("-w", "1")
        third = stage.poll("-w", "2")

    assert (second.returncode, third.returncode) == (75, 0)


# Runs that died


def test_f23_leases_of_a_killed_run_of_this_host_are_taken_over_at_once(stage: Scene) -> None:
    with reading(stage) as first:
        first.kill()
        first.wait()
        lost = stage.ledger()["run_id"]
        assert stage.held_leases() == 3
    assert stage.one("SELECT min(expires_at) > now() + interval '10 s' FROM job_leases")

    second = stage.poll()

    assert (second.returncode, second.stderr) == (0, "")
    run = stage.ledger(lost)
    assert (run["status"], run["lost"], run["errors"][0]["kind"]) == ("failed", True, "lost")
    assert run["finished_at"] and run["duration_ms"] >= 0


def test_f23_whoever_waits_takes_over_from_a_killed_run_before_its_leases_end(stage: Scene) -> None:
    with reading(stage) as first:
        second = stage.start("--lock-wait", "50s", direct=True)
        cli.wait_until(lambda: len(stage.open_runs()) == 2, "the second waits")
        stage.sandbox.clear_faults()
        first.kill()
        first.wait()
        until = stage.one("SELECT min(expires_at) FROM job_leases")
        done = cli.finish(second)

    assert (done.returncode, done.stderr) == (0, "")
    assert stage.one("SELECT max(finished_at) FROM email_sync_logs") < until
    assert stage.picture().live == stage.truth()


def test_f23_leases_of_another_host_are_taken_over_only_when_they_expire(stage: Scene) -> None:
    other = take_all(stage, host="elsewhere.example.com")

    early = stage.poll()
    still_open = stage.open_runs()
    stage.expire_leases()
    late = stage.poll()

    assert early.returncode == 75
    assert "pid 4711 on elsewhere.example.com" in early.stderr
    assert f"run {other}, started 4" in early.stderr
    assert still_open == [other]
    assert late.returncode == 0
    assert stage.picture().live == stage.truth()
    run = stage.ledger(other)
    assert (run["status"], run["lost"]) == ("failed", True)


def test_a_run_that_is_alive_is_not_taken_for_lost(stage: Scene) -> None:
    with reading(stage, "-w", "1", workspace=1):
        run_id = stage.ledger()["run_id"]
        stage.conn.execute("UPDATE email_sync_logs SET started_at = now() - interval '1 day'")
        assert stage.poll().returncode == 0
        assert stage.open_runs() == [run_id]


def test_a_run_without_leases_is_not_taken_for_lost_while_its_process_lives(stage: Scene) -> None:
    number = stage.sandbox.add_fault("hang", path="/api/workspaces")
    process = cli.start_cli(["workspaces", "discover"], stage.environment(direct=True))
    try:
        cli.wait_until(lambda: hits(stage, number), "it asks")
        run_id = stage.ledger()["run_id"]
        stage.conn.execute("UPDATE email_sync_logs SET started_at = now() - interval '1 day'")

        assert stage.poll().returncode == 0
        assert stage.open_runs() == [run_id]
        process.kill()
        process.wait()
        assert stage.poll().returncode == 0
        assert stage.open_runs() == []
    finally:
        end(process)


@pytest.mark.parametrize(
    ("job", "age", "is_lost"),
    [
        pytest.param("poll-accounts", "10 s", False, id="waits for its first lease"),
        pytest.param("poll-accounts", "10 min", True, id="has none for long"),
        pytest.param("workspaces-discover", "10 min", False, id="needs none"),
        pytest.param("workspaces-discover", "2 h", True, id="needs none and is long past every deadline"),
    ],
)
def test_a_run_of_another_host_without_a_lease_is_lost_after_a_time(
    stage: Scene, job: str, age: str, is_lost: bool
) -> None:
    take_all(stage, host="elsewhere.example.com")
    stage.conn.execute("UPDATE job_leases SET holder = NULL")
    stage.conn.execute("UPDATE email_sync_logs SET job = %s, started_at = now() - %s::interval", (job, age))

    assert stage.poll().returncode == 0

    assert (stage.open_runs() == []) == is_lost


def test_a_process_is_known_by_more_than_its_number() -> None:
    mine = leases.process_key()
    boot, namespace, pid, started = mine.split("/", 3)

    assert leases.is_alive(mine, os.getpid()) is True
    assert leases.is_alive(f"{boot}/{namespace}/{pid}/{int(started) - 1}", os.getpid()) is False
    assert leases.is_alive(f"another-boot/{namespace}/{pid}/{started}", os.getpid()) is None
    assert leases.is_alive(f"{boot}/pid:[1]/{pid}/{started}", os.getpid()) is None
    assert leases.is_alive(None, os.getpid()) is None
    assert leases.is_alive("unknown/host/1", 1) is None


def test_a_process_that_ended_is_dead_also_before_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        key = leases.process_key(process.pid)
        assert leases.is_alive(key, process.pid) is True
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert leases.is_alive(key, process.pid) is False
    assert leases.is_alive(key, process.pid) is False


def test_a_process_that_only_cannot_be_seen_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    key = leases.process_key()
    monkeypatch.setattr(leases, "_started", lambda pid: None)

    assert leases.is_alive(key, os.getpid()) is None

    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError))
    assert leases.is_alive(key, os.getpid()) is None

    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(ProcessLookupError))
    assert leases.is_alive(key, os.getpid()) is False


# Runs that stood still


def assert_writes_nothing(stage: Scene, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Let a paused run go on: it says what happened and changes nothing; its document."""
    before, written = stage.picture(), last_write(stage)
    process.send_signal(signal.SIGCONT)
    done = cli.finish(process)

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (8, "guarded"), done.stderr
    assert {error["kind"] for error in document["errors"]} == {"lease_lost"}
    assert "ran out or was taken over" in done.stderr
    assert "Traceback" not in done.stderr
    assert (stage.picture(), last_write(stage)) == (before, written)
    run = stage.ledger(document["run_id"])
    assert (run["status"], run["exit_code"], run["lost"]) == ("guarded", 8, False)
    assert_sums(run)
    assert stage.open_runs() == []
    return document


def last_write(stage: Scene) -> list[tuple[Any, ...]]:
    """The newest change of each table that a poll writes beside the ledger."""
    return stage.conn.execute(
        "SELECT max(updated_at), max(xmin::text::bigint), (SELECT max(last_attempt_at) FROM workspace_sync_state)"
        " FROM sender_emails_cache"
    ).fetchall()


def assert_takes_over(stage: Scene, **more: str) -> None:
    """Another run reads what has changed meanwhile."""
    done = stage.poll(**more)
    assert (done.returncode, done.stderr) == (0, "")
    assert stage.picture().live == stage.truth()


def test_f23_a_run_paused_past_its_leases_while_it_reads_writes_nothing(stage: Scene) -> None:
    victim = Victim()
    rule = stage.proxy.at("committed", said_by("visits", "start_read"), victim.pause)
    process = stage.start_victim(victim)
    try:
        cli.wait_until(rule.hit.is_set, "it is paused")
        paused = stage.ledger()["run_id"]
        stage.expire_leases()
        stage.churn()
        assert_takes_over(stage)
        assert (stage.open_runs(), stage.ledger(paused)["lost"]) == ([], True)
        stage.churn()

        assert assert_writes_nothing(stage, process)["run_id"] == paused
    finally:
        end(process)


def test_f23_a_run_paused_past_its_leases_before_it_reads_asks_for_nothing(stage: Scene) -> None:
    victim = Victim()
    rule = stage.proxy.at("committed", said_by("leases", "take_leases"), victim.pause)
    process = stage.start_victim(victim)
    try:
        cli.wait_until(rule.hit.is_set, "it is paused")
        stage.expire_leases()
        assert_takes_over(stage)
        stage.sandbox.forget_requests()

        assert_writes_nothing(stage, process)
        assert stage.sandbox.summary()["requests"]["total"] == 0
    finally:
        end(process)


def test_f23_a_run_paused_past_its_leases_writes_nothing_though_nobody_took_over(stage: Scene) -> None:
    victim = Victim()
    rule = stage.proxy.at("committed", said_by("visits", "start_read"), victim.pause)
    process = stage.start_victim(victim, "-w", "1")
    try:
        cli.wait_until(rule.hit.is_set, "it is paused")
        stage.expire_leases()

        assert_writes_nothing(stage, process)
        assert stage.picture().live == {}
    finally:
        end(process)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("leases", "fence_lease", id="after the fence"),
        pytest.param("accounts", "upsert_accounts", id="after the rows"),
        pytest.param("visits", "record_result", id="after the counts"),
        pytest.param("leases", "commit_before_expiry", id="before the commit"),
    ],
)
def test_f23_a_run_paused_inside_its_transaction_writes_nothing(stage: Scene, family: str, name: str) -> None:
    victim = Victim()
    merging: list[int] = []

    def pause(conversation: Conversation) -> None:
        victim.pause(conversation)
        merging.append(conversation.backend_pid)

    stage.proxy.at("answered", said_by(family, name), pause)
    process = stage.start_victim(victim)
    try:
        cli.wait_until(lambda: merging, "it is paused")
        # The lease is locked until the server ends the transaction.
        is_alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        cli.wait_until(lambda: not stage.one(is_alive, *merging), "the server has ended it")
        # Another workspace's may stand still in the middle of a message, which no time limit of the server ends.
        stage.one(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'bisonsync%%' AND state = 'active' AND wait_event = 'ClientRead'"
        )
        stage.expire_leases()
        stage.churn()
        assert_takes_over(stage)
        stage.churn()

        assert_writes_nothing(stage, process)
    finally:
        end(process)


def test_a_transaction_stands_idle_no_longer_than_its_lease_lasts(db: str) -> None:
    idle = "SELECT extract(epoch FROM current_setting('idle_in_transaction_session_timeout')::interval)::float"

    def seconds(conn: psycopg.Connection[Any], ttl: float, limit: str) -> list[float]:
        lease = leases.take(conn, "poll-accounts", [KEY], run_id=run_id, ttl_seconds=ttl)[0]
        found: list[float] = []
        with conn.transaction():
            conn.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", (limit,))
            with leases.fenced(conn, lease):
                found += conn.execute(idle).fetchone() or ()
            found += conn.execute(idle).fetchone() or ()
        return found

    run_id = uuid.uuid4()
    with psycopg.connect(db, autocommit=True) as conn:
        short = [seconds(conn, 60, limit) for limit in ("5min", "0")]
        long = seconds(conn, 60, "5s")

    assert [fenced for fenced, _ in short] == [60, 60]
    assert all(0 < to_commit <= 60 - leases.COMMIT_MARGIN_MILLISECONDS / 1000 for _, to_commit in short)
    assert long == [5, 5]


@pytest.mark.parametrize("how", ["to its end", "by a return", "with another lease within"])
def test_f23_however_a_fenced_block_is_left_it_commits_nothing_once_its_lease_is_over(db: str, how: str) -> None:
    run_id = uuid.uuid4()

    def work(conn: Any, mine: leases.Lease, other: leases.Lease) -> None:
        with leases.fenced(conn, mine):
            conn.execute("UPDATE client_registry SET notes = 'written'")
            conn.execute("UPDATE job_leases SET expires_at = clock_timestamp() WHERE bison_workspace_id = 1")
            if how == "by a return":
                return
            if how == "with another lease within":
                enter(conn, other)

    with psycopg.connect(db, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('sim', 1, 'Acme')"
        )
        taken = leases.take(conn, "poll-accounts", [KEY, WorkspaceKey("sim", 2)], run_id=run_id, ttl_seconds=60)
        mine, other = sorted(taken, key=lambda lease: lease.key)
        with pytest.raises(LeaseLost), conn.transaction():
            work(conn, mine, other)

        assert conn.execute("SELECT notes FROM client_registry").fetchone() == (None,)


def test_f23_a_commit_that_arrives_after_the_lease_has_ended_is_refused(stage: Scene) -> None:
    """Also when the transaction has never stood idle for as long as a lease lasts."""
    victim = Victim()
    fenced: list[Any] = []
    is_under_way, may_arrive = threading.Event(), threading.Event()

    def dawdle(_: Conversation) -> None:
        fenced.append(stage.one("SELECT clock_timestamp()"))
        wait_for_clock(TTL_SECONDS / 2)

    def wait_for_clock(seconds: float) -> None:
        later = "SELECT clock_timestamp() > %s + make_interval(secs => %s)"
        cli.wait_until(lambda: stage.one(later, fenced[0], seconds), "time has passed")

    def delay(conversation: Conversation) -> None:
        victim.pause(conversation)
        is_under_way.set()
        may_arrive.wait(cli.PATIENCE)

    stage.proxy.at("answered", said_by("leases", "fence_lease"), dawdle)
    stage.proxy.at("commit", said_by("visits", "record_result"), delay)
    process = stage.start_victim(victim, "-w", "1", **{LEASE_TTL: f"{TTL_SECONDS:.0f}s"})
    try:
        cli.wait_until(is_under_way.is_set, "its COMMIT is under way")
        wait_for_clock(TTL_SECONDS)
        may_arrive.set()
        cli.wait_until(lambda: not open_transactions(stage), "the server has answered")

        assert stage.picture().live == {}
        assert_takes_over(stage)
        assert_writes_nothing(stage, process)
    finally:
        may_arrive.set()
        end(process)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("runs", "open_run", id="opening the ledger"),
        pytest.param("leases", "take_leases", id="taking leases"),
        pytest.param("budgets", "set_budget", id="taking budget"),
    ],
)
def test_f23_a_paused_run_does_not_hold_up_another(stage: Scene, family: str, name: str) -> None:
    """Whatever row it had locked: the server takes it away before the other gives up."""
    victim = Victim()
    rule = stage.proxy.at("answered", said_by(family, name), victim.pause)
    process = stage.start_victim(victim)
    try:
        cli.wait_until(rule.hit.is_set, "it is paused")
        stage.conn.execute("UPDATE job_leases SET expires_at = clock_timestamp() WHERE holder IS NOT NULL")

        assert_takes_over(stage)
    finally:
        end(process)


def test_a_run_that_only_stumbled_goes_on(stage: Scene) -> None:
    """The server ends a transaction that stands idle; while the lease lasts, the merge is simply done again."""
    victim = Victim()
    merging: list[int] = []

    def pause(conversation: Conversation) -> None:
        victim.pause(conversation)
        merging.append(conversation.backend_pid)

    stage.proxy.at("answered", said_by("accounts", "upsert_accounts"), pause)
    process = stage.start_victim(victim, **{LEASE_TTL: "10m"})
    try:
        cli.wait_until(lambda: merging, "it is paused")
        # Sessions of other workspaces may stand still in the middle of a message, which no time limit ends.
        is_alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        cli.wait_until(lambda: not stage.one(is_alive, *merging), "the server has ended its transaction")
        process.send_signal(signal.SIGCONT)
        done = cli.finish(process)
    finally:
        end(process)

    assert (done.returncode, done.stderr) == (0, "")
    assert stage.picture().live == stage.truth()
    assert_sums(stage.ledger())


def open_transactions(stage: Scene) -> int:
    return stage.one(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
        " AND application_name LIKE 'bisonsync%%'"
    )


def test_leases_last_as_long_as_a_slow_read(stage: Scene) -> None:
    with reading(stage, **{LEASE_TTL: f"{TTL_SECONDS:.0f}s"}) as process:
        began = stage.one("SELECT min(expires_at) FROM job_leases")
        later = "SELECT min(expires_at) > %s + interval '1 s' FROM job_leases"
        cli.wait_until(lambda: stage.one(later, began), "the leases are renewed")
        assert process.poll() is None


def test_f11_at_the_instant_of_its_end_a_lease_is_the_next_ones_alone(db: str) -> None:
    """Held in [taken, end), free from its end on: never by two, never by none."""
    end_of_lease = datetime(2026, 3, 1, 12, tzinfo=UTC)
    held: list[bool] = []
    renewed: list[bool] = []
    taken: list[bool] = []
    with psycopg.connect(db, autocommit=True) as conn:
        mine = leases.take(conn, "poll-accounts", [KEY], run_id=uuid.uuid4(), ttl_seconds=60)[0]
        conn.execute("UPDATE job_leases SET process_key = 'elsewhere/pid:[1]/1/1', expires_at = %s", (end_of_lease,))
        conn.execute("CREATE SCHEMA standing")
        conn.execute("SET search_path = standing, pg_catalog, public")
        for microseconds in (-1, 0, 1):
            now = (end_of_lease + timedelta(microseconds=microseconds)).isoformat()
            conn.execute(
                "CREATE OR REPLACE FUNCTION standing.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
                f" AS $$ SELECT timestamptz '{now}' $$".encode()
            )
            with conn.transaction(force_rollback=True):
                held.append(is_held(conn, mine, leases.require))
                assert is_held(conn, mine, enter) == held[-1]
            with conn.transaction(force_rollback=True):
                leases.renew(conn, mine.run_id, ttl_seconds=60)
                row = conn.execute("SELECT expires_at > %s FROM job_leases", (end_of_lease,)).fetchone()
                renewed.append(bool(row and row[0]))
            with conn.transaction(force_rollback=True):
                other = leases.take(conn, "poll-accounts", [KEY], run_id=uuid.uuid4(), ttl_seconds=60)
                taken.append(bool(other))

    assert held == renewed == [True, False, False]
    assert taken == [False, True, True]


def enter(conn: Any, lease: leases.Lease) -> None:
    with leases.fenced(conn, lease):
        pass


def is_held(conn: Any, lease: leases.Lease, look: Callable[[Any, leases.Lease], None]) -> bool:
    try:
        look(conn, lease)
    except LeaseLost:
        return False
    return True


def test_a_lease_whose_grant_was_committed_unheard_is_ours(db: str) -> None:
    run_id = uuid.uuid4()
    with psycopg.connect(db, autocommit=True) as conn:
        first = leases.take(conn, "poll-accounts", [KEY], run_id=run_id, ttl_seconds=60)
        again = leases.take(conn, "poll-accounts", [KEY], run_id=run_id, ttl_seconds=60)

        assert again[0].generation > first[0].generation
        assert leases.take(conn, "poll-accounts", [KEY], run_id=uuid.uuid4(), ttl_seconds=60) == []
