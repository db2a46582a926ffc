"""Makes events by the number: each is a change of the world, so that counters and states agree with it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from bisonsync.sandbox import seed
from bisonsync.sandbox.happenings import Watcher
from bisonsync.sandbox.rows import Account
from bisonsync.sandbox.samples import EVENT_TYPES
from bisonsync.sandbox.state import World
from bisonsync.sandbox.workspaces import Workspace

_MIX = {
    "email_sent": 92.0,
    "lead_first_contacted": 3.0,
    "lead_replied": 2.0,
    "email_bounced": 1.2,
    "email_opened": 0.8,
    "lead_interested": 0.4,
    "lead_unsubscribed": 0.3,
    "untracked_reply_received": 0.2,
    "manual_email_sent": 0.1,
}
_GAINS = {
    "email_sent": ("emails_sent_count",),
    "lead_first_contacted": ("emails_sent_count", "total_leads_contacted_count"),
    "lead_replied": ("total_replied_count", "unique_replied_count"),
    "lead_interested": ("interested_leads_count",),
    "lead_unsubscribed": ("unsubscribed_count",),
    "email_opened": ("total_opened_count", "unique_opened_count"),
    "email_bounced": ("bounced_count",),
}


def make_events(
    world: World,
    watcher: Watcher,
    *,
    type: str = "",
    count: int = 1,
    workspace: int | None = None,
    account: int | None = None,
) -> dict[str, Any]:
    """Let so many things of a type (else a usual mix of them) happen now, to mailboxes chosen by the seed.

    A first contact is a mail as well and makes two events. It ends early when no mailbox fits any more. Raises
    ValueError when none fits at all.
    """
    if type and type not in EVENT_TYPES:
        raise ValueError(f"unknown event type {type!r}; there are {', '.join(EVENT_TYPES)}")
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"count is a number from 0 up, not {count!r}")
    world.steps += 1
    random_ = world.rng("burst", world.steps)
    if account is not None:
        homes = [world.home(account)]
    else:
        homes = [world.workspaces[workspace]] if workspace is not None else list(world.workspaces.values())
    kinds = [type] * count if type else random_.choices(list(_MIX), list(_MIX.values()), k=count)
    places = [(home, number) for home in homes for number in (home.accounts.order() if account is None else [account])]
    made = Counter[str]()
    with world.hooks.batch():
        for kind in kinds:
            if not _happen(world, watcher, kind, homes, places, random_):
                break
            made[kind] += 1
    if kinds and not made:
        raise ValueError(f"{kinds[0]} can happen to none of the mailboxes")
    return {"made": dict(made)}


def _fits(kind: str, account: Account) -> bool:
    if kind == "tag_removed":
        return bool(account.tags)
    if kind.startswith("warmup_"):
        return account.warmup_enabled
    return kind in ("email_account_removed", "tag_attached") or account.is_connected != (
        kind == "email_account_reconnected"
    )


def _pick(kind: str, places: list[tuple[Workspace, int]], random_: random.Random) -> tuple[Workspace, Account] | None:
    for _ in range(20 if places else 0):
        workspace, number = random_.choice(places)
        if number in workspace.accounts and _fits(kind, workspace.accounts[number]):
            return workspace, workspace.accounts[number]
    fitting = [(w, w.accounts[n]) for w, n in places if n in w.accounts and _fits(kind, w.accounts[n])]
    return random_.choice(fitting) if fitting else None


def _happen(
    world: World,
    watcher: Watcher,
    kind: str,
    homes: list[Workspace],
    places: list[tuple[Workspace, int]],
    random_: random.Random,
) -> bool:
    """Let one thing happen; returns whether it could."""
    if kind == "email_account_added":
        seed.new_account(world, random_.choice(homes), random_, created=world.now)
        return True
    found = _pick(kind, places, random_)
    if found is None:
        return False
    workspace, account = found
    changes: dict[str, Any] = {name: getattr(account, name) + 1 for name in _GAINS.get(kind, ())}
    if kind == "email_account_removed":
        world.take(workspace, account.id)
    elif kind == "email_account_disconnected":
        changes["status"] = "Not connected"
    elif kind == "email_account_reconnected":
        changes["status"] = "Connected"
    elif kind == "tag_attached":
        changes["tags"] = (*account.tags, world.add_tag(workspace, f"Tag {len(workspace.tags) + 1}"))
    elif kind == "tag_removed":
        changes["tags"] = account.tags[:-1]
    elif kind.startswith("warmup_"):
        watcher.record(kind, workspace, world.change(account.id, workspace_id=workspace.id, warmup_enabled=False))
    elif not changes:
        watcher.record(kind, workspace, account)
    if changes:
        world.change(account.id, workspace_id=workspace.id, **changes)
    return True
