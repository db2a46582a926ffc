"""What the API sends, read loosely: numbers may be strings, keys may be missing, unknown keys are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import Enum
from functools import cache
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core import core_schema as cs

BIGINT_MAX = 2**63 - 1
# Nothing that a host lists is older; what it writes for "no date" is.
FIRST_YEAR = 1971
# Nobody nests deeper; a value that does would break whoever walks it.
MAX_DEPTH = 64

_SECRET_NAME = re.compile(r"secret|token|password", re.IGNORECASE)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text as Postgres can hold it: NUL characters and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text) if _UNSTORABLE.search(text) else text


def clean_value(value: Any, *, depth: int = MAX_DEPTH) -> Any:
    """A JSON value without secrets and without what jsonb cannot hold; nested deeper than ``depth`` it is None."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict | list) and not depth:
        return None
    if isinstance(value, dict):
        return {
            clean_text(str(key)): clean_value(item, depth=depth - 1)
            for key, item in cast("dict[Any, Any]", value).items()
            if not _SECRET_NAME.search(str(key))
        }
    if isinstance(value, list):
        return [clean_value(item, depth=depth - 1) for item in cast("list[Any]", value)]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _first_of(*choices: CoreSchema, error_type: str, message: str) -> GetPydanticSchema:
    """A type whose first choice never leaves compiled code: a Python call per field would double a row's cost."""
    schema = cs.union_schema(
        list(choices), mode="left_to_right", custom_error_type=error_type, custom_error_message=message
    )
    return GetPydanticSchema(lambda _source, _handler: schema)


def _whole_number(*, minimum: int) -> GetPydanticSchema:
    """A number, or a string that is one; not a truth value."""
    number = cs.int_schema(ge=minimum, le=BIGINT_MAX)
    return _first_of(
        cs.int_schema(strict=True, ge=minimum, le=BIGINT_MAX),
        cs.chain_schema([cs.str_schema(strict=True), number]),
        cs.chain_schema([cs.float_schema(strict=True), number]),
        error_type="whole_number",
        message=f"Input should be a whole number from {minimum} to {BIGINT_MAX}",
    )


def _as_utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("too early or too late for a date") from error


def _as_first_moment(value: datetime) -> datetime:
    moment = _as_utc(value)
    if moment.year < FIRST_YEAR:
        raise PydanticCustomError("no_date", "nothing was made in {year}", {"year": f"{moment.year:04}"})
    return moment


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text


def _as_address(text: str) -> str:
    text = clean_text(text).strip()
    local, at, domain = text.rpartition("@")
    if not (local and at and domain):
        raise ValueError("not a mail address")
    return text.lower()


Text = Annotated[
    str,
    _first_of(
        cs.str_schema(strip_whitespace=True, pattern=r"^[^\x00]*$"),
        cs.no_info_after_validator_function(lambda text: clean_text(text).strip(), cs.str_schema()),
        error_type="text",
        message="Input should be text",
    ),
]
Address = Annotated[
    str,
    _first_of(
        cs.str_schema(strip_whitespace=True, to_lower=True, pattern=r"^[^\x00]+@[^\x00@]+$"),
        cs.no_info_after_validator_function(_as_address, cs.str_schema()),
        error_type="mail_address",
        message="Input should be a mail address",
    ),
]
Identifier = Annotated[int, _whole_number(minimum=1)]
Count = Annotated[int, _whole_number(minimum=0)]
Figure = Annotated[
    float,
    _first_of(
        cs.float_schema(strict=True, ge=0, allow_inf_nan=False),
        cs.chain_schema([cs.str_schema(strict=True), cs.float_schema(ge=0, allow_inf_nan=False)]),
        error_type="number",
        message="Input should be a number, at least 0",
    ),
]
Moment = Annotated[datetime, AfterValidator(_as_utc)]


class Mark(Enum):
    """What stands beside the type of a field of a list."""

    DECIDES = "a row in which it cannot be read is of no use; of other fields a row may lose any"
    NO_NULL = "null says as little as leaving it out: what was known stays"


@cache
def fields_marked(model: type[BaseModel], mark: Mark) -> frozenset[str]:
    """The fields of a model that bear the mark."""
    return frozenset(name for name, field in model.model_fields.items() if mark in field.metadata)


# A lifetime total.
Counter = Annotated[Count | None, Mark.DECIDES, Mark.NO_NULL]
Status = Annotated[Text | None, Mark.DECIDES]
MadeAt = Annotated[Annotated[datetime, AfterValidator(_as_first_moment)] | None, Mark.NO_NULL]


def _or_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """For what decides nothing: a value that cannot be read is as one that is missing."""
    try:
        return read(value)
    except ValidationError:
        return None


def _text_or_empty(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    return _or_none(value, read) or ""


# A name is shown; whose it is, an id tells.
Label = Annotated[Text, WrapValidator(_text_or_empty)]


class Tag(BaseModel):
    """A label of a sender email or campaign; names are unique per workspace, ids differ between workspaces."""

    model_config = ConfigDict(frozen=True)

    id: Identifier | None = None
    name: Text
    default: bool | None = None


Tags = Annotated[list[Tag] | None, Mark.NO_NULL]


class ListRow(BaseModel):
    """What every row of a list has; fields that no model knows are kept beside the others."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: Annotated[Identifier, Mark.DECIDES]


class SenderEmail(ListRow):
    """A mailbox. Counters are lifetime totals; a counter that is missing is None, never 0.

    What decides something is whose row it is, whether it works, and what is counted.
    """

    name: Text | None = None
    email: Annotated[Address, Mark.DECIDES]
    imap_server: Text | None = None
    smtp_server: Text | None = None
    daily_limit: Count | None = None
    type: Text | None = None
    status: Status = None
    warmup_enabled: bool | None = None
    emails_sent_count: Counter = None
    total_replied_count: Counter = None
    total_opened_count: Counter = None
    unsubscribed_count: Counter = None
    bounced_count: Counter = None
    unique_replied_count: Counter = None
    unique_opened_count: Counter = None
    total_leads_contacted_count: Counter = None
    interested_leads_count: Counter = None
    created_at: MadeAt = None
    tags: Tags = None


class Campaign(ListRow):
    """A campaign. Counters are lifetime totals; routes and versions differ in which of the other fields they send."""

    uuid: Text | None = None
    sequence_id: Identifier | None = None
    name: Text | None = None
    type: Text | None = None
    status: Status = None
    completion_percentage: Figure | None = None
    emails_sent: Counter = None
    opened: Counter = None
    unique_opens: Counter = None
    replied: Counter = None
    unique_replies: Counter = None
    bounced: Counter = None
    unsubscribed: Counter = None
    interested: Counter = None
    total_leads_contacted: Counter = None
    total_leads: Counter = None
    max_emails_per_day: Count | None = None
    max_new_leads_per_day: Count | None = None
    daily_max_sends_per_receiving_domain: Count | None = None
    plain_text: bool | None = None
    open_tracking: bool | None = None
    sequence_prioritization: Text | None = None
    can_unsubscribe: bool | None = None
    unsubscribe_text: Text | None = None
    include_auto_replies_in_stats: bool | None = None
    created_at: MadeAt = None
    tags: Tags = None


# A figure of the days that were asked for: the one of other days does not stand for it where it is missing.
WindowCount = Annotated[Count | None, Mark.DECIDES]


class SenderEmailWarmup(ListRow):
    """How the warm-up of a mailbox went on the days that were asked for; ``id`` is the sender email's."""

    warmup_score: Annotated[Figure | None, Mark.DECIDES] = None
    warmup_emails_sent: WindowCount = None
    warmup_replies_received: WindowCount = None
    warmup_emails_saved_from_spam: WindowCount = None
    warmup_bounces_received_count: WindowCount = None
    warmup_bounces_caused_count: WindowCount = None
    warmup_disabled_for_bouncing_count: WindowCount = None
    warmup_daily_limit: Count | None = None
    warmup_enabled: bool | None = None


def _by_day(pairs: Any) -> Any:
    """A chart's pairs of day and count as a mapping; a day that comes twice is not to be trusted."""
    if not isinstance(pairs, list):
        raise ValueError("not a list of days")  # noqa: TRY004  pydantic collects ValueError alone
    days: dict[Any, Any] = {}
    for pair in cast("list[Any]", pairs):
        if not isinstance(pair, list) or len(cast("list[Any]", pair)) != 2:
            raise ValueError("not a pair of day and count")
        day, count = cast("list[Any]", pair)
        if not isinstance(day, str) or day in days:
            raise ValueError("a day comes twice, or is none")
        days[day] = count
    return days


PerDay = Annotated[Mapping[date, Count], BeforeValidator(_by_day)]


class DailyStats(BaseModel):
    """Numbers per day, read from a list of labelled series in any order; labels that nobody asked for are ignored.

    A series that was not sent is None, and a day that is missing from one is not known: neither is 0.
    """

    model_config = ConfigDict(frozen=True)

    sent: PerDay | None = None
    replied: PerDay | None = None
    bounced: PerDay | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_label(cls, value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError("not a list of series")  # noqa: TRY004  pydantic collects ValueError alone
        found: dict[str, Any] = {}
        for raw in cast("list[Any]", value):
            given = cast("dict[str, Any]", raw).get("label") if isinstance(raw, dict) else None
            label = str(given or "").strip().lower()
            if label not in cls.model_fields:
                continue
            if label in found:
                raise ValueError(f"{label} comes twice")
            found[label] = cast("dict[str, Any]", raw).get("dates")
        return found


class Workspace(BaseModel):
    """A workspace. Its name is free text and not unique: the id is the identity.

    Other fields are not kept: newer hosts put the secret of its webhooks among them.
    """

    model_config = ConfigDict(frozen=True)

    id: Identifier
    name: Label = ""

    @property
    def shown(self) -> str:
        """Its name as people read it, also where the host gives none."""
        return self.name or f"workspace {self.id}"


class MintedToken(BaseModel):
    """The answer to making a token; ``plain_text_token`` is shown this once. Other fields are not kept."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[Identifier | None, WrapValidator(_or_none)] = None
    name: Annotated[Text | None, WrapValidator(_or_none)] = None
    plain_text_token: Annotated[Text, AfterValidator(_not_empty)] = Field(repr=False)


def _event_names(value: Any) -> Any:
    """Types of events, given as ids or as objects with one, in lower case."""
    if not isinstance(value, list):
        raise ValueError("not a list of types")  # noqa: TRY004  pydantic collects ValueError alone
    names = [
        cast("dict[str, Any]", raw).get("id") if isinstance(raw, dict) else raw for raw in cast("list[Any]", value)
    ]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a type is no text")
    return tuple(str(name).strip().lower() for name in names)


EventNames = Annotated[tuple[str, ...], BeforeValidator(_event_names)]


class Webhook(BaseModel):
    """A subscription: to which address the events of which types go. Who knows the address may deliver to it."""

    model_config = ConfigDict(frozen=True)

    id: Identifier
    name: Label = ""
    url: Annotated[Text, AfterValidator(_not_empty)] = Field(repr=False)
    events: EventNames = ()


class StoredEvent(BaseModel):
    """A row of a host's event log: when it was stored, and the event as it is delivered.

    What the host tells of its deliveries is not kept: their addresses hold secrets. A row that is no such thing has
    all of itself, but for those, as ``payload``.
    """

    model_config = ConfigDict(frozen=True)

    created_at: Annotated[Moment | None, WrapValidator(_or_none)] = None
    payload: Any = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _of_any_shape(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {"payload": value}
        row = {key: item for key, item in cast("dict[str, Any]", value).items() if key != "webhook_deliveries"}
        return {"created_at": row.get("created_at"), "payload": row.get("payload", row)}


class EventTypes(BaseModel):
    """The types of events that a host can deliver."""

    model_config = ConfigDict(frozen=True)

    ids: EventNames
