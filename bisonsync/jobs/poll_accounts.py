"""Mirrors every sender email of every chosen workspace into sender_emails_cache."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import CancelledError
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from bisonsync.api.client import InstanceClient, ServiceMeter
from bisonsync.api.lanes import Lanes
from bisonsync.api.lists import InvalidRow, ListRead, ListReader
from bisonsync.errors import BisonsyncError, ConfigError, GuardRefused, LeaseBusy, LeaseLost, Stopped
from bisonsync.keys import WorkspaceKey
from bisonsync.models import Mark, SenderEmail, Workspace, fields_marked
from bisonsync.polling.rows import MOVING, RowReader, TakenRow, paths_of, read_row, tags_in_order, unknown_fields
from bisonsync.run import (
    NOTICE,
    STOP_GRACE_SECONDS,
    Problem,
    Result,
    WorkspaceAccess,
    WorkspaceOutcome,
    WorkspacesRun,
    WorkspaceVerdict,
)
from bisonsync.store import accounts, leases, lists, visits
from bisonsync.store.db import Connection
from bisonsync.store.leases import Holder, Lease
from bisonsync.store.lists import Changes, Fault, Fresh, LeftOut, Merged, ShrinkGuard
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.visits import ReadStart

PATH = "/api/sender-emails"
SWITCH_JOB = "switch-workspace"

# More workspaces than lanes are open at a time, so that lanes do not idle while one waits for its first or last page.
SPARE_WORKSPACES = 2
SWITCH_LOOKS = 5

# Known and of no use to a mirror.
_DROPPED = frozenset({MOVING, "email_signature", "imap_port", "smtp_port"})
# The first so many tell as much as all.
NOTES_PER_FIELD = 20
# Stored values that stay where the API's own cannot be read; of other fields an absent one keeps what was known anyway.
_KEPT_IF_UNREAD = frozenset({"name", "daily_limit", "type"})
_COUNTERS = fields_marked(SenderEmail, Mark.DECIDES) & fields_marked(SenderEmail, Mark.NO_NULL)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say of this job."""

    guard: ShrinkGuard
    rules: Mapping[str, Any]
    ignore_fields: tuple[str, ...]
    workspace_deadline_min_seconds: float
    workspace_deadline_per_1000_seconds: float
    interval_seconds: int
    lease_ttl_seconds: float


@dataclass
class _Tally:
    """Counts rows as pages arrive, for the progress bar; keeps which unknown fields moved, and which are left out."""

    expected: int = 0
    read: int = 0
    moving: set[str] = field(default_factory=set[str])
    left_out: set[str] = field(default_factory=set[str])
    lock: threading.Lock = field(default_factory=threading.Lock)


def run(run: WorkspacesRun, policy: Policy) -> Result:
    """Read every page of each workspace, prove the list complete, merge it in one transaction of its own.

    A workspace that fails leaves its old rows as they are and the others go on. Nothing is raised for what one
    workspace did; the causes are in the result.
    """
    tally = _Tally()
    outcomes: dict[WorkspaceKey, WorkspaceOutcome] = {}
    threads: list[threading.Thread] = []
    lanes: list[Lanes] = []
    for row in run.workspaces:
        if row.bison_instance not in run.clients:
            outcomes[row.key] = _unreachable(row, run.access[row.key].error)
    for instance, client in run.clients.items():
        mine = [row for row in run.workspaces if row.bison_instance == instance]
        # The largest first, so that no long list begins when all others are done.
        mine.sort(key=lambda row: -row.total)
        lane = Lanes(run.concurrency[instance], name=f"api-{instance}")
        lanes.append(lane)
        poll = _InstancePoll(run, policy, client, lane, tally, outcomes)
        threads += poll.start(mine)
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                run.progress("sender emails", tally.read, tally.expected)
                run.clock.check()
        if any(outcome.verdict == "skipped" and not outcome.note for outcome in outcomes.values()):
            # The stop came so early that every thread had ended before it could be waited for.
            run.clock.check()
    except Stopped as stop:
        for lane in lanes:
            lane.close(timeout_seconds=0)
        # A merge under way may end; a read may not.
        give_up_at = run.clock.monotonic() + STOP_GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, give_up_at - run.clock.monotonic()))
        return _result(run, outcomes, (Problem.of(stop),))
    for lane in lanes:
        lane.close()
    result = _result(run, outcomes, ())
    return replace(result, problems=(*result.problems, *_leave_out_moving(run, policy, tally)))


def _leave_out_moving(run: WorkspacesRun, policy: Policy, tally: _Tally) -> tuple[Problem, ...]:
    """See to it that fields that move with every read do not have all rows written each time; told once for each."""
    ignored = sorted(tally.left_out & set(policy.ignore_fields))
    if run.dry_run or not (tally.moving or ignored):
        return ()

    def work(conn: Connection) -> list[LeftOut]:
        if ignored:
            lists.forget_left_out(conn, accounts.TABLE.resource, list(run.clients), ignored)
        return lists.leave_out(conn, accounts.TABLE.resource, run.run_id)

    try:
        left_out = run.db.run(work)
    except BisonsyncError:
        # The rows are stored; the next run sees the same and comes here again.
        return ()
    return tuple(
        Problem(
            NOTICE,
            f"instance {one.bison_instance}: the field {one.field} changed in nearly all of {one.rows} accounts at"
            f" each of the last {lists.MOVING_READS} reads; from now on a change of it alone writes no row",
            f"add \"{one.field}\" to [polling] ignore_fields if nobody needs it; see 'bisonsync health validation'",
            exit_code=0,
        )
        for one in left_out
        if one.is_first
    )


def read_sender_email(raw: Any, ignored: Sequence[str] = ()) -> TakenRow | InvalidRow:
    """Read a sender email, without the unknown fields that are ``ignored``."""
    return read_row(SenderEmail, raw, partial(_encode, ignored=ignored))


def _encode(row: SenderEmail, unread: AbstractSet[str], ignored: Sequence[str]) -> dict[str, Any]:
    mail_host = row.imap_server or row.smtp_server or row.email.rpartition("@")[2]
    fields: dict[str, Any] = {
        "id": row.id,
        "email": row.email,
        "name": row.name,
        "domain": row.email.rpartition("@")[2],
        "mail_host": mail_host.lower(),
        "status": row.status,
        "has_status": "status" in row.model_fields_set,
        "daily_limit": row.daily_limit,
        "warmup_enabled": row.warmup_enabled,
        "type": row.type,
        "tags": row.tags and tags_in_order(row.tags),
        "extra": unknown_fields(row, _DROPPED, ignored),
        "created_at": row.created_at,
    }
    for name in _COUNTERS:
        fields[name] = getattr(row, name)
    if kept := unread & _KEPT_IF_UNREAD:
        fields["unread"] = sorted(kept)
    return fields


class _InstancePoll:
    """Polls the workspaces of one instance, several side by side."""

    def __init__(
        self,
        run: WorkspacesRun,
        policy: Policy,
        client: InstanceClient,
        lanes: Lanes,
        tally: _Tally,
        outcomes: dict[WorkspaceKey, WorkspaceOutcome],
    ) -> None:
        self._run = run
        self._policy = policy
        self._client = client
        self._lanes = lanes
        self._tally = tally
        self._outcomes = outcomes

    def start(self, rows: list[WorkspaceRow]) -> list[threading.Thread]:
        """Start the threads that work through ``rows``: one for those read by switching, some for the others."""
        by_switch = [row for row in rows if self._access(row).by_switch]
        own_token = deque(row for row in rows if not self._access(row).by_switch)
        self._tally.expected += sum(row.total for row in rows)
        name = f"poll-{self._client.instance}"
        width = min(len(own_token), self._run.concurrency[self._client.instance] + SPARE_WORKSPACES)
        threads = [
            threading.Thread(target=self._work_through, args=(own_token,), name=f"{name}-{n}", daemon=True)
            for n in range(width)
        ]
        if by_switch:
            threads.append(
                threading.Thread(target=self._work_by_switch, args=(by_switch,), name=f"{name}-switch", daemon=True)
            )
        for thread in threads:
            thread.start()
        return threads

    def _access(self, row: WorkspaceRow) -> WorkspaceAccess:
        return self._run.access[row.key]

    def _work_through(self, rows: deque[WorkspaceRow]) -> None:
        while rows:
            try:
                row = rows.popleft()
            except IndexError:
                return
            self._outcomes[row.key] = self._poll(row, None)

    def _work_by_switch(self, rows: list[WorkspaceRow]) -> None:
        """One workspace at a time under a lease that all hosts share: a switch moves every run that uses the key."""
        try:
            lease, note = self._take_switch_lease()
        except BisonsyncError as error:
            for row in rows:
                self._outcomes[row.key] = self._failed(row, error)
            return
        for row in rows:
            if lease is None:
                self._outcomes[row.key] = replace(self._make(row, "skipped", {}, ()), note=note)
            else:
                self._outcomes[row.key] = self._poll(row, lease)

    def _take_switch_lease(self) -> tuple[Lease | None, str]:
        """The lease of the instance's key, or why it is not taken: a dry run moves no key, another run may have it."""
        if self._run.dry_run:
            return None, "a dry run does not switch the super-admin key, which would move it under other runs"
        key = WorkspaceKey(self._client.instance, 0)

        def work(conn: Connection) -> tuple[list[Lease], list[Holder]]:
            taken = leases.take(
                conn, SWITCH_JOB, [key], run_id=self._run.run_id, ttl_seconds=self._policy.lease_ttl_seconds
            )
            return taken, leases.list_holders(conn, SWITCH_JOB)

        taken, holders = self._run.bookkeeping.run(work)
        if taken:
            return taken[0], ""
        holder = next((str(h) for h in holders if h.bison_instance == key[0]), "a run that has ended since")
        return None, f"another run switches the super-admin key between workspaces: {holder}"

    def _poll(self, row: WorkspaceRow, switch_lease: Lease | None) -> WorkspaceOutcome:
        """Read and merge one workspace; whatever happens becomes its outcome."""
        try:
            self._run.clock.check()
            return self._read_and_merge(row, switch_lease)
        except BisonsyncError as error:
            return self._failed(row, error)
        except CancelledError:
            # Only a stop closes the lanes while a workspace waits for them.
            return self._make(row, "skipped", {}, ())
        except Exception as error:  # one workspace's surprise must not stop the others
            import traceback

            bug = BisonsyncError(f"{type(error).__name__}: {error}", hint="this is a bug; the traceback is above")
            traceback.print_exc()
            return self._failed(row, bug)
        finally:
            self._lanes.drop(row.key)

    def _read_and_merge(self, row: WorkspaceRow, switch_lease: Lease | None) -> WorkspaceOutcome:
        access = self._access(row)
        if access.error is not None or access.token is None:
            raise access.error or ConfigError(f"workspace {row.key} has no token")
        start = self._run.bookkeeping.run(lambda conn: self._start_read(conn, row))
        meter = self._client.meter(self._policy.workspace_deadline_min_seconds, name=f"workspace {row.key}")
        if access.by_switch:
            self._switch_into(row, access)
        rows = RowReader(partial(read_sender_email, ignored=self._policy.ignore_fields))
        read = self._read(row, access, meter, rows)
        fresh = Fresh(
            bison_instance=row.bison_instance,
            bison_workspace_id=row.bison_workspace_id,
            workspace_name=row.workspace_name,
            rows=read.rows,
            seen_ids=frozenset(read.ids),
            faults=tuple(_fault(invalid) for invalid in read.invalid),
            read_started_at=start.at,
            total=read.total,
            incomplete_reason=read.reason,
            notes=_some_notes(rows.notes, read.rows),
            left_out=(*start.left_out_paths, *paths_of(self._policy.ignore_fields)),
        )
        merged = self._merge(row, fresh, switch_lease)
        with self._tally.lock:
            self._tally.left_out.update(start.left_out)
            self._tally.moving.update(merged.moving)
        return self._outcome(row, fresh, merged)

    def _start_read(self, conn: Connection, row: WorkspaceRow) -> ReadStart:
        """The database's time; no request is spent on a workspace that another run has taken over."""
        lease = self._run.leases.get(row.key)
        if lease is not None:
            leases.require(conn, lease)
        return visits.start_read(conn, accounts.TABLE.resource, row.bison_instance)

    def _read(self, row: WorkspaceRow, access: WorkspaceAccess, meter: ServiceMeter, rows: RowReader) -> ListRead:
        """The list, with the token's workspace asked for beside its first page and after its last."""
        assert access.token is not None  # checked by the caller
        token, who = access.token, access.who

        def acting() -> Workspace:
            return self._client.get_acting_workspace(token, who=who, meter=meter)

        def on_total(total: int) -> None:
            wanted = total / 1000 * self._policy.workspace_deadline_per_1000_seconds
            meter.limit_seconds = max(meter.limit_seconds, wanted)
            with self._tally.lock:
                self._tally.expected += total - row.total

        def on_page(rows: int) -> None:
            with self._tally.lock:
                self._tally.read += rows

        reader = ListReader(
            self._client,
            self._lanes,
            owner=row.key,
            path=PATH,
            token=token,
            who=who,
            read_row=rows.read,
            meter=meter,
            on_total=on_total,
            on_page=on_page,
            beside_last_look=acting,
        )
        before = self._lanes.submit(row.key, acting)
        first = None if access.by_switch else reader.submit_page(1)
        self._require_identity(row, who, before.result())
        read = reader.read(first)
        after = reader.last_beside or self._lanes.submit(row.key, acting)
        self._require_identity(row, who, after.result())
        return read

    def _require_identity(self, row: WorkspaceRow, who: str, acting: Workspace) -> None:
        if acting.id != row.bison_workspace_id:
            raise GuardRefused(
                f"{who} acts in workspace {acting.id} ({acting.shown}), not in {row.bison_workspace_id}"
                f" ({row.workspace_name}): nothing was written",
                hint="run 'bisonsync workspaces verify', then 'bisonsync workspaces mint-tokens'",
            )

    def _switch_into(self, row: WorkspaceRow, access: WorkspaceAccess) -> None:
        """Switch, and look until the switch shows: how soon it does is not documented."""
        assert access.token is not None  # checked by the caller
        self._client.switch_workspace(access.token, row.bison_workspace_id, who=access.who)
        for _ in range(SWITCH_LOOKS):
            if self._client.get_acting_workspace(access.token, who=access.who).id == row.bison_workspace_id:
                return
            self._run.clock.sleep(1.0)

    def _merge(self, row: WorkspaceRow, fresh: Fresh, switch_lease: Lease | None) -> Merged:
        if self._run.dry_run:
            return self._run.db.run(
                lambda conn: lists.plan(conn, accounts.TABLE, fresh, guard=self._policy.guard, rules=self._policy.rules)
            )
        lease = self._run.leases[row.key]

        def work(conn: Connection) -> Merged:
            with nullcontext() if switch_lease is None else leases.fenced(conn, switch_lease):
                return lists.merge(
                    conn,
                    lease,
                    accounts.TABLE,
                    fresh,
                    guard=self._policy.guard,
                    rules=self._policy.rules,
                    counts={"accounts_read": len(fresh.seen_ids)},
                    interval_seconds=self._policy.interval_seconds,
                )

        return self._run.db.run(work)

    def _outcome(self, row: WorkspaceRow, fresh: Fresh, merged: Merged) -> WorkspaceOutcome:
        name = str(row.key)
        problems: list[Problem] = []
        if merged.verdict == "incomplete":
            problems.append(
                Problem(
                    "incomplete", f"{name}: {merged.reason}", "nothing was removed; the next run reads it again", name
                )
            )
        if merged.verdict == "guarded":
            problems.append(
                Problem(
                    "shrink",
                    f"{name}: {merged.reason}",
                    f"look at the host; if it is right: bisonsync poll-accounts -w {name} --allow-shrink",
                    name,
                    GuardRefused.exit_code,
                )
            )
        if merged.changes.invalid:
            fault = (*fresh.faults, *merged.store_faults)[0]
            problems.append(
                Problem(
                    "validation",
                    f"{name}: {merged.changes.invalid} accounts could not be taken over, the first: "
                    f"id {fault.record_id or 'unreadable'}, {fault.message}",
                    "their stored rows stay as they were; see table data_validation_errors",
                    name,
                )
            )
        counts = {"accounts_read": len(fresh.seen_ids), **asdict(merged.changes)}
        return self._make(row, merged.verdict, counts, tuple(problems), committed=not self._run.dry_run)

    def _failed(self, row: WorkspaceRow, error: BisonsyncError) -> WorkspaceOutcome:
        name = str(row.key)
        verdict: WorkspaceVerdict = "guarded" if error.exit_code == GuardRefused.exit_code else "failed"
        if isinstance(error, Stopped):
            # The run says it once for all.
            return self._make(row, "skipped", {}, ())
        problem = replace(Problem.of(error, name), message=error.message)
        lease = self._run.leases.get(row.key)
        if lease is not None and not isinstance(error, LeaseLost):
            self._note_failure(row, lease, verdict, problem)
        return self._make(row, verdict, {}, (problem,))

    def _note_failure(self, row: WorkspaceRow, lease: Lease, verdict: str, problem: Problem) -> None:
        try:
            self._run.db.run(
                lambda conn: visits.record_failure(
                    conn,
                    lease,
                    accounts.TABLE.resource,
                    workspace_name=row.workspace_name,
                    verdict=verdict,
                    error={"kind": problem.kind, "message": problem.message},
                    interval_seconds=self._policy.interval_seconds,
                ),
                lock_attempts=1,
            )
        except BisonsyncError:
            # The failure itself is reported by the run; its note in the state table is only a copy.
            return

    def _make(
        self,
        row: WorkspaceRow,
        verdict: WorkspaceVerdict,
        counts: Mapping[str, int],
        problems: tuple[Problem, ...],
        *,
        committed: bool = False,
    ) -> WorkspaceOutcome:
        return WorkspaceOutcome(
            row.bison_instance,
            row.bison_workspace_id,
            row.workspace_name,
            verdict,
            {"accounts_read": 0, **asdict(Changes()), **counts},
            problems,
            committed,
        )


def _unreachable(row: WorkspaceRow, error: BisonsyncError | None) -> WorkspaceOutcome:
    """The outcome of a workspace whose instance is not in the settings."""
    error = error or ConfigError(f"instance {row.bison_instance} is not in the settings")
    problem = Problem.of(error, str(row.key))
    counts = {"accounts_read": 0, **asdict(Changes())}
    return WorkspaceOutcome(*row.key, row.workspace_name, "failed", counts, (problem,))


def _unreached(row: WorkspaceRow, *, is_stopped: bool) -> WorkspaceOutcome:
    """The outcome of a workspace that has none: skipped after a stop; else it may not pass silently."""
    if is_stopped:
        return WorkspaceOutcome(*row.key, row.workspace_name, "skipped")
    problem = Problem("bug", f"{row.key} was not read", "this is a bug; see stderr", str(row.key), 1)
    return WorkspaceOutcome(*row.key, row.workspace_name, "failed", problems=(problem,))


def _some_notes(notes: Mapping[int, tuple[Fault, ...]], rows: Mapping[int, str]) -> tuple[Fault, ...]:
    """The notes on rows that are stored, of each field those of the lowest ids: the same ones at each read."""
    kept: dict[str, list[Fault]] = {}
    for account_id in sorted(notes.keys() & rows.keys()):
        for note in notes[account_id]:
            kept.setdefault(note.field, []).append(note)
    return tuple(note for some in kept.values() for note in some[:NOTES_PER_FIELD])


def _fault(invalid: InvalidRow) -> Fault:
    record_id = None if invalid.record_id is None else str(invalid.record_id)
    return Fault(record_id, invalid.field, invalid.error_type, invalid.message, invalid.row)


def _result(
    run: WorkspacesRun, outcomes: Mapping[WorkspaceKey, WorkspaceOutcome], problems: tuple[Problem, ...]
) -> Result:
    ordered = tuple(outcomes.get(row.key) or _unreached(row, is_stopped=bool(problems)) for row in run.workspaces)
    stats = [stat for client in run.clients.values() for stat in client.stats.values()]

    def of(verdict: str) -> int:
        return sum(outcome.verdict == verdict for outcome in ordered)

    def total(name: str) -> int:
        return sum(outcome.counts.get(name, 0) for outcome in ordered)

    busy = {outcome.note for outcome in ordered if outcome.verdict == "skipped" and outcome.note}
    if busy and not run.dry_run and not problems and of("skipped") == len(ordered):
        hint = "let it end, or give each workspace a token of its own: 'bisonsync workspaces mint-tokens'"
        problems = (Problem.of(LeaseBusy(f"{run.job}: {'; '.join(sorted(busy))}", hint=hint)),)
    counts = {
        "workspaces_total": len(ordered),
        "workspaces_ok": of("complete"),
        "workspaces_failed": of("failed") + of("guarded"),
        "workspaces_incomplete": of("incomplete"),
        **{
            name: total(name)
            for name in ("accounts_read", "inserted", "updated", "unchanged", "removed", "restored", "invalid")
        },
        "requests": sum(stat.requests for stat in stats),
        "retries": sum(stat.retries for stat in stats),
        "rate_limited": sum(stat.rate_limited for stat in stats),
    }
    summary = (
        f"{counts['workspaces_ok']} of {counts['workspaces_total']} workspaces complete, "
        f"{counts['accounts_read']} accounts read, {counts['inserted']} inserted, {counts['updated']} updated, "
        f"{counts['removed']} removed, {counts['restored']} restored, {counts['unchanged']} unchanged, "
        f"{counts['requests']} requests"
    )
    return Result(counts=counts, workspaces=ordered, problems=problems, summary=summary)
