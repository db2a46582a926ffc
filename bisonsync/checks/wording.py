"""How checks name workspaces and spans of time: short, for a reader at three in the morning."""

from __future__ import annotations

from collections.abc import Sequence

from bisonsync.checks.check import Finding, State, rank, worst
from bisonsync.keys import WorkspaceKey

_STEPS = ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"))
_LONGEST = 160
# Commands that have commands of their own: their jobs bear both names.
_GROUPS = (
    "alerts",
    "config",
    "dashboard",
    "db",
    "dead-letters",
    "inbox",
    "migrate",
    "runs",
    "schedule",
    "webhooks",
    "workspaces",
)


def span(seconds: float) -> str:
    """A span of time in its largest fitting unit: ``42 min``."""
    for least, unit, name in _STEPS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name}"
    return f"{max(0, int(seconds))} s"


def named(key: WorkspaceKey, name: str | None) -> str:
    """A workspace with its name: ``maverick/17 Acme``."""
    return f"{key} {name}" if name else str(key)


def command(job: str) -> str:
    """The command line of a job: ``bisonsync workspaces discover``."""
    group = next((each for each in _GROUPS if job.startswith(f"{each}-")), None)
    return f"bisonsync {job}" if group is None else f"bisonsync {group} {job.removeprefix(f'{group}-')}"


def short(text: str | None) -> str:
    """The beginning of what something else said."""
    said = " ".join((text or "").split())
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings in the order in which they are shown; among equals as they came."""
    return tuple(sorted(findings, key=lambda finding: -rank(finding.state)))


def worst_of(findings: Sequence[Finding], otherwise: State) -> State:
    """The worst state of the findings, or ``otherwise`` if there are none."""
    return worst([finding.state for finding in findings] or [otherwise])
