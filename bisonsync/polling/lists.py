"""Polls a list of every workspace: reads it whole, proves it, merges it. Lists differ by their ``ListSpec`` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC
from typing import Any, NamedTuple

from bisonsync.api.lists import InvalidRow, ListRead, ListReader
from bisonsync.errors import BisonsyncError, GuardRefused
from bisonsync.polling import crew
from bisonsync.polling.results import outcome_of, problems_of_run, sum_up
from bisonsync.polling.rows import RowReader, TakenRow, paths_of
from bisonsync.polling.visit import Visit, note_failure
from bisonsync.run import NOTICE, Problem, Result, WorkspaceOutcome, WorkspacesRun
from bisonsync.store import lists
from bisonsync.store.db import Connection
from bisonsync.store.lists import Changes, Fault, Fresh, LeftOut, Merged, MergeTable, ShrinkGuard
from bisonsync.store.registry import WorkspaceRow

# The first so many tell as much as all.
NOTES_PER_FIELD = 20


@dataclass(frozen=True, slots=True)
class ListSpec:
    """A list of each workspace: where it is read, how a row is, and where it goes.

    ``noun``: what its rows are, in the plural. ``read_row`` is given a row and the unknown fields to leave out.
    ``expected``: how many rows a workspace is known to have, for the progress bar.
    """

    noun: str
    path: str
    read_row: Callable[[Any, Sequence[str]], TakenRow | InvalidRow]
    table: MergeTable
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    expected: Callable[[WorkspaceRow], int] = lambda row: 0

    @property
    def resource(self) -> str:
        """The list's name wherever something is kept of it."""
        return self.table.resource


@dataclass(frozen=True, slots=True)
class ListPolicy:
    """What the settings say of a poll of a list.

    ``rules`` are for the table's own queries. ``rest_seconds``: so long after the start of its last complete read a
    workspace is left alone.
    """

    guard: ShrinkGuard
    ignore_fields: tuple[str, ...]
    workspace_deadline_min_seconds: float
    workspace_deadline_per_1000_seconds: float
    interval_seconds: int
    lease_ttl_seconds: float
    rules: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rest_seconds: float = 0.0


class Visited(NamedTuple):
    """What became of a list of one workspace, which of its unknown fields moved, and which are left out."""

    outcome: WorkspaceOutcome
    moving: Sequence[str] = ()
    left_out: Sequence[str] = ()


def poll(run: WorkspacesRun, spec: ListSpec, policy: ListPolicy) -> Result:
    """Read every page of each workspace, prove the list complete, merge it in one transaction of its own.

    A workspace that fails leaves its old rows as they are and the others go on. Nothing is raised for what one
    workspace did; the causes are in the result.
    """
    plan = crew.Plan(
        spec.noun,
        expected=sum(spec.expected(row) for row in run.workspaces),
        side_by_side=True,
        switch_ttl_seconds=policy.lease_ttl_seconds,
    )
    visited = crew.over(
        run,
        lambda visit: visit_list(visit, spec, policy),
        lambda row, error: Visited(_failed(run, spec, policy, row, error)),
        plan,
    )
    answers = list(visited.answers.values())
    outcomes = tuple(answer.outcome for answer in answers)
    counts = sum_up(run, outcomes, tuple(_counts(spec, 0, Changes())))
    problems = problems_of_run(run, outcomes, visited.stop)
    if visited.stop is None:
        problems += _leave_out_moving(run, spec, policy, answers)
    return Result(counts=counts, workspaces=outcomes, problems=problems, summary=_summary(spec, counts, outcomes))


def visit_list(visit: Visit, spec: ListSpec, policy: ListPolicy) -> Visited:
    """Read, prove and merge the list of one workspace, unless it rests."""
    row = visit.row
    if (rested := _rest(visit, spec, policy)) is not None:
        none = _counts(spec, 0, Changes())
        return Visited(WorkspaceOutcome(*row.key, row.workspace_name, "skipped", none, silent_note=rested))
    start = visit.begin(spec.resource)
    rows = RowReader(lambda raw: spec.read_row(raw, policy.ignore_fields))
    read = _read(visit, spec, policy, rows)
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
    merged = _merge(visit, spec, policy, fresh)
    counts = _counts(spec, len(fresh.seen_ids), merged.changes)
    problems = _problems(visit.run, spec, row, fresh, merged)
    is_committed = not visit.run.dry_run
    outcome = WorkspaceOutcome(*row.key, row.workspace_name, merged.verdict, counts, problems, is_committed)
    return Visited(outcome, merged.moving, start.left_out)


def _rest(visit: Visit, spec: ListSpec, policy: ListPolicy) -> str | None:
    """Why the workspace is left alone, if it is."""
    if not policy.rest_seconds:
        return None
    at = visit.run.bookkeeping.run(
        lambda conn: lists.find_recent_read(conn, visit.row.key, spec.resource, policy.rest_seconds)
    )
    return at and f"not due: read completely at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _read(visit: Visit, spec: ListSpec, policy: ListPolicy, rows: RowReader) -> ListRead:
    """The list, with the token's workspace asked for beside its first page and after its last."""
    meter = visit.limit(policy.workspace_deadline_min_seconds)

    expected = spec.expected(visit.row)

    def on_total(total: int) -> None:
        nonlocal expected
        meter.limit_seconds = max(meter.limit_seconds, total / 1000 * policy.workspace_deadline_per_1000_seconds)
        visit.tally.expect(total - expected)
        expected = total

    reader = ListReader(
        visit.client,
        visit.lanes,
        owner=visit.row.key,
        path=spec.path,
        query=spec.query,
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


def _merge(visit: Visit, spec: ListSpec, policy: ListPolicy, fresh: Fresh) -> Merged:
    if visit.run.dry_run:
        return visit.run.db.run(
            lambda conn: lists.plan(conn, spec.table, fresh, guard=policy.guard, rules=policy.rules)
        )
    return visit.commit(
        lambda conn, lease: lists.merge(
            conn,
            lease,
            spec.table,
            fresh,
            guard=policy.guard,
            rules=policy.rules,
            counts={f"{spec.noun}_read": len(fresh.seen_ids)},
            interval_seconds=policy.interval_seconds,
        )
    )


def _leave_out_moving(
    run: WorkspacesRun, spec: ListSpec, policy: ListPolicy, visited: Sequence[Visited]
) -> tuple[Problem, ...]:
    """See to it that fields that move with every read do not have all rows written each time; told once for each."""
    ignored = sorted({name for one in visited for name in one.left_out} & set(policy.ignore_fields))
    if run.dry_run or not (ignored or any(one.moving for one in visited)):
        return ()

    def work(conn: Connection) -> list[LeftOut]:
        if ignored:
            lists.forget_left_out(conn, spec.resource, list(run.clients), ignored)
        return lists.leave_out(conn, spec.resource, run.run_id)

    try:
        left_out = run.db.run(work)
    except BisonsyncError:
        # The rows are stored; the next run sees the same and comes here again.
        return ()
    return tuple(
        Problem(
            NOTICE,
            f"instance {one.bison_instance}: the field {one.field} changed in nearly all of {one.rows} {spec.noun} at"
            f" each of the last {lists.MOVING_READS} reads; from now on a change of it alone writes no row",
            f"add \"{one.field}\" to [polling] ignore_fields if nobody needs it; see 'bisonsync health validation'",
            exit_code=0,
        )
        for one in left_out
        if one.is_first
    )


def _failed(
    run: WorkspacesRun, spec: ListSpec, policy: ListPolicy, row: WorkspaceRow, error: BisonsyncError
) -> WorkspaceOutcome:
    outcome = outcome_of(row, error, _counts(spec, 0, Changes()))
    if outcome.problems:
        interval = policy.interval_seconds
        note_failure(run, row, spec.resource, error, verdict=outcome.verdict, interval_seconds=interval)
    return outcome


def _counts(spec: ListSpec, read: int, changes: Changes) -> dict[str, int]:
    return {f"{spec.noun}_read": read, **asdict(changes)}


def _problems(
    run: WorkspacesRun, spec: ListSpec, row: WorkspaceRow, fresh: Fresh, merged: Merged
) -> tuple[Problem, ...]:
    """What a person should know of a merged workspace."""
    name = str(row.key)
    problems: list[Problem] = []
    if merged.verdict == "incomplete":
        problems.append(
            Problem("incomplete", f"{name}: {merged.reason}", "nothing was removed; the next run reads it again", name)
        )
    if merged.verdict == "guarded":
        hint = f"look at the host; if it is right: bisonsync {run.job} -w {name} --allow-shrink"
        problems.append(Problem("shrink", f"{name}: {merged.reason}", hint, name, GuardRefused.exit_code))
    if merged.changes.invalid:
        fault = (*fresh.faults, *merged.store_faults)[0]
        problems.append(
            Problem(
                "validation",
                f"{name}: {merged.changes.invalid} {spec.noun} could not be read or stored; first: "
                f"id {fault.record_id or 'unreadable'}, {fault.message}",
                "their previous rows are kept; see table data_validation_errors",
                name,
            )
        )
    return tuple(problems)


def _some_notes(notes: Mapping[int, tuple[Fault, ...]], rows: Mapping[int, str]) -> tuple[Fault, ...]:
    """The notes on rows that are stored, of each field those of the lowest ids: the same ones at each read."""
    kept: dict[str, list[Fault]] = {}
    for record_id in sorted(notes.keys() & rows.keys()):
        for note in notes[record_id]:
            kept.setdefault(note.field, []).append(note)
    return tuple(note for some in kept.values() for note in some[:NOTES_PER_FIELD])


def _fault(invalid: InvalidRow) -> Fault:
    record_id = None if invalid.record_id is None else str(invalid.record_id)
    return Fault(record_id, invalid.field, invalid.error_type, invalid.message, invalid.row)


def _summary(spec: ListSpec, counts: Mapping[str, int], outcomes: Sequence[WorkspaceOutcome]) -> str:
    resting = sum(bool(outcome.silent_note) for outcome in outcomes)
    return (
        f"{counts['workspaces_ok']} of {counts['workspaces_total']} workspaces complete,"
        f"{f' {resting} not due,' if resting else ''} {counts[f'{spec.noun}_read']} {spec.noun} read, "
        f"{counts['inserted']} inserted, {counts['updated']} updated, "
        f"{counts['removed']} removed, {counts['restored']} restored, {counts['unchanged']} unchanged, "
        f"{counts['requests']} requests"
    )
