"""A row of the API as a poll takes it: what refuses the row, what is only noted, what is left out."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from bisonsync.api.lists import InvalidRow
from bisonsync.jobs.poll_accounts import read_sender_email
from bisonsync.jobs.poll_campaigns import read_campaign
from bisonsync.jobs.poll_warmup import read_warmup
from bisonsync.models import Campaign, ListRow, Mark, SenderEmail, SenderEmailWarmup, fields_marked
from bisonsync.polling.rows import RowReader

ROW = {
    "id": 7,
    "email": "sam@example.com",
    "name": "Sam",
    "status": "Connected",
    "type": "Inbox",
    "daily_limit": 20,
    "created_at": "2026-01-02T03:04:05.000000Z",
    "tags": [{"id": 1, "name": "Google", "default": True}],
}

WINDOW = {"start_date": "2026-11-18", "end_date": "2026-11-28"}
READ = {
    SenderEmail: read_sender_email,
    Campaign: read_campaign,
    SenderEmailWarmup: partial(read_warmup, window=WINDOW),
}


def read(*ignored: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row as it is stored, and of each field that is noted the value as it came."""
    taken = read_sender_email(ROW | fields, ignored)
    assert not isinstance(taken, InvalidRow)
    return json.loads(taken.fields), {note.field: note.row[note.field] for note in taken.notes}


@pytest.mark.parametrize(
    "moment",
    [
        "0000-00-00 00:00:00",
        "-0001-11-30T00:00:00.000000Z",
        "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00.000000Z",
        "30.11.2026",
        "",
        0,
        False,
        [],
        {"date": "2026-01-01"},
        "9999-12-31T23:59:59-05:00",
    ],
)
def test_a_date_that_is_none_is_noted_and_the_row_is_taken(moment: object) -> None:
    row, noted = read(created_at=moment)

    assert (row["created_at"], row["email"], row["tags"]) == (None, "sam@example.com", ROW["tags"])
    assert noted == {"created_at": moment}


def test_tags_with_numbers_as_keys_are_read_in_the_order_of_the_numbers_and_noted() -> None:
    tags = {"10": {"id": 3, "name": "C"}, "0": {"id": 1, "name": "A"}, "2": {"id": 2, "name": "B"}}

    row, noted = read(tags=tags)

    assert [tag["name"] for tag in row["tags"]] == ["A", "B", "C"]
    assert noted == {"tags": tags}


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ({}, []),
        ({"first": {"id": 1, "name": "A"}}, None),
        ({"9" * 5000: {"id": 1, "name": "A"}}, None),
        ("Google", None),
        (False, None),
        ([{"id": 1, "name": "A"}, {"id": 2, "name": None}, None, 7], ["A"]),
        ([{"id": "x", "name": "A", "default": "perhaps"}], ["A"]),
    ],
)
def test_of_tags_is_taken_what_can_be_read(tags: object, names: list[str] | None) -> None:
    row, noted = read(tags=tags)

    assert (row["tags"] if row["tags"] is None else [tag["name"] for tag in row["tags"]]) == names
    assert noted == {"tags": tags}


@pytest.mark.parametrize(("model", "field"), [(m, f) for m in READ for f in m.model_fields])
def test_a_field_that_decides_something_keeps_a_row_out_and_no_other_does(model: type[ListRow], field: str) -> None:
    row = ROW | {"uuid": "5f0c", field: {"odd": "value"}}

    taken = READ[model](row)

    if field in fields_marked(model, Mark.DECIDES):
        assert isinstance(taken, InvalidRow)
        assert field in taken.message
        assert taken.row == row
    else:
        assert not isinstance(taken, InvalidRow)
        assert {note.field: note.row[note.field] for note in taken.notes} == {field: {"odd": "value"}}
        assert json.loads(taken.fields).get(field) in (None, "")


def test_a_campaign_is_stored_by_the_names_of_its_columns_and_tells_no_more_than_it_says() -> None:
    row = {"id": "3", "name": None, "emails_sent": "7", "opened": None, "tags": None, "updated_at": "x", "odd": 1}

    taken = read_campaign(row)

    assert not isinstance(taken, InvalidRow)
    told = {"bison_campaign_id": 3, "name": None, "emails_sent": 7, "extra": {"odd": 1}}
    assert (taken.id, json.loads(taken.fields)) == (3, told)


def test_tags_of_a_campaign_that_come_as_an_object_are_kept_and_noted() -> None:
    taken = read_campaign({"id": 3, "tags": {"0": {"id": 7, "name": "x"}, "2": "y"}})

    assert not isinstance(taken, InvalidRow)
    assert json.loads(taken.fields)["tags"] == [{"id": 7, "name": "x"}]
    assert [note.field for note in taken.notes] == ["tags"]


def test_a_warmup_tells_all_of_its_window_also_what_it_leaves_out() -> None:
    taken = READ[SenderEmailWarmup]({"id": 3, "email": "sam@example.com", "warmup_score": "85.5", "odd": 1})

    assert not isinstance(taken, InvalidRow)
    stored = json.loads(taken.fields)
    assert (stored["bison_account_id"], stored["warmup_score"], stored["extra"]) == (3, 85.5, {"odd": 1})
    assert (stored["window_start"], stored["window_end"]) == ("2026-11-18", "2026-11-28")
    assert stored["warmup_emails_sent"] is None


def test_what_cannot_be_read_keeps_its_stored_value() -> None:
    row, _ = read(name=7, type=None, daily_limit="", tags=3)

    assert row["unread"] == ["daily_limit", "name"]
    assert "unread" not in read()[0]


def test_a_note_does_not_outlive_the_row_it_was_about() -> None:
    reader = RowReader(read_sender_email)
    reader.read(ROW | {"created_at": ""})

    reader.read(ROW)

    assert reader.notes == {}


def test_a_note_shows_no_secret() -> None:
    _, noted = read(tags={"api_token": "hunter2", "0": {"name": "A", "password": "hunter2"}})

    assert "hunter2" not in json.dumps(noted)


@pytest.mark.parametrize(
    ("ignored", "extra"),
    [
        ("seen", {"avatar": {"url": "x", "kind": "png"}, "checks": [{"when": 1, "ok": True}], "a.b": 1}),
        ("avatar", {"seen": "5 minutes ago", "checks": [{"when": 1, "ok": True}], "a.b": 1}),
        (
            "avatar.url",
            {"seen": "5 minutes ago", "avatar": {"kind": "png"}, "checks": [{"when": 1, "ok": True}], "a.b": 1},
        ),
        (
            "checks.when",
            {"seen": "5 minutes ago", "avatar": {"url": "x", "kind": "png"}, "checks": [{"ok": True}], "a.b": 1},
        ),
        ("a.b", {"seen": "5 minutes ago", "avatar": {"url": "x", "kind": "png"}, "checks": [{"when": 1, "ok": True}]}),
    ],
)
def test_an_ignored_field_is_left_out_at_any_depth(ignored: str, extra: dict[str, Any]) -> None:
    unknown = {
        "seen": "5 minutes ago",
        "avatar": {"url": "x", "kind": "png"},
        "checks": [{"when": 1, "ok": True}],
        "a.b": 1,
    }

    assert read(ignored, **unknown)[0]["extra"] == extra
