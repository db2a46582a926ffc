"""Brings the inbox up to date with one workspace's event log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial

from bisonsync.api.event_log import EventLogReader, Part, Walk
from bisonsync.errors import ApiRefused, BisonsyncError, DatabaseError, GuardRefused, Stopped
from bisonsync.jobs.pull_events.walks import WHOLE_EVERY, advanced, delivery_of, first_walk, interrupted_walk
from bisonsync.polling.results import verdict_of
from bisonsync.polling.visit import Visit, note_failure
from bisonsync.run import Problem, WorkspaceOutcome, WorkspaceVerdict
from bisonsync.store import event_pulls, partitions
from bisonsync.store.db import Connection
from bisonsync.store.event_pulls import Counts, Mismatches, Pull
from bisonsync.store.leases import Lease
from bisonsync.store.webhooks import Outcome

# Read between two looks at whose the token is, stored together: what a kill costs, and what the memory holds.
PAGES_PER_PART = 40
ROWS_PER_PART = 15 * PAGES_PER_PART
JUDGED_PER_COMMIT = 500
MISSING_ROUTE = 404


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say of this job."""

    interval_seconds: int
    workspace_deadline_min_seconds: float
    workspace_deadline_per_1000_seconds: float
    keep_bodies: bool = False


class _NoEventLog(Exception):
    """The host does not have the endpoint."""


def problems_of(name: str, unapplied: Sequence[Outcome], mismatches: Mismatches | None = None) -> tuple[Problem, ...]:
    """What was stored of a workspace now and could not be applied, and what lies there of another one."""
    problems: list[Problem] = []
    if mismatches is not None and mismatches.deliveries:
        many = f"{mismatches.deliveries} deliveries in the inbox name"
        one = "1 delivery in the inbox names"
        problems.append(
            Problem(
                "mismatch",
                f"{name}: {one if mismatches.deliveries == 1 else many} another workspace or host, the first:"
                f" {mismatches.first}",
                "if that host is this instance, put its address into former_urls and run this again; if not:"
                f" bisonsync dead-letters discard --all --mismatch -w {name} --reason TEXT",
                name,
                GuardRefused.exit_code,
            )
        )
    if unapplied:
        first = unapplied[0]
        # What Postgres says of one that failed may quote its values.
        why = f", {first.error_message}" if first.status != "failed" else ""
        problems.append(
            Problem(
                "event",
                f"{name}: {len(unapplied)} of the events pulled could not be applied, the first:"
                f" {first.event_type or 'no type'}{why}",
                f"they are kept: bisonsync dead-letters list -w {name}",
                name,
                3,
            )
        )
    return tuple(problems)


class WorkspacePull:
    """A pull of one workspace, from which also the outcome of what went wrong in it comes."""

    def __init__(self, visit: Visit, policy: Policy, pull: Pull) -> None:
        self._visit = visit
        self._run = visit.run
        self._row = visit.row
        self._policy = policy
        self._pull = pull
        self._counts = Counts()
        self._unapplied: list[Outcome] = []
        self._mismatches: Mismatches | None = None
        self._is_committed = False

    def carry_out(self) -> WorkspaceOutcome:
        """Read the log back to where it was read before, and store what the inbox does not have."""
        try:
            self._pull_all()
        except _NoEventLog:
            return self._outcome("skipped", note=f"instance {self._row.bison_instance} has no event log")
        return self._outcome("complete", self._problems())

    def failed(self, error: BisonsyncError) -> WorkspaceOutcome:
        """The outcome of a pull that did not reach the end of the log; what it committed stays."""
        verdict = verdict_of(error)
        if self._is_committed and verdict != "guarded":
            verdict = "incomplete"
        if isinstance(error, Stopped):
            # The run says it once for all.
            return self._outcome(verdict)
        interval = self._policy.interval_seconds
        note_failure(
            self._run,
            self._row,
            event_pulls.RESOURCE,
            error,
            verdict=verdict,
            interval_seconds=interval,
            in_parts=True,
        )
        return self._outcome(verdict, (Problem.of(error, str(self._row.key)), *self._problems()))

    def _pull_all(self) -> None:
        now = self._visit.begin(event_pulls.RESOURCE).at
        self._mismatches = self._sum_mismatches()
        if self._mismatches.deliveries:
            self._judge_again()
            self._mismatches = self._sum_mismatches()
        if self._pull.absent_at is not None and now - self._pull.absent_at < WHOLE_EVERY:
            raise _NoEventLog
        self._visit.require_own_token("event logs are not read by switching a key")
        self._visit.prove()
        interrupted = interrupted_walk(self._pull, now)
        if interrupted is not None:
            self._go_on(interrupted, now)
        self._walk(first_walk(self._pull, now), now, is_last=True)

    def _judge_again(self) -> None:
        """Apply the mismatches that are none any more."""
        if self._visit.lease is None:
            return

        def work(conn: Connection, lease: Lease) -> Counts:
            return event_pulls.judge_again(conn, lease, self._row.workspace_name, self._counts, limit=JUDGED_PER_COMMIT)

        while (counts := self._visit.commit(work)) != self._counts:
            self._counts, self._is_committed = counts, True

    def _sum_mismatches(self) -> Mismatches:
        return self._run.bookkeeping.run(lambda conn: event_pulls.sum_mismatches(conn, self._row.key))

    def _problems(self) -> tuple[Problem, ...]:
        return problems_of(str(self._row.key), self._unapplied, self._mismatches)

    def _go_on(self, walk: Walk, now: datetime) -> None:
        """End an interrupted walk, unless the host has forgotten its cursor."""
        pages = self._counts.pages
        try:
            self._walk(walk, now, is_last=False)
        except ApiRefused:
            if self._counts.pages > pages:
                raise
            self._pull = replace(self._pull, walk_cursor=None)

    def _walk(self, walk: Walk, now: datetime, *, is_last: bool) -> None:
        """Read and store part by part; each was read while the token acted in this workspace, before and after."""
        visit = self._visit
        reader = EventLogReader(visit.client, walk, token=visit.token, who=visit.access.who, on_page=visit.tally.add)
        while True:
            seconds = self._policy.workspace_deadline_per_1000_seconds * ROWS_PER_PART / 1000
            limit = self._policy.workspace_deadline_min_seconds + seconds
            part = reader.read_part(PAGES_PER_PART, visit.client.meter(limit, name=f"workspace {self._row.key}"))
            if part.pages:
                visit.prove()
                self._store(part, now, is_last=is_last)
            if part.error is not None:
                self._note_absence(part.error, walk)
                raise part.error
            if part.is_end:
                return

    def _note_absence(self, error: BisonsyncError, walk: Walk) -> None:
        """Raises _NoEventLog when the first page of all is not to be had."""
        if not isinstance(error, ApiRefused) or error.status != MISSING_ROUTE or walk.cursor or self._counts.pages:
            return
        if self._visit.lease is not None:
            self._visit.commit(event_pulls.record_absence)
        raise _NoEventLog

    def _store(self, part: Part, now: datetime, *, is_last: bool) -> None:
        key = self._row.key
        kept = [event for event in part.rows if event.created_at is None or event.created_at >= part.walk.floor]
        pull = advanced(self._pull, part, now)
        made = event_pulls.Part(
            deliveries=[delivery_of(event, key, now, keep_bodies=self._policy.keep_bodies) for event in kept],
            left_out=len(part.rows) - len(kept),
            pages=part.pages,
            pull=pull,
            workspace_name=self._row.workspace_name,
            counts=self._counts,
            interval_seconds=self._policy.interval_seconds,
            read_started_at=now if is_last and part.is_end else None,
        )
        if self._visit.lease is None:
            stored = self._run.db.run(lambda conn: event_pulls.plan(conn, key, made))
        else:
            first, last = event_pulls.first_day(made.deliveries), now.date()
            if first is not None and first < last:
                # Without one the row has its place all the same, where days are not dropped as a whole.
                with suppress(DatabaseError):
                    partitions.briefly(self._run.db)(lambda conn: partitions.make(conn, partitions.INBOX, first, last))
            stored = self._visit.commit(partial(event_pulls.store, part=made))
            self._is_committed = True
        if stored.counts.mismatch > self._counts.mismatch:
            self._mismatches = self._sum_mismatches()
        self._pull, self._counts = pull, stored.counts
        self._unapplied += stored.unapplied

    def _outcome(
        self, verdict: WorkspaceVerdict, problems: tuple[Problem, ...] = (), note: str = ""
    ) -> WorkspaceOutcome:
        return WorkspaceOutcome(
            *self._row.key,
            self._row.workspace_name,
            verdict,
            asdict(self._counts),
            problems,
            committed=self._is_committed,
            silent_note=note,
        )
