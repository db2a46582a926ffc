"""What -w and --instance mean, of the workspaces that are registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bisonsync.errors import ArgumentRefused, ConfigError

if TYPE_CHECKING:
    from bisonsync.store.registry import WorkspaceRow


def choose(rows: Sequence[WorkspaceRow], workspaces: Sequence[str], instances: Sequence[str]) -> list[WorkspaceRow]:
    """The active workspaces that -w and --instance name; all of them without either.

    Raises ArgumentRefused for a name that fits none or several and for one whose workspace is not active, ConfigError
    when nothing is left to do.
    """
    candidates = find_workspaces(rows, workspaces, instances)
    if workspaces:
        inactive = [row for row in candidates if not row.is_active]
        if inactive:
            raise ArgumentRefused(
                f"workspace {inactive[0].key} ({inactive[0].workspace_name}) is not active",
                hint=f"bisonsync workspaces enable {inactive[0].bison_workspace_id}",
            )
    active = [row for row in candidates if row.is_active]
    if not active:
        where = f" in {', '.join(instances)}" if instances else ""
        raise (ArgumentRefused if instances else ConfigError)(
            f"no active workspace{where}: there is nothing to read",
            hint="run 'bisonsync workspaces discover', or 'bisonsync workspaces enable ID'",
        )
    return active


def find_workspaces(
    rows: Sequence[WorkspaceRow], workspaces: Sequence[str], instances: Sequence[str]
) -> list[WorkspaceRow]:
    """The registered workspaces that names and --instance mean, active or not; all of them without either.

    Raises ArgumentRefused for a name that fits none or several.
    """
    known = {row.bison_instance for row in rows}
    wanted = [instance.lower() for instance in instances]
    for instance in wanted:
        if instance not in known:
            raise ArgumentRefused(
                f"no workspace of an instance named {instance!r} is registered",
                hint=f"registered are: {', '.join(sorted(known)) or 'none'}; run 'bisonsync workspaces discover'",
            )
    candidates = [row for row in rows if not wanted or row.bison_instance in wanted]
    if not workspaces:
        return candidates
    return list({row.key: row for row in (_find(candidates, text) for text in workspaces)}.values())


def _find(rows: Sequence[WorkspaceRow], text: str) -> WorkspaceRow:
    """The workspace that an id, ``instance/id`` or a name (in any case, trimmed) means."""
    wanted = text.strip().lower()
    found = [
        row
        for row in rows
        if wanted
        in (
            str(row.bison_workspace_id),
            str(row.key),
            row.workspace_name.strip().lower(),
            (row.display_name or "").lower(),
        )
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ArgumentRefused(
            f"{text!r} means several workspaces: {', '.join(str(row.key) for row in found)}",
            hint="name one of them as INSTANCE/ID",
        )
    import difflib

    names = [row.workspace_name for row in rows]
    close = difflib.get_close_matches(text.strip(), names, n=1)
    raise ArgumentRefused(
        f"no workspace {text!r} is registered",
        hint=f"did you mean {close[0]!r}?"
        if close
        else "see 'bisonsync workspaces list'; new ones: 'workspaces discover'",
    )
