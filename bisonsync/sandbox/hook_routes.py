"""The endpoints of webhooks and stored events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

from bisonsync.sandbox import pages
from bisonsync.sandbox.calls import Call, Refused, invalid, no_record, page_answer
from bisonsync.sandbox.hooks import KEPT, Attempt, Delivery, Event, Newest, Webhook
from bisonsync.sandbox.http import Answer
from bisonsync.sandbox.moments import stamp
from bisonsync.sandbox.payloads import envelope
from bisonsync.sandbox.samples import EVENT_TYPES, OLDER_HOST, sample


def _known_types(call: Call) -> dict[str, str]:
    return dict(list(EVENT_TYPES.items())[: OLDER_HOST if call.config.event_types == "13" else None])


def _webhook_row(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "events": webhook.events,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
    }


def list_webhooks(call: Call) -> Answer:
    own = {webhook.id: webhook for webhook in call.world.hooks.of(call.workspace.id)}
    if not call.config.paginate_webhooks:
        return Answer(payload={"data": [_webhook_row(webhook) for webhook in own.values()]})
    page = pages.by_number(sorted(own, reverse=True), pages.page_number(call.value("page")), call.url)
    return page_answer(page, lambda i: _webhook_row(own[i]))


def _url(values: dict[str, Any]) -> str:
    url = values.get("url")
    if url is None or url == "":
        raise invalid("url", "The url field is required.")
    try:
        is_url = isinstance(url, str) and urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise invalid("url", "The url field must be a valid URL.")
    return cast(str, url)


def _wanted(call: Call) -> tuple[str, str, list[str]]:
    """Read name, URL and events of a registration, all of which are required."""
    values = call.json()
    name, events = values.get("name"), values.get("events")
    if not isinstance(name, str) or not name.strip():
        raise invalid("name", "The name field is required.")
    url = _url(values)
    if not isinstance(events, list) or not events:
        raise invalid("events", "The events field is required.")
    for number, event in enumerate(cast(list[Any], events)):
        if not isinstance(event, str) or event not in _known_types(call):
            raise invalid(f"events.{number}", f"The selected events.{number} is invalid.")
    return name, url, list(dict.fromkeys(cast(list[str], events)))


def add_webhook(call: Call) -> Answer:
    name, url, events = _wanted(call)
    hooks, now = call.world.hooks, stamp(call.world.now)
    webhook = Webhook(hooks.number("webhook"), call.workspace.id, name, url, events, now, now)
    hooks.webhooks[webhook.id] = webhook
    return Answer(201, payload={"data": _webhook_row(webhook)})


def _named_webhook(call: Call) -> Webhook:
    webhook = call.world.hooks.webhooks.get(pages.read_number(call.args[0]) or 0)
    if webhook is None or webhook.workspace_id != call.workspace.id:
        raise no_record("webhook_url", call.args[0])
    return webhook


def get_webhook(call: Call) -> Answer:
    return Answer(payload={"data": _webhook_row(_named_webhook(call))})


def replace_webhook(call: Call) -> Answer:
    webhook = _named_webhook(call)
    webhook.name, webhook.url, webhook.events = _wanted(call)
    webhook.updated_at = stamp(call.world.now)
    return Answer(payload={"data": _webhook_row(webhook)})


def delete_webhook(call: Call) -> Answer:
    webhook = _named_webhook(call)
    del call.world.hooks.webhooks[webhook.id]
    message = f"{webhook.name} webhook url was successfully deleted"
    return Answer(payload={"data": {"success": True, "message": message}})


def list_event_types(call: Call) -> Answer:
    return Answer(payload={"data": [{"id": key, "name": name} for key, name in _known_types(call).items()]})


def _event_type(call: Call, value: object) -> str:
    if not value:
        raise invalid("event_type", "The event type field is required.")
    if not isinstance(value, str) or value not in _known_types(call):
        raise invalid("event_type", "The selected event type is invalid.")
    return value


def get_sample(call: Call) -> Answer:
    return Answer(
        payload={"data": sample(_event_type(call, call.value("event_type") or call.json().get("event_type")))}
    )


def send_test_event(call: Call) -> Answer:
    """Send the sample to a URL, whether it is registered or not. It is tried once."""
    values, hooks = call.json(), call.world.hooks
    event_type, url = _event_type(call, values.get("event_type")), _url(values)
    delivery = hooks.new_delivery(call.workspace.id, url, event_type)
    delivery.tries = 1
    hooks.send([delivery])
    data = {"success": True, "message": "Successfully sent test webhook", "payload": sample(event_type)}
    return Answer(payload={"data": data})


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "status": "succeeded" if attempt.response_code == 200 else "failed",
        "response_code": attempt.response_code,
        "error": attempt.error,
        "created_at": stamp(attempt.at),
    }


def _delivery_row(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "webhook_url_id": delivery.webhook_id,
        "url": delivery.url,
        "status": delivery.status,
        "attempts": [_attempt_row(attempt) for attempt in delivery.attempts],
        "created_at": stamp(delivery.at),
        "updated_at": stamp(delivery.attempts[-1].at if delivery.attempts else delivery.at),
    }


def _event_row(call: Call, event: Event) -> dict[str, Any]:
    deliveries = [_delivery_row(delivery) for delivery in event.deliveries]
    return {
        "id": event.id,
        "uuid": call.world.hooks.uuid_of(event),
        "payload": envelope(event.happening, call.world.hooks.instance_url),
        "webhook_deliveries": deliveries,
        "created_at": stamp(event.stored_at),
        "updated_at": max([stamp(event.stored_at), *(row["updated_at"] for row in deliveries)]),
    }


def _moment(call: Call, name: str, *, is_end: bool) -> datetime | None:
    """Read a day or a moment; a day that ends a range belongs to it whole."""
    text = call.value(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        is_day = len(text) <= len("2026-01-05")
        return moment + (timedelta(days=1) if is_day else timedelta(microseconds=1)) * is_end
    except (ValueError, OverflowError):
        raise invalid(name, f"The {name.replace('_', ' ')} field must be a valid date.") from None


def _require_events(call: Call) -> None:
    if not call.config.has_events:
        raise Refused(404, {"message": f"The route {call.request.path.lstrip('/')} could not be found."})


def list_events(call: Call) -> Answer:
    """Tell the events of the last days, newest first, with what became of their deliveries."""
    _require_events(call)
    hooks, workspace_id = call.world.hooks, call.workspace.id
    earliest, end = call.world.now - KEPT, _moment(call, "end_date", is_end=True)
    low = max(earliest, _moment(call, "start_date", is_end=False) or earliest)
    events, first, last = hooks.between(workspace_id, low, end)
    wanted = (call.value("type") or "").lower()
    if wanted:
        ids = [event.id for event in reversed(events[first:last]) if event.happening.type == wanted]
        page = pages.by_cursor(ids, call.value("cursor"), call.url)
    else:
        page = pages.by_cursor(Newest(events, first, last), call.value("cursor"), call.url)
    return page_answer(page, lambda i: _event_row(call, hooks.find_event(workspace_id, i)))


def retry_attempt(call: Call) -> Answer:
    """Send a delivery once more, however it went."""
    _require_events(call)
    hooks = call.world.hooks
    delivery = hooks.attempts.get(pages.read_number(call.args[0]) or 0)
    if delivery is None or delivery.workspace_id != call.workspace.id:
        raise no_record("webhook_attempt", call.args[0])
    delivery.status, delivery.tries, delivery.delay = "pending", 1, 0.0
    hooks.resend([delivery])
    return Answer(payload={"data": {"success": True, "message": "The webhook is being sent again"}})
