"""The polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.jobs.poll_accounts import Policy
    from bisonsync.run import Result, WorkspacesRun


POLL_COUNTS = (
    "workspaces_total",
    "workspaces_ok",
    "workspaces_failed",
    "workspaces_incomplete",
    "accounts_read",
    "inserted",
    "updated",
    "unchanged",
    "removed",
    "restored",
    "invalid",
    "requests",
    "retries",
    "rate_limited",
)


def _poll_accounts(
    options: Options,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="Believe a complete list that lost many accounts.")
    ] = False,
    no_delete: Annotated[bool, typer.Option("--no-delete", help="Never mark an account as removed.")] = False,
) -> None:
    """Mirror the sender emails of every active workspace.

    Reads each list whole, proves it, and makes sender_emails_cache the same in
    one transaction per workspace. Nothing is removed on an incomplete read.

    \b
    Example:
      bisonsync poll-accounts --deadline 4m --jitter 20s
      bisonsync poll-accounts -w 17 --dry-run
    """

    def body(run: WorkspacesRun, session: Session) -> Result:
        from bisonsync.jobs import poll_accounts as job

        return job.run(run, _policy(session, allow_shrink=allow_shrink, no_delete=no_delete))

    execute(
        options,
        "poll-accounts",
        lambda session: session.over_workspaces(lambda run: body(run, session)),
        counts=POLL_COUNTS,
    )


def _policy(session: Session, *, allow_shrink: bool, no_delete: bool) -> Policy:
    """The job's part of the settings."""
    from bisonsync.jobs.poll_accounts import Policy
    from bisonsync.store.lists import ShrinkGuard

    settings = session.settings
    polling = settings.polling
    rules: dict[str, Any] = {
        "providers": [{"tag": tag, "provider": provider} for tag, provider in settings.providers.items()],
        "resellers": [{"substring": part, "reseller": reseller} for part, reseller in settings.resellers.items()],
        "prices": [price.model_dump(mode="json") for price in settings.prices],
    }
    return Policy(
        guard=ShrinkGuard(
            max_shrink=polling.max_shrink,
            max_shrink_rows=polling.max_shrink_accounts,
            confirm_after_seconds=polling.shrink_confirm_after.total_seconds(),
            allow=allow_shrink,
            no_delete=no_delete,
        ),
        rules=rules,
        ignore_fields=tuple(polling.ignore_fields),
        workspace_deadline_min_seconds=polling.workspace_deadline_min.total_seconds(),
        workspace_deadline_per_1000_seconds=polling.workspace_deadline_per_1000.total_seconds(),
        interval_seconds=max(1, round(polling.interval.total_seconds())),
        lease_ttl_seconds=polling.lease_ttl.total_seconds(),
    )


poll_accounts = single("poll-accounts", _poll_accounts)
