"""Are records kept aside because they could not be understood or stored?"""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, grade
from bisonsync.checks.wording import named, short, worst_first, worst_of
from bisonsync.run import label
from bisonsync.store import health_data
from bisonsync.store.health_data import Quarantined

NAME = "validation"
# Of the records of a list. One is worth a warning.
LIMITS: Mapping[str, Limit] = {"warning": Limit(0, "%"), "critical": Limit(5, "%")}


def look(look: Look) -> CheckResult:
    """Compare the open entries of the quarantine with the length of their list."""
    limits = look.limits[NAME]
    rows = look.read(health_data.list_quarantined)
    if not rows:
        return _nothing(look, limits)
    shares = [_share(row) for row in rows]
    bad = worst_first([found for row in rows if (found := _finding(row, limits)).state != OK])
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        f"{sum(row.records for row in rows)} records kept aside"
        + (f": {bad[0].subject}: {bad[0].detail}" if bad else ""),
        hint=_hint(bad),
        value=round(max((share for share in shares if share is not None), default=0.0), 2),
        unit="%",
        thresholds=limits,
        findings=bad,
    )


def _share(row: Quarantined) -> float | None:
    return 100 * row.records / row.total if row.total else None


def _finding(row: Quarantined, limits: Mapping[str, Limit]) -> Finding:
    key = (
        None
        if row.bison_instance is None or row.bison_workspace_id is None
        else (row.bison_instance, row.bison_workspace_id)
    )
    subject = row.source if key is None else named(key, row.name)
    share = _share(row)
    if share is None:
        # Of an unknown number: what came by another door than a list, or a list that told no length.
        state = UNKNOWN if key is not None and row.total == 0 else WARNING
        return Finding(subject, state, f"{row.records} {row.source}, {short(row.message)}", key)
    detail = f"{row.records} of {row.total} {row.source} ({share:.1f} %), {short(row.message)}"
    return Finding(subject, grade(share, limits), detail, key)


def _hint(bad: tuple[Finding, ...]) -> str:
    if not bad:
        return ""
    where = f" -w {label(bad[0].workspace)}" if bad[0].workspace else ""
    return f"see table data_validation_errors; once the host is right: bisonsync poll-accounts{where}"


def _nothing(look: Look, limits: Mapping[str, Limit]) -> CheckResult:
    if look.read(health_data.count_read_lists):
        return CheckResult(NAME, OK, "nothing is kept aside", value=0, unit="%", thresholds=limits)
    finding = Finding("lists", UNKNOWN, "nothing was read yet", kinds=("job:poll-accounts", "late", "unread"))
    hint = "bisonsync poll-accounts"
    return CheckResult(NAME, UNKNOWN, "nothing was read yet", hint, unit="%", thresholds=limits, findings=(finding,))
