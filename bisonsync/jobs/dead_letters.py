"""``dead-letters``: deliveries that will not be applied by themselves: looked at, tried again, or given up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from bisonsync.errors import BisonsyncError, ConfigError, DeadlineExceeded, GuardRefused
from bisonsync.masking import mask_addresses
from bisonsync.run import Problem, Result, Run
from bisonsync.store import inbox, leases, webhooks
from bisonsync.store.db import Connection, Database
from bisonsync.store.inbox import DeliveryKey, DeliveryRow, Filter, LetterCount
from bisonsync.store.webhooks import Outcome

LETTERS = ("dead", "mismatch")
# How a delivery may end that is tried again.
ENDS = ("processed", "duplicate", "ignored", "test", "unknown_workspace", "failed", "dead", "mismatch")
BATCH = 200
LOCK_ATTEMPTS = 5
IDS_NAMED = 5
MOST_IDS = 10_000

_Batch = Callable[[Connection, int], tuple[list[DeliveryKey], list[Outcome]]]


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead deliveries and those of another workspace: how many of which type and reason, and the newest of each."""

    counts: tuple[LetterCount, ...]
    rows: tuple[DeliveryRow, ...]

    def total(self, status: str) -> int:
        """How many there are of a status."""
        return sum(count.deliveries for count in self.counts if count.status == status)


def list_letters(database: Database, fit: Filter, *, limit: int) -> Letters:
    """The newest ``limit`` of each kind, the dead first; addresses in their errors masked."""

    def read(conn: Connection) -> Letters:
        rows = [
            row
            for status in LETTERS
            for row in inbox.list_deliveries(conn, replace(fit, statuses=(status,)), before_id=None, limit=limit)
        ]
        return Letters(
            _masked(inbox.count_letters(conn, replace(fit, statuses=LETTERS))),
            tuple(replace(row, error_message=mask_addresses(row.error_message)) for row in rows),
        )

    return database.run(read)


def retry(run: Run, fit: Filter, *, upkeep: Callable[[Connection], None]) -> Result:
    """Apply dead deliveries as if they were new, in batches that are committed one by one.

    What fails again begins its schedule of retries anew, or is dead again at once. Those of another workspace are
    judged again: each that is asked for by its id, else the ones that are none any more. ``upkeep`` is done first: it
    hands the settings that may have been put right to the rules. In a dry run only counts.
    """
    if not run.dry_run:
        run.db.run(upkeep, lock_attempts=LOCK_ATTEMPTS)
    problems = _refuse(run, fit, LETTERS)
    fit = replace(fit, statuses=("dead",) if fit.ids is None else LETTERS)
    if run.dry_run:
        return _planned(run, fit, "would be tried again", problems)

    def batch(conn: Connection, after_id: int) -> tuple[list[DeliveryKey], list[Outcome]]:
        keys = inbox.requeue(conn, fit, after_id=after_id, limit=BATCH)
        ids, received_ats = [key.id for key in keys], [key.received_at for key in keys]
        return keys, webhooks.process(conn, ids, received_ats) if keys else []

    ids, outcomes, end = _each_batch(run, "trying again", batch)
    counts = {"retried": len(ids), **dict.fromkeys(ENDS, 0)}
    for outcome in outcomes:
        counts[outcome.status] += 1
    said = ", ".join(f"{counts[status]} {status.replace('_', ' ')}" for status in ENDS if counts[status])
    return Result(
        counts,
        problems=(*problems, *_failed_again(outcomes), *_mismatched_again(outcomes), *_left_over(run, fit, ids, end)),
        committed=bool(ids),
        summary=f"{len(ids)} tried again" + (f": {said}" if said else ""),
        details={"deliveries": [_as_json(outcome) for outcome in outcomes]},
    )


def discard(run: Run, fit: Filter, *, reason: str) -> Result:
    """Settle what will never be applied, with the reason; ``fit.statuses`` says of which kinds. Batches as in retry.

    In a dry run only counts.
    """
    problems = _refuse(run, fit, fit.statuses or LETTERS)
    if run.dry_run:
        return _planned(run, fit, "would be discarded", problems)

    def batch(conn: Connection, after_id: int) -> tuple[list[DeliveryKey], list[Outcome]]:
        return inbox.discard(conn, fit, reason=reason, after_id=after_id, limit=BATCH), []

    ids, _, end = _each_batch(run, "discarding", batch)
    return Result(
        {"discarded": len(ids)},
        problems=(*problems, *_left_over(run, fit, ids, end)),
        committed=bool(ids),
        summary=f"{len(ids)} discarded",
        details={"discarded": ids},
    )


def _refuse(run: Run, fit: Filter, statuses: Sequence[str]) -> list[Problem]:
    """What cannot be done of the ids that were given, each with why."""
    if fit.ids is None:
        return []
    wanted = Filter(ids=fit.ids)
    rows = run.db.run(lambda conn: inbox.list_deliveries(conn, wanted, before_id=None, limit=MOST_IDS))
    found = {row.id: row.status for row in rows}
    problems: list[Problem] = []
    for delivery_id in fit.ids:
        status = found.get(delivery_id)
        if status is None:
            error: BisonsyncError = ConfigError(
                f"there is no delivery {delivery_id}", hint="see 'bisonsync dead-letters list'"
            )
            problems.append(Problem.of(error))
        elif status not in statuses:
            hint = f"see 'bisonsync inbox show {delivery_id}'"
            said = f"delivery {delivery_id} is {status}, not {' or '.join(statuses)}: left as it is"
            problems.append(Problem("not_dead", said, hint))
    return problems


def _planned(run: Run, fit: Filter, what: str, problems: Sequence[Problem]) -> Result:
    counts = _masked(run.db.run(lambda conn: inbox.count_letters(conn, fit)))
    total = sum(count.deliveries for count in counts)
    kinds = "; ".join(
        f"{count.deliveries} {count.event_type or 'of no type'} ({count.status}: {count.error_message or 'no reason'})"
        for count in counts
    )
    return Result(
        {"chosen": total},
        problems=tuple(problems),
        summary=f"{total} {what}" + (f": {kinds}" if kinds else ""),
        details={"chosen": [asdict(count) for count in counts]},
    )


def _each_batch(run: Run, what: str, batch: _Batch) -> tuple[list[int], list[Outcome], list[Problem]]:
    """Do batch after batch until one is empty: the ids done, what became of them, and what ended it early."""
    ids: list[int] = []
    outcomes: list[Outcome] = []

    def work(conn: Connection) -> tuple[list[DeliveryKey], list[Outcome]]:
        if run.lease is not None:
            leases.require(conn, run.lease)
        return batch(conn, ids[-1] if ids else 0)

    try:
        while True:
            run.clock.check()
            if run.clock.monotonic() >= run.deadline:
                raise DeadlineExceeded(f"the deadline came, {len(ids)} are done", hint="run it again for the rest")
            keys, done = run.db.run(work, lock_attempts=LOCK_ATTEMPTS)
            if not keys:
                return ids, outcomes, []
            ids += [key.id for key in keys]
            outcomes += done
            run.progress(what, len(ids), 0)
    except BisonsyncError as error:
        return ids, outcomes, [Problem.of(error)]


def _failed_again(outcomes: Sequence[Outcome]) -> list[Problem]:
    """What is dead or failed again, by type and reason."""
    grouped: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.status in ("dead", "failed"):
            reason = mask_addresses(outcome.error_message) or "no reason"
            grouped[outcome.status, outcome.event_type or "of no type", reason].append(outcome.id)
    return [
        Problem(
            "delivery",
            f"{len(ids)} {kind} {'is' if len(ids) == 1 else 'are'} {status} again ({_ids(ids)}): {reason}",
            "see 'bisonsync dead-letters show ID'" if status == "dead" else "replay-webhooks tries again by itself",
        )
        for (status, kind, reason), ids in grouped.items()
    ]


def _mismatched_again(outcomes: Sequence[Outcome]) -> list[Problem]:
    found = [outcome for outcome in outcomes if outcome.status == "mismatch"]
    if not found:
        return []
    ids = [outcome.id for outcome in found]
    said = f"{_ids(ids)}: {'is' if len(ids) == 1 else 'are'} still of another workspace: {found[0].error_message}"
    hint = (
        "put base_url or former_urls of the instance right and retry, or give it up:"
        " bisonsync dead-letters discard ID --reason TEXT"
    )
    return [Problem.of(GuardRefused(said, hint=hint))]


def _left_over(run: Run, fit: Filter, done: Sequence[int], end: Sequence[Problem]) -> list[Problem]:
    """Why something that was chosen is as it was."""
    if end:
        return list(end)
    rows = run.db.run(lambda conn: inbox.list_deliveries(conn, fit, before_id=None, limit=MOST_IDS))
    left = sorted({row.id for row in rows} - set(done))
    if not left:
        return []
    return [Problem("locked", f"{len(left)} left as they are ({_ids(left)}): another run holds them", "run it again")]


def _ids(ids: Sequence[int]) -> str:
    named = ", ".join(map(str, ids[:IDS_NAMED]))
    return f"{'id' if len(ids) == 1 else 'ids'} {named}{', …' if len(ids) > IDS_NAMED else ''}"


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {**asdict(outcome), "error_message": mask_addresses(outcome.error_message)}


def _masked(counts: Sequence[LetterCount]) -> tuple[LetterCount, ...]:
    return tuple(replace(count, error_message=mask_addresses(count.error_message)) for count in counts)
