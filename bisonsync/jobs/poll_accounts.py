"""Mirrors every sender email of every chosen workspace into sender_emails_cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from bisonsync.api.lists import InvalidRow, ListRead, ListReader
from bisonsync.errors import BisonsyncError, GuardRefused
from bisonsync.models import Mark, SenderEmail, fields_marked
from bisonsync.polling import crew
from bisonsync.polling.results import outcome_of, problems_of_run, sum_up
from bisonsync.polling.rows import MOVING, RowReader, TakenRow, paths_of, read_row, tags_in_order, unknown_fields
from bisonsync.polling.visit import Visit, note_failure
from bisonsync.run import NOTICE, Problem, Result, WorkspaceOutcome, WorkspacesRun
from bisonsync.store import accounts, lists
from bisonsync.store.db import Connection
from bisonsync.store.leases import Lease
from bisonsync.store.lists import Changes, Fault, Fresh, LeftOut, Merged, ShrinkGuard
from bisonsync.store.registry import WorkspaceRow

PATH = "/api/sender-emails"

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
class _Moving:
    """Which unknown fields moved, and which are left out."""

    moving: set[str] = field(default_factory=set[str])
    left_out: set[str] = field(default_factory=set[str])


def run(run: WorkspacesRun, policy: Policy) -> Result:
    """Read every page of each workspace, prove the list complete, merge it in one transaction of its own.

    A workspace that fails leaves its old rows as they are and the others go on. Nothing is raised for what one
    workspace did; the causes are in the result.
    """
    seen = _Moving()

    def failed(row: WorkspaceRow, error: BisonsyncError) -> WorkspaceOutcome:
        outcome = outcome_of(row, error, {"accounts_read": 0, **asdict(Changes())})
        if outcome.verdict != "skipped":
            interval = policy.interval_seconds
            resource = accounts.TABLE.resource
            note_failure(run, row, resource, error, verdict=outcome.verdict, interval_seconds=interval)
        return outcome

    plan = crew.Plan(
        "sender emails",
        expected=sum(row.total for row in run.workspaces if row.bison_instance in run.clients),
        side_by_side=True,
        switch_ttl_seconds=policy.lease_ttl_seconds,
    )
    visited = crew.over(run, lambda visit: _read_and_merge(visit, policy, seen), failed, plan)
    outcomes = tuple(visited.answers.values())
    problems = problems_of_run(run, outcomes, visited.stop)
    if visited.stop is None:
        problems += _leave_out_moving(run, policy, seen)
    names = ("accounts_read", "inserted", "updated", "unchanged", "removed", "restored", "invalid")
    counts = sum_up(run, outcomes, names)
    summary = (
        f"{counts['workspaces_ok']} of {counts['workspaces_total']} workspaces complete, "
        f"{counts['accounts_read']} accounts read, {counts['inserted']} inserted, {counts['updated']} updated, "
        f"{counts['removed']} removed, {counts['restored']} restored, {counts['unchanged']} unchanged, "
        f"{counts['requests']} requests"
    )
    return Result(counts=counts, workspaces=outcomes, problems=problems, summary=summary)


def _leave_out_moving(run: WorkspacesRun, policy: Policy, tally: _Moving) -> tuple[Problem, ...]:
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


def _read_and_merge(visit: Visit, policy: Policy, seen: _Moving) -> WorkspaceOutcome:
    row = visit.row
    start = visit.begin(accounts.TABLE.resource)
    rows = RowReader(partial(read_sender_email, ignored=policy.ignore_fields))
    read = _read(visit, policy, rows)
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
        left_out=(*start.left_out_paths, *paths_of(policy.ignore_fields)),
    )
    merged = _merge(visit, policy, fresh)
    seen.left_out.update(start.left_out)
    seen.moving.update(merged.moving)
    return _outcome(visit, fresh, merged)


def _read(visit: Visit, policy: Policy, rows: RowReader) -> ListRead:
    """The list, with the token's workspace asked for beside its first page and after its last."""
    meter = visit.limit(policy.workspace_deadline_min_seconds)
    expected = visit.row.total

    def on_total(total: int) -> None:
        nonlocal expected
        meter.limit_seconds = max(meter.limit_seconds, total / 1000 * policy.workspace_deadline_per_1000_seconds)
        visit.tally.expect(total - expected)
        expected = total

    reader = ListReader(
        visit.client,
        visit.lanes,
        owner=visit.row.key,
        path=PATH,
        token=visit.token,
        who=visit.access.who,
        read_row=rows.read,
        meter=meter,
        on_total=on_total,
        on_page=visit.tally.add,
        beside_last_look=visit.ask,
    )
    before = visit.ask_before()
    # A key that was just switched shows first where it acts.
    first = None if visit.access.by_switch else reader.submit_page(1)
    visit.prove(before)
    read = reader.read(first)
    visit.prove(reader.last_beside)
    return read


def _merge(visit: Visit, policy: Policy, fresh: Fresh) -> Merged:
    how: dict[str, Any] = {"guard": policy.guard, "rules": policy.rules}
    if visit.run.dry_run:
        return visit.run.db.run(lambda conn: lists.plan(conn, accounts.TABLE, fresh, **how))

    def work(conn: Connection, lease: Lease) -> Merged:
        counts = {"accounts_read": len(fresh.seen_ids)}
        interval = policy.interval_seconds
        return lists.merge(conn, lease, accounts.TABLE, fresh, **how, counts=counts, interval_seconds=interval)

    return visit.commit(work)


def _outcome(visit: Visit, fresh: Fresh, merged: Merged) -> WorkspaceOutcome:
    name = str(visit.row.key)
    problems: list[Problem] = []
    if merged.verdict == "incomplete":
        problems.append(
            Problem("incomplete", f"{name}: {merged.reason}", "nothing was removed; the next run reads it again", name)
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
    return WorkspaceOutcome(
        *visit.row.key,
        visit.row.workspace_name,
        merged.verdict,
        {"accounts_read": len(fresh.seen_ids), **asdict(merged.changes)},
        tuple(problems),
        committed=not visit.run.dry_run,
    )


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
