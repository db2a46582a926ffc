"""Asks a sandbox without a socket."""

import json
from collections.abc import Sequence
from typing import Any

from bisonsync.sandbox import Config
from bisonsync.sandbox.app import App
from bisonsync.sandbox.courier import Outcome
from bisonsync.sandbox.hooks import Delivery
from bisonsync.sandbox.http import Answer, Request
from bisonsync.sandbox.payloads import body_of

SUPER_ADMIN = Config().super_admin_token
LIST = "/api/sender-emails"
CAMPAIGNS = "/api/campaigns"


def ask(
    app: App, target: str, token: str | None = SUPER_ADMIN, *, method: str = "GET", body: Any = None, **headers: str
) -> Answer:
    """Send one request and take its answer as delivered."""
    path, _, query = target.partition("?")
    sent = {"accept": "application/json", "host": "sandbox.example.com", **headers}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    answer = app.handle(Request(method, path, query, sent, b"" if body is None else json.dumps(body).encode()))
    if answer.on_finished:
        answer.on_finished()
    return answer


def read(answer: Answer) -> Any:
    """Return the content of an answer that must be a success."""
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def ids(answer: Answer) -> list[int]:
    """Return the ids of the rows."""
    return [row["id"] for row in read(answer)["data"]]


def walk(app: App, token: str = SUPER_ADMIN, target: str = f"{LIST}?x=1") -> list[dict[str, Any]]:
    """Read a list page by page to its last page."""
    rows, page, last = [], 0, 1
    while page < last:
        page += 1
        answer = read(ask(app, f"{target}&page={page}", token))
        rows += answer["data"]
        last = answer["meta"]["last_page"]
    return rows


def walk_by_cursor(app: App, token: str = SUPER_ADMIN, target: str = LIST) -> list[dict[str, Any]]:
    """Read a list along its cursors."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = read(ask(app, f"{target}?pagination_type=cursor&cursor={cursor}", token))
        rows += answer["data"]
        cursor = answer["meta"]["next_cursor"]
    return rows


def deliver_all(
    app: App, answers: Sequence[int | str] = (200,), *, at_most: int = 1_000_000
) -> list[tuple[Delivery, Any]]:
    """Make the deliveries that wait, answered in turn with these (a text: the fault); returns each with its body."""
    made: list[tuple[Delivery, Any]] = []
    with app.lock:
        while len(made) < at_most and (delivery := app.courier.take_next()):
            made.append((delivery, json.loads(body_of(delivery, app.url))))
            answer = answers[(len(made) - 1) % len(answers)]
            app.courier.note(delivery, Outcome(answer, None) if isinstance(answer, int) else Outcome(None, answer))
    return made
