"""Bodies of webhooks: what is JSON, what is passed on as it came, and what is replaced."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisonsync.payloads import MAX_BYTES, Body, NotJson, read_body

EMOJI = "\U0001f600"


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


@pytest.mark.parametrize(
    "text",
    [
        '{"event":{"type":"EMAIL_SENT"},"data":{}}',
        ' \r\n\t{"a" : [1, -2.50, 1e9, 1.5E-7, true, false, null, "x"]} \n',
        '"a lonely text"',
        "5",
        "null",
        "[]",
        '{"emoji": "\\ud83d\\ude00\\uD83D\\uDE00"}',
        f'{{"emoji": "{EMOJI}"}}',
        '{"no escape": "\\\\ud83d and \\\\u0000"}',
        '{"text of a pair after a backslash": "\\\\\\ud83d\\ude00"}',
        '{"brackets": "' + "{[" * 500 + '"}',
        "[" + "[1]," * 500 + "1]",
        '{"digits": ' + "9" * 16_384 + "}",
        '{"digits": ' + "9" * 131_072 + "}",
        '{"digits": 0.' + "9" * 16_383 + "}",
        '{"digits": "' + "9" * 200_000 + '"}',
        '{"not ours to refuse": 1e400, "nor": 1e-400}',
        '{"a noncharacter": "\uffff"}',
    ],
)
def test_passes_on_what_jsonb_holds_as_it_came(text: str) -> None:
    assert read_body(text.encode()) == Body(text, None)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ('"a\\u0000b"', '"a\\ufffdb"'),
        ('{"\\u0000": "\\u0000\\u0000"}', '{"\\ufffd": "\\ufffd\\ufffd"}'),
        ('"\\\\\\u0000"', '"\\\\\\ufffd"'),
        ('"\\\\u0000 \\u0000"', '"\\\\u0000 \\ufffd"'),
        ('"\\ud83d"', '"\\ufffd"'),
        ('"\\ude00\\ud83d"', '"\\ufffd\\ufffd"'),
        ('"\\ud83d\\ud83d\\ude00"', '"\\ufffd\\ud83d\\ude00"'),
        ('"\\\\ud83d\\ude00"', '"\\\\ud83d\\ufffd"'),
        ('"\\ud83dx\\ude00"', '"\\ufffdx\\ufffd"'),
        ('"\\ud83d\\n\\ude00"', '"\\ufffd\\n\\ufffd"'),
        ("1e401", '"1e401"'),
        ("-1.5E+999999999999999999999", '"-1.5E+999999999999999999999"'),
        ("[1e-401, 2]", '["1e-401", 2]'),
        ("1e" + "9" * 5_000, '"1e' + "9" * 5_000 + '"'),
        ("9" * 131_073, '"' + "9" * 131_073 + '"'),
        ("9" * 130_900 + "e200", '"' + "9" * 130_900 + 'e200"'),
        ("0." + "9" * 16_000 + "e-400", '"0.' + "9" * 16_000 + 'e-400"'),
        ("0." + "9" * 16_384, '"0.' + "9" * 16_384 + '"'),
    ],
)
def test_replaces_what_jsonb_cannot_hold_and_keeps_the_bytes(text: str, cleaned: str) -> None:
    assert read_body(text.encode()) == Body(cleaned, text.encode())


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ('{"text_body":"secret"}', '{"text_body":@}'),
        ('[ {"data" : [{"html_body" :  "secret", "a": 1.50}]}]', '[ {"data" : [{"html_body" :  @, "a": 1.50}]}]'),
        ('{"raw_body": ["secret", {"text_body": "secret"}], "b": 2}', '{"raw_body": @, "b": 2}'),
        ('{"email_body": {"html": "secret", "length": 6}}', '{"email_body": @}'),
        ('{"text_body": {"length": "secret", "sha256": "secret"}}', '{"text_body": @}'),
        ('{"text_body": "secret", "text_body": null}', '{"text_body": @, "text_body": null}'),
        ('{"html\\u005fbody": "secret", "x": "\\/"}', '{"html\\u005fbody": @, "x": "\\/"}'),
        ('{"\\u0068tml_body": {"text_body": "secret"}}', '{"\\u0068tml_body": @}'),
        ('{"text_body": "sec\\u0000ret \\ud83d"}', '{"text_body": @}'),
        ('{"n": 1e999, "text_body": "secret\\u0000"}', '{"n": "1e999", "text_body": @}'),
    ],
)
def test_mail_bodies_are_replaced_wherever_they_stand_and_nothing_else_is(text: str, stripped: str) -> None:
    read = read_body(text.encode())

    pattern = re.escape(stripped).replace("@", r'\{"length": \d+, "sha256": "[0-9a-f]{64}"\}')
    assert re.fullmatch(pattern, read.text)
    assert b"secret" not in (read.raw or b"")
    assert (read.raw is not None) == ("1e999" in text or "null" in text)
    kept = read_body(text.encode(), keep_bodies=True)
    assert text in (kept.text, (kept.raw or b"").decode())
    again = read_body(read.raw or read.text.encode())
    assert (again.text, again.raw) == (read.text, read.raw), "once is enough"


@pytest.mark.parametrize(
    "text",
    [
        '{"text_body": null, "html_body": 5, "body": "kept", "x_text_body": "kept"}',
        '{"a": "\\"text_body\\": \\"kept\\"", "x\\"html_body": "kept"}',
        '["text_body", "kept", "html_body"]',
    ],
)
def test_what_is_no_mail_body_is_kept(text: str) -> None:
    assert read_body(text.encode()) == Body(text, None)


def test_a_byte_order_mark_before_a_mail_body_stays_before_it() -> None:
    read = read_body(b'\xef\xbb\xbf{"n": 1e999, "text_body": "secret"}')

    assert read.raw is not None and read.raw.startswith(b'\xef\xbb\xbf{"n": 1e999, "text_body": {"length": 6, ')


def test_an_exponent_with_zeros_in_front_is_read_by_its_value() -> None:
    assert read_body(b"1e0000000000005").raw is None


def test_keeps_the_bytes_where_a_key_comes_twice_in_one_object() -> None:
    twice = b'{"a": 1, "b": {"a": 2}, "\\u0061": 3}'

    assert read_body(twice) == Body(twice.decode(), twice)


def test_a_key_that_comes_in_several_objects_comes_once_in_each() -> None:
    assert read_body(b'[{"a": {"a": 1}}, {"a": 1}]').raw is None


def test_a_byte_order_mark_is_no_content() -> None:
    assert read_body(b'\xef\xbb\xbf{"a": 1}') == Body('{"a": 1}', None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON: Nothing at line 1, column 1"),
        (b" \n", "not JSON: Nothing at line 2, column 1"),
        (b'{"a": }', "not JSON: Expecting value at line 1, column 7"),
        (b'{"a": 1} x', "not JSON: Extra data at line 1, column 10"),
        (b"{'a': 1}", "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"a": NaN}', "not JSON: NaN is no number there"),
        (b"[Infinity]", "not JSON: Infinity is no number there"),
        (b"[-Infinity]", "not JSON: -Infinity is no number there"),
        (b'"a\x00b"', "not JSON: Invalid control character at line 1, column 3"),
        (b'"a\nb"', "not JSON: Invalid control character at line 1, column 3"),
        (b"[01]", "not JSON: Expecting ',' delimiter at line 1, column 3"),
        (b"\xc3(", "not UTF-8: byte 1 fits nowhere"),
        (b'"\xed\xa0\x80"', "not UTF-8: byte 2 fits nowhere"),
        (b'"\xf8\x88\x80\x80\x80"', "not UTF-8: byte 2 fits nowhere"),
        ('"text"'.encode("utf-16"), "not UTF-8: byte 1 fits nowhere"),
        (b"\xef\xbb\xbf\xef\xbb\xbf1", "not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at line 1, column 1"),
    ],
)
def test_says_in_one_line_why_it_is_not_json(body: bytes, reason: str) -> None:
    with pytest.raises(NotJson) as caught:
        read_body(body)

    assert caught.value.reason == reason
    # What was sent may be a secret, and a traceback must not show it either.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"[":', "}]")])
def test_reads_64_levels_and_refuses_65(opening: str, closing: str) -> None:
    levels = opening.count("{") + opening.count("[") - opening.count('"[')

    assert read_body(nested(64 // levels, opening, closing)).raw is None
    with pytest.raises(NotJson, match=r"^nested deeper than 64$"):
        read_body(b"[" + nested(64 // levels, opening, closing) + b"]")


@pytest.mark.parametrize("body", [b"[" * 5_000_000, b'{"a":' * 2_000_000, nested(5_000), nested(400)])
def test_the_deepest_nesting_is_refused_and_not_a_crash(body: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from bisonsync.payloads import *; read_body(sys.stdin.buffer.read())"],
        input=body,
        capture_output=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(b"NotJson: nested deeper than 64")


def test_reads_16_mebibytes_and_no_byte_more() -> None:
    body = b'"' + b"\\n" * (MAX_BYTES // 2 - 1) + b'"'

    assert read_body(body).raw is None
    with pytest.raises(NotJson, match=r"^larger than 16 MiB$"):
        read_body(body + b" ")


def test_shows_nothing_of_what_was_sent() -> None:
    assert "secret" not in repr(read_body(b'{"password": "secret", "password": "\\u0000"}'))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@given(value=JSON, escaped=st.booleans())
def test_what_python_writes_is_read(value: object, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()

    read = read_body(body)

    if read.raw is None:
        assert (read.text, json.loads(read.text)) == (body.decode(), value)
    else:
        # Text of this strategy holds NUL characters and no lone surrogates.
        assert (read.raw, "\\u0000" in body.decode()) == (body, True)


PIECES = st.sampled_from(
    [
        *(
            "\\",
            "\\\\",
            '"',
            "\\u0000",
            "\\ud83d",
            "\\ude00",
            "u0000",
            "ud83d",
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "1",
            "e",
            "-",
        ),
        *("0", ".", "null", " ", "\\n", "\x00", "\ufeff", "a", '"a"', "999", "NaN", EMOJI),
    ]
)


@given(text=st.lists(PIECES, max_size=30).map("".join), quoted=st.booleans())
def test_agrees_with_the_parser_about_what_is_json(text: str, quoted: bool) -> None:
    body = (f'"{text}"' if quoted else text).encode()
    try:
        expected = json.loads(body.removeprefix(b"\xef\xbb\xbf"), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        with pytest.raises(NotJson):
            read_body(body)
        return

    read = read_body(body)

    if isinstance(expected, str):
        cleaned = "".join("\ufffd" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in expected)
        assert (json.loads(read.text), read.raw) == (cleaned, None if cleaned == expected else body)


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        read = read_body(body)
    except NotJson as refused:
        assert "\n" not in refused.reason
    else:
        json.loads(read.text)
