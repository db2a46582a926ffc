"""The documented endpoints: who may ask, what is chosen, what is answered."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from bisonsync.sandbox import hook_routes, pages
from bisonsync.sandbox.calls import Call, Handler, Refused, forbidden, invalid, no_record, page_answer, paginate
from bisonsync.sandbox.http import Answer
from bisonsync.sandbox.rows import SERIES, Account, Tag
from bisonsync.sandbox.workspaces import Workspace

_STATUSES = ("connected", "not_connected", "pending_move", "pending_deletion")


def get_user(call: Call) -> Answer:
    created = "2024-05-06T08:00:00.000000Z"
    workspace = call.workspace.row(with_secret=call.config.webhook_secret)
    user = {
        "id": 1,
        "name": "Sandbox Operator",
        "email": "operator@example.com",
        call.config.identity_key: workspace,
        "profile_photo_path": None,
        "profile_photo_url": "https://example.com/avatar.png",
        "created_at": created,
        "updated_at": created,
    }
    return Answer(payload={"data": user})


def _visible(call: Call) -> Mapping[int, Workspace]:
    if call.token.kind == "super-admin" or call.config.see_all_workspaces:
        return call.world.workspaces
    return {call.workspace.id: call.workspace}


def _workspace_row(call: Call, workspace: Workspace) -> dict[str, Any]:
    return workspace.row(with_secret=call.config.webhook_secret)


def list_workspaces(call: Call) -> Answer:
    visible = _visible(call)
    if not call.config.paginate_workspaces:
        return Answer(payload={"data": [_workspace_row(call, w) for w in visible.values()]})
    page = pages.by_number(list(visible), pages.page_number(call.value("page")), call.url)
    return page_answer(page, lambda i: _workspace_row(call, visible[i]))


def _named_workspace(call: Call, text: object) -> Workspace:
    workspace = call.world.workspaces.get(pages.read_number(str(text)) or 0)
    if workspace is None:
        raise no_record("workspace", text)
    if workspace.id not in _visible(call):
        raise forbidden()
    return workspace


def get_workspace(call: Call) -> Answer:
    return Answer(payload={"data": _workspace_row(call, _named_workspace(call, call.args[0]))})


def switch_workspace(call: Call) -> Answer:
    if call.token.kind != "super-admin":
        raise forbidden()
    team_id = call.json().get("team_id")
    if team_id is None:
        raise invalid("team_id", "The team id field is required.")
    workspace = _named_workspace(call, team_id)
    call.world.switch(workspace.id, lag=call.config.switch_lag)
    return Answer(payload={"data": {"name": workspace.name}})


def mint_token(call: Call) -> Answer:
    if call.token.kind != "super-admin":
        raise forbidden()
    workspace = _named_workspace(call, call.args[0])
    name = call.json().get("name")
    if not isinstance(name, str) or not name.strip():
        raise invalid("name", "The name field is required.")
    token = call.world.mint(workspace.id, name)
    data = {
        "id": token.id,
        "name": token.name,
        "plain_text_token": token.plain,
        "token_hash": f"hash-of-token-{token.id}",
        "abilities": ["*"],
        "created_at": token.created_at,
        "updated_at": token.created_at,
    }
    return Answer(payload={"data": data})


def _choose(call: Call, *, extra: Callable[[Account], bool] | None = None) -> Sequence[int]:
    """Apply the filters that both lists of mailboxes know; without one the whole list, newest first."""
    search = (call.value("search") or "").lower()
    wanted, unwanted, untagged = call.ids("tag_ids"), call.ids("excluded_tag_ids"), call.flag("without_tags")
    order = call.workspace.accounts.order()
    if not (search or wanted or unwanted or untagged or extra):
        return order

    def fits(account: Account) -> bool:
        tags = {tag.id for tag in account.tags}
        return (
            (not search or search in account.email or search in account.name.lower())
            and (not wanted or bool(tags & wanted))
            and not tags & unwanted
            and not (untagged and tags)
            and (extra is None or extra(account))
        )

    return [i for i in order if fits(call.workspace.accounts[i])]


def list_sender_emails(call: Call) -> Answer:
    status = call.value("status")
    if status and status not in _STATUSES:
        raise invalid("status", "The selected status is invalid.")

    def has_status(account: Account) -> bool:
        return account.status.lower().replace(" ", "_") == status

    page = paginate(call, _choose(call, extra=has_status if status else None))
    workspace = call.workspace
    if not call.is_plain:
        return page_answer(page, lambda i: workspace.accounts[i].row())
    rows = b",".join([workspace.accounts.body(i) for i in page.ids])
    tail = json.dumps({"links": page.links, "meta": page.meta}, separators=(",", ":")).encode()
    return Answer(body=b'{"data":[' + rows + b"]," + tail[1:])


def _named_account(call: Call) -> Account:
    key = unquote(call.args[0]).lower()
    accounts = call.workspace.accounts
    number = pages.read_number(key)
    found = accounts.get(number) if number else next((a for a in accounts.values() if a.email == key), None)
    if found is None:
        raise no_record("sender_email", key)
    return found


def get_sender_email(call: Call) -> Answer:
    return Answer(payload={"data": _named_account(call).row()})


def list_tags(call: Call) -> Answer:
    def row(tag: Tag) -> dict[str, Any]:
        created = call.workspace.created_at
        return {**tag._asdict(), "created_at": created, "updated_at": created}

    return Answer(payload={"data": [row(tag) for tag in call.workspace.tags.values()]})


def _warmup_row(account: Account, days: int) -> dict[str, Any]:
    sent = days * (account.id % 30 + 5) if account.warmup_enabled else 0
    return {
        "id": account.id,
        "email": account.email,
        "name": account.name,
        "domain": account.email.partition("@")[2],
        "tags": [tag._asdict() for tag in account.tags],
        "warmup_emails_sent": sent,
        "warmup_replies_received": sent * 3 // 10,
        "warmup_emails_saved_from_spam": sent // 12,
        "warmup_score": round(100 - account.id % 37 * 0.5, 1) if account.warmup_enabled else 0,
        "warmup_bounces_received_count": account.id % 3,
        "warmup_bounces_caused_count": 0,
        "warmup_disabled_for_bouncing_count": 0,
    }


def _days(call: Call) -> int:
    """Count the days from start_date to end_date; absent they are the last ten days."""
    found: dict[str, date] = {}
    for name in ("start_date", "end_date"):
        try:
            found[name] = date.fromisoformat(call.value(name) or "")
        except ValueError:
            if call.value(name):
                raise invalid(name, f"The {name.replace('_', ' ')} is not a valid date.") from None
    today = call.world.now.date()
    return max(0, (found.get("end_date", today) - found.get("start_date", today)).days) + 1 if found else 11


def list_warmup(call: Call) -> Answer:
    status, days = call.value("warmup_status"), _days(call)

    def has_status(account: Account) -> bool:
        return account.warmup_enabled == (status == "enabled")

    page = paginate(call, _choose(call, extra=has_status if status else None))
    return page_answer(page, lambda i: _warmup_row(call.workspace.accounts[i], days))


_COLORS = ("#f54842", "#00E396", "#00B8D9", "#008FFB", "#FEB019", "#775DD0", "#3F51B5")
_LONGEST_SERIES_DAYS = 3660


def _range(call: Call) -> list[date]:
    """List the days from start_date to end_date, both of which are required."""
    ends: list[date] = []
    for name in ("start_date", "end_date"):
        shown = name.replace("_", " ")
        try:
            ends.append(date.fromisoformat(call.value(name) or ""))
        except ValueError:
            wrong = "is not a valid date." if call.value(name) else "field is required."
            raise invalid(name, f"The {shown} {wrong}") from None
    first, last = ends
    if not 0 <= (last - first).days < _LONGEST_SERIES_DAYS:
        raise invalid("end_date", "The end date must be a date after or equal to start date.")
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def list_daily_stats(call: Call) -> Answer:
    """Tell by how much the counters grew each day; mailboxes of other workspaces count nothing."""
    if call.config.daily_stats == "none":
        raise Refused(404, {"message": f"The route {call.request.path.lstrip('/')} could not be found."})
    days = _range(call)
    wanted = call.ids("sender_email_ids") if call.config.daily_stats == "filtered" else set[int]()
    totals = {day: Counter[str]() for day in days}
    # Nothing in here belongs to a campaign.
    for day in () if call.ids("campaign_ids") else days:
        gained = call.workspace.daily.get(day, {})
        for account_id in wanted & gained.keys() if wanted else gained.keys():
            totals[day] += gained[account_id]
    series = [
        {"label": label, "color": color, "dates": [[day.isoformat(), totals[day][counter]] for day in days]}
        for (label, counter), color in zip(SERIES.items(), _COLORS, strict=True)
    ]
    return Answer(payload={"data": series})


class Route(NamedTuple):
    """One path with its methods; in `template` the parts that vary are in braces."""

    template: str
    handlers: Mapping[str, Handler]
    is_list: bool = False


_EXACT = {
    route.template: route
    for route in (
        Route("/api/users", {"GET": get_user}),
        Route("/api/workspaces", {"GET": list_workspaces}, is_list=True),
        Route("/api/workspaces/v1.1", {"GET": list_workspaces}, is_list=True),
        Route("/api/workspaces/switch-workspace", {"POST": switch_workspace}),
        Route("/api/workspaces/v1.1/switch-workspace", {"POST": switch_workspace}),
        Route("/api/sender-emails", {"GET": list_sender_emails}, is_list=True),
        Route("/api/tags", {"GET": list_tags}, is_list=True),
        Route("/api/warmup/sender-emails", {"GET": list_warmup}, is_list=True),
        Route("/api/campaign-events/stats", {"GET": list_daily_stats}),
        Route("/api/webhook-url", {"GET": hook_routes.list_webhooks, "POST": hook_routes.add_webhook}, is_list=True),
        Route("/api/webhook-events/event-types", {"GET": hook_routes.list_event_types}),
        Route("/api/webhook-events/sample-payload", {"GET": hook_routes.get_sample}),
        Route("/api/webhook-events/test-event", {"POST": hook_routes.send_test_event}),
        Route("/api/events", {"GET": hook_routes.list_events}, is_list=True),
    )
}
_VARYING = [
    (re.compile(re.sub(r"\{\w+\}", "([^/]+)", route.template)), route)
    for route in (
        Route("/api/sender-emails/{sender_email_id}", {"GET": get_sender_email}),
        Route("/api/workspaces/v1.1/{team_id}", {"GET": get_workspace}),
        Route("/api/workspaces/{team_id}", {"GET": get_workspace}),
        Route("/api/workspaces/v1.1/{team_id}/api-tokens", {"POST": mint_token}),
        Route(
            "/api/webhook-url/{webhook_url_id}",
            {
                "GET": hook_routes.get_webhook,
                "PUT": hook_routes.replace_webhook,
                "DELETE": hook_routes.delete_webhook,
            },
        ),
        Route("/api/webhook-attempts/{attempt_id}/retry", {"POST": hook_routes.retry_attempt}),
    )
]


def find_route(path: str) -> tuple[Route, tuple[str, ...]] | None:
    """Find the route of a path, with the values of its varying parts."""
    route = _EXACT.get(path)
    if route is not None:
        return route, ()
    return next(((route, m.groups()) for pattern, route in _VARYING if (m := pattern.fullmatch(path))), None)


def parse_query(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True) if query else []
