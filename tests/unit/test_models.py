"""What the API sends, read loosely: what is accepted, what is cleaned, what is refused with the field's name."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bisonsync.models import (
    BIGINT_MAX,
    MAX_DEPTH,
    Campaign,
    DailyStats,
    ListRow,
    MintedToken,
    SenderEmail,
    SenderEmailWarmup,
    Webhook,
    Workspace,
    clean_text,
    clean_value,
)

TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.datetimes().map(str),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=10,
)


def sender(**fields: Any) -> SenderEmail:
    return SenderEmail.model_validate({"id": 1, "email": "sam@example.com", **fields})


def refused(**fields: Any) -> list[tuple[str, str]]:
    """Field and kind of each error."""
    with pytest.raises(ValidationError) as caught:
        sender(**fields)
    return [(".".join(map(str, error["loc"])), error["type"]) for error in caught.value.errors()]


def test_only_id_and_address_are_needed():
    row = SenderEmail.model_validate({"id": 7, "email": "sam@example.com"})

    assert (row.id, row.email) == (7, "sam@example.com")
    assert row.status is row.daily_limit is row.tags is row.emails_sent_count is None


@pytest.mark.parametrize("given_value", [433, "433", " 433 ", 433.0])
def test_a_number_may_come_as_a_string(given_value: object):
    row = sender(id=given_value, emails_sent_count=given_value, tags=[{"id": given_value, "name": "Google"}])

    assert (row.id, row.emails_sent_count) == (433, 433)
    assert row.tags is not None
    assert row.tags[0].id == 433


@pytest.mark.parametrize(
    "given_value",
    [True, False, "", "many", "1e3", 4.5, -1, "-1", BIGINT_MAX + 1, float("nan"), float("inf"), [], {}, "٤٣٣"],
)
def test_what_is_no_count_is_refused_by_the_name_of_its_field(given_value: object):
    assert refused(bounced_count=given_value) == [("bounced_count", "whole_number")]


@pytest.mark.parametrize("given_value", [0, None, "x", True])
def test_what_is_no_id_is_refused(given_value: object):
    assert refused(id=given_value) == [("id", "whole_number")]


def test_the_largest_count_fits():
    assert sender(emails_sent_count=str(BIGINT_MAX)).emails_sent_count == BIGINT_MAX


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [
        (" Sam \n", "Sam"),
        ("S\x00am", "S�am"),
        ("\x00", "�"),
        ("S\ud83dam ", "S�am"),
        ("Zoë 🦬", "Zoë 🦬"),
        ("two\nlines", "two\nlines"),
        ("", ""),
    ],
)
def test_text_is_trimmed_and_made_storable(given_value: str, kept: str):
    row = sender(name=given_value, tags=[{"name": given_value}])

    assert row.name == kept
    assert row.tags is not None
    assert row.tags[0].name == kept


@pytest.mark.parametrize("given_value", [1, True, [], {"name": "Sam"}])
def test_what_is_no_text_is_refused(given_value: object):
    assert refused(status=given_value) == [("status", "text")]


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [
        (" Sam@Example.COM ", "sam@example.com"),
        ("a@b@example.com", "a@b@example.com"),
        ("s\x00am@Example.com", "s�am@example.com"),
        ("s\udc00am@Example.com", "s�am@example.com"),
    ],
)
def test_an_address_is_lower_cased(given_value: str, kept: str):
    assert sender(email=given_value).email == kept


@pytest.mark.parametrize("given_value", ["sam", "@example.com", "sam@", "\x00", "", None, 5])
def test_what_is_no_address_is_refused(given_value: object):
    assert refused(email=given_value) == [("email", "mail_address")]


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [
        ("2025-04-14T16:59:21.000000Z", datetime(2025, 4, 14, 16, 59, 21, tzinfo=UTC)),
        ("2025-04-14T16:59:21+02:00", datetime(2025, 4, 14, 14, 59, 21, tzinfo=UTC)),
        ("2025-04-14 16:59:21", datetime(2025, 4, 14, 16, 59, 21, tzinfo=UTC)),
    ],
)
def test_times_are_utc(given_value: str, kept: datetime):
    moment = sender(created_at=given_value).created_at

    assert moment == kept
    assert moment is not None
    assert moment.tzinfo == UTC


@pytest.mark.parametrize("given_value", ["0001-01-01T00:00:00+14:00", "0000-00-00 00:00:00", "soon", True, 1e300])
def test_what_is_no_time_is_refused(given_value: object):
    assert [field for field, _ in refused(created_at=given_value)] == ["created_at"]


def test_unknown_fields_are_kept():
    assert (sender(warmup_limit=5, odd={"a": 1}).model_extra or {}) == {"warmup_limit": 5, "odd": {"a": 1}}


@given(st.sampled_from([SenderEmail, Campaign, SenderEmailWarmup]), st.data())
def test_a_row_of_any_json_is_read_or_refused(model: type[ListRow], data: st.DataObject):
    row = data.draw(st.dictionaries(st.sampled_from([*model.model_fields, "extra_field"]), JSON))

    try:
        model.model_validate(row)
    except ValidationError as error:
        assert error.errors(include_input=False)


@pytest.mark.parametrize(("given_value", "read"), [(85.5, 85.5), ("85.5", 85.5), (0, 0.0), (None, None), (120, 120.0)])
def test_a_figure_may_come_as_a_string(given_value: object, read: float | None):
    assert SenderEmailWarmup.model_validate({"id": 1, "warmup_score": given_value}).warmup_score == read


@pytest.mark.parametrize("given_value", [True, "", "good", "nan", float("inf"), -1, "-0.5", [85]])
def test_what_is_no_figure_is_refused(given_value: object):
    with pytest.raises(ValidationError, match="a number, at least 0"):
        SenderEmailWarmup.model_validate({"id": 1, "warmup_score": given_value})


@pytest.mark.parametrize("name", [None, "  ", "Acme "])
def test_a_workspace_is_its_id_and_a_trimmed_name(name: str | None):
    workspace = Workspace.model_validate({"id": "5", "name": name})

    assert (workspace.id, workspace.name) == (5, (name or "").strip())


def test_secrets_beside_a_workspace_and_a_token_are_not_kept():
    workspace = Workspace.model_validate({"id": 5, "name": "Acme", "webhooks_secret_key": "hidden"})
    minted = MintedToken.model_validate({"id": 3, "plain_text_token": "3|hidden", "token_hash": "hidden"})

    assert "hidden" not in f"{workspace!r}{workspace.model_dump()}"
    assert "hidden" not in repr(minted)
    assert minted.plain_text_token == "3|hidden"


@pytest.mark.parametrize("token", [None, "", "  "])
def test_a_minted_token_is_not_empty(token: str | None):
    with pytest.raises(ValidationError):
        MintedToken.model_validate({"id": 3, "plain_text_token": token})


def test_fields_named_like_secrets_are_dropped_at_any_depth():
    value = {"a": [{"api_token": "x", "Password": "x", "webhooks_secret_key": "x", "ok": 1}], "smtp_passwords": ["x"]}

    assert clean_value(value) == {"a": [{"ok": 1}]}


def test_what_jsonb_cannot_hold_is_replaced():
    value = {"k\x00": ["a\x00b", "\ud800", float("inf"), float("nan"), 1.5, True, None]}

    assert clean_value(value) == {"k�": ["a�b", "�", None, None, 1.5, True, None]}


def test_nesting_ends_at_its_limit():
    value: Any = "bottom"
    for _ in range(10_000):
        value = [value]

    cleaned = clean_value(value)

    for _ in range(MAX_DEPTH - 1):
        (cleaned,) = cleaned
    assert cleaned == [None]


@given(JSON)
def test_a_cleaned_value_is_json_that_jsonb_takes(value: Any):
    text = json.dumps(clean_value(value), allow_nan=False)

    assert _is_storable_text(json.dumps(json.loads(text), ensure_ascii=False))


@given(TEXT)
def test_clean_text_changes_only_what_cannot_be_stored(text: str):
    cleaned = clean_text(text)

    assert len(cleaned) == len(text)
    assert all(new == old or (new == "�" and not _is_storable(old)) for new, old in zip(cleaned, text, strict=True))
    assert _is_storable_text(cleaned)


def _is_storable(char: str) -> bool:
    return char != "\x00" and not "\ud800" <= char <= "\udfff"


def _is_storable_text(text: str) -> bool:
    return "\\u0000" not in text and all(map(_is_storable, text))


DAY = date(2026, 1, 5)


def series(label: Any, *dates: Any) -> dict[str, Any]:
    return {"label": label, "color": "#f54842", "dates": list(dates)}


def test_daily_series_are_known_by_their_label_not_their_place():
    bounced, sent = series("Bounced", ["2026-01-05", 1]), series(" sent", ["2026-01-06", "12"], ["2026-01-05", 0])
    odd = [series("Opens by moonlight", "?"), series(None), {"label": 4}, {"label": "Replied"}, "x", None]

    for rows in ([bounced, *odd, sent], [sent, bounced]):
        stats = DailyStats.model_validate(rows)

        assert stats.sent == {DAY: 0, date(2026, 1, 6): 12}
        assert stats.bounced == {DAY: 1}
        assert stats.replied is None


@pytest.mark.parametrize(
    "rows",
    [
        {},
        None,
        "Sent",
        [series("Sent"), series("sent")],
        [series("Sent", ["2026-01-05", 1], ["2026-01-05", 2])],
        [series("Sent", ["2026-01-05", -1])],
        [series("Sent", ["2026-01-05", "many"])],
        [series("Sent", ["2026-01-05", True])],
        [series("Sent", ["yesterday", 1])],
        [series("Sent", [20260105, 1])],
        [series("Sent", ["2026-01-05"])],
        [series("Sent", "2026-01-05")],
        [{"label": "Sent", "dates": {"2026-01-05": 1}}],
    ],
)
def test_a_series_that_could_mean_two_things_is_refused(rows: Any):
    with pytest.raises(ValidationError):
        DailyStats.model_validate(rows)


@pytest.mark.parametrize("odd", [7, False, [], {"en": "Acme"}, None])
def test_a_name_that_is_none_keeps_no_workspace_webhook_or_token_out(odd: object):
    webhook = {"id": 1, "url": "https://example.com/hooks/x", "name": odd}

    assert Workspace.model_validate({"id": 17, "name": odd}).shown == "workspace 17"
    assert Webhook.model_validate(webhook).name == ""
    token = MintedToken.model_validate({"id": odd, "name": odd, "plain_text_token": "1|abc"})
    assert (token.id in (None, 7), token.name, token.plain_text_token) == (True, None, "1|abc")
