"""Writes the bodies of deliveries: the vendor's sample of the type with the values of what happened."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

from bisonsync.sandbox.hooks import Delivery, Happening
from bisonsync.sandbox.moments import stamp
from bisonsync.sandbox.names import FIRST_NAMES, LAST_NAMES
from bisonsync.sandbox.rows import Account, Tag
from bisonsync.sandbox.samples import event_object, sample, sample_data

_CAMPAIGNS = 3


def _sender(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "email": account.email,
        "status": account.status.lower().replace(" ", "_"),
        "type": account.type,
        "daily_limit": account.daily_limit,
        "emails_sent": account.emails_sent_count,
        "replied": account.total_replied_count,
        "opened": account.total_opened_count,
        "unsubscribed": account.unsubscribed_count,
        "bounced": account.bounced_count,
        "unique_replies": account.unique_replied_count,
        "unique_opens": account.unique_opened_count,
        "total_leads_contacted": account.total_leads_contacted_count,
        "interested": account.interested_leads_count,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }


def _lead(number: int) -> dict[str, Any]:
    first, last = FIRST_NAMES[number % len(FIRST_NAMES)], LAST_NAMES[number // 7 % len(LAST_NAMES)]
    return {
        "id": number,
        "email": f"{first}.{last}@lead-{number}.example.com".lower(),
        "first_name": first,
        "last_name": last,
        "company": f"Prospect {number} Inc.",
    }


def _tag(tag: Tag, account: Account) -> dict[str, Any]:
    return {"tag_id": tag.id, "tag_name": tag.name, "taggable_id": account.id, "taggable_type": "SenderEmail"}


def _reply(happening: Happening, lead: dict[str, Any]) -> dict[str, Any]:
    at, account = stamp(happening.at), happening.account
    reply: dict[str, Any] = {
        "id": happening.reply,
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"sandbox:reply:{happening.reply}")),
        "date_received": stamp(happening.at - timedelta(seconds=5)),
        "created_at": at,
        "updated_at": at,
        "raw_message_id": f"<reply-{happening.reply}@mail.example.com>",
    }
    us = {"name": account.name, "address": account.email}
    them = {"name": f"{lead['first_name']} {lead['last_name']}", "address": lead["email"]}
    if happening.type == "manual_email_sent":
        us, them = them, us
        del reply["uuid"]
    if happening.type != "email_bounced":
        reply |= {"from_name": them["name"], "from_email_address": them["address"]}
    return {**reply, "primary_to_email_address": us["address"], "to": [us]}


def data_of(happening: Happening) -> dict[str, Any]:
    """Make the `data` of an event."""
    account = happening.account
    if happening.tag is not None:
        return _tag(happening.tag, account)
    data = sample_data(happening.type)
    data["sender_email"] |= _sender(account)
    if len(data) == 1:
        return data
    lead, at = _lead(happening.lead), stamp(happening.at)
    if "reply" in data:
        data["reply"] |= _reply(happening, lead)
    if "lead" not in data:
        return data
    data["lead"] |= lead
    number = happening.workspace_id * 10 + happening.lead % _CAMPAIGNS + 1
    data["campaign"] = {"id": number, "name": f"Campaign {number}"}
    mail = data["scheduled_email"]
    mail |= {"id": happening.scheduled_email, "raw_message_id": f"<mail-{happening.scheduled_email}@example.com>"}
    if "lead_id" in mail:
        mail["lead_id"] = happening.lead
    # Of an earlier mail the host tells when it was sent; here nothing remembers it.
    sent_at = happening.at if data.get("campaign_event", {}).get("type") == "sent" else happening.at - timedelta(days=1)
    mail |= dict.fromkeys(("sent_at", "scheduled_date_est", "scheduled_date_local"), stamp(sent_at))
    if "campaign_event" in data:
        data["campaign_event"] |= {"id": happening.campaign_event, "created_at": at, "created_at_local": at}
    return data


def envelope(happening: Happening, instance_url: str) -> dict[str, Any]:
    """Make the whole event as it is stored and delivered."""
    event = event_object(
        happening.type,
        instance_url=instance_url,
        workspace_id=happening.workspace_id,
        workspace_name=happening.workspace_name,
    )
    return {"event": event, "data": data_of(happening)}


def _turned(value: Any) -> Any:
    """Return the same value with the keys of every object the other way round."""
    if isinstance(value, dict):
        pairs: list[tuple[str, Any]] = list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return {key: _turned(item) for key, item in reversed(pairs)}
    return value


def body_of(delivery: Delivery, instance_url: str) -> bytes:
    """Write the body of a delivery's next attempt, in the form that its faults ask for."""
    event = delivery.event
    whole = envelope(event.happening, instance_url) if event else sample(delivery.type)
    if delivery.is_lower:
        whole["event"]["type"] = whole["event"]["type"].lower()
    if delivery.is_reworded and (delivery.attempts or delivery.is_copy):
        whole["event"]["name"] += " (again)"
        whole = _turned(whole)
    if delivery.wrap == "data":
        whole = {"data": whole}
    elif delivery.wrap:
        whole = {"id": event.id if event else None, "payload": whole}
    return json.dumps(whole, separators=(",", ":")).encode()
