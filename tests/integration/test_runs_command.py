"""runs: what the ledger says, by value: of runs that ended, and of those that say they are running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from cli import environment, run_cli
from psycopg.types.json import Jsonb
from terminal import at_terminal

from bisonsync.store import leases

Connection = psycopg.Connection[Any]

POLL = "11111111-aaaa-4000-8000-000000000001"
MINT = "11111111-bbbb-4000-8000-000000000002"
LOST = "22222222-cccc-4000-8000-000000000003"


def run(conn: Connection, run_id: str, minutes_ago: int, **values: Any) -> None:
    """A run of the ledger that began so long ago, at 12:00 of a day long past if so long is 0."""
    fields = {
        "run_id": run_id,
        "job": "poll-accounts",
        "host": "worker",
        "pid": 77,
        "status": "success",
        "exit_code": 0,
        "duration_ms": 1499,
        "command": "poll-accounts --deadline 4m",
        "version": "1.2.3",
        **values,
    }
    names = ", ".join(fields)
    conn.execute(
        f"INSERT INTO email_sync_logs (started_at, {names}) VALUES ("  # type: ignore[arg-type]
        f"timestamptz '2026-01-05 12:00:00+00' - make_interval(mins => %s), {', '.join(['%s'] * len(fields))})",
        [minutes_ago, *fields.values()],
    )


def problem(number: int) -> dict[str, Any]:
    where = f"sim/{number}"
    return {"kind": "api", "workspace": where, "message": f"page {number} is missing", "hint": "wait"}


@pytest.fixture
def ledger(conn: Connection) -> None:
    """A partial poll with 25 problems, before it a minting that went well, before that a lost run."""
    counts = {"workspaces_total": 2, "accounts_read": 1500, "inserted": 0, "updated": 7, "requests": 100, "odd": 3}
    problems = [problem(number) for number in range(1, 26)]
    values = {"status": "partial", "exit_code": 3, "counts": Jsonb(counts), "errors": Jsonb(problems)}
    run(conn, POLL, 0, **values, workspaces_failed=["sim/2"])
    run(conn, MINT, 5, job="workspaces-mint-tokens", duration_ms=61_000, host="other", command="workspaces mint-tokens")
    run(conn, LOST, 60, status="failed", exit_code=None, duration_ms=7_200_000, lost=True, pid=None, command=None)
    for number, verdict, error in ((1, "complete", None), (2, "incomplete", {"kind": "api", "message": "m"})):
        conn.execute(
            "INSERT INTO email_sync_log_workspaces (run_id, bison_instance, bison_workspace_id, workspace_name,"
            " verdict, counts, error, committed_at, resource) VALUES"
            " (%s, 'sim', %s, %s, %s, %s, %s, timestamptz '2026-01-05 12:00:01+00', 'accounts')",
            (
                POLL,
                number,
                f"Client {number}",
                verdict,
                Jsonb({"inserted": number, "accounts_read": 750}),
                Jsonb(error),
            ),
        )


def show(db: str, *arguments: str) -> tuple[int, str, str]:
    done = run_cli(["runs", *arguments], environment(db))
    return done.returncode, done.stdout, done.stderr


def table(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def document(db: str, *arguments: str) -> dict[str, Any]:
    code, said, _ = show(db, *arguments, "--json")
    assert code == 0
    return json.loads(said)


@pytest.mark.usefixtures("ledger")
def test_list_shows_the_newest_runs_first(db: str) -> None:
    code, said, errors = show(db, "list")

    assert (code, errors) == (0, "")
    done = "2 workspaces total, 1,500 accounts read, 7 updated, 100 requests, 3 odd"
    assert table(said) == [
        ["run", "started (UTC)", "job", "status", "exit", "took", "problems", "host", "what was done"],
        ["11111111", "2026-01-05 12:00:00", "poll-accounts", "partial", "3", "1.5 s", "25", "worker", done],
        ["11111111", "2026-01-05 11:55:00", "workspaces-mint-tokens", "success", "0", "1 min 1 s", "0", "other", ""],
        ["22222222", "2026-01-05 11:00:00", "poll-accounts", "lost", "-", "2 h", "0", "worker", ""],
    ]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("choice", "found"),
    [
        (["--job", "poll-accounts"], [POLL, LOST]),
        (["--status", "failed"], [LOST]),
        (["--job", "poll-accounts", "--status", "partial"], [POLL]),
        (["--limit", "2"], [POLL, MINT]),
        (["--job", "nothing"], []),
    ],
)
def test_list_chooses(db: str, choice: list[str], found: list[str]) -> None:
    shown = document(db, "list", *choice)

    assert [one["run_id"] for one in shown["runs"]] == found
    assert shown["counts"] == {"runs": len(found)}
    assert shown["errors"] == []


@pytest.mark.usefixtures("ledger")
def test_list_without_a_hit_says_so(db: str) -> None:
    assert show(db, "list", "--status", "stopped") == (0, "no such run\n", "")


@pytest.mark.parametrize("wrong", [["--status", "fine"], ["--limit", "0"]])
def test_list_refuses_what_no_run_can_be(db: str, wrong: list[str]) -> None:
    code, said, errors = show(db, "list", *wrong)

    assert (code, said) == (2, "")
    assert wrong[0] == "--limit" or "partial" in errors


@pytest.mark.parametrize("view", ["list", "show"])
def test_an_empty_ledger_does_not_look_fine(db: str, view: str) -> None:
    code, said, errors = show(db, view)

    assert (code, said) == (0, "")
    assert errors == "error: the ledger holds no run yet → run 'bisonsync poll-accounts'\n"
    assert [error["kind"] for error in document(db, view)["errors"]] == ["empty"]


@pytest.mark.usefixtures("ledger")
def test_show_tells_all_of_the_newest_run(db: str) -> None:
    code, said, errors = show(db, "show")

    assert (code, errors) == (0, "")
    facts, workspaces, problems = said.split("\n\n")
    assert table(facts) == [
        ["run", POLL],
        ["job", "poll-accounts"],
        ["status", "partial (exit 3)"],
        ["started", "2026-01-05 12:00:00 UTC"],
        ["took", "1.5 s"],
        ["command", "bisonsync poll-accounts --deadline 4m"],
        ["process", "pid 77 on worker, bisonsync 1.2.3"],
        ["done", "2 workspaces total, 1,500 accounts read, 7 updated, 100 requests, 3 odd"],
    ]
    assert table(workspaces) == [
        ["workspace", "id", "list", "verdict", "committed (UTC)", "accounts read", "inserted"],
        ["Client 1", "sim/1", "accounts", "complete", "2026-01-05 12:00:01", "750", "1"],
        ["Client 2", "sim/2", "accounts", "incomplete", "2026-01-05 12:00:01", "750", "2"],
    ]
    told = [["  api", f"sim/{number}: page {number} is missing → wait"] for number in range(1, 26)]
    assert table(problems) == [["problems"], *told]


@pytest.mark.usefixtures("ledger")
def test_show_as_json_has_the_run_with_its_workspaces(db: str) -> None:
    shown = document(db, "show", POLL)["run"]

    assert shown.pop("errors") == [problem(number) for number in range(1, 26)]
    assert shown.pop("workspaces")[1] == {
        "instance": "sim",
        "id": 2,
        "resource": "accounts",
        "workspace_name": "Client 2",
        "verdict": "incomplete",
        "counts": {"inserted": 2, "accounts_read": 750},
        "error": {"kind": "api", "message": "m"},
        "committed_at": "2026-01-05T12:00:01+00:00",
    }
    assert shown == {
        "run_id": POLL,
        "job": "poll-accounts",
        "host": "worker",
        "pid": 77,
        "status": "partial",
        "exit_code": 3,
        "started_at": "2026-01-05T12:00:00+00:00",
        "finished_at": None,
        "duration_ms": 1499,
        "counts": {
            "workspaces_total": 2,
            "accounts_read": 1500,
            "inserted": 0,
            "updated": 7,
            "requests": 100,
            "odd": 3,
        },
        "workspaces_failed": ["sim/2"],
        "lost": False,
        "command": "poll-accounts --deadline 4m",
        "version": "1.2.3",
    }


@pytest.mark.usefixtures("ledger")
def test_show_finds_a_run_by_the_beginning_of_its_id(db: str) -> None:
    assert document(db, "show", "22")["run"]["run_id"] == LOST
    assert document(db, "show", MINT[:10].upper())["run"]["run_id"] == MINT


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("prefix", "reason"), [("1111", "several runs begin with '1111'"), ("f", "no run begins with 'f'")]
)
def test_show_wants_one_run(db: str, prefix: str, reason: str) -> None:
    code, said, errors = show(db, "show", prefix)

    assert (code, said) == (4, "")
    assert reason in errors
    assert "Traceback" not in errors


def held(conn: Connection, run_id: str, workspace_id: int, seconds: int) -> None:
    conn.execute(
        "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, generation, heartbeat_at, expires_at)"
        " VALUES ('poll-accounts', 'sim', %s, %s, 1, clock_timestamp(),"
        " clock_timestamp() + make_interval(secs => %s))",
        (workspace_id, run_id, seconds),
    )


def test_running_tells_who_is_alive(db: str, conn: Connection) -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        gone, key_of_gone = process.pid, leases.process_key(process.pid)
    here = {"status": "running", "exit_code": None, "duration_ms": None}
    run(conn, POLL, 0, **here, pid=os.getpid(), process_key=leases.process_key())
    run(conn, MINT, 1, **here, job="workspaces-mint-tokens", pid=gone, process_key=key_of_gone)
    run(conn, LOST, 2, **here, process_key="another-boot/pid:[1]/77/12345")
    conn.execute(
        "UPDATE email_sync_logs SET started_at = clock_timestamp() - interval '90 min' WHERE run_id = %s", [POLL]
    )
    held(conn, POLL, 1, 4010)
    held(conn, POLL, 2, 5000)
    held(conn, LOST, 3, -10)

    code, said, _ = show(db, "running")
    shown = document(db, "running")["running"]

    assert code == 0
    heading, *rows = table(said)
    assert heading == ["run", "job", "alive", "age", "leases", "host", "pid", "started (UTC)"]
    assert {row[0]: (row[1], row[2], row[6]) for row in rows if row[0] == "22222222"} == {
        "22222222": ("poll-accounts", "cannot tell", "77")
    }
    alive = {row[7]: row for row in rows}
    assert alive["2026-01-05 11:59:00"][1:3] == ["workspaces-mint-tokens", "no"]
    mine = next(row for row in rows if row[6] == str(os.getpid()))
    assert mine[2:4] == ["yes", "1 h 30 min"]
    assert mine[4] == "2, for 1 h 6 min"
    by_id = {one["run_id"]: one for one in shown}
    assert {name: one["is_alive"] for name, one in by_id.items()} == {POLL: True, MINT: False, LOST: None}
    assert {name: one["leases"] for name, one in by_id.items()} == {POLL: 2, MINT: 0, LOST: 0}
    assert 3960 < by_id[POLL]["lease_ends_in_seconds"] < 4010
    assert by_id[LOST]["lease_ends_in_seconds"] is None
    assert 5400 <= by_id[POLL]["age_seconds"] < 5500


@pytest.mark.usefixtures("ledger")
def test_running_says_when_nothing_runs(db: str) -> None:
    assert show(db, "running") == (0, "no run is under way\n", "")
    assert document(db, "running")["counts"] == {"running": 0}


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_tables_that_fit(db: str, columns: int) -> None:
    listed = at_terminal(["runs", "list"], environment(db), columns=columns)
    shown = at_terminal(["runs", "show"], environment(db), columns=columns)

    assert max(len(line) for line in (*listed.lines, *shown.lines)) <= columns
    assert "\x1b[33mpartial" in listed.raw
    assert "\x1b[31mlost" in listed.raw
    assert listed.line("12:00:00").split()[:4] == ["11111111", "2026-01-05", "12:00:00", "poll-accounts"]
    assert ("25" in listed.line("12:00:00").split()) is (columns == 200)
    assert "\x1b[33mincomplete" in shown.raw
    assert shown.line("page 25 is missing").split()[:2] == ["api", "sim/25:"]


@pytest.mark.parametrize("arguments", [["list"], ["show"], ["running"]])
def test_a_database_that_is_not_migrated_is_an_error(empty_db: str, arguments: list[str]) -> None:
    code, _, errors = show(empty_db, *arguments)

    assert code == 6
    assert "bisonsync migrate" in errors
