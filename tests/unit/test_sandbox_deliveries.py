"""Webhooks are tried until they are answered with 200; on request they arrive doubled, mixed, wrapped or never."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sandbox_asking import SUPER_ADMIN, ask, deliver_all, read

from bisonsync.sandbox import Config, Fault
from bisonsync.sandbox.app import App
from bisonsync.sandbox.courier import Postman, is_loopback
from bisonsync.sandbox.samples import EVENT_TYPES

URL = "http://127.0.0.1:9/hooks/x"


@pytest.fixture
def app() -> App:
    made = App(Config(workspaces=2, accounts=40, skew=(30,)))
    register(made)
    return made


def register(app: App, url: str = URL, workspace: int = 1) -> None:
    body = {"name": "mine", "url": url, "events": list(EVENT_TYPES)}
    assert ask(app, "/api/webhook-url", app.world.mint(workspace).plain, method="POST", body=body).status == 201


def happen(app: App, count: int, kind: str = "email_sent", workspace: int = 1) -> None:
    body = {"type": kind, "count": count, "workspace": workspace}
    read(ask(app, "/_sandbox/events", None, method="POST", body=body))


def numbers(made: list[Any]) -> list[int]:
    """Which event each delivery was of."""
    return [delivery.event.id for delivery, _ in made]


def stored(app: App) -> list[dict[str, Any]]:
    return read(ask(app, "/api/events", SUPER_ADMIN))["data"]


def test_bodies_are_sent_in_order_unwrapped_and_the_same_at_each_try(app: App) -> None:
    app.config = Config(webhook_tries=3)
    happen(app, 2)

    made = deliver_all(app, answers=[500, 200, 200])

    assert numbers(made) == [1, 2, 1]
    assert [body for _, body in made] == [row["payload"] for row in (*stored(app)[::-1], stored(app)[1])]
    assert made[0][1].keys() == {"event", "data"}


@pytest.mark.parametrize(("tries", "made"), [(1, 1), (5, 5)])
def test_it_gives_up_after_so_many_tries(app: App, tries: int, made: int) -> None:
    app.config = Config(webhook_tries=tries)
    happen(app, 1)

    assert len(deliver_all(app, answers=["refused"])) == made
    assert stored(app)[0]["webhook_deliveries"][0]["status"] == "failed"


def test_between_two_tries_it_waits(app: App) -> None:
    app.config = Config(webhook_spacing=7)
    happen(app, 1)

    ((delivery, _),) = deliver_all(app, answers=[500], at_most=1)

    assert (app.courier.waiting(), delivery.delay) == (1, 7)


def test_a_lost_delivery_is_in_the_list_of_events_alone(app: App) -> None:
    app.faults.add(Fault(kind="lose", times=2, after=1))
    happen(app, 4)

    assert numbers(deliver_all(app)) == [1, 4]
    assert [len(row["webhook_deliveries"]) for row in stored(app)] == [1, 0, 0, 1]


def test_a_delivery_is_doubled(app: App) -> None:
    app.faults.add(Fault(kind="redeliver", times=1))
    app.faults.add(Fault(kind="redeliver", after=1, insert=3, times=1))
    happen(app, 2)
    assert [entry.seen for entry in app.faults.entries] == [2, 2]

    made = deliver_all(app)

    assert numbers(made) == [1, 1, 2, 2, 2, 2]
    assert made[0][1] == made[1][1]
    deliveries = [row["webhook_deliveries"] for row in stored(app)]
    assert [[len(delivery["attempts"]) for delivery in each] for each in deliveries] == [[1] * 4, [1] * 2]
    assert len({delivery["id"] for each in deliveries for delivery in each}) == 6


def test_deliveries_of_one_step_arrive_in_another_order_the_same_for_the_same_seed(app: App) -> None:
    app.faults.add(Fault(kind="reorder", event="email_sent"))
    orders: list[list[int]] = []
    for _ in range(2):
        happen(app, 1, "lead_replied")
        happen(app, 30)
        orders.append([i % 31 for i in numbers(deliver_all(app))])
    again = App(Config(workspaces=2, accounts=40, skew=(30,)))
    register(again)
    again.faults.add(Fault(kind="reorder", event="email_sent"))
    happen(again, 1, "lead_replied")
    happen(again, 30)

    assert orders[0][0] == 1
    assert sorted(orders[0]) == list(range(31))
    assert orders[0] != orders[1] != sorted(orders[1])
    assert [i % 31 for i in numbers(deliver_all(again))] == orders[0]


@pytest.mark.parametrize(
    ("fields", "unwrap"),
    [({}, lambda body: body["data"]), ({"body": "payload"}, lambda body: body["payload"])],
)
def test_a_delivery_is_wrapped(app: App, fields: dict[str, Any], unwrap: Callable[[Any], Any]) -> None:
    app.faults.add(Fault(kind="wrap", times=1, **fields))
    happen(app, 2)

    (_, wrapped), (_, plain) = deliver_all(app)

    assert "event" not in wrapped
    assert unwrap(wrapped) == stored(app)[1]["payload"]
    assert plain == stored(app)[0]["payload"]


def test_what_is_sent_again_is_the_same_in_other_words(app: App) -> None:
    app.faults.add(Fault(kind="reword"))
    app.faults.add(Fault(kind="redeliver"))
    happen(app, 1)

    (_, first), (_, copy), (_, retried) = deliver_all(app, answers=[500, 200, 200])

    assert first == stored(app)[0]["payload"]
    assert json.dumps(first) == json.dumps(stored(app)[0]["payload"])
    assert json.dumps(copy) == json.dumps(retried) != json.dumps(first)
    assert copy["event"].pop("name") != first["event"].pop("name")
    assert copy == first
    assert [*copy] == [*first][::-1]
    assert [*copy["data"]["lead"]] == [*first["data"]["lead"]][::-1]


def test_a_type_comes_in_lower_case(app: App) -> None:
    app.faults.add(Fault(kind="lower_type", event="LEAD_REPLIED"))
    happen(app, 1)
    happen(app, 1, "lead_replied")

    assert [body["event"]["type"] for _, body in deliver_all(app)] == ["EMAIL_SENT", "lead_replied"]


def test_deliveries_are_chosen_by_workspace_path_and_share(app: App) -> None:
    register(app, "http://127.0.0.1:9/hooks/y")
    register(app, "http://127.0.0.1:9/hooks/x", workspace=2)
    app.faults.add(Fault(kind="lose", workspace=1, path="/hooks/x"))
    app.faults.add(Fault(kind="lose", path="/hooks/y", rate=0.5))
    happen(app, 100)
    happen(app, 3, workspace=2)

    left = Counter(delivery.url[-1] for delivery, _ in deliver_all(app))

    assert left["x"] == 3
    assert 30 < left["y"] < 70


def test_a_delivery_comes_late(app: App) -> None:
    app.faults.add(Fault(kind="reorder", times=1, seconds=3600))
    happen(app, 3)

    assert numbers(deliver_all(app)) == [2, 3, 1]


def test_faults_of_requests_and_of_deliveries_leave_each_other_alone(app: App) -> None:
    app.faults.add(Fault(kind="status", status=503))
    app.faults.add(Fault(kind="lose", event="lead_replied"))
    happen(app, 2)

    assert ask(app, "/api/users").status == 503
    assert len(deliver_all(app)) == 2
    assert [(entry.fault.kind, entry.seen) for entry in app.faults.entries] == [("status", 1), ("lose", 0)]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("hooks.localhost", True)),
        *(("10.0.0.1", False), ("example.com", False), ("0.0.0.0", False), ("localhost.example.com", False)),
        *(("127.0.0.1.example.com", False), (None, False)),
    ],
)
def test_this_machine_is_known_by_its_spelling(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("url", ["http://192.0.2.1/hooks/x", "http://hooks.example.com/x", "ftp://127.0.0.1/x"])
def test_nothing_leaves_this_machine_unless_allowed(url: str) -> None:
    outcome = Postman().post(url, b"{}", Config())

    assert outcome.code is None
    assert outcome.error in ("not on this machine: see --deliver-anywhere", "no http address")
