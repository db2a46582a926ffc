"""The client against recorded answers of every endpoint it asks, good and bad."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import yaml
from conversation import HOST, WHO, HandClock, client_of
from recording import CASSETTES, IS_RECORDING, REDACTED, cassette, player, scrub_response
from vcr.errors import CannotOverwriteExistingCassetteException

from bisonsync.api.client import InstanceClient, WebhookRequest
from bisonsync.api.lanes import Lanes
from bisonsync.api.lists import ListRead, ListReader
from bisonsync.api.webhooks import WorkspaceHooks
from bisonsync.errors import ApiRefused, ApiUnavailable, CredentialsError
from bisonsync.models import SenderEmail, Workspace
from bisonsync.sandbox import Sandbox
from bisonsync.sandbox.faults import Fault
from bisonsync.sandbox.hooks import Webhook

SENDERS = "/api/sender-emails"
# One page and a bit in the first workspace, a few in the others.
SMALL: dict[str, Any] = {"workspaces": 3, "accounts": 20, "skew": (16,)}
DAY = date(2026, 1, 5)
TINY: dict[str, Any] = {"workspaces": 1, "accounts": 2}


def read_sender(raw: Any) -> tuple[int, str]:
    row = SenderEmail.model_validate(raw)
    return row.id, row.model_dump_json()


def read_workspace(raw: Any) -> tuple[int, str]:
    workspace = Workspace.model_validate(raw)
    return workspace.id, workspace.name


def read_list(client: InstanceClient, token: str, path: str = SENDERS, read: Any = read_sender) -> ListRead:
    # One lane: a cassette plays its answers in the order in which they were asked for.
    lanes = Lanes(1, name="cassette")
    try:
        return ListReader(client, lanes, owner="w", path=path, token=token, who=WHO, read_row=read).read()
    finally:
        lanes.close()


def page_1(client: InstanceClient, token: str) -> Any:
    return client.get_page(SENDERS, {"page": 1}, token=token, who=WHO)


@pytest.mark.parametrize("key", ["team", "workspace"])
def test_users(key: str):
    with cassette(f"users_{key}", **SMALL, identity_key=key, webhook_secret=True) as host:
        acting = host.client().get_acting_workspace(host.token_of(1), who=WHO)

    assert acting.id == 1
    assert acting.name


def test_sender_emails():
    with cassette("sender_emails", **SMALL) as host:
        client = host.client()
        result = read_list(client, host.token_of(1))

    assert result.is_complete
    assert (result.total, result.last_page, len(result.rows)) == (16, 2, 16)
    assert client.stats["GET /api/sender-emails"].requests == 3
    row = SenderEmail.model_validate_json(result.rows[max(result.rows)])
    assert row.created_at is not None
    assert row.tags
    assert row.emails_sent_count is not None


def test_sender_emails_with_numbers_as_strings():
    faults = (Fault(kind="strings"),)
    with cassette("sender_emails_strings", **SMALL, faults=faults) as host:
        result = read_list(host.client(), host.token_of(1))

    assert result.is_complete
    assert len(result.rows) == 16
    assert all(SenderEmail.model_validate_json(row).emails_sent_count is not None for row in result.rows.values())


def test_an_empty_list_of_sender_emails():
    with cassette("sender_emails_empty", workspaces=1, accounts=0) as host:
        result = read_list(host.client(), host.token_of(1))

    assert (result.is_complete, result.total, result.rows) == (True, 0, {})


def test_a_page_past_the_end():
    with cassette("sender_emails_past_the_end", **SMALL) as host:
        page = host.client().get_page(SENDERS, {"page": 9}, token=host.token_of(1), who=WHO)

    assert (page.rows, page.total, page.last_page) == ([], 16, 2)


def test_sender_emails_by_cursor_when_deep_pages_are_refused():
    faults = (Fault(kind="status", status=422, from_page=2),)
    with cassette("sender_emails_by_cursor", **SMALL, faults=faults) as host:
        result = read_list(host.client(), host.token_of(1))

    assert (result.is_complete, result.by_cursor, len(result.rows)) == (True, True, 16)


def test_an_older_host_that_refuses_deep_pages_and_has_no_cursor():
    faults = (Fault(kind="status", status=422, from_page=2),)
    with cassette("sender_emails_without_cursor", **SMALL, faults=faults, paging="number") as host:
        result = read_list(host.client(), host.token_of(1))

    assert not result.is_complete
    assert "page 2 of 2 could not be read" in result.reason
    assert "HTTP 422: The page field is too large." in result.reason
    assert len(result.rows) == 15


@pytest.mark.parametrize("path", ["/api/workspaces/v1.1", "/api/workspaces"])
def test_a_bare_list_of_workspaces(path: str):
    with cassette(f"workspaces{path.replace('/', '_').removeprefix('_api_workspaces')}", **SMALL) as host:
        page = host.client().get_page(path, {}, token=host.admin_key, who=WHO)

    assert (page.total, page.last_page, page.next_cursor) == (None, None, None)
    assert [read_workspace(row)[0] for row in page.rows] == [1, 2, 3]


def test_a_paginated_list_of_workspaces():
    with cassette(
        "workspaces_v1.1_pages", workspaces=17, accounts=0, paginate_workspaces=True, webhook_secret=True
    ) as host:
        client = host.client()
        result = read_list(client, host.admin_key, "/api/workspaces/v1.1", read_workspace)

    assert result.is_complete
    assert set(result.rows) == set(range(1, 18))
    assert all(result.rows.values())


def test_api_tokens():
    with cassette("api_tokens", **SMALL) as host:
        minted = host.client().create_token(host.admin_key, 2, "bisonsync", who=WHO)

    assert minted.plain_text_token
    assert minted.name == "bisonsync"


def test_switch_workspace():
    with cassette("switch_workspace", **SMALL) as host:
        client = host.client()
        client.switch_workspace(host.admin_key, 2, who=WHO)

        assert client.get_acting_workspace(host.admin_key, who=WHO).id == 2


@pytest.mark.parametrize("how", ["filtered", "strings"])
def test_daily_stats(how: str):
    faults = (Fault(kind="strings", path="/api/campaign-events"),) if how == "strings" else ()

    def grow(host: Any) -> None:
        account = host.world.change(1001, emails_sent_count=0, total_replied_count=0, bounced_count=0)
        host.world.pass_time(1440)
        host.world.change(account.id, emails_sent_count=12, total_replied_count=3, bounced_count=1)

    with cassette(f"daily_stats_{how}", prepare=grow, **TINY, faults=faults) as host:
        stats = host.client().get_daily_stats(host.token_of(1), [1001], DAY, date(2026, 1, 6), who=WHO)

    assert stats.sent == {DAY: 0, date(2026, 1, 6): 12}
    assert stats.replied == {DAY: 0, date(2026, 1, 6): 3}
    assert stats.bounced == {DAY: 0, date(2026, 1, 6): 1}


def test_a_host_without_daily_stats():
    with cassette("daily_stats_none", **TINY, daily_stats="none") as host, pytest.raises(ApiRefused) as caught:
        host.client().get_daily_stats(host.token_of(1), [1001], DAY, DAY, who=WHO)

    assert caught.value.status == 404


def test_an_event_log_page_by_page():
    def happen(host: Any) -> None:
        host.make_events(type="email_account_disconnected", count=1, workspace=1)
        host.make_events(type="tag_attached", count=16, workspace=1)

    with cassette("events", prepare=happen, **TINY) as host:
        client, token = host.client(), host.token_of(1)
        first = client.list_events(token, who=WHO, start=DAY)
        assert first.next_cursor is not None
        second = client.list_events(token, who=WHO, start=DAY, cursor=first.next_cursor)

    assert (len(first.rows), len(second.rows), second.next_cursor) == (15, 2, None)
    assert first.rows[0].payload["event"]["type"] == "TAG_ATTACHED"
    assert second.rows[1].payload["data"]["sender_email"]["status"] == "not_connected"
    assert all(row.created_at is not None for row in first.rows)


def test_a_host_without_an_event_log():
    with cassette("events_none", **TINY, has_events=False) as host, pytest.raises(ApiRefused) as caught:
        host.client().list_events(host.token_of(1), who=WHO)

    assert caught.value.status == 404


# Its secret is none, so that the cassette holds none.
HOOK = WebhookRequest("bisonsync", f"{HOST}/hooks/{REDACTED}", ("email_sent", "lead_replied"), (REDACTED,))


def test_event_types_of_a_newer_and_an_older_host():
    with cassette("event_types", **TINY) as host:
        newer = host.client().get_event_types(host.token_of(1), who=WHO)
    with cassette("event_types_older", **TINY, event_types="13") as host:
        older = host.client().get_event_types(host.token_of(1), who=WHO)

    assert {"email_sent", "email_account_removed"} <= set(older) < set(newer)
    assert set(newer) - set(older) == {
        *("tag_attached", "tag_removed"),
        *("warmup_disabled_receiving_bounces", "warmup_disabled_causing_bounces"),
    }


def test_a_webhook_from_its_making_to_its_end():
    with cassette("webhook_url", **TINY) as host:
        hooks = WorkspaceHooks(host.client(), host.token_of(1), WHO, "sim/1")
        before = hooks.list()
        made = hooks.create(HOOK)
        changed = hooks.replace(made.id, replace(HOOK, events=("email_opened",)))
        listed = hooks.list()
        hooks.delete(made.id)
        after = hooks.list()

    assert (before, after) == ([], [])
    assert (made.name, made.url, made.events) == ("bisonsync", HOOK.url, ("email_sent", "lead_replied"))
    assert listed == [changed]
    assert changed.events == ("email_opened",)


def test_a_paginated_list_of_webhooks():
    def fill(host: Sandbox) -> None:
        book, made = host.world.hooks, "2026-01-05T09:00:00.000000Z"
        for number in range(1, 18):
            book.webhooks[number] = Webhook(number, 1, HOOK.name, HOOK.url, ["email_sent"], made, made)

    with cassette("webhook_url_pages", prepare=fill, **TINY, paginate_webhooks=True) as host:
        listed = WorkspaceHooks(host.client(), host.token_of(1), WHO, "sim/1").list()

    assert len({webhook.id for webhook in listed}) == 17


@pytest.mark.parametrize(("url", "field"), [("nowhere", "url"), (HOOK.url, "events.0")])
def test_a_webhook_that_the_host_refuses(url: str, field: str):
    wanted = replace(HOOK, url=url, events=("email_seen",))
    with cassette(f"webhook_url_422_{field[:3]}", **TINY) as host, pytest.raises(ApiRefused, match=field) as caught:
        WorkspaceHooks(host.client(), host.token_of(1), WHO, "sim/1").create(wanted)

    assert caught.value.status == 422


def test_a_test_event():
    with cassette("webhook_test_event", **TINY) as host:
        client = host.client()
        client.send_test_event(host.token_of(1), "tag_attached", f"{HOOK.url}/test", who=WHO, hide=HOOK.hide)

    assert client.stats["POST /api/webhook-events/test-event"].errors == 0


def test_401():
    with (
        cassette("status_401", **SMALL) as host,
        pytest.raises(CredentialsError, match=f"{WHO} was refused with HTTP 401"),
    ):
        page_1(host.client(), "99|unknown")


def test_403():
    with cassette("status_403", **SMALL) as host, pytest.raises(CredentialsError, match="HTTP 403"):
        host.client().create_token(host.token_of(1), 1, "bisonsync", who=WHO)


def test_404_of_a_route():
    with (
        cassette("status_404", **SMALL) as host,
        pytest.raises(ApiRefused, match="GET /api/nowhere was refused") as caught,
    ):
        host.client().get_page("/api/nowhere", {}, token=host.token_of(1), who=WHO)

    assert caught.value.status == 404
    assert "could not be found" in caught.value.message


def test_422_of_a_deep_page():
    faults = (Fault(kind="status", status=422, from_page=2),)
    with cassette("status_422", **SMALL, faults=faults) as host, pytest.raises(ApiRefused, match="too large") as caught:
        host.client().get_page(SENDERS, {"page": 501}, token=host.token_of(1), who=WHO)

    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("success_false", Fault(kind="failure", times=1)),
        ("html_200", Fault(kind="html", times=1)),
        ("html_503", Fault(kind="status", status=503, body="html", times=1)),
        ("empty_502", Fault(kind="status", status=502, body="empty", times=1)),
    ],
)
def test_f25_what_is_no_good_answer_is_asked_for_again(name: str, fault: Fault):
    clock = HandClock()
    with cassette(name, **TINY, faults=(fault,)) as host:
        page = page_1(host.client(clock), host.token_of(1))

    assert page.total == 2
    assert len(clock.slept) == 1


def test_f25_html_with_status_200_is_reported_when_it_stays():
    said = "HTTP 200 with an HTML page instead of JSON after 3 attempts"
    with (
        cassette("html_200_always", **TINY, faults=(Fault(kind="html"),)) as host,
        pytest.raises(ApiUnavailable, match=said),
    ):
        page_1(host.client(), host.token_of(1))


@pytest.mark.parametrize("how", ["seconds", "date", "body"])
def test_429_says_how_long_to_wait(how: str):
    clock = HandClock()
    fault = Fault(kind="status", status=429, retry_after=how, seconds=8, times=1)
    with cassette(f"status_429_{how}", **TINY, faults=(fault,)) as host:
        page = page_1(host.client(clock), host.token_of(1))

    assert page.total == 2
    # A date counts whole seconds: up to one may have passed when it was recorded.
    assert clock.slept[0] == pytest.approx(8.0, abs=1.0)


def test_429_may_say_nothing():
    clock = HandClock()
    fault = Fault(kind="status", status=429, retry_after="none", times=1)
    with cassette("status_429_none", **TINY, faults=(fault,)) as host:
        page_1(host.client(clock), host.token_of(1))

    assert 0.5 <= clock.slept[0] <= 1.0


# The cassettes themselves

TAPES = sorted(CASSETTES.glob("*.yaml"))


def test_a_request_that_is_not_on_the_cassette_goes_nowhere():
    with (
        player().use_cassette(str(CASSETTES / "status_404.yaml")),
        pytest.raises(CannotOverwriteExistingCassetteException),
    ):
        page_1(client_of(HOST), "12|abc")


@pytest.mark.skipif(IS_RECORDING, reason="they are being made")
@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_no_cassette_holds_a_secret(path: Any):
    assert leaks(path.read_text()) == []


def test_there_are_cassettes():
    assert IS_RECORDING or len(TAPES) >= 20


def leaks(tape: str) -> list[str]:
    """What a cassette must not hold."""
    found = re.findall(r"\b\d+\|[\w-]{3,}", tape)
    found += re.findall(r"(?i)set-cookie|cookie", tape)
    found += re.findall(rf"/hooks/(?!{REDACTED}\b)[^/\"'\s]+", tape)
    found += [
        host for host in re.findall(r"https?:(?:\\?/){2}([^/\"'\s\\<>]+)", tape) if not host.endswith("example.com")
    ]
    found += [domain for domain in re.findall(r"@([\w.-]+)", tape) if not domain.endswith("example.com")]
    for interaction in yaml.safe_load(tape)["interactions"]:
        found += [value for value in interaction["request"]["headers"].get("authorization", []) if value != REDACTED]
        body = interaction["response"]["body"]["string"]
        text = body.decode() if isinstance(body, bytes) else body
        found += re.findall(r'"\w*(?:secret|token|password|hash)\w*": "(?!REDACTED")[^"]*"', text, re.IGNORECASE)
    return found


SECRET_ANSWER = {
    "status": {"code": 200, "message": "OK"},
    "headers": {"Set-Cookie": ["session=hidden1"], "X-Api-Key": ["hidden2"], "Content-Type": ["application/json"]},
    "body": {
        "string": json.dumps(
            {
                "data": {
                    "email": "hidden3@client.example",
                    "name": "Hidden4 Person",
                    "plain_text_token": "3|hidden5",
                    "token_hash": "hidden6",
                    "imap_server": "hidden10.client.example",
                    "team": {"personal_team": True, "name": "Hidden11 Client"},
                    "tags": [{"id": 1, "default": False, "name": "hidden12"}, {"default": True, "name": "Google"}],
                    "deep": [{"webhooks_secret_key": "hidden7", "url": "https://hidden8.client.example/x"}],
                    "message": "mail hidden9@client.example",
                    "url": "https://bison.example.com/hooks/hidden13/test",
                }
            }
        ).encode()
    },
}


def test_what_is_recorded_is_scrubbed():
    kept = json.dumps(scrub_response(SECRET_ANSWER), default=bytes.decode)

    assert "hidden" not in kept.lower()
    assert "application/json" in kept
    assert "Google" in kept
    assert json.dumps(SECRET_ANSWER, default=bytes.decode).lower().count("hidden") == 13


@pytest.mark.parametrize(
    "planted",
    [
        "12|abcdef",
        "set-cookie: [x]",
        "https://send.client.test/api",
        "https://send.example.com/hooks/s3cret",
        "sam@client.test",
        '{"data": {"token_hash": "x1"}}',
    ],
)
def test_a_leak_would_be_found(planted: str):
    tape = {"interactions": [{"request": {"headers": {}}, "response": {"body": {"string": planted}}}]}

    assert leaks(yaml.safe_dump(tape)) != []
