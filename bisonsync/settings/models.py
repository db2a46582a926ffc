"""The settings as typed, frozen values with their defaults and their rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bisonsync.durations import parse_duration

from .secret_files import HEARTBEAT_JOBS
from .urls import split_url

PROVIDERS = {
    "Gmail": "Google",
    "Google": "Google",
    "Outlook": "Microsoft",
    "Microsoft": "Microsoft",
    "Yahoo": "Yahoo",
    "iCloud": "iCloud",
    "AOL": "AOL",
}
RESELLERS = {name: name for name in ("CheapInboxes", "Zapmail", "ScaledMail", "Mailr")}
# How often each job is meant to run; "health" misses those that do not.
SCHEDULE = {
    "poll-accounts": timedelta(minutes=3),
    "poll-campaigns": timedelta(minutes=10),
    "poll-warmup": timedelta(hours=1),
    "pull-events": timedelta(minutes=15),
    "snapshot-providers": timedelta(hours=1),
    "replay-webhooks": timedelta(minutes=1),
    "health": timedelta(minutes=1),
    "prune": timedelta(days=1),
}
# For how many days each table's rows are kept.
RETENTION = {
    "email_sync_logs": 30,
    "api_health_logs": 30,
    "data_validation_errors": 90,
    "sender_email_daily": 400,
    "provider_performance_history": 1825,
    "alert_episodes": 365,
    "webhook_delivery_log": 14,
    "webhook_event_keys": 70,
}
# The types of webhook events that change something here: a counter, a lead, an account, or when a list is read again.
WEBHOOK_EVENTS = (
    "email_sent",
    "lead_first_contacted",
    "lead_replied",
    "lead_interested",
    "lead_unsubscribed",
    "email_bounced",
    "email_opened",
    "manual_email_sent",
    "email_account_added",
    "email_account_removed",
    "email_account_disconnected",
    "email_account_reconnected",
    "warmup_disabled_receiving_bounces",
    "warmup_disabled_causing_bounces",
    "tag_attached",
    "tag_removed",
)
# So long is for ever, and a day so long ago still has a date.
LONGEST_RETENTION_DAYS = 36_500


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004  pydantic collects ValueError alone
    return value


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("is no duration: write it as 4m, 30s, 1h30m or 500ms")  # noqa: TRY004
    return parse_duration(value)


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0s")
    return value


def _interval(value: object) -> object:
    return value if value == "off" else _positive(_duration(value))


def _known(names: Iterable[str], what: str) -> Callable[[str], str]:
    known = sorted(names)

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"is no {what} that bisonsync knows: {', '.join(known)}")
        return value

    return check


def _timezone(value: str) -> str:
    from zoneinfo import ZoneInfo, available_timezones

    name = value.strip()
    try:
        # UTC needs no time zone database, which a small container may lack.
        _ = name == "UTC" or ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        known = available_timezones()
        if "Europe/London" not in known:
            raise ValueError(
                f"{name[:60]!r} cannot be looked up, for this machine has no time zone database:"
                " apt-get install tzdata, or pip install tzdata"
            ) from None
        raise ValueError(f"{name[:60]!r} is not a time zone{_like(name, known)}") from None
    return name


def _like(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ", as UTC or Europe/Berlin are"


def _base_url(value: str) -> str:
    parts = split_url(value)
    if "?" in value or "#" in value:
        raise ValueError("must not hold a ? or #: give the address of the instance alone")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    port = f":{parts.port}" if parts.port not in (None, usual) else ""
    prefix = parts.path.rstrip("/")
    while prefix.endswith("/api"):
        prefix = prefix.removesuffix("/api").rstrip("/")
    if not re.fullmatch(r"(?:/[\w.~%-]+)*", prefix, re.ASCII):
        raise ValueError("has a path that no instance has: give its address as far as /api")
    return f"{parts.scheme}://{host}{port}{prefix}"


def _public_url(value: str) -> str:
    if "@" in value:
        raise ValueError("must not hold a user name or password: the secret of each hook is all that lets one in")
    try:
        parts = split_url(value)
    except ValueError as error:
        raise ValueError(str(error).replace("send the key unencrypted", "show every hook's secret")) from None
    if "?" in value or "#" in value:
        raise ValueError("must not hold a ? or #: give the address alone")
    prefix = parts.path.rstrip("/")
    if not re.fullmatch(r"(?:/[\w.~-]+)*", prefix, re.ASCII):
        raise ValueError("has a path that cannot be used: letters, digits, - . _ ~ and / are")
    if prefix.endswith("/hooks"):
        raise ValueError("must end before /hooks: bisonsync adds /hooks/SECRET to it")
    return f"{parts.scheme}://{parts.netloc.lower()}{prefix}"


def _event_type(value: str) -> str:
    name = value.strip().lower()
    if not re.fullmatch(r"[a-z0-9_]{1,100}", name, re.ASCII):
        raise ValueError("is no type of event: write it as email_sent")
    return name


def _once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _header_value(secret: SecretStr) -> SecretStr:
    key = secret.get_secret_value().strip()
    if not key:
        raise ValueError("is empty")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ValueError("holds a blank, a line break or a letter that no key has: was it pasted whole, and alone?")
    return SecretStr(key)


def _secret_url(secret: SecretStr) -> SecretStr:
    split_url(secret.get_secret_value())
    return SecretStr(secret.get_secret_value().strip())


def _not_empty(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("is empty")
    return SecretStr(secret.get_secret_value().strip())


def _hook_secret(secret: SecretStr) -> SecretStr:
    secret = _not_empty(secret)
    if re.search(r"[/\\\s]|^\.{1,2}$", secret.get_secret_value()):
        raise ValueError("cannot be one part of an address: take letters, digits, - and _")
    return secret


def _own_secrets(secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
    owners: dict[str, str] = {}
    for name, secret in secrets.items():
        other = owners.setdefault(secret.get_secret_value(), name)
        if other != name:
            raise ValueError(f"{other} and {name} have the same secret: each needs one of its own")
    return secrets


def _pattern(pattern: str, message: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(message)
        return value

    return check


Duration = Annotated[timedelta, BeforeValidator(_duration)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
Whole = Annotated[int, BeforeValidator(_not_a_boolean)]
Count = Annotated[Whole, Field(ge=1)]
Share = Annotated[float, BeforeValidator(_not_a_boolean), Field(ge=0, le=1, allow_inf_nan=False)]
Money = Annotated[Decimal, BeforeValidator(_not_a_boolean), Field(ge=0)]
Timezone = Annotated[str, AfterValidator(_timezone)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
ApiKey = Annotated[SecretStr, AfterValidator(_header_value)]
InstanceName = Annotated[
    str, AfterValidator(_pattern("[a-z0-9_-]+", "an instance's name may hold letters, digits, _ and - only"))
]
FieldName = Annotated[Text, AfterValidator(_pattern(r"[^\x00-\x1f]+", "is not the name of a field"))]
WorkspaceName = Annotated[
    str, AfterValidator(_pattern(r"[a-z0-9_-]+/[1-9]\d*", 'must be written "INSTANCE/WORKSPACE-ID"'))
]

Interval = Annotated[timedelta | Literal["off"], BeforeValidator(_interval)]

_STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Section(BaseModel):
    """A table of the configuration file: frozen, and without unknown keys."""

    model_config = _STRICT


class Workspace(Section):
    """A workspace whose token stands in the settings instead of the database."""

    api_key: ApiKey


class Instance(Section):
    """One Email Bison host. ``base_url`` has no trailing slash and no ``/api``; ``api_key`` is the super-admin's.

    ``former_urls``: other addresses that the host calls itself by in its webhooks, or did.
    """

    base_url: Annotated[str, AfterValidator(_base_url)]
    former_urls: list[Annotated[str, AfterValidator(_base_url)]] = []
    api_key: ApiKey | None = None
    requests_per_minute: Count = 1500
    reserve: Annotated[Share, Field(le=0.9)] = 0.1
    concurrency: Annotated[Whole, Field(ge=1, le=64)] = 10
    stats_timezone: Timezone = "UTC"
    allow_switch: bool = False
    workspaces: dict[Annotated[int, Field(ge=1)], Workspace] = {}


def _apart(instances: dict[str, Instance]) -> dict[str, Instance]:
    homes = {instance.base_url: name for name, instance in instances.items()}
    for name, instance in instances.items():
        for url in instance.former_urls:
            if homes.get(url, name) != name:
                raise ValueError(
                    f"former_urls of {name} names {url}, which is the base_url of {homes[url]}:"
                    f" take it out, for what comes from there belongs to {homes[url]}"
                )
    return instances


class Polling(Section):
    """How long to wait for, how often to try, and what to refuse."""

    deadline: PositiveDuration = timedelta(minutes=15)
    workspace_deadline_per_1000: PositiveDuration = timedelta(seconds=60)
    workspace_deadline_min: PositiveDuration = timedelta(seconds=45)
    connect_timeout: PositiveDuration = timedelta(seconds=5)
    read_timeout: PositiveDuration = timedelta(seconds=30)
    retry_attempts: Count = 5
    max_shrink: Share = 0.2
    max_shrink_accounts: Annotated[Whole, Field(ge=0)] = 5
    shrink_confirm_after: Duration = timedelta(minutes=30)
    failures_before_giving_up: Count = 5
    lease_ttl: PositiveDuration = timedelta(seconds=60)
    interval: PositiveDuration = timedelta(minutes=3)
    ignore_fields: Annotated[list[FieldName], AfterValidator(_once)] = []


class Price(Section):
    """What an account costs and is meant to send. An absent provider or reseller matches every one."""

    provider: Text | None = None
    reseller: Text | None = None
    price: Money | None = None
    volume_per_account: Money | None = None


class Alerts(Section):
    """Where messages go, and after how many observations.

    ``channels``: further Slack webhooks by name; client_registry.slack_webhook_url_ref names the one of a client.
    ``thresholds``: check, then threshold, as the README lists them.
    """

    slack_webhook_url: Annotated[SecretStr, AfterValidator(_secret_url)] | None = None
    channels: dict[Text, Annotated[SecretStr, AfterValidator(_secret_url)]] = {}
    after: Count = 2
    close_after: Count = 2
    reminder: PositiveDuration = timedelta(hours=4)
    thresholds: dict[str, dict[str, str | int | float]] = {}


class Access(Section):
    """Who may read the dashboards besides their owner: a role, or a list of user ids."""

    readers: Text | list[Text] = []


class Webhooks(Section):
    """Where deliveries arrive, of which events, and whether mail bodies are kept.

    ``public_url`` is the address under which the platform reaches the receiver, without ``/hooks``; ``events`` are the
    types that ``webhooks ensure`` subscribes to; ``secrets`` are hook secrets by ``INSTANCE/WORKSPACE-ID``.
    """

    public_url: Annotated[str, AfterValidator(_public_url)] | None = None
    events: Annotated[list[Annotated[str, AfterValidator(_event_type)]], Field(min_length=1), AfterValidator(_once)] = (
        list(WEBHOOK_EVENTS)
    )
    secrets: Annotated[
        dict[WorkspaceName, Annotated[SecretStr, AfterValidator(_hook_secret)]], AfterValidator(_own_secrets)
    ] = {}
    store_bodies: bool = False


class Settings(BaseSettings):
    """Everything an operator can set. Maps keep their order; the first match wins."""

    model_config = SettingsConfigDict(**_STRICT)

    database_url: SecretStr
    reporting_timezone: Timezone = "UTC"
    instances: Annotated[dict[InstanceName, Instance], AfterValidator(_apart)] = {}
    polling: Polling = Polling()
    providers: dict[Text, Text] = PROVIDERS
    resellers: dict[Text, Text] = RESELLERS
    prices: list[Price] = []
    schedule: dict[Annotated[str, AfterValidator(_known(SCHEDULE, "scheduled job"))], Interval] = {}
    retention: dict[Annotated[str, AfterValidator(_known(RETENTION, "table with a retention"))], Count] = {}
    alerts: Alerts = Alerts()
    heartbeats: dict[
        Annotated[str, AfterValidator(_known(HEARTBEAT_JOBS, "job with a dead-man ping"))],
        Annotated[SecretStr, AfterValidator(_secret_url)],
    ] = {}
    access: Access = Access()
    webhooks: Webhooks = Webhooks()

    @property
    def intervals(self) -> dict[str, timedelta]:
        """How often each job is meant to run, without those that are switched off."""
        given = {**SCHEDULE, "poll-accounts": self.polling.interval, **self.schedule}
        return {job: every for job, every in given.items() if isinstance(every, timedelta)}

    @property
    def retention_days(self) -> dict[str, int]:
        """For how many days each table's rows are kept."""
        return {name: min(days, LONGEST_RETENTION_DAYS) for name, days in {**RETENTION, **self.retention}.items()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the merged tree of ``sources`` alone: the library's own sources know no origins."""
        return (init_settings,)
