"""A client's workspace with what is in it, and the tokens that open one."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from bisonsync.sandbox.moments import shares_by_day
from bisonsync.sandbox.rows import COUNTERS, Account, Campaign, Listed, Tag


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
    accounts: Listed[Account] = field(default_factory=Listed[Account])
    campaigns: Listed[Campaign] = field(default_factory=Listed[Campaign])
    tags: dict[int, Tag] = field(default_factory=dict[int, Tag])
    daily: dict[date, dict[int, Counter[str]]] = field(default_factory=dict[date, dict[int, Counter[str]]])
    """By how much each counter of a mailbox grew on each day while it was here; it outlives the mailbox."""

    def grow(self, account: Account, *, began: datetime, ended: datetime) -> None:
        """Replace an account and put what its counters gained on the days of that time; a fall is no negative day."""
        before = self.accounts[account.id]
        self.accounts.put(account)
        for name in COUNTERS:
            gained: int = getattr(account, name) - getattr(before, name)
            for day, share in shares_by_day(gained, began, ended).items() if gained > 0 else ():
                self.daily.setdefault(day, {}).setdefault(account.id, Counter())[name] += share

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
