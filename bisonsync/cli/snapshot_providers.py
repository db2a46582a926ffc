"""What is kept of each day."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute, scopes

if TYPE_CHECKING:
    from bisonsync.jobs.snapshot_providers import Fill
    from bisonsync.run import Result

SNAPSHOT_COUNTS = (
    "workspaces_total",
    "workspaces_ok",
    "workspaces_failed",
    "workspaces_refused",
    "accounts",
    "inserted",
    "updated",
    "unchanged",
    "providers",
    "history_inserted",
    "history_updated",
    "history_deleted",
    "gaps",
    "resets",
    "falling_counters",
)


def _snapshot_providers(
    options: Options,
    on: Annotated[
        str | None,
        typer.Option("--date", metavar="YYYY-MM-DD", help="Compute the history of this past day again."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Record also what is stale or incomplete, and mark it.")
    ] = False,
    fill_gaps: Annotated[
        bool,
        typer.Option("--fill-gaps", help="Fill missing days from the platform's daily numbers, where it has them."),
    ] = False,
) -> None:
    """Record today's counters of every account, and the history of the providers.

    Writes sender_email_daily where it differs from the mirror, a workspace per
    transaction, and computes provider_performance_history from it. A workspace
    whose mirror is stale or incomplete is refused. A past day is computed from
    what was recorded on it, never from the mirror.

    \b
    Example:
      bisonsync snapshot-providers
      bisonsync snapshot-providers --date 2026-06-30
      bisonsync snapshot-providers --fill-gaps --dry-run
    """
    day = _day(on)

    def body(session: Session) -> Result:
        from bisonsync.jobs import snapshot_providers as job

        policy = job.Policy(zone=session.settings.reporting_timezone, force=force, on=day)
        fill = _fill_gaps(session) if fill_gaps else None
        return scopes.over_workspaces(session, lambda run: job.run(run, policy, fill))

    execute(options, "snapshot-providers", body, counts=SNAPSHOT_COUNTS, is_part=day is not None)


def _fill_gaps(session: Session) -> Fill:
    """What fills gaps, with its part of the settings."""
    from bisonsync.jobs.snapshot_providers.fill import fill

    settings = session.settings
    stats_zones = {name: instance.stats_timezone for name, instance in settings.instances.items()}
    return lambda run, gaps: fill(run, gaps, zone=settings.reporting_timezone, stats_zones=stats_zones)


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day: write it as YYYY-MM-DD", param_hint="--date") from None


snapshot_providers = single("snapshot-providers", _snapshot_providers)
