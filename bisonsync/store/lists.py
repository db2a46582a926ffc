"""Merges a fresh read of a list of one workspace into the table that mirrors it, in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, LiteralString, cast
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store import leases, visits
from bisonsync.store.db import Connection, join_by_hashing
from bisonsync.store.db_errors import is_row_fault
from bisonsync.store.leases import Lease
from bisonsync.store.visits import Committed

_Q = load_queries("lists")

# Rows sent in one statement: bounds the memory of a large workspace; all of its statements share one transaction.
ROWS_PER_STATEMENT = 5_000
# An unknown field that changed in so many of the rows that have it, though nothing known did, moves with the read; it
# does so for good when it did in so many reads in a row, in so many rows of its instance together.
MOVING_SHARE = 0.9
MOVING_READS = 3
MOVING_ROWS = 5
# What few rows have is not worth it.
MOVING_PRESENT = 0.1

MergeVerdict = Literal["complete", "incomplete", "guarded"]


@dataclass(frozen=True, slots=True)
class MergeTable:
    """A table that mirrors a list, with its queries. ``resource``: the list's name wherever one is kept, a plural.

    ``missing`` and ``tombstone``: only of a table that marks what a complete read does not show.
    """

    resource: str
    name: str
    upsert: LiteralString
    count: LiteralString
    missing: LiteralString | None = None
    tombstone: LiteralString | None = None

    @property
    def tombstones(self) -> bool:
        """Whether it marks what is gone."""
        return self.tombstone is not None


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that could not be read or stored, as kept in quarantine. ``row`` is free of secrets.

    ``is_note``: the row was taken all the same, and ``row`` is the field alone.
    """

    record_id: str | None
    field: str
    error_type: str
    message: str
    row: Any
    is_note: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A field that is left out of the comparison from now on. ``is_first``: it never was before."""

    bison_instance: str
    field: str
    rows: int
    is_first: bool


@dataclass(frozen=True, slots=True)
class ShrinkGuard:
    """When the removal of rows that a complete read did not show is held back.

    ``max_shrink``: a share, 0.2 is 20 %; ``max_shrink_rows``: so many are never held back; both must be exceeded, and
    all rows at once are always held back. A second complete read at least ``confirm_after_seconds`` later settles it.
    ``allow``: hold nothing back; ``no_delete``: remove nothing.
    """

    max_shrink: float
    max_shrink_rows: int
    confirm_after_seconds: float
    allow: bool = False
    no_delete: bool = False


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a read of one workspace brought. ``rows`` maps an id to its fields as a JSON object.

    ``left_out``: paths of unknown fields, as Postgres writes an array of text, that alone are no change.
    """

    bison_instance: str
    bison_workspace_id: int
    workspace_name: str
    rows: Mapping[int, str]
    seen_ids: frozenset[int]
    faults: tuple[Fault, ...]
    read_started_at: datetime
    total: int | None
    incomplete_reason: str
    notes: tuple[Fault, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What a merge did, or would do."""

    inserted: int = 0
    updated: int = 0
    restored: int = 0
    unchanged: int = 0
    removed: int = 0
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Merged:
    """The outcome of a merge. ``reason`` says why it is not complete; ``moving`` are the fields that moved."""

    verdict: MergeVerdict
    changes: Changes
    reason: str = ""
    store_faults: tuple[Fault, ...] = ()
    moving: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Missing:
    live: int
    missing: list[int]


@dataclass(frozen=True, slots=True)
class _Judgement:
    live: int = 0
    missing: int = 0
    decision: str = "remove"
    remove_ids: list[int] = field(default_factory=list[int])
    pending_ids: list[int] | None = None
    pending_since: datetime | None = None


@dataclass
class _Upserted:
    """Counts. ``moves``: the unknown fields that moved in ``sampled`` of the ``idle`` rows, whose known ones stayed."""

    inserted: int = 0
    updated: int = 0
    restored: int = 0
    unchanged: int = 0
    idle: int = 0
    sampled: int = 0
    moves: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    faults: list[Fault] = field(default_factory=list[Fault])

    def add(self, part: _Upserted | None) -> None:
        assert part is not None  # an aggregate always has a row
        self.inserted += part.inserted
        self.updated += part.updated
        self.restored += part.restored
        self.unchanged += part.unchanged
        self.idle += part.idle
        self.sampled += part.sampled
        self.moves += part.moves

    def moving(self) -> list[dict[str, Any]]:
        """The fields that moved in nearly all rows that have them: name, path, and in about how many rows."""
        totals: dict[tuple[str, ...], tuple[int, int]] = {}
        for move in self.moves:
            moved, present = totals.get(tuple(move["path"]), (0, 0))
            totals[tuple(move["path"])] = (moved + move["moved"], present + move["present"])
        return [
            {"field": ".".join(path), "path": list(path), "accounts": round(moved * self.idle / self.sampled)}
            for path, (moved, present) in totals.items()
            if moved >= MOVING_SHARE * present and present >= MOVING_PRESENT * self.sampled
        ]


def leave_out(conn: Connection, resource: str, run_id: UUID) -> list[LeftOut]:
    """Leave the fields out that this run saw moving, where they have moved often enough; those left out now."""
    limits = {"reads": MOVING_READS, "min_rows": MOVING_ROWS}
    with conn.cursor(row_factory=class_row(LeftOut)) as cursor:
        return cursor.execute(_Q["leave_out_fields"], {"run_id": run_id, "resource": resource, **limits}).fetchall()


def forget_left_out(conn: Connection, resource: str, instances: Sequence[str], fields: Sequence[str]) -> None:
    """Forget what was left out by itself of fields that the settings leave out."""
    parameters = {"instances": list(instances), "resource": resource, "fields": list(fields)}
    conn.execute(_Q["forget_left_out_fields"], parameters)


def find_recent_read(conn: Connection, key: WorkspaceKey, resource: str, seconds: float) -> datetime | None:
    """When the last complete read of a list began, if that is less than so long ago."""
    parameters = {"instance": key.bison_instance, "workspace_id": key.bison_workspace_id, "resource": resource}
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["find_recent_read"], {**parameters, "seconds": seconds}).fetchone()


def merge(
    conn: Connection,
    lease: Lease,
    table: MergeTable,
    fresh: Fresh,
    *,
    guard: ShrinkGuard,
    rules: Mapping[str, Any],
    counts: Mapping[str, int],
    interval_seconds: int,
) -> Merged:
    """Make the table's rows of one workspace what ``fresh`` says; all in the caller's transaction.

    ``counts`` go into the ledger beside the changes. Safe to repeat: what this run has committed is found and
    returned. Raises LeaseLost when another run may have taken over; then nothing is written.
    """
    with leases.fenced(conn, lease):
        done = visits.find_result(conn, lease, table.resource)
        if done is not None:
            return _merged(done, fresh)
        join_by_hashing(conn)
        judgement = _judge(conn, table, fresh, guard)
        upserted = _upsert(conn, table, fresh, rules)
        removed = _tombstone(conn, table, fresh, judgement.remove_ids)
        faults = [*fresh.faults, *upserted.faults]
        changes = Changes(
            inserted=upserted.inserted,
            updated=upserted.updated,
            restored=upserted.restored,
            unchanged=upserted.unchanged,
            removed=removed,
            invalid=len(faults),
        )
        verdict, reason = _verdict(table, fresh, judgement)
        _keep_faults(conn, lease, table, fresh, [*faults, *fresh.notes])
        moving = upserted.moving()
        read = visits.Read(
            read_started_at=fresh.read_started_at,
            verdict=verdict,
            distinct_ids=len(fresh.seen_ids),
            interval_seconds=interval_seconds,
            total=fresh.total,
            error=reason or None,
            pending_since=judgement.pending_since,
            pending_ids=judgement.pending_ids,
            idle=upserted.idle,
            moving=moving,
        )
        visits.record_read(conn, lease, table.resource, read)
        visits.record_result(
            conn,
            lease,
            table.resource,
            workspace_name=fresh.workspace_name,
            verdict=verdict,
            counts={**counts, **asdict(changes)},
            error={"kind": verdict, "message": reason} if reason else None,
        )
        if changes.inserted or changes.updated or changes.restored or changes.removed:
            visits.notify_change(conn, table.name, lease.key)
    return Merged(verdict, changes, reason, tuple(upserted.faults), tuple(move["field"] for move in moving))


def plan(conn: Connection, table: MergeTable, fresh: Fresh, *, guard: ShrinkGuard, rules: Mapping[str, Any]) -> Merged:
    """What ``merge`` would do. Reads only."""
    join_by_hashing(conn)
    judgement = _judge(conn, table, fresh, guard)
    counted = _Upserted()
    for ids in _chunks(fresh):
        with conn.cursor(row_factory=class_row(_Upserted)) as cursor:
            part = cursor.execute(table.count, _rows_parameters(fresh, ids, rules)).fetchone()
        counted.add(part)
    verdict, reason = _verdict(table, fresh, judgement)
    changes = Changes(
        inserted=counted.inserted,
        updated=counted.updated,
        restored=counted.restored,
        unchanged=counted.unchanged,
        removed=len(judgement.remove_ids),
        invalid=len(fresh.faults),
    )
    return Merged(verdict, changes, reason)


def _merged(done: Committed, fresh: Fresh) -> Merged:
    """What was committed before the answer to COMMIT was lost."""
    changes = Changes(**{name: done.counts[name] for name in Changes.__slots__})
    stored = Fault(None, "", "store", "see table data_validation_errors", None)
    faults = (stored,) * (changes.invalid - len(fresh.faults))
    return Merged(cast("MergeVerdict", done.verdict), changes, done.reason or "", faults)


def _judge(conn: Connection, table: MergeTable, fresh: Fresh, guard: ShrinkGuard) -> _Judgement:
    if table.missing is None or fresh.incomplete_reason or guard.no_delete:
        return _Judgement()
    started = {**_key(fresh), "read_started_at": fresh.read_started_at}
    with conn.cursor(row_factory=class_row(_Missing)) as cursor:
        found = cursor.execute(table.missing, {**started, "seen_ids": sorted(fresh.seen_ids)}).fetchone()
    assert found is not None  # an aggregate always has a row
    if not found.missing:
        return _Judgement(found.live)
    with conn.cursor(row_factory=class_row(_Judgement)) as cursor:
        judgement = cursor.execute(
            _Q["judge_shrink"],
            {
                **started,
                "resource": table.resource,
                "live": found.live,
                "missing_ids": found.missing,
                "max_shrink": guard.max_shrink,
                "max_shrink_rows": guard.max_shrink_rows,
                "shrink_confirm_seconds": guard.confirm_after_seconds,
                "allow_shrink": guard.allow,
            },
        ).fetchone()
    assert judgement is not None  # always one row
    return judgement


def _verdict(table: MergeTable, fresh: Fresh, judgement: _Judgement) -> tuple[MergeVerdict, str]:
    if fresh.incomplete_reason:
        return "incomplete", fresh.incomplete_reason
    if judgement.decision == "remove":
        return "complete", ""
    held = judgement.missing - len(judgement.remove_ids)
    how = (
        "removing all of them needs --allow-shrink"
        if judgement.decision == "hold_all"
        else "removed when a later complete read agrees, or with --allow-shrink"
    )
    return "guarded", (
        f"a complete read misses {held} of {judgement.live} {table.resource}; none of these was removed: {how}"
    )


def _upsert(conn: Connection, table: MergeTable, fresh: Fresh, rules: Mapping[str, Any]) -> _Upserted:
    """Upsert all rows; a row that the database refuses is found by halving, put aside, and the others go on."""
    result = _Upserted()
    waiting = _chunks(fresh)
    while waiting:
        ids = waiting.pop()
        if not ids:
            continue
        try:
            with conn.transaction(), conn.cursor(row_factory=class_row(_Upserted)) as cursor:
                part = cursor.execute(table.upsert, _rows_parameters(fresh, ids, rules)).fetchone()
        except Exception as error:
            if not is_row_fault(error):
                raise
            if len(ids) == 1:
                result.faults.append(_store_fault(ids[0], fresh.rows[ids[0]], error))
            else:
                half = len(ids) // 2
                waiting += [ids[half:], ids[:half]]
        else:
            result.add(part)
    return result


def _chunks(fresh: Fresh) -> list[list[int]]:
    ids = list(fresh.rows)
    return [ids[start : start + ROWS_PER_STATEMENT] for start in range(0, len(ids), ROWS_PER_STATEMENT)]


def _store_fault(record_id: int, row: str, error: Exception) -> Fault:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Fault(str(record_id), "", f"store: {type(error).__name__}", first_line, json.loads(row))


def _tombstone(conn: Connection, table: MergeTable, fresh: Fresh, ids: list[int]) -> int:
    if table.tombstone is None or not ids:
        return 0
    with conn.cursor(row_factory=scalar_row) as cursor:
        return (
            cursor.execute(
                table.tombstone, {**_key(fresh), "ids": ids, "read_started_at": fresh.read_started_at}
            ).fetchone()
            or 0
        )


def _keep_faults(conn: Connection, lease: Lease, table: MergeTable, fresh: Fresh, faults: list[Fault]) -> None:
    parameters = {
        **_key(fresh),
        "workspace_name": fresh.workspace_name,
        "source": table.resource,
        "run_id": lease.run_id,
        "faults": json.dumps([asdict(fault) for fault in faults]),
    }
    # First what is over: a field that kept its row out may be no more than a note by now.
    if not fresh.incomplete_reason:
        conn.execute(_Q["resolve_quarantine"], parameters)
    if faults:
        conn.execute(_Q["quarantine_rows"], parameters)


def _rows_parameters(fresh: Fresh, ids: list[int], rules: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_key(fresh),
        "workspace_name": fresh.workspace_name,
        "rows": f"[{','.join(fresh.rows[number] for number in ids)}]",
        "read_started_at": fresh.read_started_at,
        "rules": json.dumps({**rules, "left_out": fresh.left_out}),
    }


def _key(fresh: Fresh) -> dict[str, Any]:
    return {"instance": fresh.bison_instance, "workspace_id": fresh.bison_workspace_id}
