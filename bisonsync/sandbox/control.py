"""The control endpoint under /_sandbox/: look at the world, change it, make it behave badly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from bisonsync.sandbox import bursts, seed
from bisonsync.sandbox.advance import advance, advance_from, change_some
from bisonsync.sandbox.config import MOODS, with_moods
from bisonsync.sandbox.faults import fault_from
from bisonsync.sandbox.http import Answer, Request
from bisonsync.sandbox.pages import PER_PAGE

if TYPE_CHECKING:
    from bisonsync.sandbox.app import App


def summary(app: App) -> dict[str, Any]:
    """Tell the state in figures: workspaces, requests, faults, moods, tokens without their secret."""
    world = app.world
    accounts = [a for w in world.workspaces.values() for a in w.accounts.values()]
    return {
        "seed": world.seed,
        "now": world.now.isoformat(),
        "current_workspace_id": world.current_workspace_id,
        "accounts": len(accounts),
        "connected": sum(a.is_connected for a in accounts),
        "workspaces": [
            {
                "id": w.id,
                "name": w.name,
                "accounts": len(w.accounts),
                "connected": sum(a.is_connected for a in w.accounts.values()),
                "campaigns": len(w.campaigns),
                "pages": max(1, -(-len(w.accounts) // PER_PAGE)),
                "requests": app.counters.summary_of(w.id),
            }
            for w in world.workspaces.values()
        ],
        "requests": app.counters.summary(),
        "webhooks": {
            "registered": len(world.hooks.webhooks),
            "events": sum(map(len, world.hooks.events.values())),
            "deliveries_waiting": app.courier.waiting(),
        },
        "faults": [{"id": e.id, "seen": e.seen, "hits": e.hits, **_shown(e.fault)} for e in app.faults.entries],
        "moods": {name: _plain(getattr(app.config, name)) for name in MOODS},
        "tokens": [
            {"id": t.id, "name": t.name, "kind": t.kind, "workspace_id": t.workspace_id, "revoked": t.revoked}
            for t in world.tokens.values()
        ],
    }


def _plain(value: Any) -> Any:
    return dict(cast(Mapping[Any, Any], value)) if isinstance(value, Mapping) else value


def _shown(fault: Any) -> dict[str, Any]:
    defaults = type(fault)(kind="status")
    names = [name for name in fault.__slots__ if name == "kind" or getattr(fault, name) != getattr(defaults, name)]
    return {name: _plain(getattr(fault, name)) for name in names}


def _truth(app: App, values: Mapping[str, Any]) -> Any:
    return {str(workspace_id): rows for workspace_id, rows in app.world.truth().items()}


def _campaigns(app: App, values: Mapping[str, Any]) -> Any:
    return {str(workspace_id): rows for workspace_id, rows in app.world.campaigns().items()}


def _advance(app: App, values: Mapping[str, Any]) -> Any:
    return advance(app.world, advance_from(values))


def _change(app: App, values: Mapping[str, Any]) -> Any:
    names = {"percent": "percent", "count": "count", "workspace": "workspace_id", "only_updated_at": "only_updated_at"}
    names |= {"seed": "seed_", "campaigns": "campaigns"}
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; a change has {', '.join(names)}")
    ids = change_some(app.world, **{names[name]: value for name, value in values.items()})
    return {"changed": len(ids), "ids": ids}


def _add_faults(app: App, values: Any) -> Any:
    given = cast(list[Any], values) if isinstance(values, list) else [values]
    faults = [fault_from(value) for value in given]
    return {"ids": [app.faults.add(fault) for fault in faults]}


def _clear_faults(app: App, values: Mapping[str, Any]) -> Any:
    app.faults.clear(values.get("id"))
    return {"left": len(app.faults.entries)}


def _moods(app: App, values: Mapping[str, Any]) -> Any:
    app.config = with_moods(app.config, values)
    return {name: _plain(getattr(app.config, name)) for name in MOODS}


def _forget(app: App, values: Mapping[str, Any]) -> Any:
    app.counters.forget()
    return app.counters.summary()


def _reset(app: App, values: Mapping[str, Any]) -> Any:
    making = {name: values[name] for name in ("seed", "workspaces", "accounts", "campaigns") if name in values}
    if "skew" in values:
        making["skew"] = tuple(values["skew"])
    unknown = sorted(set(values) - {*making, "skew"})
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; a reset takes seed, workspaces, accounts, campaigns, skew")
    app.reset(replace(app.config, **making))
    return summary(app)


def make_events(app: App, values: Mapping[str, Any]) -> dict[str, Any]:
    """Let so many events of a type happen at once."""
    names = ("type", "count", "workspace", "account")
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; events have {', '.join(names)}")
    return bursts.make_events(app.world, app.watcher, **values)


def _set_account(app: App, values: Mapping[str, Any]) -> Any:
    account_id, fields = int(values["id"]), dict(values["set"])
    if "id" in fields:
        raise ValueError("the id of an account stays what it is")
    if "tags" in fields:
        app.world.retag(account_id, fields.pop("tags"))
    return app.world.change(account_id, **fields).row()


def _remove_account(app: App, values: Mapping[str, Any]) -> Any:
    return app.world.remove(int(values["id"])).row()


def _move_account(app: App, values: Mapping[str, Any]) -> Any:
    return app.world.move(int(values["id"]), int(values["to"])).row()


def _copy_account(app: App, values: Mapping[str, Any]) -> Any:
    return app.world.copy_to(int(values["id"]), int(values["to"]), new_id=bool(values.get("new_id", True))).row()


def _set_campaign(app: App, values: Mapping[str, Any]) -> Any:
    fields = dict(values["set"])
    if "id" in fields:
        raise ValueError("the id of a campaign stays what it is")
    return app.world.change_campaign(int(values["id"]), **fields).row()


def _remove_campaign(app: App, values: Mapping[str, Any]) -> Any:
    return app.world.remove_campaign(int(values["id"])).row()


def _open_workspace(app: App, values: Mapping[str, Any]) -> Any:
    world = app.world
    workspace = seed.add_workspace(world, name=str(values.get("name", "")))
    for _ in range(int(values.get("accounts", 0))):
        seed.new_account(world, workspace, world.rng("open", world.next_account_id), created=world.now)
    return workspace.row()


def _close_workspace(app: App, values: Mapping[str, Any]) -> Any:
    app.world.remove_workspace(int(values["id"]))
    return {"left": len(app.world.workspaces)}


def _rename_workspace(app: App, values: Mapping[str, Any]) -> Any:
    app.world.rename(int(values["id"]), str(values["name"]))
    return app.world.workspaces[int(values["id"])].row()


def _mint(app: App, values: Mapping[str, Any]) -> Any:
    token = app.world.mint(int(values["workspace"]), str(values.get("name", "token")))
    return {"id": token.id, "token": token.plain}


def _revoke(app: App, values: Mapping[str, Any]) -> Any:
    app.world.revoke(int(values["id"]))
    return {"revoked": values["id"]}


def _refuse(app: App, values: Mapping[str, Any]) -> Any:
    seconds = float(values.get("seconds", 1.0))
    if app.refuse is None:
        raise ValueError("nothing is listening")
    app.refuse(seconds)
    return {"seconds": seconds}


_ACTIONS: Mapping[tuple[str, str], Callable[[App, Any], Any]] = {
    ("GET", "state"): lambda app, _: summary(app),
    ("GET", "accounts"): _truth,
    ("GET", "campaigns"): _campaigns,
    ("POST", "advance"): _advance,
    ("POST", "change"): _change,
    ("POST", "events"): make_events,
    ("POST", "faults"): _add_faults,
    ("POST", "faults/clear"): _clear_faults,
    ("POST", "moods"): _moods,
    ("POST", "counters/forget"): _forget,
    ("POST", "reset"): _reset,
    ("POST", "tokens"): _mint,
    ("POST", "tokens/revoke"): _revoke,
    ("POST", "accounts/set"): _set_account,
    ("POST", "accounts/remove"): _remove_account,
    ("POST", "accounts/move"): _move_account,
    ("POST", "accounts/copy"): _copy_account,
    ("POST", "campaigns/set"): _set_campaign,
    ("POST", "campaigns/remove"): _remove_campaign,
    ("POST", "workspaces/open"): _open_workspace,
    ("POST", "workspaces/close"): _close_workspace,
    ("POST", "workspaces/rename"): _rename_workspace,
    ("POST", "refuse"): _refuse,
}


def handle(app: App, request: Request) -> Answer:
    """Answer a control request: 403 from elsewhere, 404 for an unknown one, 422 for values it cannot use."""
    if not request.is_local:
        return Answer(403, payload={"message": "The control endpoint answers this machine only."})
    name = request.path.removeprefix("/_sandbox/").strip("/")
    action = _ACTIONS.get((request.method, name))
    if action is None:
        known = ", ".join(f"{method} {known}" for method, known in _ACTIONS)
        return Answer(404, payload={"message": f"No such control: {request.method} {name}. There are: {known}."})
    try:
        return Answer(payload=action(app, json.loads(request.body or b"{}")))
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        return Answer(422, payload={"message": f"{type(problem).__name__}: {problem}"})
