"""What arrives as the body of a webhook, read as JSON that Postgres can hold."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
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
_END_OF_BODY_KEY = '_body"'
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
_KEYS = re.compile(rf"({_STRING})[ \t\r\n]*:[ \t\r\n]*|{_STRING}")
_BODY_NAMES = frozenset({"html_body", "text_body", "raw_body", "email_body"})
_STRIPPED = re.compile(r'\{"length": ?[0-9]+, ?"sha256": ?"[0-9a-f]{64}"\}')
# Nobody who only means to send JSON writes a letter or a low line of ASCII so.
_SPELLED_LETTER = re.compile(r"\\u00(?:5[fF]|[67])")
# Numbers stay text: Python refuses to convert the longest.
_VALUES = json.JSONDecoder(parse_int=str, parse_float=str)
_NUMBER = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)0*([0-9]+))?")


class NotJson(ValueError):
    """The body cannot be read. ``reason`` is one line that quotes nothing of it; ``line`` and ``column`` say where."""

    def __init__(self, what: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(what)
        self._what = what
        self._line = line
        self._column = column

    @property
    def reason(self) -> str:
        """What is wrong, and where."""
        return self._what if self._line is None else f"{self._what} at line {self._line}, column {self._column}"

    @property
    def reason_in_line(self) -> str:
        """The same of a body that is one line of a file: only that file's lines have numbers."""
        return self._what if self._line is None else f"{self._what} at column {self._column}"


@dataclass(frozen=True, slots=True)
class Body:
    """``text`` is JSON that jsonb holds; ``raw`` the bytes as they came, only where ``text`` or jsonb says less.

    Mail bodies are replaced in both, whatever else is kept.
    """

    text: str = field(repr=False)
    raw: bytes | None = field(default=None, repr=False)


def read_body(body: bytes, *, keep_bodies: bool = False) -> Body:
    """Read one JSON value of any kind: strict, UTF-8 with or without a byte order mark, nested at most 64 deep.

    What Postgres cannot hold is replaced: NUL characters and lone surrogates by U+FFFD, numbers beyond numeric by
    strings. Of a key that comes twice in one object jsonb keeps the last; the text has both. Mail bodies, wherever they
    stand, are replaced by their length and hash unless they are to be kept. Raises NotJson.
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
    if not keep_bodies and (stripped := _strip_bodies(text)) is not text:
        text = stripped
        body = (codecs.BOM_UTF8 if body.startswith(codecs.BOM_UTF8) else b"") + text.encode()
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
            raise NotJson(f"not JSON: {what}", line=error.lineno, column=error.colno) from None
        except RecursionError:
            raise NotJson(_TOO_DEEP) from None

    def _look_at_number(self, number: str) -> None:
        if not _HARMLESS_NUMBER.fullmatch(number):
            self.has_odd_number = True

    def _look_at_object(self, pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) != len(pairs):
            self.has_double_key = True


def _strip_bodies(text: str) -> str:
    """Valid JSON with its mail bodies replaced; not a byte of anything else is touched."""
    text = _strip_values(text, _find_bodies(text))
    if "\\" not in text or not _SPELLED_LETTER.search(text):
        return text
    spelled = (key for key in _KEYS.finditer(text) if key[1] and "\\" in key[1])
    return _strip_values(text, (key.end() for key in spelled if json.loads(key[1]) in _BODY_NAMES))


def _find_bodies(text: str) -> Iterator[int]:
    """Where the values of plainly spelled body keys begin. A regular expression would take three times as long."""
    end = text.find(_END_OF_BODY_KEY)
    while end >= 0:
        begin = text.rfind('"', 0, end)
        colon = _COLON.match(text, end + len(_END_OF_BODY_KEY))
        # A key's first quote has no backslash before it, as one inside a string has.
        if colon and text[begin - 1] != "\\" and text[begin + 1 : end + len("_body")] in _BODY_NAMES:
            yield colon.end()
        end = text.find(_END_OF_BODY_KEY, end + 1)


def _strip_values(text: str, places: Iterable[int]) -> str:
    """A text in which the values that begin at these places are replaced, unless they are already."""
    parts: list[str] = []
    done = 0
    for place in places:
        if place < done or text[place] not in '"[{' or _STRIPPED.match(text, place):
            continue
        value, end = _VALUES.raw_decode(text, place)
        told = value if isinstance(value, str) else text[place:end]
        digest = sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
        parts += [text[done:place], f'{{"length": {len(told)}, "sha256": "{digest}"}}']
        done = end
    return "".join([*parts, text[done:]]) if parts else text


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
