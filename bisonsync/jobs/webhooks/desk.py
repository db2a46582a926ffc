"""What the webhooks commands share: looking at a workspace's webhooks, and changing those that are ours."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bisonsync.api.client import WebhookRequest
from bisonsync.api.quoting import quote
from bisonsync.api.webhooks import NotKnown, WorkspaceHooks
from bisonsync.errors import BisonsyncError, ConfigError
from bisonsync.keys import WorkspaceKey
from bisonsync.models import Webhook
from bisonsync.polling.visit import Visit
from bisonsync.run import WorkspacesRun
from bisonsync.store import leases, webhook_secrets
from bisonsync.store.db import Connection
from bisonsync.store.leases import Lease
from bisonsync.subscriptions import (
    NAME,
    Keyring,
    Subscription,
    differences,
    digest,
    hook_url,
    mask_url,
    sort_out,
    spellings,
)

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings say: where deliveries arrive, of which events, and the secrets that stand there."""

    public_url: str | None
    events: tuple[str, ...]
    secrets: Mapping[WorkspaceKey, str] = field(repr=False)

    def require_address(self) -> str:
        """``public_url``. Raises ConfigError where it is not set."""
        if self.public_url is None:
            raise ConfigError(
                "where deliveries are to arrive is not set",
                hint="set [webhooks] public_url to the address under which the platform reaches 'receive-webhooks'",
            )
        return self.public_url


@dataclass(frozen=True, slots=True)
class Look:
    """A workspace's webhooks, sorted, and the means to change them."""

    visit: Visit
    hooks: WorkspaceHooks
    found: Sequence[Subscription]

    @property
    def name(self) -> str:
        """The workspace as shown."""
        return str(self.visit.row.key)

    @property
    def ours(self) -> Subscription | None:
        """The one that delivers to us."""
        return next(iter(self.of("ours")), None)

    def of(self, *kinds: str) -> list[Subscription]:
        """Those of some kinds."""
        return [each for each in self.found if each.kind in kinds]

    def listed(self) -> tuple[Mapping[str, Any], ...]:
        """All of them for --json and tables, without what would let anybody in."""
        return tuple(
            {
                "workspace": self.name,
                "id": each.webhook.id,
                "kind": each.kind,
                "name": quote(each.webhook.name),
                "url": mask_url(each.webhook.url),
                "events": list(each.webhook.events),
                "note": each.note,
            }
            for each in self.found
        )


class Desk:
    """What all workspaces of a run share; safe to use from many threads."""

    def __init__(self, run: WorkspacesRun, wanted: Wanted) -> None:
        self.run = run
        self.wanted = wanted
        stored = run.bookkeeping.run(webhook_secrets.list_secrets)
        owners = {row.secret_sha256: row.key for row in stored}
        retired = {row.secret_sha256 for row in stored if row.retired_at is not None}
        self._ring = Keyring(
            active={key: owner for key, owner in owners.items() if key not in retired},
            retired={key: owner for key, owner in owners.items() if key in retired},
            given=wanted.secrets,
        )
        self._types: dict[str, tuple[str, ...]] = {}
        self._locks = {instance: threading.Lock() for instance in run.clients}

    @property
    def unknown_events(self) -> dict[str, list[str]]:
        """The wanted types that a host does not know, by instance."""
        lacks = {name: [t for t in self.wanted.events if t not in types] for name, types in self._types.items()}
        return {instance: names for instance, names in sorted(lacks.items()) if names}

    def look(self, visit: Visit) -> Look:
        """The webhooks of a workspace, by its own token, once it is proven that it acts there."""
        visit.require_own_token()
        visit.prove()
        key = visit.row.key
        hooks = WorkspaceHooks(visit.client, visit.token, visit.access.who, str(key))
        return Look(visit, hooks, sort_out(hooks.list(), key, self._ring, public_url=self.wanted.public_url))

    def events(self, look: Look) -> tuple[str, ...]:
        """The wanted types that the workspace's host knows; each host is asked once."""
        instance = look.visit.row.bison_instance
        with self._locks[instance]:
            if instance not in self._types:
                self._types[instance] = look.hooks.client.get_event_types(look.hooks.token, who=look.hooks.who)
        events = tuple(name for name in self.wanted.events if name in self._types[instance])
        if not events:
            raise ConfigError(
                f"instance {instance} knows none of the wanted events: {', '.join(self.wanted.events)}",
                hint=f"it knows {', '.join(map(quote, self._types[instance])) or 'none'}; see [webhooks] events",
            )
        return events

    def changes(self, ours: Subscription, events: Sequence[str]) -> list[str]:
        """In what ours is not as it is wanted."""
        return differences(ours.webhook, url=self._url(ours.secret or ""), events=events)

    def changes_left(self, kept: Webhook, secret: str, events: Sequence[str]) -> list[str]:
        """In what the host keeps a webhook otherwise than it was told."""
        return differences(kept, url=self._url(secret), events=events)

    def create(self, look: Look, events: tuple[str, ...]) -> tuple[Webhook, str]:
        """Make the webhook, under the secret in the settings or a new one that is stored first; and that secret."""
        visit, key = look.visit, look.visit.row.key
        given = self.wanted.secrets.get(key)
        secret = given or secrets.token_urlsafe(SECRET_BYTES)

        def store(conn: Connection) -> None:
            # The platform has none of these: what was asked for and never arrived there, or was deleted there.
            webhook_secrets.retire_secrets(conn, *key, self._stored(key))
            if not given:
                webhook_secrets.add_secret(conn, *key, digest(secret))

        _commit(visit, store)
        try:
            return look.hooks.create(self._request(secret, events)), secret
        except NotKnown:
            # Deliveries may come under it already; the next run finds it, or retires it.
            raise
        except BisonsyncError:
            if not given:
                _commit(visit, lambda conn: webhook_secrets.retire_secrets(conn, *key, [digest(secret)]))
            raise

    def replace(self, look: Look, ours: Subscription, events: tuple[str, ...]) -> tuple[Webhook, str]:
        """Give ours the address, name and events that are wanted; it, and its secret."""
        look.visit.require_lease()
        secret = ours.secret or ""
        return look.hooks.replace(ours.webhook.id, self._request(secret, events)), secret

    def remove(self, look: Look, unwanted: Sequence[Subscription]) -> None:
        """Delete webhooks, and retire each secret that no other one has."""
        for each in unwanted:
            look.visit.require_lease()
            look.hooks.delete(each.webhook.id)
        kept = {each.secret for each in look.found if each not in unwanted}
        gone = [digest(each.secret) for each in unwanted if each.secret is not None and each.secret not in kept]
        if gone:
            key = look.visit.row.key
            _commit(look.visit, lambda conn: webhook_secrets.retire_secrets(conn, *key, gone))

    def retire(self, visit: Visit) -> None:
        """Take no deliveries any more under any stored secret of a workspace."""
        key = visit.row.key
        _commit(visit, lambda conn: webhook_secrets.retire_secrets(conn, *key, self._stored(key)))

    def test_url(self, ours: Subscription) -> str:
        """The address of deliveries that are tests."""
        return hook_url(self.wanted.require_address(), ours.secret or "", is_test=True)

    def _url(self, secret: str) -> str:
        return hook_url(self.wanted.require_address(), secret)

    def _request(self, secret: str, events: tuple[str, ...]) -> WebhookRequest:
        return WebhookRequest(NAME, self._url(secret), events, spellings(secret))

    def _stored(self, key: WorkspaceKey) -> list[bytes]:
        """The SHA-256 of the workspace's secrets that are still taken."""
        return [secret for secret, owner in self._ring.active.items() if owner == key]


def _commit(visit: Visit, work: Callable[[Connection], None]) -> None:
    def fenced(conn: Connection, lease: Lease) -> None:
        with leases.fenced(conn, lease):
            work(conn)

    visit.commit(fenced)
