"""What is refused, how it is said, and how long an answer takes."""

import json
import re
from typing import Any

import pytest
from sandbox_asking import SUPER_ADMIN, ask

from bisonsync.sandbox import Config
from bisonsync.sandbox.app import App


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=3, accounts=30))


@pytest.mark.parametrize(
    "path", ["/api/me", "/api/user", "/api/workspaces/v1.1/1/nothing", "/", "/api/sender-emails/1/2"]
)
def test_an_unknown_route_is_named(app: App, path: str) -> None:
    answer = ask(app, path, None)

    assert answer.status == 404
    assert json.loads(answer.body) == {"message": f"The route {path[1:]} could not be found."}


@pytest.mark.parametrize(
    ("path", "allowed"), [("/api/users", "GET, HEAD"), ("/api/workspaces/switch-workspace", "POST")]
)
def test_a_wrong_method_is_named_with_the_right_ones(app: App, path: str, allowed: str) -> None:
    answer = ask(app, path, method="DELETE")

    assert answer.status == 405
    expected = f"The DELETE method is not supported for route {path[1:]}. Supported methods: {allowed}."
    assert json.loads(answer.body) == {"message": expected}
    assert ("Allow", allowed) in answer.headers


@pytest.mark.parametrize("path", ["/api/users", "/api/none"])
def test_who_does_not_ask_for_json_gets_errors_as_pages(app: App, path: str) -> None:
    answer = ask(app, path, "wrong", accept="*/*")

    assert answer.status in (401, 404)
    assert answer.content_type.startswith("text/html")
    assert answer.body.startswith(b"<!DOCTYPE html>")
    assert ask(app, "/api/users", accept="*/*").content_type == "application/json"


def test_the_rate_limit_refuses_what_is_over_it_until_the_window_ends() -> None:
    now = [1000.0]
    app = App(Config(workspaces=2, accounts=5, rate_limit=3), monotonic=lambda: now[0])
    token = app.world.mint(2).plain

    answers = [ask(app, "/api/users", SUPER_ADMIN if n % 2 else token) for n in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert ("X-RateLimit-Remaining", "1") in answers[1].headers
    assert ("Retry-After", "60") in answers[3].headers
    now[0] += 45.5
    assert ("Retry-After", "15") in ask(app, "/api/users", token).headers
    now[0] += 14.5
    assert ask(app, "/api/users", token).status == 200


def test_another_program_counts_against_the_same_limit() -> None:
    now = [1000.0]
    app = App(Config(workspaces=1, accounts=1, rate_limit=3000, foreign_rate=2900), monotonic=lambda: now[0])

    ask(app, "/api/users")
    now[0] += 30
    answer = ask(app, "/api/users")
    now[0] += 29.9
    refused = [ask(app, "/api/users").status for _ in range(104)]

    assert ("X-RateLimit-Remaining", "1548") in answer.headers
    assert (refused.count(200), refused[-1]) == (103, 429)


def test_everything_can_be_refused_for_minutes() -> None:
    now = [1000.0]
    app = App(Config(workspaces=1, accounts=1, blanket_429=600, retry_after="none"), monotonic=lambda: now[0])

    def later(seconds: float) -> int:
        now[0] += seconds
        return ask(app, "/api/users").status

    assert [later(seconds) for seconds in (5, 599, 1)] == [429, 429, 200]


def test_the_rate_limit_can_be_each_tokens_own() -> None:
    app = App(Config(workspaces=2, accounts=5, rate_limit=1, rate_limit_per="token"))
    token = app.world.mint(2).plain

    assert [ask(app, "/api/users", t).status for t in (SUPER_ADMIN, token, token, SUPER_ADMIN)] == [200, 200, 429, 429]


@pytest.mark.parametrize(
    ("how", "header", "body"),
    [
        ("seconds", r"60", {"message": "Too Many Attempts."}),
        ("date", r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", {"message": "Too Many Attempts."}),
        ("body", r"", {"error": "rate_limited", "retry_after": 60}),
        ("none", r"", {"message": "Too Many Attempts."}),
    ],
)
def test_a_429_tells_the_wait_in_four_ways(how: Any, header: str, body: dict[str, Any]) -> None:
    app = App(Config(workspaces=1, accounts=1, rate_limit=1, retry_after=how), monotonic=lambda: 5.0)
    ask(app, "/api/users")

    answer = ask(app, "/api/users")

    assert re.fullmatch(header, dict(answer.headers).get("Retry-After", ""))
    assert json.loads(answer.body) == body


def test_latency_is_the_workspaces_own_or_everybodys_plus_jitter(app: App) -> None:
    slow, fast = app.world.mint(2).plain, app.world.mint(1).plain
    app.config = Config(latency=0.1, jitter=0.05, workspace_latency={2: 2.0})

    delays = [ask(app, "/api/users", token).delay for token in (slow, fast, "wrong")]

    assert 2.0 <= delays[0] <= 2.05
    assert all(0.1 <= delay <= 0.15 for delay in delays[1:])
    assert delays[1] != delays[2]


@pytest.mark.parametrize(
    "fields",
    [
        {"workspaces": 0},
        {"accounts": -1},
        {"latency": -1},
        {"latency": True},
        {"jitter": "1"},
        {"retry_after": "x"},
        {"identity_key": "me"},
    ],
)
def test_a_sandbox_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields)).rstrip("s")):
        Config(**fields)
