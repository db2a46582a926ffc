"""The same seed makes the same world, of the size and shape that was asked for."""

from collections import Counter
from dataclasses import replace

import pytest

from bisonsync.sandbox import Config, World
from bisonsync.sandbox.app import App
from bisonsync.sandbox.seed import sizes, workspace_name
from bisonsync.sandbox.state import rng


def world(**fields: object) -> World:
    return App(replace(Config(workspaces=4, accounts=120), **fields)).world  # type: ignore[arg-type]


def test_same_seed_makes_the_same_world() -> None:
    one, same, other = world(seed=5), world(seed=5), world(seed=6)

    assert one.truth() == same.truth()
    assert [w.row() for w in one.workspaces.values()] == [w.row() for w in same.workspaces.values()]
    assert one.mint(2).plain == same.mint(2).plain
    assert one.truth() != other.truth()


def test_default_is_an_agency_of_27_workspaces_with_a_giant_and_a_big_one() -> None:
    agency = App(Config()).world

    counts = [len(w.accounts) for w in agency.workspaces.values()]
    assert (len(counts), sum(counts), counts[0], counts[1]) == (27, 4050, 1600, 433)
    assert max(counts[2:]) < 433
    assert min(counts[2:]) > 0


@pytest.mark.parametrize(
    ("skew", "expected"),
    [((), 10), ((0.5,), 50), ((30, 20), 30), ((500,), 100), ((0.9, 0.9), 90)],
)
def test_shares_accounts_out_to_the_last_one(skew: tuple[float, ...], expected: int) -> None:
    shared = sizes(100, 10, skew, rng("sizes"))

    assert (len(shared), sum(shared)) == (10, 100)
    assert min(shared) >= 0
    assert shared[0] == expected if skew else shared[0] < 30


@pytest.mark.parametrize(("workspaces", "accounts"), [(1, 50), (3, 0), (50, 7)])
def test_makes_small_and_empty_worlds(workspaces: int, accounts: int) -> None:
    small = world(workspaces=workspaces, accounts=accounts)

    assert len(small.workspaces) == workspaces
    assert sum(len(w.accounts) for w in small.workspaces.values()) == accounts


def test_ids_addresses_and_names_never_repeat() -> None:
    big = world(workspaces=30, accounts=3000)

    rows = [row for rows in big.truth().values() for row in rows]
    assert len({row["id"] for row in rows}) == 3000
    assert len({row["email"] for row in rows}) == 3000
    assert len({workspace_name(n) for n in range(1000)}) == 1000
    assert all(row["email"].endswith(".example.com") for row in rows)


def test_mailboxes_look_like_an_agencys() -> None:
    rows = [row for rows in world(accounts=2000).truth().values() for row in rows]

    tags = {tag["name"] for row in rows for tag in row["tags"]}
    assert {"Google", "Microsoft", "Outlook", "Gmail", "live"} <= tags
    assert all(any(reseller in tag for tag in tags) for reseller in ("CheapInboxes", "Zapmail", "ScaledMail", "Mailr"))
    assert Counter(row["type"] for row in rows).keys() == {"google_workspace_oauth", "microsoft_oauth", "Inbox"}
    assert 20 < sum(row["status"] == "Not connected" for row in rows) < 120
    for row in rows:
        assert row["unique_replied_count"] <= row["total_replied_count"] <= row["emails_sent_count"]
        assert row["interested_leads_count"] <= row["unique_replied_count"]
        assert row["created_at"] <= row["updated_at"]


def test_a_tag_has_another_id_in_each_workspace() -> None:
    google = [w.tag_named("Google") for w in world().workspaces.values()]

    assert len({tag.id for tag in google if tag}) == 4
