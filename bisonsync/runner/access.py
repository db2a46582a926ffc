"""With which token a workspace may be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisonsync.errors import ConfigError, CredentialsError
from bisonsync.keys import AdminKeyName, WorkspaceKey
from bisonsync.run import WorkspaceAccess

if TYPE_CHECKING:
    from bisonsync.settings.models import Instance


def access_of(key: WorkspaceKey, instance: Instance | None, stored_token: str | None) -> WorkspaceAccess:
    """How a workspace may be read: its own token, else by switching the super-admin key where that is allowed."""
    name = str(key)
    if instance is None:
        return WorkspaceAccess(
            None,
            name,
            error=ConfigError(
                f"workspace {name}: instance {key[0]!r} is not in the settings",
                hint=f"add [instances.{key[0]}] with base_url, or disable its workspaces",
            ),
        )
    own = instance.workspaces.get(key[1])
    token = own.api_key.get_secret_value() if own else stored_token
    if token:
        return WorkspaceAccess(token, f"the token of workspace {name}")
    if instance.allow_switch and instance.api_key:
        return WorkspaceAccess(instance.api_key.get_secret_value(), AdminKeyName(key[0]), by_switch=True)
    return WorkspaceAccess(
        None,
        name,
        error=CredentialsError(f"workspace {name} has no token", hint="run 'bisonsync workspaces mint-tokens'"),
    )
