"""Time moves on as asked, the same for the same seed, and every walk reads the truth afterwards."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_asking import CAMPAIGNS, walk, walk_by_cursor

from bisonsync.sandbox import Advance, Config
from bisonsync.sandbox.advance import advance, advance_from, change_some
from bisonsync.sandbox.app import App
from bisonsync.sandbox.rows import COUNTERS

QUIET = {"active": 0.0, "come": 0, "go": 0, "disconnect": 0, "reconnect": 0, "move": 0, "retag": 0}
QUIET |= {"campaigns_come": 0, "campaigns_go": 0, "campaigns_turn": 0}
SOME = st.none() | st.integers(0, 4)
STEPS = st.builds(
    Advance,
    minutes=st.floats(0, 3000),
    active=st.floats(0, 1),
    come=SOME,
    go=SOME,
    disconnect=SOME,
    reconnect=SOME,
    move=SOME,
    retag=SOME,
    rename=st.integers(0, 2),
    campaigns_come=SOME,
    campaigns_go=SOME,
    campaigns_turn=SOME,
    seed=st.none() | st.integers(0, 5),
)


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=4, accounts=200))


def rows_of(app: App) -> dict[int, dict[str, Any]]:
    return {row["id"]: {**row, "workspace": w} for w, rows in app.world.truth().items() for row in rows}


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS | st.integers(0, 100), max_size=4), st.integers(0, 3))
def test_a_full_walk_reads_the_truth_after_any_sequence_of_steps(steps: list[Advance | int], seed: int) -> None:
    app = App(Config(workspaces=3, accounts=70, campaigns=70, seed=seed))
    tokens = {w: app.world.mint(w).plain for w in app.world.workspaces}
    for token in tokens.values():  # so that rows are ready-made and could be stale
        walk(app, token)
        walk(app, token, f"{CAMPAIGNS}?x=1")

    for step in steps:
        if isinstance(step, Advance):
            advance(app.world, step)
        else:
            change_some(app.world, percent=step)
            change_some(app.world, percent=step, campaigns=True)

    for workspace_id, rows in app.world.truth().items():
        assert walk(app, tokens[workspace_id]) == rows
        assert walk_by_cursor(app, tokens[workspace_id]) == rows
    for workspace_id, rows in app.world.campaigns().items():
        assert walk(app, tokens[workspace_id], f"{CAMPAIGNS}?x=1") == rows
        assert walk_by_cursor(app, tokens[workspace_id], CAMPAIGNS) == rows


def test_the_same_steps_lead_to_the_same_world_and_other_seeds_elsewhere() -> None:
    def run(seed: int | None) -> Any:
        world = App(Config(workspaces=4, accounts=200)).world
        for _ in range(3):
            advance(world, Advance(minutes=1440, rename=1, seed=seed))
        change_some(world, count=5)
        return world.truth(), world.campaigns(), [w.name for w in world.workspaces.values()]

    assert run(None) == run(None)
    assert run(None) != run(7)


def test_counters_grow_and_never_fall(app: App) -> None:
    before = rows_of(app)

    counts = advance(app.world, Advance(**{**QUIET, "minutes": 1440, "active": 1.0}))

    after = rows_of(app)
    grown = [i for i in after if after[i]["emails_sent_count"] > before[i]["emails_sent_count"]]
    assert len(grown) == counts["grown"] > 100
    assert all(after[i][name] >= before[i][name] for i in after for name in COUNTERS)
    assert all(before[i]["status"] == "Connected" for i in grown)
    assert all(after[i] == before[i] for i in after if i not in grown)


@pytest.mark.parametrize("what", ["come", "go", "disconnect", "reconnect", "move", "retag"])
def test_each_thing_happens_to_as_many_accounts_as_asked(app: App, what: str) -> None:
    for row in app.world.truth()[2]:
        app.world.change(row["id"], status="Not connected")
    before = rows_of(app)

    counts = advance(app.world, Advance(**{**QUIET, what: 3}))

    after = rows_of(app)
    both = before.keys() & after.keys()

    def changed(name: str) -> int:
        return sum(before[i][name] != after[i][name] for i in both)

    connected = sum(after[i]["status"] == "Connected" for i in both) - sum(
        before[i]["status"] == "Connected" for i in both
    )
    found = {
        "come": len(after.keys() - both),
        "go": len(before.keys() - both),
        "disconnect": max(0, -connected),
        "reconnect": max(0, connected),
        "move": changed("workspace"),
        "retag": changed("tags") - changed("workspace"),
    }
    if what == "move":  # a moved account has tags of its new workspace
        found["retag"] = 0
    assert found == {**dict.fromkeys(found, 0), what: 3}
    assert counts == {**dict.fromkeys(counts, 0), what: 3}


def test_campaigns_come_go_pause_and_send_and_leave_the_mailboxes_alone(app: App) -> None:
    before = {row["id"]: row for rows in app.world.campaigns().values() for row in rows}
    mailboxes = rows_of(app)

    step = Advance(**{**QUIET, "campaigns_come": 3, "campaigns_go": 2, "campaigns_turn": 4})
    counts = advance(app.world, step)
    advance(app.world, Advance(**{**QUIET, "active": 1.0, "minutes": 60}))

    after = {row["id"]: row for rows in app.world.campaigns().values() for row in rows}
    both = before.keys() & after.keys()
    assert (len(after.keys() - both), len(before.keys() - both)) == (3, 2)
    assert counts["campaigns_turn"] == 4 >= sum(before[i]["status"] != after[i]["status"] for i in both) > 0
    grown = {i for i in both if after[i]["emails_sent"] > before[i]["emails_sent"]}
    assert {after[i]["status"] for i in grown} == {"active"}
    assert {
        i: row for i, row in rows_of(app).items() if row["emails_sent_count"] < mailboxes[i]["emails_sent_count"]
    } == {}
    assert rows_of(app).keys() == mailboxes.keys()


@pytest.mark.parametrize("only_updated_at", [False, True])
def test_exactly_so_many_campaigns_change(app: App, only_updated_at: bool) -> None:
    before = {row["id"]: row for rows in app.world.campaigns().values() for row in rows}

    changed = change_some(app.world, count=5, campaigns=True, only_updated_at=only_updated_at)

    after = {row["id"]: row for rows in app.world.campaigns().values() for row in rows}
    assert [i for i in sorted(after) if after[i] != before[i]] == sorted(changed)
    assert all((after[i]["emails_sent"] == before[i]["emails_sent"]) == only_updated_at for i in changed)


def test_no_more_happens_than_can(app: App) -> None:
    counts = advance(app.world, Advance(**{**QUIET, "go": 1000}))

    assert counts["go"] == 200
    assert rows_of(app) == {}


def test_a_moved_account_keeps_its_id_and_takes_tags_of_its_new_workspace(app: App) -> None:
    account_id = app.world.workspaces[1].accounts.order()[0]
    app.world.retag(account_id, ["Google", "Very own"])

    moved = app.world.move(account_id, 3)

    assert account_id not in app.world.workspaces[1].accounts
    assert [tag.name for tag in moved.tags] == ["Google", "Very own"]
    assert all(tag in app.world.workspaces[3].tags.values() for tag in moved.tags)


def test_a_move_always_leads_elsewhere() -> None:
    app = App(Config(workspaces=2, accounts=40))
    before = rows_of(app)

    advance(app.world, Advance(**{**QUIET, "move": 40}))

    after = rows_of(app)
    assert after.keys() == before.keys()
    assert all(after[i]["workspace"] == 3 - before[i]["workspace"] for i in after)


def test_a_move_to_where_it_is_loses_nothing(app: App) -> None:
    account = app.world.workspaces[1].accounts[app.world.workspaces[1].accounts.order()[0]]

    assert app.world.move(account.id, 1) == account
    assert app.world.workspaces[1].accounts[account.id] == account


@pytest.mark.parametrize("new_id", [True, False])
def test_the_same_mailbox_can_be_in_two_workspaces(app: App, new_id: bool) -> None:
    account_id = app.world.workspaces[1].accounts.order()[0]

    copy = app.world.copy_to(account_id, 2, new_id=new_id)

    assert (copy.id == account_id) is not new_id
    assert copy.email == app.world.workspaces[1].accounts[account_id].email
    assert len(app.world.workspaces[1].accounts) + len(app.world.workspaces[2].accounts) == (
        len(App(Config(workspaces=4, accounts=200)).world.workspaces[1].accounts)
        + len(App(Config(workspaces=4, accounts=200)).world.workspaces[2].accounts)
        + 1
    )


def test_renamed_workspaces_keep_their_ids_and_get_free_names(app: App) -> None:
    before = {w.id: w.name for w in app.world.workspaces.values()}

    advance(app.world, Advance(**{**QUIET, "rename": 2}))

    after = {w.id: w.name for w in app.world.workspaces.values()}
    assert sum(before[i] != after[i] for i in before) == 2
    assert len(set(after.values())) == 4


@pytest.mark.parametrize(
    ("fields", "expected"), [({"percent": 2}, 4), ({"percent": 100}, 200), ({"count": 7}, 7), ({"percent": 0}, 0)]
)
def test_exactly_so_many_accounts_change(app: App, fields: dict[str, Any], expected: int) -> None:
    before = rows_of(app)

    changed = change_some(app.world, **fields)

    after = rows_of(app)
    really = [i for i in after if any(after[i][name] != before[i][name] for name in COUNTERS)]
    assert len(changed) == expected
    assert sorted(changed) == sorted(really)
    assert [i for i in after if after[i] != before[i]] == really


def test_accounts_can_move_without_changing(app: App) -> None:
    before = rows_of(app)

    touched = change_some(app.world, count=10, workspace_id=1, only_updated_at=True)

    after = rows_of(app)
    assert {i for i in after if after[i]["updated_at"] != before[i]["updated_at"]} == set(touched)
    assert all({**after[i], "updated_at": ""} == {**before[i], "updated_at": ""} for i in after)
    assert all(after[i]["workspace"] == 1 for i in touched)


@pytest.mark.parametrize("fields", [{}, {"percent": 1, "count": 1}, {"count": 201}])
def test_a_change_that_cannot_be_is_refused(app: App, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"percent or count|only 200"):
        change_some(app.world, **fields)


@pytest.mark.parametrize("values", [{"hours": 3}, {"minutes": -1}, {"active": 2}])
def test_a_step_that_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown hours|not negative"):
        advance_from(values)
