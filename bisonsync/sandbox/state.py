"""What the sandbox holds: all workspaces with their mailboxes and tags, the tokens, and the time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bisonsync.sandbox.hooks import HookBook
from bisonsync.sandbox.moments import stamp
from bisonsync.sandbox.rows import Account, Campaign, Tag
from bisonsync.sandbox.workspaces import Token, Workspace


def rng(*parts: object) -> random.Random:
    """Make the generator of one stream of choices: the same parts give the same choices everywhere."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - repeatable on purpose, nothing secret depends on it


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
        self.next_campaign_id = 301
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

    def after(self, row: Account | Campaign) -> str:
        """Return the present as a stamp later than the row's last change, however little time has passed."""
        present = stamp(self.now)
        if row.updated_at < present:
            return present
        return stamp(datetime.fromisoformat(row.updated_at).astimezone(UTC) + timedelta(microseconds=1))

    def new_account_id(self) -> int:
        self.next_account_id += 1
        return self.next_account_id - 1

    def new_campaign_id(self) -> int:
        self.next_campaign_id += 1
        return self.next_campaign_id - 1

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
        workspace.accounts.put(account)
        self.watch(workspace, None, account, self.now, self.now)

    def remove(self, account_id: int) -> Account:
        """Take an account out of its workspace; its id is never given again."""
        return self.take(self.home(account_id), account_id)

    def take(self, workspace: Workspace, account_id: int) -> Account:
        """Take an account out of this workspace, though others may hold it as well."""
        account = workspace.accounts.take(account_id)
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

    def change_campaign(self, campaign_id: int, **fields: Any) -> Campaign:
        """Give a campaign new field values; `updated_at` follows the clock unless it is given."""
        workspace = self._place_of(campaign_id)
        before = workspace.campaigns[campaign_id]
        fields.setdefault("updated_at", self.after(before))
        workspace.campaigns.put(before._replace(**fields))
        return workspace.campaigns[campaign_id]

    def remove_campaign(self, campaign_id: int) -> Campaign:
        """Take a campaign out of its workspace; its id is never given again."""
        return self._place_of(campaign_id).campaigns.take(campaign_id)

    def _place_of(self, campaign_id: int) -> Workspace:
        for workspace in self.workspaces.values():
            if campaign_id in workspace.campaigns:
                return workspace
        raise KeyError(campaign_id)

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
        return {w.id: [w.accounts[i].row() for i in w.accounts.order()] for w in self.workspaces.values()}

    def campaigns(self) -> Mapping[int, list[dict[str, Any]]]:
        """Return every campaign's row per workspace, newest first."""
        return {w.id: [w.campaigns[i].row() for i in w.campaigns.order()] for w in self.workspaces.values()}
