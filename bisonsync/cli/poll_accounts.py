"""poll-accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bisonsync.cli.list_polls import list_counts, list_policy
from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute, scopes

if TYPE_CHECKING:
    from bisonsync.run import Result, WorkspacesRun


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

        settings = session.settings
        rules: dict[str, Any] = {
            "providers": [{"tag": tag, "provider": provider} for tag, provider in settings.providers.items()],
            "resellers": [{"substring": part, "reseller": reseller} for part, reseller in settings.resellers.items()],
            "prices": [price.model_dump(mode="json") for price in settings.prices],
        }
        policy = list_policy(session, run.job, allow_shrink=allow_shrink, no_delete=no_delete, rules=rules)
        return job.run(run, policy)

    execute(
        options,
        "poll-accounts",
        lambda session: scopes.over_workspaces(session, lambda run: body(run, session), resource="accounts"),
        counts=list_counts("accounts"),
    )


poll_accounts = single("poll-accounts", _poll_accounts)
