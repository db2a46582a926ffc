"""Who a workspace is, and what a super-admin key is called, in types that every layer speaks."""

from __future__ import annotations

from typing import NamedTuple, Self


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


class AdminKeyName(str):
    """What messages call the super-admin key of an instance; its type says which kind of token was refused."""

    __slots__ = ()

    def __new__(cls, instance: str) -> Self:
        """The name of the key of ``instance``."""
        return super().__new__(cls, f"the super-admin key of instance {instance}")
