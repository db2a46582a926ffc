"""Registrations belong to a workspace and are never unique; samples, the list of events and their second sending."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sandbox_asking import ask, deliver_all, read

from bisonsync.sandbox import Advance, Config
from bisonsync.sandbox.advance import advance
from bisonsync.sandbox.app import App
from bisonsync.sandbox.samples import EVENT_TYPES, sample

HOOKS = "/api/webhook-url"
EVENTS = "/api/events"
URL = "http://127.0.0.1:9/hooks/x"


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=2, accounts=40, skew=(30,)))


def register(app: App, token: str, *events: str, url: str = URL) -> dict[str, Any]:
    answer = ask(app, HOOKS, token, method="POST", body={"name": "mine", "url": url, "events": list(events)})
    assert answer.status == 201
    return json.loads(answer.body)["data"]


def control(app: App, name: str, **body: Any) -> Any:
    return read(ask(app, f"/_sandbox/{name}", None, method="POST", body=body))


def rows(app: App, token: str, query: str = "") -> list[dict[str, Any]]:
    """Read the list of events along its cursors."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = read(ask(app, f"{EVENTS}?cursor={cursor}{query}", token))
        assert len(page["data"]) <= 15
        found += page["data"]
        cursor = page["meta"]["next_cursor"]
    return found


def test_a_registration_is_listed_replaced_and_deleted_in_its_workspace_alone(app: App) -> None:
    one, two = app.world.mint(1).plain, app.world.mint(2).plain
    made = register(app, one, "email_sent", "email_sent", "lead_replied")

    assert made["events"] == ["email_sent", "lead_replied"]
    assert read(ask(app, HOOKS, one))["data"] == [made]
    assert read(ask(app, HOOKS, two))["data"] == []
    for method in ("GET", "PUT", "DELETE"):
        assert ask(app, f"{HOOKS}/{made['id']}", two, method=method, body=made).status == 404
    app.world.pass_time(5)
    changed = {"name": "other", "url": URL + "y", "events": ["tag_removed"]}
    replaced = read(ask(app, f"{HOOKS}/{made['id']}", one, method="PUT", body=changed))["data"]
    assert replaced == {**made, **changed, "updated_at": "2026-01-05T09:05:00.000000Z"}
    assert read(ask(app, f"{HOOKS}/{made['id']}", one))["data"] == replaced
    message = read(ask(app, f"{HOOKS}/{made['id']}", one, method="DELETE"))["data"]["message"]
    assert message == "other webhook url was successfully deleted"
    assert read(ask(app, HOOKS, one))["data"] == []


def test_a_refused_replacement_changes_nothing(app: App) -> None:
    token = app.world.mint(1).plain
    made = register(app, token, "email_sent")

    answer = ask(app, f"{HOOKS}/{made['id']}", token, method="PUT", body={**made, "name": "x", "events": ["no_such"]})

    assert answer.status == 422
    assert read(ask(app, HOOKS, token))["data"] == [made]


def test_the_same_url_twice_is_two_registrations_and_gets_everything_twice(app: App) -> None:
    token = app.world.mint(1).plain
    first, second = (register(app, token, "email_sent")["id"] for _ in range(2))

    control(app, "events", type="email_sent", count=3, workspace=1)

    made = deliver_all(app)
    assert [delivery.webhook_id for delivery, _ in made] == [first, second] * 3
    assert [body for _, body in made[::2]] == [body for _, body in made[1::2]]


def test_only_what_is_wanted_is_delivered_and_all_of_it_is_stored(app: App) -> None:
    one, two = app.world.mint(1).plain, app.world.mint(2).plain
    register(app, one, "lead_replied")

    for kind in ("lead_replied", "email_sent"):
        for workspace in (1, 2):
            control(app, "events", type=kind, workspace=workspace)

    assert [body["event"] for _, body in deliver_all(app)] == [
        {
            "type": "LEAD_REPLIED",
            "name": "Lead Replied",
            "instance_url": "http://localhost",
            "workspace_id": 1,
            "workspace_name": app.world.workspaces[1].name,
        }
    ]
    assert [row["payload"]["event"]["type"] for row in rows(app, one)] == ["EMAIL_SENT", "LEAD_REPLIED"]
    assert [len(row["webhook_deliveries"]) for row in rows(app, two)] == [0, 0]


def test_a_registration_in_pages_where_the_host_does_so(app: App) -> None:
    app.config = Config(paginate_webhooks=True)
    ids = [register(app, app.world.mint(1).plain, "email_sent")["id"] for _ in range(17)]
    token = app.world.mint(1).plain

    pages = [read(ask(app, f"{HOOKS}?page={n}", token)) for n in (1, 2)]

    assert [row["id"] for page in pages for row in page["data"]] == ids[::-1]
    assert pages[0]["meta"]["last_page"] == 2


@pytest.mark.parametrize(("event_types", "count"), [("13", 13), ("17", 17)])
def test_an_older_host_knows_fewer_types(app: App, event_types: Any, count: int) -> None:
    app.config = Config(event_types=event_types)
    token = app.world.mint(1).plain

    listed = {row["id"]: row["name"] for row in read(ask(app, "/api/webhook-events/event-types", token))["data"]}

    assert len(listed) == count
    assert listed["lead_replied"] == "Contact Replied"
    wanted = {"name": "x", "url": URL, "events": ["tag_attached"]}
    assert ask(app, HOOKS, token, method="POST", body=wanted).status == (201 if count == 17 else 422)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_sample_is_always_the_same_whoever_asks(app: App, event_type: str) -> None:
    in_query = ask(app, f"/api/webhook-events/sample-payload?event_type={event_type}", app.world.mint(2).plain)
    in_body = ask(app, "/api/webhook-events/sample-payload", body={"event_type": event_type})

    assert read(in_query) == read(in_body) == {"data": sample(event_type)}
    assert read(in_query)["data"]["event"]["type"] == event_type.upper()
    assert ask(app, "/api/webhook-events/sample-payload", method="POST").status == 405


def test_a_test_event_sends_the_sample_once_and_is_no_event(app: App) -> None:
    token = app.world.mint(1).plain
    register(app, token, "email_bounced", url="http://127.0.0.1:9/other")

    answer = read(
        ask(
            app,
            "/api/webhook-events/test-event",
            token,
            method="POST",
            body={"event_type": "email_bounced", "url": URL},
        )
    )

    ((delivery, body),) = deliver_all(app, answers=[500])
    assert (delivery.url, body) == (URL, sample("email_bounced"))
    assert answer["data"] == {"success": True, "message": "Successfully sent test webhook", "payload": body}
    assert rows(app, token) == []


def test_events_are_read_newest_first_along_cursors_and_filtered(app: App) -> None:
    token = app.world.mint(1).plain
    for kind, day in (("email_sent", 5), ("lead_replied", 6), ("email_sent", 7)):
        app.world.pass_time((datetime(2026, 1, day, 12, tzinfo=UTC) - app.world.now).total_seconds() / 60)
        control(app, "events", type=kind, count=20, workspace=1)

    everything = rows(app, token)

    assert len(everything) == 60
    assert [row["id"] for row in everything] == sorted((row["id"] for row in everything), reverse=True)
    assert len({row["uuid"] for row in everything}) == 60
    assert [row["created_at"][:10] for row in everything[::20]] == ["2026-01-07", "2026-01-06", "2026-01-05"]
    for query, wanted in (
        ("&type=LEAD_REPLIED", everything[20:40]),
        ("&type=email_sent", everything[:20] + everything[40:]),
        ("&start_date=2026-01-06", everything[:40]),
        ("&end_date=2026-01-06", everything[20:]),
        ("&start_date=2026-01-05T12:00:00.000001Z&end_date=2026-01-06T14:00:00%2B02:00", everything[20:40]),
        ("&end_date=2026-01-06T11:59:59Z", everything[40:]),
        ("&type=lead_replied&start_date=2026-01-07", []),
    ):
        assert rows(app, token, query) == wanted, query


def test_events_are_kept_for_ten_days(app: App) -> None:
    token = app.world.mint(1).plain
    control(app, "events", type="email_sent", workspace=1)
    app.world.pass_time(10 * 1440)
    control(app, "events", type="lead_replied", workspace=1)
    assert len(rows(app, token)) == 2

    app.world.pass_time(1)

    assert [row["payload"]["event"]["type"] for row in rows(app, token)] == ["LEAD_REPLIED"]
    control(app, "events", type="lead_replied", workspace=1)
    assert len(app.world.hooks.events[1]) == 2


def test_what_is_older_than_ten_days_when_it_is_found_is_delivered_but_not_listed(app: App) -> None:
    token = app.world.mint(1).plain
    advance(app.world, Advance(minutes=1440 * 12))
    listed = rows(app, token)
    assert listed
    assert min(row["created_at"] for row in listed) > "2026-01-07"
    assert len(app.world.hooks.events[1]) == len(listed)

    register(app, token, "email_sent")
    advance(app.world, Advance(minutes=1440 * 12))

    first = min(body["data"]["campaign_event"]["created_at"] for _, body in deliver_all(app))
    assert first < "2026-01-18"


def test_a_clock_that_runs_dates_events_by_when_they_are_found() -> None:
    """Whoever asks for what is new since the last time misses nothing."""
    now = datetime(2026, 8, 1, 12, tzinfo=UTC)
    app = App(Config(workspaces=1, accounts=30, clock="real"), now=lambda: now)
    token = app.world.mint(1).plain

    advance(app.world, Advance(minutes=60))
    first = rows(app, token)
    now += timedelta(minutes=1)
    advance(app.world, Advance(minutes=60))
    fresh = rows(app, token)[: -len(first)]

    assert {row["created_at"] for row in first} == {"2026-08-01T12:00:00.000000Z"}
    assert {row["created_at"] for row in fresh} == {"2026-08-01T12:01:00.000000Z"}
    happened = [
        row["payload"]["data"]["campaign_event"]["created_at"] for row in fresh if "lead" in row["payload"]["data"]
    ]
    assert "2026-08-01T11:01" < min(happened) < max(happened) < "2026-08-01T12:01"


def test_deliveries_tell_how_they_went_and_can_be_repeated(app: App) -> None:
    token = app.world.mint(1).plain
    hook = register(app, token, "email_sent")
    control(app, "events", type="email_sent", workspace=1)
    assert rows(app, token)[0]["webhook_deliveries"][0]["status"] == "pending"

    bodies = [body for _, body in deliver_all(app, answers=[500, "timed out", 302, 404, 201, 200])]

    (delivery,) = rows(app, token)[0]["webhook_deliveries"]
    assert (delivery["status"], delivery["webhook_url_id"], delivery["url"]) == ("failed", hook["id"], URL)
    codes = [(attempt["response_code"], attempt["error"]) for attempt in delivery["attempts"]]
    assert codes == [(500, None), (None, "timed out"), (302, None), (404, None), (201, None)]
    assert bodies == [bodies[0]] * 5
    attempt = delivery["attempts"][-1]["id"]
    retry = f"/api/webhook-attempts/{attempt}/retry"
    assert ask(app, retry, app.world.mint(2).plain, method="POST").status == 404
    assert read(ask(app, retry, token, method="POST"))["data"]["success"] is True
    assert rows(app, token)[0]["webhook_deliveries"][0]["status"] == "pending"
    assert [body for _, body in deliver_all(app, answers=[500, 500])] == bodies[:1]
    ask(app, retry, token, method="POST")
    assert [body for _, body in deliver_all(app)] == bodies[:1]
    assert rows(app, token)[0]["webhook_deliveries"][0]["status"] == "succeeded"


def test_a_host_without_stored_events_says_so(app: App) -> None:
    app.config = Config(has_events=False)

    answers = [ask(app, EVENTS), ask(app, "/api/webhook-attempts/1/retry", method="POST")]

    assert [answer.status for answer in answers] == [404, 404]
    assert json.loads(answers[0].body) == {"message": "The route api/events could not be found."}


def test_a_reset_forgets_registrations_events_and_what_is_on_its_way(app: App) -> None:
    token = app.world.mint(1).plain
    register(app, token, "email_sent")
    control(app, "events", type="email_sent", workspace=1)
    state = read(ask(app, "/_sandbox/state", None))["webhooks"]
    assert state == {"registered": 1, "events": 1, "deliveries_waiting": 1}

    control(app, "reset")

    assert read(ask(app, "/_sandbox/state", None))["webhooks"] == dict.fromkeys(state, 0)
    assert deliver_all(app) == []
