"""inbox list and show: which deliveries, in which order, how each was keyed, and nobody's address or name."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from cli import document, environment, run_cli
from inbox_scene import NOW, deliver, event, register

Connection = psycopg.Connection[Any]


@pytest.fixture
def inbox(conn: Connection) -> dict[str, int]:
    """One delivery of each fate, by name: its id."""
    register(conn, 1, 2)
    return {
        "sent": one(conn, event(1)),
        "again": one(conn, event(1), received_at=NOW - timedelta(days=2)),
        "replied": one(conn, event(2, workspace=2, kind="LEAD_REPLIED"), source="file"),
        "dead": one(conn, {"event": {"type": "EMAIL_SENT", "workspace_id": 1}, "data": "jane.doe@example.com"}),
        "stranger": one(conn, event(3, workspace=77)),
        "mismatch": one(conn, event(4, workspace=2), source="receiver", hook=("sim", 1)),
    }


def one(conn: Connection, payload: object, **fields: Any) -> int:
    (outcome,) = deliver(conn, [payload], **fields)
    return outcome.id


def listed(db: str, *arguments: str) -> list[int]:
    done = run_cli(["inbox", "list", "--json", *arguments], environment(db))
    assert done.returncode == 0, done.stderr
    return [row["id"] for row in document(done)["deliveries"]]


def shown(db: str, delivery: int, *arguments: str) -> dict[str, Any]:
    done = run_cli(["inbox", "show", str(delivery), "--json", *arguments], environment(db))
    assert done.returncode == 0, done.stderr
    return document(done)["delivery"]


def test_the_newest_come_first_with_what_became_of_them(db: str, inbox: dict[str, int]) -> None:
    done = run_cli(["inbox", "list"], environment(db))

    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["received (UTC)", "id", "status", "type", "workspace", "source", "tries", "error"]
    assert [int(line[1]) for line in lines[1:]] == sorted(inbox.values(), reverse=True)
    by_id = {int(line[1]): line for line in lines[1:]}
    assert by_id[inbox["replied"]][2:7] == ["processed", "lead_replied", "sim/2", "file", "1"]
    assert by_id[inbox["again"]][2:7] == ["duplicate", "email_sent", "sim/1", "sql", "1"]
    assert by_id[inbox["stranger"]][2] == "unknown_workspace" and "is not registered" in by_id[inbox["stranger"]][7]
    assert by_id[inbox["stranger"]][4] == "?/77"


@pytest.mark.parametrize("number", ["9" * 4301, "-" + "9" * 130_000, "1" * 400 + ".5"])
def test_a_number_that_python_cannot_hold_is_shown_digit_by_digit(db: str, conn: Connection, number: str) -> None:
    register(conn, 1)
    body = json.dumps(event(1)).replace('"first_name": "Ann"', f'"age": {number}')
    row = conn.execute("SELECT ingest_webhook(%s) ->> 'id'", [body]).fetchone()
    assert row is not None

    text = run_cli(["inbox", "show", row[0], "--full"], environment(db))

    assert (text.returncode, f'"age": "{number}"' in text.stdout) == (0, True), text.stderr
    assert shown(db, int(row[0]), "--full")["payload"]["data"]["lead"]["age"] == number


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--status", "dead", "--status", "mismatch"], ["dead", "mismatch"]),
        (["--event", "LEAD_REPLIED"], ["replied"]),
        (["-w", "2"], ["replied"]),
        (["-w", "Workspace 2", "--event", "email_sent"], []),
        (["-w", "77"], ["stranger"]),
        (["--source", "receiver"], ["mismatch"]),
        (["--until", (NOW - timedelta(days=1)).isoformat()], ["again"]),
        (["--since", (NOW - timedelta(days=1)).isoformat(), "--status", "duplicate"], []),
        (["--instance", "sim", "--status", "processed"], ["sent", "replied"]),
    ],
    ids=["status", "event", "id", "name", "stranger", "source", "until", "since", "instance"],
)
def test_a_list_can_be_narrowed(options: list[str], names: list[str], db: str, inbox: dict[str, int]) -> None:
    assert sorted(listed(db, *options)) == sorted(inbox[name] for name in names)


def test_a_list_goes_on_where_it_ended(db: str, inbox: dict[str, int]) -> None:
    ids = sorted(inbox.values(), reverse=True)

    first = document(run_cli(["inbox", "list", "--limit", "4", "--json"], environment(db)))
    rest = document(
        run_cli(["inbox", "list", "--limit", "4", "--before", str(first["next_before"]), "--json"], environment(db))
    )

    assert [row["id"] for row in first["deliveries"] + rest["deliveries"]] == ids
    assert (first["next_before"], rest["next_before"]) == (ids[3], None)


@pytest.mark.parametrize("wrong", [["--status", "died"], ["--source", "mail"], ["--limit", "0"], ["--since", "soon"]])
def test_a_wrong_choice_is_wrong_usage(wrong: list[str], db: str) -> None:
    assert run_cli(["inbox", "list", *wrong], environment(db)).returncode == 2


def test_a_delivery_tells_its_key_and_which_one_it_repeats(db: str, inbox: dict[str, int]) -> None:
    sent, again, replied = (shown(db, inbox[name]) for name in ("sent", "again", "replied"))

    assert (sent["dedup_rule"], sent["counted_by"], sent["metric"], sent["amount"]) == (
        "campaign_event.id",
        inbox["sent"],
        "emails_sent",
        1,
    )
    assert (again["status"], again["duplicate_of"], sent["duplicate_of"]) == ("duplicate", inbox["sent"], None)
    assert (replied["dedup_key"], replied["metric"]) == ("reply:2", "replies")
    text = run_cli(["inbox", "show", str(inbox["again"])], environment(db)).stdout
    assert f"the same event as delivery {inbox['sent']}" in text


def test_people_are_masked_unless_they_are_asked_for(db: str, conn: Connection) -> None:
    register(conn, 1)
    secret: dict[str, Any] = {
        "reply": {
            "id": 5,
            "created_at": NOW.isoformat(),
            "from_name": "Jane Doe",
            "from_email_address": "jane.doe@example.com",
            "email_subject": "About Jane",
            "text_body": "Jane says yes",
            "to": [{"name": "Jane", "address": "jane@example.com"}],
        },
        "lead": {
            "id": 9,
            "email": "Jane.Doe@example.com",
            "first_name": "Jane",
            "status": "verified",
            "custom_variables": [{"name": "phone", "value": "Jane 555"}],
            "phone": 5550100,
        },
        "sender_email": {"id": 7, "email": "box@example.com", "name": "Box"},
        "jane": "Jane",
    }
    delivery = one(conn, event(5, kind="LEAD_REPLIED", **secret))

    for arguments in ([], ["--json"]):
        done = run_cli(["inbox", "show", str(delivery), *arguments], environment(db))
        assert "jane" not in done.stdout.lower().replace('"jane"', "") and "555" not in done.stdout
    masked, full = shown(db, delivery), shown(db, delivery, "--full")
    assert masked["payload"]["data"]["lead"]["id"] == 9 and masked["payload"]["data"]["lead"]["status"] == "verified"
    assert masked["payload"]["data"]["sender_email"]["email"] == "box@example.com"
    assert masked["payload"]["event"]["workspace_name"] == "Workspace 1"
    assert full["payload"]["data"]["lead"]["first_name"] == "Jane"
    # The body is not there at all.
    assert full["payload"]["data"]["reply"]["text_body"] == masked["payload"]["data"]["reply"]["text_body"]
    assert full["payload"]["data"]["reply"]["text_body"]["length"] == 13
    pretty = run_cli(["inbox", "show", str(delivery), "--full"], environment(db)).stdout.partition("\npayload\n")[2]
    assert json.loads(pretty) == full["payload"]


def test_an_address_in_an_error_is_masked(db: str, conn: Connection) -> None:
    register(conn, 1)
    delivery = one(conn, event(1))
    conn.execute("UPDATE webhook_delivery_log SET status = 'dead', error_message = 'no lead jane@example.com here'")

    for command in (["inbox", "list"], ["inbox", "show", str(delivery)], ["dead-letters", "list"]):
        for arguments in ([], ["--json"]):
            done = run_cli([*command, *arguments], environment(db))
            assert "jane@" not in done.stdout and "no lead *** here" in done.stdout


def test_a_pruned_or_unusual_payload_is_told_by_what_is_left(db: str, conn: Connection) -> None:
    register(conn, 1)
    pruned, raw = one(conn, event(1)), one(conn, event(2), raw=b"\x00" * 12)
    conn.execute("UPDATE webhook_delivery_log SET payload = NULL WHERE id = %s", [pruned])

    assert "payload\tnone: pruned" in run_cli(["inbox", "show", str(pruned)], environment(db)).stdout
    assert (shown(db, pruned)["payload"], shown(db, raw)["payload_raw_bytes"]) == (None, 12)


def test_an_unknown_delivery_is_told(db: str) -> None:
    done = run_cli(["inbox", "show", "4711"], environment(db))

    assert (done.returncode, "there is no delivery 4711" in done.stderr) == (4, True)
