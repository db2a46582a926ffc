"""The webhooks of one workspace at its host: the whole list, and changes that are asked for once, then looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from bisonsync.api.client import InstanceClient, WebhookRequest
from bisonsync.api.lanes import Lanes
from bisonsync.api.lists import InvalidRow, ListReader
from bisonsync.errors import ApiRefused, ApiUnavailable, BisonsyncError, ListChanged
from bisonsync.models import Webhook

PATH = "/api/webhook-url"
NOT_FOUND = 404

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkspaceHooks:
    """What a workspace's own token may do. ``name`` is the workspace as shown, ``who`` the token."""

    client: InstanceClient
    token: str = field(repr=False)
    who: str
    name: str

    def list(self) -> list[Webhook]:
        """Every webhook of the workspace. Raises ListChanged unless the list was read whole, and each row of it."""
        page = self.client.get_page(PATH, {}, token=self.token, who=self.who)
        if page.total is None and page.last_page is None and page.next_cursor is None:
            rows = [_read_row(raw) for raw in page.rows]
            reason = ""
        else:
            lanes = Lanes(1, name="webhooks")
            try:
                read = ListReader(
                    self.client, lanes, owner=self.name, path=PATH, token=self.token, who=self.who, read_row=_read_row
                ).read()
            finally:
                lanes.close()
            rows, reason = [*read.rows.items(), *read.invalid], read.reason
        webhooks: list[Webhook] = []
        for row in rows:
            if isinstance(row, InvalidRow):
                reason = reason or f"{row.field}: {row.message}"
            else:
                webhooks.append(Webhook.model_validate_json(row[1]))
        if reason:
            raise ListChanged(
                f"workspace {self.name}: its list of webhooks could not be read whole: {reason}",
                hint="nothing was changed; run it again",
            )
        return webhooks

    def create(self, wanted: WebhookRequest) -> Webhook:
        """Make a webhook. Raises NotKnown when it may have been made and does not show in the list."""
        return self._change(
            lambda: self.client.create_webhook(self.token, wanted, who=self.who),
            lambda webhooks: next((webhook for webhook in webhooks if webhook.url == wanted.url), None),
            "made",
        )

    def replace(self, webhook_id: int, wanted: WebhookRequest) -> Webhook:
        """Give a webhook another name, address and events. Raises NotKnown when it may not have been done."""
        events = set(wanted.events)

        def find(webhooks: list[Webhook]) -> Webhook | None:
            for webhook in webhooks:
                if webhook.id == webhook_id and (webhook.url, webhook.name) == (wanted.url, wanted.name):
                    return webhook if set(webhook.events) == events else None
            return None

        return self._change(
            lambda: self.client.replace_webhook(self.token, webhook_id, wanted, who=self.who), find, "changed"
        )

    def delete(self, webhook_id: int) -> None:
        """Remove a webhook, also one that is gone already. Raises NotKnown when it may still be there."""

        def call() -> bool:
            try:
                self.client.delete_webhook(self.token, webhook_id, who=self.who)
            except ApiRefused as error:
                if error.status != NOT_FOUND:
                    raise
            return True

        def find(webhooks: list[Webhook]) -> bool | None:
            return True if all(webhook.id != webhook_id for webhook in webhooks) else None

        self._change(call, find, "removed")

    def _change(self, call: Callable[[], T], find: Callable[[list[Webhook]], T | None], done: str) -> T:
        """Ask once; where the answer leaves open whether it was done, look for the outcome in the list."""
        try:
            return call()
        except ApiUnavailable as error:
            if error.is_carried_out is False:
                raise
            try:
                found = find(self.list())
            except BisonsyncError as second:
                raise NotKnown(self.name, done, f"{error.message}; then {second.message}") from error
            if found is None:
                raise NotKnown(self.name, done, f"{error.message}; the list does not show it") from error
            return found


class NotKnown(ApiUnavailable):
    """Whether a change was made is not known, also not from the list."""

    def __init__(self, name: str, done: str, reason: str) -> None:
        super().__init__(
            f"workspace {name}: whether its webhook was {done} is not known: {reason}",
            hint="run it again: it looks at the list first",
        )


def _read_row(raw: Any) -> tuple[int, str] | InvalidRow:
    try:
        webhook = Webhook.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "row"
        return InvalidRow(None, place, first["type"], first["msg"] if first["loc"] else "it is not an object", None)
    return webhook.id, webhook.model_dump_json()
