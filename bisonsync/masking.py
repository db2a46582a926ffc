"""What is shown of a delivery to somebody who did not ask whose mail it was."""

from __future__ import annotations

import re
from typing import Any, cast

MASK = "***"

_ADDRESS = re.compile(r"[^\s@<>\"',;:()]+@[^\s@<>\"',;:()]+")
# Parts of a payload that tell of our own mailboxes, campaigns and tags; everything else is of people.
_OURS = frozenset({"event", "campaign", "campaign_event", "sender_email", "tag"})
_PLAIN = frozenset(
    {
        *("id", "uuid", "type", "status", "folder", "metric", "sha256", "local_timezone", "date_received"),
        *("created_at_local", "scheduled_date_local", "scheduled_date_est", "taggable_type", "tag_name"),
    }
)
_PERSONAL = frozenset({"custom_variables", "phone", "raw_message_id", "headers"})


def mask_addresses(text: str | None) -> str | None:
    """A text without mail addresses."""
    return None if text is None else _ADDRESS.sub(MASK, text)


def mask_payload(value: Any, name: str = "", *, is_ours: bool = False) -> Any:
    """A payload whose texts are shown only where they are known to tell of nobody: what is not known is masked."""
    if value is None or isinstance(value, bool):
        return value
    if name in _PERSONAL:
        return MASK if value else value
    if isinstance(value, dict):
        parts = cast("dict[str, Any]", value)
        return {key: mask_payload(part, key, is_ours=is_ours or key in _OURS) for key, part in parts.items()}
    if isinstance(value, list):
        return [mask_payload(part, name, is_ours=is_ours) for part in cast("list[Any]", value)]
    if not isinstance(value, str):
        return value
    if is_ours:
        return value if name == "email" else mask_addresses(value)
    return value if not value or name in _PLAIN or name.endswith(("_at", "_id")) else MASK
