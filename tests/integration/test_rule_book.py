"""What one delivery means: whose it is, when it happened, whether it is new, and what it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from conftest import database

from bisonsync.store import webhooks
from bisonsync.store.webhooks import Delivery, Outcome

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]
Object = dict[str, Any]

NOW = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = (NOW - timedelta(days=1)).isoformat()
BASE_URLS = {"north": "https://north.example.com", "south": "https://south.example.com:8443"}


def register(conn: Connection) -> None:
    """Two instances, each with a workspace 1; the first has a workspace 2 as well."""
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
        " VALUES ('north', 1, 'Acme'), ('north', 2, 'Beta'), ('south', 1, 'Gamma')"
    )
    write_settings(conn, BASE_URLS)


def write_settings(
    conn: Connection, base_urls: Mapping[str, str], former_urls: Mapping[str, list[str]] | None = None
) -> None:
    webhooks.write_settings(
        conn, timezone="Europe/Berlin", store_bodies=False, base_urls=base_urls, former_urls=former_urls
    )


@pytest.fixture(scope="module")
def shared(server: Connection, server_dsn: str, template: str) -> Iterator[Connection]:
    """A connection to a database in which every test's transaction is rolled back."""
    with database(server, server_dsn, template) as dsn, psycopg.connect(dsn) as connection:
        register(connection)
        connection.commit()
        yield connection


@pytest.fixture
def inbox(shared: Connection) -> Iterator[Connection]:
    yield shared
    shared.rollback()


@pytest.fixture
def own_inbox(conn: Connection) -> Connection:
    """A database of the test's own, for what is seen only once it is committed."""
    register(conn)
    return conn


def told(kind: str = "EMAIL_SENT", data: object = None, *, workspace: object = 2, **event: object) -> Object:
    return {"event": {"type": kind, "workspace_id": workspace} | event, "data": {} if data is None else data}


def sent(number: object = 1, **more: object) -> Object:
    return told(data={"campaign_event": {"id": number, "created_at": YESTERDAY}}, **more)


def replied(number: object = 1, **reply: object) -> Object:
    return told("LEAD_REPLIED", {"reply": {"id": number, "created_at": YESTERDAY} | reply})


def account(kind: str, *, at: datetime, number: int = 7, **more: object) -> Object:
    return told(
        f"EMAIL_ACCOUNT_{kind}",
        {"sender_email": {"id": number, "email": "Sam@Sender.example.com", "updated_at": at.isoformat()} | more},
    )


def deliver(conn: Connection, *bodies: object, **how: Any) -> list[Outcome]:
    return webhooks.receive(conn, [Delivery(json.dumps(body), "receiver", **how) for body in bodies])


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def due(conn: Connection) -> list[int]:
    """What replay takes up by itself."""
    return [row[0] for row in conn.execute("SELECT id FROM bisonsync_private.due_deliveries() ORDER BY id").fetchall()]


def addresses(conn: Connection) -> set[tuple[Any, ...]]:
    """Of each instance, and whether it is a former one."""
    return set(conn.execute("SELECT bison_instance, base_url, is_former FROM bisonsync_private.instance_origins"))


def counted(conn: Connection) -> dict[str, int]:
    row = conn.execute(
        "SELECT coalesce(sum(emails_sent_mtd), 0) AS sent, coalesce(sum(replies_mtd), 0) AS replies,"
        " coalesce(sum(interested_mtd), 0) AS interested, coalesce(sum(bounced_mtd), 0) AS bounced,"
        " coalesce(sum(unsubscribed_mtd), 0) AS unsubscribed FROM client_metrics"
    ).fetchone()
    assert row is not None
    names = ("sent", "replies", "interested", "bounced", "unsubscribed")
    return {name: int(value) for name, value in zip(names, row, strict=True) if value}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, "the body is no JSON object"),
        ([], "the body is no JSON object"),
        ("EMAIL_SENT", "the body is no JSON object"),
        ({}, "there is no event object in it"),
        ({"event": "EMAIL_SENT", "data": {}}, "there is no event object in it"),
        ({"event": {}, "data": {}}, "event.type is missing or no text"),
        ({"event": {"type": " "}, "data": {}}, "event.type is missing or no text"),
        ({"event": {"type": 7}, "data": {}}, "event.type is missing or no text"),
        (told("X" * 101), "event.type is no type: it is too long"),
        ({"event": {"type": "EMAIL_SENT", "workspace_id": 2}}, "data is missing or no object"),
        (told(data=[]), "data is missing or no object"),
        (told("LEAD_REPLIED", {"reply": "yes"}), "data.reply is no object"),
        (told("LEAD_REPLIED", {"reply": {"id": {}}}), "data.reply.id is neither number nor text"),
        (told(data={"campaign_event": [1]}), "data.campaign_event is no object"),
        (told(data={"campaign_event": {"id": [1]}}), "data.campaign_event.id is neither number nor text"),
        (told(data={"scheduled_email": {"id": True}}), "data.scheduled_email.id is neither number nor text"),
        (told("EMAIL_ACCOUNT_ADDED", {"sender_email": {}}), "data.sender_email.id is missing or no number"),
        (told("EMAIL_ACCOUNT_ADDED", {"sender_email": {"id": "x"}}), "data.sender_email.id is missing or no number"),
        (sent(workspace={}), "event.workspace_id is no number"),
        (sent(workspace="two"), "event.workspace_id is no number"),
        (sent(workspace=None), "event.workspace_id is missing, and it came to no workspace's own address"),
    ],
)
def test_what_can_never_succeed_is_dead_at_once(inbox: Connection, body: object, reason: str) -> None:
    (outcome,) = deliver(inbox, body)

    assert (outcome.status, outcome.error_message) == ("dead", reason)
    kept = inbox.execute("SELECT payload, success, next_attempt_at FROM webhook_delivery_log").fetchone()
    assert kept == (body, False, None)
    assert counted(inbox) == {}


@pytest.mark.parametrize(
    ("event", "whose"),
    [
        ({"workspace_id": 2}, ("processed", "north", 2)),
        ({"workspace_id": "2"}, ("processed", "north", 2)),
        ({"workspace_id": 1}, ("unknown_workspace", None, 1)),
        ({"workspace_id": 1, "instance_url": "https://north.example.com"}, ("processed", "north", 1)),
        ({"workspace_id": 1, "instance_url": "HTTPS://South.example.com:8443/app?x"}, ("processed", "south", 1)),
        ({"workspace_id": 1, "instance_url": "https://north.example.com:443/"}, ("processed", "north", 1)),
        ({"workspace_id": 1, "instance_url": "https://south.example.com"}, ("unknown_workspace", None, 1)),
        ({"workspace_id": 1, "instance_url": "http://north.example.com"}, ("unknown_workspace", None, 1)),
        ({"workspace_id": 2, "instance_url": "https://elsewhere.example.com"}, ("unknown_workspace", None, 2)),
        ({"workspace_id": 9, "instance_url": "https://north.example.com"}, ("unknown_workspace", "north", 9)),
        ({"workspace_id": 2, "instance_url": "no address"}, ("processed", "north", 2)),
    ],
)
def test_the_payload_tells_whose_it_is(inbox: Connection, event: Object, whose: tuple[str, str | None, int]) -> None:
    (outcome,) = deliver(inbox, {"event": {"type": "EMAIL_SENT"} | event, "data": {"campaign_event": {"id": 1}}})

    assert (outcome.status, outcome.bison_instance, outcome.bison_workspace_id) == whose
    assert (outcome.status == "processed") == bool(counted(inbox))


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({}, "processed"),
        ({"workspace_id": "1"}, "processed"),
        ({"workspace_id": 1, "instance_url": "https://south.example.com:8443/"}, "processed"),
        ({"workspace_id": 2}, "mismatch"),
        ({"workspace_id": "one"}, "mismatch"),
        ({"workspace_id": 1, "instance_url": "https://north.example.com"}, "mismatch"),
        ({"instance_url": "https://elsewhere.example.com"}, "mismatch"),
    ],
)
def test_a_secret_s_deliveries_are_its_workspace_s_or_a_mismatch(inbox: Connection, event: Object, status: str) -> None:
    body = {"event": {"type": "EMAIL_SENT"} | event, "data": {"campaign_event": {"id": 1}}}

    (outcome,) = deliver(inbox, body, hook=("south", 1))

    assert (outcome.status, outcome.bison_instance, outcome.bison_workspace_id) == (status, "south", 1)
    assert bool(counted(inbox)) == (status == "processed")


@pytest.mark.parametrize("hook", [None, ("north", 1), ("north", 2)])
def test_the_vendor_s_published_sample_is_a_test(inbox: Connection, hook: tuple[str, int] | None) -> None:
    sample = told(
        "LEAD_REPLIED",
        {
            "reply": {"id": 45, "created_at": "2024-08-03T10:00:05.000000Z"},
            "campaign_event": {"id": 7, "created_at": "2024-08-03T10:00:05.000000Z"},
            "sender_email": {"id": 3, "created_at": "2024-08-02T06:06:40.000000Z"},
        },
        workspace=1,
        instance_url="https://vendor.example.com",
    )
    tag = {"tag_id": 1, "tag_name": "Interested", "taggable_id": 20, "taggable_type": "Campaign"}

    assert statuses(deliver(inbox, sample, hook=hook)) == ["test"]
    assert statuses(deliver(inbox, told("TAG_ATTACHED", tag, workspace_name="Red Team"), hook=("north", 1))) == ["test"]
    assert counted(inbox) == {}


def test_a_mismatch_is_not_applied_as_long_as_it_lasts(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, sent(workspace=1), hook=("north", 2))
    inbox.execute("UPDATE webhook_delivery_log SET processed_at = '2026-01-01Z'")

    again = webhooks.process(inbox, [outcome.id], [outcome.received_at])

    assert statuses(again) == ["mismatch"]
    kept = inbox.execute("SELECT status, success, processed_at = '2026-01-01Z' FROM webhook_delivery_log").fetchall()
    assert kept == [("mismatch", False, True)]
    assert counted(inbox) == {}


def test_a_mismatch_of_which_nobody_knows_whose_address_it_came_to_stays_one(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, sent(), is_mismatch=True)

    again = webhooks.process(inbox, [outcome.id], [outcome.received_at])

    assert (statuses(again), due(inbox), counted(inbox)) == (["mismatch"], [], {})


@pytest.mark.parametrize("how", ["base_url", "former_urls"])
def test_a_mismatch_is_due_and_counts_once_its_host_is_known(inbox: Connection, how: str) -> None:
    event = sent(instance_url="https://app.example.com/")
    outcomes = deliver(inbox, event, sent(2, workspace=1), hook=("north", 2))
    assert (statuses(outcomes), due(inbox)) == (["mismatch", "mismatch"], [])
    if how == "base_url":
        write_settings(inbox, BASE_URLS | {"north": "https://app.example.com"})
    else:
        write_settings(inbox, BASE_URLS, {"north": ["https://old.example.com", "https://app.example.com"]})

    assert due(inbox) == [outcomes[0].id]
    again = webhooks.process(inbox, [outcomes[0].id], [outcomes[0].received_at])
    assert (statuses(again), counted(inbox)) == (["processed"], {"sent": 1})


def test_what_comes_from_a_former_address_at_which_another_instance_is_now_is_that_ones(inbox: Connection) -> None:
    write_settings(inbox, BASE_URLS, {"north": [BASE_URLS["south"]]})

    outcomes = deliver(inbox, sent(workspace=1, instance_url=BASE_URLS["south"]), hook=("north", 1))

    assert (statuses(outcomes), due(inbox), counted(inbox)) == (["mismatch"], [], {})


def test_one_whose_host_was_unknown_is_due_as_soon_as_it_is_known(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, sent(instance_url="https://app.example.com/"))
    webhooks.process(inbox, [outcome.id], [outcome.received_at])
    assert (outcome.status, due(inbox)) == ("unknown_workspace", [])

    write_settings(inbox, BASE_URLS, {"north": ["https://app.example.com"]})

    assert due(inbox) == [outcome.id]


def test_two_settings_files_leave_each_other_s_instances_alone(inbox: Connection) -> None:
    write_settings(inbox, {"north": "https://north.example.com"}, {"north": ["https://app.example.com"]})
    write_settings(inbox, {"south": "https://south.example.com:8443"})

    assert addresses(inbox) == {
        ("north", "https://north.example.com", False),
        ("north", "https://app.example.com", True),
        ("south", "https://south.example.com:8443", False),
    }


def test_a_settings_file_forgets_what_it_no_longer_names_and_takes_a_renamed_instance_over(inbox: Connection) -> None:
    write_settings(inbox, BASE_URLS, {"north": ["https://app.example.com"]})

    write_settings(inbox, {"north": "https://north.example.com", "main": "https://south.example.com:8443"})

    assert addresses(inbox) == {
        ("north", "https://north.example.com", False),
        ("main", "https://south.example.com:8443", False),
    }


def test_an_address_is_its_owner_s_though_it_was_another_s(inbox: Connection) -> None:
    write_settings(inbox, BASE_URLS, {"north": ["https://south.example.com:8443"]})

    (outcome,) = deliver(inbox, sent(workspace=2, instance_url="https://south.example.com:8443"))

    assert (outcome.status, outcome.bison_instance) == ("unknown_workspace", "south")


@pytest.mark.parametrize(
    "kind", ["EMAIL_ACCOUNT_ADDED", "EMAIL_ACCOUNT_DISCONNECTED", "WARMUP_DISABLED_CAUSING_BOUNCES"]
)
def test_the_vendor_s_sample_of_an_account_event_is_a_test(inbox: Connection, kind: str) -> None:
    for moment in ("2024-08-02T06:06:40.000000Z", "2024-08-04T11:00:00.000000Z"):
        mailbox = {"id": 3, "created_at": "2024-08-02T06:06:40.000000Z", "updated_at": moment}
        assert statuses(deliver(inbox, told(kind, {"sender_email": mailbox}))) == ["test"]


def test_an_unknown_workspace_s_events_count_once_it_is_registered(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, sent(workspace=9, instance_url="https://north.example.com"))
    assert (outcome.status, counted(inbox)) == ("unknown_workspace", {})

    inbox.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('north', 9, 'New')"
    )
    (again,) = webhooks.process(inbox, [outcome.id], [outcome.received_at])

    assert (again.status, counted(inbox)) == ("processed", {"sent": 1})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (sent(45), sent("45")),
        (sent(45), sent(" 045 ")),
        (sent(45), sent(45.0)),
        (sent(45), {"data": sent(45)}),
        (sent(45), {"payload": sent(45)}),
        (sent(45), sent(45, name="Another name", workspace_name="Renamed")),
        (told("Email_Sent", {"campaign_event": {"id": 5}}), told("email_sent", {"campaign_event": {"id": 5}})),
        (replied(3), replied(3, interested=True, created_at=NOW.isoformat())),
        (told(data={"scheduled_email": {"id": 4}}), told(data={"scheduled_email": {"id": 4}, "campaign_event": None})),
        (
            told(data={"scheduled_email": {"id": 4}}),
            told(data={"scheduled_email": {"id": 4}, "campaign_event": {"id": ""}}),
        ),
        (told("LEAD_REPLIED", {"note": "a"}), told("LEAD_REPLIED", {"note": "a"}, name="Replied")),
        (told("TAG_ATTACHED", {"tag_id": 1, "x": 2}), told("TAG_ATTACHED", {"x": 2, "tag_id": 1})),
        (account("ADDED", at=NOW, name="a"), account("ADDED", at=NOW.astimezone(), name="b")),
    ],
)
def test_the_same_event_again_is_a_duplicate(inbox: Connection, first: object, second: object) -> None:
    assert statuses(deliver(inbox, first, second)) == ["processed", "duplicate"]
    assert statuses(deliver(inbox, second, first)) == ["duplicate", "duplicate"]
    assert sum(counted(inbox).values()) <= 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (sent(45), sent(46)),
        (sent(45), told("LEAD_UNSUBSCRIBED", {"campaign_event": {"id": 45}})),
        (sent(45), sent(45, workspace=1, instance_url="https://south.example.com:8443")),
        (told(data={"campaign_event": {"id": 4}}), told(data={"scheduled_email": {"id": 4}})),
        (told("LEAD_REPLIED", {"lead": {"id": 1}}), told("LEAD_REPLIED", {"lead": {"id": 2}})),
        (account("DISCONNECTED", at=NOW), account("DISCONNECTED", at=NOW - timedelta(hours=1))),
    ],
)
def test_another_event_is_none(inbox: Connection, first: object, second: object) -> None:
    assert statuses(deliver(inbox, first, second)) == ["processed", "processed"]


def test_a_body_without_an_id_is_the_same_for_ten_minutes(inbox: Connection) -> None:
    body = told("TAG_ATTACHED", {"tag_id": 1})

    def at(minutes: float) -> str:
        (outcome,) = deliver(inbox, body, received_at=NOW + timedelta(minutes=minutes))
        return outcome.status

    assert [at(minutes) for minutes in (0, 9.9, -9.9, 10, 19.9, 20.5)] == [
        "processed", "duplicate", "duplicate", "processed", "duplicate", "processed",
    ]  # fmt: skip
    batch = [
        Delivery(json.dumps(told("TAG_REMOVED", {})), "file", received_at=NOW + timedelta(minutes=n)) for n in range(46)
    ]
    assert statuses(webhooks.receive(inbox, batch)).count("processed") == 5


@pytest.mark.parametrize(
    ("data", "rule", "moment"),
    [
        (
            {"campaign_event": {"created_at": "2026-01-05T10:00:00Z"}, "reply": {"created_at": "2026-01-04T10:00:00Z"}},
            "campaign_event.created_at",
            "10:00",
        ),
        (
            {"campaign_event": {"created_at": "soon"}, "reply": {"created_at": "2026-01-05T10:00:00.000000Z"}},
            "reply.created_at",
            "10:00",
        ),
        ({"scheduled_email": {"sent_at": "2026-01-05 11:00:00+01:00"}}, "scheduled_email.sent_at", "10:00"),
        ({"sender_email": {"updated_at": "2026-01-05T10:00:00"}}, "sender_email.updated_at", "10:00"),
        ({"campaign_event": {"created_at_local": "2026-01-05T10:00:00Z"}, "sender_email": {}}, "received_at", "12:00"),
        ({"campaign_event": {"created_at": "2026-01-05T12:30:00Z"}}, "campaign_event.created_at", "12:30"),
        ({"campaign_event": {"created_at": "2026-01-05T13:00:01Z"}}, "received_at", "12:00"),
        ({"campaign_event": {"created_at": "2026-02-30T10:00:00Z"}}, "received_at", "12:00"),
        ({"campaign_event": {"created_at": 1767607200}}, "received_at", "12:00"),
        ({"reply": {}, "sender_email": {"updated_at": "2026-01-05T10:00:00"}}, "sender_email.updated_at", "10:00"),
    ],
)
def test_the_first_moment_told_is_when_it_happened(inbox: Connection, data: Object, rule: str, moment: str) -> None:
    row = inbox.execute(
        "SELECT to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), occurred_rule"
        " FROM bisonsync_private.read_delivery(%s, '2026-01-05 12:00Z', 'sql', NULL, NULL, NULL)",
        [json.dumps(told(data=data))],
    ).fetchone()

    assert row == (f"2026-01-05 {moment}", rule)


@pytest.mark.parametrize(
    "kind", ["EMAIL_ACCOUNT_ADDED", "email_account_removed", "WARMUP_ANYTHING", "EMAIL_ACCOUNT_QUARANTINED", "NEWS"]
)
def test_only_a_mail_is_dated_by_its_mailbox(inbox: Connection, kind: str) -> None:
    body = told(kind, {"sender_email": {"id": 7, "updated_at": (NOW - timedelta(days=75)).isoformat()}})
    arrived = NOW - timedelta(hours=3)

    (outcome,) = deliver(inbox, body, received_at=arrived)

    assert outcome.error_message in (None, "unknown type of event")
    row = inbox.execute("SELECT occurred_at, occurred_rule FROM webhook_delivery_log").fetchone()
    assert row == (arrived, "received_at")
    # Of its own moment, should it ever have one, it would be.
    body["data"]["campaign_event"] = {"created_at": YESTERDAY}
    deliver(inbox, body | {"event": body["event"] | {"type": kind + "_TOLD"}})
    rule = inbox.execute("SELECT occurred_rule FROM webhook_delivery_log ORDER BY id DESC").fetchone()
    assert rule == ("campaign_event.created_at",)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-29T23:59:59.999999Z", datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2023-02-29T00:00:00.000000Z", None),
        ("2026-04-31T00:00:00Z", None),
        ("2026-12-31", datetime(2026, 12, 31, tzinfo=UTC)),
        ("2026-01-05T10:00", datetime(2026, 1, 5, 10, tzinfo=UTC)),
        ("2026-01-05T24:00:00.000000Z", None),
        ("2026-01-05T10:60:00.000000Z", None),
        ("2026-13-05T10:00:00.000000Z", None),
        ("0000-00-00T00:00:00.000000Z", None),
        ("1969-01-05T10:00:00.000000Z", None),
        ("now", None),
        ("infinity", None),
        ("", None),
    ],
)
def test_a_moment_is_read_or_none(inbox: Connection, text: str, moment: datetime | None) -> None:
    assert inbox.execute("SELECT bisonsync_private.parse_event_time(%s)", [text]).fetchone() == (moment,)


def test_months_are_those_of_the_reporting_zone(inbox: Connection) -> None:
    first = NOW.replace(day=1, hour=0, minute=0, second=0)
    last_of_month = (first - timedelta(hours=2, minutes=30)).isoformat()
    in_berlin_next = (first - timedelta(minutes=30)).isoformat()

    deliver(inbox, told(data={"campaign_event": {"id": 1, "created_at": last_of_month}}))
    deliver(inbox, told(data={"campaign_event": {"id": 2, "created_at": in_berlin_next}}))

    months = inbox.execute("SELECT metric_month, emails_sent_mtd FROM client_metrics ORDER BY 1").fetchall()
    assert months == [((first - timedelta(days=1)).date().replace(day=1), 1), (first.date(), 1)]


def test_what_is_older_than_the_horizon_is_ignored(inbox: Connection) -> None:
    old = (NOW - timedelta(days=70, minutes=1)).isoformat()
    (outcome,) = deliver(inbox, told(data={"campaign_event": {"id": 1, "created_at": old}}))

    assert (outcome.status, outcome.error_message) == ("ignored", "too old: more than 70 days ago")
    assert counted(inbox) == {}


def test_an_event_that_was_counted_in_its_time_stays_so(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, sent(1))
    inbox.execute(
        "UPDATE webhook_delivery_log SET payload = replace(payload::text, %s, '2020-01-01T00:00:00Z')::jsonb",
        [YESTERDAY],
    )

    webhooks.process(inbox, [outcome.id], [outcome.received_at])

    assert inbox.execute("SELECT status FROM webhook_delivery_log").fetchall() == [("processed",)]
    assert counted(inbox) == {"sent": 1}


def test_only_the_five_types_are_counted(inbox: Connection) -> None:
    with_reply = ("LEAD_REPLIED", "LEAD_INTERESTED", "EMAIL_BOUNCED", "MANUAL_EMAIL_SENT", "UNTRACKED_REPLY_RECEIVED")
    by_campaign = ("EMAIL_SENT", "LEAD_UNSUBSCRIBED", "LEAD_FIRST_CONTACTED", "EMAIL_OPENED")
    deliver(
        inbox,
        *(told(kind, {"reply": {"id": 1}}) for kind in with_reply),
        *(told(kind, {"campaign_event": {"id": 1}}) for kind in by_campaign),
    )

    assert counted(inbox) == {"sent": 1, "replies": 1, "interested": 1, "bounced": 1, "unsubscribed": 1}


def test_unknown_types_are_kept_and_ignored(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, told("EMAIL_SEND_FAILED", {"lead": {"id": 1}, "campaign_event": {"id": 1}}))

    assert (outcome.status, outcome.event_type) == ("ignored", "email_send_failed")
    assert counted(inbox) == {}


def test_nobody_but_its_function_increments_a_metric(inbox: Connection) -> None:
    body = told("INCREMENT_METRIC", {"id": "x", "metric": "replies_mtd", "increment_by": 5}, workspace_name="Acme")

    (outcome,) = deliver(inbox, body)

    assert (outcome.status, counted(inbox)) == ("ignored", {})


@pytest.mark.parametrize(
    ("name", "counter"),
    [
        ("emails_sent_mtd", "sent"),
        ("replies_mtd", "replies"),
        ("positive_replies_mtd", "interested"),
        ("interested_mtd", "interested"),
        ("bounced_mtd", "bounced"),
        ("bounces_mtd", "bounced"),
        ("unsubscribed_mtd", "unsubscribed"),
        ("unsubscribes_mtd", "unsubscribed"),
    ],
)
def test_increment_metric_is_a_delivery_that_counts(inbox: Connection, name: str, counter: str) -> None:
    inbox.execute("SELECT increment_metric(' acme ', %s, 2), increment_metric('Acme', %s)", [name, name])

    assert counted(inbox) == {counter: 3}
    rows = inbox.execute(
        "SELECT source, status, bison_instance, bison_workspace_id FROM webhook_delivery_log"
    ).fetchall()
    assert rows == [("legacy", "processed", "north", 1)] * 2


def test_increment_metric_raises_nothing(inbox: Connection) -> None:
    inbox.execute("SELECT increment_metric('Acme', 'opens_mtd', 1), increment_metric('Nobody', 'replies_mtd', 1)")
    inbox.execute("SELECT increment_metric(NULL, NULL, NULL)")

    rows = inbox.execute("SELECT status FROM webhook_delivery_log ORDER BY id").fetchall()
    assert (rows, counted(inbox)) == ([("dead",), ("unknown_workspace",), ("dead",)], {})


def test_mail_bodies_are_replaced_by_length_and_hash(inbox: Connection) -> None:
    body = replied(1, html_body="<p>ü</p>", text_body="ü", raw_body=None)
    body["data"]["scheduled_email"] = {"id": 1, "email_body": "secret"}
    deliver(inbox, {"data": body})

    row = inbox.execute("SELECT payload FROM webhook_delivery_log").fetchone()
    assert row is not None
    reply = row[0]["data"]["reply"]
    assert reply["text_body"]["length"] == 1
    assert len(reply["text_body"]["sha256"]) == 64
    assert reply["raw_body"] is None
    assert "secret" not in json.dumps(row[0])
    assert statuses(deliver(inbox, row[0])) == ["duplicate"]


@pytest.mark.parametrize(
    "body",
    [
        told("LEAD_REPLIED", [{"reply": {"id": 1, "text_body": "secret"}}]),
        [told("LEAD_REPLIED", {"reply": {"id": 1, "raw_body": "secret"}})],
        {"payload": {"reply": {"html_body": "secret"}}, "text_body": ["secret", {"a": ["secret"]}]},
        {"event": "LEAD_REPLIED", "email_body": {"html": "secret", "length": 6}},
        told("LEAD_REPLIED", {"reply": {"id": 1, "created_at": YESTERDAY}, "thread": [[{"email_body": "secret"}]]}),
        told("LEAD_REPLIED", {"reply": {"id": 1, "created_at": YESTERDAY, "parent": {"html_body": "secret"}}}),
    ],
)
def test_mail_bodies_are_found_in_any_shape_and_at_any_depth(inbox: Connection, body: object) -> None:
    row = inbox.execute("SELECT ingest_webhook(%s) ->> 'status'", [json.dumps(body)]).fetchone()

    kept = inbox.execute("SELECT payload::text, status FROM webhook_delivery_log").fetchone()
    assert kept is not None and row is not None
    assert ("secret" in kept[0], kept[0].count('"sha256"'), kept[1]) == (False, kept[0].count('_body"'), row[0])
    assert kept[1] == ("processed" if isinstance(body, dict) and YESTERDAY in str(body) else "dead")


def test_one_nested_too_deep_to_look_through_is_kept_as_length_and_hash(inbox: Connection) -> None:
    deep = '{"x":' * 3000 + '{"html_body": "secret"}' + "}" * 3000

    row = inbox.execute("SELECT ingest_webhook(%s::jsonb) ->> 'status'", [deep]).fetchone()

    kept = inbox.execute("SELECT payload FROM webhook_delivery_log").fetchone()
    assert kept is not None
    assert (row, set(kept[0])) == (("dead",), {"length", "sha256"})


def test_a_dead_letter_from_before_loses_its_mail_bodies_when_it_is_tried_again(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, told("LEAD_REPLIED", []))
    inbox.execute(
        """UPDATE webhook_delivery_log SET payload = jsonb_set(payload, '{data}', '[{"raw_body": "secret"}]')"""
    )

    webhooks.process(inbox, [outcome.id], [outcome.received_at])

    kept = inbox.execute("SELECT payload::text LIKE '%%secret%%', status FROM webhook_delivery_log").fetchone()
    assert kept == (False, "dead")


def test_a_delivery_without_content_is_dead_however_it_came_to_be_pending(inbox: Connection) -> None:
    row = inbox.execute("SELECT ingest_webhook(NULL)").fetchone()
    inbox.execute("INSERT INTO webhook_delivery_log (payload) VALUES (NULL)")
    assert row is not None
    assert (row[0]["status"], row[0]["error"]) == ("dead", "it came without content")

    keys = inbox.execute("SELECT id, received_at FROM webhook_delivery_log").fetchall()
    again = webhooks.process(inbox, [key[0] for key in keys], [key[1] for key in keys])

    assert [(outcome.status, outcome.error_message) for outcome in again] == [("dead", "it came without content")] * 2


def test_mail_bodies_are_kept_where_the_settings_say_so(inbox: Connection) -> None:
    inbox.execute("UPDATE bisonsync_private.webhook_settings SET store_bodies = true")
    deliver(inbox, replied(1, text_body="hello"))

    row = inbox.execute("SELECT payload #>> '{data,reply,text_body}' FROM webhook_delivery_log").fetchone()
    assert row == ("hello",)


def test_an_account_event_changes_the_account_at_once(inbox: Connection) -> None:
    def row() -> Any:
        return inbox.execute(
            "SELECT email_address, status, is_connected, removed_at, warmup_enabled, email_provider, emails_sent_count"
            " FROM sender_emails_cache"
        ).fetchone()

    unmoved = NOW - timedelta(days=75)

    def come(kind: str, minutes: float, **more: object) -> None:
        body = account(kind, at=unmoved + timedelta(seconds=minutes), **more)
        assert statuses(deliver(inbox, body, received_at=NOW + timedelta(minutes=minutes))) == ["processed"]

    come("DISCONNECTED", 0, type="google_workspace_oauth", emails_sent="5", status="connected")
    assert row() == ("sam@sender.example.com", "Not connected", False, None, None, "Google", 5)

    come("RECONNECTED", 1)
    assert row()[1:3] == ("Connected", True)

    come("DISCONNECTED", -1)
    assert row()[1] == "Connected"

    deliver(inbox, told("WARMUP_DISABLED_CAUSING_BOUNCES", {"sender_email": {"id": 7, "updated_at": YESTERDAY}}))
    assert row()[4] is False

    come("REMOVED", 2)
    assert row()[3] == NOW + timedelta(minutes=2)
    come("ADDED", 1.5)
    come("RECONNECTED", 3)
    assert row()[3] is not None
    come("ADDED", 4)
    assert row()[3] is None


def test_of_account_events_that_came_together_the_later_one_counts(inbox: Connection) -> None:
    first, second = NOW - timedelta(days=9), NOW - timedelta(days=8)

    deliver(inbox, account("DISCONNECTED", at=second), account("RECONNECTED", at=first))
    assert inbox.execute("SELECT status FROM sender_emails_cache").fetchall() == [("Connected",)]

    deliver(inbox, account("RECONNECTED", at=second, number=8), account("DISCONNECTED", at=first, number=8))
    last = inbox.execute("SELECT status FROM sender_emails_cache WHERE bison_account_id = 8").fetchall()
    assert last == [("Not connected",)]


@pytest.mark.parametrize(("minutes", "status"), [(31, "Connected"), (29, "Not connected")])
def test_a_poll_knows_better_than_what_came_before_it_however_old_the_mailbox_is(
    inbox: Connection, minutes: float, status: str
) -> None:
    deliver(inbox, account("RECONNECTED", at=NOW - timedelta(days=90)), received_at=NOW - timedelta(hours=1))
    inbox.execute(
        "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_complete_at)"
        " VALUES ('north', 2, 'accounts', %s)",
        [NOW - timedelta(minutes=30)],
    )

    lost = account("DISCONNECTED", at=NOW - timedelta(days=80))
    deliver(inbox, lost, received_at=NOW - timedelta(minutes=minutes))

    assert inbox.execute("SELECT status FROM sender_emails_cache").fetchall() == [(status,)]


def test_an_event_from_before_a_later_complete_read_changes_no_account(inbox: Connection) -> None:
    deliver(inbox, account("ADDED", at=NOW - timedelta(days=2)), received_at=NOW - timedelta(days=2))
    inbox.execute(
        "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_complete_at)"
        " VALUES ('north', 2, 'accounts', %s)",
        [NOW - timedelta(minutes=30)],
    )

    hour_ago = NOW - timedelta(hours=1)
    (late,) = deliver(inbox, account("REMOVED", at=hour_ago), received_at=hour_ago)
    (unknown,) = deliver(inbox, account("ADDED", at=hour_ago, number=8), received_at=hour_ago)

    assert (late.status, unknown.status) == ("processed", "processed")
    assert inbox.execute("SELECT bison_account_id, removed_at FROM sender_emails_cache").fetchall() == [(7, None)]


def test_tags_make_the_accounts_due(inbox: Connection) -> None:
    inbox.execute(
        "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource)"
        " VALUES ('north', 2, 'accounts')"
    )

    deliver(inbox, told("TAG_ATTACHED", {"tag_id": 1, "taggable_type": "SenderEmail"}))

    assert inbox.execute("SELECT due_since IS NOT NULL FROM workspace_sync_state").fetchone() == (True,)


def test_listeners_are_told_once_for_each_change_set(own_inbox: Connection) -> None:
    inbox = own_inbox

    def heard() -> list[tuple[str, str]]:
        notes = [json.loads(note.payload) for note in inbox.notifies(timeout=0)]
        return sorted((note["table"], note["workspace"]) for note in notes)

    inbox.execute("LISTEN bisonsync")
    deliver(inbox, *(of_lead(number) for number in range(5)), account("ADDED", at=NOW))
    assert heard() == [("client_leads", "north/2"), ("client_metrics", "north/2"), ("sender_emails_cache", "north/2")]

    deliver(inbox, *(of_lead(number) for number in range(5)), account("ADDED", at=NOW))
    assert heard() == []


@pytest.fixture
def poisoned(inbox: Connection) -> Connection:
    """A database that refuses one lead."""
    inbox.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'lead % is refused', NEW.bison_lead_id; END $$"
    )
    inbox.execute(
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON client_leads FOR EACH ROW WHEN (NEW.bison_lead_id = 13)"
        " EXECUTE FUNCTION refuse()"
    )
    return inbox


def of_lead(number: int) -> Object:
    return told(data={"campaign_event": {"id": number, "created_at": YESTERDAY}, "lead": {"id": number}})


def test_one_that_cannot_be_applied_fails_alone(poisoned: Connection) -> None:
    outcomes = deliver(poisoned, *(of_lead(number) for number in range(11, 16)))

    assert statuses(outcomes) == ["processed", "processed", "failed", "processed", "processed"]
    assert [outcome.id for outcome in outcomes] == sorted(outcome.id for outcome in outcomes)
    assert "lead 13 is refused" in (outcomes[2].error_message or "")
    assert counted(poisoned) == {"sent": 4}
    assert poisoned.execute("SELECT count(*) FROM webhook_event_keys").fetchone() == (4,)


def test_ingest_webhook_keeps_what_it_cannot_apply(poisoned: Connection) -> None:
    row = poisoned.execute("SELECT ingest_webhook(%s)", [json.dumps(of_lead(13))]).fetchone()

    assert row is not None
    assert row[0]["status"] == "failed"
    assert poisoned.execute(
        "SELECT status, attempts, payload #>> '{data,lead,id}' FROM webhook_delivery_log"
    ).fetchall() == [("failed", 1, "13")]


def test_a_failed_one_is_tried_seven_times_more_and_then_dead(poisoned: Connection) -> None:
    (outcome,) = deliver(poisoned, of_lead(13))
    waits = []
    status = outcome.status
    while status == "failed":
        row = poisoned.execute("SELECT next_attempt_at - processed_at FROM webhook_delivery_log").fetchone()
        assert row is not None
        waits.append(row[0])
        ((status),) = statuses(webhooks.process(poisoned, [outcome.id], [outcome.received_at]))

    assert waits == [
        timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=5),
        timedelta(hours=10), timedelta(hours=10),
    ]  # fmt: skip
    assert status == "dead"
    assert poisoned.execute("SELECT next_attempt_at, success FROM webhook_delivery_log").fetchone() == (None, False)

    poisoned.execute("DROP TRIGGER refuse ON client_leads")
    assert statuses(webhooks.process(poisoned, [outcome.id], [outcome.received_at])) == ["processed"]
    assert counted(poisoned) == {"sent": 1}


def test_a_lock_that_another_holds_raises_for_a_batch_and_fails_a_lone_one(own_inbox: Connection, db: str) -> None:
    inbox = own_inbox
    deliver(inbox, sent(1))
    with psycopg.connect(db) as other:
        other.execute("UPDATE client_metrics SET as_of = now()")
        inbox.execute("SET lock_timeout = '50ms'")

        with pytest.raises(psycopg.errors.LockNotAvailable):
            deliver(inbox, sent(2))
        row = inbox.execute("SELECT ingest_webhook(%s)", [json.dumps(sent(3))]).fetchone()

    assert row is not None
    assert row[0]["status"] == "failed"
    assert inbox.execute("SELECT status, count(*) FROM webhook_delivery_log GROUP BY 1 ORDER BY 1").fetchall() == [
        ("failed", 1),
        ("processed", 1),
    ]


def test_what_newer_rules_read_otherwise_is_counted_otherwise(inbox: Connection) -> None:
    (outcome, kept) = deliver(inbox, sent(1), sent(2))
    # As if older rules had taken the scheduled email's id, and another month.
    inbox.execute("UPDATE webhook_event_keys SET dedup_key = 'scheduled_email:1' WHERE delivery_id = %s", [outcome.id])
    inbox.execute(
        "UPDATE webhook_delivery_log SET dedup_key = 'scheduled_email:1', processor_version = 0 WHERE id = %s",
        [outcome.id],
    )

    again = webhooks.process(inbox, [outcome.id, kept.id], [outcome.received_at, kept.received_at])

    assert statuses(again) == ["processed", "processed"]
    assert counted(inbox) == {"sent": 2}
    keys = inbox.execute("SELECT dedup_key FROM webhook_event_keys ORDER BY 1").fetchall()
    assert keys == [("campaign_event:1",), ("campaign_event:2",)]
    versions = inbox.execute("SELECT DISTINCT processor_version FROM webhook_delivery_log").fetchall()
    assert versions == [(2,)]


def test_one_that_counted_before_its_type_was_known_to_be_none_gives_its_count_back(inbox: Connection) -> None:
    (outcome,) = deliver(inbox, sent(1))
    inbox.execute("UPDATE webhook_delivery_log SET payload = jsonb_set(payload, '{data}', '[]')")

    (again,) = webhooks.process(inbox, [outcome.id], [outcome.received_at])

    assert (again.status, counted(inbox)) == ("dead", {})


def test_deliveries_of_a_day_without_a_partition_are_moved_when_it_is_made(inbox: Connection) -> None:
    (early, today) = (NOW - timedelta(days=3), NOW)
    deliver(inbox, sent(1), received_at=early)
    deliver(inbox, sent(2), received_at=today)

    made = inbox.execute(
        "SELECT * FROM bisonsync_private.make_delivery_partitions(%s, %s)", [early.date(), early.date()]
    ).fetchall()

    assert made == [(f"webhook_delivery_log_{early:%Y_%m_%d}",)]
    places = inbox.execute("SELECT DISTINCT tableoid::regclass::text FROM webhook_delivery_log ORDER BY 1").fetchall()
    assert len(places) == 2
    assert made[0] in places
