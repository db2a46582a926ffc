"""poll-warmup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisonsync.cli.list_polls import list_counts, list_policy
from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute, scopes

if TYPE_CHECKING:
    from bisonsync.run import Result, WorkspacesRun


def _poll_warmup(options: Options) -> None:
    """Read the warm-up figures of every active workspace's sender emails.

    Reads each list whole, for the last 10 days, into sender_email_warmup. A
    workspace that was read completely in the last 6 hours is left alone,
    unless -w names it.

    \b
    Example:
      bisonsync poll-warmup --deadline 15m --jitter 1m
      bisonsync poll-warmup -w 17 --dry-run
    """

    def body(run: WorkspacesRun, session: Session) -> Result:
        from bisonsync.jobs import poll_warmup as job

        return job.run(run, list_policy(session, run.job), is_named=bool(session.options.workspaces))

    execute(
        options,
        "poll-warmup",
        lambda session: scopes.over_workspaces(session, lambda run: body(run, session), resource="warmup"),
        counts=list_counts("accounts"),
    )


poll_warmup = single("poll-warmup", _poll_warmup)
