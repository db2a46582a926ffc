"""Folds the deduplicated log again, and compares the counters with it or sets them right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby

from bisonsync.errors import BisonsyncError, DeadlineExceeded, GuardRefused
from bisonsync.keys import WorkspaceKey
from bisonsync.run import Problem, Result, Run
from bisonsync.store import counters, leases
from bisonsync.store.counters import Difference
from bisonsync.store.db import Connection

# Beyond these an event is too old to be counted at all: so long the keys are kept, whatever the settings say.
LEAST_KEY_DAYS = 70
DIFFERENCES_EXIT = 9
LOCK_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """What to fold: of which workspaces (None: all), from which month to which (None: all that can be folded).

    ``key_days``: for how long keys are kept.
    """

    workspaces: tuple[WorkspaceKey, ...] | None = None
    since: date | None = None
    until: date | None = None
    key_days: int = LEAST_KEY_DAYS


@dataclass(frozen=True, slots=True)
class _Found:
    """The counters that differ, and which months were looked at or left alone."""

    first_month: date
    last_month: date | None
    timezone: str
    differences: list[Difference]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def compare(run: Run, choice: Choice) -> Result:
    """Say which counters differ from the log; writes nothing, and is right beside everything that is received."""
    found = _look(run, choice)
    told = tuple(
        Problem(
            "difference",
            f"{key}, {_month(month)}: {_said(differences)}",
            "run 'bisonsync rebuild-counters'",
            str(key),
            DIFFERENCES_EXIT,
        )
        for (key, month), differences in _by_row(found.differences)
    )
    said = f"{_counters(found.differences)} not what the log says" if told else "every counter is what the log says"
    return _result(found, told, said, repaired=0, committed=False)


def rebuild(run: Run, choice: Choice) -> Result:
    """Set the counters that differ to what the log says, each workspace and month in a transaction of its own.

    In a dry run only says which those are.
    """
    found = _look(run, choice)
    problems: list[Problem] = []
    repaired: list[Difference] = []
    if not run.dry_run:
        for (key, month), _ in _by_row(found.differences):
            try:
                repaired += _repair(run, key, month)
            except DeadlineExceeded as error:
                problems.append(Problem.of(error))
                break
            except BisonsyncError as error:
                problems.append(Problem.of(error, str(key)))
            run.progress("setting counters right", len(repaired), len(found.differences))
    shown = found.differences if run.dry_run else repaired
    rows = [f"{key} {_month(month)}: {_said(wrong)}" for (key, month), wrong in _by_row(shown)]
    said = f"{_counters(shown)} set right: {'; '.join(rows)}" if rows else "every counter is what the log says"
    return _result(found, tuple(problems), said, repaired=len(repaired), committed=bool(repaired))


def _look(run: Run, choice: Choice) -> _Found:
    """Compare; months whose keys may be gone are refused when they were asked for, else only told."""
    days = max(choice.key_days, LEAST_KEY_DAYS)
    months = run.db.run(lambda conn: counters.list_months(conn, retention_days=days))
    first = max(months.first_open, choice.since) if choice.since else months.first_open
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    asked = choice.since or choice.until
    if asked is not None and asked < months.first_open:
        last = min(choice.until or date.max, _month_before(months.first_open))
        span = _month(asked) if asked == last else f"{_month(asked)} to {_month(last)}"
        if choice.since is None:
            span = f"up to {_month(last)}"
        problems = (
            Problem.of(
                GuardRefused(
                    f"{span}: refused, nothing of it was changed: keys are kept for {days} days, those of this time may"
                    " be gone already, and folding what is left would lose what was counted",
                    hint=f"the first month that can be folded is {_month(months.first_open)}",
                )
            ),
        )
    elif months.closed and asked is None:
        notes = (f"closed, left as they are: {', '.join(map(_month, months.closed))}",)
    differences: list[Difference] = []
    if choice.until is None or choice.until >= first:
        differences = run.db.run(
            lambda conn: counters.list_differences(conn, choice.workspaces, first, choice.until),
            statement_timeout_seconds=0,
        )
    return _Found(first, choice.until, months.timezone, differences, problems, notes)


def _repair(run: Run, key: WorkspaceKey, month: date) -> list[Difference]:
    def work(conn: Connection) -> list[Difference]:
        if run.lease is not None:
            leases.require(conn, run.lease)
        return counters.repair(conn, *key, month)

    run.clock.check()
    if run.clock.monotonic() >= run.deadline:
        raise DeadlineExceeded(
            "the deadline came before all counters were set right", hint="the next run does the rest"
        )
    return run.db.run(work, statement_timeout_seconds=0, lock_attempts=LOCK_ATTEMPTS)


def _result(found: _Found, problems: tuple[Problem, ...], said: str, *, repaired: int, committed: bool) -> Result:
    counts = {"differences": len(found.differences), "repaired": repaired}
    details = {
        "first_month": found.first_month,
        "last_month": found.last_month,
        "timezone": found.timezone,
        "differences": [asdict(difference) for difference in found.differences],
        "notes": list(found.notes),
    }
    if found.last_month is None:
        said = f"from {_month(found.first_month)} on {said}"
    elif found.last_month < found.first_month:
        said = "nothing to look at"
    else:
        said = f"from {_month(found.first_month)} to {_month(found.last_month)} {said}"
    return Result(
        counts,
        problems=(*found.problems, *problems),
        committed=committed,
        summary="; ".join([said, *found.notes]),
        details=details,
    )


def _by_row(differences: Iterable[Difference]) -> list[tuple[tuple[WorkspaceKey, date], list[Difference]]]:
    """Differences by the row of client_metrics they are in, which is how they come."""
    grouped = groupby(differences, key=lambda d: (WorkspaceKey(d.bison_instance, d.bison_workspace_id), d.metric_month))
    return [(row, list(wrong)) for row, wrong in grouped]


def _counters(differences: Sequence[Difference]) -> str:
    return "1 counter is" if len(differences) == 1 else f"{len(differences)} counters are"


def _said(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{d.counter} is {d.stored} and by the log {d.folded}" for d in differences)


def _month(month: date) -> str:
    return f"{month:%Y-%m}"


def _month_before(month: date) -> date:
    return month.replace(year=month.year - 1, month=12) if month.month == 1 else month.replace(month=month.month - 1)
