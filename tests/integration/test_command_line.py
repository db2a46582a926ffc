"""The command line as a whole: help, options before and after, imports, output, README and crontab."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import environment, run_cli
from office import Connection, Office

from bisonsync.cli import LazyGroup
from bisonsync.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    ["poll-accounts"],
    ["poll-campaigns"],
    ["poll-warmup"],
    ["pull-events"],
    ["snapshot-providers"],
    ["rebuild-counters"],
    ["health"],
    ["prune"],
    ["dashboard"],
    *(["inbox", name] for name in ("list", "show")),
    *(["dead-letters", name] for name in ("list", "show", "retry", "discard")),
    ["alerts", "list"],
    ["alerts", "test"],
    ["runs", "list"],
    ["runs", "show"],
    ["runs", "running"],
    ["init"],
    ["migrate"],
    ["migrate", "up"],
    ["migrate", "plan"],
    ["migrate", "status"],
    *([["workspaces", name] for name in ("discover", "list", "add", "enable", "disable", "verify", "mint-tokens")]),
    *(["webhooks", name] for name in ("ensure", "list", "verify", "test", "remove")),
    ["config", "show"],
    ["config", "check"],
    ["db", "status"],
    ["db", "stop"],
    ["db", "psql"],
    ["schedule", "cron"],
    ["schedule", "systemd"],
    ["receive-webhooks"],
    ["replay-webhooks"],
    ["demo"],
]


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    with Sandbox(workspaces=2, accounts=30, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_within_80_columns(command: list[str]) -> None:
    done = run_cli([*command, "--help"], environment() | {"COLUMNS": "80"})

    assert done.returncode == 0
    assert "Example:" in done.stdout
    assert " ".join(command) in done.stdout.partition("Example:")[2].partition("Options:")[0]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_every_command_is_in_the_table_the_manual_and_the_help() -> None:
    manual = (ROOT / "README.md").read_text()
    shown = run_cli(["--help"], environment()).stdout

    named = {command[0] for command in COMMANDS} | {"sandbox"}
    assert named == set(LazyGroup.names)
    for name in named:
        assert name in shown
        assert name in "".join(line for line in manual.splitlines(keepends=True) if line.startswith("### "))


def test_the_crontab_has_the_jobs_and_nothing_that_cron_would_misread() -> None:
    lines = [line for line in (ROOT / "crontab.example").read_text().splitlines() if line and not line.startswith("#")]

    assert any(" poll-accounts " in line for line in lines)
    for line in lines:
        assert "%" not in line
        fields = line.split()
        assert all(set(field) <= set("0123456789*/,-") for field in fields[:5])
        assert fields[5].startswith("/")
        options = fields[fields.index(next(f for f in fields if f.endswith("/bisonsync"))) + 1 :]
        assert run_cli([*options, "--help"], environment()).returncode == 0


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help_import_nothing_heavy(argument: str) -> None:
    loaded = imports([argument])

    assert not loaded & {"httpx", "psycopg", "pydantic", "rich", "tenacity", "pydantic_settings"}


def test_a_job_with_nothing_to_do_imports_only_the_driver(office: Office) -> None:
    office.conn.execute(
        "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, heartbeat_at, expires_at)"
        " SELECT 'poll-accounts', 'sim', n, gen_random_uuid(), 'elsewhere', 1, now(), now() + interval '1 hour'"
        " FROM generate_series(1, 2) AS n"
    )

    loaded = imports(["poll-accounts", "--skip-if-locked"], office)

    assert "psycopg" in loaded
    assert not loaded & {"httpx", "pydantic", "rich", "tenacity", "pydantic_settings"}


def imports(arguments: list[str], office: Office | None = None) -> set[str]:
    """The top-level modules that a command imports."""
    env = environment(office.dsn, office.sandbox) if office else environment()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bisonsync", *arguments],
        env=env,
        cwd=env["HOME"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_global_options_stand_before_or_after_the_command(office: Office) -> None:
    before = office.run("--json", "-w", "1", "poll-accounts")
    between = office.run("workspaces", "--json", "list")
    after = office.run("poll-accounts", "--json", "-w", "2")
    both = office.run("-w", "1", "poll-accounts", "-w", "2", "--json")

    assert [entry["id"] for entry in before.document["workspaces"]] == [1]
    assert between.counts == {"workspaces_total": 2}
    assert [entry["id"] for entry in after.document["workspaces"]] == [2]
    assert [entry["id"] for entry in both.document["workspaces"]] == [1, 2]


def test_off_a_terminal_success_is_one_line_and_none_with_quiet(office: Office) -> None:
    plain = office.run("poll-accounts")
    quiet = office.run("poll-accounts", "-q")

    assert plain.stdout.count("\n") == 1
    assert (plain.stderr, quiet.stdout, quiet.stderr) == ("", "", "")
    assert "\x1b" not in plain.stdout


def test_the_report_has_the_promised_shape(office: Office) -> None:
    document = office.poll().document

    assert list(document) == [
        "schema_version",
        "job",
        "run_id",
        "verdict",
        "started_at",
        "duration_ms",
        "counts",
        "workspaces",
        "errors",
    ]
    assert document["started_at"].endswith(("+00:00", "Z"))
    assert set(document["counts"]) == {
        "workspaces_total",
        "workspaces_ok",
        "workspaces_failed",
        "workspaces_incomplete",
        "accounts_read",
        "inserted",
        "updated",
        "unchanged",
        "removed",
        "restored",
        "invalid",
        "requests",
        "retries",
        "rate_limited",
    }
    assert set(document["workspaces"][0]) == {"instance", "id", "name", "verdict", "counts", "error"}


def test_log_lines_can_be_json(office: Office) -> None:
    office.sandbox.add_fault("status", status=503, page=1, workspace=1)

    outcome = office.run("poll-accounts", "--log-format", "json", "-q")

    lines = [json.loads(line) for line in outcome.stderr.splitlines()]
    assert outcome.code == 3
    assert {line["level"] for line in lines} == {"error"}
    assert all(line["message"] and line["hint"] and line["time"] for line in lines)


def test_completion_names_the_commands() -> None:
    env = environment() | {
        "_BISONSYNC_COMPLETE": "complete_bash",
        "COMP_WORDS": "bisonsync poll",
        "COMP_CWORD": "1",
    }

    assert "poll-accounts" in run_cli([], env).stdout
