"""Applies deliveries that are due, that are chosen, or that stand in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, BinaryIO

from bisonsync.errors import BisonsyncError, GuardRefused
from bisonsync.jobs.replay_webhooks.crew import Crew, Limits
from bisonsync.jobs.replay_webhooks.file import FileDeliveries
from bisonsync.jobs.replay_webhooks.lines import NotReadable
from bisonsync.jobs.replay_webhooks.log import StoredDeliveries
from bisonsync.jobs.replay_webhooks.notes import COUNTS, Notes, named, some
from bisonsync.keys import WorkspaceKey
from bisonsync.run import Problem, Result, Run
from bisonsync.store import partitions, replay
from bisonsync.store.db import Connection
from bisonsync.store.replay import Choice, Tally

__all__ = ["COUNTS", "Choice", "Limits", "replay_file", "replay_log"]

# In a line of text, and in JSON.
_SPREAD_SHOWN = 5
_TALLIES_SHOWN = 200

Tell = Callable[[str], None]
Upkeep = Callable[[Connection], None]


def replay_log(
    run: Run, choice: Choice | None, limits: Limits, *, upkeep: Upkeep, tell: Tell, may_be_all: bool = False
) -> Result:
    """Apply the stored deliveries that a choice means, or without one those that are due, batch by batch.

    Each batch is a transaction; what is committed stays. ``upkeep`` is done first, and the days to come get their
    partitions. A choice without a bound needs ``may_be_all``. Raises GuardRefused, DatabaseError when nothing at all
    could be done.
    """
    if choice is not None and not (choice.is_bounded or may_be_all):
        raise GuardRefused(
            "this choice may mean the whole inbox: nothing was replayed",
            hint="bound it with --since, -w, --instance or --id, or say --all; 'inbox list' shows what there is",
        )
    notes, crew = Notes(), Crew(run, limits)
    if not run.dry_run:
        _keep_up(run, crew, notes, upkeep)
    tallies = crew.do(lambda conn: replay.count_chosen(conn, choice))
    if choice is not None and choice.ids is not None:
        notes.problems += _missing(crew.do(lambda conn: replay.list_missing_ids(conn, choice.ids or ())))
    found = sum(tally.deliveries for tally in tallies)
    wanted = found if limits.rows is None else min(found, limits.rows)
    notes.counts["chosen"] = wanted
    said = f"{some(found)} {'due' if choice is None else 'chosen'}{_spread(tallies)}"
    said += f"; the first {wanted} of them" if wanted < found else ""
    if run.dry_run:
        notes.problems += _tests_refused(choice, _by(tallies, "status"))
        return _result(notes, said, tallies)
    if not wanted:
        return _result(notes, said, tallies)
    tell(said)
    last_id = max(tally.last_id for tally in tallies)
    try:
        crew.carry_out(StoredDeliveries(run, crew, notes, choice, wanted=wanted, last_id=last_id))
    except BisonsyncError as end:
        notes.problems.append(Problem.of(end))
    notes.problems += [*_tests_refused(choice, notes.counts), *_mismatches_left(choice, notes.counts)]
    return _result(notes, notes.said("delivery", "deliveries"), tallies, committed=crew.committed)


def replay_file(
    run: Run,
    stream: BinaryIO,
    limits: Limits,
    *,
    received_at: datetime,
    keep_bodies: bool,
    upkeep: Upkeep,
    tell: Tell,
) -> Result:
    """Store and apply the lines of a file as new deliveries; what is known already is stored as a duplicate.

    ``received_at`` is for lines that do not tell it; ``keep_bodies``: mail bodies are stored. A broken line is named by
    its number, and the others go on.
    """
    notes, crew = Notes(), Crew(run, limits)
    task = FileDeliveries(run, crew, notes, stream, received_at=received_at, limit=limits.rows, keep_bodies=keep_bodies)
    try:
        if run.dry_run:
            for _ in task.items():
                crew.check()
        else:
            _keep_up(run, crew, notes, upkeep)
            tell("reading the file")
            crew.carry_out(task)
    except NotReadable as end:
        notes.problems.append(Problem("file", end.reason, "what was stored stays; the rest of it was not read"))
    except BisonsyncError as end:
        notes.problems.append(Problem.of(end))
    notes.problems = [*task.problems(), *notes.problems]
    kinds = dict(task.kinds.most_common())
    spread = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in kinds.items())
    said = notes.said("line", "lines") + (f" ({spread})" if spread else "")
    return _result(notes, said, [], committed=crew.committed, details={"kinds": kinds})


def _keep_up(run: Run, crew: Crew, notes: Notes, upkeep: Upkeep) -> None:
    crew.do(upkeep)
    ahead = partitions.make_days(partitions.briefly(run.bookkeeping))
    notes.warnings += [ahead.warning] if ahead.warning else []


def _missing(ids: Sequence[int]) -> list[Problem]:
    if not ids:
        return []
    hint = "they were never received, or are pruned: bisonsync inbox list"
    return [Problem("not_found", f"no delivery has the id {named(ids)}", hint)]


def _is_asked_for(choice: Choice | None, status: str) -> bool:
    """Whether deliveries of a status are chosen by name; in a range they are just passed over."""
    return choice is not None and (status in choice.statuses or choice.ids is not None)


def _tests_refused(choice: Choice | None, found: Counter[str]) -> list[Problem]:
    if not found["test"] or not _is_asked_for(choice, "test"):
        return []
    said = f"{found['test']} of the chosen have the status test, which is never applied"
    return [Problem(GuardRefused.kind, said, "a test is nobody's event", exit_code=GuardRefused.exit_code)]


def _mismatches_left(choice: Choice | None, found: Counter[str]) -> list[Problem]:
    if not found["mismatch"] or not _is_asked_for(choice, "mismatch"):
        return []
    return [
        Problem(
            GuardRefused.kind,
            f"{found['mismatch']} of the chosen name another workspace than the address they came to: not applied",
            "put base_url or former_urls of the instance right, or see 'bisonsync webhooks verify'",
            exit_code=GuardRefused.exit_code,
        )
    ]


def _workspace(tally: Tally) -> str | None:
    if tally.bison_instance is None or tally.bison_workspace_id is None:
        return None
    return str(WorkspaceKey(tally.bison_instance, tally.bison_workspace_id))


def _by(tallies: Iterable[Tally], what: str) -> Counter[str]:
    """Deliveries by status, type or workspace."""
    found: Counter[str] = Counter()
    for tally in tallies:
        name = {"status": tally.status, "type": tally.event_type, "workspace": _workspace(tally)}[what]
        found[name or "not known"] += tally.deliveries
    return found


def _spread(tallies: Sequence[Tally]) -> str:
    """By status, type and workspace, in a few words."""
    if not tallies:
        return ""
    parts: list[str] = []
    for what in ("status", "type", "workspace"):
        found = _by(tallies, what)
        most = ", ".join(f"{count} {name}" for name, count in found.most_common(_SPREAD_SHOWN))
        parts.append(most + (f", {len(found) - _SPREAD_SHOWN} other" if len(found) > _SPREAD_SHOWN else ""))
    pruned = sum(tally.pruned for tally in tallies)
    return f" ({'; '.join(parts)}{f'; {pruned} without payload: pruned' if pruned else ''})"


def _result(
    notes: Notes,
    said: str,
    tallies: Sequence[Tally],
    *,
    committed: bool = False,
    details: dict[str, Any] | None = None,
) -> Result:
    shown = [
        {
            "status": tally.status,
            "event_type": tally.event_type,
            "workspace": _workspace(tally),
            "deliveries": tally.deliveries,
            "pruned": tally.pruned,
        }
        for tally in tallies[:_TALLIES_SHOWN]
    ]
    by = {f"by_{what}": dict(_by(tallies, what).most_common()) for what in ("status", "type", "workspace")}
    return Result(
        {name: notes.counts[name] for name in COUNTS},
        problems=notes.all_problems(),
        committed=committed,
        summary=said,
        details=details if details is not None else {**by, "chosen": shown},
        warnings=tuple(notes.warnings),
    )
