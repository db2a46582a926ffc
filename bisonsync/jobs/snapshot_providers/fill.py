"""Asks the platform for the days that no snapshot recorded, and fills them in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import TypeVar

from bisonsync.api.lanes import Lanes
from bisonsync.errors import ApiRefused, BisonsyncError, ConfigError, DeadlineExceeded, Stopped
from bisonsync.jobs.snapshot_providers.told import HostRefusal, ask, days_told, require_usable
from bisonsync.keys import WorkspaceKey
from bisonsync.models import DailyStats
from bisonsync.polling.visit import Tally, Visit
from bisonsync.run import Problem, WorkspacesRun
from bisonsync.store import partitions, snapshot_gaps
from bisonsync.store.db import Connection
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.snapshot_gaps import DayTold, Filled, Filling
from bisonsync.store.snapshots import Gap

T = TypeVar("T")

# No mailbox has this id, the largest of 32 bits: numbers that come for it are the whole workspace's.
NO_ACCOUNT = 2**31 - 1
LOOK_SECONDS = 0.2
# Who the token is, before and after.
REQUESTS_PER_WORKSPACE = 2

COUNTS = (
    "gaps_found",
    "gap_days",
    "gap_days_filled",
    "gap_accounts_filled",
    "gap_accounts_left",
    "gap_accounts_refused",
    "gap_requests",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the gaps: per instance the days whose history follows, counts, what went wrong, and a note."""

    days: Mapping[str, frozenset[date]]
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    note: str


@dataclass
class _Work:
    """What was done so far. ``days``: filled now, or before by a run that ended before the history followed."""

    days: dict[str, set[date]] = field(default_factory=dict[str, set[date]])
    filled: set[str] = field(default_factory=set[str])
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    problems: list[Problem] = field(default_factory=list[Problem])


def fill(run: WorkspacesRun, gaps: Sequence[Gap], *, zone: str, stats_zones: Mapping[str, str]) -> Outcome:
    """Fill the gaps of the run's workspaces, each workspace in one transaction of its own.

    ``zone``: the reporting zone; ``stats_zones``: that of the platform's own days, per instance. Only accounts that
    moved across a gap are asked for. What fails or is refused stays a gap and is a problem of the outcome; of a dry
    run the outcome says how many requests it would cost.
    """
    work, by_workspace = _Work(), dict[WorkspaceKey, list[Gap]]()
    keys = [row.key for row in run.workspaces]
    # Recording the mirror now would leave these behind.
    trailing = run.bookkeeping.run(partial(snapshot_gaps.list_trailing, keys=keys, zone=zone)) if run.dry_run else ()
    for gap in (*gaps, *trailing):
        by_workspace.setdefault(gap.key, []).append(gap)
    rows = [row for row in run.workspaces if row.key in by_workspace]
    work.counts["gaps_found"] = sum(len(by_workspace[row.key]) for row in rows)
    work.counts["gap_days"] = sum(len(gap.days) for row in rows for gap in by_workspace[row.key])
    lanes: list[Lanes] = []
    try:
        for instance in dict.fromkeys(row.bison_instance for row in rows):
            lanes.append(Lanes(run.concurrency.get(instance, 1), name=f"gaps-{instance}"))
            filler = _InstanceFiller(run, instance, lanes[-1], work)
            try:
                for row in rows:
                    if row.bison_instance == instance:
                        filler.fill_workspace(row, by_workspace[row.key])
            finally:
                filler.report()
    except DeadlineExceeded as error:
        hint = "what is filled stays; run it again with a longer --deadline"
        work.problems.append(Problem(error.kind, error.message, hint, exit_code=error.exit_code))
    finally:
        for lane in lanes:
            lane.close(timeout_seconds=0)
    for instance in () if run.dry_run else dict.fromkeys(row.bison_instance for row in run.workspaces):
        late = run.bookkeeping.run(partial(snapshot_gaps.list_unreckoned, instance=instance))
        work.days.setdefault(instance, set()).update(late)
    return Outcome(
        {instance: frozenset(days) for instance, days in work.days.items() if days},
        work.counts,
        tuple(work.problems),
        _note(run, work, zone, stats_zones),
    )


class _InstanceFiller:
    """Fills workspaces of one instance one after another; the requests of one go side by side."""

    def __init__(self, run: WorkspacesRun, instance: str, lanes: Lanes, work: _Work) -> None:
        self._run = run
        self._instance = instance
        self._lanes = lanes
        self._work = work
        self._host_refusal = ""
        self._is_filter_known = False
        self._refused: dict[str, list[str]] = {}

    def fill_workspace(self, row: WorkspaceRow, gaps: Sequence[Gap]) -> None:
        """Fill what can be filled of one workspace; its failure becomes a problem. Raises DeadlineExceeded, Stopped."""
        self._run.clock.check()
        try:
            self._fill(row, gaps)
        except (DeadlineExceeded, Stopped):
            raise
        except BisonsyncError as error:
            self._work.problems.append(Problem.of(error, str(row.key)))
        finally:
            self._lanes.drop(row.key)

    def report(self) -> None:
        """Say once for the instance what it could not tell, and of which accounts its numbers were not believed."""
        if self._host_refusal:
            self._work.problems.append(
                Problem(
                    "gap",
                    f"instance {self._instance}: {self._host_refusal}; its missing days stay a gap",
                    "windows that hold the whole gap are right; those with an end in it say so in gaps_7d, gaps_30d",
                )
            )
        for reason, names in self._refused.items():
            many = f"{len(names)} accounts" if len(names) > 1 else "an account"
            self._work.problems.append(
                Problem(
                    "gap",
                    f"instance {self._instance}: {reason} for {many} (the first: {names[0]}); these were not filled",
                    "their difference across the gap counts only in windows that hold the whole gap",
                )
            )

    def _fill(self, row: WorkspaceRow, gaps: Sequence[Gap]) -> None:
        ends = {gap: self._run.db.run(lambda conn, gap=gap: snapshot_gaps.list_ends(conn, gap)) for gap in gaps}
        moved = {gap: [e.bison_account_id for e in ends[gap] if e.state == "moved"] for gap in gaps}
        counts = self._work.counts
        left = sum(e.state not in ("moved", "still") for gap in gaps for e in ends[gap])
        asked = sum(len(ids) for ids in moved.values())
        if self._run.dry_run:
            counts["gap_accounts_left"] += left
            counts["gap_requests"] += asked + REQUESTS_PER_WORKSPACE + (not self._is_filter_known) if asked else 0
            self._is_filter_known |= bool(asked)
            return
        told: dict[Gap, dict[int, list[DayTold]]] = {gap: {} for gap in gaps}
        if asked and not self._host_refusal:
            try:
                told = self._ask(row, {gap: ids for gap, ids in moved.items() if ids})
            except HostRefusal as refusal:
                self._host_refusal = str(refusal)
        fillings: list[Filling] = []
        for gap in gaps:
            known = told.get(gap, {})
            if moved[gap] and not known:
                continue
            still = {e.bison_account_id: list[DayTold]() for e in ends[gap] if e.state == "still"}
            fillings.append(Filling(gap, {**still, **known}))
        if not fillings:
            return
        counts["gap_accounts_left"] += left
        filled = self._commit(row, fillings, left=left)
        for reason, ids in (
            ("the platform tells more than the counters moved", filled.exceeding),
            ("the platform tells nothing of what was sent", filled.unexplained),
        ):
            self._refuse(row, reason, ids)

    def _refuse(self, row: WorkspaceRow, reason: str, ids: Iterable[int]) -> None:
        for number in ids:
            self._refused.setdefault(reason, []).append(f"{number} of workspace {row.key}")
            self._work.counts["gap_accounts_refused"] += 1

    def _ask(self, row: WorkspaceRow, moved: Mapping[Gap, Sequence[int]]) -> dict[Gap, dict[int, list[DayTold]]]:
        """What the platform tells of each account that moved, as far as it is known for every missing day.

        Raises HostRefusal, GuardRefused when the token acts elsewhere, and what the client raises.
        """
        visit = self._visit(row)
        self._prove(visit)
        self._require_filter(visit, next(iter(moved)))
        asked = {
            self._lanes.submit(row.key, partial(ask, visit, gap, number)): (gap, number)
            for gap, ids in moved.items()
            for number in ids
        }
        self._work.counts["gap_requests"] += len(asked)
        self._wait(asked)
        told: dict[Gap, dict[int, list[DayTold]]] = {}
        for future, (gap, number) in asked.items():
            days = days_told(gap, future.result())
            if any(None in (day.sent, day.replied, day.bounced) for day in days[1:-1]):
                self._refuse(row, "the platform does not tell every missing day", [number])
            else:
                told.setdefault(gap, {})[number] = days
        self._prove(visit)
        return told

    def _visit(self, row: WorkspaceRow) -> Visit:
        client = self._run.clients.get(self._instance)
        if client is None:
            raise self._run.access[row.key].error or ConfigError(f"instance {self._instance} is not in the settings")
        visit = Visit(self._run, row, client, Tally(), lanes=self._lanes, refusal="nothing was filled")
        visit.require_own_token("gaps are not filled by switching a key")
        return visit

    def _prove(self, visit: Visit) -> None:
        self._work.counts["gap_requests"] += 1
        visit.prove(self._answered(self._lanes.submit(visit.row.key, visit.ask)))

    def _require_filter(self, visit: Visit, gap: Gap) -> None:
        """Ask once for a mailbox that cannot be, in days on which some of the workspace moved."""
        if self._is_filter_known:
            return
        self._work.counts["gap_requests"] += 1
        try:
            asked = self._lanes.submit(visit.row.key, partial(ask, visit, gap, NO_ACCOUNT))
            stats = self._answered(asked).result()
        except ApiRefused:
            # Who refuses the id knows the filter; who has no such route will say so again.
            return
        if any(amount for series in (stats.sent, stats.replied, stats.bounced) for amount in (series or {}).values()):
            raise HostRefusal(
                "its daily numbers are the same whichever mailbox is asked for (it ignores sender_email_ids)"
            )
        self._is_filter_known = True

    def _answered(self, future: Future[T]) -> Future[T]:
        """The same, once it is done; a stop does not wait for a host that hangs."""
        while not future.done():
            wait([future], timeout=LOOK_SECONDS)
            self._run.clock.check()
        return future

    def _wait(self, asked: Mapping[Future[DailyStats], tuple[Gap, int]]) -> None:
        """Wait for all answers, or for the first that ends the asking."""
        waiting = set(asked)
        while waiting:
            done, waiting = wait(waiting, timeout=LOOK_SECONDS, return_when="FIRST_EXCEPTION")
            self._run.progress("daily numbers", len(asked) - len(waiting), len(asked))
            self._run.clock.check()
            for future in done:
                require_usable(future)

    def _commit(self, row: WorkspaceRow, fillings: Sequence[Filling], *, left: int) -> Filled:
        first, last = min(f.gap.before for f in fillings), max(f.gap.after for f in fillings)
        partitions.make_months(self._run.db.run, first, last, needed=last)
        lease = self._run.leases[row.key]
        tries: list[Filled] = []

        def work(conn: Connection) -> None:
            counts = {"gap_accounts_left": left}
            tries.append(snapshot_gaps.fill(conn, lease, fillings, workspace_name=row.workspace_name, counts=counts))

        self._run.db.run(work)
        # After a commit whose answer was lost only the first try has seen what could not be right.
        filled = replace(tries[-1], exceeding=tries[0].exceeding, unexplained=tries[0].unexplained)
        if filled.days:
            # A gap that could not be filled is not among them, nor does its history change.
            days = {day for filling in fillings for day in filling.gap.days}
            self._work.days.setdefault(self._instance, set()).update(days)
            self._work.filled.add(self._instance)
        self._work.counts["gap_days_filled"] += filled.days
        self._work.counts["gap_accounts_filled"] += filled.accounts
        return filled


def _note(run: WorkspacesRun, work: _Work, zone: str, stats_zones: Mapping[str, str]) -> str:
    counts = work.counts
    if not counts["gaps_found"]:
        return "no missing days to fill"
    if run.dry_run:
        return f"{counts['gap_days']} missing days of workspaces could be filled with {counts['gap_requests']} requests"
    said = f"{counts['gap_days_filled']} of {counts['gap_days']} missing days of workspaces filled"
    if counts["gap_accounts_left"]:
        said += f" without {counts['gap_accounts_left']} accounts that came, went or were reset meanwhile"
    zones = sorted({stats_zones[name] for name in work.filled if stats_zones.get(name, zone) != zone})
    if zones:
        said += f", approximately: days begin in {', '.join(zones)} there and in {zone} here"
    return said
