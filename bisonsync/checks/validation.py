"""Are records kept aside because they could not be understood or stored?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from bisonsync.checks.check import OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, grade
from bisonsync.checks.wording import named, short, span, worst_first, worst_of
from bisonsync.keys import WorkspaceKey
from bisonsync.store import health_data
from bisonsync.store.health_data import MovingField, NotedField, Quarantined

NAME = "validation"
# Of the records of a list. One is worth a warning.
LIMITS: Mapping[str, Limit] = {"warning": Limit(0, "%"), "critical": Limit(5, "%")}
# A poll leaves a field out by itself after so many reads, where enough accounts have it.
MOVING_READS = 3


def look(look: Look) -> CheckResult:
    """Compare the open entries of the quarantine with the length of their list, and name fields that are no use.

    Unknown fields that have all rows written at each read are a warning, or told alone where they are left out by now;
    notes on fields that could not be read are told alone.
    """
    limits = look.limits[NAME]
    rows = look.read(health_data.list_quarantined)
    moving = look.read(lambda conn: health_data.list_moving_fields(conn, reads=MOVING_READS))
    if not rows and not moving and not look.read(health_data.count_read_lists):
        return _nothing_read(limits)
    shares = [_share(row) for row in rows]
    bad = worst_first([found for row in rows if (found := _finding(row, limits)).state != OK])
    stirring = tuple(_stirring(field) for field in moving if field.left_out_at is None)
    told = [f"{sum(row.records for row in rows)} records kept aside" if rows else "nothing is kept aside"]
    told[0] += f": {bad[0].subject}: {bad[0].detail}" if bad else ""
    told += [f"{found.subject}: {found.detail}" for found in stirring]
    told += [_left_out(look, field, field.left_out_at) for field in moving if field.left_out_at is not None]
    told += [_noted(note) for note in look.read(health_data.list_noted_fields)]
    return CheckResult(
        NAME,
        worst_of((*bad, *stirring), OK),
        "; ".join(told),
        hint=_hint(bad) or _hint_on_fields(moving),
        value=round(max((share for share in shares if share is not None), default=0.0), 2),
        unit="%",
        thresholds=limits,
        findings=(*bad, *stirring),
    )


def _stirring(field: MovingField) -> Finding:
    what = f"{field.rows} {field.resource}"
    detail = f"{field.field} changed in nearly all of {what} at each of the last {field.reads} reads"
    return Finding(f"instance {field.bison_instance}", WARNING, f"the field {detail}: all are written each time")


def _left_out(look: Look, field: MovingField, since: datetime) -> str:
    age = span((look.now - since).total_seconds())
    return (
        f"instance {field.bison_instance}: the field {field.field} of {field.resource} moves with every read and is"
        f" left out of the comparison for {age}; stored is its value at the row's last other change"
    )


def _noted(note: NotedField) -> str:
    where = "1 workspace" if note.workspaces == 1 else f"{note.workspaces} workspaces"
    return (
        f"{note.field} could not be read of {note.source} in {where}, which were taken all the same"
        f" (first: {note.workspace}, id {note.record_id})"
    )


def _hint_on_fields(moving: list[MovingField]) -> str:
    names = ", ".join(f'"{name}"' for name in dict.fromkeys(field.field for field in moving))
    return f"where nobody needs it, in the settings: [polling] ignore_fields = [{names}]" if moving else ""


def _share(row: Quarantined) -> float | None:
    return 100 * row.records / row.total if row.total else None


def _finding(row: Quarantined, limits: Mapping[str, Limit]) -> Finding:
    key = (
        None
        if row.bison_instance is None or row.bison_workspace_id is None
        else WorkspaceKey(row.bison_instance, row.bison_workspace_id)
    )
    subject = row.source if key is None else named(key, row.name)
    kinds = () if row.job is None else (f"job:{row.job}",)
    share = _share(row)
    if share is None:
        # Of an unknown number: what came by another door than a list, or a list that told no length.
        state = UNKNOWN if key is not None and row.total == 0 else WARNING
        return Finding(subject, state, f"{row.records} {row.source}, {short(row.message)}", key, kinds=kinds)
    detail = f"{row.records} of {row.total} {row.source} ({share:.1f} %), {short(row.message)}"
    return Finding(subject, grade(share, limits), detail, key, kinds=kinds)


def _hint(bad: tuple[Finding, ...]) -> str:
    if not bad:
        return ""
    see = "see table data_validation_errors"
    job = next((kind.removeprefix("job:") for kind in bad[0].kinds), None)
    where = f" -w {bad[0].workspace}" if bad[0].workspace else ""
    return f"{see}; once the host is right: bisonsync {job}{where}" if job else see


def _nothing_read(limits: Mapping[str, Limit]) -> CheckResult:
    finding = Finding("lists", UNKNOWN, "nothing was read yet", kinds=("job:poll-accounts", "late", "unread"))
    hint = "bisonsync poll-accounts"
    return CheckResult(NAME, UNKNOWN, "nothing was read yet", hint, unit="%", thresholds=limits, findings=(finding,))
