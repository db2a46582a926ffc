"""What pull-events stores: events that the inbox does not have yet, and how far each event log is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Literal

from psycopg.rows import class_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store import leases, visits, webhooks
from bisonsync.store.db import Connection
from bisonsync.store.leases import Lease
from bisonsync.store.webhooks import Delivery, Outcome

_Q = load_queries("event_pulls")

RESOURCE = "events"

WalkKind = Literal["newest", "unordered", "whole"]


@dataclass(frozen=True, slots=True)
class Pull:
    """How far the event log of a workspace is read; see the columns of event_pulls."""

    bison_instance: str
    bison_workspace_id: int
    pulled_until: datetime | None = None
    whole_until: datetime | None = None
    whole_at: datetime | None = None
    walk_from: datetime | None = None
    walk_until: datetime | None = None
    walk_kind: WalkKind | None = None
    walk_cursor: str | None = None
    absent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What a pull read and did.

    ``new``: never delivered before, took effect now. ``known``: the inbox had it. ``duplicate``: twice in what was
    read. ``ignored``: kept without effect. ``failed``: cannot be applied. ``mismatch``: of another workspace, whether
    it is new or known. ``left_out``: older than what a host is known to keep. ``judged_again``: mismatches in the
    inbox that are none any more, not among those read.
    """

    events_read: int = 0
    new: int = 0
    known: int = 0
    duplicate: int = 0
    ignored: int = 0
    failed: int = 0
    mismatch: int = 0
    left_out: int = 0
    judged_again: int = 0
    pages: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, more = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + more[name] for name in mine})


@dataclass(frozen=True, slots=True)
class Known:
    """Whether the inbox has an event, perhaps as one of another workspace; equal ones have the same ``identity``."""

    is_known: bool
    is_mismatch: bool
    identity: str


@dataclass(frozen=True, slots=True)
class _Placed(Known):
    place: int


@dataclass(frozen=True, slots=True)
class Mismatches:
    """How many deliveries at a workspace's address are of another one; ``first``: type and reason of the first."""

    deliveries: int
    first: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a commit did: the counts of the workspace in this run so far, and the deliveries that it left unapplied."""

    counts: Counts
    unapplied: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a workspace's event log as it was read, and how far the log is read with it.

    ``counts`` are those of the workspace in this run before it. ``read_started_at`` is given with the last part.
    """

    deliveries: Sequence[Delivery]
    left_out: int
    pages: int
    pull: Pull
    workspace_name: str
    counts: Counts
    interval_seconds: int
    read_started_at: datetime | None = None


def list_pulls(conn: Connection) -> dict[WorkspaceKey, Pull]:
    """How far the event logs are read, by workspace."""
    with conn.cursor(row_factory=class_row(Pull)) as cursor:
        pulls = cursor.execute(_Q["list_pulls"]).fetchall()
    return {WorkspaceKey(pull.bison_instance, pull.bison_workspace_id): pull for pull in pulls}


def find_known(conn: Connection, key: WorkspaceKey, deliveries: Sequence[Delivery]) -> list[Known]:
    """Whether the inbox has each of these events of a workspace already; in the order given. Reads only."""
    if not deliveries:
        return []
    with conn.cursor(row_factory=class_row(_Placed)) as cursor:
        placed = cursor.execute(
            _Q["find_known_events"],
            {
                "instance": key[0],
                "workspace_id": key[1],
                "received_ats": [delivery.received_at for delivery in deliveries],
                "payloads": [delivery.payload for delivery in deliveries],
            },
        ).fetchall()
    placed.sort(key=lambda known: known.place)
    return [*placed]


def plan(conn: Connection, key: WorkspaceKey, part: Part) -> Stored:
    """What ``store`` would do with the events, as far as it can be told without applying them. Reads only."""
    known = find_known(conn, key, part.deliveries)
    fresh = [each.identity for each in known if not each.is_known]
    new = len(set(fresh))
    return Stored(part.counts + replace(_read(part, known), new=new, duplicate=len(fresh) - new))


def store(conn: Connection, lease: Lease, part: Part) -> Stored:
    """Store and apply the events that the inbox does not have, and note how far the log is read; one transaction.

    Safe to repeat: what this run has committed is found and returned. Raises LeaseLost when another run may have
    taken over; then nothing is written.
    """
    with leases.fenced(conn, lease):
        done = visits.find_result(conn, lease, RESOURCE)
        if done is not None and done.counts["pages"] >= part.counts.pages + part.pages:
            return Stored(Counts(**{name: done.counts[name] for name in Counts.__slots__}))
        key = lease.key
        known = find_known(conn, key, part.deliveries)
        fresh = [delivery for delivery, each in zip(part.deliveries, known, strict=True) if not each.is_known]
        outcomes = webhooks.receive(conn, fresh)
        counts = part.counts + _judge(_read(part, known), outcomes)
        conn.execute(
            _Q["record_progress"],
            {
                **_key(lease),
                "pulled_until": part.pull.pulled_until,
                "whole_until": part.pull.whole_until,
                "whole_at": part.pull.whole_at,
                "walk_from": part.pull.walk_from,
                "walk_until": part.pull.walk_until,
                "walk_kind": part.pull.walk_kind,
                "walk_cursor": part.pull.walk_cursor,
            },
        )
        if part.read_started_at is not None:
            read = visits.Read(part.read_started_at, "complete", counts.events_read, part.interval_seconds)
            visits.record_read(conn, lease, RESOURCE, read)
        verdict = "incomplete" if part.read_started_at is None else "complete"
        _record(conn, lease, part.workspace_name, verdict, counts)
    return Stored(counts, tuple(outcome for outcome in outcomes if outcome.status in ("failed", "dead")))


def judge_again(conn: Connection, lease: Lease, workspace_name: str, counts: Counts, *, limit: int) -> Counts:
    """Apply up to ``limit`` of a workspace's mismatches that are none any more, for a setting was put right.

    ``counts`` are those of the workspace in this run; returned with these, and unchanged when there is none.
    Raises LeaseLost like ``store``.
    """
    due = conn.execute(_Q["list_due_mismatches"], {**_key(lease), "limit": limit}).fetchall()
    if not due:
        return counts
    with leases.fenced(conn, lease):
        outcomes = webhooks.process(conn, [row[0] for row in due], [row[1] for row in due])
        counts += Counts(judged_again=sum(outcome.status != "mismatch" for outcome in outcomes))
        _record(conn, lease, workspace_name, "incomplete", counts)
    return counts


def sum_mismatches(conn: Connection, key: WorkspaceKey) -> Mismatches:
    """What lies in the inbox that came to a workspace's address and is of another one."""
    with conn.cursor(row_factory=class_row(Mismatches)) as cursor:
        found = cursor.execute(_Q["sum_mismatches"], {"instance": key[0], "workspace_id": key[1]}).fetchone()
    return found or Mismatches(0, None)


def record_absence(conn: Connection, lease: Lease) -> None:
    """Note that the host of a workspace has no event log, so that nobody waits for it. Raises LeaseLost."""
    with leases.fenced(conn, lease):
        conn.execute(_Q["record_absence"], _key(lease))
        conn.execute(_Q["remove_state"], _key(lease))


def first_day(deliveries: Sequence[Delivery]) -> date | None:
    """The day (UTC) of the earliest of these."""
    moments = [delivery.received_at for delivery in deliveries if delivery.received_at is not None]
    return min(moments).astimezone(UTC).date() if moments else None


def _read(part: Part, known: Sequence[Known]) -> Counts:
    mismatches = sum(each.is_mismatch for each in known)
    return Counts(
        events_read=len(part.deliveries) + part.left_out,
        known=sum(each.is_known for each in known) - mismatches,
        mismatch=mismatches,
        left_out=part.left_out,
        pages=part.pages,
    )


def _judge(read: Counts, outcomes: Sequence[Outcome]) -> Counts:
    def of(*statuses: str) -> int:
        return sum(outcome.status in statuses for outcome in outcomes)

    told = {
        "new": of("processed"),
        "duplicate": of("duplicate"),
        "failed": of("failed", "dead"),
    }
    mismatches = of("mismatch")
    ignored = len(outcomes) - sum(told.values()) - mismatches
    return replace(read, ignored=ignored, mismatch=read.mismatch + mismatches, **told)


def _record(conn: Connection, lease: Lease, workspace_name: str, verdict: str, counts: Counts) -> None:
    visits.record_result(conn, lease, RESOURCE, workspace_name=workspace_name, verdict=verdict, counts=asdict(counts))


def _key(lease: Lease) -> dict[str, object]:
    return {"instance": lease.bison_instance, "workspace_id": lease.bison_workspace_id}
