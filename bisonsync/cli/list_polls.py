"""What the polls of lists share: their part of the settings, and what they count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bisonsync.runner import Session

if TYPE_CHECKING:
    from bisonsync.polling.lists import ListPolicy


def list_policy(
    session: Session,
    job: str,
    *,
    allow_shrink: bool = False,
    no_delete: bool = False,
    rules: Mapping[str, Any] | None = None,
) -> ListPolicy:
    """What the settings say of a poll of a list."""
    from bisonsync.polling.lists import ListPolicy
    from bisonsync.settings.models import SCHEDULE
    from bisonsync.store.lists import ShrinkGuard

    polling = session.settings.polling
    interval = session.settings.intervals.get(job, SCHEDULE[job])
    return ListPolicy(
        guard=ShrinkGuard(
            max_shrink=polling.max_shrink,
            max_shrink_rows=polling.max_shrink_accounts,
            confirm_after_seconds=polling.shrink_confirm_after.total_seconds(),
            allow=allow_shrink,
            no_delete=no_delete,
        ),
        rules=rules or {},
        ignore_fields=tuple(polling.ignore_fields),
        workspace_deadline_min_seconds=polling.workspace_deadline_min.total_seconds(),
        workspace_deadline_per_1000_seconds=polling.workspace_deadline_per_1000.total_seconds(),
        interval_seconds=max(1, round(interval.total_seconds())),
        lease_ttl_seconds=polling.lease_ttl.total_seconds(),
    )


def list_counts(noun: str) -> tuple[str, ...]:
    """What a poll of a list of ``noun`` counts."""
    return (
        *("workspaces_total", "workspaces_ok", "workspaces_failed", "workspaces_incomplete", f"{noun}_read"),
        *("inserted", "updated", "unchanged", "removed", "restored", "invalid"),
        *("requests", "retries", "rate_limited"),
    )
