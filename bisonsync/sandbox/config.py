"""How a sandbox is made and how it behaves: size and seed, moods, and the faults it starts with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

from bisonsync.sandbox.faults import Fault

DailyStats = Literal["filtered", "whole", "none"]
"""Daily series by mailbox; the same whoever is asked for, as where a filter is not known; or no such route."""
Paging = Literal["both", "number", "cursor"]
"""A list is paged by number, or by cursor where that is asked for; an older host knows numbers alone; one under load
cursors alone: then it drops the number of a page, and tells no total and no last page."""
Clock = Literal["own", "real"]
"""Its own clock begins at `start` and moves by `advance` alone; else it tells the real time, and advancing by an hour
means that the hour just past was a busy one."""
EventTypes = Literal["13", "17"]
"""How many types of events can be subscribed: older hosts know fewer."""
RetryAfter = Literal["seconds", "date", "body", "none"]
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "retry_after": get_args(RetryAfter),
    "rate_limit_per": ("instance", "token"),
    "identity_key": ("team", "workspace"),
    "paging": get_args(Paging),
    "daily_stats": get_args(DailyStats),
    "clock": get_args(Clock),
    "event_types": get_args(EventTypes),
}


def _no_latency() -> Mapping[int, float]:
    return MappingProxyType({})


_NUMBERS = (
    *(
        "accounts",
        "workspaces",
        "latency",
        "jitter",
        "rate_limit",
        "rate_window",
        "switch_lag",
        "total_cap",
        "foreign_rate",
        "blanket_429",
    ),
    *("webhook_tries", "webhook_spacing", "webhook_timeout", "webhook_workers"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that decides what a sandbox holds and how it answers; times in seconds.

    The first block makes the world and takes effect at a reset; the rest are moods that can change at any time.
    """

    seed: int = 1
    workspaces: int = 27
    accounts: int = 4050
    campaigns: int | None = None
    """None: one for each workspace and each fifteen mailboxes."""
    skew: tuple[float, ...] = (0.395, 0.107)
    start: datetime = datetime(2026, 1, 5, 9, tzinfo=UTC)
    clock: Clock = "own"
    super_admin_token: str = "1|super-admin-token-of-the-sandbox"  # noqa: S105 - opens nothing but a sandbox
    faults: tuple[Fault, ...] = ()

    latency: float = 0.0
    jitter: float = 0.0
    workspace_latency: Mapping[int, float] = field(default_factory=_no_latency)
    rate_limit: int = 0
    rate_window: float = 60.0
    foreign_rate: int = 0
    """Requests a minute that another program sends with the same key, evenly."""
    blanket_429: float = 0.0
    """Every request is refused with 429 for so long, from the first one on."""
    rate_limit_per: Literal["instance", "token"] = "instance"
    retry_after: RetryAfter = "seconds"
    identity_key: Literal["team", "workspace"] = "team"
    webhook_secret: bool = False
    switch_lag: int = 0
    paging: Paging = "both"
    total_cap: int = 0
    """No list counts further by number, nor has more pages (0: none does)."""
    paginate_workspaces: bool = False
    see_all_workspaces: bool = False
    daily_stats: DailyStats = "filtered"
    event_types: EventTypes = "17"
    has_events: bool = True
    paginate_webhooks: bool = False
    webhook_tries: int = 5
    webhook_spacing: float = 1.0
    webhook_timeout: float = 15.0
    webhook_workers: int = 1
    deliver_anywhere: bool = False

    def __post_init__(self) -> None:
        for name in _NUMBERS if self.campaigns is None else ("campaigns", *_NUMBERS):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float) or number < 0:
                raise ValueError(f"{name} is a number from 0 up, not {number!r}")
        if self.workspaces < 1:
            raise ValueError("a sandbox needs at least one workspace")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")

    @property
    def campaigns_made(self) -> int:
        """How many campaigns the world begins with."""
        return self.workspaces + self.accounts // 15 if self.campaigns is None else self.campaigns


_MAKING = frozenset(
    {"seed", "workspaces", "accounts", "campaigns", "skew", "start", "clock", "super_admin_token", "faults"}
)
MOODS = tuple(f.name for f in fields(Config) if f.name not in _MAKING)


def with_moods(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return the config with other moods. Raises ValueError for a name that is no mood, or a wrong value."""
    unknown = sorted(set(changes) - set(MOODS))
    if unknown:
        raise ValueError(f"unknown mood {', '.join(unknown)}; there are {', '.join(MOODS)}")
    changed = dict(changes)
    if "workspace_latency" in changed:  # JSON has no integer keys
        changed["workspace_latency"] = {int(key): float(value) for key, value in changed["workspace_latency"].items()}
    return replace(config, **changed)
