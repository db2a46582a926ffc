"""The lists that are mirrored, as tests speak of them: where a row comes from, where it goes, how it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg

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

    def add_like(self, sandbox: Sandbox, workspace: Workspace) -> None:
        """Let a row come that is as the newest but for its id."""
        rows, world = self.held(workspace), sandbox.world
        row = rows[rows.order()[0]]
        if self is ACCOUNTS:
            number = world.new_account_id()
            rows.put(row._replace(id=number, email=f"new{number}@example.com"))
        else:
            rows.put(row._replace(id=world.new_campaign_id()))

    def truth(self, sandbox: Sandbox) -> dict[tuple[int, int], tuple[Any, ...]]:
        """What a complete mirror holds: (workspace, id) to the name, status and counter of a row."""
        return {
            (workspace, row["id"]): (row["name"], row["status"], row[self.counter])
            for workspace, rows in self.serve(sandbox).items()
            for row in rows
        }

    def mirror(self, conn: psycopg.Connection[Any]) -> dict[tuple[int, int], tuple[Any, ...]]:
        """What the database shows as live, in the form of ``truth``."""
        name = "account_name" if self is ACCOUNTS else "name"
        rows = conn.execute(
            f"SELECT bison_workspace_id, {self.id}, {name}, status, {self.counter} FROM {self.table}"
            " WHERE removed_at IS NULL".encode()
        )
        return {(workspace, row_id): tuple(values) for workspace, row_id, *values in rows}

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
