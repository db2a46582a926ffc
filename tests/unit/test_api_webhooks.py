"""Webhooks at the host: the whole list or none, and changes that are asked for once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from conversation import TOKEN, WHO, client_of

from bisonsync.api.client import WebhookRequest
from bisonsync.api.webhooks import NotKnown, WorkspaceHooks
from bisonsync.errors import ApiRefused, ApiUnavailable, BisonsyncError, ListChanged

SECRET = "Kp3xQ-secret_of-five-0123456789"
URL = f"https://bison.example.com/hooks/{SECRET}"
WANTED = WebhookRequest("bisonsync", URL, ("email_sent",), (SECRET,))
ROW = {"id": 7, "name": "bisonsync", "url": URL, "events": ["email_sent"]}


class Host:
    """Answers the list as told, and everything else with ``answers`` in turn; counts what was asked."""

    def __init__(self, rows: list[Any], *answers: httpx.Response | Exception) -> None:
        self.rows = rows
        self.asked: list[str] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.method)
        if request.method == "GET":
            return httpx.Response(200, json={"data": self.rows})
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hooks(self) -> WorkspaceHooks:
        return WorkspaceHooks(client_of(self, attempts=5), TOKEN, WHO, "sim/5")


UNCLEAR = [
    httpx.ReadTimeout("slow"),
    httpx.Response(500, json={}),
    httpx.Response(200, content=b"<html>"),
    httpx.Response(200, json={"data": {"success": False, "message": "no"}}),
]


def changes(hooks: WorkspaceHooks) -> list[Callable[[], Any]]:
    return [lambda: hooks.create(WANTED), lambda: hooks.replace(7, WANTED), lambda: hooks.delete(7)]


@pytest.mark.parametrize("answer", UNCLEAR, ids=["time-out", "500", "html", "success false"])
@pytest.mark.parametrize("change", [0, 1, 2], ids=["create", "replace", "delete"])
def test_f20_a_change_of_unclear_outcome_is_asked_for_once_and_looked_for(change: int, answer: Any):
    rows = [] if change == 2 else [ROW]
    host = Host(rows, answer)

    changes(host.hooks())[change]()

    assert host.asked == [["POST", "PUT", "DELETE"][change], "GET"]


@pytest.mark.parametrize("change", [0, 1, 2], ids=["create", "replace", "delete"])
def test_f20_a_change_that_does_not_show_is_not_known(change: int):
    rows = [ROW] if change == 2 else [{**ROW, "events": ["email_opened"], "url": "https://other.example.com"}]
    host = Host(rows, httpx.ReadTimeout("slow"))

    with pytest.raises(NotKnown, match="is not known") as caught:
        changes(host.hooks())[change]()

    assert host.asked == [["POST", "PUT", "DELETE"][change], "GET"]
    assert caught.value.is_carried_out is None
    assert SECRET not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), httpx.Response(429)], ids=["no connection", "429"])
def test_a_change_that_was_certainly_not_made_is_not_looked_for(answer: Any):
    host = Host([], answer)

    with pytest.raises(ApiUnavailable, match="was not carried out") as caught:
        host.hooks().create(WANTED)

    assert not isinstance(caught.value, NotKnown)
    assert host.asked == ["POST"]


@pytest.mark.parametrize("secret", [SECRET, "plain-words"])
def test_a_refusal_never_quotes_the_secret(secret: str):
    said = f"The url https://bison.example.com/hooks/{secret} is bad, so is {secret}"
    answers = [
        httpx.Response(422, json={"message": said}),
        httpx.Response(200, json={"message": said, "success": False}),
    ]
    hooks = Host([], *answers, *answers).hooks()
    wanted = WebhookRequest("bisonsync", f"https://bison.example.com/hooks/{secret}", ("email_sent",), (secret,))
    test_url = f"{wanted.url}/test"

    for ask in (
        *(lambda: hooks.create(wanted),) * 2,
        *(lambda: hooks.client.send_test_event(TOKEN, "tag", test_url, who=WHO, hide=(secret,)),) * 2,
    ):
        with pytest.raises(BisonsyncError) as caught:
            ask()
        assert secret not in f"{caught.value} {caught.value.message} {caught.value.hint} {caught.value.__cause__}"
        assert "The url" in caught.value.message


def test_what_is_gone_already_counts_as_removed():
    host = Host([], httpx.Response(404, json={"message": "gone"}))

    host.hooks().delete(7)

    assert host.asked == ["DELETE"]


def test_another_refusal_of_removing_stays():
    with pytest.raises(ApiRefused):
        Host([], httpx.Response(422, json={})).hooks().delete(7)


@pytest.mark.parametrize(
    "row", ["none", {"id": 1}, {"id": "x", "url": URL}, {"id": 1, "url": ""}, {"id": 1, "url": URL, "events": "all"}]
)
def test_a_list_with_an_unreadable_row_is_no_list(row: Any):
    with pytest.raises(ListChanged, match="could not be read whole") as caught:
        Host([ROW, row]).hooks().list()

    assert SECRET not in caught.value.message


def test_a_list_in_pages_is_read_whole_or_not_at_all():
    rows = [{**ROW, "id": number} for number in range(1, 21)]

    def answer(request: httpx.Request, total: int) -> httpx.Response:
        number = int(request.url.params.get("page", 1))
        part = rows[(number - 1) * 15 : number * 15]
        return httpx.Response(200, json={"data": part, "meta": {"total": total, "last_page": 2}})

    whole = WorkspaceHooks(client_of(lambda request: answer(request, 20)), TOKEN, WHO, "sim/5").list()

    assert sorted(webhook.id for webhook in whole) == list(range(1, 21))
    with pytest.raises(ListChanged):
        WorkspaceHooks(client_of(lambda request: answer(request, 21)), TOKEN, WHO, "sim/5").list()


def test_nothing_that_is_shown_of_a_webhook_holds_its_secret():
    host = Host([ROW], httpx.Response(201, content=json.dumps({"data": ROW}).encode()))
    hooks = host.hooks()

    made = hooks.create(WANTED)

    assert SECRET not in f"{made!r} {WANTED!r} {hooks!r} {hooks.list()!r}"
    assert TOKEN not in f"{hooks!r}"
