"""The documented endpoints: who may ask, what is chosen, what is answered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from bisonsync.sandbox import hook_routes, list_routes, pages
from bisonsync.sandbox.calls import Call, Handler, Refused, forbidden, invalid, no_record, page_answer
from bisonsync.sandbox.http import Answer
from bisonsync.sandbox.rows import SERIES
from bisonsync.sandbox.workspaces import Workspace


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
    # No mail in here belongs to a campaign.
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
        Route("/api/sender-emails", {"GET": list_routes.list_sender_emails}, is_list=True),
        Route("/api/campaigns", {"GET": list_routes.list_campaigns}, is_list=True),
        Route("/api/tags", {"GET": list_routes.list_tags}, is_list=True),
        Route("/api/warmup/sender-emails", {"GET": list_routes.list_warmup}, is_list=True),
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
        Route("/api/sender-emails/{sender_email_id}", {"GET": list_routes.get_sender_email}),
        Route("/api/campaigns/{campaign_id}", {"GET": list_routes.get_campaign}),
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
