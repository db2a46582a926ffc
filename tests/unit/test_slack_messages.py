"""The words of alarms as Slack takes them: its documented limits, its escapes, and nothing that a name could steer."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slackhook import check_limits, texts

from bisonsync.api.slack_messages import MAX_FINDINGS, Alarm, alarm_message, check_message, cut, repeated

SINCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def alarm(**values: Any) -> Alarm:
    given_values = {
        "kind": "opening",
        "check": "freshness",
        "about": "",
        "state": "CRITICAL",
        "detail": "3 of 27 workspaces are older than 10 min",
        "since": SINCE,
        "at": SINCE + timedelta(minutes=1),
        **values,
    }
    return Alarm(**given_values)


def words(body: dict[str, Any]) -> str:
    """What a reader sees of the blocks."""
    shown = "\n".join(texts(body)[1:])
    return shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def test_an_opening_says_what_is_wrong_where_since_when_and_what_to_do():
    body = alarm_message(
        alarm(
            findings=[("Acme", "14 min old"), ("Zeta Ltd", "never read")],
            also=[("runs", 0), ("completeness", 1), ("workspace-failures", 3)],
            hint="bisonsync poll-accounts -w sim/3",
        )
    )

    check_limits(body)
    assert texts(body)[1:] == [
        "🔴 CRITICAL: freshness",
        "3 of 27 workspaces are older than 10 min",
        "• Acme: 14 min old\n• Zeta Ltd: never read",
        "Also failing because of this: runs, completeness (1 workspace), workspace-failures (3 workspaces)",
        "Next: bisonsync poll-accounts -w sim/3",
        "since 2026-03-01 12:00 UTC, for 1 min",
    ]
    assert body["text"] == "\n".join(texts(body)[1:])


@pytest.mark.parametrize(
    ("kind", "state", "heading"),
    [
        ("opening", "WARNING", "🟠 WARNING: freshness"),
        ("opening", "UNKNOWN", "⚪ UNKNOWN: freshness"),
        ("worse", "CRITICAL", "🔴 Worse, now CRITICAL: freshness"),
        ("page", "CRITICAL", "🔴 CRITICAL for long, paged again: freshness"),
        ("reminder", "WARNING", "🟠 Still WARNING: freshness"),
        ("recovery", "CRITICAL", "✅ Over: freshness"),
    ],
)
def test_each_kind_has_its_heading(kind: str, state: str, heading: str):
    body = alarm_message(alarm(kind=kind, state=state))

    check_limits(body)
    assert texts(body)[1] == heading


@pytest.mark.parametrize(("seconds", "said"), [(0, ""), (59, ""), (60, ", for 1 min"), (7261, ", for 2 h 1 min")])
def test_the_length_is_told_from_a_minute_on(seconds: int, said: str):
    body = alarm_message(alarm(kind="reminder", at=SINCE + timedelta(seconds=seconds)))

    assert texts(body)[-1] == "since 2026-03-01 12:00 UTC" + said


def test_a_recovery_says_how_long_it_was():
    body = alarm_message(alarm(kind="recovery", at=SINCE + timedelta(days=3, minutes=4, seconds=9)))

    assert texts(body)[-1] == "from 2026-03-01 12:00 to 2026-03-04 12:04 UTC, 3 d 4 min"


def test_a_client_is_named():
    assert texts(alarm_message(alarm(about="Acme & Sons")))[1] == "🔴 CRITICAL: freshness: Acme &amp; Sons"


@pytest.mark.parametrize("name_length", [5, 250, 5000])
def test_five_hundred_workspaces_fit_and_the_rest_is_counted(name_length: int):
    findings = [(f"<{n}>".ljust(name_length, "&"), "no complete read for 14 min") for n in range(500)]

    body = alarm_message(alarm(findings=findings, also=[(f"check-{n}", n) for n in range(500)], hint="x" * 9000))

    check_limits(body)
    check_limits(repeated(body))
    listed = re.findall(r"^• <(\d+)", words(body), re.MULTILINE)
    assert listed == [str(number) for number in range(MAX_FINDINGS)]
    assert f"\nand {500 - MAX_FINDINGS} more\n" in words(body)


def test_as_many_as_fit_are_not_counted():
    body = alarm_message(alarm(findings=[(str(number), "old") for number in range(MAX_FINDINGS)]))

    assert words(body).count("•") == MAX_FINDINGS
    assert "more" not in words(body)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("<!channel>", "&lt;!channel&gt;"),
        ("<@U012|all> <#C1> <https://evil.example.com|ok>", "&lt;@U012|all&gt; &lt;#C1&gt; &lt;https://evil.example.com|ok&gt;"),
        ("&lt;!here&gt;", "&amp;lt;!here&amp;gt;"),
        ("*bold* _it_ ~no~ `code` > quote :boom:", "*bold* _it_ ~no~ `code` &gt; quote :boom:"),
        ("two\nlines\r\nand\ttab\x00\x1b[31m\x7f\x85.", "two lines and tab [31m ."),
        ("\ufeffright\u202eto\u2066\u200b left", "right to left"),
        ("half \ud83d a pair", "half a pair"),
        ("Ünïcødé 日本 👩", "Ünïcødé 日本 👩"),
    ],
)  # fmt: skip
def test_a_name_is_only_a_name(name: str, sent: str):
    body = alarm_message(alarm(about=name, check="c", findings=[(name, "d")], detail=name, hint=name, also=[(name, 2)]))

    check_limits(body)
    assert texts(body)[1:-1] == [
        f"🔴 CRITICAL: c: {sent}",
        sent,
        f"• {sent}: d",
        f"Also failing because of this: {sent} (2 workspaces)",
        f"Next: {sent}",
    ]


def test_a_repeat_is_marked_in_text_and_heading():
    body = alarm_message(alarm())
    before = json.dumps(body)

    marked = repeated(body)

    check_limits(marked)
    assert json.dumps(body) == before
    assert texts(marked) == ["(repeated) " + body["text"], "(repeated) 🔴 CRITICAL: freshness", *texts(body)[2:]]


def test_a_test_says_that_it_is_one():
    body = check_message("host<1>")

    check_limits(body)
    assert "Test of bisonsync" in body["text"]
    assert "nothing is wrong" in body["text"]
    assert "host&lt;1&gt;" in body["text"]


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("a<<", 9, "a&lt;&lt;"),
        ("a<<", 8, "a&lt;…"),
        ("ab 👩", 5, "ab 👩"),
        ("ab 👩", 4, "ab…"),
        ("", 3, ""),
    ],
)
def test_what_is_cut_is_cut_between_characters(text: str, limit: int, kept: str):
    assert cut(text, limit) == kept


anything = st.text(st.characters(codec=None, exclude_categories=()), max_size=400)


@given(
    st.sampled_from(["opening", "worse", "page", "reminder", "recovery"]),
    anything,
    st.integers(1, 400),
    st.lists(st.tuples(anything, anything), max_size=40),
)
def test_any_words_keep_the_limits(kind: str, words_: str, times: int, findings: list[tuple[str, str]]):
    long = words_ * times
    body = alarm_message(
        alarm(
            kind=kind, check=long, about=long, state=long, detail=long, hint=long, findings=findings, also=[(long, 1)]
        )
    )

    check_limits(body)
    check_limits(repeated(body))
