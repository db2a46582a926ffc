"""Upkeep of the database: prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute, scopes

if TYPE_CHECKING:
    from bisonsync.run import Result

PRUNE_COUNTS = (
    "rows_removed",
    "email_sync_logs",
    "email_sync_log_workspaces",
    "api_health_logs",
    "data_validation_errors",
    "alert_episodes",
    "alert_messages",
    "provider_performance_history",
    "workspace_snapshots",
    "webhook_delivery_log",
    "webhook_event_keys",
    "months_dropped",
    "months_made",
    "days_dropped",
    "days_slimmed",
    "payloads_removed",
    "days_made",
    "vacuumed",
)


def _prune(options: Options) -> None:
    """Remove what is older than its retention, and make room for what comes.

    Deletes in batches, each committed; drops whole months of the history and
    makes those of the next two; removes the payloads of old webhooks, drops
    their days and makes those of the next week; tidies up what changed much.
    A table that is locked is told and left to the next run. Safe to stop at
    any time.

    \b
    Example:
      bisonsync prune --dry-run
      bisonsync prune -q --deadline 1h --skip-if-locked
    """

    def body(session: Session) -> Result:
        from bisonsync.errors import UsageError
        from bisonsync.jobs import prune as job

        if options.workspaces or options.instances:
            raise UsageError(
                "prune removes what is old of all workspaces: -w and --instance cannot narrow it",
                hint="leave them out; 'bisonsync prune --dry-run' says what would go",
            )
        settings = session.settings
        policy = job.Policy(settings.retention_days, settings.reporting_timezone)
        return scopes.alone(session, lambda run: job.run(run, policy))

    execute(options, "prune", body, counts=PRUNE_COUNTS)


prune = single("prune", _prune)
