"""One method per endpoint: pages in, models out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar
from urllib.parse import urlencode

from bisonsync.api import answers
from bisonsync.api.answers import Document, Page
from bisonsync.api.conversation import Conversation, EndpointStats
from bisonsync.api.limits import ServiceMeter
from bisonsync.models import DailyStats, EventTypes, MintedToken, StoredEvent, Webhook, Workspace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A subscription as it shall be. ``hide`` are the secrets in ``url``."""

    name: str
    url: str = field(repr=False)
    events: tuple[str, ...]
    hide: tuple[str, ...] = field(repr=False)

    def as_body(self) -> dict[str, Any]:
        """What is sent."""
        return {"name": self.name, "url": self.url, "events": list(self.events)}


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of an event log; ``next_cursor`` is None on its last."""

    rows: tuple[StoredEvent, ...]
    next_cursor: str | None


class InstanceClient:
    """The endpoints of one instance; safe to call from many threads. Every method raises what ``Conversation`` does."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._call = conversation.call

    @property
    def instance(self) -> str:
        """The name of the instance."""
        return self._conversation.instance

    @property
    def stats(self) -> dict[str, EndpointStats]:
        """What each endpoint cost so far."""
        return self._conversation.stats

    def meter(self, limit_seconds: float, *, name: str) -> ServiceMeter:
        """A meter for one owner of requests (a workspace)."""
        return self._conversation.meter(limit_seconds, name=name)

    def get_acting_workspace(self, token: str, *, who: str, meter: ServiceMeter | None = None) -> Workspace:
        """The workspace in which a token acts now.

        Source: GET /api/users; the workspace stands under ``team``, on newer hosts under ``workspace``.
        """

        def read(document: Document) -> Workspace:
            user = answers.read_part(document, "data")
            return answers.read_model(Workspace, user.get("team") or user.get("workspace"))

        return self._call("GET", "/api/users", read, token=token, who=who, meter=meter)

    def get_page(
        self, path: str, query: Mapping[str, str | int], *, token: str, who: str, meter: ServiceMeter | None = None
    ) -> Page:
        """One page of any list, rows untouched.

        Source: GET on a list; 15 rows whatever ``per_page`` says; a page past the end is 200 with no rows.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        return self._call("GET", target, answers.read_page, token=token, who=who, meter=meter)

    def list_events(
        self,
        token: str,
        *,
        who: str,
        start: date | None = None,
        cursor: str | None = None,
        meter: ServiceMeter | None = None,
    ) -> EventPage:
        """One page of the event log of the token's workspace, from the day ``start`` on; ``cursor`` goes on with it.

        Source: GET /api/events, not on every host (404). The last 10 days, 15 rows a page, by cursor alone; newest
        first as far as known. In which zone the filter's days begin is not documented, and a host that does not know
        the filter gives everything.
        """
        query = {"pagination_type": "cursor"}
        query |= {"start_date": start.isoformat()} if start else {}
        query |= {"cursor": cursor} if cursor else {}

        def read(document: Document) -> EventPage:
            page = answers.read_page(document)
            if page.next_cursor is None and (page.last_page or 1) > 1:
                raise answers.WrongShapeError("it does not page by cursor")
            return EventPage(tuple(StoredEvent.model_validate(row) for row in page.rows), page.next_cursor)

        return self._call("GET", f"/api/events?{urlencode(query)}", read, token=token, who=who, meter=meter)

    def get_daily_stats(
        self,
        token: str,
        sender_email_ids: Sequence[int],
        start: date,
        end: date,
        *,
        who: str,
        meter: ServiceMeter | None = None,
    ) -> DailyStats:
        """What mailboxes together sent, got as replies and as bounces on each day from ``start`` to ``end``.

        Source: GET /api/campaign-events/stats, not on every host (404). Ends inclusive; in which zone a day begins is
        not documented. Parameters that a host does not know are dropped in silence, and the numbers are then those
        of the whole workspace: whoever asks looks whether they can be these mailboxes'.
        """
        query = [("start_date", start.isoformat()), ("end_date", end.isoformat())]
        query += [("sender_email_ids[]", str(number)) for number in sender_email_ids]

        def read(document: Document) -> DailyStats:
            return answers.read_model(DailyStats, document.get("data"))

        target = f"/api/campaign-events/stats?{urlencode(query)}"
        return self._call("GET", target, read, token=token, who=who, meter=meter)

    def switch_workspace(self, key: str, workspace_id: int, *, who: str) -> None:
        """Move the user of a super-admin key into a workspace, for every key of that user. Sent once, never retried.

        Source: POST /api/workspaces/v1.1/switch-workspace, body ``{team_id}``.
        """
        path = "/api/workspaces/v1.1/switch-workspace"
        self._call("POST", path, lambda _: None, token=key, who=who, body={"team_id": workspace_id})

    def create_token(self, key: str, workspace_id: int, name: str, *, who: str) -> MintedToken:
        """Make an api-user token of a workspace. Sent once, never retried: each answer is a new token.

        Source: POST /api/workspaces/v1.1/{id}/api-tokens, super-admin only.
        """

        def read(document: Document) -> MintedToken:
            return answers.read_model(MintedToken, document.get("data"))

        path = f"/api/workspaces/v1.1/{workspace_id}/api-tokens"
        return self._call("POST", path, read, token=key, who=who, body={"name": name})

    def get_event_types(self, token: str, *, who: str) -> tuple[str, ...]:
        """The types of events that the host can deliver, in lower case.

        Source: GET /api/webhook-events/event-types; newer hosts know more of them.
        """

        def read(document: Document) -> tuple[str, ...]:
            return answers.read_model(EventTypes, {"ids": document.get("data")}).ids

        return self._call("GET", "/api/webhook-events/event-types", read, token=token, who=who)

    def create_webhook(self, token: str, wanted: WebhookRequest, *, who: str) -> Webhook:
        """Subscribe an address to events of the token's workspace. Sent once, never retried: each is one more.

        Source: POST /api/webhook-url; the same address may be there any number of times.
        """
        body = wanted.as_body()
        return self._call("POST", "/api/webhook-url", _read_webhook, token=token, who=who, body=body, hide=wanted.hide)

    def replace_webhook(self, token: str, webhook_id: int, wanted: WebhookRequest, *, who: str) -> Webhook:
        """Give a subscription another name, address and events. Sent once, never retried.

        Source: PUT /api/webhook-url/{id}; events that are not named are switched off.
        """
        path = f"/api/webhook-url/{webhook_id}"
        return self._call("PUT", path, _read_webhook, token=token, who=who, body=wanted.as_body(), hide=wanted.hide)

    def delete_webhook(self, token: str, webhook_id: int, *, who: str) -> None:
        """End a subscription. Sent once, never retried.

        Source: DELETE /api/webhook-url/{id}.
        """
        self._call("DELETE", f"/api/webhook-url/{webhook_id}", lambda _: None, token=token, who=who)

    def send_test_event(self, token: str, event_type: str, url: str, *, who: str, hide: tuple[str, ...]) -> None:
        """Let the host deliver its sample of a type to an address. Sent once, never retried.

        Source: POST /api/webhook-events/test-event; says success also where nobody took the delivery, as far as known.
        ``hide`` are the secrets in the address.
        """
        path = "/api/webhook-events/test-event"
        body = {"event_type": event_type, "url": url}
        self._call("POST", path, lambda _: None, token=token, who=who, body=body, hide=hide)

    def close(self) -> None:
        """Give unspent budget back and close connections."""
        self._conversation.close()


def _read_webhook(document: Document) -> Webhook:
    return answers.read_model(Webhook, document.get("data"))
