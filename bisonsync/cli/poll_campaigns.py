"""poll-campaigns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.list_polls import list_counts, list_policy
from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute, scopes

if TYPE_CHECKING:
    from bisonsync.run import Result, WorkspacesRun


def _poll_campaigns(
    options: Options,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="Believe a complete list that lost many campaigns.")
    ] = False,
    no_delete: Annotated[bool, typer.Option("--no-delete", help="Never mark a campaign as removed.")] = False,
) -> None:
    """Mirror the campaigns of every active workspace.

    Reads each list whole, proves it, and makes campaigns_cache the same in one
    transaction per workspace. Nothing is removed on an incomplete read.

    \b
    Example:
      bisonsync poll-campaigns --deadline 9m --jitter 30s
      bisonsync poll-campaigns -w 17 --dry-run
    """

    def body(run: WorkspacesRun, session: Session) -> Result:
        from bisonsync.jobs import poll_campaigns as job

        return job.run(run, list_policy(session, run.job, allow_shrink=allow_shrink, no_delete=no_delete))

    execute(
        options,
        "poll-campaigns",
        lambda session: scopes.over_workspaces(session, lambda run: body(run, session), resource="campaigns"),
        counts=list_counts("campaigns"),
    )


poll_campaigns = single("poll-campaigns", _poll_campaigns)
