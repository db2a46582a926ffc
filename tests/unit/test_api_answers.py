"""What an answer means, and that nothing of it is quoted that should not be."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from conversation import NEW_YEAR
from hypothesis import example, given
from hypothesis import strategies as st

from bisonsync.api import answers
from bisonsync.api.answers import Page, Question
from bisonsync.api.http import Answer
from bisonsync.api.quoting import LENGTH, quote
from bisonsync.errors import ApiRefused, BisonsyncError, CredentialsError
from bisonsync.keys import AdminKeyName
from bisonsync.retry import Transient

TOKEN = "12|abcdefghijklmnopqrstuvwxyz"
QUESTION = Question("sim", "GET", "/api/sender-emails", "the token of workspace sim/5", TOKEN)
PAGE: dict[str, Any] = {"data": [{"id": 1}], "meta": {"total": 1, "last_page": 1}}


def answer(status: int = 200, body: Any = b"", **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, httpx.Headers(named), content)


def judge(given_answer: Answer) -> Page:
    return answers.judge(given_answer, QUESTION, answers.read_page, now=NEW_YEAR)


def test_a_page_is_its_rows_and_counts():
    assert judge(answer(body=PAGE)) == Page([{"id": 1}], total=1, last_page=1, next_cursor=None)


def test_a_cursor_page_has_no_counts():
    document = {"data": [], "meta": {"path": "x", "per_page": 15, "next_cursor": "abc", "prev_cursor": None}}

    assert judge(answer(body=document)) == Page([], None, None, "abc", is_by_cursor=True)


@pytest.mark.parametrize("document", [{"data": []}, {"data": [], "meta": None}, {"data": [], "meta": []}])
def test_a_bare_list_has_no_counts(document: Any):
    assert judge(answer(body=document)) == Page([], None, None, None)


@pytest.mark.parametrize("counted", [29, "29", " 29 ", 29.0])
def test_counts_may_come_as_strings(counted: object):
    document = {"data": [], "meta": {"total": counted, "last_page": counted}}

    assert judge(answer(body=document)) == Page([], 29, 29, None)


@pytest.mark.parametrize("counted", [-1, "-1", "many", 1.5, True, [], "9" * 5000])
def test_what_is_no_count_makes_the_page_unusable(counted: object):
    with pytest.raises(Transient, match=r"meta\.last_page is not a count"):
        judge(answer(body={"data": [], "meta": {"total": 1, "last_page": counted}}))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 520, 529, 599])
def test_some_statuses_pass(status: int):
    with pytest.raises(Transient) as caught:
        judge(answer(status, body=PAGE))

    assert caught.value.reason == f"HTTP {status}"
    assert caught.value.rate_limited == (status == 429)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_named(status: int):
    with pytest.raises(CredentialsError) as caught:
        judge(answer(status, {"message": "Unauthenticated."}))

    assert "the token of workspace sim/5" in caught.value.message
    assert f"HTTP {status}" in caught.value.message
    assert "workspaces verify" in caught.value.hint


@pytest.mark.parametrize(
    ("who", "command"),
    [(AdminKeyName("sim"), "check api_key of the instance"), ("the token of workspace super-admin/5", "mint-tokens")],
)
def test_the_hint_is_of_the_kind_of_token_whatever_an_instance_is_called(who: str, command: str):
    with pytest.raises(CredentialsError) as caught:
        answers.judge(answer(401), replace(QUESTION, who=who), answers.read_page, now=NEW_YEAR)

    assert who in caught.value.message
    assert command in caught.value.hint


@pytest.mark.parametrize("status", [400, 404, 405, 410, 418, 422])
@pytest.mark.parametrize(
    "body",
    [
        {"message": "No such thing."},
        {"error": "No such thing."},
        {"data": {"success": False, "message": "No such thing."}},
    ],
)
def test_another_refusal_names_the_path_and_the_reason(status: int, body: Any):
    with pytest.raises(ApiRefused) as caught:
        judge(answer(status, body))

    assert caught.value.status == status
    assert "GET /api/sender-emails" in caught.value.message
    assert caught.value.message.endswith(f"HTTP {status}: No such thing.")


@pytest.mark.parametrize("body", [b"", b"<html>No such thing</html>", b"[1]", b'"text"', b"\xff", b"[" * 100_000])
def test_a_refusal_without_words_is_named_all_the_same(body: bytes):
    with pytest.raises(ApiRefused, match=r"refused with HTTP 404$"):
        judge(answer(404, body))


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://other.example.com:8443/login?token=x", " to https://other.example.com:8443"),
        ("https://user:secret@other.example.com/", " to https://other.example.com"),
        ("/login", ""),
        ("https://[broken", ""),
        ("https://other.example.com:port/", ""),
    ],
)
def test_a_redirect_is_refused_and_says_where_to(location: str, shown: str):
    with pytest.raises(ApiRefused) as caught:
        judge(answer(302, location=location))

    assert caught.value.message.endswith(f"redirect (HTTP 302){shown}")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!doctype html><p>Down for maintenance", "an HTML page instead of JSON"),
        (b"", "no JSON instead of JSON"),
        (b'{"data": [', "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"data": ' + b"9" * 5000 + b"}", "data is not a list"),
        (b"[]", "the answer is not an object"),
        (b"null", "the answer is not an object"),
        (b'{"data": {}}', "data is not a list"),
        (b'{"message": "hello"}', "data is not a list"),
        (b'{"success": false, "message": "Busy."}', "success is false: Busy."),
        (b'{"data": {"success": false, "message": "Busy."}}', "success is false: Busy."),
        (b'{"data": {"success": false}}', "success is false: no reason given"),
    ],
)
def test_f25_a_success_that_is_not_the_json_asked_for_is_a_fault_that_may_pass(body: bytes, reason: str):
    with pytest.raises(Transient) as caught:
        judge(answer(200, body))

    assert "HTTP 200" in caught.value.reason
    assert reason in caught.value.reason


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"])
def test_odd_text_is_read(text: str):
    assert judge(answer(body={"data": [{"id": 1, "name": text}]})).rows == [{"id": 1, "name": text}]


def test_a_number_that_python_does_not_convert_harms_only_its_row():
    digits = "-" + "9" * 5000

    page = judge(answer(body=f'{{"data": [{{"id": 1, "odd": {digits}}}, {{"id": 2}}]}}'.encode()))

    assert page.rows == [{"id": 1, "odd": digits}, {"id": 2}]


def test_a_byte_order_mark_is_read_over():
    assert judge(answer(body=b"\xef\xbb\xbf" + json.dumps(PAGE).encode())).total == 1


def in_seconds(seconds: float) -> str:
    return format_datetime(NEW_YEAR + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("8", 8.0),
        (" 8 ", 8.0),
        ("0.5", 0.5),
        (in_seconds(40), 40.0),
        ("Thu, 01 Jan 2026 01:00:30 +0100", 30.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 2335219200.0),
        ("0", None),
        ("-5", None),
        (in_seconds(-40), None),
        ("inf", None),
        ("1e999", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Thu, 99 Jan 2026 00:00:00 GMT", None),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Thu, 01 Jan 0001 00:00:00 +2359", None),
    ],
)
def test_retry_after_in_the_header(header: str, seconds: float | None):
    with pytest.raises(Transient) as caught:
        judge(answer(503, b"", retry_after=header))

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": "rate_limited", "retry_after": 8}, 8.0),
        ({"retry_after": "8"}, 8.0),
        ({"retry_after": True}, None),
        ({"retry_after": None}, None),
        ({"retry_after": [8]}, None),
        ({"retry_after": 10**400}, None),
        ({"retry_after": -1}, None),
        ([8], None),
        (b"<html>", None),
        (b"[" * 100_000, None),
    ],
)
def test_retry_after_in_the_body(body: Any, seconds: float | None):
    with pytest.raises(Transient) as caught:
        judge(answer(429, body))

    assert caught.value.retry_after == seconds


def test_the_header_goes_before_the_body_unless_it_is_no_help():
    assert answers.retry_after_seconds(answer(429, {"retry_after": 8}, retry_after="3"), NEW_YEAR) == 3.0
    assert answers.retry_after_seconds(answer(429, {"retry_after": 8}, retry_after="soon"), NEW_YEAR) == 8.0


def test_a_date_is_read_by_the_servers_own_clock():
    skewed = answer(429, retry_after=in_seconds(3640), date=in_seconds(3600))

    assert answers.retry_after_seconds(skewed, NEW_YEAR) == 40.0


@given(st.text(), st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
@example("Thu, 01 Jan 2026 00:00:00 -9999", "", None)
def test_any_retry_after_is_none_or_a_time_to_wait(header: str, date: str, body: Any):
    asked = Answer(429, {"retry-after": header, "date": date}, json.dumps({"retry_after": body}).encode())

    seconds = answers.retry_after_seconds(asked, NEW_YEAR)

    assert seconds is None or 0 < seconds < float("inf")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The route api/xyz could not be found.", "The route api/xyz could not be found."),
        ("two\n lines\t\x1b[31m", "two lines [31m"),
        ("token 7|Zk3jd9 is bad", "token … is bad"),
        ("mail to sam@example.com failed", "mail to … failed"),
        ("key whsec_0123456789abcdef0123 unknown", "key … unknown"),
        ("x" * 500, "x" * (LENGTH - 1) + "…"),
        ("a" * 1_000_000, "a" * (LENGTH - 1) + "…"),
    ],
)
def test_words_of_others_are_made_fit_for_a_line(text: str, shown: str):
    assert quote(text) == shown


SECRETS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=12, max_size=60)
TOKENS = st.builds("{}|{}".format, st.integers(1, 9999), SECRETS) | SECRETS


@given(TOKENS, st.text(), st.text(), st.sampled_from(["\x00", "\n", " ", ""]))
def test_a_quoted_text_never_holds_the_secret(token: str, before: str, after: str, gap: str):
    torn = gap.join([token[:5], token[5:]])

    shown = quote(f"{before}{torn}{after} {token}", secret=token)

    assert token not in shown
    assert token.rpartition("|")[2] not in shown
    assert len(shown) <= LENGTH
    assert shown.isprintable()


@given(TOKENS, st.text(), st.integers(200, 599), st.sampled_from(["message", "error", "data", "location"]))
def test_no_secret_in_any_message(token: str, text: str, status: int, where: str):
    said = f"{text} Bearer {token}"
    body: dict[str, Any] = {where: said, "success": False}
    if where == "data":
        body = {"data": {"success": False, "message": said}}
    location = f"https://user:{token}@{token}.example.com/{token}"
    question = Question("sim", "GET", "/api/users", "the token of workspace sim/5", token)

    with pytest.raises((BisonsyncError, Transient)) as caught:
        answers.judge(
            answer(status, body, location=location, retry_after=token), question, answers.read_page, now=NEW_YEAR
        )

    shown = f"{caught.value} {getattr(caught.value, 'message', '')} {getattr(caught.value, 'hint', '')} {question!r}"
    assert token.rpartition("|")[2].lower() not in shown.lower()
