"""The lists that are mirrored, as tests speak of them: where a row comes from, where it goes, how it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bisonsync.sandbox import Sandbox
from bisonsync.sandbox.rows import Listed
from bisonsync.sandbox.workspaces import Workspace


@dataclass(frozen=True)
class Mirrored:
    """A list of each workspace. ``counter``: a lifetime total, at the API and in the table."""

    job: str
    path: str
    noun: str
    table: str
    id: str
    counter: str
    held: Callable[[Workspace], Listed[Any]]
    serve: Callable[[Sandbox], Mapping[int, list[dict[str, Any]]]]

    def __str__(self) -> str:
        return self.noun

    def take(self, sandbox: Sandbox, row_id: int) -> Any:
        """Let a row go."""
        world = sandbox.world
        return world.remove(row_id) if self is ACCOUNTS else world.remove_campaign(row_id)

    def change(self, sandbox: Sandbox, row_id: int, **fields: Any) -> Any:
        """Give a row new values."""
        world = sandbox.world
        return world.change(row_id, **fields) if self is ACCOUNTS else world.change_campaign(row_id, **fields)

    def step(self, **numbers: Any) -> dict[str, Any]:
        """What ``advance`` takes to let so many rows of this list ``come`` and ``go``, and none of any other."""
        still: dict[str, Any] = dict.fromkeys(("come", "go", "disconnect", "reconnect", "move", "retag"), 0)
        still |= dict.fromkeys(("campaigns_come", "campaigns_go", "campaigns_turn"), 0)
        if self is not ACCOUNTS:
            numbers = {f"campaigns_{name}" if name in ("come", "go") else name: n for name, n in numbers.items()}
        return still | numbers


ACCOUNTS = Mirrored(
    job="poll-accounts",
    path="/api/sender-emails",
    noun="accounts",
    table="sender_emails_cache",
    id="bison_account_id",
    counter="emails_sent_count",
    held=lambda workspace: workspace.accounts,
    serve=lambda sandbox: sandbox.truth(),
)
CAMPAIGNS = Mirrored(
    job="poll-campaigns",
    path="/api/campaigns",
    noun="campaigns",
    table="campaigns_cache",
    id="bison_campaign_id",
    counter="emails_sent",
    held=lambda workspace: workspace.campaigns,
    serve=lambda sandbox: sandbox.campaigns(),
)
# The API shows no rows of it but through its window.
WARMUP = replace(ACCOUNTS, job="poll-warmup", path="/api/warmup/sender-emails", table="sender_email_warmup")
BOTH = (ACCOUNTS, CAMPAIGNS)
