"""What is read as a body is held by Postgres."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bisonsync.payloads import NotJson, read_body

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,6})?", fullmatch=True)
TEXTS = st.lists(st.sampled_from(["\\u0000", "\\ud83d", "\\ude00", "\\\\", "u0000", "a", "\\n", "\uffff"])).map(
    lambda parts: '"' + "".join(parts) + '"'
)
VALUES = st.recursive(
    NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(TEXTS, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=20,
)


@given(text=VALUES)
@example(text="9" * 131_072)
@example(text="0." + "9" * 16_383)
@example(text="1e400")
@example(text="1e-400")
@example(text="9" * 130_672 + "e400")
@example(text="0." + "1" * 15_983 + "e-400")
@example(text="[" * 64 + "]" * 64)
@example(text="9" * 131_073)
@example(text="0." + "9" * 16_384)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_jsonb_holds_what_was_read(conn: psycopg.Connection[Any], text: str) -> None:
    read = read_body(text.encode())

    (again,) = conn.execute("SELECT (%s::text)::jsonb::text", [read.text]).fetchone() or ("",)
    as_read = json.loads(read.text, parse_int=float, parse_float=float)
    assert json.loads(again, parse_int=float, parse_float=float) == as_read


@pytest.mark.parametrize("text", ['"\\u0000"', '"\\ud83d"', "9" * 131_073, "0." + "9" * 16_384, "1e131072"])
def test_what_is_replaced_is_what_jsonb_refuses(conn: psycopg.Connection[Any], text: str) -> None:
    assert read_body(text.encode()).raw is not None

    with pytest.raises(psycopg.DataError):
        conn.execute("SELECT (%s::text)::jsonb", [text])


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]:,"\\ue01-. nul').map(str.encode))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_read_is_held(conn: psycopg.Connection[Any], body: bytes) -> None:
    try:
        read = read_body(body)
    except NotJson:
        return

    conn.execute("SELECT (%s::text)::jsonb", [read.text])
