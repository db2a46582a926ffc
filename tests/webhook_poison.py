"""Valid JSON that no webhook can be: each must be kept as dead, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Poison = Callable[[str, str, int, int], Any]
"""Makes a payload of a mark, the instance's address, the workspace's id and a number that no other event has."""


def _changed(place: str, value: Any, kind: str = "LEAD_REPLIED") -> Poison:
    """A payload that is well but for one part: ``value`` is put there, or with ... nothing."""

    def make(mark: str, url: str, workspace: int, number: int) -> Any:
        moment = "2026-09-30T10:00:00Z"
        payload: dict[str, Any] = {
            "event": {"type": kind, "name": mark, "instance_url": url, "workspace_id": workspace},
            "data": {
                "reply": {"id": 10**7 + number, "created_at": moment},
                "campaign_event": {"id": 10**7 + number},
                "scheduled_email": {"id": 10**7 + number},
                "sender_email": {"id": 10**7 + number, "updated_at": moment},
                "lead": {"id": 10**7 + number, "email": "poison@example.com"},
            },
        }
        *path, last = place.split(".")
        inside = payload
        for name in path:
            inside = inside[name]
        if value is ...:
            del inside[last]
        else:
            inside[last] = value
        return payload

    return make


POISON: tuple[Poison, ...] = (
    lambda mark, url, workspace, number: mark,
    lambda mark, url, workspace, number: [mark],
    lambda mark, url, workspace, number: [{"event": {"type": "EMAIL_SENT", "name": mark}, "data": {}}],
    lambda mark, url, workspace, number: {"note": mark},
    lambda mark, url, workspace, number: {"event": mark, "data": {}},
    lambda mark, url, workspace, number: {"event": [mark], "data": {}},
    lambda mark, url, workspace, number: {"data": {"data": {"event": {"type": "EMAIL_SENT"}}, "note": mark}},
    _changed("event.type", ...),
    _changed("event.type", None),
    _changed("event.type", ""),
    _changed("event.type", "  "),
    _changed("event.type", 7),
    _changed("event.type", ["EMAIL_SENT"]),
    _changed("event.type", "EMAIL_SENT" * 100),
    _changed("data", ...),
    _changed("data", None),
    _changed("data", []),
    _changed("data", [{"reply": {"id": 1}}]),
    _changed("data", "text"),
    _changed("data", 5),
    _changed("data.reply", "text"),
    _changed("data.reply", 5),
    _changed("data.reply", [{"id": 1}]),
    _changed("data.reply.id", {"id": 1}),
    _changed("data.reply.id", [1]),
    _changed("data.reply.id", True),
    _changed("data.campaign_event", "sent", "EMAIL_SENT"),
    _changed("data.campaign_event.id", {"id": 1}, "EMAIL_SENT"),
    _changed("data.scheduled_email", "sent", "EMAIL_SENT"),
    _changed("data.sender_email", "box@example.com", "EMAIL_ACCOUNT_ADDED"),
    _changed("data.sender_email", ..., "EMAIL_ACCOUNT_REMOVED"),
    _changed("data.sender_email.id", ..., "EMAIL_ACCOUNT_DISCONNECTED"),
    _changed("data.sender_email.id", "abc", "EMAIL_ACCOUNT_RECONNECTED"),
    _changed("data.sender_email.id", {}, "WARMUP_DISABLED_CAUSING_BOUNCES"),
    _changed("event.workspace_id", "abc"),
    _changed("event.workspace_id", {"id": 1}),
    _changed("event.workspace_id", -1),
    _changed("event.workspace_id", 1.5),
    _changed("event.workspace_id", True),
    _changed("event.workspace_id", ...),
)

OF_NO_WORKSPACE = 6
"""The last so many tell no workspace, or none that can be."""
