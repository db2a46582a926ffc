"""pull-events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute, scopes

if TYPE_CHECKING:
    from bisonsync.jobs.pull_events import Policy
    from bisonsync.run import Result, WorkspacesRun

PULL_COUNTS = (
    "workspaces_total",
    "workspaces_ok",
    "workspaces_failed",
    "workspaces_incomplete",
    "workspaces_absent",
    "events_read",
    "new",
    "known",
    "duplicate",
    "ignored",
    "failed",
    "mismatch",
    "left_out",
    "judged_again",
    "pages",
    "requests",
    "retries",
    "rate_limited",
)


def _pull_events(options: Options) -> None:
    """Pull each workspace's event log into the webhook inbox.

    Recovers what was never delivered: hosts keep their events for 10 days. Goes
    back to where the last pull began; what the inbox has already is left alone.
    A host without an event log is told of once.

    \b
    Example:
      bisonsync pull-events --deadline 10m --jitter 20s
      bisonsync pull-events -w 17 --dry-run
    """

    def body(run: WorkspacesRun, session: Session) -> Result:
        from bisonsync.jobs import pull_events as job

        return job.run(run, _policy(session))

    execute(
        options,
        "pull-events",
        lambda session: scopes.over_workspaces(session, lambda run: body(run, session)),
        counts=PULL_COUNTS,
    )


def _policy(session: Session) -> Policy:
    """The job's part of the settings."""
    from bisonsync.jobs.pull_events import Policy
    from bisonsync.settings.models import SCHEDULE

    polling = session.settings.polling
    interval = session.settings.intervals.get("pull-events", SCHEDULE["pull-events"])
    return Policy(
        interval_seconds=max(1, round(interval.total_seconds())),
        workspace_deadline_min_seconds=polling.workspace_deadline_min.total_seconds(),
        workspace_deadline_per_1000_seconds=polling.workspace_deadline_per_1000.total_seconds(),
        keep_bodies=session.settings.webhooks.store_bodies,
    )


pull_events = single("pull-events", _pull_events)
