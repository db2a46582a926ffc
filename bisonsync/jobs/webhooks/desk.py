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
from bisonsync.errors import BisonsyncError, ConfigError, CredentialsError, GuardRefused
from bisonsync.keys import WorkspaceKey
from bisonsync.models import Webhook
from bisonsync.run import WorkspacesRun
from bisonsync.store import leases, webhook_secrets
from bisonsync.store.db import Connection
from bisonsync.store.registry import WorkspaceRow
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

    row: WorkspaceRow
    hooks: WorkspaceHooks
    found: Sequence[Subscription]

    @property
    def name(self) -> str:
        """The workspace as shown."""
        return str(self.row.key)

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

    def look(self, row: WorkspaceRow) -> Look:
        """The webhooks of a workspace, by its own token, once it is proven that it acts there."""
        name, access = str(row.key), self.run.access[row.key]
        if access.error is not None:
            raise access.error
        if access.token is None or access.by_switch:
            raise CredentialsError(
                f"workspace {name} has no token of its own", hint="run 'bisonsync workspaces mint-tokens'"
            )
        client = self.run.clients[row.bison_instance]
        acting = client.get_acting_workspace(access.token, who=access.who)
        if acting.id != row.bison_workspace_id:
            raise GuardRefused(
                f"{access.who} acts in workspace {acting.id} ({acting.shown}), not in {row.bison_workspace_id}"
                f" ({row.workspace_name}): nothing was changed",
                hint="run 'bisonsync workspaces verify', then 'bisonsync workspaces mint-tokens'",
            )
        hooks = WorkspaceHooks(client, access.token, access.who, name)
        return Look(row, hooks, sort_out(hooks.list(), row.key, self._ring, public_url=self.wanted.public_url))

    def events(self, look: Look) -> tuple[str, ...]:
        """The wanted types that the workspace's host knows; each host is asked once."""
        instance = look.row.bison_instance
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
        row, given = look.row, self.wanted.secrets.get(look.row.key)
        secret = given or secrets.token_urlsafe(SECRET_BYTES)

        def store(conn: Connection) -> None:
            # The platform has none of these: what was asked for and never arrived there, or was deleted there.
            webhook_secrets.retire_secrets(conn, *row.key, self._stored(row))
            if not given:
                webhook_secrets.add_secret(conn, *row.key, digest(secret))

        self._commit(row, store)
        try:
            return look.hooks.create(self._request(secret, events)), secret
        except NotKnown:
            # Deliveries may come under it already; the next run finds it, or retires it.
            raise
        except BisonsyncError:
            if not given:
                self._commit(row, lambda conn: webhook_secrets.retire_secrets(conn, *row.key, [digest(secret)]))
            raise

    def replace(self, look: Look, ours: Subscription, events: tuple[str, ...]) -> tuple[Webhook, str]:
        """Give ours the address, name and events that are wanted; it, and its secret."""
        self._require_lease(look.row)
        secret = ours.secret or ""
        return look.hooks.replace(ours.webhook.id, self._request(secret, events)), secret

    def remove(self, look: Look, unwanted: Sequence[Subscription]) -> None:
        """Delete webhooks, and retire each secret that no other one has."""
        for each in unwanted:
            self._require_lease(look.row)
            look.hooks.delete(each.webhook.id)
        kept = {each.secret for each in look.found if each not in unwanted}
        gone = [digest(each.secret) for each in unwanted if each.secret is not None and each.secret not in kept]
        if gone:
            self._commit(look.row, lambda conn: webhook_secrets.retire_secrets(conn, *look.row.key, gone))

    def retire(self, row: WorkspaceRow) -> None:
        """Take no deliveries any more under any stored secret of a workspace."""
        self._commit(row, lambda conn: webhook_secrets.retire_secrets(conn, *row.key, self._stored(row)))

    def test_url(self, ours: Subscription) -> str:
        """The address of deliveries that are tests."""
        return hook_url(self.wanted.require_address(), ours.secret or "", is_test=True)

    def _url(self, secret: str) -> str:
        return hook_url(self.wanted.require_address(), secret)

    def _request(self, secret: str, events: tuple[str, ...]) -> WebhookRequest:
        return WebhookRequest(NAME, self._url(secret), events, spellings(secret))

    def _stored(self, row: WorkspaceRow) -> list[bytes]:
        """The SHA-256 of the workspace's secrets that are still taken."""
        return [key for key, owner in self._ring.active.items() if owner == row.key]

    def _commit(self, row: WorkspaceRow, work: Callable[[Connection], None]) -> None:
        lease = self.run.leases[row.key]

        def fenced(conn: Connection) -> None:
            with leases.fenced(conn, lease):
                work(conn)

        self.run.db.run(fenced)

    def _require_lease(self, row: WorkspaceRow) -> None:
        self.run.bookkeeping.run(lambda conn: leases.require(conn, self.run.leases[row.key]))
