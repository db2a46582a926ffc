"""Each fault does what it says, to the requests it is addressed to and as often as it says."""

import json
from typing import Any, get_args

import pytest
from sandbox_asking import LIST, SUPER_ADMIN, ask, ids, read, walk

from bisonsync.sandbox import Config, Fault
from bisonsync.sandbox.app import App
from bisonsync.sandbox.effects import _CONTENT
from bisonsync.sandbox.faults import Content, Rows, fault_from


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=3, accounts=130, skew=(60, 40)))


def statuses(app: App, *targets: str, token: str = SUPER_ADMIN) -> list[int]:
    return [ask(app, target, token).status for target in targets]


def test_fails_the_first_two_requests_of_page_three_of_workspace_two(app: App) -> None:
    app.faults.add(Fault(kind="status", status=503, page=3, workspace=2, times=2))
    one, two = app.world.mint(1).plain, app.world.mint(2).plain
    page3 = f"{LIST}?page=3"

    assert statuses(app, page3, page3, token=one) == [200, 200]
    assert statuses(app, LIST, page3, f"{LIST}?page=2", page3, page3, token=two) == [200, 503, 200, 503, 200]
    assert (app.faults.entries[0].seen, app.faults.entries[0].hits) == (3, 2)


def test_addresses_by_path_method_depth_and_turn(app: App) -> None:
    app.faults.add(Fault(kind="status", status=500, path="/api/workspaces"))
    app.faults.add(Fault(kind="status", status=502, method="POST"))
    app.faults.add(Fault(kind="status", status=422, from_page=3))
    app.faults.add(Fault(kind="status", status=504, path="/api/users", after=1, times=1))

    assert statuses(app, "/api/workspaces/v1.1", "/api/workspaces/2", "/api/tags") == [500, 500, 200]
    assert ask(app, "/api/users", method="POST").status == 502
    assert statuses(app, f"{LIST}?page=2", f"{LIST}?page=3", f"{LIST}?page=9") == [200, 422, 422]
    assert statuses(app, "/api/users", "/api/users", "/api/users") == [200, 504, 200]


def test_a_page_by_cursor_has_no_number(app: App) -> None:
    app.faults.add(Fault(kind="status", page=1))

    assert statuses(app, f"{LIST}?pagination_type=cursor&cursor=x", LIST) == [200, 500]


def test_what_happens_to_lists_spares_single_mailboxes(app: App) -> None:
    app.faults.add(Fault(kind="statuses", words=("Flying",)))
    row = read(ask(app, LIST))["data"][0]

    assert row["status"] == "Flying"
    assert read(ask(app, f"{LIST}/{row['id']}"))["data"]["status"] != "Flying"


@pytest.mark.parametrize("kind", ["empty_page", "shift"])
def test_a_request_that_is_not_served_uses_up_no_fault_of_its_content(app: App, kind: Any) -> None:
    app.faults.add(Fault(kind="status", times=1))
    app.faults.add(Fault(kind=kind, times=1, insert=1))

    ask(app, LIST)
    assert app.faults.entries[1].hits == 0
    ask(app, LIST)
    assert app.faults.entries[1].hits == 1


def test_a_workspace_named_in_the_path_is_the_one_addressed(app: App) -> None:
    app.faults.add(Fault(kind="status", status=403, workspace=3))

    assert ask(app, "/api/workspaces/v1.1/3/api-tokens", method="POST", body={"name": "x"}).status == 403
    assert ask(app, "/api/workspaces/v1.1/2/api-tokens", method="POST", body={"name": "x"}).status == 200


def test_a_rate_hits_that_share_and_the_same_ones_for_the_same_seed() -> None:
    def run() -> list[int]:
        app = App(Config(workspaces=1, accounts=1, faults=(Fault(kind="status", rate=0.2, statuses=(500, 502, 503)),)))
        return [ask(app, "/api/users").status for _ in range(300)]

    first = run()

    assert first == run()
    assert 30 < sum(status != 200 for status in first) < 90
    failures = [status for status in first if status != 200]
    assert failures[:4] == [500, 502, 503, 500]


def test_only_the_first_fault_that_takes_the_place_of_a_request_is_used_up(app: App) -> None:
    app.faults.add(Fault(kind="status", status=503, times=1))
    app.faults.add(Fault(kind="html", times=1))

    answers = [ask(app, "/api/users") for _ in range(3)]

    assert [(a.status, a.content_type[:9]) for a in answers] == [
        (503, "applicati"),
        (200, "text/html"),
        (200, "applicati"),
    ]


def test_clearing_takes_one_or_all_out_of_force(app: App) -> None:
    first = app.faults.add(Fault(kind="status"))
    app.faults.add(Fault(kind="status", status=503))

    app.faults.clear(first)
    assert statuses(app, "/api/users") == [503]
    app.faults.clear()
    assert statuses(app, "/api/users") == [200]


@pytest.mark.parametrize(
    ("body", "content_type", "start"),
    [
        ("json", "application/json", b'{"message"'),
        ("html", "text/html; charset=UTF-8", b"<!DOC"),
        ("empty", "application/json", b""),
    ],
)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_come_as_json_as_a_page_or_empty(
    app: App, status: int, body: str, content_type: str, start: bytes
) -> None:
    app.faults.add(Fault(kind="status", status=status, body=body))

    answer = ask(app, LIST)

    assert (answer.status, answer.content_type) == (status, content_type)
    assert answer.body.startswith(start)
    assert bool(answer.body) == bool(start)


def test_a_429_by_fault_tells_its_wait(app: App) -> None:
    app.faults.add(Fault(kind="status", status=429, retry_after="body", seconds=8, times=1))
    app.faults.add(Fault(kind="status", status=429, seconds=1.2))

    assert json.loads(ask(app, LIST).body) == {"error": "rate_limited", "retry_after": 8}
    assert ask(app, LIST).headers == (("Retry-After", "2"),)


def test_an_error_carries_more_headers(app: App) -> None:
    app.faults.add(Fault(kind="status", status=503, headers={"Retry-After": "7"}))

    assert ask(app, LIST).headers == (("Retry-After", "7"),)


def test_success_can_hide_a_failure(app: App) -> None:
    app.faults.add(Fault(kind="failure"))

    assert read(ask(app, LIST))["data"]["success"] is False


def test_a_reply_is_sent_to_the_letter(app: App) -> None:
    app.faults.add(
        Fault(
            kind="reply", status=302, body="gone", content_type="text/x", headers={"Location": "https://example.org/"}
        )
    )

    answer = ask(app, LIST)

    assert (answer.status, answer.body, answer.content_type) == (302, b"gone", "text/x")
    assert answer.headers == (("Location", "https://example.org/"),)


@pytest.mark.parametrize("kind", ["truncate", "reset", "close", "hang", "drip"])
def test_a_lost_answer_had_its_effect(app: App, kind: Any) -> None:
    app.faults.add(Fault(kind=kind, path="/api/workspaces", fraction=0.25, seconds=3))

    answer = ask(app, "/api/workspaces/v1.1/2/api-tokens", method="POST", body={"name": "lost"})

    assert (answer.delivery, answer.fraction, answer.seconds) == (kind, 0.25, 3)
    assert [token.name for token in app.world.tokens.values()] == ["super-admin", "lost"]


def test_a_refused_request_had_no_effect(app: App) -> None:
    app.faults.add(Fault(kind="status", status=503))

    ask(app, "/api/workspaces/v1.1/2/api-tokens", method="POST", body={"name": "never"})

    assert len(app.world.tokens) == 1


def test_slowness_and_a_wrong_content_type_leave_the_body_alone(app: App) -> None:
    whole = ask(app, LIST).body
    app.faults.add(Fault(kind="slow", seconds=4))
    app.faults.add(Fault(kind="content_type", content_type="text/plain"))

    answer = ask(app, LIST)

    assert (answer.delay, answer.content_type, answer.body) == (4, "text/plain", whole)


def test_fields_are_set_and_dropped_in_chosen_rows(app: App) -> None:
    healthy = read(ask(app, LIST))["data"]
    app.faults.add(
        Fault(kind="fields", path=LIST, rows=(0, 2), set={"daily_limit": "many", "new": [1]}, drop=("tags",))
    )
    app.faults.add(Fault(kind="fields", path=LIST, accounts=(healthy[5]["id"],), set={"email": None}))

    rows = read(ask(app, LIST))["data"]

    for number in (0, 2):
        assert (rows[number]["daily_limit"], rows[number]["new"]) == ("many", [1])
        assert "tags" not in rows[number]
    assert rows[5] == {**healthy[5], "email": None}
    assert rows[1] == healthy[1]
    assert app.world.truth()[1][0]["daily_limit"] == healthy[0]["daily_limit"]


def test_fields_of_an_object_change_too(app: App) -> None:
    app.faults.add(Fault(kind="fields", path="/api/users", set={"team": None}))

    assert read(ask(app, "/api/users"))["data"]["team"] is None


def test_numbers_come_as_strings_and_truth_values_do_not(app: App) -> None:
    app.faults.add(Fault(kind="strings", path=LIST))

    row, healthy = read(ask(app, LIST))["data"][0], app.world.truth()[1][0]

    assert (row["id"], row["emails_sent_count"]) == (str(healthy["id"]), str(healthy["emails_sent_count"]))
    assert row["warmup_enabled"] is healthy["warmup_enabled"]


def test_statuses_come_in_other_words(app: App) -> None:
    app.faults.add(Fault(kind="statuses", words=("CONNECTED", "Flying")))

    assert [row["status"] for row in read(ask(app, LIST))["data"]][:3] == ["CONNECTED", "Flying", "CONNECTED"]


def test_a_row_loses_its_id_or_gets_an_unreadable_one(app: App) -> None:
    app.faults.add(Fault(kind="no_id", page=1))
    app.faults.add(Fault(kind="no_id", page=2, rows=(3,), set={"id": "abc"}))

    first, second = (read(ask(app, f"{LIST}?page={n}"))["data"] for n in (1, 2))

    assert ["id" in row for row in first] == [False] + [True] * 14
    assert second[3]["id"] == "abc"


def test_a_minted_token_is_not_told(app: App) -> None:
    app.faults.add(Fault(kind="no_token"))

    minted = read(ask(app, "/api/workspaces/v1.1/2/api-tokens", method="POST", body={"name": "sync"}))["data"]

    assert minted["name"] == "sync"
    assert "plain_text_token" not in minted


def test_meta_and_links_lie(app: App) -> None:
    app.faults.add(Fault(kind="meta", from_page=3, by=2, set={"last_page": 9}, drop=("to",)))
    app.faults.add(Fault(kind="links", set={"next": "https://example.org/steal"}))

    second, third = (read(ask(app, f"{LIST}?page={n}")) for n in (2, 3))

    assert (second["meta"]["total"], second["meta"]["last_page"]) == (60, 4)
    assert (third["meta"]["total"], third["meta"]["last_page"]) == (62, 9)
    assert "to" not in third["meta"]
    assert third["links"]["next"] == "https://example.org/steal"


def test_rows_come_twice(app: App) -> None:
    app.faults.add(Fault(kind="duplicate", page=2))
    app.faults.add(Fault(kind="duplicate", page=3, insert=2))

    rows = walk(app)

    assert len(rows) == 62
    assert len({row["id"] for row in rows}) == 59


def test_a_healthy_answer_has_no_rows(app: App) -> None:
    app.faults.add(Fault(kind="empty_list", workspace=1))

    empty = read(ask(app, LIST))

    assert (empty["data"], empty["meta"]["total"], empty["meta"]["last_page"]) == ([], 0, 1)
    assert len(read(ask(app, "/api/workspaces/v1.1"))["data"]) == 3
    assert len(walk(app, app.world.mint(2).plain)) == 40


def test_pages_beyond_a_cap_are_silently_empty(app: App) -> None:
    app.faults.add(Fault(kind="empty_page", from_page=3))

    pages = [read(ask(app, f"{LIST}?page={n}")) for n in range(1, 5)]

    assert [len(page["data"]) for page in pages] == [15, 15, 0, 0]
    assert {page["meta"]["total"] for page in pages} == {60}


def test_the_scope_of_super_admins_switches_after_so_many_of_their_requests(app: App) -> None:
    app.faults.add(Fault(kind="switch", to=2, after=2))
    fixed = app.world.mint(1).plain

    seen = []
    for _ in range(4):
        ask(app, "/api/users", fixed)
        seen.append(read(ask(app, "/api/users"))["data"]["team"]["id"])

    assert seen == [1, 1, 2, 2]
    assert read(ask(app, "/api/users", fixed))["data"]["team"]["id"] == 1


def test_an_api_token_changes_its_identity(app: App) -> None:
    token, other = app.world.mint(1).plain, app.world.mint(3).plain
    app.faults.add(Fault(kind="identity", to=2, workspace=1, after=1))

    assert [read(ask(app, "/api/users", t))["data"]["team"]["id"] for t in (token, SUPER_ADMIN, token, other)] == [
        1,
        1,
        2,
        3,
    ]


def test_rows_shift_after_a_page_was_served(app: App) -> None:
    before = [row["id"] for row in app.world.truth()[1]]
    app.faults.add(Fault(kind="shift", page=2, remove=1, insert=3))

    first, second, third = (ids(ask(app, f"{LIST}?page={n}")) for n in (1, 2, 3))

    after = [row["id"] for row in app.world.truth()[1]]
    assert first + second == before[:30]
    assert after[3:] == before[1:]
    assert third == after[30:45] == before[28:43]
    assert ids(ask(app, f"{LIST}?page=2")) == after[15:30]


def test_every_kind_of_content_has_an_effect() -> None:
    assert set(_CONTENT) == {*get_args(Rows), *get_args(Content)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "explode"}, "unknown fault 'explode'"),
        ({"status": 500}, "its kind"),
        ({"kind": "status", "pages": 3}, "unknown: pages"),
        ({"kind": "status", "page": "3"}, "page of a fault is int"),
        ({"kind": "status", "times": True}, "times of a fault"),
        ({"kind": "slow", "seconds": "long"}, "seconds of a fault"),
        ({"kind": "fields", "set": ["a"]}, "set of a fault"),
        ({"kind": "switch"}, "needs to="),
    ],
)
def test_a_fault_that_cannot_be_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fault_from(values)


def test_lists_in_a_fault_may_be_single_values() -> None:
    assert fault_from({"kind": "fields", "rows": 2, "drop": "tags", "statuses": [500]}) == Fault(
        kind="fields", rows=(2,), drop=("tags",), statuses=(500,)
    )
