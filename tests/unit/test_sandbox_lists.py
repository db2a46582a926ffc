"""The list of mailboxes: fifteen a page, newest first, its filters and its neighbours."""

import json
from typing import Any

import pytest
from sandbox_asking import CAMPAIGNS, LIST, ask, ids, read, walk, walk_by_cursor

from bisonsync.sandbox import Config, Fault
from bisonsync.sandbox.app import App


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=3, accounts=130, skew=(100, 20)))


def test_lists_fifteen_a_page_newest_first_whatever_is_asked_for(app: App) -> None:
    pages = [ids(ask(app, f"{LIST}?page={n}&per_page=100&limit=9")) for n in range(1, 8)]

    assert [len(page) for page in pages] == [15] * 6 + [10]
    assert [i for page in pages for i in page] == sorted(app.world.workspaces[1].accounts, reverse=True)


def test_links_name_the_host_that_was_asked(app: App) -> None:
    links = read(ask(app, f"{LIST}?search=a", host="other.example.com:8"))["links"]

    assert links["first"] == "http://other.example.com:8/api/sender-emails?page=1"


def test_ready_made_rows_equal_freshly_made_ones(app: App) -> None:
    plain = ask(app, f"{LIST}?page=2")

    app.faults.add(Fault(kind="meta"))
    fresh = ask(app, f"{LIST}?page=2")

    assert read(fresh) == read(plain)
    assert app.faults.entries[0].hits == 1


def test_a_changed_account_shows_its_new_values_at_once(app: App) -> None:
    account_id = ids(ask(app, LIST))[4]

    app.world.change(account_id, status="Not connected", emails_sent_count=123456)

    row = read(ask(app, LIST))["data"][4]
    assert (row["id"], row["status"], row["emails_sent_count"]) == (account_id, "Not connected", 123456)


@pytest.fixture
def tagged(app: App) -> App:
    """Three mailboxes stand out: the first is red, the second red and blue, the third unusual and without tags."""
    first, second, third = sorted(app.world.workspaces[1].accounts)[:3]
    app.world.retag(first, ["Red"])
    app.world.retag(second, ["Red", "Blue"])
    app.world.change(third, tags=(), status="Pending move", name="Quite Unusual")
    return app


def tag_id(app: App, name: str) -> int:
    tag = app.world.workspaces[1].tag_named(name)
    assert tag is not None
    return tag.id


@pytest.mark.parametrize(
    ("query", "chosen"),
    [
        ("tag_ids[]={red}", {0, 1}),
        ("tag_ids%5B0%5D={red}", {0, 1}),
        ("tag_ids[]={red}&tag_ids[]={blue}", {0, 1}),
        ("tag_ids[]={red}&excluded_tag_ids[]={blue}", {0}),
        ("tag_ids[]={red}&search=nobody", set[int]()),
        ("status=pending_move", {2}),
        ("search=UNUSUAL", {2}),
        ("search=unusual&without_tags=1", {2}),
    ],
)
def test_filters_choose(tagged: App, query: str, chosen: set[int]) -> None:
    known = sorted(tagged.world.workspaces[1].accounts)

    rows = walk(tagged, target=f"{LIST}?{query.format(red=tag_id(tagged, 'Red'), blue=tag_id(tagged, 'Blue'))}")

    assert {row["id"] for row in rows} == {known[number] for number in chosen}


@pytest.mark.parametrize("query", ["excluded_tag_ids[]={red}", "without_tags=true"])
def test_filters_leave_out(tagged: App, query: str) -> None:
    rows = walk(tagged, target=f"{LIST}?{query.format(red=tag_id(tagged, 'Red'))}")

    assert 0 < len(rows) < 100
    assert not any(tag["name"] == "Red" for row in rows for tag in row["tags"])
    assert query != "without_tags=true" or not any(row["tags"] for row in rows)


@pytest.mark.parametrize(
    "query", ["filters[tag_ids][]={red}", "tag_ids={red}", "email=x", "workspace_id=2", "statuss=x"]
)
def test_unknown_filters_are_dropped_in_silence(tagged: App, query: str) -> None:
    assert len(walk(tagged, target=f"{LIST}?{query.format(red=tag_id(tagged, 'Red'))}")) == 100


def test_a_word_that_is_no_status_is_refused(app: App) -> None:
    assert ask(app, f"{LIST}?status=Connected").status == 422


def test_an_older_host_ignores_the_cursor(app: App) -> None:
    assert "next_cursor" in read(ask(app, f"{LIST}?pagination_type=cursor"))["meta"]

    app.config = Config(paging="number")

    assert read(ask(app, f"{LIST}?pagination_type=cursor"))["meta"]["total"] == 100


def test_a_host_under_load_knows_cursors_alone_and_tells_no_total(app: App) -> None:
    app.config = Config(paging="cursor")

    answer = read(ask(app, f"{LIST}?page=3"))

    assert [row["id"] for row in answer["data"]] == app.world.workspaces[1].accounts.order()[:15]
    assert answer["meta"].keys() == {"path", "per_page", "next_cursor", "prev_cursor"}
    assert walk_by_cursor(app) == app.world.truth()[1]


def test_a_host_can_turn_to_another_way_of_paging_after_a_page(app: App) -> None:
    app.faults.add(Fault(kind="turn", page=2, body="cursor"))

    metas = [read(ask(app, f"{LIST}?page={n}"))["meta"] for n in (1, 2, 3)]

    assert ["total" in meta for meta in metas] == [True, True, False]


def test_a_host_can_count_only_so_far_and_go_on_by_cursor(app: App) -> None:
    app.config = Config(total_cap=30)

    meta = read(ask(app, LIST))["meta"]

    assert (meta["total"], meta["last_page"]) == (30, 2)
    assert ids(ask(app, f"{LIST}?page=3")) == []
    assert len(walk_by_cursor(app)) == 100


def test_one_mailbox_is_found_by_id_or_address(app: App) -> None:
    row = read(ask(app, LIST))["data"][7]

    assert read(ask(app, f"{LIST}/{row['id']}"))["data"] == row
    assert read(ask(app, f"{LIST}/{row['email'].replace('@', '%40').upper()}"))["data"] == row


def test_a_mailbox_of_another_workspace_is_not_found(app: App) -> None:
    elsewhere = next(iter(app.world.workspaces[2].accounts))

    missing = ask(app, f"{LIST}/{elsewhere}")

    assert missing.status == 404
    assert json.loads(missing.body)["data"]["record_not_found"] == {"sender_email": str(elsewhere)}


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("search=%2331", lambda row: "#31" in row["name"]),
        ("status=paused", lambda row: row["status"] == "paused"),
        ("tag_ids[]={important}", lambda row: bool(row["tags"])),
        ("workspace_id=2", lambda row: True),
    ],
)
def test_campaigns_are_listed_newest_first_and_chosen_by_filters(query: str, fits: Any) -> None:
    app = App(Config(workspaces=2, accounts=0, campaigns=60, skew=(50,)))
    ids_of_all = sorted(app.world.workspaces[1].campaigns, reverse=True)

    rows = walk(app, target=f"{CAMPAIGNS}?{query.format(important=tag_id(app, 'Important'))}")

    everyone = [app.world.workspaces[1].campaigns[i].row() for i in ids_of_all]
    assert rows == [row for row in everyone if fits(row)] != []


def test_the_newest_campaigns_go_and_come_while_they_are_listed() -> None:
    app = App(Config(workspaces=1, accounts=30, campaigns=40))
    mailboxes = app.world.truth()
    before = list(app.world.workspaces[1].campaigns.order())
    app.faults.add(Fault(kind="shift", path=CAMPAIGNS, page=1, insert=1, remove=2))

    rows = walk(app, target=f"{CAMPAIGNS}?x=1")

    after = app.world.workspaces[1].campaigns.order()
    assert after[0] > before[0]
    assert after[1:] == before[2:]
    assert [row["id"] for row in rows] == before[:15] + before[16:]
    assert app.world.truth() == mailboxes


def test_tags_come_all_at_once_and_are_the_workspaces_own(app: App) -> None:
    for number in range(20):
        app.world.add_tag(app.world.workspaces[1], f"Tag {number}")

    answer = read(ask(app, "/api/tags"))

    assert answer.keys() == {"data"}
    assert [row["id"] for row in answer["data"]] == list(app.world.workspaces[1].tags)
    assert len(answer["data"]) > 20


def warmup(app: App, query: str) -> list[Any]:
    return read(ask(app, f"/api/warmup/sender-emails?{query}"))["data"]


def test_warmup_figures_follow_the_days_asked_for(app: App) -> None:
    one = warmup(app, "start_date=2026-01-01&end_date=2026-01-01")
    ten = warmup(app, "start_date=2026-01-01&end_date=2026-01-10")

    assert [row["warmup_emails_sent"] * 10 for row in one] == [row["warmup_emails_sent"] for row in ten]
    assert any(row["warmup_emails_sent"] for row in one)
    assert [row["warmup_score"] for row in one] != [row["warmup_score"] for row in ten]
    assert ask(app, "/api/warmup/sender-emails?start_date=yesterday").status == 422


def test_warmup_is_filtered_by_its_own_status(app: App) -> None:
    assert {row["warmup_emails_sent"] for row in warmup(app, "warmup_status=disabled")} == {0}
    assert 0 not in {row["warmup_emails_sent"] for row in warmup(app, "warmup_status=enabled")}
