"""Switches a super-admin key between workspaces: on one host at a time, for it moves every run that uses the key."""

from __future__ import annotations

from bisonsync.api.client import InstanceClient
from bisonsync.errors import LeaseBusy
from bisonsync.keys import WorkspaceKey
from bisonsync.run import WorkspaceAccess, WorkspacesRun
from bisonsync.store import leases
from bisonsync.store.db import Connection
from bisonsync.store.leases import Holder, Lease

# Under this name the key of an instance is leased, whichever job switches it.
SWITCH_JOB = "switch-workspace"
SWITCH_LOOKS = 5
LOOK_SECONDS = 1.0


def take_key(run: WorkspacesRun, instance: str, *, ttl_seconds: float) -> Lease:
    """The lease of an instance's key, kept until the run ends. Raises LeaseBusy while it cannot be had."""
    if run.dry_run:
        raise LeaseBusy("a dry run does not switch the super-admin key, which would move it under other runs")

    def work(conn: Connection) -> tuple[list[Lease], list[Holder]]:
        key = WorkspaceKey(instance, 0)
        taken = leases.take(conn, SWITCH_JOB, [key], run_id=run.run_id, ttl_seconds=ttl_seconds)
        return taken, leases.list_holders(conn, SWITCH_JOB)

    taken, holders = run.bookkeeping.run(work)
    if not taken:
        holder = next((str(h) for h in holders if h.bison_instance == instance), "a run that has ended since")
        raise LeaseBusy(f"another run switches the super-admin key between workspaces: {holder}")
    return taken[0]


def switch_into(run: WorkspacesRun, client: InstanceClient, access: WorkspaceAccess, workspace_id: int) -> None:
    """Switch, and look until the switch shows: how soon it does is not documented."""
    assert access.token is not None  # a key that can be switched is there
    client.switch_workspace(access.token, workspace_id, who=access.who)
    for _ in range(SWITCH_LOOKS):
        if client.get_acting_workspace(access.token, who=access.who).id == workspace_id:
            return
        run.clock.sleep(LOOK_SECONDS)
