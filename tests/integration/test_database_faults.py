"""Postgres that is locked, gone, restarted, cut off, silent or full: bounded waits, clear errors, whole workspaces."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cli
import psycopg
import pytest
from faultproxy import Conversation, FaultProxy, said_by
from scene import CHANGES, Picture, Scene, assert_sums, scene

from bisonsync import embedded
from bisonsync.clock import SystemClock
from bisonsync.errors import DatabaseError, DatabaseUnavailable
from bisonsync.store import db as store_db
from bisonsync.store import migrations
from bisonsync.store.db import Database

WORLD: dict[str, Any] = {"workspaces": 3, "accounts": 60, "skew": (32, 16)}
# What is given up at once, or at the begin of a run, does not wait as long as an outage is waited for in its middle.
OUTAGE_SECONDS = 45.0


@pytest.fixture
def stage(db: str) -> Iterator[Scene]:
    with scene(db, **WORLD) as made:
        yield made


@pytest.fixture
def polled(stage: Scene) -> Scene:
    """A scene whose mirror is complete, and whose world has changed since."""
    assert stage.poll().returncode == 0
    stage.churn()
    return stage


@contextmanager
def locking(stage: Scene, statement: str) -> Iterator[int]:
    """Another session keeps what a statement locks; its process id."""
    with psycopg.connect(stage.dsn, application_name="somebody's psql") as other:
        other.execute(statement.encode())
        yield other.info.backend_pid
        other.rollback()


def assert_one_line(stderr: str) -> None:
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr


def assert_whole(stage: Scene, before: Picture, document: dict[str, Any]) -> None:
    """The mirror is the truth, and the counts in JSON, ledger and table are the same."""
    now = stage.picture()
    assert now == before.after_reading(stage.truth())
    assert {name: document["counts"][name] for name in CHANGES} == before.counts_until(now)
    run = stage.ledger(document["run_id"])
    assert run["status"] == document["verdict"]
    assert {name: run["counts"][name] for name in document["counts"]} == document["counts"]
    assert_sums(run)
    assert (stage.open_runs(), stage.held_leases()) == ([], 0)


# Locks


def test_f17_a_locked_table_is_waited_for_in_bounds_and_its_holder_named(polled: Scene) -> None:
    before = polled.picture()
    with locking(polled, "LOCK TABLE sender_emails_cache IN SHARE MODE") as pid:
        done = polled.poll()

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (6, "failed")
    assert {error["kind"] for error in document["errors"]} == {"database"}
    for error in document["errors"]:
        said = error["message"]
        assert f"timed out waiting for a lock held by pid {pid} (user {polled.conn.info.user} at " in said
        assert re.search(r"calls itself \"somebody's psql\", idle in transaction for \d+ s, since [\d: -]+ UTC\)", said)
        assert "pg_terminate_backend" in error["hint"]
    assert polled.picture() == before
    assert polled.open_runs() == []
    assert polled.poll().returncode == 0
    assert polled.picture() == before.after_reading(polled.truth())


def test_f17_a_locked_row_stops_its_own_workspace_alone(polled: Scene) -> None:
    before = polled.picture()
    changed = next(key for key, row in polled.truth().items() if key[0] == 1 and before.live.get(key, row) != row)
    row = f"SELECT FROM sender_emails_cache WHERE bison_workspace_id = 1 AND bison_account_id = {changed[1]} FOR UPDATE"
    with locking(polled, row) as pid:
        done = polled.poll()

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (3, "partial")
    (error,) = document["errors"]
    assert (error["workspace"], error["kind"]) == ("sim/1", "database")
    assert f"pid {pid} " in error["message"]
    now, whole = polled.picture(), before.after_reading(polled.truth())
    assert [now.of(n) for n in (1, 2, 3)] == [before.of(1), whole.of(2), whole.of(3)]
    run = polled.ledger()
    assert run["workspaces_failed"] == ["sim/1"]
    assert_sums(run)


@pytest.mark.parametrize("table", ["job_leases", "email_sync_logs", "rate_budgets"])
def test_f17_a_locked_table_of_the_bookkeeping_ends_the_run(polled: Scene, table: str) -> None:
    before = polled.picture()
    with locking(polled, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE") as pid:
        done = polled.poll()

    assert done.returncode == 6
    assert f"pid {pid} " in done.stderr
    assert polled.picture() == before
    assert polled.poll().returncode == 0
    assert (polled.open_runs(), polled.held_leases()) == ([], 0)


def test_f17_a_locked_lease_row_stops_its_own_workspace_alone(polled: Scene) -> None:
    before = polled.picture()
    with locking(polled, "SELECT FROM job_leases WHERE bison_workspace_id = 2 FOR UPDATE") as pid:
        done = polled.poll()

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (3, "partial")
    (error,) = document["errors"]
    assert (error["workspace"], error["kind"]) == ("sim/2", "database")
    assert f"pid {pid} " in error["message"]
    assert document["counts"]["workspaces_failed"] == 1
    now, whole = polled.picture(), before.after_reading(polled.truth())
    assert [now.of(n) for n in (1, 2, 3)] == [whole.of(1), before.of(2), whole.of(3)]
    assert polled.ledger()["workspaces"][2]["verdict"] == "failed"


def test_f17_when_every_lease_row_is_locked_nothing_is_done(polled: Scene) -> None:
    with locking(polled, "SELECT FROM job_leases FOR UPDATE") as pid:
        done = polled.poll()

    assert done.returncode == 6
    assert f"pid {pid} " in done.stderr
    assert polled.ledger()["status"] == "failed"


def test_f17_a_lock_that_comes_free_in_time_costs_only_time(polled: Scene) -> None:
    before = polled.picture()
    with locking(polled, "LOCK TABLE sender_emails_cache IN SHARE MODE"):
        process = polled.start(direct=True)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'sender_emails_cache'::regclass"
        cli.wait_until(lambda: polled.one(waiting), "the poll waits")
    done = cli.finish(process)

    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(polled, before, cli.document(done))


def test_f17_a_lock_kept_on_the_leases_does_not_keep_the_ledger_open(polled: Scene) -> None:
    number = polled.sandbox.add_fault("slow", seconds=1.5, path="/api/sender-emails", workspace=1, times=1)
    process = polled.start("-w", "1", direct=True)
    cli.wait_until(
        lambda: any(f["hits"] for f in polled.sandbox.summary()["faults"] if f["id"] == number), "the poll reads"
    )
    with locking(polled, "SELECT FROM job_leases FOR UPDATE") as pid:
        done = cli.finish(process)

        assert done.returncode == 6
        assert f"pid {pid} " in done.stderr
        assert polled.open_runs() == []
    assert polled.poll().returncode == 0


def test_f17_what_a_role_may_not_see_of_the_holder_is_said_to_be_hidden(stage: Scene) -> None:
    role = f"owner_{uuid.uuid4().hex[:12]}"
    stage.conn.execute(f"CREATE ROLE {role} LOGIN; CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO {role}".encode())
    dsn = psycopg.conninfo.make_conninfo(stage.dsn, user=role)
    database = Database(dsn, application_name="bisonsync test", clock=SystemClock())
    try:
        with locking(stage, "LOCK TABLE theirs") as pid, pytest.raises(DatabaseError) as caught:
            database.run(lambda conn: conn.execute("LOCK TABLE theirs"), lock_timeout_seconds=0.5, lock_attempts=1)
    finally:
        database.close()
        stage.conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())

    user = stage.conn.info.user
    assert f'held by pid {pid} (user {user}, calls itself "somebody\'s psql", address, state and' in str(caught.value)
    assert "hidden from this role" in str(caught.value)


def test_a_deadlock_is_not_told_as_a_lock_that_somebody_holds(db: str) -> None:
    database = Database(db, application_name="bisonsync test", clock=SystemClock())

    def work(_: store_db.Connection) -> None:
        raise psycopg.errors.DeadlockDetected("deadlock detected")

    with pytest.raises(DatabaseError) as caught:
        database.run(work, lock_attempts=1)

    assert "gave way to other sessions" in caught.value.message
    assert "pg_terminate_backend" not in caught.value.hint


# Restarts


@pytest.fixture
def private(session_folder: Path) -> Iterator[Path]:
    """The folder of a server of this test's own."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir=session_folder))
    folder.chmod(0o755)
    yield folder / "postgres"
    embedded.stop(folder / "postgres")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("visits", "start_read", id="before the read"),
        pytest.param("accounts", "upsert_accounts", id="in mid-merge"),
        pytest.param("visits", "record_result", id="before the commit"),
    ],
)
def test_a_restart_of_postgres_costs_a_retry(private: Path, family: str, name: str) -> None:
    dsn = embedded.start(private, server_options={"fsync": "off"})
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrations.apply_all(conn)

    def restart(_: Conversation) -> None:
        embedded.stop(private)
        embedded.start(private, server_options={"fsync": "off"})

    with scene(dsn, **WORLD) as stage:
        rule = stage.proxy.at("statement", said_by(family, name), restart)
        done = cli.finish(stage.start())
        assert rule.hit.is_set()
    with scene(dsn, **WORLD) as stage:
        assert (done.returncode, done.stderr) == (0, "")
        assert_whole(stage, Picture({}, frozenset()), cli.document(done))


def test_every_session_ended_by_an_administrator_costs_a_retry(polled: Scene) -> None:
    before = polled.picture()

    def end_all(_: Conversation) -> None:
        polled.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    for nth in (1, 2):
        polled.proxy.at("statement", said_by("visits", "record_read"), end_all, nth=nth)
    done = cli.finish(polled.start())

    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(polled, before, cli.document(done))


# Cuts and silence


@pytest.mark.parametrize("part", range(3))
def test_a_connection_cut_after_any_number_of_bytes_costs_a_retry(polled: Scene, part: int) -> None:
    for turn in range(6):
        before = polled.picture()
        polled.proxy.allow_bytes(300 + 2_600 * (3 * turn + part))

        done = cli.finish(polled.start())

        assert (done.returncode, done.stderr) == (0, "")
        assert_whole(polled, before, cli.document(done))
        polled.proxy.forget()
        polled.churn()


@pytest.mark.parametrize("when", ["commit", "committed"])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("runs", "open_run"),
        ("leases", "take_leases"),
        ("budgets", "set_budget"),
        ("visits", "start_read"),
        ("visits", "record_result"),
        ("runs", "close_run"),
    ],
)
def test_f05_a_commit_whose_answer_is_lost_counts_once(polled: Scene, when: Any, family: str, name: str) -> None:
    before = polled.picture()
    rule = polled.proxy.at(when, said_by(family, name), Conversation.cut)

    done = cli.finish(polled.start())

    assert rule.hit.is_set()
    assert (done.returncode, done.stderr) == (0, "")
    document = cli.document(done)
    assert_whole(polled, before, document)
    requests = polled.one("SELECT sum(requests) FROM api_health_logs WHERE run_id = %s", document["run_id"])
    assert requests == document["counts"]["requests"]


def test_f05_a_commit_whose_answer_never_comes_counts_in_the_ledger(polled: Scene) -> None:
    """The merge is given up without knowing; the note of its failure then finds it done."""
    before = polled.picture()

    def cut_all_tries(conversation: Conversation) -> None:
        conversation.cut()
        for nth in range(1, 6):
            polled.proxy.at("statement", said_by("leases", "fence_lease"), Conversation.cut, nth=nth)

    polled.proxy.at("committed", said_by("visits", "record_result"), cut_all_tries)
    done = cli.finish(polled.start("-w", "1"))

    document = cli.document(done)
    assert done.returncode == 6
    now, whole = polled.picture(), before.after_reading(polled.truth())
    assert now.of(1) == whole.of(1)
    run = polled.ledger(document["run_id"])
    assert_sums(run)
    assert run["workspaces"][1]["verdict"] == "complete"
    assert {name: run["counts"][name] for name in CHANGES} == before.counts_until(now)
    assert {name: document["counts"][name] for name in CHANGES} == before.counts_until(now)


def test_a_connection_cut_again_and_again_is_given_up(polled: Scene) -> None:
    """What breaks each time is given up long before an outage would be, though other work succeeds."""
    before, whole = polled.picture(), polled.picture().after_reading(polled.truth())
    merged: list[Conversation] = []

    def spare_the_first(conversation: Conversation) -> None:
        if merged:
            conversation.cut()
        merged.append(conversation)

    polled.proxy.at("statement", said_by("accounts", "upsert_accounts"), spare_the_first, nth=0)
    done = cli.finish(polled.start())

    document = cli.document(done)
    assert (done.returncode, document["verdict"]) == (3, "partial")
    assert [error["kind"] for error in document["errors"]] == ["database_unavailable"] * 2
    assert len(merged) == 1 + 2 * (store_db._BREAKS_TOLERATED + 1)
    now = polled.picture()
    assert sorted(now.of(n) == whole.of(n) for n in (1, 2, 3)) == [False, False, True]
    assert all(now.of(n) in (before.of(n), whole.of(n)) for n in (1, 2, 3))
    assert_sums(polled.ledger())


def test_silence_of_the_database_ends_soon_after_the_deadline(polled: Scene) -> None:
    before = polled.picture()
    rule = polled.proxy.at("statement", said_by("accounts", "upsert_accounts"), polled.proxy.hold)

    done = cli.finish(polled.start("--deadline", "4s"))

    assert rule.hit.is_set()
    document = cli.document(done)
    assert done.returncode == 6
    assert any("and the run's deadline has come" in error["message"] for error in document["errors"])
    assert "Traceback" not in done.stderr
    polled.proxy.cut_all()
    after = polled.poll()
    assert (after.returncode, after.stderr) == (0, "")
    assert polled.picture() == before.after_reading(polled.truth())
    assert polled.open_runs() == []


def test_silence_from_the_first_word_is_an_unavailable_database(polled: Scene) -> None:
    polled.proxy.hold()

    began = time.monotonic()
    done = cli.finish(polled.start())

    assert done.returncode == 6
    assert time.monotonic() - began < OUTAGE_SECONDS
    assert_one_line(done.stderr)


def test_silence_is_given_up_without_a_deadline_too(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_db, "_ANSWER_GRACE_SECONDS", 0.3)
    with FaultProxy(db) as proxy:
        database = Database(proxy.dsn, application_name="bisonsync test", clock=SystemClock(), first_connect_seconds=0)
        proxy.at("statement", "SELECT 1", proxy.hold)

        with pytest.raises(DatabaseUnavailable, match="no answer for"):
            database.run(lambda conn: conn.execute("SELECT 1"), statement_timeout_seconds=0.2)


# Statements


def test_a_statement_that_takes_too_long_is_not_tried_again(db: str) -> None:
    database = Database(db, application_name="bisonsync test", clock=SystemClock())
    tried: list[int] = []

    def work(conn: store_db.Connection) -> None:
        tried.append(1)
        conn.execute("SELECT pg_sleep(60)")

    with pytest.raises(DatabaseError, match="statement timeout") as caught:
        database.run(work, statement_timeout_seconds=0.1)
    database.close()

    assert tried == [1]
    assert caught.value.exit_code == 6


def test_a_transaction_that_was_ended_for_standing_idle_is_done_again(db: str) -> None:
    database = Database(db, application_name="bisonsync test", clock=SystemClock())
    stood: list[int] = []

    def work(conn: store_db.Connection) -> None:
        if not stood:
            stood.append(conn.info.backend_pid)
            alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            with psycopg.connect(db, autocommit=True) as other:
                cli.wait_until(lambda: other.execute(alive, stood).fetchone() == (0,), "the server has ended it")
        conn.execute("SELECT 1")

    database.run(work, idle_timeout_seconds=0.1)
    database.close()

    assert stood


def test_a_cancelled_statement_stops_its_own_workspace_alone(polled: Scene) -> None:
    before = polled.picture()
    polled.conn.execute(
        "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(100); RETURN NEW; END'"
    )
    polled.conn.execute(
        "CREATE TRIGGER sleep BEFORE UPDATE ON sender_emails_cache FOR EACH ROW"
        " WHEN (NEW.bison_workspace_id = 2) EXECUTE FUNCTION sleep()"
    )
    process = polled.start(direct=True)
    sleeping = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
        " WHERE wait_event = 'PgSleep' AND datname = current_database()"
    )
    cli.wait_until(lambda: polled.one(sleeping), "a statement sleeps")
    done = cli.finish(process)

    document = cli.document(done)
    assert done.returncode == 3
    assert [error["workspace"] for error in document["errors"]] == ["sim/2"]
    assert "canceling statement" in document["errors"][0]["message"]
    now, whole = polled.picture(), before.after_reading(polled.truth())
    assert [now.of(n) for n in (1, 2, 3)] == [whole.of(1), before.of(2), whole.of(3)]
    assert_sums(polled.ledger())


def test_a_database_that_can_only_be_read_says_so(polled: Scene) -> None:
    before = polled.picture()
    freeze(polled)

    done = polled.poll()

    assert done.returncode == 6
    assert_one_line(done.stderr)
    assert "read-only transaction" in done.stderr
    for cause in ("primary", "full disk", "setting of role or database", "bisonsync health database"):
        assert cause in done.stderr
    assert polled.picture() == before


def freeze(stage: Scene) -> None:
    name = psycopg.conninfo.conninfo_to_dict(stage.dsn)["dbname"]
    stage.conn.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())


WRITERS = [
    *("pull-events", "snapshot-providers", "replay-webhooks", "rebuild-counters", "prune", "migrate"),
    "workspaces disable 1",
]
READERS = ["runs list", "rebuild-counters --diff-only"]


def test_no_command_says_success_over_a_database_that_it_cannot_write(polled: Scene) -> None:
    """What only reads goes on. The write is ours to be refused: the freeze itself is not undone."""
    freeze(polled)

    codes = {line: cli.run_cli(line.split(), polled.environment(direct=True)).returncode for line in WRITERS + READERS}

    assert codes == dict.fromkeys(WRITERS, 6) | dict.fromkeys(READERS, 0)


# Logins


def test_a_database_that_does_not_exist(stage: Scene) -> None:
    dsn = stage.dsn.replace(psycopg.conninfo.conninfo_to_dict(stage.dsn)["dbname"], "nowhere")  # type: ignore[arg-type]

    done = cli.run_cli(["poll-accounts"], cli.environment(dsn, stage.sandbox))

    assert (done.returncode, done.stdout) == (6, "")
    assert_one_line(done.stderr)
    assert 'database "nowhere" does not exist' in done.stderr


def test_a_host_that_does_not_exist(stage: Scene) -> None:
    env = cli.environment("postgresql://me:hush-hush@no-such-host.invalid/db", stage.sandbox)

    done = cli.run_cli(["poll-accounts"], env)

    assert done.returncode == 6
    assert_one_line(done.stderr)
    assert "no-such-host.invalid" in done.stderr
    assert "hush-hush" not in done.stderr


def test_nobody_listens(stage: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    began = time.monotonic()
    done = cli.run_cli(["poll-accounts"], cli.environment(f"postgresql://me@127.0.0.1:{port}/db", stage.sandbox))

    assert done.returncode == 6
    assert_one_line(done.stderr)
    assert "refused" in done.stderr
    assert time.monotonic() - began < OUTAGE_SECONDS


@contextmanager
def answering_server(kind: bytes, body: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that has one answer to every login; its port, and the logins it has seen."""
    answer = kind + (len(body) + 4).to_bytes(4, "big") + body

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                logins.append(client.recv(1000))
                client.sendall(answer)

    logins: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], logins
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def refusing_server(state: str, message: str) -> AbstractContextManager[tuple[int, list[bytes]]]:
    """A server that refuses every login with an error."""
    parts = ("SFATAL", "VFATAL", f"C{state}", f"M{message}", "")
    return answering_server(b"E", b"".join(part.encode() + b"\0" for part in parts))


def test_a_password_that_is_asked_for_and_not_given_is_told_at_once(stage: Scene) -> None:
    in_clear_text = (3).to_bytes(4, "big")
    with answering_server(b"R", in_clear_text) as (port, logins):
        dsn = refused_dsn(port).replace(":hush-hush", "")
        done = cli.run_cli(["poll-accounts"], cli.environment(dsn, stage.sandbox))

    assert (done.returncode, done.stdout, len(logins)) == (6, "", 1)
    assert_one_line(done.stderr)
    assert "the server asks for a password, and database_url has none" in done.stderr
    assert "database_url_file" in done.stderr


def test_no_newer_protocol_is_asked_for_than_old_poolers_know(stage: Scene) -> None:
    with answering_server(b"R", (3).to_bytes(4, "big")) as (port, logins):
        env = cli.environment(refused_dsn(port).replace(":hush-hush", ""), stage.sandbox, PGMAXPROTOCOLVERSION="3.2")
        cli.run_cli(["poll-accounts"], env)

    (login,) = logins
    assert login[4:8] == b"\0\3\0\0"


REFUSALS = [
    ("28P01", 'password authentication failed for user "me"', True),
    ("28000", 'no pg_hba.conf entry for host "127.0.0.1"', True),
    ("3D000", 'database "db" does not exist', True),
    ("3D000", 'database "recovery" does not exist', True),
    ("08P01", "unsupported startup parameter: options", True),
    ("XX000", "Max client connections reached", False),
    ("53300", "sorry, too many clients already", False),
    ("53300", 'too many connections for role "me"', False),
    ("53300", "remaining connection slots are reserved for roles with the SUPERUSER attribute", False),
    ("08P01", "no more connections allowed (max_client_conn)", False),
    ("57P03", "the database system is starting up", False),
]


def refused_dsn(port: int) -> str:
    return f"postgresql://me:hush-hush@127.0.0.1:{port}/db?sslmode=disable&gssencmode=disable"


@pytest.mark.parametrize(("state", "message", "is_final"), REFUSALS)
def test_a_refused_login_is_final_unless_it_may_pass(state: str, message: str, is_final: bool) -> None:
    with refusing_server(state, message) as (port, logins):
        database = Database(
            refused_dsn(port), application_name="bisonsync test", clock=SystemClock(), first_connect_seconds=0.2
        )
        with pytest.raises(DatabaseUnavailable) as caught:
            database.run(lambda conn: conn.execute("SELECT 1"))

    assert message in caught.value.message
    assert ("refuses the login" in caught.value.message) == is_final
    assert (len(logins) == 1) == is_final


@pytest.mark.parametrize(("state", "message", "is_final"), [REFUSALS[0], REFUSALS[3]])
def test_a_refused_login_is_one_line_without_the_password(
    stage: Scene, state: str, message: str, is_final: bool
) -> None:
    with refusing_server(state, message) as (port, _):
        began = time.monotonic()
        done = cli.run_cli(["poll-accounts"], cli.environment(refused_dsn(port), stage.sandbox))

    assert (done.returncode, done.stdout) == (6, "")
    assert_one_line(done.stderr)
    assert message in done.stderr
    assert "hush-hush" not in done.stderr
    assert is_final or time.monotonic() - began > 5


def test_connections_that_run_out_come_back(stage: Scene) -> None:
    role = f"limited_{uuid.uuid4().hex[:12]}"
    stage.conn.execute(f"CREATE ROLE {role} LOGIN BYPASSRLS CONNECTION LIMIT 10".encode())
    try:
        stage.conn.execute(f"GRANT pg_read_all_data, pg_write_all_data TO {role}".encode())
        stage.conn.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bisonsync_private TO {role}".encode())
        dsn = psycopg.conninfo.make_conninfo(stage.dsn, user=role)
        others = [psycopg.connect(dsn) for _ in range(10)]
        process = cli.start_cli(["poll-accounts", "--json"], cli.environment(dsn, stage.sandbox))
        # It is refused meanwhile, or not yet there: both are well.
        others.pop().close()
        cli.wait_until(stage.open_runs, "the poll has its only connection")
        for other in others:
            other.close()
        done = cli.finish(process)

        assert (done.returncode, done.stderr) == (0, "")
        assert_whole(stage, Picture({}, frozenset()), cli.document(done))
    finally:
        stage.conn.execute(f"DROP OWNED BY {role}".encode())
        stage.conn.execute(f"DROP ROLE {role}".encode())


# Connections


def test_a_run_never_has_more_than_ten_connections(db: str) -> None:
    may_merge = threading.Event()
    with scene(db, workspaces=12, accounts=60, skew=(5,)) as stage:
        stage.proxy.at(
            "statement", said_by("accounts", "upsert_accounts"), lambda _: may_merge.wait(cli.PATIENCE) and None, nth=0
        )
        process = stage.start(BISONSYNC_INSTANCES__SIM__CONCURRENCY="12")
        try:
            # Of each workspace the identity and its only page, twice.
            cli.wait_until(lambda: stage.sandbox.summary()["requests"]["total"] == 12 * 4, "all are read")
            cli.wait_until(lambda: stage.sessions() >= 6, "as many as may merge at a time do")
            most = stage.sessions()
        finally:
            may_merge.set()
        done = cli.finish(process)

        assert (done.returncode, done.stderr) == (0, "")
        assert 6 <= most <= 10


def test_nothing_is_prepared_and_no_session_is_changed(polled: Scene) -> None:
    assert cli.finish(polled.start()).returncode == 0

    said = polled.proxy.statements
    assert any("sender_emails_cache" in text for text in said)
    for text in said:
        assert not text.upper().startswith(("SET ", "PREPARE", "LISTEN", "DECLARE", "CREATE TEMP")), text
        assert "pg_advisory_lock" not in text
        assert "set_config" not in text or "true" in text
