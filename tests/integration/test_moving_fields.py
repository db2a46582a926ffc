"""Unknown fields that move with every read: told, and after three reads no reason to write a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from looking import examine
from mirrored import BOTH, Mirrored
from office import Connection, Office, Outcome

from bisonsync.polling.rows import paths_of
from bisonsync.sandbox import Sandbox


@pytest.fixture(params=BOTH, ids=str)
def office(db: str, conn: Connection, request: pytest.FixtureRequest) -> Iterator[Office]:
    """Two workspaces with 24 and 6 rows of a list, polled once."""
    mirrored: Mirrored = request.param
    rows: dict[str, Any] = {"accounts": 2, "campaigns": 0, mirrored.noun: 30}
    with Sandbox(workspaces=2, skew=(24,), **rows) as sandbox:
        office = Office(sandbox, db, conn, mirrored)
        office.register()
        serve(office, 0)
        assert office.poll().counts["inserted"] == 30
        yield office


def serve(office: Office, moment: int, **fields: Any) -> None:
    """Let every row have a nested field that tells the moment, beside others."""
    office.sandbox.clear_faults()
    avatar = {"url": f"https://example.com/a.png?signed={moment}", "kind": "png"}
    office.damage("fields", set={"avatar": avatar, "plan": "pro"} | fields)


def read(office: Office, moment: int, *arguments: str, env: dict[str, str] | None = None, **fields: Any) -> Outcome:
    serve(office, moment, **fields)
    return office.poll(*arguments, env=env)


def extra(office: Office) -> list[dict[str, Any]]:
    """The different sets of unknown fields that are stored."""
    return [value for (value,) in office.conn.execute(f"SELECT DISTINCT extra FROM {office.list.table}".encode())]


def test_a_field_that_moved_in_three_reads_is_left_out_told_once_and_shown_by_health(office: Office) -> None:
    moving = [read(office, moment) for moment in (1, 2, 3)]
    before = office.writes()
    quiet = [read(office, moment) for moment in (4, 5)]

    assert [outcome.counts["updated"] for outcome in moving + quiet] == [30, 30, 30, 0, 0]
    assert [outcome.code for outcome in moving + quiet] == [0] * 5
    assert office.writes() == before
    told = [outcome.document["errors"] for outcome in moving + quiet]
    assert told[:2] + told[3:] == [[], [], [], []]
    assert [(error["kind"], "avatar.url" in error["message"]) for error in told[2]] == [("notice", True)]
    assert "ignore_fields" in told[2][0]["hint"]
    assert moving[2].stderr.startswith("warning: instance sim: the field avatar.url")
    health = examine(office.dsn, "validation", now=office.one("SELECT now()"))
    assert health.state == "OK"
    of = f"instance sim: the field avatar.url of {office.list.noun} moves with every read and is left out"
    assert of in health.detail
    assert health.hint.endswith('[polling] ignore_fields = ["avatar.url"]')


def test_what_stands_beside_a_field_that_is_left_out_is_written_when_it_changes(office: Office) -> None:
    for moment in (1, 2, 3):
        read(office, moment)

    outcome = read(office, 4, plan="basic")

    assert outcome.counts["updated"] == 30
    assert [(found["plan"], found["avatar"]["url"][-1]) for found in extra(office)] == [("basic", "4")]
    assert read(office, 5, plan="basic").counts["updated"] == 0


@pytest.mark.parametrize("name", ["avatar.url", "avatar"])
def test_an_ignored_field_is_neither_compared_nor_stored(office: Office, name: str) -> None:
    env = {"BISONSYNC_POLLING__IGNORE_FIELDS": f'["{name}"]'}

    outcomes = [read(office, moment, env=env) for moment in (1, 2)]
    changed = read(office, 3, env=env, plan="basic")

    assert [outcome.counts["updated"] for outcome in [*outcomes, changed]] == [0, 0, 30]
    assert extra(office) == [{"plan": "basic"} | ({"avatar": {"kind": "png"}} if "." in name else {})]


def test_a_field_that_is_ignored_is_no_longer_one_that_was_left_out_by_itself(office: Office) -> None:
    for moment in (1, 2, 3):
        read(office, moment)

    read(office, 4, env={"BISONSYNC_POLLING__IGNORE_FIELDS": '["avatar.url"]'})

    assert office.one("SELECT count(*) FROM bisonsync_private.left_out_fields") == 0
    assert examine(office.dsn, "validation", now=office.one("SELECT now()")).detail == "nothing is kept aside"


def test_a_field_that_was_left_out_counts_again_after_a_week_if_it_has_settled(office: Office) -> None:
    for moment in (1, 2, 3, 4):
        read(office, moment)
    office.conn.execute("UPDATE bisonsync_private.left_out_fields SET try_again_at = now()")

    settled = [read(office, moment) for moment in (4, 4)]
    moving = [read(office, moment) for moment in (5, 6, 7, 8)]

    assert [outcome.counts["updated"] for outcome in settled] == [30, 0]
    assert [outcome.counts["updated"] for outcome in moving] == [30, 30, 30, 0]
    assert not any(outcome.document["errors"] for outcome in moving)
    assert office.one("SELECT times FROM bisonsync_private.left_out_fields") == 2


def test_a_field_that_rests_between_reads_is_not_left_out(office: Office) -> None:
    for moment in (1, 2, 2, 3, 4, 4, 5):
        read(office, moment)

    assert office.one("SELECT count(*) FROM bisonsync_private.left_out_fields") == 0


def test_an_unknown_counter_that_moves_with_known_ones_is_not_left_out(office: Office) -> None:
    """Its rows are written anyway."""
    for moment in (1, 2, 3, 4):
        serve(office, 0, opens_today=moment, **{office.list.counter: moment * 100})
        office.poll()

    assert office.one("SELECT count(*) FROM bisonsync_private.left_out_fields") == 0
    assert extra(office)[0]["opens_today"] == 4


def test_a_field_that_moves_in_some_rows_is_not_left_out(office: Office) -> None:
    some = tuple(office.ids()[:12])
    for moment in (1, 2, 3):
        serve(office, 0)
        office.damage("fields", accounts=some, set={"plan": moment})
        office.poll()

    assert office.one("SELECT count(*) FROM bisonsync_private.left_out_fields") == 0


def test_too_few_accounts_to_judge_by_are_a_warning_of_health(office: Office) -> None:
    office.conn.execute("UPDATE client_registry SET is_active = false WHERE bison_workspace_id = 1")
    office.take(*office.ids(2)[4:])

    counts = [read(office, moment).counts["updated"] for moment in (1, 2, 3, 4)]

    health = examine(office.dsn, "validation", now=office.one("SELECT now()"))
    assert counts == [4, 4, 4, 4]
    assert health.state == "WARNING"
    assert (
        f"instance sim: the field avatar.url changed in nearly all of 4 {office.list.noun} at each of the last 4 reads"
        in (health.detail)
    )
    assert health.hint.endswith('[polling] ignore_fields = ["avatar.url"]')


def test_a_dry_run_leaves_nothing_out(office: Office) -> None:
    for moment in (1, 2, 3):
        read(office, moment, "--dry-run")

    assert office.one("SELECT count(*) FROM bisonsync_private.left_out_fields") == 0


def moves(conn: Connection, *pairs: tuple[Any, Any]) -> dict[str, tuple[int, int]]:
    """Fields that moved between old and new: in how many, of how many that have them."""
    jsonb = psycopg.types.json.Jsonb
    rows = conn.execute(
        "SELECT * FROM bisonsync_private.find_moving_fields(%s::jsonb[], %s::jsonb[])",
        [[jsonb(old) for old, _ in pairs], [jsonb(new) for _, new in pairs]],
    ).fetchall()
    return {".".join(path): (moved, present) for path, moved, present in rows}


def test_fields_that_moved_are_found_at_any_depth(conn: Connection) -> None:
    old = {"a": 1, "b": {"c": {"d": 1, "e": 2}, "seen_at": 1}, "l": [{"x": 1}], "seen_at": 1, "n": None}
    new = {"a": 1, "b": {"c": {"d": 9, "e": 2}, "seen_at": 2}, "l": [{"x": 2}], "seen_at": 2, "n": {}}

    assert moves(conn, (old, new), (old, old)) == {"b.c.d": (1, 2), "b.seen_at": (1, 2), "l": (1, 2), "n": (1, 2)}


def test_an_object_whose_names_come_and_go_moves_as_a_whole(conn: Connection) -> None:
    found = moves(conn, ({"days": {"1": 0}, "a": 1}, {"days": {"2": 0}}), ({}, {"b": 1}), ({}, {}))

    assert found == {"days": (1, 1), "a": (1, 1), "b": (1, 1)}


@pytest.mark.parametrize("name", ["plain", "with.dot", 'quote"d', "back\\slash", "a,b", "{x}", "NULL", "ünï"])
def test_any_name_of_a_field_can_be_ignored(conn: Connection, name: str) -> None:
    (path, *_) = paths_of([name])

    assert conn.execute("SELECT %s::text[]", [path]).fetchone() == ([name],)
