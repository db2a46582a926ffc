"""Pulls each workspace's event log into the webhook inbox: what was never delivered counts all the same."""

from __future__ import annotations

import json
import threading
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bisonsync.api.client import InstanceClient
from bisonsync.api.event_log import EventLogReader, Part, Walk
from bisonsync.errors import (
    ApiRefused,
    BisonsyncError,
    ConfigError,
    CredentialsError,
    DatabaseError,
    GuardRefused,
    LeaseLost,
    Stopped,
)
from bisonsync.keys import WorkspaceKey
from bisonsync.models import StoredEvent, clean_value
from bisonsync.payloads import NotJson, read_body
from bisonsync.run import (
    STOP_GRACE_SECONDS,
    Problem,
    Result,
    WorkspaceOutcome,
    WorkspacesRun,
    WorkspaceVerdict,
)
from bisonsync.store import event_pulls, leases, partitions, visits
from bisonsync.store.db import Connection
from bisonsync.store.event_pulls import Counts, Mismatches, Pull
from bisonsync.store.partitions import Ahead
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.webhooks import Delivery, Outcome

# What a host keeps.
KEPT = timedelta(days=10)
# Read again each time: an event may show in the log a while after its moment.
OVERLAP = timedelta(hours=1)
# How often a log is read without relying on its order, and a host without one asked again.
WHOLE_EVERY = timedelta(days=1)
# Read between two looks at whose the token is, stored together: what a kill costs, and what the memory holds.
PAGES_PER_PART = 40
ROWS_PER_PART = 15 * PAGES_PER_PART
JUDGED_PER_COMMIT = 500
MISSING_ROUTE = 404
# In the summary where there are any.
TOLD_WHERE_ANY = {
    "duplicate": "duplicate",
    "ignored": "ignored",
    "failed": "failed",
    "mismatch": "of another workspace",
    "left_out": "left out",
    "judged_again": "judged again",
}
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say of this job."""

    interval_seconds: int
    workspace_deadline_min_seconds: float
    workspace_deadline_per_1000_seconds: float
    keep_bodies: bool = False


@dataclass
class _Tally:
    """Counts rows as pages arrive, for the progress bar."""

    read: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rows: int) -> None:
        with self.lock:
            self.read += rows


class _NoEventLog(Exception):
    """The host does not have the endpoint."""


def run(run: WorkspacesRun, policy: Policy) -> Result:
    """Read the event log of each workspace back to where it was read before, and store what the inbox does not have.

    Each part of a log is committed with how far it goes, so that a run that ends early is gone on with by the next.
    Nothing is raised for what one workspace did; the causes are in the result.
    """
    pulls = run.bookkeeping.run(event_pulls.list_pulls)
    ahead = Ahead() if run.dry_run else partitions.make_days(partitions.briefly(run.bookkeeping))
    tally = _Tally()
    outcomes: dict[WorkspaceKey, WorkspaceOutcome] = {}
    threads: list[threading.Thread] = []
    for row in run.workspaces:
        if row.bison_instance not in run.clients:
            error = run.access[row.key].error or ConfigError(f"instance {row.bison_instance} is not in the settings")
            outcomes[row.key] = _outcome(row, "failed", Counts(), (Problem.of(error, str(row.key)),))
    for instance, client in run.clients.items():
        waiting = deque(row for row in run.workspaces if row.bison_instance == instance)

        def work(waiting: deque[WorkspaceRow] = waiting, client: InstanceClient = client) -> None:
            while waiting:
                try:
                    row = waiting.popleft()
                except IndexError:
                    return
                pull = pulls.get(row.key) or Pull(*row.key)
                outcomes[row.key] = _WorkspacePull(run, policy, client, row, pull, tally).carry_out()

        threads += [
            threading.Thread(target=work, name=f"pull-{instance}-{n}", daemon=True)
            for n in range(min(len(waiting), run.concurrency[instance]))
        ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK_SECONDS)
                run.progress("events", tally.read, 0)
                run.clock.check()
        run.clock.check()
    except Stopped as stop:
        give_up_at = run.clock.monotonic() + STOP_GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, give_up_at - run.clock.monotonic()))
        return _result(run, outcomes, (Problem.of(stop),), ahead)
    return _result(run, outcomes, _first_absences(outcomes, pulls), ahead)


def first_walk(pull: Pull, now: datetime) -> Walk:
    """The read that brings a workspace up to date: once a day back to the last whole one, whatever the order."""
    is_whole = pull.whole_at is None or now - pull.whole_at >= WHOLE_EVERY
    since = pull.whole_until if is_whole else pull.pulled_until
    low = now - KEPT if since is None else max(now - KEPT, since - OVERLAP)
    return replace(_walk(low, now, "whole" if is_whole else "newest"), known=pull.pulled_until)


def interrupted_walk(pull: Pull, now: datetime) -> Walk | None:
    """The read that an earlier run did not end, where there is one."""
    if pull.walk_cursor is None or pull.walk_from is None or pull.walk_kind is None:
        return None
    walk = _walk(pull.walk_from, now, pull.walk_kind)
    return replace(walk, top=pull.walk_until, cursor=pull.walk_cursor)


def advanced(pull: Pull, part: Part, now: datetime) -> Pull:
    """How far a log is read with a part of a walk."""
    walk = part.walk
    pull = replace(pull, walk_from=None, walk_until=None, walk_kind=None, walk_cursor=None, absent_at=None)
    if not part.is_end:
        # Without a cursor nobody could go on with it.
        state = {"walk_from": walk.low, "walk_until": walk.top, "walk_kind": walk.kind, "walk_cursor": walk.cursor}
        return replace(pull, **state) if walk.cursor else pull
    top = max((moment for moment in (pull.pulled_until, walk.top) if moment is not None), default=None)
    if walk.kind == "whole":
        return replace(pull, pulled_until=top, whole_until=walk.top or pull.whole_until, whole_at=now)
    return replace(pull, pulled_until=top)


def delivery_of(event: StoredEvent, key: WorkspaceKey, now: datetime, *, keep_bodies: bool = False) -> Delivery:
    """An event of the log as a delivery that came when the host stored it, as far as that can be."""
    text = json.dumps(event.payload)
    try:
        body = read_body(text.encode(), keep_bodies=keep_bodies)
    except NotJson:
        # Nested too deep, or infinite: what can be kept of it, for whoever looks at the dead letters.
        body = read_body(json.dumps(clean_value(event.payload)).encode(), keep_bodies=keep_bodies)
    received_at = now if event.created_at is None else min(event.created_at, now)
    return Delivery(body.text, "events", raw=body.raw, received_at=received_at, hook=key)


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


def _walk(low: datetime, now: datetime, kind: Any) -> Walk:
    # A host that keeps longer is not asked for more; one that ignores the filter is left when it goes too far back.
    return Walk(low, now - KEPT - WHOLE_EVERY, now, kind, is_filtered=low > now - KEPT)


class _WorkspacePull:
    """Brings the inbox up to date with one workspace's event log."""

    def __init__(
        self, run: WorkspacesRun, policy: Policy, client: InstanceClient, row: WorkspaceRow, pull: Pull, tally: _Tally
    ) -> None:
        self._run = run
        self._policy = policy
        self._client = client
        self._row = row
        self._access = run.access[row.key]
        self._lease = run.leases.get(row.key)
        self._pull = pull
        self._tally = tally
        self._counts = Counts()
        self._unapplied: list[Outcome] = []
        self._mismatches: Mismatches | None = None
        self._is_committed = False

    def carry_out(self) -> WorkspaceOutcome:
        """Pull; whatever happens becomes the outcome."""
        try:
            self._run.clock.check()
            self._pull_all()
        except _NoEventLog:
            return self._outcome("skipped", note=f"instance {self._row.bison_instance} has no event log")
        except Stopped:
            # The run says it once for all.
            return self._outcome("incomplete" if self._is_committed else "skipped")
        except BisonsyncError as error:
            return self._failed(error)
        except Exception as error:  # one workspace's surprise must not stop the others
            traceback.print_exc()
            return self._failed(
                BisonsyncError(f"{type(error).__name__}: {error}", hint="this is a bug; the traceback is above")
            )
        return self._outcome("complete", self._problems())

    def _pull_all(self) -> None:
        now = self._run.bookkeeping.run(self._start)
        self._mismatches = self._sum_mismatches()
        if self._mismatches.deliveries:
            self._judge_again()
            self._mismatches = self._sum_mismatches()
        if self._pull.absent_at is not None and now - self._pull.absent_at < WHOLE_EVERY:
            raise _NoEventLog
        self._require_identity()
        interrupted = interrupted_walk(self._pull, now)
        if interrupted is not None:
            self._go_on(interrupted, now)
        self._walk(first_walk(self._pull, now), now, is_last=True)

    def _judge_again(self) -> None:
        """Apply the mismatches that are none any more."""
        lease = self._lease
        if lease is None:
            return

        def work(conn: Connection) -> Counts:
            return event_pulls.judge_again(conn, lease, self._row.workspace_name, self._counts, limit=JUDGED_PER_COMMIT)

        while (counts := self._run.db.run(work)) != self._counts:
            self._counts, self._is_committed = counts, True

    def _sum_mismatches(self) -> Mismatches:
        return self._run.bookkeeping.run(lambda conn: event_pulls.sum_mismatches(conn, self._row.key))

    def _problems(self) -> tuple[Problem, ...]:
        return problems_of(str(self._row.key), self._unapplied, self._mismatches)

    def _start(self, conn: Connection) -> datetime:
        """The database's time; no request is spent on a workspace that another run has taken over."""
        if self._lease is not None:
            leases.require(conn, self._lease)
        return visits.start_read(conn, event_pulls.RESOURCE, self._row.bison_instance).at

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
        assert self._access.token is not None  # _require_identity has looked
        reader = EventLogReader(
            self._client, walk, token=self._access.token, who=self._access.who, on_page=self._tally.add
        )
        while True:
            seconds = self._policy.workspace_deadline_per_1000_seconds * ROWS_PER_PART / 1000
            limit = self._policy.workspace_deadline_min_seconds + seconds
            part = reader.read_part(PAGES_PER_PART, self._client.meter(limit, name=f"workspace {self._row.key}"))
            if part.pages:
                self._require_identity()
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
        lease = self._lease
        if lease is not None:
            self._run.db.run(lambda conn: event_pulls.record_absence(conn, lease))
        raise _NoEventLog

    def _require_identity(self) -> None:
        row, access = self._row, self._access
        if access.error is not None or access.token is None:
            raise access.error or ConfigError(f"workspace {row.key} has no token")
        if access.by_switch:
            raise CredentialsError(
                f"workspace {row.key} has no token of its own: event logs are not read by switching a key",
                hint="run 'bisonsync workspaces mint-tokens'",
            )
        acting = self._client.get_acting_workspace(access.token, who=access.who)
        if acting.id != row.bison_workspace_id:
            raise GuardRefused(
                f"{access.who} acts in workspace {acting.id} ({acting.shown}), not in {row.bison_workspace_id}"
                f" ({row.workspace_name}): nothing of what was read since was written",
                hint="run 'bisonsync workspaces verify', then 'bisonsync workspaces mint-tokens'",
            )

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
        lease = self._lease
        if lease is None:
            stored = self._run.db.run(lambda conn: event_pulls.plan(conn, key, made))
        else:
            first, last = event_pulls.first_day(made.deliveries), now.date()
            if first is not None and first < last:
                # Without one the row has its place all the same, where days are not dropped as a whole.
                with suppress(DatabaseError):
                    partitions.briefly(self._run.db)(lambda conn: partitions.make(conn, partitions.INBOX, first, last))
            stored = self._run.db.run(lambda conn: event_pulls.store(conn, lease, made))
            self._is_committed = True
        if stored.counts.mismatch > self._counts.mismatch:
            self._mismatches = self._sum_mismatches()
        self._pull, self._counts = pull, stored.counts
        self._unapplied += stored.unapplied

    def _failed(self, error: BisonsyncError) -> WorkspaceOutcome:
        name = str(self._row.key)
        verdict: WorkspaceVerdict = "incomplete" if self._is_committed else "failed"
        verdict = "guarded" if error.exit_code == GuardRefused.exit_code else verdict
        problem = Problem.of(error, name)
        lease = self._lease
        if lease is not None and not isinstance(error, LeaseLost):
            note = partial(
                visits.record_failure,
                lease=lease,
                resource=event_pulls.RESOURCE,
                workspace_name=self._row.workspace_name,
                verdict=verdict,
                error={"kind": problem.kind, "message": problem.message},
                interval_seconds=self._policy.interval_seconds,
                in_parts=True,
            )
            # The failure itself is reported by the run; its note in the state table is only a copy.
            with suppress(BisonsyncError):
                self._run.db.run(note, lock_attempts=1)
        return self._outcome(verdict, (problem, *self._problems()))

    def _outcome(
        self, verdict: WorkspaceVerdict, problems: tuple[Problem, ...] = (), note: str = ""
    ) -> WorkspaceOutcome:
        outcome = _outcome(self._row, verdict, self._counts, problems)
        return replace(outcome, committed=self._is_committed, silent_note=note)


def _outcome(
    row: WorkspaceRow, verdict: WorkspaceVerdict, counts: Counts, problems: tuple[Problem, ...] = ()
) -> WorkspaceOutcome:
    return WorkspaceOutcome(*row.key, row.workspace_name, verdict, asdict(counts), problems)


def _first_absences(
    outcomes: Mapping[WorkspaceKey, WorkspaceOutcome], pulls: Mapping[WorkspaceKey, Pull]
) -> tuple[Problem, ...]:
    """That an instance has no event log, where no run found that before."""
    known = {instance for (instance, _), pull in pulls.items() if pull.absent_at is not None}
    found = {outcome.bison_instance for outcome in outcomes.values() if outcome.silent_note}
    return tuple(
        Problem(
            "no_event_log",
            f"instance {instance} has no event log: GET /api/events answers 404. What it does not deliver stays lost",
            "nothing needs doing: it is asked again once a day, and this is not said again",
            exit_code=0,
        )
        for instance in sorted(found - known)
    )


def _result(
    run: WorkspacesRun, outcomes: Mapping[WorkspaceKey, WorkspaceOutcome], problems: tuple[Problem, ...], ahead: Ahead
) -> Result:
    ordered = tuple(outcomes.get(row.key) or _outcome(row, "skipped", Counts()) for row in run.workspaces)
    stats = [stat for client in run.clients.values() for stat in client.stats.values()]

    def of(*verdicts: str) -> int:
        return sum(outcome.verdict in verdicts for outcome in ordered)

    counts = {
        "workspaces_total": len(ordered),
        "workspaces_ok": of("complete"),
        "workspaces_failed": of("failed", "guarded"),
        "workspaces_incomplete": of("incomplete"),
        "workspaces_absent": sum(bool(outcome.silent_note) for outcome in ordered),
        **{name: sum(outcome.counts[name] for outcome in ordered) for name in asdict(Counts())},
        "requests": sum(stat.requests for stat in stats),
        "retries": sum(stat.retries for stat in stats),
        "rate_limited": sum(stat.rate_limited for stat in stats),
    }
    absent = counts["workspaces_absent"]
    summary = (
        f"{counts['workspaces_ok']} of {counts['workspaces_total']} workspaces complete, "
        + (f"{absent} without an event log, " if absent else "")
        + f"{counts['events_read']} events read, {counts['new']} new, {counts['known']} known, "
        + "".join(f"{counts[name]} {what}, " for name, what in TOLD_WHERE_ANY.items() if counts[name])
        + f"{counts['requests']} requests"
    )
    warnings = (ahead.warning,) if ahead.warning else ()
    return Result(counts=counts, workspaces=ordered, problems=problems, summary=summary, warnings=warnings)
