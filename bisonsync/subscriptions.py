"""Which of a workspace's webhooks are ours, what is wrong with them, and how an address is shown. Asks nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from bisonsync.keys import WorkspaceKey
from bisonsync.models import Webhook

Kind = Literal["ours", "double", "retired", "foreign"]

# What ours are called at the platform.
NAME = "bisonsync"
HIDDEN = "…"

_HOOKS = "hooks"
# A part of a path that could be a key of whoever the address belongs to.
_KEY_LIKE = re.compile(r"(?=.*\d)(?=.*[A-Za-z]).{8,}|.{20,}|.*%.*")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The hook secrets of every workspace: stored ones by their SHA-256, given ones as the settings have them."""

    active: Mapping[bytes, WorkspaceKey]
    retired: Mapping[bytes, WorkspaceKey]
    given: Mapping[WorkspaceKey, str] = field(repr=False)

    def owner(self, secret: str) -> WorkspaceKey | None:
        """The workspace whose deliveries are taken under this secret."""
        stored = self.active.get(digest(secret))
        return stored or next((key for key, given in self.given.items() if given == secret), None)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook of a workspace and what it is to us. ``secret`` is ours in its address."""

    webhook: Webhook
    kind: Kind
    note: str = ""
    secret: str | None = field(default=None, repr=False)


def digest(secret: str) -> bytes:
    """What is stored of a secret."""
    return sha256(secret.encode()).digest()


def hook_url(public_url: str, secret: str, *, is_test: bool = False) -> str:
    """The address of a workspace's deliveries, or of those that are tests and never count."""
    return f"{public_url}/{_HOOKS}/{quote(secret, safe='')}{'/test' if is_test else ''}"


def spellings(secret: str) -> tuple[str, ...]:
    """How a secret may be quoted by whoever was given its address."""
    return tuple(dict.fromkeys((secret, quote(secret, safe=""))))


def sort_out(
    webhooks: Iterable[Webhook], key: WorkspaceKey, ring: Keyring, *, public_url: str | None
) -> list[Subscription]:
    """Say of each webhook of a workspace whose it is; at most one is ours, any more are doubles."""
    mine: list[Subscription] = []
    others: list[Subscription] = []
    for webhook in webhooks:
        found = _recognise(webhook, key, ring, public_url)
        (mine if found.kind == "ours" else others).append(found)

    def rank(found: Subscription) -> tuple[bool, bool, int]:
        secret = found.secret or ""
        is_in_place = public_url is not None and _is_same(found.webhook.url, hook_url(public_url, secret))
        return secret != ring.given.get(key), not is_in_place, found.webhook.id

    mine.sort(key=rank)
    doubles = [
        Subscription(
            again.webhook,
            "double",
            f"delivers everything once more, beside {mine[0].webhook.id}",
            again.secret,
        )
        for again in mine[1:]
    ]
    return sorted([*mine[:1], *doubles, *others], key=lambda found: found.webhook.id)


def differences(webhook: Webhook, *, url: str, events: Sequence[str]) -> list[str]:
    """In what a webhook of ours is not as it is wanted, as what it does: without its secret."""
    found: list[str] = []
    if not _is_same(webhook.url, url):
        found.append(f"goes to {mask_url(webhook.url)}, not to {mask_url(url)}")
    if webhook.name != NAME:
        found.append(f"is not named {NAME}")
    if missing := [name for name in events if name not in webhook.events]:
        found.append(f"lacks {', '.join(missing)}")
    if unwanted := [name for name in webhook.events if name not in events]:
        found.append(f"has {', '.join(unwanted)}, which nobody wants")
    return found


def mask_url(url: str) -> str:
    """An address without what could let anybody in: hook secrets, logins, queries, and parts that look like keys."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    if not host:
        return HIDDEN
    host = f"[{host}]" if ":" in host else host
    shown: list[str] = []
    is_behind_hooks = False
    for part in parts.path.split("/"):
        shown.append(HIDDEN if part and (is_behind_hooks or _KEY_LIKE.fullmatch(part)) else part)
        is_behind_hooks = is_behind_hooks or part.lower() == _HOOKS
    query = f"?{HIDDEN}" if parts.query else ""
    return f"{parts.scheme}://{host}{port}{'/'.join(shown)}{query}{f'#{HIDDEN}' if parts.fragment else ''}"


def _is_same(url: str, other: str) -> bool:
    """Whether two addresses are one, however a host writes them."""

    def plain(text: str) -> tuple[str, str, str, str]:
        parts = urlsplit(text)
        return parts.scheme.lower(), parts.netloc.lower(), unquote(parts.path).rstrip("/"), parts.query

    return plain(url) == plain(other)


def _recognise(webhook: Webhook, key: WorkspaceKey, ring: Keyring, public_url: str | None) -> Subscription:
    for secret in _secrets_in(webhook.url):
        owner = ring.owner(secret)
        if owner == key:
            return Subscription(webhook, "ours", secret=secret)
        if owner is not None:
            note = f"has the secret of workspace {owner[0]}/{owner[1]}: what it delivers ends as mismatch"
            return Subscription(webhook, "foreign", note)
        if ring.retired.get(digest(secret)) == key:
            return Subscription(webhook, "retired", "has a secret of ours that is not taken any more", secret)
    is_here = public_url is not None and webhook.url.lower().startswith(f"{public_url}/".lower())
    note = "comes here under a secret that is not known: what it delivers is refused" if is_here else ""
    return Subscription(webhook, "foreign", note)


def _secrets_in(url: str) -> list[str]:
    """What stands where our secrets do, in an address of any host: public_url may have changed since."""
    try:
        parts = urlsplit(url).path.split("/")
    except ValueError:
        return []
    return [unquote(after) for before, after in pairwise(parts) if before == _HOOKS and after]
