"""Everything through pgbouncer in transaction mode with two server connections, as behind Supabase's pooler."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import cli
import psycopg
import pytest
from faultproxy import FaultProxy, Victim, said_by
from psycopg.conninfo import conninfo_to_dict
from scene import Scene, assert_sums, scene

from bisonsync import embedded
from bisonsync.clock import SystemClock
from bisonsync.errors import Stopped
from bisonsync.sandbox import Sandbox
from bisonsync.store import db as store_db
from bisonsync.store.db import Database

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer here: on Debian, apt-get install pgbouncer")

CONFIG = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 100
logfile = {folder}/log
"""


# Other tests' databases are on the same server.
ADVISORY_LOCKS = (
    "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database"
    " WHERE locktype = 'advisory' AND d.datname = current_database()"
)


@pytest.fixture(scope="module")
def pooler(server_dsn: str, session_folder: Path) -> Iterator[int]:
    """The port of a pooler before the session's server."""
    given = conninfo_to_dict(server_dsn)
    words = {"host": given.get("host"), "port": given.get("port"), "user": given.get("user") or "postgres"}
    if given.get("password"):
        words["password"] = given["password"]
    server = " ".join(f"{name}={value}" for name, value in words.items() if value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer", dir=session_folder))
    (folder / "pgbouncer.ini").write_text(CONFIG.format(server=server, port=port, folder=folder))
    # It refuses to run as root; the embedded server's socket is for the server's own user alone.
    user = pwd.getpwnam(embedded.status(session_folder / "postgres").os_user) if os.geteuid() == 0 else None
    if user:
        for path in (folder, folder / "pgbouncer.ini"):
            os.chown(path, user.pw_uid, user.pw_gid)
    assert PGBOUNCER is not None
    process = subprocess.Popen(
        [PGBOUNCER, "-q", str(folder / "pgbouncer.ini")],
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        stdin=subprocess.DEVNULL,
    )
    try:
        cli.wait_until(lambda: process.poll() is not None or is_listening(port), "pgbouncer listens")
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.kill()
        process.wait()


def is_listening(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def pooled(dsn: str, port: int) -> str:
    return f"postgresql://somebody@127.0.0.1:{port}/{conninfo_to_dict(dsn)['dbname']}"


def assert_no_session_state(dsn: str) -> None:
    """What the server's two connections are left with: nothing of ours."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as one:
        for _ in range(4):
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                assert one.execute(f"SHOW {name}".encode()).fetchone() == ("0",)
            assert one.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert one.execute(ADVISORY_LOCKS).fetchone() == (0,)


def test_the_first_four_commands_run_through_a_pooler(pooler: int, empty_db: str) -> None:
    with Sandbox(workspaces=6, accounts=150) as sandbox, psycopg.connect(empty_db, autocommit=True) as conn:
        dsn = pooled(empty_db, pooler)
        env = cli.environment(dsn, sandbox)
        for command in (["migrate"], ["workspaces", "discover"], ["workspaces", "mint-tokens"], ["poll-accounts"]):
            done = cli.run_cli(command, env)
            assert (done.returncode, done.stderr) == (0, ""), command

        assert cli.mirror(conn) == cli.truth(sandbox)
        assert_no_session_state(dsn)


@pytest.fixture
def stage(pooler: int, db: str) -> Iterator[Scene]:
    """A scene whose proxy stands before the pooler."""
    with scene(db, workspaces=6, accounts=150) as made:
        made.dsn = pooled(db, pooler)
        yield made


def test_several_polls_share_two_server_connections(stage: Scene) -> None:
    """No process sees another's time limits, and no statement is looked for where it was not prepared."""
    processes = [stage.start("-w", str(workspace), direct=True) for workspace in stage.workspaces[:4]]
    for process in processes:
        done = cli.finish(process)
        assert (done.returncode, done.stderr) == (0, "")
        assert_sums(stage.ledger(cli.document(done)["run_id"]))
    stage.churn()

    done = stage.poll()

    assert (done.returncode, done.stderr) == (0, "")
    assert stage.picture().live == stage.truth()
    assert_no_session_state(stage.dsn)


def test_f01_a_kill_in_mid_merge_through_a_pooler_leaves_whole_workspaces(stage: Scene) -> None:
    victim = Victim()
    with FaultProxy(stage.dsn) as before_pooler:
        rule = before_pooler.at("answered", said_by("accounts", "upsert_accounts"), victim.kill, nth=2)
        process = cli.start_cli(["poll-accounts"], cli.environment(before_pooler.dsn, stage.sandbox))
        victim.is_(process)
        process.communicate(timeout=cli.PATIENCE)
    assert rule.hit.is_set()
    found = stage.picture()
    for workspace in stage.workspaces:
        assert found.of(workspace).live in ({}, cli.part_of(stage.truth(), workspace))

    done = stage.poll()

    assert (done.returncode, done.stderr) == (0, "")
    assert stage.picture().live == stage.truth()
    assert stage.open_runs() == []


def test_f23_leases_hold_through_a_pooler(stage: Scene) -> None:
    with stage.sandbox.lock:
        first = stage.start(direct=True)
        cli.wait_until(lambda: stage.held_leases() == 6, "the first has its leases")
        second = stage.poll()

    assert (second.returncode, cli.finish(first).returncode) == (75, 0)
    assert f"pid {first.pid} on" in second.stderr


def test_a_stop_ends_the_statement_behind_the_pooler(pooler: int, db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_db, "_END_GRACE_SECONDS", 0.0)
    clock = SystemClock()
    database = Database(pooled(db, pooler), application_name="bisonsync test", clock=clock)
    at_work = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'DO %LOOP%'"
    with psycopg.connect(db, autocommit=True) as conn:

        def stop() -> None:
            cli.wait_until(lambda: conn.execute(at_work).fetchone() != (0,), "it computes")
            clock.stop(signal.SIGTERM)

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(Stopped):
            database.run(lambda conn: conn.execute("DO 'BEGIN LOOP END LOOP; END'"), statement_timeout_seconds=0)
        stopper.join()

        assert conn.execute(f"{at_work} AND state = 'active'".encode()).fetchone() == (0,)
    assert_no_session_state(pooled(db, pooler))
