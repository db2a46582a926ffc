"""What the sandbox holds: workspaces, their mailboxes and tags, and the tokens that open them."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

from bisonsync.sandbox.hooks import HookBook

COUNTERS = (
    "emails_sent_count",
    "total_replied_count",
    "total_opened_count",
    "unsubscribed_count",
    "bounced_count",
    "unique_replied_count",
    "unique_opened_count",
    "total_leads_contacted_count",
    "interested_leads_count",
)

# The daily series of the API and the counters whose growth they tell.
SERIES = {
    "Replied": "total_replied_count",
    "Total Opens": "total_opened_count",
    "Unique Opens": "unique_opened_count",
    "Sent": "emails_sent_count",
    "Bounced": "bounced_count",
    "Unsubscribed": "unsubscribed_count",
    "Interested": "interested_leads_count",
}

_encode = json.JSONEncoder(separators=(",", ":")).encode


def rng(*parts: object) -> random.Random:
    """Make the generator of one stream of choices: the same parts give the same choices everywhere."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - repeatable on purpose, nothing secret depends on it


def stamp(moment: datetime) -> str:
    """Write a moment the way the API does: UTC, six decimals, Z."""
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def shares_by_day(amount: int, began: datetime, ended: datetime) -> dict[date, int]:
    """Spread an amount evenly over a time, cut at midnight; the parts are whole numbers and add up to it."""
    shares: dict[date, int] = {}
    taken, day = 0, began.date()
    while day < ended.date():
        midnight = datetime.combine(day + timedelta(days=1), time(), ended.tzinfo)
        upto = int(amount * ((midnight - began) / (ended - began)))
        shares[day], taken = upto - taken, upto
        day += timedelta(days=1)
    return {**shares, day: amount - taken}


class Tag(NamedTuple):
    """A label of one workspace; the same name has another id in each workspace."""

    id: int
    name: str
    default: bool


class Account(NamedTuple):
    """One mailbox with the fields of the API's row, in the API's order. Change it by `World.change`."""

    id: int
    name: str
    email: str
    email_signature: str | None
    imap_server: str | None
    imap_port: int | None
    smtp_server: str | None
    smtp_port: int | None
    daily_limit: int
    type: str
    status: str
    warmup_enabled: bool
    emails_sent_count: int
    total_replied_count: int
    total_opened_count: int
    unsubscribed_count: int
    bounced_count: int
    unique_replied_count: int
    unique_opened_count: int
    total_leads_contacted_count: int
    interested_leads_count: int
    created_at: str
    updated_at: str
    tags: tuple[Tag, ...]

    @property
    def is_connected(self) -> bool:
        return self.status.lower() == "connected"

    def row(self) -> dict[str, Any]:
        """Build the row that the API serves."""
        row = self._asdict()
        row["tags"] = [tag._asdict() for tag in self.tags]
        return row


@dataclass(slots=True)
class Workspace:
    """A client's workspace; `made` counts every mailbox it ever had, so that addresses never repeat."""

    id: int
    name: str
    slug: str
    created_at: str
    updated_at: str
    main: bool = False
    made: int = 0
    accounts: dict[int, Account] = field(default_factory=dict[int, Account])
    tags: dict[int, Tag] = field(default_factory=dict[int, Tag])
    daily: dict[date, dict[int, Counter[str]]] = field(default_factory=dict[date, dict[int, Counter[str]]])
    """By how much each counter of a mailbox grew on each day while it was here; it outlives the mailbox."""
    _order: list[int] | None = None
    _bodies: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def put(self, account: Account) -> None:
        """Add the account, or replace the one with its id."""
        if account.id not in self.accounts:
            self._order = None
        self.accounts[account.id] = account
        self._bodies.pop(account.id, None)

    def pop(self, account_id: int) -> Account:
        self._order = None
        self._bodies.pop(account_id, None)
        return self.accounts.pop(account_id)

    def grow(self, account: Account, *, began: datetime, ended: datetime) -> None:
        """Replace an account and put what its counters gained on the days of that time; a fall is no negative day."""
        before = self.accounts[account.id]
        self.put(account)
        for name in COUNTERS:
            gained: int = getattr(account, name) - getattr(before, name)
            for day, share in shares_by_day(gained, began, ended).items() if gained > 0 else ():
                self.daily.setdefault(day, {}).setdefault(account.id, Counter())[name] += share

    def order(self) -> list[int]:
        """List the ids as the API orders them, newest first. The list is shared: do not change it."""
        if self._order is None:
            self._order = sorted(self.accounts, reverse=True)
        return self._order

    def body(self, account_id: int) -> bytes:
        """Serialise one row, once until it changes."""
        body = self._bodies.get(account_id)
        if body is None:
            body = self._bodies[account_id] = _encode(self.accounts[account_id].row()).encode()
        return body

    def tag_named(self, name: str) -> Tag | None:
        return next((tag for tag in self.tags.values() if tag.name == name), None)

    @property
    def webhooks_secret_key(self) -> str:
        return hashlib.sha256(f"webhooks {self.id} {self.slug}".encode()).hexdigest()[:40]

    def row(self, *, with_secret: bool = False) -> dict[str, Any]:
        """Build the workspace object ("team" in paths and bodies)."""
        row: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "personal_team": False,
            "main": self.main,
            "parent_id": None if self.main else 1,
            "total_monthly_email_verification_credits": 0,
            "remaining_monthly_email_verification_credits": 0,
            "remaining_email_verification_credits": 0,
            "total_email_verification_credits": 0,
            "sender_email_limit": 100000,
            "warmup_limit": 100000,
            "warmup_filter_phrase": None,
            "sender_email_limit_disabled": False,
            "has_access_to_warmup": True,
            "has_access_to_healthcheck": False,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }
        if with_secret:
            row["webhooks_secret_key"] = self.webhooks_secret_key
        return row


@dataclass(slots=True)
class Token:
    """A bearer token. A super-admin token has no workspace: it acts where its user is at that moment."""

    id: int
    plain: str
    name: str
    kind: Literal["super-admin", "api-user"]
    workspace_id: int | None
    created_at: str
    revoked: bool = False


Watch = Callable[[Workspace, Account | None, Account | None, datetime, datetime], None]
"""Told of every change: where, the account before (None: it came) and after (None: it went), from when to when."""


class World:
    """All state of one sandbox. Not locked: whoever shares it between threads holds the lock.

    Its clock stands still but for `pass_time`; given `real`, a clock that runs, the time that passes is the one just
    past.
    """

    def __init__(self, *, seed: int, now: datetime, real: Callable[[], datetime] | None = None) -> None:
        self.seed = seed
        self._now = now
        self._real = real
        self.hooks = HookBook(seed, clock=lambda: self.now, is_live=real is not None)
        self.watch: Watch = lambda _workspace, _before, _after, _began, _ended: None
        self.steps = 0
        self.next_account_id = 1001
        self.next_tag_id = 501
        self.next_workspace_id = 1
        self.workspaces: dict[int, Workspace] = {}
        self.tokens: dict[str, Token] = {}
        self.current_workspace_id = 1
        self._switching: tuple[int, int] | None = None

    def rng(self, *parts: object) -> random.Random:
        """Make the generator for one purpose of this world."""
        return rng(self.seed, *parts)

    @property
    def now(self) -> datetime:
        """The present moment. It never goes back."""
        if self._real is not None:
            self._now = max(self._now, self._real())
        return self._now

    def pass_time(self, minutes: float) -> None:
        """Move the clock on; one that runs by itself is left alone."""
        if self._real is None:
            self._now += timedelta(minutes=minutes)

    def after(self, account: Account) -> str:
        """Return the present as a stamp later than the account's last change, however little time has passed."""
        present = stamp(self.now)
        if account.updated_at < present:
            return present
        return stamp(datetime.fromisoformat(account.updated_at).astimezone(UTC) + timedelta(microseconds=1))

    def new_account_id(self) -> int:
        self.next_account_id += 1
        return self.next_account_id - 1

    def add_tag(self, workspace: Workspace, name: str, *, default: bool = False) -> Tag:
        """Return the workspace's tag of that name, made if it is missing."""
        tag = workspace.tag_named(name)
        if tag is None:
            tag = Tag(self.next_tag_id, name, default)
            self.next_tag_id += 1
            workspace.tags[tag.id] = tag
        return tag

    def find(self, account_id: int) -> Workspace | None:
        """Find the first workspace that holds the account."""
        return next((w for w in self.workspaces.values() if account_id in w.accounts), None)

    def home(self, account_id: int) -> Workspace:
        """Return the workspace that holds the account. Raises KeyError."""
        workspace = self.find(account_id)
        if workspace is None:
            raise KeyError(account_id)
        return workspace

    def change(self, account_id: int, *, workspace_id: int | None = None, **fields: Any) -> Account:
        """Give an account new field values; `updated_at` follows the clock unless it is given.

        What its counters gain counts for the present day.
        """
        workspace = self.home(account_id) if workspace_id is None else self.workspaces[workspace_id]
        before = workspace.accounts[account_id]
        fields.setdefault("updated_at", self.after(before))
        now = self.now
        return self.grow(workspace, before._replace(**fields), began=now, ended=now)

    def grow(self, workspace: Workspace, account: Account, *, began: datetime, ended: datetime) -> Account:
        """Replace an account by what it became in that time."""
        before = workspace.accounts[account.id]
        workspace.grow(account, began=began, ended=ended)
        self.watch(workspace, before, account, began, ended)
        return account

    def add(self, workspace: Workspace, account: Account) -> None:
        """Let an account come into a workspace."""
        workspace.put(account)
        self.watch(workspace, None, account, self.now, self.now)

    def remove(self, account_id: int) -> Account:
        """Take an account out of its workspace; its id is never given again."""
        return self.take(self.home(account_id), account_id)

    def take(self, workspace: Workspace, account_id: int) -> Account:
        """Take an account out of this workspace, though others may hold it as well."""
        account = workspace.pop(account_id)
        self.watch(workspace, account, None, self.now, self.now)
        return account

    def copy_to(self, account_id: int, workspace_id: int, *, new_id: bool = True) -> Account:
        """Let the same mailbox appear in a second workspace, with that workspace's tags."""
        account = self.home(account_id).accounts[account_id]
        target = self.workspaces[workspace_id]
        tags = tuple(self.add_tag(target, tag.name, default=tag.default) for tag in account.tags)
        copy = account._replace(id=self.new_account_id() if new_id else account.id, tags=tags)
        self.add(target, copy._replace(updated_at=self.after(account)))
        return target.accounts[copy.id]

    def move(self, account_id: int, workspace_id: int) -> Account:
        """Move an account to another workspace: its id and counters stay, its tags are that workspace's."""
        source = self.home(account_id)
        if source.id == workspace_id:
            return source.accounts[account_id]
        moved = self.copy_to(account_id, workspace_id, new_id=False)
        self.take(source, account_id)
        return moved

    def retag(self, account_id: int, names: Iterable[str]) -> Account:
        """Give an account exactly the tags of these names."""
        workspace = self.home(account_id)
        return self.change(account_id, tags=tuple(self.add_tag(workspace, name) for name in names))

    def rename(self, workspace_id: int, name: str) -> None:
        workspace = self.workspaces[workspace_id]
        workspace.name = name
        workspace.updated_at = stamp(self.now)

    def remove_workspace(self, workspace_id: int) -> None:
        """Close a workspace with all that is in it; its tokens open nothing any more."""
        del self.workspaces[workspace_id]
        if self.current_workspace_id == workspace_id:
            self.switch(min(self.workspaces))

    def mint(self, workspace_id: int, name: str = "token") -> Token:
        """Make an api-user token of one workspace."""
        if workspace_id not in self.workspaces:
            raise KeyError(workspace_id)
        token_id = len(self.tokens) + 1
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        plain = f"{token_id}|{''.join(self.rng('token', token_id).choices(letters, k=48))}"
        token = Token(token_id, plain, name, "api-user", workspace_id, stamp(self.now))
        self.tokens[plain] = token
        return token

    def add_super_admin(self, plain: str) -> Token:
        """Register a super-admin token; all of them belong to one user and share its current workspace."""
        token = Token(len(self.tokens) + 1, plain, "super-admin", "super-admin", None, stamp(self.now))
        self.tokens[plain] = token
        return token

    def revoke(self, token_id: int) -> None:
        """Let a token expire: from now on it gets 401."""
        for token in self.tokens.values():
            if token.id == token_id:
                token.revoked = True

    def switch(self, workspace_id: int, *, lag: int = 0) -> None:
        """Let the super-admins' user go to another workspace, seen by them after `lag` more requests."""
        if lag:
            self._switching = (workspace_id, lag)
        else:
            self.current_workspace_id, self._switching = workspace_id, None

    def note_super_admin_request(self) -> None:
        """Bring a switch that lags one request nearer."""
        if self._switching is not None:
            workspace_id, lag = self._switching
            self.switch(workspace_id, lag=lag - 1)

    def acting_workspace(self, token: Token) -> Workspace | None:
        """Tell in which workspace the token acts at this moment."""
        workspace_id = self.current_workspace_id if token.workspace_id is None else token.workspace_id
        return self.workspaces.get(workspace_id)

    def truth(self) -> Mapping[int, list[dict[str, Any]]]:
        """Return every account's row per workspace, newest first: what a flawless walk would read."""
        return {w.id: [w.accounts[i].row() for i in w.order()] for w in self.workspaces.values()}
