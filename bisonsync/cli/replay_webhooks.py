"""Applying deliveries, or applying them again: replay-webhooks."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from bisonsync.cli.options import single
from bisonsync.errors import UsageError
from bisonsync.runner import Options, Session, execute, scopes, upkeep
from bisonsync.runner.selection import find_workspaces

if TYPE_CHECKING:
    from bisonsync.jobs.replay_webhooks import Choice, Limits
    from bisonsync.run import Result, Run

# As jobs.replay_webhooks has them; that is imported only when it runs.
REPLAY_COUNTS = (
    *("chosen", "processed", "duplicate", "ignored", "failed", "dead", "dead_again", "unknown_workspace"),
    *("mismatch", "test", "skipped", "broken"),
)
STATUSES = (
    *("pending", "processed", "failed", "dead", "duplicate", "ignored", "test", "unknown_workspace", "mismatch"),
)
# Whoever chooses or gives a file wants all of it; what is due is taken up again a minute later anyway.
CHOSEN_DEADLINE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the options ask for, as they were written."""

    since: str | None
    until: str | None
    events: tuple[str, ...]
    statuses: tuple[str, ...]
    ids: tuple[int, ...]
    ids_file: Path | None
    older_than: int | None

    @property
    def is_choice(self) -> bool:
        return any((self.since, self.until, self.events, self.statuses, self.ids, self.ids_file)) or (
            self.older_than is not None
        )


def _replay_webhooks(
    options: Options,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Received at or after this.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Received before this.")] = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="TYPE", help="Only this type; may be repeated.")
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", metavar="STATUS", help="Only this status; may be repeated.")
    ] = None,
    ids: Annotated[
        list[int] | None, typer.Option("--id", metavar="ID", help="Only this delivery; may be repeated.")
    ] = None,
    ids_file: Annotated[
        Path | None, typer.Option("--ids-file", metavar="PATH", help="Only the deliveries in this file, an id a line.")
    ] = None,
    older_than: Annotated[
        int | None,
        typer.Option("--processor-older-than", metavar="N", min=0, help="Only what rules before version N decided."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Allow a choice that may mean the whole inbox.")] = False,
    from_file: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Store and apply a file's lines; - is stdin.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="So many at most.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", min=0.001, help="So many a second.")] = None,
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", metavar="N", min=1, help="Stop after so many new failures.")
    ] = None,
) -> None:
    """Apply webhook deliveries that are due, or that you choose.

    Due: pending ones, failed ones whose next try has come, those whose
    workspace is registered by now, and mismatches that are none any more. The
    options choose others, also some that were applied: an event counts once
    however often it is replayed. TIME is a day or a moment of the reporting
    time zone. Says first how many it means. Exit 3 when a delivery failed in
    this run.

    \b
    Example:
      bisonsync replay-webhooks --status dead --since 2026-05-06
      bisonsync replay-webhooks --from deliveries.jsonl
    """
    asked = _Asked(since, until, tuple(event or ()), tuple(status or ()), tuple(ids or ()), ids_file, older_than)
    unknown = [name for name in asked.statuses if name not in STATUSES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(STATUSES)}", param_hint="--status")

    def body(session: Session) -> Result:
        from bisonsync.jobs.replay_webhooks import Limits

        limits = Limits(rows=limit, per_second=rate, failures=max_failures)
        if from_file is not None:
            return _replay_file(session, from_file, asked, limits, is_all=all_)
        return _replay_log(session, asked, limits, is_all=all_)

    is_part = asked.is_choice or all_ or from_file is not None
    execute(options, "replay-webhooks", body, counts=REPLAY_COUNTS, is_part=is_part)


def _replay_log(session: Session, asked: _Asked, limits: Limits, *, is_all: bool) -> Result:
    from bisonsync.jobs import replay_webhooks as job

    options = session.options
    choice = None
    if asked.is_choice or is_all or options.workspaces or options.instances:
        choice = _choice(session, asked)
        _give_time(session)

    def work(run: Run) -> Result:
        wanted = choice and _with_workspaces(session, choice)
        return job.replay_log(
            run,
            wanted,
            limits,
            upkeep=partial(upkeep.write_settings, session),
            tell=lambda text: _tell(session, text),
            may_be_all=is_all,
        )

    return scopes.alone(session, work)


def _replay_file(session: Session, name: str, asked: _Asked, limits: Limits, *, is_all: bool) -> Result:
    from bisonsync.jobs import replay_webhooks as job

    if asked.is_choice or is_all or session.options.workspaces or session.options.instances:
        raise UsageError(
            "--from takes every line of its file: no other choice can narrow it",
            hint="leave the choice out, or pick the lines first: jq -c 'select(.event.workspace_id == 17)' FILE",
        )
    _give_time(session)
    with _open(name) as stream:
        received_at = _written_at(stream, session.clock.now())
        return scopes.alone(
            session,
            lambda run: job.replay_file(
                run,
                stream,
                limits,
                received_at=received_at,
                keep_bodies=session.settings.webhooks.store_bodies,
                upkeep=partial(upkeep.write_settings, session),
                tell=lambda text: _tell(session, text),
            ),
        )


def _choice(session: Session, asked: _Asked) -> Choice:
    from bisonsync.cli.moments import parse_moment
    from bisonsync.jobs.replay_webhooks import Choice

    zone = session.settings.reporting_timezone
    since, until = parse_moment(asked.since, "--since", zone=zone), parse_moment(asked.until, "--until", zone=zone)
    if since and until and since >= until:
        raise UsageError("--since is not before --until: that means nothing", hint="the end itself is not included")
    return Choice(
        since=since,
        until=until,
        event_types=tuple(name.strip().lower() for name in asked.events),
        statuses=asked.statuses,
        ids=_ids(asked),
        older_than=asked.older_than,
    )


def _with_workspaces(session: Session, choice: Choice) -> Choice:
    """What -w and --instance mean, of those that are registered."""
    from bisonsync.store import registry

    options = session.options
    if not (options.workspaces or options.instances):
        return choice
    rows = find_workspaces(session.bookkeeping.run(registry.list_workspaces), options.workspaces, options.instances)
    if options.workspaces:
        return replace(choice, workspaces=tuple(row.key for row in rows))
    return replace(choice, instances=tuple(name.lower() for name in options.instances))


def _ids(asked: _Asked) -> tuple[int, ...] | None:
    if not asked.ids and asked.ids_file is None:
        return None
    found = list(asked.ids)
    if asked.ids_file is not None:
        try:
            lines = asked.ids_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--ids-file {asked.ids_file} cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            word = line.strip()
            if word and not (word.isascii() and word.isdigit() and len(word) <= 18):
                raise UsageError(f"--ids-file {asked.ids_file}: line {number} is no id", hint="one id a line")
            found += [int(word)] if word else []
    return tuple(dict.fromkeys(found))


def _open(name: str) -> BinaryIO:
    if name == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    try:
        return Path(name).open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"--from {name}: {error.strerror}", hint="give the path of a file, or - for stdin") from None


def _written_at(stream: BinaryIO, now: datetime) -> datetime:
    """When a file was written: what its lines do not tell is then the same however often they are replayed."""
    about = os.fstat(stream.fileno())
    if not stat.S_ISREG(about.st_mode):
        return now
    return min(datetime.fromtimestamp(about.st_mtime, UTC), now)


def _give_time(session: Session) -> None:
    if session.options.deadline_seconds is None:
        session.options = replace(session.options, deadline_seconds=CHOSEN_DEADLINE_SECONDS)


def _tell(session: Session, text: str) -> None:
    """How many are meant, before they are touched: to a person, or where it was asked for."""
    if session.output.on_terminal:
        session.output.result(f"replay-webhooks: {text}")
    else:
        session.output.log(text)


replay_webhooks = single("replay-webhooks", _replay_webhooks)
