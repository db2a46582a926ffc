"""Each part of reading a delivery, called alone: what it is, when it happened, whose it is, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from conftest import database
from psycopg.rows import DictRow, dict_row

from bisonsync.store import webhooks

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
BASE_URLS = {"north": "https://north.example.com", "south": "https://south.example.com:8443"}


@pytest.fixture(scope="module")
def inbox(server: Connection, server_dsn: str, template: str) -> Iterator[Connection]:
    """Two instances, each with a workspace 1; two workspaces of the first bear the same name."""
    with (
        database(server, server_dsn, template) as dsn,
        Connection.connect(dsn, autocommit=True, row_factory=dict_row) as connection,
    ):
        connection.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name, display_name)"
            " VALUES ('north', 1, 'Twin', NULL), ('north', 2, 'Beta', 'Twin'), ('south', 1, 'Gamma', 'Third')"
        )
        webhooks.write_settings(connection, timezone="UTC", store_bodies=False, base_urls=BASE_URLS)
        yield connection


def identify(inbox: Connection, body: object, source: str = "receiver") -> DictRow:
    text = None if body is None else json.dumps(body)
    row = inbox.execute("SELECT * FROM bisonsync_private.identify_event(%s, %s)", [text, source]).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("kind", "data", "wanted", "rule", "key"),
    [
        ("EMAIL_SENT", {"campaign_event": {"id": 4}}, "campaign_event.id", "campaign_event.id", "4"),
        ("EMAIL_SENT", {"scheduled_email": {"id": " 04"}}, "campaign_event.id", "scheduled_email.id", "4"),
        ("EMAIL_SENT", {}, "campaign_event.id", "scheduled_email.id", None),
        (" Lead_Replied", {"reply": {"id": 5.0}}, "reply.id", "reply.id", "5"),
        (
            "WARMUP_ANY",
            {"sender_email": {"id": 6, "updated_at": "2026-01-05"}},
            "sender_email.id+updated_at",
            "sender_email.id+updated_at",
            "6@2026-01-05T00:00:00.000000",
        ),
        ("WARMUP_ANY", {"sender_email": {"id": 6}}, "sender_email.id+updated_at", "sender_email.id+updated_at", None),
        ("TAG_ATTACHED", {"tag_id": 7}, "body", "body", None),
    ],
)
def test_an_event_is_known_by_the_id_of_its_type(
    inbox: Connection, kind: str, data: object, wanted: str, rule: str, key: str | None
) -> None:
    found = identify(inbox, {"event": {"type": kind, "workspace_id": 1}, "data": data})

    assert (found["wanted_rule"], found["key_rule"], found["key_id"], found["fault"]) == (wanted, rule, key, None)
    assert found["event_type"] == kind.strip().lower()


def test_only_the_former_receiver_counts_by_name_and_amount(inbox: Connection) -> None:
    body = {"event": {"type": "increment_metric"}, "data": {"id": "a", "metric": "Bounces", "increment_by": "-3"}}

    legacy, other = identify(inbox, body, "legacy"), identify(inbox, body)

    assert (legacy["metric"], legacy["amount"], legacy["key_rule"], legacy["key_id"]) == (
        "bounced", -3, "increment.id", "a",
    )  # fmt: skip
    assert (other["metric"], other["amount"], other["key_rule"], other["key_id"]) == (None, 1, "body", None)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (None, "it came without content"),
        ([], "the body is no JSON object"),
        ({"event": "EMAIL_SENT"}, "there is no event object in it"),
        ({"event": {"type": 7}}, "event.type is missing or no text"),
        ({"event": {"type": "EMAIL_SENT"}}, "data is missing or no object"),
        ({"event": {"type": "EMAIL_SENT"}, "data": {"reply": 7}}, "data.reply is no object"),
        (
            {"event": {"type": "EMAIL_SENT", "workspace_id": "x"}, "data": {"reply": []}},
            "event.workspace_id is no number",
        ),
    ],
)
def test_the_first_fault_of_a_shape_is_told(inbox: Connection, body: object, fault: str) -> None:
    assert identify(inbox, body)["fault"] == fault


@pytest.mark.parametrize(
    ("parts", "rule", "expected"),
    [
        ({"reply": "2026-01-05T10:00:00Z"}, "reply.id", (NOON - timedelta(hours=2), "reply.created_at", False)),
        ({"reply": "2026-01-05T13:00:01Z"}, "reply.id", (NOON, "received_at", False)),
        ({"sender": "2026-01-01"}, "reply.id", (NOON - timedelta(days=4.5), "sender_email.updated_at", False)),
        ({"sender": "2026-01-01"}, "body", (NOON, "received_at", False)),
        (
            {"sender": "2024-08-04", "made": "2024-08-02T06:06:40.000000Z"},
            "sender_email.id+updated_at",
            (NOON, "received_at", True),
        ),
    ],
)
def test_the_moment_is_found_from_the_parts_alone(
    inbox: Connection, parts: dict[str, str], rule: str, expected: tuple[Any, ...]
) -> None:
    reply = json.dumps({"created_at": parts.get("reply")})
    sender = json.dumps({"updated_at": parts.get("sender"), "created_at": parts.get("made")})

    found = inbox.execute(
        "SELECT * FROM bisonsync_private.event_moment(NULL, %s, NULL, %s, %s, %s)", [reply, sender, rule, NOON]
    ).fetchone()

    assert found is not None
    assert tuple(found.values()) == expected


@pytest.mark.parametrize(
    ("arguments", "owner"),
    [
        # The hook comes before what the payload tells.
        (("south", 1, False, None, "https://north.example.com", "2"), ("south", 1, True)),
        (("south", 9, True, "Beta", None, None), ("south", 9, False)),
        # A name that one has, one that two have, and none.
        ((None, None, True, " BETA ", None, "1"), ("north", 2, True)),
        ((None, None, True, "third", None, None), ("south", 1, True)),
        ((None, None, True, "Twin", None, None), (None, None, False)),
        ((None, None, True, None, None, None), (None, None, False)),
        # An address and an id; an id that one instance has, one that two have, and no number.
        ((None, None, False, "Twin", "https://south.example.com:8443", "1"), ("south", 1, True)),
        ((None, None, False, None, "https://other.example.com", "1"), (None, 1, False)),
        ((None, None, False, None, None, "2"), ("north", 2, True)),
        ((None, None, False, None, None, "1"), (None, 1, False)),
        ((None, None, False, None, None, "x"), (None, None, False)),
    ],
)
def test_the_owner_is_the_hook_s_or_the_one_that_is_told(
    inbox: Connection, arguments: tuple[object, ...], owner: tuple[object, ...]
) -> None:
    found = inbox.execute("SELECT * FROM bisonsync_private.event_owner(%s, %s, %s, %s, %s, %s)", arguments).fetchone()

    assert found is not None
    assert tuple(found.values()) == owner


@pytest.mark.parametrize(
    ("changed", "verdict", "reason"),
    [
        ({}, "apply", None),
        ({"forced_verdict": "mismatch", "fault": "odd"}, "mismatch", "the payload is of workspace 1 at"),
        ({"event": "[]", "fault": "odd", "is_sample": True}, "dead", "odd"),
        ({"fault": "odd", "is_sample": True}, "test", "a test"),
        ({"fault": "odd", "told_workspace_id": "2"}, "mismatch", "the payload is of workspace 2 at"),
        ({"fault": "odd"}, "dead", "odd"),
        (
            {"told_origin": "https://south.example.com:8443"},
            "mismatch",
            "the payload is of workspace 1 at https://south",
        ),
        ({"hook_instance": None, "told_workspace_id": None}, "dead", "event.workspace_id is missing"),
        ({"is_registered": False}, "unknown_workspace", "workspace 1 of north is not registered"),
        ({"is_registered": False, "is_by_name": True}, "unknown_workspace", "no registered workspace"),
        ({"occurred_at": NOON - timedelta(days=20_000)}, "ignored", "too old"),
    ],
)
def test_the_first_cause_in_order_is_the_verdict(
    inbox: Connection, changed: dict[str, object], verdict: str, reason: str | None
) -> None:
    sound: dict[str, object] = {
        "forced_verdict": None, "fault": None, "is_sample": False, "event": "{}", "part": "{}", "told_name": "Twin",
        "told_origin": "https://north.example.com", "told_workspace_id": "1", "is_by_name": False,
        "hook_instance": "north", "hook_workspace_id": 1, "owner_instance": "north", "is_registered": True,
        "occurred_at": datetime.now(UTC),
    }  # fmt: skip

    found = inbox.execute(
        "SELECT * FROM bisonsync_private.judge_event(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        list((sound | changed).values()),
    ).fetchone()

    assert found is not None
    assert found["verdict"] == verdict
    assert found["reason"] is None if reason is None else found["reason"].startswith(reason)
