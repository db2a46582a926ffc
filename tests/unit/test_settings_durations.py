"""Durations: what operators write, and that nothing else passes."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisonsync.durations import LONGEST, format_duration, parse_duration

PROPERTY = settings(deadline=None, database=None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4m", 240),
        ("30s", 30),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("0s", 0),
        ("0", 0),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("2d", 172_800),
        (" 90 ", 90),
        ("0.25", 0.25),
        (900, 900),
        (0.5, 0.5),
    ],
)
def test_reads_what_operators_write(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "5 minutes", "5min", "m", "4M", "30s1h", "1h1h", "1e3", "inf", "nan", "1..5s", "٣s", "5m!", "4x", "1h30"],
)
def test_names_the_ways_to_write_what_it_cannot_read(text):
    with pytest.raises(ValueError, match="write it as 4m, 30s, 1h30m or 500ms"):
        parse_duration(text)


@pytest.mark.parametrize("value", ["-5m", "-1", -1, -0.5])
def test_refuses_a_negative_one(value):
    with pytest.raises(ValueError, match="must not be negative"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value",
    ["9999999999d", "9" * 400, 1e300, float("inf"), float("nan"), 10**400, "3651d"],
    ids=lambda value: repr(value)[:12],
)
def test_refuses_what_no_date_can_take(value):
    with pytest.raises(ValueError, match="longer than 3650 days"):
        parse_duration(value)


@PROPERTY
@given(st.integers(0, LONGEST // timedelta(milliseconds=1)))
def test_reads_back_what_it_writes(milliseconds):
    duration = timedelta(milliseconds=milliseconds)

    assert parse_duration(format_duration(duration)) == duration


@PROPERTY
@given(st.integers(0, 99), st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_adds_up_its_parts(hours, minutes, seconds, milliseconds):
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"

    assert parse_duration(text) == timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


@PROPERTY
@given(st.text() | st.floats() | st.integers())
def test_answers_anything_with_a_duration_or_a_value_error(value):
    try:
        duration = parse_duration(value)
    except ValueError:
        return

    assert timedelta(0) <= duration <= LONGEST
