"""dashboard: every figure it shows, by value, and what it says when there is nothing good to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from cli import environment, run_cli
from office import Office
from terminal import at_terminal

from bisonsync.sandbox import Sandbox

Connection = psycopg.Connection[Any]

FRESH = ("complete", "20 minutes", 86_400)
STALE = ("guarded", "5 hours 20 minutes", 4 * 3600)
VERY_STALE = ("failed", "3 days 2 hours", 3600)


def workspace(conn: Connection, number: int, name: str, *, active: bool = True, instance: str = "sim") -> None:
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name, is_active)"
        " VALUES (%s, %s, %s, %s)",
        (instance, number, name, active),
    )


def read(
    conn: Connection, number: int, state: tuple[str, str, int], *, instance: str = "sim", total: int = 0, ids: int = 0
) -> None:
    """A list of accounts was last read with this verdict, and completely so long ago."""
    verdict, age, interval = state
    failures, error = (0, None) if verdict == "complete" else (2, f"it was {verdict}")
    conn.execute(
        "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_attempt_at,"
        " last_complete_at, total, distinct_ids, verdict, consecutive_failures, last_error, interval_seconds)"
        " VALUES (%s, %s, 'accounts', now(), now() - %s::interval, %s, %s, %s, %s, %s, %s)",
        (instance, number, age, total, ids, verdict, failures, error, interval),
    )


def account(conn: Connection, number: int, account_id: int, *, instance: str = "sim", **values: Any) -> None:
    fields = {
        "email_address": f"a{account_id}@example.com",
        "status": "Connected",
        "email_provider": "Google",
        "bison_instance": instance,
        "bison_workspace_id": number,
        "bison_account_id": account_id,
        **values,
    }
    names = ", ".join(fields)
    conn.execute(
        f"INSERT INTO sender_emails_cache ({names}) VALUES ({', '.join(['%s'] * len(fields))})",  # type: ignore[arg-type]
        list(fields.values()),
    )


@pytest.fixture
def agency(conn: Connection) -> None:
    """Four workspaces: fresh, guarded and stale, never read, and disabled."""
    workspace(conn, 1, "Amber")
    read(conn, 1, FRESH, total=3, ids=3)
    figures = {"total_replied_count": 40, "unique_replied_count": 30, "bounced_count": 7}
    account(conn, 1, 101, emails_sent_count=1000, **figures)
    account(conn, 1, 102, emails_sent_count=500, email_provider="Microsoft", status="CONNECTED", bounced_count=1)
    account(conn, 1, 103, emails_sent_count=100, status="Not connected", unique_replied_count=2)
    account(conn, 1, 104, emails_sent_count=9999, removed_at="2026-01-01")
    workspace(conn, 2, "Birch")
    read(conn, 2, STALE, total=2, ids=1)
    account(conn, 2, 201, email_provider="Unknown", status=None)
    workspace(conn, 3, "Cedar")
    workspace(conn, 4, "Delta", active=False)
    read(conn, 4, FRESH)
    account(conn, 4, 401, emails_sent_count=10, unique_replied_count=20)


def show(db: str, *arguments: str) -> tuple[int, list[list[dict[str, str]]], str]:
    """Exit code, tables as rows by heading, and stderr."""
    done = run_cli(["dashboard", *arguments], environment(db))
    tables: list[list[dict[str, str]]] = []
    for block in done.stdout.split("\n\n"):
        heading, *rows = [line.split("\t") for line in block.splitlines()] or [[]]
        tables.append([dict(zip(heading, row, strict=True)) for row in rows])
    return done.returncode, tables, done.stderr


def document(db: str, *arguments: str) -> dict[str, Any]:
    done = run_cli(["dashboard", *arguments, "--json"], environment(db))
    assert done.returncode == 0
    return json.loads(done.stdout)


@pytest.mark.usefixtures("agency")
def test_accounts_shows_every_figure_of_every_workspace(db: str) -> None:
    code, (workspaces, providers), said = show(db, "accounts")

    assert code == 0
    columns = ["workspace", "id", "accounts", "connected", "disconnected", "sent", "replies", "unique replies"]
    columns += ["unique replies / sent %", "bounced", "last complete read", "state", "providers"]
    assert [list(row.values()) for row in workspaces] == [
        ["Amber", "sim/1", "3", "2", "1", "1600", "40", "32", "2.00", "8", "20 min", "fresh", "Google 2, Microsoft 1"],
        ["Birch", "sim/2", "1", "0", "1", "0", "0", "0", "-", "0", "5 h", "stale, guarded", "Unknown 1"],
        ["Cedar", "sim/3", "0", "0", "0", "0", "0", "0", "-", "0", "-", "never", ""],
        ["Delta", "sim/4", "1", "1", "0", "10", "0", "20", "200.00", "0", "20 min", "disabled", "Google 1"],
        ["all", "", "5", "3", "2", "1610", "40", "52", "3.23", "8", "", "", ""],
    ]
    assert list(workspaces[0]) == columns
    assert [list(row.values()) for row in providers] == [
        ["Google", "3", "2", "1", "1110", "40", "52", "4.68", "7"],
        ["Microsoft", "1", "1", "0", "500", "0", "0", "0.00", "1"],
        ["Unknown", "1", "0", "1", "0", "0", "0", "-", "0"],
    ]
    assert list(providers[0]) == ["provider", *columns[2:10]]
    assert said == "warning: 2 of 4 workspaces are not fresh and complete → bisonsync dashboard freshness\n"


@pytest.mark.usefixtures("agency")
def test_accounts_as_json_has_the_same_figures(db: str) -> None:
    shown = document(db, "accounts")

    assert (shown["schema_version"], shown["job"], shown["verdict"]) == (1, "dashboard-accounts", "success")
    amber = shown["accounts"][0]
    assert 1200 <= amber.pop("age_seconds") < 1300
    assert amber.pop("as_of").endswith("+00:00")
    assert amber == {
        "instance": "sim",
        "id": 1,
        "name": "Amber",
        "accounts": 3,
        "connected": 2,
        "disconnected": 1,
        "sent": 1600,
        "replies": 40,
        "unique_replies": 32,
        "bounced": 8,
        "reply_rate": 2.0,
        "providers": {"Google": 2, "Microsoft": 1},
        "state": "fresh",
        "verdict": "complete",
        "is_complete": True,
    }
    assert [(one["state"], one["verdict"], one["is_complete"]) for one in shown["accounts"][1:]] == [
        ("stale", "guarded", False),
        ("never", None, False),
        ("disabled", None, False),
    ]
    assert [one["reply_rate"] for one in shown["accounts"]] == [2.0, None, None, 200.0]
    totals = {"accounts": 5, "connected": 3, "disconnected": 2, "sent": 1610, "replies": 40, "unique_replies": 52}
    assert shown["totals"] == {**totals, "bounced": 8, "reply_rate": 3.23}
    assert shown["counts"] == {"workspaces_total": 4, **totals, "bounced": 8}
    assert [one["provider"] for one in shown["providers"]] == ["Google", "Microsoft", "Unknown"]


@pytest.mark.usefixtures("agency")
def test_without_a_word_it_shows_the_accounts(db: str) -> None:
    bare = run_cli(["dashboard"], environment(db))

    assert bare.stdout == run_cli(["dashboard", "accounts"], environment(db)).stdout


@pytest.mark.usefixtures("agency")
def test_a_display_name_is_shown_instead_of_the_platform_s(db: str, conn: Connection) -> None:
    conn.execute("UPDATE client_registry SET display_name = 'Our best client' WHERE bison_workspace_id IN (1, 3)")

    names = [one["name"] for one in document(db, "accounts")["accounts"]]

    assert names == ["Our best client", "Birch", "Our best client", "Delta"]
    assert document(db, "freshness")["freshness"][0]["name"] == "Our best client"


@pytest.mark.usefixtures("agency")
def test_the_same_id_in_two_instances_is_two_workspaces(db: str, conn: Connection) -> None:
    workspace(conn, 1, "Amber", instance="other")
    account(conn, 1, 101, instance="other", emails_sent_count=5)
    read(conn, 1, FRESH, instance="other")

    everything = document(db, "accounts")
    one = document(db, "accounts", "-w", "other/1")
    instance = document(db, "accounts", "--instance", "sim")

    assert [(row["instance"], row["id"]) for row in everything["accounts"]][:2] == [("other", 1), ("sim", 1)]
    assert [row["sent"] for row in one["accounts"]] == [5]
    assert one["totals"]["sent"] == 5
    assert [row["id"] for row in instance["accounts"]] == [1, 2, 3, 4]
    assert document(db, "freshness", "-w", "other/1")["counts"]["lists"] == 1


@pytest.mark.usefixtures("agency")
def test_a_workspace_that_is_unknown_is_an_error(db: str) -> None:
    done = run_cli(["dashboard", "-w", "Ambre"], environment(db))

    assert done.returncode == 4
    assert done.stdout == ""
    assert "did you mean 'Amber'" in done.stderr


@pytest.mark.usefixtures("agency")
def test_all_fresh_and_complete_needs_no_warning(db: str) -> None:
    code, (workspaces, _), said = show(db, "accounts", "-w", "1", "-w", "4")

    assert (code, said) == (0, "")
    assert [row["state"] for row in workspaces] == ["fresh", "disabled", ""]


@pytest.mark.parametrize("view", ["accounts", "freshness"])
def test_an_empty_database_does_not_look_fine(db: str, view: str) -> None:
    done = run_cli(["dashboard", view], environment(db))

    assert done.returncode == 0
    assert "run 'bisonsync workspaces discover'" in done.stderr
    assert [error["kind"] for error in document(db, view)["errors"]] == ["empty"]


def test_workspaces_that_were_never_read_do_not_look_fine(db: str, conn: Connection) -> None:
    workspace(conn, 1, "Amber")

    code, (workspaces, _), said = show(db, "accounts")

    assert code == 0
    assert [row["state"] for row in workspaces] == ["never", ""]
    assert said == "error: no workspace was ever read completely → run 'bisonsync poll-accounts'\n"


@pytest.mark.parametrize("view", ["accounts", "freshness"])
def test_a_database_that_is_not_migrated_is_an_error(empty_db: str, view: str) -> None:
    done = run_cli(["dashboard", view], environment(empty_db))

    assert done.returncode == 6
    assert "bisonsync migrate" in done.stderr


def test_accounts_of_no_registered_workspace_are_not_hidden(db: str, conn: Connection) -> None:
    account(conn, 9, 901, emails_sent_count=3)

    shown = document(db, "accounts")

    assert [(one["id"], one["state"], one["sent"]) for one in shown["accounts"]] == [(9, "unregistered", 3)]


@pytest.mark.usefixtures("agency")
def test_freshness_shows_every_list(db: str, conn: Connection) -> None:
    workspace(conn, 5, "Elm")
    read(conn, 5, VERY_STALE, total=1234, ids=1234)

    code, (lists,), said = show(db, "freshness")

    assert (code, said) == (0, "")
    columns = ["workspace", "id", "list", "state", "last attempt", "last complete read", "every", "records"]
    assert list(lists[0]) == [*columns, "failures in a row", "last error"]
    assert [list(row.values()) for row in lists] == [
        ["Amber", "sim/1", "accounts", "fresh", "complete", "20 min", "1 d", "3", "0", ""],
        ["Birch", "sim/2", "accounts", "stale", "guarded", "5 h", "4 h", "1 of 2", "2", "it was guarded"],
        ["Cedar", "sim/3", "accounts", "never", "none", "-", "3 min", "-", "0", ""],
        ["Elm", "sim/5", "accounts", "very stale", "failed", "3 d", "1 h", "1234", "2", "it was failed"],
    ]


@pytest.mark.usefixtures("agency")
def test_freshness_as_json_has_the_same(db: str) -> None:
    shown = document(db, "freshness")

    assert shown["counts"] == {"fresh": 1, "stale": 1, "very_stale": 0, "never": 1, "lists": 3, "incomplete": 2}
    birch = shown["freshness"][1]
    assert 19_200 <= birch.pop("age_seconds") < 19_300
    assert birch.pop("as_of") < birch.pop("last_attempt_at")
    assert birch == {
        "instance": "sim",
        "id": 2,
        "name": "Birch",
        "resource": "accounts",
        "state": "stale",
        "verdict": "guarded",
        "is_complete": False,
        "interval_seconds": 14_400,
        "total": 2,
        "distinct_ids": 1,
        "consecutive_failures": 2,
        "last_error": "it was guarded",
    }


@pytest.mark.usefixtures("agency")
@pytest.mark.parametrize("view", ["accounts", "freshness"])
@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_a_table_that_fits(db: str, conn: Connection, view: str, columns: int) -> None:
    conn.execute("UPDATE sender_emails_cache SET emails_sent_count = 1234567 WHERE bison_account_id = 101")
    conn.execute("UPDATE client_registry SET workspace_name = 'Amber & Sons, Accounting' WHERE bison_workspace_id = 1")

    screen = at_terminal(["dashboard", view], environment(db), columns=columns)

    assert screen.code == 0
    assert max(len(line) for line in screen.lines if "warning" not in line) <= columns
    text = " ".join(" ".join(screen.lines).split())
    wanted = {"accounts": ["1,235,167", "stale,", "guarded"], "freshness": ["stale guarded", "it was guarded"]}
    wide = {"accounts": ["Google 2, Microsoft 1", "sim/1"], "freshness": ["1 of 2", "in a row"]}
    for words in [*wanted[view], *(wide[view] if columns == 200 else []), "Amber & Sons,"]:
        assert words in text
    # The colour comes with the word and never instead of it.
    assert "\x1b[32mfresh" in screen.raw
    assert "\x1b[31mnever" in screen.raw


@pytest.mark.usefixtures("agency")
@pytest.mark.parametrize("off", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_colour_can_be_switched_off(db: str, off: dict[str, str]) -> None:
    arguments = ["dashboard", "accounts", *([] if off else ["--no-color"])]

    screen = at_terminal(arguments, environment(db, **off), columns=120)

    assert "fresh" in screen.raw
    assert "\x1b[3" not in screen.raw


def test_a_name_is_never_read_as_markup_or_as_columns(db: str, conn: Connection) -> None:
    workspace(conn, 1, "[red]a\tb[/red]")
    read(conn, 1, FRESH)

    _, (workspaces, _), _ = show(db, "accounts")
    screen = at_terminal(["dashboard", "accounts"], environment(db), columns=100)

    assert workspaces[0]["workspace"] == "[red]a b[/red]"
    assert any(line.startswith("[red]a") for line in screen.lines)


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    with Sandbox(workspaces=2, accounts=40) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


def test_after_a_poll_it_shows_what_the_host_holds(office: Office) -> None:
    assert office.poll().code == 0

    shown = document(office.dsn, "accounts")

    rows = [row for rows in office.sandbox.truth().values() for row in rows]
    assert shown["totals"]["accounts"] == len(rows) == 40
    assert shown["totals"]["sent"] == sum(row["emails_sent_count"] for row in rows)
    assert shown["totals"]["unique_replies"] == sum(row["unique_replied_count"] for row in rows)
    assert shown["totals"]["connected"] == sum(row["status"] == "Connected" for row in rows)
    assert {one["state"] for one in shown["accounts"]} == {"fresh"}
    assert shown["errors"] == []
