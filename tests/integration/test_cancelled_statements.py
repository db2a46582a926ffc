"""Whoever leaves in the middle of a statement has the server end it: none computes on, and none keeps its locks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cli
import psycopg
import pytest
from faultproxy import FaultProxy
from scene import Scene, scene

from bisonsync.clock import SystemClock
from bisonsync.errors import BisonsyncError, DatabaseUnavailable, DeadlineExceeded, Stopped
from bisonsync.runner import Options, Session
from bisonsync.store import db as store_db
from bisonsync.store import retention
from bisonsync.store.db import Connection, Database

COMPUTE = "DO 'BEGIN LOOP END LOOP; END'"
# The body of a function that computes for ever, and is seen to have begun by the lock that it holds.
FOR_EVER = "BEGIN PERFORM pg_advisory_xact_lock_shared(4711); LOOP END LOOP; END"
BEGUN = (
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND objid = 4711 AND datname = current_database() AND state = 'active'"
)
AT_WORK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
    " AND application_name LIKE 'bisonsync%%' AND wait_event IS NULL AND query LIKE %s"
)
LOCKED = (
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE relation = 'client_registry'::regclass AND datname = current_database() AND pid <> pg_backend_pid()"
)


def at_work(conn: psycopg.Connection, text: str = "%") -> int:
    """How many sessions of ours compute."""
    row = conn.execute(AT_WORK, [text]).fetchone()
    assert row is not None
    return row[0]


def begun(conn: psycopg.Connection) -> int:
    """How many sessions are in a function that computes for ever."""
    row = conn.execute(BEGUN).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def once_computing(conn: psycopg.Connection, act: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as a statement of ours computes."""

    def wait() -> None:
        cli.wait_until(lambda: at_work(conn, f"%{COMPUTE}%"), "it computes")
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def compute(conn: Connection) -> None:
    conn.execute("SET LOCAL statement_timeout = 0")
    conn.execute("LOCK TABLE client_registry")
    conn.execute(COMPUTE)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way gets no grace."""
    monkeypatch.setattr(store_db, "_END_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(store_db, "_ANSWER_GRACE_SECONDS", 0.0)


WAYS_OUT = [
    pytest.param(lambda _, clock: clock.stop(signal.SIGTERM), 30.0, Stopped, id="stopped"),
    pytest.param(lambda database, _: setattr(database, "deadline", 0.0), 30.0, DeadlineExceeded, id="deadline"),
    pytest.param(lambda *_: None, 0.5, DatabaseUnavailable, id="no answer"),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("leave", "statement_seconds", "error"), WAYS_OUT)
def test_every_way_out_of_a_statement_ends_it_on_the_server(
    db: str,
    conn: psycopg.Connection,
    leave: Callable[[Database, SystemClock], object],
    statement_seconds: float,
    error: type[BisonsyncError],
) -> None:
    clock = SystemClock()
    database = Database(db, application_name="bisonsync test", clock=clock, first_connect_seconds=0)
    database.ends_by_deadline = True

    with once_computing(conn, lambda: leave(database, clock)), pytest.raises(error):
        database.run(compute, statement_timeout_seconds=statement_seconds)

    assert at_work(conn) == 0
    assert conn.execute(LOCKED).fetchone() == (0,)


@pytest.mark.usefixtures("impatient")
def test_a_stop_ends_a_vacuum_on_the_server(db: str, conn: psycopg.Connection) -> None:
    clock = SystemClock()
    database = Database(db, application_name="bisonsync test", clock=clock)
    function = "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN {} RETURN 1; END'"
    conn.execute(function.format("").encode())
    conn.execute("CREATE TABLE odd AS SELECT 1 AS n")
    conn.execute("CREATE INDEX ON odd (f(n))")
    conn.execute(function.format("LOOP END LOOP;").encode())

    stopper = threading.Thread(
        target=lambda: (cli.wait_until(lambda: at_work(conn, "VACUUM%"), "it computes"), clock.stop(signal.SIGTERM))
    )
    stopper.start()
    with pytest.raises(Stopped):
        retention.vacuum(database, "VACUUM ANALYZE odd")
    stopper.join()

    assert at_work(conn) == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("when", "cancels"), [("statement", 1), ("commit", 0)])
def test_only_a_statement_is_cancelled_never_a_commit(db: str, when: str, cancels: int) -> None:
    """After a commit a pooler may have given the server's end to another client."""
    clock = SystemClock()
    with FaultProxy(db) as proxy:
        database = Database(proxy.dsn, application_name="bisonsync test", clock=clock)

        def stop(_: object) -> None:
            proxy.hold()
            clock.stop(signal.SIGTERM)

        proxy.at(when, "SELECT 1", stop)  # type: ignore[arg-type]
        with pytest.raises(Stopped):
            database.run(lambda conn: conn.execute("SELECT 1"))

        assert proxy.cancels == cancels


# Commands


@pytest.fixture
def computing(db: str) -> Iterator[Scene]:
    """A scene in which a poll computes for ever as soon as it updates an account."""
    with scene(db, workspaces=2, accounts=40) as stage:
        assert stage.poll().returncode == 0
        stage.churn()
        stage.conn.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS '" + FOR_EVER + "'")
        stage.conn.execute("CREATE TRIGGER t BEFORE UPDATE ON sender_emails_cache FOR EACH ROW EXECUTE FUNCTION f()")
        yield stage


def assert_let_go(conn: psycopg.Connection) -> None:
    """The server is at nothing of ours any more, and the accounts can be written."""
    assert at_work(conn) == 0
    with conn.transaction():
        conn.execute("LOCK TABLE sender_emails_cache IN SHARE MODE NOWAIT")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_mid_statement_ends_it_on_the_server(computing: Scene, number: signal.Signals, code: int) -> None:
    process = computing.start(direct=True)
    cli.wait_until(lambda: begun(computing.conn), "the merge computes")

    process.send_signal(number)
    done = cli.finish(process)

    assert (done.returncode, cli.document(done)["verdict"]) == (code, "stopped")
    assert_let_go(computing.conn)


@pytest.mark.parametrize("name", ["db", "bookkeeping"])
def test_a_deadline_in_mid_statement_is_what_the_run_ends_with(db: str, conn: psycopg.Connection, name: str) -> None:
    session = Session(Options(database_url=db, deadline_seconds=0.1), "migrate")

    with pytest.raises(DeadlineExceeded, match="in the middle of a statement"):
        getattr(session, name).run(compute, statement_timeout_seconds=0)

    assert at_work(conn) == 0


def test_a_second_signal_does_not_leave_the_server_computing(computing: Scene) -> None:
    process = computing.start()
    cli.wait_until(lambda: begun(computing.conn), "the merge computes")

    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    done = cli.finish(process)

    assert done.returncode in (130, 143)
    assert done.stdout == ""
    cli.wait_until(lambda: computing.proxy.cancels, "the server was asked")
    cli.wait_until(lambda: not at_work(computing.conn), "the server has heard")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_migrate_has_no_time_limit_and_ends_nevertheless(empty_db: str, number: signal.Signals) -> None:
    """Who is killed cannot ask for it: the server looks by itself whether anybody is there."""
    with psycopg.connect(empty_db, autocommit=True) as conn:
        conn.execute("CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS '" + FOR_EVER + "'")
        conn.execute("CREATE EVENT TRIGGER t ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION f()")
        process = cli.start_cli(["migrate"], cli.environment(empty_db))
        cli.wait_until(lambda: begun(conn), "it computes")

        process.send_signal(number)
        done = cli.finish(process)

        if number == signal.SIGTERM:
            assert (done.returncode, at_work(conn)) == (143, 0)
        cli.wait_until(lambda: not at_work(conn), "the server has let go")
