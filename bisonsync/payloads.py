"""What arrives as the body of a webhook, read as JSON that Postgres can hold."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64

# What numeric can hold: so many digits before the point, and so many after it.
_MAX_WHOLE_DIGITS = 131_072
_MAX_FRACTION_DIGITS = 16_383
# jsonb shows 1e9999 with ten thousand digits: what no sender computes would make megabytes of a few bytes.
_MAX_EXPONENT = 400

# Possessive, so that a string with millions of escapes costs no memory.
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_STRINGS = re.compile(_STRING)
_BRACKETS = re.compile(r"[\[{\]}]")
_TOKENS = re.compile(rf"{_STRING}|-?[0-9][0-9.eE+-]*+")
_SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SUSPECT_DIGITS = re.compile(rf"(?<![0-9])[0-9]{{{_MAX_FRACTION_DIGITS + 1}}}")
_HARMLESS_NUMBER = re.compile(r"-?[0-9.]{1,300}(?:[eE][+-]?[0-9]{1,2})?")
# Only where its backslash is certainly not itself escaped.
_PAIR = re.compile(r"\\(?<!\\\\)u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_ESCAPES = re.compile(
    r"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?P<bad>\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2}))"
    r"|\\."
)
_NUMBER = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)0*([0-9]+))?")


class NotJson(ValueError):
    """The body cannot be read. ``reason`` is one line that quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Body:
    """``text`` is JSON that jsonb holds; ``raw`` the bytes as they came, only where ``text`` or jsonb says less."""

    text: str = field(repr=False)
    raw: bytes | None = field(default=None, repr=False)


def read_body(body: bytes) -> Body:
    """Read one JSON value of any kind: strict, UTF-8 with or without a byte order mark, nested at most 64 deep.

    What Postgres cannot hold is replaced: NUL characters and lone surrogates by U+FFFD, numbers beyond numeric by
    strings. Of a key that comes twice in one object jsonb keeps the last; the text has both. Raises NotJson.
    """
    if len(body) > MAX_BYTES:
        raise NotJson(f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8: byte {error.start + 1} fits nowhere") from None
    look = _Look()
    look.over(text)
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise NotJson(_TOO_DEEP)
    is_suspect = look.has_odd_number or _has_suspect_escape(text) or _SUSPECT_DIGITS.search(text)
    cleaned = _TOKENS.sub(_clean_token, text) if is_suspect else text
    is_whole = cleaned == text and not look.has_double_key
    return Body(cleaned, None if is_whole else body)


_TOO_DEEP = f"nested deeper than {MAX_DEPTH}"


class _Look:
    """Reads a text with the strict parser, keeping none of its values."""

    def __init__(self) -> None:
        self.has_odd_number = False
        self.has_double_key = False

    def over(self, text: str) -> None:
        """Raises NotJson."""
        try:
            json.loads(
                text,
                # A number's length instead of its value: Python refuses to convert thousands of digits.
                parse_int=len,
                parse_float=self._look_at_number,
                parse_constant=_refuse_constant,
                object_pairs_hook=self._look_at_object,
            )
        except json.JSONDecodeError as error:
            what = error.msg.partition(":")[0].removesuffix(" at") if text.strip() else "Nothing"
            raise NotJson(f"not JSON: {what} at line {error.lineno}, column {error.colno}") from None
        except RecursionError:
            raise NotJson(_TOO_DEEP) from None

    def _look_at_number(self, number: str) -> None:
        if not _HARMLESS_NUMBER.fullmatch(number):
            self.has_odd_number = True

    def _look_at_object(self, pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) != len(pairs):
            self.has_double_key = True


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"not JSON: {name} is no number there")


def _has_suspect_escape(text: str) -> bool:
    """True when a string may hold a NUL character or half of a surrogate pair; emoji as escapes are whole pairs."""
    found = _SUSPECT_ESCAPE.search(text)
    return found is not None and bool(_SUSPECT_ESCAPE.search(_PAIR.sub("", text)))


def _depth(text: str) -> int:
    """How deep arrays and objects of valid JSON are nested, or more than is allowed."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _fits(number: str) -> bool:
    """True when numeric holds it, and jsonb does not blow it up."""
    found = _NUMBER.fullmatch(number)
    assert found is not None, "the parser let it pass"
    whole, fraction, sign, digits = found.groups()
    if digits is not None and len(digits) > len(str(_MAX_EXPONENT)):
        return False
    exponent = int(f"{sign}{digits}") if digits is not None else 0
    return (
        abs(exponent) <= _MAX_EXPONENT
        and len(whole) + exponent <= _MAX_WHOLE_DIGITS
        and len(fraction or "") - exponent <= _MAX_FRACTION_DIGITS
    )


def _clean_token(token: re.Match[str]) -> str:
    text = token[0]
    if text[0] == '"':
        return _ESCAPES.sub(_clean_escape, text) if _SUSPECT_ESCAPE.search(text) else text
    return text if _fits(text) else f'"{text}"'


def _clean_escape(escape: re.Match[str]) -> str:
    return "\\ufffd" if escape["bad"] else escape[0]
