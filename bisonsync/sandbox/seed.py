"""Fills a world from a seed: the same numbers give the same workspaces, addresses and counters."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from bisonsync.sandbox.campaigns import seed_campaigns
from bisonsync.sandbox.moments import stamp
from bisonsync.sandbox.names import DOMAIN_WORDS, FIRST_NAMES, LAST_NAMES, NAME_WORDS, TRADES
from bisonsync.sandbox.rows import Account, Tag
from bisonsync.sandbox.state import World, rng
from bisonsync.sandbox.workspaces import Workspace


class Provider(NamedTuple):
    """How the mailboxes of one provider look: share of all, type, tag, system tag or not, own mail server or not."""

    share: float
    type: str
    tag: str
    default: bool
    has_server: bool


PROVIDERS = (
    Provider(0.46, "google_workspace_oauth", "Google", True, False),
    Provider(0.34, "microsoft_oauth", "Microsoft", True, False),
    Provider(0.08, "microsoft_oauth", "Outlook", False, False),
    Provider(0.07, "google_workspace_oauth", "Gmail", False, False),
    Provider(0.05, "Inbox", "", False, True),
)
RESELLERS = ("CheapInboxes", "Zapmail", "ScaledMail", "Mailr", "")
RESELLER_SHARES = (0.34, 0.27, 0.19, 0.1, 0.1)
# So many things are followed by a share of them.
_MANY = 50
STAGES = ("live", "reserve", "incubating")


def sizes(accounts: int, workspaces: int, skew: Sequence[float], random_: random.Random) -> list[int]:
    """Share the accounts out: the first workspaces take what `skew` says, the others split the rest unevenly.

    A number below 1 is a share of all accounts, any other a count.
    """
    taken: list[int] = []
    for part in skew[: workspaces - 1]:
        wanted = round(part * accounts) if part < 1 else int(part)
        taken.append(min(wanted, accounts - sum(taken)))
    rest, others = accounts - sum(taken), workspaces - len(taken)
    weights = [random_.uniform(0.5, 1.5) for _ in range(others)]
    edges = [round(rest * sum(weights[:i]) / sum(weights)) for i in range(others + 1)]
    return taken + [high - low for low, high in pairwise(edges)]


def workspace_name(number: int) -> str:
    """Name the n-th workspace; names never repeat."""
    words, trades = len(NAME_WORDS), len(TRADES)
    # 7 and 20 have no common factor, so all 400 pairs come before the first number is appended.
    pair = number % (words * trades)
    name = f"{NAME_WORDS[pair % words]} {TRADES[(pair * 7 + pair // words) % trades]}"
    return name if number < words * trades else f"{name} {number // (words * trades) + 1}"


def _tags(world: World, workspace: Workspace, provider: Provider, random_: random.Random) -> tuple[Tag, ...]:
    names = [(provider.tag, provider.default)] if provider.tag and random_.random() > 0.02 else []
    reseller = random_.choices(RESELLERS, RESELLER_SHARES)[0]
    # Operators write the reseller in many ways; a tag only contains its name.
    names += [(random_.choice((reseller, f"{reseller} batch {random_.randint(1, 3)}")), False)] if reseller else []
    names += [(random_.choice(STAGES), False)] if random_.random() < 0.4 else []
    return tuple(world.add_tag(workspace, name, default=default) for name, default in names)


def new_account(world: World, workspace: Workspace, random_: random.Random, *, created: datetime) -> Account:
    """Make an account without history and put it into the workspace."""
    provider = random_.choices(PROVIDERS, [provider.share for provider in PROVIDERS])[0]
    number = workspace.made
    workspace.made += 1
    # Five mailboxes a domain; neighbours differ in the first name, so no address comes twice.
    first = FIRST_NAMES[(number * 7 + workspace.id) % len(FIRST_NAMES)]
    last = random_.choice(LAST_NAMES)
    domain_number = number // 5
    suffix = domain_number // len(DOMAIN_WORDS) or ""
    domain = f"{DOMAIN_WORDS[domain_number % len(DOMAIN_WORDS)]}-{workspace.slug}{suffix}.example.com"
    server = f"mail.{domain}" if provider.has_server else None
    account = Account(
        id=world.new_account_id(),
        name=f"{first} {last}",
        email=f"{first}.{last}@{domain}".lower(),
        email_signature=f"<p><strong>{first} {last}</strong><br>{workspace.name} | <a href='https://{domain}'>{domain}</a></p>",
        imap_server=server,
        imap_port=993 if server else None,
        smtp_server=server,
        smtp_port=587 if server else None,
        daily_limit=random_.choice((5, 10, 15, 20, 25, 30)),
        type=provider.type,
        status="Connected",
        warmup_enabled=random_.random() < 0.85,
        emails_sent_count=0,
        total_replied_count=0,
        total_opened_count=0,
        unsubscribed_count=0,
        bounced_count=0,
        unique_replied_count=0,
        unique_opened_count=0,
        total_leads_contacted_count=0,
        interested_leads_count=0,
        created_at=stamp(created),
        updated_at=stamp(created),
        tags=_tags(world, workspace, provider, random_),
    )
    world.add(workspace, account)
    return account


def grown(account: Account, random_: random.Random, *, sent: int) -> Account:
    """Return the account after it sent that many more mails, with what usually follows from them."""
    few = rng("few", account.id, account.emails_sent_count) if sent < _MANY else None

    def follows(low: float, high: float, of: int) -> int:
        """Count how many of so many things are followed by another; of a few, each decides for itself."""
        share = random_.uniform(low, high)
        return round(of * share) if few is None else sum(few.random() < share for _ in range(of))

    replies = (
        sum(random_.random() < 0.035 for _ in range(sent))
        if sent < _MANY
        else round(sent * random_.uniform(0.02, 0.05))
    )
    unique = round(replies * random_.uniform(0.6, 1))
    opens = follows(0.2, 0.5, sent) if account.id % 4 == 0 else 0
    return account._replace(
        emails_sent_count=account.emails_sent_count + sent,
        total_replied_count=account.total_replied_count + replies,
        unique_replied_count=account.unique_replied_count + unique,
        total_opened_count=account.total_opened_count + opens,
        unique_opened_count=account.unique_opened_count + round(opens * 0.7),
        bounced_count=account.bounced_count + follows(0, 0.03, sent),
        unsubscribed_count=account.unsubscribed_count + follows(0, 0.006, sent),
        total_leads_contacted_count=account.total_leads_contacted_count + follows(0.4, 0.7, sent),
        interested_leads_count=account.interested_leads_count + follows(0, 0.3, unique),
    )


def add_workspace(world: World, *, name: str = "") -> Workspace:
    """Open a workspace with its system tags; without a name it gets the next one."""
    number = world.next_workspace_id
    world.next_workspace_id += 1
    created = stamp(world.now - timedelta(days=max(0, 600 - number)))
    name = name or workspace_name(number - 1)
    workspace = Workspace(
        number, name, "-".join(re.findall(r"[a-z0-9]+", name.lower())), created, created, main=number == 1
    )
    world.workspaces[number] = workspace
    for tag, default in (("Google", True), ("Microsoft", True), ("Interested", True), ("Important", False)):
        world.add_tag(workspace, tag, default=default)
    return workspace


def _add_settled_account(world: World, workspace: Workspace, random_: random.Random) -> None:
    age = timedelta(days=random_.uniform(2, 500))
    account = new_account(world, workspace, random_, created=(world.now - age).replace(microsecond=0))
    if random_.random() > 0.08:  # the others are still warming up and have sent nothing
        account = grown(account, random_, sent=round(account.daily_limit * age.days * random_.uniform(0.2, 0.7)))
    if random_.random() < 0.03:
        account = account._replace(status="Not connected")
    seen = world.now - timedelta(minutes=random_.randint(1, 3000))
    workspace.accounts.put(account._replace(updated_at=max(account.created_at, stamp(seen))))


def make_world(
    *,
    seed: int,
    workspaces: int,
    accounts: int,
    campaigns: int,
    skew: Sequence[float],
    start: datetime,
    real: Callable[[], datetime] | None = None,
) -> World:
    """Make a world of that size; ids of neighbours in time lie in different workspaces, as on a real host."""
    world = World(seed=seed, now=start, real=real)
    random_ = world.rng("seed")
    plan: list[int] = []
    for number, size in enumerate(sizes(accounts, workspaces, skew, random_), start=1):
        add_workspace(world)
        plan += [number] * size
    random_.shuffle(plan)
    for number in plan:
        _add_settled_account(world, world.workspaces[number], random_)
    shares = sizes(campaigns, workspaces, skew, world.rng("campaign sizes"))
    seed_campaigns(world, dict(enumerate(shares, start=1)))
    return world
