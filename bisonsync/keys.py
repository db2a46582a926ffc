"""Who a workspace is, in one type that every layer speaks."""

from __future__ import annotations

from typing import NamedTuple


class WorkspaceKey(NamedTuple):
    """A workspace's identity: its id counts within its instance only. Shown as ``instance/id``."""

    bison_instance: str
    bison_workspace_id: int

    @classmethod
    def parse(cls, text: str) -> WorkspaceKey:
        """The key that is shown as ``text``."""
        instance, _, number = text.partition("/")
        return cls(instance, int(number))

    def __str__(self) -> str:
        return f"{self.bison_instance}/{self.bison_workspace_id}"
