"""The control endpoint shows the world, changes it and makes it misbehave; its flags do the same from the start."""

import argparse
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sandbox_asking import LIST, SUPER_ADMIN, ask, read, walk

from bisonsync.sandbox import Config, Fault
from bisonsync.sandbox.app import App
from bisonsync.sandbox.flags import add_flags, config_from
from bisonsync.sandbox.http import Request


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=3, accounts=90, skew=(40, 30)))


def control(app: App, name: str, body: Any = None) -> Any:
    return read(ask(app, f"/_sandbox/{name}", None, method="GET" if body is None else "POST", body=body))


def test_state_tells_workspaces_requests_and_flights(app: App) -> None:
    token = app.world.mint(2).plain
    ask(app, f"{LIST}?page=2", token)
    ask(app, LIST, token)
    ask(app, f"{LIST}/999999", token)
    ask(app, "/api/nothing", None)

    state = control(app, "state")

    second = state["workspaces"][1]
    assert (second["id"], second["accounts"], second["pages"]) == (2, 30, 2)
    assert second["name"] == app.world.workspaces[2].name
    assert second["requests"]["by_path"] == {f"{LIST} 200": 2, f"{LIST}/{{sender_email_id}} 404": 1}
    assert state["requests"]["by_path"][LIST] == {"200": 2}
    assert state["requests"]["by_path"]["(unknown)"] == {"404": 1}
    assert (state["requests"]["total"], state["requests"]["max_in_flight"], state["requests"]["in_flight"]) == (4, 1, 0)
    assert (state["accounts"], state["current_workspace_id"]) == (90, 1)
    assert token not in json.dumps(state)


def test_flights_are_counted_until_the_answer_has_left(app: App) -> None:
    token = app.world.mint(3).plain
    requests = [Request("GET", LIST, "", {"authorization": f"Bearer {token}"}) for _ in range(3)]

    answers = [app.handle(request) for request in requests]

    flying = control(app, "state")
    assert (flying["requests"]["in_flight"], flying["requests"]["max_in_flight"]) == (3, 3)
    assert [w["requests"]["max_in_flight"] for w in flying["workspaces"]] == [0, 0, 3]
    for answer in answers:
        assert answer.on_finished is not None
        answer.on_finished()
    control(app, "counters/forget", {})
    assert control(app, "state")["requests"] == {"total": 0, "in_flight": 0, "max_in_flight": 0, "by_path": {}}


def test_accounts_tells_the_truth_even_while_the_api_lies(app: App) -> None:
    app.faults.add(Fault(kind="strings", path=LIST))

    truth = control(app, "accounts")

    assert truth == {str(w): rows for w, rows in app.world.truth().items()}
    assert walk(app) != truth["1"]


def test_time_moves_on_and_accounts_change(app: App) -> None:
    before = app.world.now

    counts = control(app, "advance", {"minutes": 90, "come": 2, "go": 1, "seed": 3})
    changed = control(app, "change", {"percent": 10, "workspace": 1, "seed": 4})

    assert (app.world.now - before).total_seconds() == 91 * 60
    assert (counts["come"], counts["go"]) == (2, 1)
    assert sum(len(w.accounts) for w in app.world.workspaces.values()) == 91
    assert changed["changed"] == len(changed["ids"]) == round(len(app.world.workspaces[1].accounts) / 10)


def test_faults_are_set_shown_and_cleared(app: App) -> None:
    added = control(app, "faults", [{"kind": "status", "status": 503, "times": 2}, {"kind": "html", "page": 2}])
    ask(app, LIST)

    assert added == {"ids": [1, 2]}
    assert control(app, "state")["faults"] == [
        {"id": 1, "seen": 1, "hits": 1, "kind": "status", "times": 2, "status": 503},
        {"id": 2, "seen": 0, "hits": 0, "kind": "html", "page": 2},
    ]
    assert control(app, "faults/clear", {"id": 1}) == {"left": 1}
    assert control(app, "faults/clear", {}) == {"left": 0}


def test_moods_change(app: App) -> None:
    moods = control(app, "moods", {"latency": 0.2, "workspace_latency": {"2": 1}, "identity_key": "workspace"})

    assert (moods["latency"], moods["workspace_latency"], moods["identity_key"]) == (0.2, {"2": 1.0}, "workspace")
    answer = ask(app, "/api/users", app.world.mint(2).plain)
    assert answer.delay == 1.0
    assert "workspace" in read(answer)["data"]


def test_reset_begins_anew(app: App) -> None:
    first = control(app, "accounts")
    token = control(app, "tokens", {"workspace": 2})["token"]
    control(app, "advance", {"minutes": 600})
    control(app, "faults", {"kind": "status", "times": 0})
    assert ask(app, LIST, token).status == 200

    control(app, "reset", {})

    assert control(app, "accounts") == first
    assert control(app, "state")["faults"] == []
    assert control(app, "state")["requests"]["total"] == 0
    assert ask(app, LIST, token).status == 401
    assert control(app, "reset", {"seed": 9, "workspaces": 2, "accounts": 10, "skew": []})["accounts"] == 10


def test_tokens_are_made_and_revoked(app: App) -> None:
    made = control(app, "tokens", {"workspace": 3, "name": "mine"})
    assert ask(app, LIST, made["token"]).status == 200

    control(app, "tokens/revoke", {"id": made["id"]})

    assert ask(app, LIST, made["token"]).status == 401
    assert control(app, "state")["tokens"][-1] == {
        "id": made["id"],
        "name": "mine",
        "kind": "api-user",
        "workspace_id": 3,
        "revoked": True,
    }


def test_single_accounts_change_move_double_and_go(app: App) -> None:
    first, second, third, fourth = app.world.workspaces[1].accounts.order()[:4]

    control(app, "accounts/set", {"id": first, "set": {"status": "Failed", "tags": ["Google", "New"]}})
    control(app, "accounts/move", {"id": second, "to": 3})
    copy = control(app, "accounts/copy", {"id": third, "to": 2})
    control(app, "accounts/remove", {"id": fourth})

    listed = {row["id"]: row for row in walk(app)}
    assert listed[first]["status"] == "Failed"
    assert [tag["name"] for tag in listed[first]["tags"]] == ["Google", "New"]
    assert not {second, fourth} & listed.keys()
    assert second in app.world.workspaces[3].accounts
    assert app.world.workspaces[2].accounts[copy["id"]].email == listed[third]["email"]


def test_workspaces_open_close_and_are_renamed(app: App) -> None:
    opened = control(app, "workspaces/open", {"name": "Fresh & Co", "accounts": 4})
    control(app, "workspaces/rename", {"id": 2, "name": "Padded  "})
    control(app, "workspaces/close", {"id": 3})

    rows = read(ask(app, "/api/workspaces/v1.1"))["data"]
    assert [(row["id"], row["name"]) for row in rows][1:] == [(2, "Padded  "), (opened["id"], "Fresh & Co")]
    assert len(walk(app, app.world.mint(opened["id"]).plain)) == 4


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("nothing", {}, 404),
        ("advance", {"hours": 1}, 422),
        ("advance", [], 422),
        ("change", {"percent": "some"}, 422),
        ("change", {"colour": 1}, 422),
        ("faults", {"kind": "explode"}, 422),
        ("moods", {"latency": "long"}, 422),
        ("moods", {"seed": 3}, 422),
        ("reset", {"latency": 3}, 422),
        ("accounts/set", {"id": 1, "set": {}}, 422),
        ("accounts/set", {"id": 1001, "set": {"id": 5}}, 422),
        ("tokens", {"workspace": 99}, 422),
        ("refuse", {"seconds": 1}, 422),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(app: App, name: str, body: Any, status: int) -> None:
    before = control(app, "accounts"), control(app, "state")

    answer = ask(app, f"/_sandbox/{name}", None, method="POST", body=body)

    assert answer.status == status
    assert json.loads(answer.body)["message"]
    assert (control(app, "accounts"), control(app, "state")) == before


def test_other_machines_have_no_control(app: App) -> None:
    answer = app.handle(Request("GET", "/_sandbox/accounts", "", {}, is_local=False))

    assert answer.status == 403


def flags(*arguments: str) -> Config:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return config_from(parser.parse_args(arguments))


def test_without_flags_the_config_is_the_default() -> None:
    assert flags() == Config(workspace_latency={})


def test_flags_make_the_world_and_its_moods() -> None:
    world = "--seed 4 --workspaces 3 --accounts 50 --skew 20,0.3 --super-admin-token 5|x"
    mood = "--latency 150ms --jitter 0.05 --workspace-latency 2=2s --rate-limit 100 --retry-after date --switch-lag 1"
    more = "--identity-key workspace --webhook-secret --paginate-workspaces --rate-limit-per token"
    more += " --paging number --total-cap 30 --foreign-rate 29 --blanket-429 10s"

    hooks = "--event-types 13 --no-events --paginate-webhooks --webhook-tries 2 --webhook-spacing 20ms"
    posts = "--webhook-timeout 2s --webhook-workers 4 --deliver-anywhere --clock real --start 2026-08-01T12:00:00+02:00"

    config = flags(
        *world.split(),
        *mood.split(),
        *more.split(),
        *hooks.split(),
        *posts.split(),
        *("--see-all-workspaces", "--daily-stats=whole"),
    )

    assert config == Config(
        seed=4,
        workspaces=3,
        accounts=50,
        skew=(20.0, 0.3),
        super_admin_token="5|x",
        latency=0.15,
        jitter=0.05,
        workspace_latency={2: 2.0},
        rate_limit=100,
        retry_after="date",
        switch_lag=1,
        identity_key="workspace",
        webhook_secret=True,
        paging="number",
        total_cap=30,
        foreign_rate=29,
        blanket_429=10,
        paginate_workspaces=True,
        rate_limit_per="token",
        see_all_workspaces=True,
        daily_stats="whole",
        event_types="13",
        has_events=False,
        paginate_webhooks=True,
        webhook_tries=2,
        webhook_spacing=0.02,
        webhook_timeout=2.0,
        webhook_workers=4,
        deliver_anywhere=True,
        clock="real",
        start=datetime(2026, 8, 1, 10, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("--error-rate 0.1", Fault(kind="status", rate=0.1, statuses=(500, 502, 503, 504))),
        (
            "--error-rate 0.1 --error-status 503 --error-body html",
            Fault(kind="status", rate=0.1, statuses=(503,), body="html"),
        ),
        ("--numbers-as-strings", Fault(kind="strings", path="/api/sender-emails")),
        ("--max-page 20", Fault(kind="status", status=422, from_page=21)),
        ("--max-page 20 --beyond-max-page empty", Fault(kind="empty_page", from_page=21)),
        (
            "--fault status:status=503,page=3,workspace=5,times=2",
            Fault(kind="status", status=503, page=3, workspace=5, times=2),
        ),
        ("--fault no_id:rows=0+2,path=/api", Fault(kind="no_id", rows=(0, 2), path="/api")),
        ("--fault close", Fault(kind="close")),
        ("--fault lose:event=email_sent,rate=0.1", Fault(kind="lose", event="email_sent", rate=0.1)),
        (
            '--fault {"kind":"fields","set":{"daily_limit":"x"}}',
            Fault(kind="fields", set={"daily_limit": "x"}),
        ),
    ],
)
def test_flags_make_faults(arguments: str, fault: Fault) -> None:
    assert flags(*arguments.split()).faults == (fault,)


@pytest.mark.parametrize(
    "arguments",
    [
        "--fault explode",
        "--fault status:503",
        "--fault status:page=x",
        "--latency soon",
        "--retry-after never",
        "--skew a",
        "--start soon",
        "--clock broken",
        "--event-types 14",
    ],
)
def test_flags_that_cannot_be_are_a_usage_error(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        flags(*arguments.split())

    assert exit_info.value.code == 2
    assert arguments.split()[0] in capsys.readouterr().err


def test_a_limit_of_faults_holds_from_the_first_request() -> None:
    app = App(flags(*["--workspaces", "1", "--accounts", "60", "--max-page", "2"]))

    assert [ask(app, f"{LIST}?page={n}", SUPER_ADMIN).status for n in (1, 2, 3)] == [200, 200, 422]
