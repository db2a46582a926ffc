"""The counters against the log they are the sum of: rebuild-counters."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import single
from bisonsync.runner import Options, Session, execute, scopes
from bisonsync.runner.selection import find_workspaces

if TYPE_CHECKING:
    from bisonsync.jobs.rebuild_counters import Choice
    from bisonsync.run import Result

REBUILD_COUNTS = ("differences", "repaired")


def _rebuild_counters(
    options: Options,
    diff_only: Annotated[
        bool, typer.Option("--diff-only", help="Write nothing; exit 9 with every counter that differs.")
    ] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="MONTH", help="From this month on (2026-10, or a day in it).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="MONTH", help="Up to this month, which is the last.")
    ] = None,
) -> None:
    """Fold the deduplicated webhook log again and set the counters right.

    Without a month: all that can be folded. Months whose keys may be pruned
    are closed: their counters stay as they are, and asking for one is
    refused (exit 8). May run beside the receiver.

    \b
    Example:
      bisonsync rebuild-counters --diff-only
      bisonsync rebuild-counters --since 2026-10 -w 14
    """
    first, last = _month(since, "--since"), _month(until, "--until")
    if first and last and last < first:
        raise typer.BadParameter(f"{until} is before --since {since}", param_hint="--until")

    def body(session: Session) -> Result:
        from bisonsync.jobs import rebuild_counters as job

        if diff_only:
            # A proof that leaves no trace, and waits for nobody.
            return scopes.over_workspaces(
                session,
                lambda run: job.compare(run, _choice(session, first, last)),
                pick=find_workspaces,
                leased=False,
                in_ledger=False,
            )
        return scopes.alone(session, lambda run: job.rebuild(run, _choice(session, first, last)))

    execute(options, "rebuild-counters", body, counts=REBUILD_COUNTS)


def _choice(session: Session, first: date | None, last: date | None) -> Choice:
    from bisonsync.jobs.rebuild_counters import Choice
    from bisonsync.store import registry

    options = session.options
    workspaces = None
    if options.workspaces or options.instances:
        rows = session.bookkeeping.run(registry.list_workspaces)
        workspaces = tuple(row.key for row in find_workspaces(rows, options.workspaces, options.instances))
    days = session.settings.retention_days["webhook_event_keys"]
    return Choice(workspaces=workspaces, since=first, until=last, key_days=days)


def _month(text: str | None, option: str) -> date | None:
    """The first day of the month that a text means."""
    if text is None:
        return None
    try:
        day = date.fromisoformat(text.strip() if text.strip().count("-") > 1 else f"{text.strip()}-01")
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no month: write it as 2026-10", param_hint=option) from None
    return day.replace(day=1)


rebuild_counters = single("rebuild-counters", _rebuild_counters)
