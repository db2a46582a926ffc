"""What an operator can get wrong: the exit code of the table, one line that names the thing and the next step."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cli import environment, run_cli
from office import Connection, Office
from psycopg.conninfo import make_conninfo

from bisonsync.sandbox import Sandbox

SECRET = "tops3cret-Value"


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    with Sandbox(workspaces=2, accounts=30, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


def poll(office: Office, *arguments: str, **env: str) -> tuple[int, list[str]]:
    """The exit code and the lines of stderr, checked for what must never be there."""
    settings = {"BISONSYNC_POLLING__RETRY_ATTEMPTS": "1"} | env
    done = run_cli(["poll-accounts", "-q", *arguments], environment(office.dsn, office.sandbox) | settings)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    return done.returncode, done.stderr.splitlines()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("env", "code", "says"),
    [
        ({"BISONSYNC_DATABASE_URL": ""}, 4, "BISONSYNC_DATABASE_URL"),
        ({"BISONSYNC_DATABASE_URL": f"postgres:/u:{SECRET}@h"}, 4, "address cannot be used"),
        ({"BISONSYNC_DATABASE_URL": f"postgresql://u:{SECRET}@h/x?pgbouncer=true"}, 4, "remove pgbouncer from it"),
        ({"BISONSYNC_DATABASE_URL": f"postgresql://u:{SECRET}@h/x?sslmod=require"}, 4, "does not know: sslmod"),
        ({"BISONSYNC_DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:PORT/x"}, 6, "check that it runs"),
        ({"BISONSYNC_INSTANCES__SIM__BASE_URL": "http://send.example.com"}, 4, "plain http"),
        ({"BISONSYNC_INSTANCES__SIM__BASE_URL": "http://127.0.0.1:PORT"}, 5, "check the host and base_url"),
        ({"BISONSYNC_INSTANCES__SIM__BASE_URL": "send.example.com"}, 4, "https://"),
        ({"BISONSYNC_INSTANCES__SIM__REQUESTS_PER_MINUTE": "many"}, 4, "REQUESTS_PER_MINUTE"),
        ({"BISONSYNC_REPORTING_TIMEZONE": "Europe/Berln"}, 4, "Europe/Berlin"),
        ({"BISONSYNC_POLING__DEADLINE": "4m"}, 4, "did you mean"),
        ({"BISONSYNC_CONFIG": "/nonexistent/bisonsync.toml"}, 4, "/nonexistent/bisonsync.toml"),
    ],
)
def test_wrong_settings(office: Office, env: dict[str, str], code: int, says: str) -> None:
    port = str(closed_port())

    found, lines = poll(office, **{name: value.replace("PORT", port) for name, value in env.items()})

    assert found == code
    assert says in lines[-1]
    assert all(line.startswith("error: ") for line in lines)


def test_config_check_names_a_parameter_of_another_program(office: Office) -> None:
    url = f"postgresql://u:{SECRET}@h/x?pgbouncer=true"
    done = run_cli(["config", "check"], environment(url, office.sandbox))

    assert done.returncode == 4
    assert "environment BISONSYNC_DATABASE_URL: this address cannot be used: it holds pgbouncer" in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_all_problems_of_a_file_are_told_at_once_with_their_origin(office: Office, tmp_path: Path) -> None:
    key = tmp_path / "sim.key"
    key.write_text(SECRET)
    key.chmod(0o644)
    config = tmp_path / "bisonsync.toml"
    config.write_text(
        '[instances.other]\nbase_url = "http://remote.example.com"\napi_key_file = "sim.key"\n'
        "[polling]\nmax_shrnk = 2\n"
    )

    code, lines = poll(office, "-c", str(config))

    assert code == 4
    assert len(lines) >= 3
    told = "\n".join(lines)
    assert "chmod 600" in told
    assert "plain http" in told
    assert "max_shrink" in told
    assert str(config) in told


@pytest.mark.parametrize(("text", "says"), [("a = [", ":1:"), ("a = 1\nb = = 2\n", ":2:")])
def test_a_file_that_is_no_toml_is_told_with_its_line(office: Office, tmp_path: Path, text: str, says: str) -> None:
    config = tmp_path / "broken.toml"
    config.write_text(text)

    code, lines = poll(office, "-c", str(config))

    assert code == 4
    assert str(config) in lines[0]
    assert says in lines[0] or ":2:" in lines[0]


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("FRESHNES__WARNING", "'freshnes' is no check"),
        ("FRESHNESS__WARN", "'warn' is no threshold of freshness"),
        ("FRESHNESS__WARNING", "threshold freshness.warning: 'soon' is no duration: write it as"),
        ("BOUNCE__WARNING", "threshold bounce.warning: 'soon' is no number"),
    ],
)
def test_a_threshold_that_every_look_would_stop_at_is_found_before(office: Office, variable: str, says: str) -> None:
    env = environment(office.dsn, office.sandbox) | {f"BISONSYNC_ALERTS__THRESHOLDS__{variable}": "soon"}

    done = run_cli(["config", "check"], env)

    assert done.returncode == 4
    assert says in done.stderr


def test_a_database_that_is_not_migrated(office: Office, empty_db: str) -> None:
    code, lines = poll(office, BISONSYNC_DATABASE_URL=empty_db)

    assert (code, len(lines)) == (6, 1)
    assert "bisonsync migrate" in lines[0]


def test_a_database_that_does_not_exist(office: Office) -> None:
    code, lines = poll(office, BISONSYNC_DATABASE_URL=make_conninfo(office.dsn, dbname="nowhere"))

    assert (code, len(lines)) == (6, 1)
    assert "nowhere" in lines[0]


def test_a_password_on_the_command_line_is_refused(office: Office) -> None:
    code, lines = poll(office, "--database-url", f"postgresql://u:{SECRET}@h/d")

    assert (code, len(lines)) == (2, 1)
    assert "database_url_file" in lines[0]


def test_a_wrong_key_and_a_wrong_host(office: Office) -> None:
    wrong_key = run_cli(
        ["workspaces", "discover", "-q"],
        environment(office.dsn, office.sandbox) | {"BISONSYNC_INSTANCES__SIM__API_KEY": f"9|{SECRET}"},
    )
    with html_host() as url:
        wrong_host = run_cli(
            ["workspaces", "discover", "-q"],
            environment(office.dsn, office.sandbox)
            | {"BISONSYNC_INSTANCES__SIM__BASE_URL": url, "BISONSYNC_POLLING__RETRY_ATTEMPTS": "1"},
        )

    assert wrong_key.returncode == 4
    assert "super-admin key of instance sim" in wrong_key.stderr
    assert SECRET not in wrong_key.stderr
    assert wrong_host.returncode == 5
    assert "HTML" in wrong_host.stderr
    assert len(wrong_key.stderr.splitlines()) == len(wrong_host.stderr.splitlines()) == 1


def test_usage_errors_are_2_and_json_says_the_same_as_the_exit_code(office: Office) -> None:
    env = environment(office.dsn, office.sandbox)

    assert run_cli(["poll-accounts", "--deadline", "soon"], env).returncode == 2
    assert run_cli(["pol-accounts"], env).returncode == 2
    assert run_cli(["poll-accounts", "--log-format", "xml"], env).returncode == 2
    failed = run_cli(["poll-accounts", "--json"], env | {"BISONSYNC_DATABASE_URL": ""})
    document = json.loads(failed.stdout)
    assert failed.returncode == 4
    assert document["verdict"] == "failed"
    assert document["errors"][0]["kind"] == "configuration"
    assert document["schema_version"] == 1


class html_host:  # a context manager read like a function
    """A web server that is no API."""

    def __enter__(self) -> str:
        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = b"<!doctype html><title>Welcome</title>"
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
