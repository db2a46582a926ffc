"""The event types, and one sample of each in the form that the vendor publishes: always the same ids and times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVENT_TYPES = {
    "email_sent": "Email Sent",
    "manual_email_sent": "Manual Email Sent",
    "lead_first_contacted": "Contact First Emailed",
    "lead_replied": "Contact Replied",
    "lead_interested": "Contact Interested",
    "lead_unsubscribed": "Contact Unsubscribed",
    "untracked_reply_received": "Untracked Reply Received",
    "email_opened": "Email Opened",
    "email_bounced": "Email Bounced",
    "email_account_added": "Email Account Added",
    "email_account_removed": "Email Account Removed",
    "email_account_disconnected": "Email Account Disconnected",
    "email_account_reconnected": "Email Account Reconnected",
    "tag_attached": "Tag Attached",
    "tag_removed": "Tag Removed",
    "warmup_disabled_receiving_bounces": "Warmup Disabled Receiving Bounces",
    "warmup_disabled_causing_bounces": "Warmup Disabled Causing Bounces",
}
"""What can be subscribed, by its identifier, with its label; an older host knows the first 13 alone."""
OLDER_HOST = 13

# Inside a delivery some events have another name than in the list of types.
_NAMES = {**EVENT_TYPES, "lead_replied": "Lead Replied", "lead_interested": "Lead Interested"}

_SENT_AT = "2024-08-02T06:08:38.000000Z"
_LATER = "2024-08-03T10:00:05.000000Z"
_ZONE = "America/New_York"
_SCHEDULED: dict[str, Any] = {
    "id": 4,
    "lead_id": 1,
    "sequence_step_id": 2,
    "sequence_step_order": 1,
    "sequence_step_variant": None,
    "email_subject": "test subject",
    "email_body": "<p>test</p>",
    "status": "sent",
    "scheduled_date_est": "2024-08-02T15:33:00.000000Z",
    "scheduled_date_local": "2024-08-02T15:33:00.000000Z",
    "local_timezone": _ZONE,
    "sent_at": _SENT_AT,
    "opens": 0,
    "replies": 0,
    "unique_opens": 0,
    "unique_replies": 0,
    "interested": None,
    "raw_message_id": "<a07156c0-c566-4a01-b5f8-26b6891a03c0@example.com>",
}
_ONLY_WHEN_SENT = ("lead_id", "email_subject", "email_body")
_LEAD: dict[str, Any] = {
    "id": 1,
    "email": "pat@prospect.example.com",
    "first_name": "Pat",
    "last_name": "Prospect",
    "status": "unverified",
    "title": "CEO",
    "company": "Prospect Inc.",
    "custom_variables": [
        {"name": "phone number", "value": "15550100"},
        {"name": "personalized line", "value": "Noticed that Prospect Inc. is doing very well"},
    ],
    "emails_sent": 1,
    "opens": 0,
    "unique_opens": 0,
    "replies": 0,
    "unique_replies": 0,
    "bounces": 0,
}
_SENDER: dict[str, Any] = {
    "id": 3,
    "name": "Sam",
    "email": "sam@sender.example.com",
    "status": "connected",
    "type": "google_workspace_oauth",
    "daily_limit": 10,
    "emails_sent": 1,
    "replied": 0,
    "opened": 0,
    "unsubscribed": 0,
    "bounced": 0,
    "unique_replies": 0,
    "unique_opens": 0,
    "total_leads_contacted": 1,
    "interested": 0,
    "created_at": "2024-08-02T06:06:40.000000Z",
    "updated_at": _SENT_AT,
}
_REPLY: dict[str, Any] = {
    "id": 45,
    "uuid": "9f7a2718-aa56-43c2-a52b-a44dc183a621",
    "email_subject": "Re: test subject",
    "interested": False,
    "automated_reply": False,
    "html_body": '<div dir="ltr">Sounds good, tell me more.</div>',
    "text_body": "Sounds good, tell me more.",
    "raw_body": None,
    "headers": None,
    "date_received": "2024-08-03T10:00:00.000000Z",
    "type": "Tracked Reply",
    "from_name": "Pat Prospect",
    "from_email_address": "pat@prospect.example.com",
    "primary_to_email_address": "sam@sender.example.com",
    "to": [{"name": "Sam", "address": "sam@sender.example.com"}],
    "cc": None,
    "bcc": None,
    "parent_id": None,
    "folder": "Inbox",
    "raw_message_id": "<reply-1@mail.prospect.example.com>",
    "created_at": _LATER,
    "updated_at": _LATER,
    "attachments": [],
}
_REPLIED = {"replies": 1, "unique_replies": 1}
_OPENED = {"opens": 1, "unique_opens": 1}


def _moment(number: int, kind: str, at: str = _LATER) -> dict[str, Any]:
    return {"id": number, "type": kind, "created_at_local": at, "local_timezone": _ZONE, "created_at": at}


def _of_mail(moment: dict[str, Any], *, mail: Any = (), lead: Any = (), sender: Any = ()) -> dict[str, Any]:
    return {
        "scheduled_email": {**_SCHEDULED, **dict(mail)},
        "campaign_event": moment,
        "lead": {**_LEAD, **dict(lead)},
        "campaign": {"id": 2, "name": "test"},
        "sender_email": {**_SENDER, **dict(sender)},
    }


def _of_reply(
    reply: dict[str, Any], moment: dict[str, Any] | None, *, mail: Any = (), lead: Any = (), sender: Any = ()
) -> dict[str, Any]:
    scheduled = {name: value for name, value in _SCHEDULED.items() if name not in _ONLY_WHEN_SENT}
    whole = {**_REPLY, **reply}
    if moment is None:  # what we sent ourselves has no uuid
        del whole["uuid"]
    return {
        "reply": whole,
        **({"campaign_event": moment} if moment else {}),
        "lead": {**_LEAD, **dict(lead)},
        "campaign": {"id": 2, "name": "test"},
        "scheduled_email": {**scheduled, **dict(mail)},
        "sender_email": {**_SENDER, **dict(sender)},
    }


def _of_account(**fields: Any) -> dict[str, Any]:
    return {"sender_email": {**_SENDER, **fields}}


_BOUNCE: dict[str, Any] = {
    "id": 46,
    "uuid": "9f7a2718-aa56-43c2-a52b-a44dc183a622",
    "email_subject": "Delivery Status Notification (Failure)",
    "automated_reply": True,
    "html_body": "<p>Address not found</p>",
    "text_body": "Address not found. The response was: 550 5.1.1 "
    "The email account that you tried to reach does not exist.",
    "type": "Bounced",
    "from_name": "Mail Delivery Subsystem",
    "from_email_address": "mailer-daemon@mail.example.com",
    "folder": "Bounced",
    "raw_message_id": "<bounce-1@mail.example.com>",
}
_MANUAL: dict[str, Any] = {
    "id": 48,
    "html_body": "<p>Happy to explain.</p>",
    "text_body": "Happy to explain.",
    "type": "Outgoing Email",
    "from_name": "Sam",
    "from_email_address": "sam@sender.example.com",
    "primary_to_email_address": "pat@prospect.example.com",
    "to": [{"name": "Pat Prospect", "address": "pat@prospect.example.com"}],
    "parent_id": 45,
    "folder": "Sent",
    "raw_message_id": "<manual-1@sender.example.com>",
}
_UNTRACKED: dict[str, Any] = {
    "id": 47,
    "uuid": "9f7a2718-aa56-43c2-a52b-a44dc183a623",
    "email_subject": "Your message",
    "type": "Untracked Reply",
    "from_name": "Lee Colleague",
    "from_email_address": "lee@prospect.example.com",
    "raw_message_id": "<untracked-1@mail.prospect.example.com>",
}
_TAG = {"tag_id": 1, "tag_name": "Interested", "taggable_id": 20, "taggable_type": "Campaign"}
_UNIQUE = {"replied": 1, "unique_replies": 1}
_PARTS: Mapping[str, Mapping[str, Any]] = {
    "email_sent": _of_mail(_moment(6, "sent", "2024-08-02T06:09:35.000000Z")),
    "manual_email_sent": _of_reply(_MANUAL, None, mail=_REPLIED, lead=_REPLIED, sender=_UNIQUE),
    "lead_first_contacted": _of_mail(_moment(6, "sent", "2024-08-02T06:09:35.000000Z")),
    "lead_replied": _of_reply({}, _moment(7, "replied"), mail=_REPLIED, lead=_REPLIED, sender=_UNIQUE),
    "lead_interested": _of_reply(
        {"interested": True},
        _moment(8, "interested"),
        mail={**_REPLIED, "interested": True},
        lead=_REPLIED,
        sender={**_UNIQUE, "interested": 1},
    ),
    "lead_unsubscribed": _of_mail(
        _moment(11, "unsubscribed"), lead={"status": "unsubscribed"}, sender={"unsubscribed": 1}
    ),
    "untracked_reply_received": {"reply": {**_REPLY, **_UNTRACKED}, "sender_email": _SENDER},
    "email_opened": _of_mail(
        _moment(10, "opened"), mail=_OPENED, lead=_OPENED, sender={"opened": 1, "unique_opens": 1}
    ),
    "email_bounced": _of_reply(
        _BOUNCE, _moment(9, "bounce"), lead={"status": "bounced", "bounces": 1}, sender={"bounced": 1}
    ),
    "email_account_added": _of_account(
        emails_sent=0, total_leads_contacted=0, updated_at="2024-08-02T06:06:40.000000Z"
    ),
    "email_account_removed": _of_account(),
    "email_account_disconnected": _of_account(status="not_connected", updated_at="2024-08-04T09:00:00.000000Z"),
    "email_account_reconnected": _of_account(updated_at="2024-08-04T11:00:00.000000Z"),
    "tag_attached": _TAG,
    "tag_removed": _TAG,
    "warmup_disabled_receiving_bounces": _of_account(),
    "warmup_disabled_causing_bounces": _of_account(),
}


def event_object(event_type: str, *, instance_url: str, workspace_id: int, workspace_name: str) -> dict[str, Any]:
    """Make the object that says what happened where; deliveries write the type in capitals."""
    return {
        "type": event_type.upper(),
        "name": _NAMES[event_type],
        "instance_url": instance_url,
        "workspace_id": workspace_id,
        "workspace_name": workspace_name,
    }


def sample_data(event_type: str) -> dict[str, Any]:
    """Return a copy of the `data` of a type's sample, in which the values of its objects may be replaced."""
    parts = _PARTS[event_type]
    return dict(parts) if event_type.startswith("tag_") else {name: dict(part) for name, part in parts.items()}


def sample(event_type: str) -> dict[str, Any]:
    """Return a copy of the published sample of a type, which names no workspace of this host."""
    number, name = (2, "Red Team") if event_type.startswith("tag_") else (1, "Example Workspace")
    event = event_object(
        event_type, instance_url="https://dedi.emailbison.com", workspace_id=number, workspace_name=name
    )
    return {"event": event, "data": sample_data(event_type)}
