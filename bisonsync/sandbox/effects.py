"""What each fault does.

Answered instead of the request:

* `status`   `status` (or one of `statuses`, in turn) with `body` json, html or empty, and for 429 `retry_after`
             seconds, date, body or none, of `seconds`; `headers` are added
* `html`     an HTML error page with status 200
* `failure`  status 200 with `{"data": {"success": false}}`
* `reply`    exactly `status`, `headers`, `content_type` and `body` (text)

The answer suffers on its way; the request has had its effect:

* `slow`     `seconds` later                      * `drip`   in small pieces over `seconds`
* `truncate` ends after `fraction` of the body    * `reset`  the same with a connection reset
* `close`    closed before the first byte         * `hang`   never comes (closed after `seconds`, if given)
* `content_type` another Content-Type

The answer is wrong in itself; `rows` (positions in the page) or `accounts` (ids) choose rows, else all of them:

* `fields`   `set` overwrites or adds fields, `drop` takes them away (also of an object that is no list)
* `strings`  numbers as strings                   * `statuses` the `words` in turn as `status`
* `no_id`    a row without `id` (or `set`)        * `no_token` no `plain_text_token`
* `meta`     `set`, `drop`, and `by` is added to `total`     * `links` the same without `by`
* `duplicate` the page's last row is its first again (with `insert`: that many rows are appended)
* `empty_list` nothing at all: `total` 0          * `empty_page` no rows, `meta` as it should be

The world moves:

* `switch`   the super-admin's user goes to workspace `to`     * `identity` the api token acts in workspace `to`
* `shift`    after the page was served, `insert` newest and `remove` newest accounts of that workspace
             (with `path` /api/campaigns: campaigns)
* `turn`     after the page was served, the mood `paging` is `body`: both, number, cursor

The delivery of a webhook goes wrong; `event` chooses the type, `path` where to, `workspace` whose

* `lose`       never sent; the event is in the list of events alone
* `redeliver`  sent once more, or `insert` times       * `reorder` the deliveries of one step that it hits in any order
* `wrap`       inside `data`, or with `body` payload inside `payload`, as in the list of events
* `reword`     tries after the first and copies have their keys in another order and another `event.name`
* `lower_type` `event.type` in lower case              * all of these: `seconds` later
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any, cast
from urllib.parse import urlsplit

from bisonsync.sandbox import campaigns, seed
from bisonsync.sandbox.faults import Fault, FaultBook, Target
from bisonsync.sandbox.hooks import Delivery
from bisonsync.sandbox.http import Answer
from bisonsync.sandbox.state import World
from bisonsync.sandbox.workspaces import Token

_MESSAGES = {
    401: {"message": "Unauthenticated."},
    403: {"error": "forbidden"},
    404: {"data": {"success": False, "message": "Record not found", "record_not_found": None}},
    422: {"message": "The page field is too large.", "errors": {"page": ["The page field is too large."]}},
    429: {"message": "Too Many Attempts."},
}


def html_page(status: int, title: str) -> Answer:
    """Make an HTML error page, as a proxy in front of the API would."""
    text = f"<!DOCTYPE html><html><head><title>{status} {title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(status, text.encode(), content_type="text/html; charset=UTF-8")


def refusal(status: int, *, body: str = "json") -> Answer:
    """Make the usual answer of an error status."""
    if body == "html":
        return html_page(status, "Server Error" if status >= 500 else "Error")
    if body == "empty":
        return Answer(status)
    return Answer(status, payload=_MESSAGES.get(status, {"message": "Server Error"}))


def too_many(how: str, seconds: float) -> Answer:
    """Make a 429 that tells the waiting time as header in seconds, header as date, in the body, or not at all."""
    answer = refusal(429)
    whole = max(1, -int(-seconds // 1))
    if how == "seconds":
        answer.headers = (("Retry-After", str(whole)),)
    elif how == "date":
        answer.headers = (("Retry-After", formatdate(time.time() + whole, usegmt=True)),)
    elif how == "body":
        answer.payload = {"error": "rate_limited", "retry_after": whole}
    return answer


def answer_instead(fault: Fault, hit: int) -> Answer:
    """Make the answer of a fault that takes the request's place; `hit` counts its hits from 0."""
    if fault.kind == "html":
        return html_page(200, "Service Unavailable")
    if fault.kind == "failure":
        return Answer(payload={"data": {"success": False, "message": "Something went wrong. Please try again."}})
    if fault.kind == "reply":
        headers = tuple(fault.headers.items())
        return Answer(fault.status, fault.body.encode(), content_type=fault.content_type, headers=headers)
    status = fault.statuses[hit % len(fault.statuses)] if fault.statuses else fault.status
    answer = too_many(fault.retry_after, fault.seconds) if status == 429 else refusal(status, body=fault.body)
    answer.headers += tuple(fault.headers.items())
    return answer


def damage_delivery(fault: Fault, answer: Answer) -> None:
    """Let the answer suffer on its way."""
    if fault.kind == "slow":
        answer.delay += fault.seconds
    elif fault.kind == "content_type":
        answer.content_type = fault.content_type
    else:
        answer.delivery = cast(Any, fault.kind)
        answer.fraction, answer.seconds = fault.fraction, fault.seconds


def _chosen(fault: Fault, rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    if not fault.rows and not fault.accounts:
        return rows
    return [row for i, row in enumerate(rows) if i in fault.rows or row.get("id") in fault.accounts]


def _overwrite(fault: Fault, row: dict[str, Any]) -> None:
    row.update(fault.set)
    for name in fault.drop:
        row.pop(name, None)


def _fields(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for row in _chosen(fault, rows):
        _overwrite(fault, row)


def _strings(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for row in _chosen(fault, rows):
        numbers = {k: str(v) for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        row.update(numbers)
        if isinstance(row.get("dates"), list):
            row["dates"] = [[day, str(count)] for day, count in row["dates"]]


def _statuses(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for number, row in enumerate(_chosen(fault, rows)):
        row["status"] = fault.words[number % len(fault.words)]


def _no_id(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for row in _chosen(fault, rows) if fault.rows or fault.accounts else rows[:1]:
        row.pop("id", None)
        row.update(fault.set)


def _no_token(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row.pop("plain_text_token", None)


def _meta(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    meta = payload.get("meta")
    if isinstance(meta, dict):
        meta = cast(dict[str, Any], meta)
        if "total" in meta:
            meta["total"] += fault.by
        _overwrite(fault, meta)


def _links(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    if isinstance(payload.get("links"), dict):
        _overwrite(fault, payload["links"])


def _duplicate(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    if fault.insert:
        rows += rows[: fault.insert]
    elif rows:
        rows[-1] = rows[0]


def _empty_page(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows.clear()


def _empty_list(fault: Fault, payload: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows.clear()
    if "total" in payload.get("meta", {}):
        payload["meta"].update({"total": 0, "last_page": 1, "from": None, "to": None})
    if isinstance(payload.get("links"), dict):
        payload["links"]["next"] = None


_CONTENT: dict[str, Callable[[Fault, dict[str, Any], list[dict[str, Any]]], None]] = {
    "fields": _fields,
    "strings": _strings,
    "statuses": _statuses,
    "no_id": _no_id,
    "no_token": _no_token,
    "meta": _meta,
    "links": _links,
    "duplicate": _duplicate,
    "empty_page": _empty_page,
    "empty_list": _empty_list,
}


def spoil(fault: Fault, payload: dict[str, Any]) -> None:
    """Change the content of an answer in place."""
    part: Any = payload.get("data")
    rows: Any = [part] if isinstance(part, dict) else part
    if isinstance(rows, list):
        _CONTENT[fault.kind](fault, payload, cast(list[dict[str, Any]], rows))


def move_scope(fault: Fault, world: World, token: Token | None) -> None:
    """Let the user of the super-admin tokens, or one api token, act in another workspace."""
    if fault.to is None or token is None:
        return
    if fault.kind == "switch":
        world.current_workspace_id = fault.to
    else:
        token.workspace_id = fault.to


def damage_webhooks(book: FaultBook, deliveries: list[Delivery], world: World) -> list[Delivery]:
    """Let faults have their way with deliveries that are about to leave; returns what leaves, in its order."""
    if not book.entries:
        return deliveries
    leaving: list[Delivery] = []
    shuffled: list[int] = []
    for delivery in deliveries:
        target = Target("POST", urlsplit(delivery.url).path, delivery.workspace_id, None, "", delivery.type)
        faults = {fault.kind: fault for fault in book.pick_webhook(target)}
        if "lose" in faults:
            if delivery.event is not None and delivery in delivery.event.deliveries:
                delivery.event.deliveries.remove(delivery)
            continue
        delivery.delay = max((fault.seconds for fault in faults.values()), default=0.0)
        delivery.is_lower, delivery.is_reworded = "lower_type" in faults, "reword" in faults
        if "wrap" in faults:
            delivery.wrap = "payload" if faults["wrap"].body == "payload" else "data"
        copies = max(1, faults["redeliver"].insert) if "redeliver" in faults else 0
        for number in range(copies + 1):
            if "reorder" in faults:
                shuffled.append(len(leaving))
            leaving.append(delivery if number == 0 else world.hooks.copy_delivery(delivery))
    mixed = world.rng("reorder", world.hooks.number("shuffle")).sample(shuffled, len(shuffled))
    before = list(leaving)
    for position, taken in zip(shuffled, mixed, strict=True):
        leaving[position] = before[taken]
    return leaving


def shift_rows(fault: Fault, world: World, workspace_id: int | None) -> None:
    """Remove and add the newest rows of a workspace's list, so that the rows of later pages move."""
    workspace = world.workspaces.get(workspace_id or 0)
    if workspace is None:
        return
    random_ = world.rng("shift", world.next_account_id, *([world.next_campaign_id] if fault.is_of_campaigns else []))
    if fault.is_of_campaigns:
        for campaign_id in workspace.campaigns.order()[: fault.remove]:
            world.remove_campaign(campaign_id)
        for _ in range(fault.insert):
            campaigns.new_campaign(world, workspace, random_, created=world.now)
        return
    for account_id in workspace.accounts.order()[: fault.remove]:
        world.take(workspace, account_id)
    for _ in range(fault.insert):
        seed.new_account(world, workspace, random_, created=world.now)
