"""What the API sends, read loosely: numbers may be strings, keys may be missing, unknown keys are kept."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_SECRET_NAME = re.compile(r"secret|token|password", re.IGNORECASE)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
BIGINT_MAX = 2**63 - 1


def clean_text(text: str) -> str:
    """The text as Postgres can hold it: NUL characters and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text) if _UNSTORABLE.search(text) else text


def clean_value(value: Any) -> Any:
    """A JSON value without secrets and without what jsonb cannot hold."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        return {clean_text(str(k)): clean_value(v) for k, v in items.items() if not _SECRET_NAME.search(str(k))}
    if isinstance(value, list):
        return [clean_value(item) for item in cast("list[Any]", value)]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")  # noqa: TRY004  # pydantic wants ValueError
    return value.strip() if isinstance(value, str) else value


def _as_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _has_at(value: str) -> str:
    local, at, domain = value.rpartition("@")
    if not (local and at and domain):
        raise ValueError("not a mail address")
    return value.lower()


Text = Annotated[str, AfterValidator(lambda text: clean_text(text).strip())]
Address = Annotated[str, AfterValidator(lambda text: _has_at(clean_text(text).strip()))]
Identifier = Annotated[int, BeforeValidator(_not_bool), Field(gt=0, le=BIGINT_MAX)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=0, le=BIGINT_MAX)]
Moment = Annotated[datetime, AfterValidator(_as_utc)]


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Tag(_Loose):
    """A label of a sender email; names are unique per workspace, ids differ between workspaces."""

    id: Identifier | None = None
    name: Text
    default: bool | None = None


class SenderEmail(_Loose):
    """A mailbox. Counters are lifetime totals; a counter that is missing is None, never 0."""

    id: Identifier
    name: Text | None = None
    email: Address
    imap_server: Text | None = None
    smtp_server: Text | None = None
    daily_limit: Count | None = None
    type: Text | None = None
    status: Text | None = None
    warmup_enabled: bool | None = None
    emails_sent_count: Count | None = None
    total_replied_count: Count | None = None
    total_opened_count: Count | None = None
    unsubscribed_count: Count | None = None
    bounced_count: Count | None = None
    unique_replied_count: Count | None = None
    unique_opened_count: Count | None = None
    total_leads_contacted_count: Count | None = None
    interested_leads_count: Count | None = None
    created_at: Moment | None = None
    tags: list[Tag] | None = None


class Workspace(_Loose):
    """A workspace. Its name is free text and not unique: the id is the identity."""

    id: Identifier
    name: Text = ""


class MintedToken(_Loose):
    """The answer to making a token; ``plain_text_token`` is shown this once."""

    id: Identifier | None = None
    name: Text | None = None
    plain_text_token: Text = Field(min_length=1, repr=False)
