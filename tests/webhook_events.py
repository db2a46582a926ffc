"""Draws single events of webhooks, and spells their deliveries in every way in which they can come."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from webhook_model import Contact, Event, Poll, Tenant
from webhook_poison import OF_NO_WORKSPACE, POISON

BASE_URLS = {"east": "https://east.example.com", "west": "https://west.example.com:8443"}
NAMES: dict[Tenant, str] = {("east", 1): "Acme", ("west", 1): "Acme West", ("east", 2): "Brook & Söhne"}
LATE: Tenant = ("west", 9)
NEVER: Tenant = ("east", 404)
TENANTS = tuple(NAMES)

SENDS = ("email_sent", "lead_first_contacted", "email_opened", "lead_unsubscribed")
REPLIES = ("lead_replied", "lead_interested", "email_bounced", "untracked_reply_received", "manual_email_sent")
ACCOUNTS = ("email_account_added", "email_account_removed", "email_account_disconnected", "email_account_reconnected")
WARMUP = ("warmup_disabled_receiving_bounces", "warmup_disabled_causing_bounces")
TAGS = ("tag_attached", "tag_removed")
UNKNOWN = ("email_send_failed", "blacklisted_domain_added", "lead_abducted", "campaign.paused")
MIX = {
    "email_sent": 55, "lead_first_contacted": 8, "email_opened": 5, "lead_unsubscribed": 2, "lead_replied": 8,
    "lead_interested": 3, "email_bounced": 4, "untracked_reply_received": 2, "manual_email_sent": 2,
    **dict.fromkeys(ACCOUNTS, 1.2), **dict.fromkeys(WARMUP, 0.5), **dict.fromkeys(TAGS, 0.6),
    **dict.fromkeys(UNKNOWN, 0.4),
}  # fmt: skip
FATES = {
    "applied": 92.0, "late_workspace": 1.5, "unknown_workspace": 0.8, "mismatch": 0.8, "test": 0.6, "too_old": 0.8,
    "future": 0.6, "boundary": 1.0, "dead": 2.0,
}  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One delivery: the bytes of the body, and whose address it goes to (None: to none that tells)."""

    event: Event
    body: bytes
    hook: Tenant | None
    is_test: bool = False


@dataclass(frozen=True)
class Draft:
    """An event, and what makes the next spelling of its delivery."""

    event: Event
    send: Callable[[], Sent]


class Maker:
    def __init__(
        self, rng: random.Random, count: int, zone: ZoneInfo, now: datetime, base_urls: Mapping[str, str]
    ) -> None:
        self.rng = rng
        self.base_urls = base_urls
        self.now = now
        self.zone = zone
        self._numbers = itertools.count(1)
        self._ids: dict[tuple[str, Tenant], Any] = {}
        self._leads = max(10, count // 15)
        self._accounts = max(8, count // 500)
        read_at = now - timedelta(days=25)
        gone = read_at - timedelta(days=5)
        self.polled: tuple[Tenant, Poll] = (
            ("east", 1),
            Poll(read_at, {n: (n % 3 > 0, gone if n % 4 == 0 else None) for n in range(1, self._accounts)}),
        )

    def draft(self) -> Draft:
        fate = self.rng.choices(list(FATES), list(FATES.values()))[0]
        number = next(self._numbers)
        if fate == "dead":
            return self._poison(number)
        kind = self.rng.choices(list(MIX), list(MIX.values()))[0]
        tenant = (
            LATE if fate == "late_workspace" else NEVER if fate == "unknown_workspace" else self.rng.choice(TENANTS)
        )
        at: datetime | None = self.now - timedelta(microseconds=self.rng.randint(10**9, 65 * 86_400 * 10**6))
        if fate == "too_old":
            kind, at = self.rng.choice(SENDS), self.now - timedelta(days=self.rng.randint(75, 400))
        elif fate == "boundary":
            kind, at = self.rng.choice([*SENDS, *REPLIES]), self._near_a_boundary()
        elif fate == "future":
            kind, at = self.rng.choice(SENDS), None
        elif kind in TAGS or (kind in (*SENDS, *WARMUP) and self.rng.random() < 0.03):
            at = None
        return _Telling(self, number, fate, tenant, kind, at).draft()

    def next_id(self, kind: str, tenant: Tenant) -> int:
        """Every kind of id of every type begins with 1 in every workspace: the same number is often another event."""
        return next(self._ids.setdefault((kind, tenant), itertools.count(1)))

    def a_lead(self) -> int:
        return self.rng.randint(1, self._leads)

    def an_account(self) -> int:
        return self.rng.randint(1, self._accounts)

    def _near_a_boundary(self) -> datetime:
        """At, just before, or within hours of the beginning of a month in the reporting zone."""
        first = self.now.astimezone(self.zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        first = self.rng.choice([first, (first - timedelta(days=1)).replace(day=1)])
        moved = self.rng.choice([0, -1, 1, self.rng.randint(-(10**10), 10**10)])
        return min(first.astimezone(UTC) + timedelta(microseconds=moved), self.now)

    def _poison(self, number: int) -> Draft:
        make = POISON[number % len(POISON)]
        event = Event(number, "dead", None, "")
        tenant = self.rng.choice(TENANTS)

        def send() -> Sent:
            body = make(f"mark-{number}-", self.base_urls[tenant[0]], tenant[1], self.next_id("poison", tenant))
            # With another workspace's number it is a mismatch first of all.
            hook = tenant if number % len(POISON) < len(POISON) - OF_NO_WORKSPACE and self.rng.random() < 0.5 else None
            return Sent(event, self.spell(body), hook)

        return Draft(event, send)

    def spell(self, payload: Any) -> bytes:
        """The payload as JSON: keys in any order, spaces or none, characters escaped or not."""
        text = json.dumps(
            _shuffled(payload, self.rng),
            ensure_ascii="\\ud" in ascii(payload) or self.rng.random() < 0.5,
            separators=self.rng.choice([(",", ":"), (", ", ": ")]),
        )
        return text.replace('"@@huge@@"', "1e999999").replace('"@@long@@"', "-" + "9" * 140_000).encode()

    def wrap(self, payload: dict[str, Any]) -> dict[str, Any]:
        number = self.rng.randint(1, 10**6)
        return self.rng.choice(
            [
                payload,
                payload,
                {"data": payload},
                {"payload": payload},
                {"id": number, "uuid": str(uuid.UUID(int=number)), "payload": payload, "webhook_deliveries": []},
            ]
        )


@dataclass
class _Telling:
    """One event in the making: what it means, and how its deliveries are spelled."""

    maker: Maker
    number: int
    fate: str
    tenant: Tenant
    kind: str
    at: datetime | None

    def draft(self) -> Draft:
        rng = self.maker.rng
        self.rng = rng
        self.has_ids = rng.random() < 0.97
        self.is_timeless = self.at is None and self.fate != "future"
        data = self._data()
        data["mark"] = f"mark-{self.number}-"
        instance_url: str | None = self.maker.base_urls[self.tenant[0]]
        workspace: int = self.tenant[1]
        self.hook: Tenant | None = None
        self.needs_hook = self.fate == "mismatch"
        if self.fate == "mismatch":
            others = [tenant for tenant in TENANTS if tenant != self.tenant]
            self.hook = rng.choice(others)
            if rng.random() < 0.3:
                self.hook, instance_url = self.tenant, "https://elsewhere.example.net"
        elif self.fate == "unknown_workspace":
            if rng.random() < 0.3:
                # In both instances there is a workspace 1, and nothing tells which is meant.
                instance_url, workspace = None, 1
            elif rng.random() < 0.5:
                instance_url = "https://elsewhere.example.net"
        elif self.fate != "late_workspace" and rng.random() < 0.1:
            instance_url = None
            self.needs_hook = workspace == 1
        self.instance_url, self.workspace = instance_url, workspace
        if self.fate == "test" and rng.random() < 0.5 and self.kind in SENDS:
            # The vendor's published sample, sent to a workspace's own address.
            data["sender_email"]["created_at"] = "2024-08-02T06:06:40.000000Z"
            data["campaign_event"] = {"id": 6, "type": "sent", "created_at": "2024-08-02T06:09:35.000000Z"}
            self.is_test_address = False
        else:
            self.is_test_address = self.fate == "test"
        self.data = data
        return Draft(self._event(), self.send)

    def send(self) -> Sent:
        rng = self.rng
        spelled: dict[str, Any] = {"type": self._spell_type()}
        if rng.random() < 0.9:
            spelled["name"] = rng.choice(["Lead Replied", "Contact Replied", "Email Sent", ""])
        if rng.random() < 0.9:
            spelled["workspace_name"] = rng.choice(["Acme", " Acme ", "Renamed Ltd"])
        workspace: int | str = self.workspace
        url = self.instance_url
        if self.has_ids and self.kind not in TAGS and self.kind not in UNKNOWN:
            if url is not None:
                url = rng.choice([url, url + "/", url + "/api", url.upper()])
            workspace = rng.choice([workspace, workspace, str(workspace)])
        if url is not None:
            spelled["instance_url"] = url
        spelled["workspace_id"] = workspace
        hook = self.hook
        if hook is None and self.fate in ("applied", "boundary", "future", "too_old", "test"):
            hook = self.tenant if self.needs_hook or self.is_test_address or rng.random() < 0.5 else None
        payload = self.maker.wrap({"event": spelled, "data": self._spell_ids(self.data)})
        return Sent(self.event, self.maker.spell(payload), hook, self.is_test_address)

    def _spell_type(self) -> str:
        kind = self.kind
        return self.rng.choice([kind.upper(), kind.upper(), kind.upper(), kind, kind.title(), kind.capitalize()])

    def _spell_ids(self, data: dict[str, Any]) -> dict[str, Any]:
        """Ids now and then as strings, of events that their id tells from others."""
        if not self.has_ids or self.kind in (*TAGS, *UNKNOWN) or self.rng.random() < 0.8:
            return data
        return {
            name: part | {"id": str(part["id"])}
            if name in ("reply", "campaign_event", "lead") and "id" in part
            else part
            for name, part in data.items()
        }

    def _event(self) -> Event:
        fate = {"late_workspace": "applied", "boundary": "applied", "future": "applied"}.get(self.fate, self.fate)
        if fate == "applied" and self.kind in UNKNOWN:
            fate = "unknown_type"
        self.event = Event(
            self.number,
            fate,  # type: ignore[arg-type]
            self.tenant,
            self.kind,
            # Its mailbox's time tells it from others, not when it happened.
            None if self.kind in (*ACCOUNTS, *WARMUP) else self.at,
            self.lead,
            self.data["sender_email"]["id"] if self.kind in (*ACCOUNTS, *WARMUP) else None,
            reply_uuid=self.data["reply"].get("uuid") if self.kind in REPLIES else None,
            is_windowed=self.at is None and (self.kind in TAGS or not self.has_ids),
        )
        return self.event

    def _data(self) -> dict[str, Any]:
        """The parts that such an event has; of its ids those that it has."""
        rng, maker = self.rng, self.maker
        self.lead: Contact | None = None
        data: dict[str, Any] = {}
        if self.kind in TAGS:
            return {"tag_id": self.number, "tag_name": "VIP", "taggable_id": 20, "taggable_type": "Campaign"}
        account = maker.an_account()
        data["sender_email"] = {
            "id": account, "name": f"Box {account}", "email": f"Box{account}@example.com", "status": "connected",
            "type": "google_workspace_oauth", "daily_limit": 10, "emails_sent": rng.randint(1, 500),
            "created_at": "2026-01-01T00:00:00.000000Z", "updated_at": self._time(self._decoy()),
        }  # fmt: skip
        if self.kind in (*ACCOUNTS, *WARMUP):
            self.has_ids = not self.is_timeless
            data["sender_email"]["updated_at"] = self._time(self.at)
            return data
        if self.kind != "untracked_reply_received" and rng.random() < 0.97:
            data["lead"] = self._lead()
        if self.kind in SENDS:
            self._add_send(data)
        elif self.kind in REPLIES:
            self._add_reply(data)
        else:
            data["campaign_event"] = {"created_at": self._time(self.at)}
            data["sender_email"].pop("updated_at")
        data["campaign"] = {"id": 2, "name": rng.choice([*["Spring", "\U0001f9ac"] * 20, "NUL \0 here", "half \ud83d"])}
        if rng.random() < 0.01:
            data["campaign"]["budget"] = rng.choice(["@@huge@@"] * 9 + ["@@long@@"])
        return data

    def _decoy(self) -> datetime:
        return self.maker.now - timedelta(days=self.rng.randint(1, 60))

    def _time(self, at: datetime | None) -> str | None:
        """A moment in one of several spellings; None: far in the future, or never told."""
        if self.is_timeless:
            return None
        if at is None:
            return (self.maker.now + timedelta(days=self.rng.randint(1, 300))).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        zone = self.rng.choice([UTC, UTC, UTC, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/New_York")])
        text = at.astimezone(zone).isoformat(timespec="microseconds")
        return self.rng.choice([text, text.replace("+00:00", "Z"), text.replace("+00:00", "")])

    def _lead(self) -> dict[str, Any]:
        rng = self.rng
        # Nothing may depend on which of two of the same moment is taken: those with odd times have their own lead.
        own = self.fate in ("boundary", "future") or self.at is None
        number = 10**9 + self.number if own else self.maker.a_lead()
        lead: dict[str, Any] = {
            "id": number, "email": f"Lead{number}@Example.com", "first_name": "Pat", "last_name": "Prospect \U0001f9ac",
            "title": f"title {self.number}", "company": rng.choice(["Prospect"] * 20 + ["Pro\0spect"]),
            "custom_variables": [{"name": "Phone Number", "value": "15550100"}, {"name": "line", "value": self.number}],
        }  # fmt: skip
        phone = "15550100"
        match rng.randrange(12):
            case 0:
                del lead["email"]
            case 1:
                lead["email"] = None
            case 2:
                lead = {"id": number}
            case 3:
                lead["phone"] = phone = f"+49 {self.number}"
            case _:
                pass
        email = lead.get("email")
        values = (
            email.lower() if email else None, lead.get("first_name"), lead.get("last_name"),
            lead["company"].replace("\0", "\ufffd") if "company" in lead else None, lead.get("title"),
            phone if len(lead) > 1 else None, lead.get("custom_variables", []),
        )  # fmt: skip
        self.lead = Contact(number, values)
        if rng.random() < 0.03:
            # Counted, without a row of its lead.
            self.lead = None
            return {**lead, "id": rng.choice([None, "abc", [number], {"id": number}])}
        return lead

    def _add_send(self, data: dict[str, Any]) -> None:
        has_campaign_event = self.rng.random() < 0.8
        scheduled: dict[str, Any] = {
            "lead_id": 1, "email_subject": "hello", "email_body": "<p>secret text</p>", "status": "sent",
            "sent_at": self._time(self._decoy() if has_campaign_event else self.at),
            "raw_message_id": f"<{self.number}@example.com>",
        }  # fmt: skip
        if self.has_ids:
            scheduled["id"] = self.maker.next_id(f"{self.kind}.scheduled_email", self.tenant)
        data["scheduled_email"] = scheduled
        if has_campaign_event:
            happened: dict[str, Any] = {
                "type": "sent", "created_at": self._time(self.at), "created_at_local": self._time(self._decoy()),
            }  # fmt: skip
            if self.has_ids:
                happened["id"] = self.maker.next_id(f"{self.kind}.campaign_event", self.tenant)
            data["campaign_event"] = happened
        elif self.at is None:
            data["sender_email"].pop("updated_at")

    def _add_reply(self, data: dict[str, Any]) -> None:
        at, rng = self.at, self.rng
        assert at is not None
        has_campaign_event = rng.random() < 0.5
        reply: dict[str, Any] = {
            "html_body": "<div>secret</div>", "text_body": rng.choice(["secret"] * 20 + ["nul \0", "half \udfff"]),
            "created_at": self._time(self._decoy() if has_campaign_event else at),
        }  # fmt: skip
        if self.kind != "manual_email_sent":
            reply["uuid"] = str(uuid.UUID(int=rng.getrandbits(128)))
        if self.has_ids:
            reply["id"] = self.maker.next_id(f"{self.kind}.reply", self.tenant)
        data["reply"] = reply
        if has_campaign_event:
            data["campaign_event"] = {"id": 7, "type": "replied", "created_at": self._time(at)}


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        pairs = [(name, _shuffled(part, rng)) for name, part in value.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        rng.shuffle(pairs)  # pyright: ignore[reportUnknownArgumentType]
        return dict(pairs)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return [_shuffled(part, rng) for part in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]
