"""What an answer means: a value, a fault that may pass, or a refusal that stays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from bisonsync.api.http import Answer
from bisonsync.api.quoting import quote
from bisonsync.errors import ApiRefused, CredentialsError
from bisonsync.keys import AdminKeyName
from bisonsync.models import Count
from bisonsync.retry import Transient

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Document = dict[str, Any]

_COUNT: TypeAdapter[int] = TypeAdapter(Count)
TRANSIENT_STATUS = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, for messages. ``who`` names the token; ``hidden`` are secrets that were sent in the body."""

    instance: str
    method: str
    path: str
    who: str
    token: str = field(repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may show."""
        return (self.token, *self.hidden)

    def __str__(self) -> str:
        return f"instance {self.instance}: {self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. ``total`` and ``last_page`` are None where the answer has none (cursor pages, bare lists).

    ``is_by_cursor``: the answer says which page comes next, or that none does. ``has_next``: it links to a next page.
    """

    rows: list[Any]
    total: int | None
    last_page: int | None
    next_cursor: str | None
    is_by_cursor: bool = False
    has_next: bool = False


class WrongShapeError(Exception):
    """The answer is JSON, but not what was asked for."""


def judge(answer: Answer, question: Question, read: Callable[[Document], T], *, now: datetime) -> T:
    """The value that ``read`` finds in a good answer.

    Raises Transient for an answer that may pass, CredentialsError for 401 and 403, ApiRefused for what stays.
    """
    if not 200 <= answer.status < 300:
        raise _fault(answer, question, now)
    try:
        parsed = _parse(answer.body)
    except (ValueError, RecursionError) as error:
        kind = "an HTML page" if answer.body.lstrip()[:1] == b"<" else "no JSON"
        raise Transient(f"HTTP {answer.status} with {kind} instead of JSON") from error
    try:
        document = _as_object(parsed, "the answer")
        for part in (document, document.get("data")):
            _refuse_hidden_failure(part, question.secrets)
        return read(document)
    except WrongShapeError as error:
        raise Transient(f"HTTP {answer.status} with JSON of another shape: {error}") from error


def read_page(document: Document) -> Page:
    """A page of any list. Raises WrongShapeError."""
    rows = document.get("data")
    if not isinstance(rows, list):
        raise WrongShapeError("data is not a list")
    meta = document.get("meta")
    counts = cast("Document", meta) if isinstance(meta, dict) else {}
    cursor = counts.get("next_cursor")
    next_cursor = cursor if isinstance(cursor, str) and cursor else None
    last_page = _count(counts.get("last_page"), "last_page")
    links = document.get("links")
    following = cast("Document", links).get("next") if isinstance(links, dict) else None
    return Page(
        rows=cast("list[Any]", rows),
        total=_count(counts.get("total"), "total"),
        last_page=last_page,
        next_cursor=next_cursor,
        is_by_cursor=next_cursor is not None or ("next_cursor" in counts and last_page is None),
        has_next=bool(following),
    )


def read_model(model: type[M], value: Any) -> M:
    """The model of a part of an answer. Raises WrongShapeError."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join((model.__name__, *map(str, first["loc"])))
        raise WrongShapeError(f"{where}: {first['msg']}") from error


def read_part(document: Document, name: str) -> Document:
    """An object that stands in an answer under a name. Raises WrongShapeError."""
    return _as_object(document.get(name), name)


def read_rate(answer: Answer) -> tuple[int | None, int | None]:
    """Requests that the key may send a minute, and how many of them are left; None where the answer does not tell."""
    limit, remaining = (_digits(answer.headers.get(f"x-ratelimit-{name}", "")) for name in ("limit", "remaining"))
    return limit or None, remaining


def _digits(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


def retry_after_seconds(answer: Answer, now: datetime) -> float | None:
    """How long the answer asks us to wait, in its header (seconds or a date), else in its body; None: no help."""
    asked = _as_seconds(answer.headers.get("retry-after"), answer, now)
    if asked is not None:
        return asked
    try:
        return _as_seconds(_as_object(_parse(answer.body), "").get("retry_after"), answer, now)
    except (WrongShapeError, ValueError, RecursionError):
        return None


def _fault(answer: Answer, question: Question, now: datetime) -> Exception:
    status = answer.status
    if status in TRANSIENT_STATUS or status >= 500 or status < 200:
        return Transient(f"HTTP {status}", retry_after=retry_after_seconds(answer, now), rate_limited=status == 429)
    if status in (401, 403):
        return CredentialsError(
            f"instance {question.instance}: {question.who} was refused with HTTP {status} "
            f"at {question.method} {question.path}",
            hint=(
                "check api_key of the instance: it must be a super-admin's, and of this host"
                if isinstance(question.who, AdminKeyName)
                else "'bisonsync workspaces verify' checks all tokens, 'workspaces mint-tokens' replaces a refused one"
            ),
        )
    if status < 400:
        return ApiRefused(
            f"{question} answers with a redirect (HTTP {status}){_origin(answer, question.secrets)}",
            status=status,
            hint="base_url must be the API's own address, with https, as the API itself answers to it",
        )
    return ApiRefused(
        f"{question} was refused with HTTP {status}{_words(answer, question.secrets)}",
        status=status,
        hint="check that base_url is an Email Bison host" if status in (404, 405) else "see what the API says",
    )


def _parse(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        # The faster parser refuses lone surrogates, byte order marks, and numbers that Python does not convert.
        return json.loads(body, parse_int=_parse_int)


def _parse_int(digits: str) -> int | str:
    """A whole number; one too long for Python as its digits, so that it harms only the row that it is in."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _as_object(value: Any, name: str) -> Document:
    if not isinstance(value, dict):
        raise WrongShapeError(f"{name} is not an object")
    return cast("Document", value)


def _refuse_hidden_failure(part: Any, secrets: Sequence[str]) -> None:
    """``success: false`` comes with status 200: seen live, at the top or inside ``data``."""
    if isinstance(part, dict) and cast("Document", part).get("success") is False:
        said = quote(str(cast("Document", part).get("message") or "no reason given"), secrets=secrets)
        raise WrongShapeError(f"success is false: {said}")


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    try:
        count = _COUNT.validate_python(value)
    except ValidationError as error:
        raise WrongShapeError(f"meta.{name} is not a count") from error
    return count


def _as_seconds(value: Any, answer: Answer, now: datetime) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(str(value), answer, now)
    except OverflowError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def _seconds_until(date: str, answer: Answer, now: datetime) -> float | None:
    moment = _moment(date)
    # By the server's own clock where it tells it: ours may be wrong by more than the wait.
    since = _moment(answer.headers.get("date", "")) or now
    return None if moment is None else (moment - since).total_seconds()


def _moment(date: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _words(answer: Answer, secrets: Sequence[str]) -> str:
    """The API's own words; never the whole body, which may quote what was sent."""
    try:
        document: Mapping[str, Any] = _as_object(_parse(answer.body), "")
    except (WrongShapeError, ValueError, RecursionError):
        return ""
    inner = document.get("data")
    document = cast("Document", inner) if isinstance(inner, dict) else document
    text = quote(str(document.get("message") or document.get("error") or ""), secrets=secrets)
    return f": {text}" if text else ""


def _origin(answer: Answer, secrets: Sequence[str]) -> str:
    """Where a redirect leads, without path and credentials."""
    try:
        parts = urlsplit(answer.headers.get("location", ""))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    if not parts.scheme or not parts.hostname:
        return ""
    return f" to {quote(f'{parts.scheme}://{parts.hostname}{port}', secrets=secrets)}"
