"""Deliveries that will not be applied by themselves: dead-letters."""

from __future__ import annotations

import getpass
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.inbox import Event, Full, Limit, event_types, of_workspaces, print_deliveries, show_delivery
from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute, scopes, upkeep

if TYPE_CHECKING:
    from bisonsync.run import Result
    from bisonsync.store.inbox import Filter

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="The deliveries.")]
RETRY_COUNTS = (
    *("retried", "processed", "duplicate", "ignored", "test", "unknown_workspace", "failed", "dead", "mismatch"),
)

dead_letters = group(no_args_is_help=True, add_completion=False)


@dead_letters.callback()
@global_options
def dead_letters_() -> None:
    """Deliveries that nothing will apply by itself: look, retry, discard.

    \b
    Example:
      bisonsync dead-letters list
      bisonsync dead-letters retry --all --event lead_replied
    """


@dead_letters.command("list", cls=Command)
@global_options
def dead_letters_list(options: Options, event: Event = None, limit: Limit = 20) -> None:
    """List dead deliveries, and apart those of another workspace (mismatch).

    A mismatch came to the address of one workspace with an event of another,
    or of an unknown host: it is not applied unless the settings change.

    \b
    Example:
      bisonsync dead-letters list --event lead_replied
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import dead_letters as job
        from bisonsync.run import Result

        session.require_schema()
        found = job.list_letters(session.db, _fit(session, event), limit=limit)
        counts = {status: found.total(status) for status in job.LETTERS}
        titles = {"dead": "dead", "mismatch": "of another workspace than their address: not applied"}
        for status, title in titles.items():
            rows = [row for row in found.rows if row.status == status]
            if rows:
                more = f" ({len(rows)} of {counts[status]})" if counts[status] > len(rows) else ""
                print_deliveries(session.output, rows, title + more)
        if not found.rows:
            session.output.result("no dead letter")
        details = {
            "dead_letters": [asdict(row) for row in found.rows if row.status == "dead"],
            "mismatches": [asdict(row) for row in found.rows if row.status == "mismatch"],
            "reasons": [asdict(count) for count in found.counts],
        }
        return Result(counts, details=details)

    execute(options, "dead-letters-list", body)


@dead_letters.command("show", cls=Command)
@global_options
def dead_letters_show(
    options: Options,
    delivery_id: Annotated[int, typer.Argument(metavar="ID", help="The delivery.")],
    full: Full = False,
) -> None:
    """Show one delivery, as 'inbox show' does.

    \b
    Example:
      bisonsync dead-letters show 4711
    """
    execute(options, "dead-letters-show", lambda session: show_delivery(session, delivery_id, full=full))


@dead_letters.command("retry", cls=Command)
@global_options
def dead_letters_retry(
    options: Options,
    ids: Ids = None,
    every: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    event: Event = None,
) -> None:
    """Apply dead deliveries again, at once, as if they were new.

    With --all also the mismatches that are none any more, now that base_url,
    former_urls or the registry is put right; by its ID any mismatch is judged
    again. Exit 3 if one is dead or failed again, 8 if one still mismatches.

    \b
    Example:
      bisonsync dead-letters retry 4711 4712
      bisonsync dead-letters retry --all --event lead_replied --dry-run
    """
    _refuse_unclear(ids, every=every, narrowed=bool(event or options.workspaces or options.instances))

    def body(session: Session) -> Result:
        from bisonsync.jobs import dead_letters as job

        return scopes.alone(
            session,
            lambda run: job.retry(run, _fit(session, event, ids), upkeep=partial(upkeep.write_settings, session)),
        )

    execute(options, "dead-letters-retry", body, counts=RETRY_COUNTS)


@dead_letters.command("discard", cls=Command)
@global_options
def dead_letters_discard(
    options: Options,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the delivery.")],
    ids: Ids = None,
    every: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    mismatch: Annotated[
        bool, typer.Option("--mismatch", help="With --all: those of another workspace, instead of the dead.")
    ] = False,
    event: Event = None,
) -> None:
    """Give deliveries up, for a reason: they are ignored from now on.

    The reason is kept in error_message, before what was wrong; who did it,
    where and when is in the ledger too. No replay applies them again.

    \b
    Example:
      bisonsync dead-letters discard 4711 --reason "a test by hand"
    """
    _refuse_unclear(ids, every=every, narrowed=bool(event or options.workspaces or options.instances or mismatch))
    if not reason.strip():
        raise typer.BadParameter("an empty reason tells nobody anything", param_hint="--reason")

    def body(session: Session) -> Result:
        from bisonsync.jobs import dead_letters as job

        kinds = ("mismatch",) if mismatch else ("dead",) if every else job.LETTERS
        said = f"discarded by {_user()}: {reason.strip()}"
        return scopes.alone(
            session, lambda run: job.discard(run, replace(_fit(session, event, ids), statuses=kinds), reason=said)
        )

    execute(options, "dead-letters-discard", body, counts=("discarded",))


def _fit(session: Session, event: list[str] | None, ids: list[int] | None = None) -> Filter:
    from bisonsync.store.inbox import Filter

    chosen = tuple(dict.fromkeys(ids)) if ids else None
    return Filter(event_types=event_types(event), ids=chosen, **of_workspaces(session))


def _refuse_unclear(ids: list[int] | None, *, every: bool, narrowed: bool) -> None:
    if bool(ids) == every:
        raise typer.BadParameter("give ids, or --all" + (", not both" if ids else ""), param_hint="ID")
    if ids and narrowed:
        raise typer.BadParameter("ids say all: --event, --mismatch, -w and --instance go with --all", param_hint="ID")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
