"""Failures of webhooks that must not come back, each with its number: by real deliveries, and real polls."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import cli
import psycopg
import pytest
from faultproxy import Conversation, said_by
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene import Scene, scene
from webhook_events import ACCOUNTS, BASE_URLS, REPLIES, SENDS, WARMUP
from webhook_model import COUNTERS, TIMES, Tenant, metrics_unlike_their_keys

from bisonsync.store import webhooks
from bisonsync.store.webhooks import Delivery, Outcome

Connection = psycopg.Connection[Any]
Object = dict[str, Any]

NOW = datetime.now(UTC)
BEGIN_OF_DAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
A: Tenant = ("east", 1)
B: Tenant = ("east", 2)
TABLES = ("client_metrics", "client_leads", "sender_emails_cache", "webhook_event_keys")


@pytest.fixture
def inbox(conn: Connection) -> Connection:
    for tenant in (A, B):
        conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES (%s, %s, %s)",
            (*tenant, f"Workspace {tenant[1]}"),
        )
    webhooks.write_settings(conn, timezone="UTC", store_bodies=False, base_urls=BASE_URLS)
    return conn


def payload(kind: str, number: int, at: datetime, *, lead: int = 1, account: int = 1, **event: object) -> Object:
    """An event with all parts that any type may have."""
    moment = at.isoformat()
    return {
        "event": {"type": kind, "workspace_id": A[1], "instance_url": BASE_URLS[A[0]]} | event,
        "data": {
            "reply": {"id": number, "uuid": f"uuid-{number}", "created_at": moment},
            "campaign_event": {"id": number, "created_at": moment},
            "scheduled_email": {"id": number, "sent_at": moment},
            "lead": {"id": lead, "email": f"lead{lead}@example.com", "title": f"title {number}"},
            "sender_email": {"id": account, "email": "box@example.com", "status": "connected", "updated_at": moment},
        },
    }


def deliver(conn: Connection, *bodies: Object, hook: Tenant | None = None, **how: Any) -> list[Outcome]:
    return webhooks.receive(conn, [Delivery(json.dumps(body), "receiver", hook=hook, **how) for body in bodies])


def counters(conn: Connection, part: str) -> dict[str, int]:
    """One part of the sums of all months, without zeros."""
    names = [name for name in COUNTERS if part != "after" or name != "unique_replies"]
    sums = ", ".join(f"coalesce(sum({name}_{part}), 0)::integer" for name in names)
    row = conn.execute(f"SELECT {sums} FROM client_metrics".encode()).fetchone()
    assert row is not None
    return {name: value for name, value in zip(names, row, strict=True) if value}


def sizes(conn: Connection) -> dict[str, int]:
    return {table: conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchall()[0][0] for table in TABLES}


# F12


def test_f12_a_poll_and_webhooks_write_each_their_own_part(inbox: Connection) -> None:
    """Shown is what was polled as of a moment and the events after it, whenever they arrive."""
    as_of = NOW - timedelta(seconds=10)
    before = [payload("EMAIL_SENT", n, as_of - timedelta(microseconds=n)) for n in range(3)]
    deliver(inbox, *before)

    # What a poll writes: its own part, the moment, and which of the known events come after it.
    inbox.execute(
        "INSERT INTO client_metrics AS m (bison_instance, bison_workspace_id, metric_month, as_of, emails_sent_polled)"
        " VALUES (%s, %s, %s, %s, 1000) ON CONFLICT (bison_instance, bison_workspace_id, metric_type, metric_month)"
        " DO UPDATE SET as_of = excluded.as_of, emails_sent_polled = excluded.emails_sent_polled",
        (*A, (as_of - timedelta(microseconds=2)).replace(day=1).date(), as_of),
    )
    assert (counters(inbox, "webhook"), counters(inbox, "mtd")) == ({"emails_sent": 3}, {"emails_sent": 1000})

    deliver(inbox, *[payload("EMAIL_SENT", 10 + n, as_of + timedelta(microseconds=n)) for n in range(3)])
    deliver(inbox, *before, payload("EMAIL_SENT", 20, as_of - timedelta(microseconds=5)))

    assert counters(inbox, "polled") == {"emails_sent": 1000}
    assert counters(inbox, "webhook") == {"emails_sent": 7}
    assert counters(inbox, "after") == {"emails_sent": 2}
    assert counters(inbox, "mtd") == {"emails_sent": 1002}
    assert metrics_unlike_their_keys(inbox) == []


# F14


@pytest.mark.parametrize("spell", [str.upper, str.lower, str.title, str.swapcase, "  {} ".format])
def test_f14_a_type_is_the_same_in_any_case(inbox: Connection, spell: Any) -> None:
    kinds = [*SENDS, *REPLIES, *ACCOUNTS, *WARMUP]

    first = deliver(inbox, *[payload(spell(kind), 1, NOW) for kind in kinds])
    told = counters(inbox, "mtd")
    again = deliver(inbox, *[payload(kind.upper(), 1, NOW) for kind in kinds])

    assert [(one.status, one.event_type) for one in first] == [("processed", kind) for kind in kinds]
    assert {one.status for one in again} == {"duplicate"}
    assert told == counters(inbox, "mtd") == dict.fromkeys(COUNTERS[:5], 1)
    times = ", ".join(f"last_{name}_at" for name in TIMES.values())
    assert inbox.execute(f"SELECT {times} FROM client_leads".encode()).fetchall() == [(NOW,) * len(TIMES)]


# F19


def test_f19_tests_touch_nothing_and_do_not_stand_in_the_way_of_the_real_event(inbox: Connection) -> None:
    kinds = [*SENDS, *REPLIES, *ACCOUNTS, *WARMUP, "tag_attached", "no_such_type"]
    bodies = [payload(kind, 1, NOW) for kind in kinds]
    sample = payload("EMAIL_SENT", 1, NOW)
    sample["data"]["sender_email"]["created_at"] = "2024-08-02T06:06:40.000000Z"
    sample["data"]["campaign_event"]["created_at"] = "2024-08-02T06:09:35.000000Z"

    outcomes = deliver(inbox, *bodies, hook=A, is_test=True)
    outcomes += deliver(inbox, sample, hook=A) + deliver(inbox, sample)
    inbox.execute("SELECT ingest_webhook(%s)", (json.dumps(sample),))
    webhooks.process(inbox, [one.id for one in outcomes], [one.received_at for one in outcomes])

    assert sizes(inbox) == dict.fromkeys(TABLES, 0)
    assert inbox.execute("SELECT DISTINCT status FROM webhook_delivery_log").fetchall() == [("test",)]
    assert {one.status for one in deliver(inbox, *bodies[:-1], hook=A)} == {"processed"}


# F24


def test_f24_the_same_webhook_46_times_counts_once(inbox: Connection, db: str) -> None:
    """By two couriers at once, by every door, one by one and in batches, as an id and as a string, and replayed."""
    body = payload("LEAD_INTERESTED", 93, NOW)
    spelled = [body, {"data": body}, {"payload": body}]
    spelled.append(json.loads(json.dumps(body).replace('"id": 93', '"id": "93"')))
    failures: list[BaseException] = []

    def bring() -> None:
        try:
            with psycopg.connect(db, autocommit=True) as courier:
                for turn in range(5):
                    deliver(courier, *spelled[turn % 2 :][:2], hook=A if turn % 2 else None)
                    courier.execute("SELECT ingest_webhook(%s)", (json.dumps(spelled[turn % 4]),))
                with courier.transaction():
                    deliver(courier, *spelled, *spelled)
        except BaseException as error:
            failures.append(error)

    couriers = [threading.Thread(target=bring) for _ in range(2)]
    for courier in couriers:
        courier.start()
    for courier in couriers:
        courier.join()
    assert failures == []
    rows = inbox.execute("SELECT id, received_at FROM webhook_delivery_log").fetchall()
    webhooks.process(inbox, [row[0] for row in rows], [row[1] for row in rows])

    found = dict(inbox.execute("SELECT status, count(*) FROM webhook_delivery_log GROUP BY 1").fetchall())
    assert found == {"processed": 1, "duplicate": 45}
    assert counters(inbox, "mtd") == {"interested": 1}
    assert sizes(inbox)["webhook_event_keys"] == 1


# F26


@pytest.fixture
def stage(db: str) -> Iterator[Scene]:
    """A workspace that was polled, with the receiver's settings."""
    with scene(db, workspaces=1, accounts=40) as made:
        webhooks.write_settings(made.conn, timezone="UTC", store_bodies=False, base_urls={"sim": made.sandbox.url})
        assert made.poll().returncode == 0
        yield made


def account_event(kind: str, account: int, at: datetime) -> Object:
    body = payload(kind, account, at, account=account, workspace_id=1)
    del body["event"]["instance_url"]
    return body


def shown(stage: Scene) -> dict[int, tuple[bool, bool | None]]:
    """What email_accounts_live says: connected, warm-up."""
    return {
        account: (is_connected, warmup)
        for account, is_connected, warmup in stage.conn.execute(
            "SELECT bison_account_id, is_connected, warmup_enabled FROM email_accounts_live"
        )
    }


def test_f26_a_poll_that_was_read_before_an_event_does_not_undo_it(stage: Scene) -> None:
    """The events arrive when the poll has begun to read; the API tells it what was before them."""
    connected, gone, warm = [n for n, row in sorted(stage.sandbox.world.workspaces[1].accounts.items())
                             if row.status == "Connected" and row.warmup_enabled][:3]  # fmt: skip
    known = shown(stage)
    seen: list[dict[int, tuple[bool, bool | None]]] = []

    def events_arrive(_: Conversation) -> None:
        with psycopg.connect(stage.dsn, autocommit=True) as other:
            now = datetime.now(UTC)
            outcomes = deliver(
                other,
                account_event("EMAIL_ACCOUNT_DISCONNECTED", connected, now),
                account_event("EMAIL_ACCOUNT_REMOVED", gone, now),
                account_event("WARMUP_DISABLED_CAUSING_BOUNCES", warm, now),
                account_event("EMAIL_ACCOUNT_ADDED", 999_999, now),
                hook=("sim", 1),
            )
            assert [one.status for one in outcomes] == ["processed"] * 4
            seen.append(shown(stage))

    stage.proxy.at("answered", said_by("visits", "start_read"), events_arrive)
    for account in (connected, gone, warm):
        stage.sandbox.world.change(account, daily_limit=77)
    done = stage.poll(direct=False)

    assert (done.returncode, cli.document(done)["verdict"]) == (0, "success"), done.stderr
    told = known | {connected: (False, True), warm: (True, False), 999_999: (True, None)}
    del told[gone]
    assert seen == [told]
    assert shown(stage) == told
    # A read that began later knows better.
    assert stage.poll().returncode == 0
    assert shown(stage) == known


def test_f26_an_event_older_than_a_poll_does_not_undo_the_poll(stage: Scene) -> None:
    connected, gone, *_ = sorted(shown(stage))
    known = shown(stage)
    long_ago = NOW - timedelta(days=2)

    outcomes = deliver(
        stage.conn,
        account_event("EMAIL_ACCOUNT_DISCONNECTED", connected, long_ago),
        account_event("EMAIL_ACCOUNT_REMOVED", gone, long_ago),
        account_event("EMAIL_ACCOUNT_ADDED", 999_999, long_ago),
        hook=("sim", 1),
    )

    assert [one.status for one in outcomes] == ["processed"] * 3
    assert shown(stage) == known


def test_f26_a_status_told_by_an_event_is_shown_at_once(stage: Scene) -> None:
    """Also where the platform's time of it is that of an earlier activity, from before the poll."""
    first, second, *_ = [account for account, (is_connected, _) in sorted(shown(stage).items()) if is_connected]

    deliver(stage.conn, account_event("EMAIL_ACCOUNT_DISCONNECTED", first, datetime.now(UTC)), hook=("sim", 1))
    earlier = datetime.now(UTC) - timedelta(minutes=5)
    deliver(stage.conn, account_event("EMAIL_ACCOUNT_DISCONNECTED", second, earlier), hook=("sim", 1))

    assert (shown(stage)[first][0], shown(stage)[second][0]) == (False, False)
    deliver(
        stage.conn, account_event("EMAIL_ACCOUNT_RECONNECTED", second, earlier + timedelta(minutes=1)), hook=("sim", 1)
    )
    assert shown(stage)[second][0] is True


# The order of arrival


@st.composite
def few_events(draw: st.DrawFn, kinds: tuple[str, ...]) -> list[Object]:
    """Of one lead or account and of few moments, so that many are of the same."""
    bodies: list[Object] = []
    for number in range(draw(st.integers(2, 6))):
        at = BEGIN_OF_DAY - timedelta(days=draw(st.integers(1, 2)))
        body = payload(draw(st.sampled_from(kinds)), number, at)
        body["data"]["lead"]["email"] = draw(st.sampled_from(["a@example.com", "B@example.com", None]))
        body["data"]["lead"]["title"] = draw(st.sampled_from(["CEO", "CTO", None]))
        body["data"]["reply"]["uuid"] = draw(st.sampled_from(["u-1", "u-2", None]))
        bodies.append(body)
    return bodies


def deliver_in_parts(conn: Connection, tenant: Tenant, bodies: list[Object], cuts: set[int]) -> None:
    at = 0
    for cut in [*sorted(cuts), len(bodies)]:
        part = bodies[at:cut]
        at = max(at, cut)
        deliver(conn, *[body | {"event": body["event"] | {"workspace_id": tenant[1]}} for body in part])


def state_of(conn: Connection, tenant: Tenant) -> Any:
    """Leads and accounts of a workspace, without what is our own bookkeeping."""
    mine = "'bison_workspace_id,workspace_name,id,first_seen_at,created_at,updated_at,last_synced_at,event_applied_at'"
    return [
        conn.execute(
            f"SELECT to_jsonb(t) - string_to_array({mine}, ',') AS t FROM {table} AS t"
            " WHERE (bison_instance, bison_workspace_id) = (%s, %s) ORDER BY t".encode(),
            tenant,
        ).fetchall()
        for table in ("client_leads", "sender_emails_cache")
    ]


def assert_same_in_any_order(inbox: Connection, data: st.DataObject, kinds: tuple[str, ...]) -> None:
    """The same events in two workspaces, in another order, in other batches, some of them twice."""
    bodies = data.draw(few_events(kinds))
    others = data.draw(st.permutations(bodies)) + data.draw(st.lists(st.sampled_from(bodies), max_size=2))
    cuts, other_cuts = (data.draw(st.sets(st.integers(1, 6))) for _ in range(2))
    with inbox.transaction(force_rollback=True):
        deliver_in_parts(inbox, A, bodies, cuts)
        deliver_in_parts(inbox, B, others, other_cuts)

        assert state_of(inbox, A) == state_of(inbox, B)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=250)
@given(data=st.data())
def test_the_order_of_arrival_changes_no_lead(inbox: Connection, data: st.DataObject) -> None:
    assert_same_in_any_order(inbox, data, ("email_sent", "lead_replied", "lead_interested"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=250)
@given(data=st.data())
def test_the_order_of_arrival_changes_no_account(inbox: Connection, data: st.DataObject) -> None:
    assert_same_in_any_order(inbox, data, (*ACCOUNTS, WARMUP[0]))
