"""What is printed may be lost, or hold letters that the encoding lacks: the work and its exit code stay as they are."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from cli import environment, run_cli, run_into
from plugin_line import read_line

Connection = psycopg.Connection[Any]

NAME = "Zażółć Größe → …"


@pytest.fixture
def named(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('sim', 1, %s)", [NAME]
    )


@pytest.mark.parametrize("where", ["2>/dev/full", ">&- 2>&-", "| true", ">/dev/full 2>/dev/full"])
def test_a_job_ends_as_its_ledger_says(db: str, conn: Connection, where: str) -> None:
    codes = [run_into(f"{job} -v", where, environment(db)) for job in ("prune", "poll-accounts")]

    told = conn.execute("SELECT job, exit_code, status FROM email_sync_logs ORDER BY started_at").fetchall()
    assert codes == [0, 4]
    assert told == [("prune", 0, "success"), ("poll-accounts", 4, "failed")]


@pytest.mark.parametrize(("where", "code"), [(">/dev/full", 1), ("| true", 0), (">&- 2>&-", 0)])
def test_only_a_full_disk_fails_what_does_nothing_but_print(db: str, where: str, code: int) -> None:
    commands = ("config show", "--version")

    assert {run_into(command, where, environment(db)) for command in commands} == {code}


def test_what_is_committed_without_a_ledger_stays_a_success(empty_db: str) -> None:
    assert run_into("migrate", ">/dev/full", environment(empty_db)) == 0


def test_a_wrong_command_line_stays_one(db: str) -> None:
    assert [run_into("--bogus", where, environment(db)) for where in ("2>&-", "2>/dev/full")] == [2, 2]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.usefixtures("named")
def test_a_letter_that_the_encoding_lacks_is_shown_as_an_escape(db: str, encoding: str) -> None:
    env = environment(db, PYTHONIOENCODING=encoding)

    listed = run_cli(["workspaces", "list", "--json"], env)
    shown = run_cli(["workspaces", "list"], env)
    looked = run_cli(["health", "--nagios", "freshness"], env)
    failed = run_cli(["poll-accounts", "-w", NAME, "--log-format", "json"], env)

    assert NAME in str(json.loads(listed.stdout))
    assert "Gr" in shown.stdout
    assert read_line(looked.stdout.rstrip("\n"))[0] == "CRITICAL"
    assert json.loads(failed.stderr.splitlines()[0])["level"] == "error"
    assert [done.returncode for done in (listed, shown, looked, failed)] == [0, 0, 2, 4]
    assert "Traceback" not in shown.stderr + looked.stderr + failed.stderr


@pytest.mark.parametrize("form", ["--json", "--nagios", ""])
@pytest.mark.usefixtures("named")
def test_a_look_at_everything_ends_in_plain_letters_too(db: str, form: str) -> None:
    done = run_cli(["health", *form.split()], environment(db, PYTHONIOENCODING="ascii"))

    assert done.returncode in (2, 3)
    assert done.stdout.isascii()
    assert "Traceback" not in done.stderr
