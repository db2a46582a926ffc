"""Every answer fits the description of the API; no request breaks the sandbox."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.validation.response.exceptions import DataValidationError
from sandbox_asking import LIST, SUPER_ADMIN, ask, deliver_all
from werkzeug.datastructures import Headers, ImmutableMultiDict

from bisonsync.sandbox import Advance, Config, Fault
from bisonsync.sandbox.advance import advance
from bisonsync.sandbox.app import App
from bisonsync.sandbox.http import Answer, Request
from bisonsync.sandbox.routes import _EXACT, _VARYING, parse_query
from bisonsync.sandbox.samples import EVENT_TYPES

SPEC = OpenAPI.from_file_path(str(Path(__file__).parents[1] / "openapi" / "sandbox.yaml"))
FUZZED = App(Config(workspaces=2, accounts=40))


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=3, accounts=130, skew=(100, 20)))


@dataclass
class Asked:
    """A request as openapi-core wants it."""

    target: str
    method: str
    body: bytes | None
    host_url: str = "http://sandbox.example.com"
    content_type: str = "application/json"
    parameters: RequestParameters = field(default_factory=RequestParameters)

    def __post_init__(self) -> None:
        self.path, _, query = self.target.partition("?")
        headers = Headers({"Authorization": "Bearer x"})
        self.parameters = RequestParameters(query=ImmutableMultiDict(parse_query(query)), header=headers)


@dataclass
class Answered:
    """An answer as openapi-core wants it."""

    data: bytes
    status_code: int
    content_type: str
    headers: Headers


def check(target: str, answer: Answer, *, method: str = "GET", body: Any = None) -> None:
    asked = Asked(target, method.lower(), None if body is None else json.dumps(body).encode())
    SPEC.validate_response(asked, Answered(answer.body, answer.status, answer.content_type, Headers(answer.headers)))


STATS = "/api/campaign-events/stats"
HOOKS = "/api/webhook-url"
HOOK = {"name": "mine", "url": "http://127.0.0.1:9/hooks/x", "events": list(EVENT_TYPES)}
SAMPLE = "/api/webhook-events/sample-payload"
TEST_EVENT = "/api/webhook-events/test-event"
CALLS = [
    ("GET", "/api/users", None, 200),
    ("GET", "/api/workspaces", None, 200),
    ("GET", "/api/workspaces/v1.1", None, 200),
    ("GET", "/api/workspaces/2", None, 200),
    ("GET", "/api/workspaces/v1.1/2", None, 200),
    ("GET", "/api/workspaces/v1.1/99", None, 404),
    ("POST", "/api/workspaces/switch-workspace", {"team_id": 1}, 200),
    ("POST", "/api/workspaces/v1.1/switch-workspace", {"team_id": 1}, 200),
    ("POST", "/api/workspaces/v1.1/switch-workspace", {}, 422),
    ("POST", "/api/workspaces/v1.1/switch-workspace", {"team_id": 77}, 404),
    ("POST", "/api/workspaces/v1.1/2/api-tokens", {"name": "sync"}, 200),
    ("POST", "/api/workspaces/v1.1/2/api-tokens", {}, 422),
    ("GET", "/api/sender-emails", None, 200),
    ("GET", "/api/sender-emails?page=3", None, 200),
    ("GET", "/api/sender-emails?page=99", None, 200),
    ("GET", "/api/sender-emails?pagination_type=cursor", None, 200),
    ("GET", "/api/sender-emails?status=connected&search=a", None, 200),
    ("GET", "/api/sender-emails?status=other", None, 422),
    ("GET", "/api/sender-emails/1", None, 404),
    ("GET", "/api/campaigns", None, 200),
    ("GET", "/api/campaigns?page=2&search=a", None, 200),
    ("GET", "/api/campaigns?pagination_type=cursor&status=active", None, 200),
    ("GET", "/api/campaigns", {"status": "pending deletion"}, 200),
    ("GET", "/api/campaigns?status=Active", None, 422),
    ("GET", "/api/campaigns/1", None, 404),
    ("GET", "/api/tags", None, 200),
    ("GET", "/api/warmup/sender-emails?start_date=2026-01-01&end_date=2026-01-05&page=2", None, 200),
    ("GET", "/api/warmup/sender-emails?start_date=x", None, 422),
    ("GET", f"{STATS}?start_date=2026-01-03&end_date=2026-01-05", None, 200),
    ("GET", f"{STATS}?start_date=2026-01-03&end_date=2026-01-05&sender_email_ids[]=1001&campaign_ids[]=1", None, 200),
    ("GET", f"{STATS}?start_date=2026-01-03", None, 422),
    ("GET", f"{STATS}?start_date=2026-01-05&end_date=2026-01-03", None, 422),
    ("GET", f"{STATS}?start_date=x&end_date=2026-01-03", None, 422),
    ("POST", HOOKS, HOOK, 201),
    ("POST", HOOKS, {**HOOK, "name": " "}, 422),
    ("POST", HOOKS, {**HOOK, "url": "hooks.example.com"}, 422),
    ("POST", HOOKS, {**HOOK, "events": ["email_sent", "email_lost"]}, 422),
    ("POST", HOOKS, {"name": "mine"}, 422),
    ("GET", HOOKS, None, 200),
    ("GET", f"{HOOKS}/1", None, 200),
    ("GET", f"{HOOKS}/9", None, 404),
    ("PUT", f"{HOOKS}/1", {**HOOK, "events": ["tag_removed"]}, 200),
    ("PUT", f"{HOOKS}/1", {}, 422),
    ("PUT", f"{HOOKS}/9", HOOK, 404),
    ("DELETE", f"{HOOKS}/1", None, 200),
    ("DELETE", f"{HOOKS}/9", None, 404),
    ("GET", "/api/webhook-events/event-types", None, 200),
    ("GET", SAMPLE, {"event_type": "email_sent"}, 200),
    *[("GET", f"{SAMPLE}?event_type={event_type}", None, 200) for event_type in EVENT_TYPES],
    ("GET", SAMPLE, None, 422),
    ("POST", TEST_EVENT, {"event_type": "lead_replied", "url": "http://127.0.0.1:9/hooks/x"}, 200),
    ("POST", TEST_EVENT, {"event_type": "lead_lost", "url": "http://127.0.0.1:9/hooks/x"}, 422),
    ("POST", TEST_EVENT, {"event_type": "lead_replied"}, 422),
    ("GET", "/api/events", None, 200),
    ("GET", "/api/events?type=LEAD_REPLIED&start_date=2026-01-05&end_date=2026-01-06T01:02:03Z", None, 200),
    ("GET", "/api/events?start_date=yesterday", None, 422),
    ("GET", "/api/events?end_date=9999-12-31", None, 422),
    ("POST", "/api/webhook-attempts/1/retry", None, 200),
    ("POST", "/api/webhook-attempts/99/retry", None, 404),
]


@pytest.mark.parametrize("identity_key", ["team", "workspace"])
@pytest.mark.parametrize(("method", "target", "body", "status"), CALLS)
def test_every_answer_fits_the_description(
    app: App, method: str, target: str, body: Any, status: int, identity_key: Any
) -> None:
    is_first = identity_key == "team"
    app.config = Config(
        identity_key=identity_key, webhook_secret=is_first, paginate_workspaces=is_first, paginate_webhooks=is_first
    )
    ask(app, HOOKS, method="POST", body=HOOK)
    advance(app.world, Advance(minutes=1440, active=0.1))
    deliver_all(app, answers=[500, 200], at_most=20)

    answer = ask(app, target, method=method, body=body)

    assert answer.status == status, answer.body
    check(target, answer, method=method, body=body)


def test_every_mailbox_and_campaign_fits_the_description(app: App) -> None:
    for account_id in app.world.workspaces[1].accounts:
        check(f"{LIST}/{account_id}", ask(app, f"{LIST}/{account_id}"))
    for campaign_id in app.world.workspaces[1].campaigns:
        check(f"/api/campaigns/{campaign_id}", ask(app, f"/api/campaigns/{campaign_id}"))


@pytest.mark.parametrize("target", ["/api/users", LIST, "/api/tags", "/api/workspaces/v1.1/1"])
@pytest.mark.parametrize("fault", [None, Fault(kind="status", status=403), Fault(kind="status", status=429)])
def test_every_refusal_fits_the_description(app: App, target: str, fault: Fault | None) -> None:
    if fault:
        app.faults.add(fault)

    check(target, ask(app, target, "expired"))


def test_every_route_is_described() -> None:
    routes = [*_EXACT.values(), *(route for _, route in _VARYING)]
    served = {(route.template, method.lower()) for route in routes for method in route.handlers}

    paths = json.loads(json.dumps(SPEC.spec.read_value()))["paths"]
    assert served == {(path, method) for path, item in paths.items() for method in item}


@pytest.mark.parametrize("fields", [{"daily_limit": "5"}, {"tags": None}, {"unknown": 1}, {"created_at": "2026-01-01"}])
def test_the_description_notices_what_does_not_fit(app: App, fields: dict[str, Any]) -> None:
    app.faults.add(Fault(kind="fields", rows=(3,), set=fields))

    with pytest.raises(DataValidationError):
        check(LIST, ask(app, LIST))


PATHS = st.sampled_from([target.partition("?")[0] for _, target, _, _ in CALLS]) | st.text(max_size=20).map(
    "/api/".__add__
)
QUERIES = st.text(max_size=40) | st.builds(
    "{}={}".format,
    st.sampled_from(
        [
            *("page", "tag_ids[]", "pagination_type=cursor&cursor", "search", "start_date", "status"),
            *("sender_email_ids[]", "end_date", "start_date=2026-01-01&end_date", "cursor", "event_type", "type"),
        ]
    ),
    st.sampled_from(["9" * 5000, "x", "-1", "W10", "%00", "eyJpZCI6e319", "9999-12-31"]),
)
BODIES = st.binary(max_size=40) | st.sampled_from(
    [
        *(b"[" * 100_000, b'{"team_id": [1], "name": {}}', b'"text"', b"1e999"),
        b'{"name": "x", "url": "http://[", "events": [{}]}',
        b'{"name": "x", "url": "http://x", "events": [[]], "event_type": []}',
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE"]), PATHS, QUERIES, BODIES)
def test_no_request_breaks_it(method: str, path: str, query: str, body: bytes) -> None:
    headers = {"authorization": f"Bearer {SUPER_ADMIN}", "accept": "application/json"}

    answer = FUZZED.handle(Request(method, path, query, headers, body))

    assert answer.status in (200, 403, 404, 405, 422)
    json.loads(answer.body)
