"""Moves time on: counters grow; accounts come, go, disconnect, reconnect, move and are re-tagged; names change.

Campaigns come, go, pause and resume beside them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from bisonsync.sandbox import seed
from bisonsync.sandbox.campaigns import advance_campaigns
from bisonsync.sandbox.rows import COUNTERS
from bisonsync.sandbox.state import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """How long a step is and how many accounts each thing happens to; None: a share of all that fits the time.

    `active` is the share of connected accounts, and of active campaigns, that send in the step; `campaigns_turn`
    campaigns are paused, or go on if they are.
    """

    minutes: float = 60.0
    active: float = 0.5
    come: int | None = None
    go: int | None = None
    disconnect: int | None = None
    reconnect: int | None = None
    move: int | None = None
    retag: int | None = None
    rename: int = 0
    campaigns_come: int | None = None
    campaigns_go: int | None = None
    campaigns_turn: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.minutes < 0 or not 0 <= self.active <= 1:
            raise ValueError("minutes is not negative and active is between 0 and 1")


_PER_DAY = {"come": 0.01, "go": 0.004, "disconnect": 0.02, "reconnect": 0.018, "move": 0.002, "retag": 0.01}


def advance_from(values: Mapping[str, Any]) -> Advance:
    """Read a step from JSON values. Raises ValueError naming what is unknown."""
    names = [f.name for f in fields(Advance)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; a step has {', '.join(names)}")
    return Advance(**values)


def _ids(world: World, *, connected: bool | None = None) -> list[int]:
    return [
        account.id
        for workspace in world.workspaces.values()
        for account in workspace.accounts.values()
        if connected is None or account.is_connected == connected
    ]


def _pick(random_: random.Random, ids: list[int], wanted: int) -> list[int]:
    return random_.sample(sorted(ids), min(wanted, len(ids)))


def _grow(world: World, random_: random.Random, step: Advance) -> int:
    days, grown, ended = step.minutes / 1440, 0, world.now
    for workspace in world.workspaces.values():
        for account_id in reversed(workspace.accounts.order()):
            account = workspace.accounts[account_id]
            if not account.is_connected or random_.random() >= step.active:
                continue
            wanted = account.daily_limit * days * random_.uniform(0.4, 1)
            sent = int(wanted) + (random_.random() < wanted % 1)
            if sent:
                after = seed.grown(account, random_, sent=sent)._replace(updated_at=world.after(account))
                world.grow(workspace, after, began=ended - timedelta(minutes=step.minutes), ended=ended)
                grown += 1
    return grown


def _come(world: World, random_: random.Random, wanted: int) -> None:
    for _ in range(wanted):
        workspace = world.workspaces[random_.choice(sorted(world.workspaces))]
        seed.new_account(world, workspace, random_, created=world.now)


def _move(world: World, random_: random.Random, ids: list[int]) -> None:
    for account_id in ids:
        home = world.home(account_id).id
        world.move(account_id, random_.choice([i for i in sorted(world.workspaces) if i != home]))


def _retag(world: World, random_: random.Random, ids: list[int]) -> None:
    for account_id in ids:
        tags = world.home(account_id).accounts[account_id].tags
        names = [tag.name for tag in tags if tag.default]
        reseller = random_.choice(
            [name for name in (*seed.RESELLERS, "burned") if name and name not in {t.name for t in tags}]
        )
        world.retag(account_id, [*names, reseller])


def _rename(world: World, random_: random.Random, wanted: int) -> None:
    for workspace_id in _pick(random_, list(world.workspaces), wanted):
        taken = {workspace.name for workspace in world.workspaces.values()}
        number = next(n for n in range(world.steps * 7, 10**6) if seed.workspace_name(n) not in taken)
        world.rename(workspace_id, seed.workspace_name(number))


def advance(world: World, step: Advance) -> dict[str, int]:
    """Move the world on by one step and return how many accounts each thing happened to."""
    with world.hooks.batch():
        return _advance(world, step)


def _advance(world: World, step: Advance) -> dict[str, int]:
    world.steps += 1
    random_ = world.rng("advance", world.steps, "" if step.seed is None else step.seed)
    world.pass_time(step.minutes)
    total = len(_ids(world))
    counts: dict[str, int] = {}
    for name, share in _PER_DAY.items():
        given: int | None = getattr(step, name)
        expected = total * share * step.minutes / 1440
        counts[name] = int(expected) + (random_.random() < expected % 1) if given is None else given
    counts["grown"] = _grow(world, random_, step)
    down = _ids(world, connected=False)
    for name, ids, status in (
        ("reconnect", down, "Connected"),
        ("disconnect", _ids(world, connected=True), "Not connected"),
    ):
        chosen = _pick(random_, ids, counts[name])
        counts[name] = len(chosen)
        for account_id in chosen:
            world.change(account_id, status=status)
    gone = _pick(random_, _ids(world), counts["go"])
    for account_id in gone:
        world.remove(account_id)
    moved = _pick(random_, _ids(world), counts["move"] if len(world.workspaces) > 1 else 0)
    _move(world, random_, moved)
    retagged = _pick(random_, _ids(world), counts["retag"])
    _retag(world, random_, retagged)
    _come(world, random_, counts["come"])
    _rename(world, random_, step.rename)
    return {
        **counts,
        "go": len(gone),
        "move": len(moved),
        "retag": len(retagged),
        "rename": min(step.rename, len(world.workspaces)),
        **advance_campaigns(world, step),
    }


def change_some(
    world: World,
    *,
    percent: float | None = None,
    count: int | None = None,
    workspace_id: int | None = None,
    only_updated_at: bool = False,
    seed_: int = 0,
    campaigns: bool = False,
) -> list[int]:
    """Change exactly that share (rounded) or number of accounts, or of campaigns, and return their ids.

    Each that is chosen sent at least one mail more; with `only_updated_at` nothing but that field moves.
    """
    if (percent is None) == (count is None):
        raise ValueError("give either percent or count")
    homes = [world.workspaces[workspace_id]] if workspace_id is not None else list(world.workspaces.values())
    ids = [row_id for workspace in homes for row_id in (workspace.campaigns if campaigns else workspace.accounts)]
    wanted = round(len(ids) * percent / 100) if percent is not None else (count or 0)
    if wanted > len(ids):
        raise ValueError(f"there are only {len(ids)} {'campaigns' if campaigns else 'accounts'}")
    world.steps += 1
    random_ = world.rng("change", world.steps, seed_)
    world.pass_time(1)
    chosen = sorted(_pick(random_, ids, wanted))
    with world.hooks.batch():
        for workspace in homes:
            for campaign_id in (i for i in chosen if campaigns and i in workspace.campaigns):
                sent = workspace.campaigns[campaign_id].emails_sent + random_.randint(1, 9)
                world.change_campaign(campaign_id, **({} if only_updated_at else {"emails_sent": sent}))
            for account_id in (i for i in chosen if not campaigns and i in workspace.accounts):
                account = workspace.accounts[account_id]
                more = {} if only_updated_at else {COUNTERS[0]: account.emails_sent_count + random_.randint(1, 9)}
                world.change(account_id, workspace_id=workspace.id, **more)
    return chosen
