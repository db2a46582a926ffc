"""Dead-man pings: told at the begin and the end of every run, whatever becomes of either."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli import environment, finish, run_cli, run_into, start_cli, wait_until
from conftest import named
from office import Connection, Office

from bisonsync.api.heartbeat import Heartbeat
from bisonsync.sandbox import Sandbox

SECRET = "3f1c9a52-0b7e-4d2a-9c66-5d0e8a1b7c33"

NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"


class Watcher:
    """A dead-man switch on this machine. ``statuses`` are its next answers, then 200; it can keep silent instead."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.silent = threading.Event()
        self.over = threading.Event()
        self.is_slow = False
        self.ended = threading.Event()
        self.overtaken: bool | None = None
        watcher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                watcher.seen.append(self.path)
                watcher.headers.append(dict(self.headers))
                if not self.path.endswith("/start"):
                    watcher.ended.set()
                elif watcher.is_slow:
                    watcher.overtaken = watcher.ended.wait(1)
                if watcher.silent.is_set():
                    watcher.over.wait()
                    return
                self.send_response(watcher.statuses.pop(0) if watcher.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.origin}/ping/{SECRET}"

    @property
    def told(self) -> list[str]:
        """What was told, without the part of the address that is the same for all."""
        return [path.removeprefix(f"/ping/{SECRET}") for path in self.seen]


@contextmanager
def watching() -> Iterator[Watcher]:
    watcher = Watcher()
    thread = threading.Thread(target=watcher.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield watcher
    finally:
        watcher.over.set()
        watcher.server.shutdown()
        watcher.server.server_close()
        thread.join()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    with watching() as watcher:
        yield watcher


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    with Sandbox(workspaces=2, accounts=20, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


@pytest.fixture
def address(tmp_path: Path, watcher: Watcher) -> Path:
    """The file that holds the watcher's address."""
    return write(tmp_path / "watcher.url", watcher.url)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(mode)
    return path


def rows(office: Office) -> list[tuple[Any, ...]]:
    """What the database keeps: job, whether it was tried, whether it ever arrived, why not the last time."""
    return office.conn.execute(
        "SELECT job, last_attempt_at IS NOT NULL, last_ok_at IS NOT NULL, last_error FROM heartbeats ORDER BY job"
    ).fetchall()


def test_a_good_run_tells_its_begin_and_its_success(office: Office, watcher: Watcher, address: Path) -> None:
    outcome = office.run("poll-accounts", "--heartbeat-url-file", str(address))

    assert (outcome.code, outcome.stderr) == (0, "")
    assert watcher.told == ["/start", ""]
    assert rows(office) == [("poll-accounts", True, True, None)]
    assert not any("Authorization" in headers for headers in watcher.headers)


def test_a_partial_run_tells_its_exit_code(office: Office, watcher: Watcher, address: Path) -> None:
    office.sandbox.add_fault("status", status=503, page=1, workspace=1)

    outcome = office.run("poll-accounts", "--heartbeat-url-file", str(address))

    assert outcome.code == 3
    assert watcher.told == ["/start", "/3"]
    assert rows(office) == [("poll-accounts", True, True, None)]


def test_a_run_that_finds_its_settings_wrong_tells_it(watcher: Watcher, address: Path, tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.toml", "database_url = ")
    command = ["--heartbeat-url-file", str(address), "-c", str(broken)]

    done = run_cli(["poll-accounts", *command], environment())

    assert done.returncode == 4
    assert watcher.told == ["/start", "/4"]


def test_a_run_without_a_database_tells_it(server_dsn: str, watcher: Watcher, address: Path) -> None:
    env = environment(named(server_dsn, "none_of_this_name"))

    done = run_cli(["runs", "list", "--heartbeat-url-file", str(address)], env)

    assert done.returncode == 6
    assert watcher.told == ["/start", "/6"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_tells_it(
    office: Office, watcher: Watcher, address: Path, number: signal.Signals, code: int
) -> None:
    office.sandbox.add_fault("hang", page=1)
    env = environment(office.dsn, office.sandbox)
    process = start_cli(["poll-accounts", "--heartbeat-url-file", str(address)], env)
    wait_until(lambda: office.one("SELECT count(*) FROM job_leases WHERE holder IS NOT NULL") == 2, "it works")

    process.send_signal(number)
    done = finish(process)

    assert done.returncode == code
    assert watcher.told == ["/start", f"/{code}"]


def test_a_run_that_found_another_at_work_tells_75_or_success(office: Office, watcher: Watcher, address: Path) -> None:
    office.conn.execute(
        "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, heartbeat_at, expires_at)"
        " SELECT 'poll-accounts', 'sim', n, gen_random_uuid(), 'elsewhere', 1, now(), now() + interval '1 hour'"
        " FROM generate_series(1, 2) AS n"
    )

    office.run("poll-accounts", "--heartbeat-url-file", str(address))
    office.run("poll-accounts", "--heartbeat-url-file", str(address), "--skip-if-locked")

    assert watcher.told == ["/start", "/75", "/start", ""]


def test_a_look_at_the_health_is_a_success_whatever_it_saw(office: Office, watcher: Watcher, address: Path) -> None:
    outcome = office.run("health", "freshness", "--heartbeat-url-file", str(address))

    assert outcome.code == 2
    assert watcher.told == ["/start", ""]


def test_a_look_that_saw_nothing_is_none(watcher: Watcher, address: Path) -> None:
    env = environment("postgresql://nobody@127.0.0.1:9/none")
    done = run_cli(["health", "--heartbeat-url-file", str(address)], env)

    assert done.returncode == 3
    assert watcher.told == ["/start", "/3"]


@pytest.mark.parametrize(("where", "code", "told"), [("| true", 0, ""), (">/dev/full", 1, "/1")])
def test_a_run_tells_a_failure_where_its_output_is_lost_and_not_where_nobody_wants_it(
    office: Office, watcher: Watcher, address: Path, where: str, code: int, told: str
) -> None:
    shown = run_into(f"config show --heartbeat-url-file {address}", where, environment(office.dsn))

    assert shown == code
    assert watcher.told == ["/start", told]


def test_the_begin_is_told_beside_the_work(watcher: Watcher) -> None:
    watcher.silent.set()
    heartbeat = Heartbeat(watcher.url, user_agent="test")

    heartbeat.begin()

    assert [thread.name for thread in threading.enumerate()].count("ping") == 1
    watcher.over.set()
    wait_until(lambda: "ping" not in [thread.name for thread in threading.enumerate()], "the ping has ended")


def test_the_end_is_not_told_before_the_begin_has_arrived(watcher: Watcher) -> None:
    watcher.is_slow = True
    heartbeat = Heartbeat(watcher.url, user_agent="test")

    heartbeat.begin()
    wait_until(lambda: watcher.told, "the begin is being told")
    error = heartbeat.end(0)

    assert error is None
    assert watcher.told == ["/start", ""]
    assert watcher.overtaken is False


def test_a_dry_run_is_no_sign_of_life(office: Office, watcher: Watcher, address: Path) -> None:
    outcome = office.run("poll-accounts", "--heartbeat-url-file", str(address), "--dry-run")

    assert outcome.code == 0
    assert watcher.told == []
    assert rows(office) == []


def test_the_settings_may_name_a_watcher_of_each_job(office: Office, watcher: Watcher, address: Path) -> None:
    by_file = {"BISONSYNC_HEARTBEATS__POLL_ACCOUNTS_FILE": str(address)}
    itself = {"BISONSYNC_HEARTBEATS__WORKSPACES_DISCOVER": f"{watcher.url}/discover"}

    office.run("poll-accounts", env=by_file | itself)
    office.run("workspaces", "discover", env=by_file | itself)
    office.run("workspaces", "list", env=by_file | itself)

    assert watcher.told == ["/start", "", "/discover/start", "/discover"]
    assert [row[0] for row in rows(office)] == ["poll-accounts", "workspaces-discover"]


def test_the_option_counts_more_than_the_settings(office: Office, watcher: Watcher, tmp_path: Path) -> None:
    other = write(tmp_path / "other.url", f"{watcher.url}/other")

    office.run(
        "poll-accounts", "--heartbeat-url-file", str(other), env={"BISONSYNC_HEARTBEATS__POLL_ACCOUNTS": watcher.url}
    )

    assert watcher.told == ["/other/start", "/other"]


def test_the_address_may_be_a_credential_of_systemd(office: Office, watcher: Watcher, tmp_path: Path) -> None:
    write(tmp_path / "watcher", f"{watcher.url}?create=1", mode=0o440)

    office.run(
        "poll-accounts",
        "--heartbeat-url-file",
        "$CREDENTIALS_DIRECTORY/watcher",
        env={"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )

    assert watcher.told == ["/start?create=1", "?create=1"]


def test_a_silent_watcher_costs_seconds_and_a_warning(office: Office, watcher: Watcher, address: Path) -> None:
    watcher.silent.set()

    outcome = office.run("poll-accounts", "-q", "--heartbeat-url-file", str(address))

    assert (outcome.code, outcome.stdout) == (0, "")
    error = f"no answer from {watcher.origin.removeprefix('http://')} in time"
    assert outcome.stderr == f"warning: the end ping of poll-accounts failed: {error}\n"
    assert watcher.told == ["/start", "", ""]
    assert rows(office) == [("poll-accounts", True, False, error)]


def test_nobody_at_the_address_is_a_warning_with_its_host_alone(office: Office, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken_port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{taken_port}/ping/{SECRET}"
        address = write(tmp_path / "watcher.url", url)

        outcome = office.run("poll-accounts", "--json", "--heartbeat-url-file", str(address))

    assert outcome.code == 0
    assert outcome.document["errors"] == []
    tried = f"no connection to 127.0.0.1:{taken_port}: "
    assert outcome.stderr.startswith(f"warning: the end ping of poll-accounts failed: {tried}")
    kept = [row for table in ("heartbeats", "email_sync_logs") for row in office.conn.execute(f"TABLE {table}")]
    assert len(kept) == 2
    for text in (outcome.stdout, outcome.stderr, str(kept)):
        assert SECRET not in text
        assert "/ping" not in text


def test_a_watcher_that_is_out_of_order_for_a_moment_is_told_again(
    office: Office, watcher: Watcher, address: Path
) -> None:
    watcher.statuses = [200, 503]

    outcome = office.run("poll-accounts", "--heartbeat-url-file", str(address))

    assert (outcome.code, outcome.stderr) == (0, "")
    assert watcher.told == ["/start", "", ""]


def test_a_watcher_that_does_not_know_us_is_a_warning(office: Office, watcher: Watcher, address: Path) -> None:
    office.run("poll-accounts", "--heartbeat-url-file", str(address))
    watcher.statuses = [404, 404]

    outcome = office.run("poll-accounts", "--heartbeat-url-file", str(address))

    assert outcome.code == 0
    assert outcome.stderr == "warning: the end ping of poll-accounts failed: HTTP 404\n"
    assert watcher.told == ["/start", "", "/start", ""]
    assert rows(office) == [("poll-accounts", True, True, "HTTP 404")]


def test_a_begin_that_did_not_arrive_is_a_warning(office: Office, watcher: Watcher, address: Path) -> None:
    watcher.statuses = [500]

    outcome = office.run("poll-accounts", "--heartbeat-url-file", str(address))

    assert outcome.stderr == "warning: the start ping of poll-accounts failed: HTTP 500\n"
    assert rows(office) == [("poll-accounts", True, True, None)]


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (f"https://hc.example.com/{SECRET}", 0o644, "others can read the file"),
        ("", 0o600, "is empty"),
        (f"http://hc.example.com/{SECRET}", 0o600, "plain http"),
        (f"https://me:{SECRET}@hc.example.com/", 0o600, "must not hold a user name or password"),
        (f"https://hc.example.com/{SECRET}\nand more", 0o600, "holds a blank"),
        (SECRET, 0o600, "is no address"),
    ],
)
def test_an_address_that_cannot_be_used_ends_the_run(tmp_path: Path, text: str, mode: int, said: str) -> None:
    address = write(tmp_path / "watcher.url", text, mode)

    done = run_cli(["poll-accounts", "--heartbeat-url-file", str(address)], environment(NO_DATABASE))

    assert done.returncode == 4
    assert said in done.stderr
    assert "--heartbeat-url-file" in done.stderr
    assert SECRET not in done.stderr


def test_a_file_that_is_not_there_ends_the_run(tmp_path: Path) -> None:
    done = run_cli(["poll-accounts", "--heartbeat-url-file", str(tmp_path / "none")], environment(NO_DATABASE))

    assert done.returncode == 4
    assert "there is no file" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("POLL_ACOUNTS", "https://hc.example.com/x", "is no job with a dead-man ping that bisonsync knows"),
        ("POLL_ACCOUNTS", "http://hc.example.com/x", "plain http"),
    ],
)
def test_settings_that_would_never_ping_are_refused(name: str, value: str, said: str) -> None:
    done = run_cli(["config", "check"], environment(NO_DATABASE, **{f"BISONSYNC_HEARTBEATS__{name}": value}))

    assert done.returncode == 4
    assert said in done.stderr


def test_without_a_watcher_nothing_of_it_is_imported(office: Office) -> None:
    done = run_cli(["runs", "list"], environment(office.dsn) | {"PYTHONPROFILEIMPORTTIME": "1"})

    assert done.returncode == 0
    assert "bisonsync.runner" in done.stderr
    assert "bisonsync.api.heartbeat" not in done.stderr
    assert os.environ.get("PYTHONPROFILEIMPORTTIME") is None


@pytest.mark.parametrize("arguments", [("-w", "acme-typo"), ("--instance", "acme-typo"), ("-w", "1")])
def test_the_watcher_of_a_job_hears_nothing_of_chosen_workspaces(
    office: Office, watcher: Watcher, arguments: tuple[str, ...]
) -> None:
    office.run("poll-accounts", *arguments, env={"BISONSYNC_HEARTBEATS__POLL_ACCOUNTS": watcher.url})

    assert watcher.told == []


def test_the_watcher_of_a_job_hears_of_an_instance_that_was_done_whole(office: Office, watcher: Watcher) -> None:
    office.run("poll-accounts", "--instance", "sim", env={"BISONSYNC_HEARTBEATS__POLL_ACCOUNTS": watcher.url})

    assert watcher.told == [""]


def test_a_watcher_that_is_named_on_the_command_line_hears_of_a_wrong_name(
    office: Office, watcher: Watcher, address: Path
) -> None:
    outcome = office.run("poll-accounts", "-w", "acme-typo", "--heartbeat-url-file", str(address))

    assert outcome.code == 4
    assert watcher.told == ["/start", "/4"]
