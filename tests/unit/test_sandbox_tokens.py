"""Tokens open what they should: one workspace for ever, or wherever their user is."""

import json
from typing import Any

import pytest
from sandbox_asking import LIST, SUPER_ADMIN, ask, ids, read

from bisonsync.sandbox import Config
from bisonsync.sandbox.app import App

SWITCH = "/api/workspaces/v1.1/switch-workspace"


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=3, accounts=130, skew=(100, 20)))


def scope(app: App, token: str = SUPER_ADMIN) -> int:
    return read(ask(app, "/api/users", token))["data"]["team"]["id"]


@pytest.mark.parametrize("token", [None, "", "2|wrong", "super-admin-token-of-the-sandbox"])
def test_without_a_right_token_nobody_is_let_in(app: App, token: str | None) -> None:
    answer = ask(app, LIST, token)

    assert (answer.status, json.loads(answer.body)) == (401, {"message": "Unauthenticated."})


def test_a_revoked_token_is_refused(app: App) -> None:
    token = app.world.mint(2)
    assert ask(app, "/api/users", token.plain).status == 200

    app.world.revoke(token.id)

    assert ask(app, "/api/users", token.plain).status == 401


def test_an_api_token_acts_in_its_own_workspace_only(app: App) -> None:
    token = app.world.mint(2).plain

    assert scope(app, token) == 2
    assert read(ask(app, f"{LIST}?workspace_id=1", token))["meta"]["total"] == 20
    assert ids(ask(app, "/api/workspaces/v1.1", token)) == [2]
    assert ask(app, "/api/workspaces/v1.1/1", token).status == 403
    assert ask(app, SWITCH, token, method="POST", body={"team_id": 2}).status == 403
    assert ask(app, "/api/workspaces/v1.1/2/api-tokens", token, method="POST", body={"name": "x"}).status == 403


def test_api_tokens_see_all_workspaces_where_the_host_allows(app: App) -> None:
    app.config = Config(see_all_workspaces=True)
    token = app.world.mint(2).plain

    assert ids(ask(app, "/api/workspaces/v1.1", token)) == [1, 2, 3]
    assert read(ask(app, "/api/workspaces/v1.1/1", token))["data"]["id"] == 1


@pytest.mark.parametrize("path", ["/api/workspaces/switch-workspace", SWITCH])
def test_a_switch_moves_every_super_admin_token_and_no_api_token(app: App, path: str) -> None:
    other, fixed = app.world.add_super_admin("9|another").plain, app.world.mint(1).plain

    switched = read(ask(app, path, method="POST", body={"team_id": 2}))["data"]

    assert switched == {"name": app.world.workspaces[2].name}
    assert (scope(app), scope(app, other), scope(app, fixed)) == (2, 2, 1)
    assert read(ask(app, LIST))["meta"]["total"] == 20
    assert read(ask(app, LIST, fixed))["meta"]["total"] == 100


@pytest.mark.parametrize(
    ("body", "status"), [({}, 422), ({"workspace_id": 2}, 422), ({"team_id": 99}, 404), ([2], 422)]
)
def test_a_switch_to_nowhere_is_refused(app: App, body: Any, status: int) -> None:
    assert ask(app, SWITCH, method="POST", body=body).status == status
    assert scope(app) == 1


def test_a_switch_can_take_some_requests_to_show(app: App) -> None:
    app.config = Config(switch_lag=2)
    ask(app, SWITCH, method="POST", body={"team_id": 3})

    assert scope(app, app.world.mint(2).plain) == 2
    assert [scope(app) for _ in range(3)] == [1, 3, 3]


def test_a_super_admin_mints_a_token_that_works(app: App) -> None:
    minted = read(ask(app, "/api/workspaces/v1.1/3/api-tokens", method="POST", body={"name": "sync"}))["data"]

    assert minted["plain_text_token"].startswith(f"{minted['id']}|")
    assert scope(app, minted["plain_text_token"]) == 3
    assert scope(app) == 1


@pytest.mark.parametrize("body", [None, {}, {"name": ""}, {"name": 5}, []])
def test_minting_needs_a_name(app: App, body: Any) -> None:
    answer = ask(app, "/api/workspaces/v1.1/3/api-tokens", method="POST", body=body)

    assert answer.status == 422
    assert list(json.loads(answer.body)["errors"]) == ["name"]


@pytest.mark.parametrize("key", ["team", "workspace"])
def test_the_identity_comes_under_either_key_and_may_hold_a_secret(app: App, key: Any) -> None:
    app.config = Config(identity_key=key, webhook_secret=True)

    user = read(ask(app, "/api/users"))["data"]

    assert {"team", "workspace"} & user.keys() == {key}
    assert len(user[key]["webhooks_secret_key"]) == 40


def test_a_closed_workspace_is_gone_and_its_token_opens_nothing(app: App) -> None:
    token = app.world.mint(1).plain

    app.world.remove_workspace(1)

    assert ask(app, "/api/users", token).status == 401
    assert ids(ask(app, "/api/workspaces/v1.1")) == [2, 3]
    assert scope(app) == 2


@pytest.mark.parametrize("path", ["/api/workspaces", "/api/workspaces/v1.1"])
def test_workspaces_come_at_once_or_in_pages(path: str) -> None:
    app = App(Config(workspaces=40, accounts=0))
    assert read(ask(app, path)).keys() == {"data"}

    app.config = Config(paginate_workspaces=True)
    pages = [read(ask(app, f"{path}?page={n}")) for n in (1, 2, 3)]

    assert [row["id"] for page in pages for row in page["data"]] == list(range(1, 41))
    assert {page["meta"]["last_page"] for page in pages} == {3}
