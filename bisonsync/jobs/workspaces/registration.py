"""Registers workspaces by hand, and switches them on and off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bisonsync.errors import (
    ConfigError,
    GuardRefused,
)
from bisonsync.run import Result, SetupRun
from bisonsync.store import registry, tokens
from bisonsync.store.registry import WorkspaceRow


def add(run: SetupRun, instance: str, workspace_id: int, *, name: str | None, token: str | None) -> Result:
    """Register one workspace by hand; with a token, only if the token acts in it."""
    access = run.instances.get(instance)
    if access is None:
        raise ConfigError(
            f"instance {instance!r} is not in the settings",
            hint=f"configured are: {', '.join(run.instances) or 'none'}",
        )
    if token:
        acting = access.client.get_acting_workspace(token, who="the given token")
        if acting.id != workspace_id:
            raise GuardRefused(
                f"the given token acts in workspace {acting.id} ({acting.shown}), not in {workspace_id}",
                hint="nothing was stored; give the id or the token that belong together",
            )
        name = name or acting.name
    shown = (name or "").strip()

    def work(conn: Any) -> registry.RegistryChanges:
        changes = registry.upsert_workspaces(conn, instance, {workspace_id: shown})
        if token:
            origin = "given by hand"
            tokens.store_token(
                conn, instance, workspace_id, token=token, token_name=origin, token_id=None, status="valid"
            )
        return changes

    if run.dry_run:
        return Result({"added": 0, "changed": 0}, summary=f"would register {instance}/{workspace_id}")
    changes = run.bookkeeping.run(work)
    said = "registered" if changes.added else "renamed" if changes.changed else "already registered"
    return Result(
        {"added": changes.added, "changed": changes.changed},
        committed=True,
        summary=f"{instance}/{workspace_id} {said}{', token stored' if token else ''}",
    )


def set_active(run: SetupRun, rows: Iterable[WorkspaceRow], *, active: bool) -> Result:
    """Switch workspaces on or off."""
    chosen = list(rows)

    def work(conn: Any) -> int:
        return sum(registry.set_active(conn, *row.key, active=active) for row in chosen)

    changed = sum(row.is_active != active for row in chosen) if run.dry_run else run.bookkeeping.run(work)
    word = "active" if active else "inactive"
    return Result(
        {"workspaces_total": len(chosen), "changed": changed},
        committed=not run.dry_run,
        summary=f"{changed} workspaces are {word} now, {len(chosen) - changed} were already",
    )
