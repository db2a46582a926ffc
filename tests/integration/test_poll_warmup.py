"""poll-warmup by the real command line: the figures of a window, and how often they are read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from mirrored import WARMUP
from office import Connection, Office
from sandbox_asking import walk

from bisonsync.sandbox import Sandbox

pytestmark = pytest.mark.stock


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    """Three workspaces with 60 accounts, registered, never polled."""
    with Sandbox(workspaces=3, accounts=60, skew=(40, 15)) as sandbox:
        office = Office(sandbox, db, conn, WARMUP)
        office.register()
        yield office


def let_pass(office: Office, hours: float) -> None:
    """Let the last complete reads be so much older."""
    office.conn.execute(
        "UPDATE workspace_sync_state SET last_complete_at = last_complete_at - %s WHERE resource = 'warmup'",
        [timedelta(hours=hours)],
    )


def stored(office: Office) -> dict[int, dict[str, Any]]:
    """The stored rows by account."""
    rows = office.conn.execute("SELECT bison_account_id, to_jsonb(w) FROM sender_email_warmup AS w")
    return dict(rows.fetchall())


def test_the_figures_are_exactly_those_that_the_api_serves_of_the_window(office: Office) -> None:
    assert office.run("poll-accounts").code == 0

    outcome = office.poll()

    assert (outcome.code, outcome.counts["inserted"], outcome.counts["accounts_read"]) == (0, 60, 60)
    rows = stored(office)
    window = next(iter(rows.values()))
    dates = f"start_date={window['window_start']}&end_date={window['window_end']}"
    served = {
        row["id"]: {name: value for name, value in row.items() if name.startswith("warmup")}
        for number in (1, 2, 3)
        for row in walk(office.sandbox.app, office.sandbox.mint(number), f"/api/warmup/sender-emails?{dates}")
    }
    assert {number: {name: row[name] for name in served[number]} for number, row in rows.items()} == served
    days = "SELECT DISTINCT window_end - window_start, window_end - (now() AT TIME ZONE 'UTC')::date"
    assert office.conn.execute(f"{days} FROM sender_email_warmup").fetchall()[0][0] == 10


def test_what_was_read_completely_in_the_last_six_hours_is_not_asked_for(office: Office) -> None:
    office.poll()
    before = office.writes()

    again = office.poll()
    named = office.poll("-w", "1")
    office.damage("status", status=503, workspace=2)
    let_pass(office, 6)
    later = office.poll()
    office.sandbox.clear_faults()
    last = office.poll()

    assert (again.code, again.counts["requests"]) == (0, 0)
    assert [entry["verdict"] for entry in again.document["workspaces"]] == ["skipped"] * 3
    assert "not due" in again.workspace(1)["error"]
    assert (named.code, named.counts["workspaces_ok"], named.counts["unchanged"]) == (0, 1, 40)
    assert (later.code, later.counts["workspaces_ok"], later.counts["unchanged"]) == (3, 2, 45)
    assert (last.code, last.counts["workspaces_ok"], last.counts["accounts_read"]) == (0, 1, 15)
    assert office.writes() == before


def test_an_account_that_is_no_longer_listed_keeps_its_last_figures(office: Office) -> None:
    office.poll()
    gone = min(office.sandbox.world.workspaces[1].accounts)
    office.sandbox.world.remove(gone)
    before = stored(office)[gone]
    let_pass(office, 6)

    outcome = office.poll()

    assert (outcome.code, outcome.counts["removed"]) == (0, 0)
    assert stored(office)[gone] == before


def test_a_figure_that_is_missing_is_not_the_one_of_another_window(office: Office) -> None:
    office.poll()
    odd = min(office.sandbox.world.workspaces[1].accounts)
    office.damage("fields", accounts=(odd,), drop=("warmup_score",), set={"warmup_daily_limit": "many", "plan": 7})
    let_pass(office, 6)

    outcome = office.poll()

    row = stored(office)[odd]
    assert (outcome.code, outcome.counts["updated"]) == (0, 1)
    assert (row["warmup_score"], row["warmup_daily_limit"], row["extra"]) == (None, odd % 4 * 10 + 10, {"plan": 7})
    assert office.one("SELECT field FROM data_validation_errors WHERE is_note AND source = 'warmup'") == (
        "warmup_daily_limit"
    )
