"""Registers the workspaces that each instance lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from bisonsync.api.client import InstanceClient
from bisonsync.api.lanes import Lanes
from bisonsync.api.lists import InvalidRow, ListReader
from bisonsync.errors import (
    ApiRefused,
    BisonsyncError,
    CredentialsError,
    GuardRefused,
    Stopped,
)
from bisonsync.keys import AdminKeyName
from bisonsync.models import Workspace
from bisonsync.run import InstanceAccess, Problem, Result, SetupRun
from bisonsync.store import registry

# The older path is for hosts that do not know the newer one.
LIST_PATHS = ("/api/workspaces/v1.1", "/api/workspaces")
NOT_FOUND = 404
# Below this many, a single workspace that vanishes would be "more than 20 %".
VANISH_TOLERATED = 1
# The first so many of those that are missing are named.
NAMED = 5


def discover(run: SetupRun) -> Result:
    """Register the workspaces that each instance lists; new ones are active at once.

    With a super-admin key the list is read whole; without one, each token in the settings names its own workspace.
    A workspace that a complete list does not show is noted as vanished and stays active; when several vanish at once,
    nothing is noted and the run is guarded. Each instance is committed by itself.
    """
    counts = {"instances": len(run.instances), "workspaces_total": 0, "added": 0, "changed": 0, "vanished": 0}
    problems: list[Problem] = []
    committed = False
    for name, access in run.instances.items():
        try:
            listed = _list_names(name, access)
            counts["workspaces_total"] += len(listed.names)
            problems += listed.problems
            changes = run.bookkeeping.run(
                partial(
                    registry.count_changes if run.dry_run else registry.upsert_workspaces,
                    instance=name,
                    names=listed.names,
                )
            )
            counts["added"] += changes.added
            counts["changed"] += changes.changed
            committed = not run.dry_run
            if listed.is_whole:
                counts["vanished"] += _note_vanished(run, name, listed.names)
        except Stopped:
            raise
        except BisonsyncError as error:
            problems.append(Problem.of(error))
    summary = (
        f"{counts['workspaces_total']} workspaces listed, {counts['added']} added, "
        f"{counts['changed']} renamed or back, {counts['vanished']} vanished"
    )
    return Result(counts, problems=tuple(problems), committed=committed, summary=summary)


@dataclass(frozen=True, slots=True)
class _Listed:
    """Id to name of an instance's workspaces, and whether that is the proven whole."""

    names: dict[int, str]
    is_whole: bool
    problems: tuple[Problem, ...] = ()


def _list_names(instance: str, access: InstanceAccess) -> _Listed:
    if access.api_key is not None:
        return _list_by_key(instance, access.client, access.api_key)
    if not access.workspace_keys:
        raise CredentialsError(
            f"instance {instance} has no api_key to list its workspaces with",
            hint=f"give instances.{instance}.api_key_file, or register by hand: 'bisonsync workspaces add'",
        )
    names: dict[int, str] = {}
    for workspace_id, key in access.workspace_keys.items():
        acting = access.client.get_acting_workspace(key, who=f"the token of workspace {instance}/{workspace_id}")
        if acting.id != workspace_id:
            raise GuardRefused(
                f"the token in instances.{instance}.workspaces.{workspace_id} acts in workspace {acting.id}",
                hint="put it under the id it belongs to",
            )
        names[acting.id] = acting.name or ""
    return _Listed(names, is_whole=False)


def _list_by_key(instance: str, client: InstanceClient, key: str) -> _Listed:
    """The list with its proof where the host pages it; some hosts answer with all rows at once and no total."""
    who = AdminKeyName(instance)
    path, page = LIST_PATHS[0], None
    try:
        page = client.get_page(path, {}, token=key, who=who)
    except ApiRefused as error:
        if error.status != NOT_FOUND:
            raise
        path = LIST_PATHS[1]
        page = client.get_page(path, {}, token=key, who=who)
    if page.total is None and page.last_page is None and page.next_cursor is None:
        rows = [_read_workspace(raw) for raw in page.rows]
        names = dict(row for row in rows if not isinstance(row, InvalidRow))
        return _with_problems(instance, names, [row for row in rows if isinstance(row, InvalidRow)], "")
    lanes = Lanes(4, name=f"workspaces-{instance}")
    try:
        read = ListReader(client, lanes, owner=instance, path=path, token=key, who=who, read_row=_read_workspace).read()
    finally:
        lanes.close()
    return _with_problems(instance, read.rows, read.invalid, read.reason)


def _with_problems(instance: str, names: dict[int, str], invalid: Sequence[InvalidRow], reason: str) -> _Listed:
    """What is readable is registered; what is not, and a list that is not whole, shows."""
    problems: list[Problem] = []
    if invalid:
        first = invalid[0]
        problems.append(
            Problem(
                "validation",
                f"instance {instance}: {len(invalid)} rows of the list of workspaces are unreadable, the first: "
                f"{first.field}: {first.message}",
                "the others are registered; add what is missing by hand: 'bisonsync workspaces add'",
            )
        )
    elif reason:
        problems.append(
            Problem(
                "incomplete",
                f"instance {instance}: the list of workspaces could not be read whole: {reason}",
                "what came is registered; run it again",
            )
        )
    return _Listed(names, is_whole=not problems, problems=tuple(problems))


def _read_workspace(raw: Any) -> tuple[int, str] | InvalidRow:
    try:
        workspace = Workspace.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "row"
        return InvalidRow(None, field, first["type"], first["msg"] if first["loc"] else "it is not an object", None)
    return workspace.id, workspace.name or ""


def _note_vanished(run: SetupRun, instance: str, names: Mapping[int, str]) -> int:
    """Note what the list does not show any more, unless so much is gone that the key rather sees less."""
    missing = run.bookkeeping.run(lambda conn: registry.list_missing(conn, instance, list(names)))
    if not missing:
        return 0
    # Of those that somebody disabled nobody expects that they are there.
    unexpected = [number for number, is_active in missing.items() if is_active]
    known = len(names) + len(unexpected)
    if len(unexpected) > VANISH_TOLERATED and len(unexpected) > run.max_shrink * known:
        named = f"{', '.join(map(str, unexpected[:NAMED]))}{', …' if len(unexpected) > NAMED else ''}"
        raise GuardRefused(
            f"instance {instance}: the list shows {len(names)} workspaces; {len(unexpected)} registered are missing"
            f" ({named}); none was marked as vanished",
            hint="has the api_key lost its super-admin rights? If they are gone for good: "
            f"bisonsync workspaces disable {instance}/{unexpected[0]}, and so on, then discover again",
        )
    if not run.dry_run:
        run.bookkeeping.run(lambda conn: registry.mark_vanished(conn, instance, list(missing)))
    return len(missing)
