"""Looking at the inbox: inbox."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.output import Output
    from bisonsync.run import Result
    from bisonsync.store.inbox import DeliveryDetail, DeliveryRow

Event = Annotated[
    list[str] | None, typer.Option("--event", metavar="TYPE", help="Only this type of event; may be repeated.")
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many at most.")]
Full = Annotated[bool, typer.Option("--full", help="Show mail addresses, names and texts too.")]
COLUMNS = ("received (UTC)", "id", "status", "type", "workspace", "source", "tries", "error")

inbox = group(no_args_is_help=True, add_completion=False)


@inbox.callback()
@global_options
def inbox_() -> None:
    """Show the webhooks that came, and what became of them.

    \b
    Example:
      bisonsync inbox list --status failed
      bisonsync inbox show 4711
    """


@inbox.command("list", cls=Command)
@global_options
def inbox_list(
    options: Options,
    status: Annotated[
        list[str] | None, typer.Option("--status", metavar="STATUS", help="Only these: processed, dead, ...")
    ] = None,
    event: Event = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="SOURCE", help="Only from: receiver, sql, file, ...")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Received at this day or moment or later.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Received before it.")] = None,
    limit: Limit = 20,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", help="Go on where a list ended: only older than this one.")
    ] = None,
) -> None:
    """List deliveries, the newest first.

    \b
    Example:
      bisonsync inbox list --status dead --status failed -w 14
      bisonsync inbox list --since 2026-05-06 --event lead_replied --limit 100
    """
    from bisonsync.jobs import inbox as job

    _refuse_unknown(status, job.STATUSES, "--status")
    _refuse_unknown(source, job.SOURCES, "--source")

    def body(session: Session) -> Result:
        from bisonsync.cli.moments import parse_moment
        from bisonsync.run import Result
        from bisonsync.store.inbox import Filter

        session.require_schema()
        zone = session.settings.reporting_timezone
        fit = Filter(
            statuses=tuple(status) if status else None,
            event_types=event_types(event),
            sources=tuple(source) if source else None,
            since=parse_moment(since, "--since", zone=zone),
            until=parse_moment(until, "--until", zone=zone),
            **of_workspaces(session),
        )
        # One more than is shown says whether there are older ones.
        found = job.list_deliveries(session.db, fit, before_id=before, limit=limit + 1)
        shown, older = found[:limit], found[limit:]
        next_before = shown[-1].id if older else None
        if shown:
            session.output.table(COLUMNS, [delivery_cells(row) for row in shown], right=(1, 6), spare=(5, 6, 0))
            if next_before and session.output.on_terminal:
                session.output.result(f"older ones: --before {next_before}")
        else:
            session.output.result("no such delivery")
        details = {"deliveries": [asdict(row) for row in shown], "next_before": next_before}
        return Result({"deliveries": len(shown)}, details=details)

    execute(options, "inbox-list", body)


@inbox.command("show", cls=Command)
@global_options
def inbox_show(
    options: Options,
    delivery_id: Annotated[int, typer.Argument(metavar="ID", help="The delivery.")],
    full: Full = False,
) -> None:
    """Show one delivery: payload, key, what it counted, what comes next.

    Mail addresses, names and texts of people are masked without --full.

    \b
    Example:
      bisonsync inbox show 4711
    """
    execute(options, "inbox-show", lambda session: show_delivery(session, delivery_id, full=full))


def show_delivery(session: Session, delivery_id: int, *, full: bool) -> Result:
    """Print everything about one delivery."""
    from bisonsync.jobs import inbox as job
    from bisonsync.run import Result

    session.require_schema()
    found = job.show(session.db, delivery_id, full=full)
    session.output.facts(_facts(found))
    if found.payload is not None:
        session.output.text("\npayload" + ("" if full else " (--full shows what is masked)"))
        session.output.text(json.dumps(found.payload, indent=2, ensure_ascii=False))
    return Result({"deliveries": 1}, details={"delivery": {**asdict(found), "duplicate_of": _original(found)}})


def print_deliveries(output: Output, rows: list[DeliveryRow], title: str) -> None:
    """A table of deliveries under a title."""
    output.table(COLUMNS, [delivery_cells(row) for row in rows], title=title, right=(1, 6), spare=(5, 6, 0))


def delivery_cells(row: DeliveryRow) -> list[str]:
    """A delivery as a line of a table."""
    from bisonsync.output import time_text

    return [
        time_text(row.received_at),
        str(row.id),
        row.status,
        row.event_type or "-",
        _workspace(row.bison_instance, row.bison_workspace_id, row.workspace_name),
        row.source,
        str(row.attempts),
        row.error_message or "",
    ]


def event_types(given: list[str] | None) -> tuple[str, ...] | None:
    """Types as they are stored."""
    return tuple(text.strip().lower() for text in given) if given else None


def of_workspaces(session: Session) -> dict[str, Any]:
    """What -w and --instance mean as parts of a Filter; an id that is not registered is taken as it is.

    Raises ConfigError for a name that fits none or several.
    """
    from bisonsync.runner.selection import find_workspaces
    from bisonsync.store import registry

    options = session.options
    instances = tuple(name.lower() for name in options.instances) or None
    if not options.workspaces:
        return {"instances": instances, "workspace_ids": None}
    rows = session.bookkeeping.run(registry.list_workspaces)
    strangers = {text.strip() for text in options.workspaces if text.strip().isdigit()}
    strangers -= {str(row.bison_workspace_id) for row in rows}
    known = [text for text in options.workspaces if text.strip() not in strangers]
    keys = [row.key for row in find_workspaces(rows, known, options.instances)] if known else []
    if not strangers:
        instances = tuple(sorted({instance for instance, _ in keys}))
    return {"instances": instances, "workspace_ids": (*(number for _, number in keys), *map(int, strangers))}


def _refuse_unknown(given: list[str] | None, known: tuple[str, ...], option: str) -> None:
    for text in given or ():
        if text not in known:
            raise typer.BadParameter(f"{text!r} is none of {', '.join(known)}", param_hint=option)


def _workspace(instance: str | None, number: int | None, name: str | None) -> str:
    if number is None:
        return name or "-"
    return f"{instance or '?'}/{number}"


def _original(found: DeliveryDetail) -> int | None:
    """The delivery that took effect in place of this one."""
    return found.counted_by if found.status == "duplicate" and found.counted_by != found.id else None


def _facts(found: DeliveryDetail) -> list[tuple[str, str]]:
    from bisonsync.output import time_text

    hook = "-" if found.hook_workspace_id is None else f"{found.hook_instance}/{found.hook_workspace_id}"
    took = "" if found.processing_time_ms is None else f", {found.processing_time_ms:.1f} ms"
    facts = [
        ("delivery", str(found.id)),
        ("status", found.status),
        ("error", found.error_message or "-"),
        ("type", found.event_type or "-"),
        ("workspace", " ".join(filter(None, (_key(found), found.workspace_name))) or "-"),
        ("came to", f"the address of {hook}" if found.source == "receiver" else hook),
        ("source", found.source),
        ("received", f"{time_text(found.received_at)} UTC"),
        ("happened", f"{time_text(found.occurred_at)} UTC (by {found.occurred_rule})" if found.occurred_at else "-"),
        ("decided", f"{time_text(found.processed_at)} UTC, rules {found.processor_version or '-'}{took}"),
        ("tries", str(found.attempts)),
        ("next try", _next(found)),
        ("key", f"{found.dedup_key} (by {found.dedup_rule})" if found.dedup_key else "none"),
        ("effect", _effect(found)),
    ]
    if found.payload_raw_bytes is not None:
        facts.append(("raw", f"{found.payload_raw_bytes:,} bytes as they came, for jsonb cannot hold them"))
    if found.payload is None:
        is_open = found.status in ("pending", "failed", "dead", "unknown_workspace", "mismatch")
        facts.append(("payload", "none: it came without" if is_open else "none: pruned, or it came without"))
    return facts


def _key(found: DeliveryDetail) -> str:
    return "" if found.bison_workspace_id is None else f"{found.bison_instance or '?'}/{found.bison_workspace_id}"


def _next(found: DeliveryDetail) -> str:
    from bisonsync.output import time_text

    if found.next_attempt_at is not None:
        return f"{time_text(found.next_attempt_at)} UTC"
    return "now: replay-webhooks takes it up" if found.status == "pending" else "none"


def _effect(found: DeliveryDetail) -> str:
    """What its event did, by the key that it has."""
    if found.dedup_key is None:
        return "none"
    if found.counted_by is None:
        return "unknown: its key is pruned"
    if found.counted_by != found.id:
        return f"none: the same event as delivery {found.counted_by}"
    return f"{found.metric} {found.amount:+d}" if found.metric and found.amount is not None else "counts in no counter"
