"""Campaigns: how they begin, what they gain, and what becomes of them as time passes."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from bisonsync.sandbox.moments import stamp
from bisonsync.sandbox.names import NAME_WORDS, TRADES
from bisonsync.sandbox.rows import Campaign
from bisonsync.sandbox.workspaces import Workspace

if TYPE_CHECKING:
    from bisonsync.sandbox.advance import Advance
    from bisonsync.sandbox.state import World

_STATUSES = ("active", "active", "active", "paused", "completed", "completed", "draft", "archived")
# Of all campaigns in a day.
_PER_DAY = {"campaigns_come": 0.02, "campaigns_go": 0.005, "campaigns_turn": 0.05}


def new_campaign(
    world: World, workspace: Workspace, random_: random.Random, *, created: datetime, status: str = "draft"
) -> Campaign:
    """Make a campaign that has sent nothing and put it into the workspace."""
    number = world.new_campaign_id()
    name = f"{random_.choice(TRADES)} {random_.choice(NAME_WORDS)} #{number}"
    tag = workspace.tag_named("Important") if random_.random() < 0.3 else None
    campaign = Campaign(
        id=number,
        uuid=str(uuid.UUID(int=random_.getrandbits(128), version=4)),
        sequence_id=number + 4000,
        name=name,
        type="reply_followup" if random_.random() < 0.1 else "outbound",
        status=status,
        completion_percentage=0.0,
        emails_sent=0,
        opened=0,
        unique_opens=0,
        replied=0,
        unique_replies=0,
        bounced=0,
        unsubscribed=0,
        interested=0,
        total_leads_contacted=0,
        total_leads=random_.randint(5, 80) * 50,
        max_emails_per_day=random_.choice((250, 500, 1000)),
        max_new_leads_per_day=random_.choice((100, 250, 1000)),
        plain_text=random_.random() < 0.7,
        open_tracking=random_.random() < 0.2,
        sequence_prioritization=random_.choice(("followups", "new_leads")),
        can_unsubscribe=random_.random() < 0.5,
        unsubscribe_text="Unsubscribe here" if random_.random() < 0.5 else None,
        include_auto_replies_in_stats=random_.random() < 0.5,
        daily_max_sends_per_receiving_domain=random_.choice((None, 5, 20)),
        created_at=stamp(created),
        updated_at=stamp(created),
        tags=(tag,) if tag else (),
    )
    workspace.campaigns.put(campaign)
    return campaign


def grown(campaign: Campaign, random_: random.Random, *, sent: int) -> Campaign:
    """Return the campaign after it sent that many more mails, with what usually follows from them."""
    replies = round(sent * random_.uniform(0.02, 0.05))
    unique = round(replies * random_.uniform(0.6, 1))
    opens = round(sent * random_.uniform(0.2, 0.5)) if campaign.open_tracking else 0
    leads = campaign.total_leads or 0
    contacted = min(leads, campaign.total_leads_contacted + round(sent * random_.uniform(0.4, 0.7)))
    return campaign._replace(
        emails_sent=campaign.emails_sent + sent,
        opened=campaign.opened + opens,
        unique_opens=campaign.unique_opens + round(opens * 0.7),
        replied=campaign.replied + replies,
        unique_replies=campaign.unique_replies + unique,
        bounced=campaign.bounced + round(sent * random_.uniform(0, 0.03)),
        unsubscribed=campaign.unsubscribed + round(sent * random_.uniform(0, 0.006)),
        interested=campaign.interested + round(unique * random_.uniform(0, 0.3)),
        total_leads_contacted=contacted,
        completion_percentage=round(100 * contacted / leads, 2) if leads else None,
    )


def seed_campaigns(world: World, counts: Mapping[int, int]) -> None:
    """Fill workspaces with so many campaigns each; ids of neighbours in time lie in different workspaces."""
    random_ = world.rng("campaigns")
    plan = [workspace_id for workspace_id, count in counts.items() for _ in range(count)]
    random_.shuffle(plan)
    for workspace_id in plan:
        workspace = world.workspaces[workspace_id]
        created = (world.now - timedelta(days=random_.uniform(2, 500))).replace(microsecond=0)
        campaign = new_campaign(world, workspace, random_, created=created, status=random_.choice(_STATUSES))
        if campaign.status != "draft":
            campaign = grown(campaign, random_, sent=random_.randint(50, 20_000))
        seen = world.now - timedelta(minutes=random_.randint(1, 3000))
        workspace.campaigns.put(campaign._replace(updated_at=max(campaign.created_at, stamp(seen))))


def advance_campaigns(world: World, step: Advance) -> dict[str, int]:
    """Move the campaigns on by one step: they send, pause and go on, end, and new ones begin."""
    # A stream of its own, so that what happens to mailboxes does not depend on how many campaigns there are.
    random_ = world.rng("advance campaigns", world.steps, "" if step.seed is None else step.seed)
    everywhere = [(w, campaign_id) for w in world.workspaces.values() for campaign_id in reversed(w.campaigns.order())]
    counts: dict[str, int] = {}
    for name, share in _PER_DAY.items():
        given: int | None = getattr(step, name)
        expected = len(everywhere) * share * step.minutes / 1440
        counts[name] = int(expected) + (random_.random() < expected % 1) if given is None else given
    counts["campaigns_grown"] = 0
    for workspace, campaign_id in everywhere:
        campaign = workspace.campaigns[campaign_id]
        wanted = campaign.max_emails_per_day * step.minutes / 1440 * random_.uniform(0.4, 1)
        if campaign.status == "active" and random_.random() < step.active and int(wanted):
            after = grown(campaign, random_, sent=int(wanted))
            workspace.campaigns.put(after._replace(updated_at=world.after(campaign)))
            counts["campaigns_grown"] += 1
    turning = [(w, i) for w, i in everywhere if w.campaigns[i].status in ("active", "paused")]
    turned = random_.sample(turning, min(counts["campaigns_turn"], len(turning)))
    for workspace, campaign_id in turned:
        is_active = workspace.campaigns[campaign_id].status == "active"
        world.change_campaign(campaign_id, status="paused" if is_active else "active")
    gone = random_.sample(everywhere, min(counts["campaigns_go"], len(everywhere)))
    for workspace, campaign_id in gone:
        workspace.campaigns.take(campaign_id)
    for _ in range(counts["campaigns_come"]):
        workspace = world.workspaces[random_.choice(sorted(world.workspaces))]
        new_campaign(world, workspace, random_, created=world.now, status="active")
    return {**counts, "campaigns_turn": len(turned), "campaigns_go": len(gone)}
