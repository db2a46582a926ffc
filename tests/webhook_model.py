"""What webhooks must lead to, folded in plain Python from what happened; knows neither SQL nor payloads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import psycopg

Connection = psycopg.Connection[Any]
Tenant = tuple[str, int]
Fate = Literal["applied", "unknown_type", "too_old", "dead", "mismatch", "unknown_workspace", "test"]

COUNTED = {
    "email_sent": "emails_sent",
    "lead_replied": "replies",
    "lead_interested": "interested",
    "email_bounced": "bounced",
    "lead_unsubscribed": "unsubscribed",
}
COUNTERS = (*COUNTED.values(), "unique_replies")
TIMES = {
    "email_sent": "sent",
    "lead_first_contacted": "contacted",
    "email_opened": "opened",
    "lead_replied": "replied",
    "lead_interested": "interested",
    "email_bounced": "bounced",
    "lead_unsubscribed": "unsubscribed",
    "manual_email_sent": "manual_sent",
}
STRENGTH = ("unsubscribed", "bounced", "interested", "replied")
CONTACT = ("lead_email", "first_name", "last_name", "company", "title", "phone", "custom_variables")


@dataclass(frozen=True)
class Contact:
    """A lead as one event tells it; ``values`` in the order of CONTACT, as they are to be stored."""

    id: int
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Event:
    """One thing that happened, or that somebody sent. ``at``: None where its arrival tells when."""

    number: int
    fate: Fate
    tenant: Tenant | None
    kind: str
    at: datetime | None = None
    lead: Contact | None = None
    account: int | None = None
    is_connected: bool = True
    reply_uuid: str | None = None
    is_windowed: bool = False
    """Its body alone tells it from others, and only for ten minutes."""

    @property
    def final_statuses(self) -> tuple[str, str]:
        """The status of one of its deliveries in the end, and that of all others."""
        return {
            "applied": ("processed", "duplicate"),
            "unknown_type": ("ignored", "duplicate"),
            "too_old": ("ignored", "ignored"),
        }.get(self.fate, (self.fate, self.fate))  # type: ignore[return-value]


@dataclass(frozen=True)
class Legacy:
    """One call of increment_metric that names a workspace and a counter that there are."""

    tenant: Tenant
    metric: str
    amount: int
    at: datetime


@dataclass(frozen=True)
class Poll:
    """What a complete read of accounts left: by id whether connected, and since when removed."""

    at: datetime
    accounts: Mapping[int, tuple[bool, datetime | None]]


@dataclass
class Books:
    """The state that all deliveries together must lead to."""

    counters: dict[tuple[Tenant, date], dict[str, tuple[int, int, int]]] = field(
        default_factory=dict[tuple[Tenant, date], dict[str, tuple[int, int, int]]]
    )
    """By counter: its webhook part, of that what happened after as_of, and what is shown."""
    leads: dict[tuple[Tenant, int], dict[str, Any]] = field(default_factory=dict[tuple[Tenant, int], dict[str, Any]])
    accounts: dict[tuple[Tenant, int], dict[str, Any]] = field(default_factory=dict[tuple[Tenant, int], dict[str, Any]])


@dataclass(frozen=True)
class Setting:
    """What the rules need besides the events. ``polled``: as_of and the polled part of a workspace's month."""

    zone: ZoneInfo
    base_urls: Mapping[str, str]
    polls: Mapping[Tenant, Poll] = field(default_factory=dict[Tenant, Poll])
    polled: Mapping[tuple[Tenant, date], tuple[datetime, int]] = field(
        default_factory=dict[tuple[Tenant, date], tuple[datetime, int]]
    )


def fold(
    events: Iterable[Event], legacy: Iterable[Legacy], setting: Setting, received: Mapping[int, datetime]
) -> Books:
    """``events``: each once, in any order; ``received``: when those came that tell no time, by number."""
    happened = [(event.at or received[event.number], event) for event in events if event.fate == "applied"]
    return Books(_counters(happened, legacy, setting), _leads(happened, setting), _accounts(happened, setting))


def month_of(at: datetime, zone: ZoneInfo) -> date:
    return at.astimezone(zone).date().replace(day=1)


def _counters(
    happened: list[tuple[datetime, Event]], legacy: Iterable[Legacy], setting: Setting
) -> dict[tuple[Tenant, date], dict[str, tuple[int, int, int]]]:
    counted = [
        (event.tenant, at, COUNTED[event.kind], 1) for at, event in happened if event.tenant and event.kind in COUNTED
    ]
    counted += [(one.tenant, one.at, one.metric, one.amount) for one in legacy]
    whole: Counter[tuple[Tenant, date, str]] = Counter()
    after: Counter[tuple[Tenant, date, str]] = Counter()
    months = set(setting.polled)
    for tenant, at, metric, amount in counted:
        month = month_of(at, setting.zone)
        months.add((tenant, month))
        whole[tenant, month, metric] += amount
        if (tenant, month) in setting.polled and at > setting.polled[tenant, month][0]:
            after[tenant, month, metric] += amount
    return {
        (tenant, month): {metric: _shown(tenant, month, metric, whole, after, setting) for metric in COUNTERS}
        for tenant, month in months
    }


def _shown(
    tenant: Tenant, month: date, metric: str, whole: Counter[Any], after: Counter[Any], setting: Setting
) -> tuple[int, int, int]:
    sum_of_all, sum_after = whole[tenant, month, metric], after[tenant, month, metric]
    if (tenant, month) not in setting.polled:
        return sum_of_all, 0, sum_of_all
    polled = setting.polled[tenant, month][1]
    if metric == "unique_replies":
        # Events cannot tell them: what is polled is never added to.
        return sum_of_all, 0, polled
    return sum_of_all, sum_after, polled + sum_after


def _leads(happened: list[tuple[datetime, Event]], setting: Setting) -> dict[tuple[Tenant, int], dict[str, Any]]:
    of_lead: dict[tuple[Tenant, int], list[tuple[datetime, Event]]] = defaultdict(list)
    for at, event in happened:
        if event.lead is not None and event.tenant is not None:
            of_lead[event.tenant, event.lead.id].append((at, event))
    return {key: _lead(key[0], told, setting) for key, told in of_lead.items()}


def _lead(tenant: Tenant, told: list[tuple[datetime, Event]], setting: Setting) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for kind, name in TIMES.items():
        times = [at for at, event in told if event.kind == kind]
        made[f"first_{name}_at"], made[f"last_{name}_at"] = min(times, default=None), max(times, default=None)
    # The latest that has an address; without any, the latest.
    _, _, contact = max(
        ((event.lead.values[0] is not None, at, event.lead) for at, event in told if event.lead),
        key=lambda one: one[:2],
    )
    made |= dict(zip(CONTACT, contact.values, strict=True))
    replies = [
        (at, event.reply_uuid)
        for at, event in told
        if event.reply_uuid and event.kind in ("lead_replied", "lead_interested")
    ]
    made["conversation_url"] = f"{setting.base_urls[tenant[0]]}/inbox/replies/{max(replies)[1]}" if replies else None
    made["status"] = next(
        (status for status in STRENGTH if made[f"last_{status}_at"]),
        "contacted" if made["last_sent_at"] or made["last_contacted_at"] else "new",
    )
    return made


def _accounts(happened: list[tuple[datetime, Event]], setting: Setting) -> dict[tuple[Tenant, int], dict[str, Any]]:
    made: dict[tuple[Tenant, int], dict[str, Any]] = {
        (tenant, account): {
            "is_connected": is_connected,
            "status_as_of": poll.at,
            "removed_at": removed_at,
            "warmup_enabled": None,
        }
        for tenant, poll in setting.polls.items()
        for account, (is_connected, removed_at) in poll.accounts.items()
    }
    for at, event in sorted(happened, key=lambda one: one[0]):
        if event.account is None or event.tenant is None:
            continue
        if event.tenant in setting.polls and at < setting.polls[event.tenant].at:
            continue
        state = made.setdefault(
            (event.tenant, event.account),
            {"is_connected": event.is_connected, "status_as_of": None, "removed_at": None, "warmup_enabled": None},
        )
        match event.kind:
            case "email_account_added":
                state["removed_at"] = None
            case "email_account_removed":
                state["removed_at"] = at
            case "email_account_disconnected":
                state |= {"is_connected": False, "status_as_of": at}
            case "email_account_reconnected":
                state |= {"is_connected": True, "status_as_of": at}
            case _:
                state["warmup_enabled"] = False
    return made


def read_books(conn: Connection) -> Books:
    """What the database says, in the same form."""
    books = Books()
    columns = ", ".join(f"{m}_webhook, {f'{m}_after' if m != 'unique_replies' else 0}, {m}_mtd" for m in COUNTERS)
    for instance, workspace, month, *values in conn.execute(
        f"SELECT bison_instance, bison_workspace_id, metric_month, {columns} FROM client_metrics".encode()
    ):
        triples = zip(*[iter(values)] * 3, strict=True)
        books.counters[(instance, workspace), month] = dict(zip(COUNTERS, triples, strict=True))  # type: ignore[arg-type]
    times = [f"{end}_{name}_at" for name in TIMES.values() for end in ("first", "last")]
    names = [*times, *CONTACT, "conversation_url", "status"]
    for instance, workspace, lead, *values in conn.execute(
        f"SELECT bison_instance, bison_workspace_id, bison_lead_id, {', '.join(names)} FROM client_leads".encode()
    ):
        books.leads[(instance, workspace), lead] = dict(zip(names, values, strict=True))
    names = ["is_connected", "status_as_of", "removed_at", "warmup_enabled"]
    for instance, workspace, account, *values in conn.execute(
        "SELECT bison_instance, bison_workspace_id, bison_account_id,"
        " is_connected, status_as_of, removed_at, warmup_enabled FROM sender_emails_cache"
    ):
        books.accounts[(instance, workspace), account] = dict(zip(names, values, strict=True))
    return books


def differences(expected: Books, found: Books, limit: int = 10) -> list[str]:
    """Where two differ, in words; empty when they are the same."""
    said: list[str] = []
    nothing: dict[str, Any] = {}
    for what in ("counters", "leads", "accounts"):
        left: dict[Any, dict[str, Any]] = getattr(expected, what)
        right: dict[Any, dict[str, Any]] = getattr(found, what)
        for key in sorted(left.keys() | right.keys(), key=str):
            one, other = left.get(key, nothing), right.get(key, nothing)
            said += [
                f"{what} {key} {name}: expected {one.get(name, 'no row')}, found {other.get(name, 'no row')}"
                for name in sorted(one.keys() | other.keys())
                if (name in one, one.get(name)) != (name in other, other.get(name))
            ]
    return said[:limit] + ([f"and {len(said) - limit} more"] if len(said) > limit else [])


def metrics_unlike_their_keys(conn: Connection) -> list[Any]:
    """The months whose counters are not the fold of webhook_event_keys; empty when all is well."""
    sums = ", ".join(f"coalesce(sum(amount) FILTER (WHERE metric = '{metric}'), 0) AS {metric}" for metric in COUNTERS)
    stored = ", ".join(f"m.{metric}_webhook" for metric in COUNTERS)
    folded = ", ".join(f"coalesce(f.{metric}, 0)" for metric in COUNTERS)
    return conn.execute(
        f"""
        SELECT *
        FROM client_metrics AS m
        FULL JOIN (
            SELECT bison_instance, bison_workspace_id,
                date_trunc('month', occurred_at AT TIME ZONE s.reporting_timezone)::date AS metric_month, {sums}
            FROM webhook_event_keys, bisonsync_private.webhook_settings AS s
            WHERE metric IS NOT NULL
            GROUP BY 1, 2, 3
        ) AS f USING (bison_instance, bison_workspace_id, metric_month)
        WHERE ({stored}) IS DISTINCT FROM ({folded})
        """.encode()
    ).fetchall()
