"""The health checks: one module each, found by name and imported when looked at.

A module has ``LIMITS`` (its thresholds with their defaults), and ``look(look) -> CheckResult``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from bisonsync.checks.check import CheckResult, Limit, Look

# In the order in which they are shown. A hyphen is an underscore in the module's name.
NAMES: tuple[str, ...] = (
    "freshness",
    "runs",
    "completeness",
    "account-drop",
    "workspace-failures",
    "tokens",
    "webhook-silence",
    "webhook-success",
    "inbox",
    "reconcile",
    "disconnects",
    "provider-drop",
    "bounce",
    "capacity",
    "pacing",
    "api",
    "validation",
    "schema",
    "access",
    "leases",
    "database",
    "clock",
    "heartbeat",
)


class CheckModule(Protocol):
    """What a module of this package offers."""

    LIMITS: Mapping[str, Limit]

    def look(self, look: Look) -> CheckResult: ...


def find_check(name: str) -> CheckModule:
    """The module of a check. Raises KeyError for a name that is none."""
    if name not in NAMES:
        raise KeyError(name)
    return cast("CheckModule", import_module(f"bisonsync.checks.{name.replace('-', '_')}"))
