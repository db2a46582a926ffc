"""Does the database take writes, and grow as it should? Sizes, dead rows, months of the history, days of the inbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, timedelta

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, State
from bisonsync.checks.wording import worst_first, worst_of
from bisonsync.checks.writes import SUBJECT, find_refusal
from bisonsync.store import health_database, partitions
from bisonsync.store.health_database import PartitionDays, SizesBefore, TableSize

NAME = "database"
DAILY = "sender_email_daily"
INBOX = "webhook_delivery_log"
SNAPSHOTS = "snapshot-providers"
_MB = float(health_database.MEGABYTE)
_GB = 1024.0**3
# ``table``: of one table, of one month where it has months; ``growth``: since the last prune; ``late``: for how long a
# month may outlast its retention; ``ahead``: how long before its begin a month must have a place.
LIMITS: Mapping[str, Limit] = {
    "size": Limit(20 * _GB, "B"),
    "table": Limit(_GB, "B"),
    "growth": Limit(100.0, "%"),
    "dead": Limit(30.0, "%"),
    "late": Limit(2 * 86_400.0, "s"),
    "ahead": Limit(7 * 86_400.0, "s"),
}
# What is smaller than this may do as it likes.
GROWTH_MATTERS_BYTES = 100 * _MB
DEAD_ROWS_MATTER = 10_000

_Limits = Mapping[str, Limit]


def look(look: Look) -> CheckResult:
    """Look whether it takes writes, at the whole, at each table, and at the partitions of the history and of the inbox.

    UNKNOWN when the history has no partition at all: then nothing was ever recorded.
    """
    limits = look.limits[NAME]
    refusal = find_refusal(look)
    size, tables, before = look.read(
        lambda conn: (
            health_database.get_database_size(conn),
            health_database.list_table_sizes(conn),
            health_database.find_sizes_before(conn, look.now),
        )
    )
    findings = worst_first(
        [
            *(refusal.findings if refusal else ()),
            *_of_size(size, limits),
            *(found for table in tables for found in _of_table(table, limits)),
            *_of_growth(tables, before, limits),
            *_of_partitions(look, limits),
            *_missing_days(look),
        ]
    )
    largest = f"the largest table is {tables[0].name} with {size_text(tables[0].bytes)}" if tables else "no table"
    return CheckResult(
        NAME,
        worst_of(findings, OK),
        "; ".join(_sentence(found) for found in findings[:3]) or f"{size_text(size)}, {largest}",
        refusal.hint if refusal else _hint(findings[0]) if findings else "",
        value=size,
        unit="B",
        thresholds=limits,
        findings=findings,
    )


def size_text(size: float) -> str:
    """A size in its largest fitting unit."""
    for unit, name in ((_GB, "GB"), (_MB, "MB"), (1024.0, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} B"


def _sentence(found: Finding) -> str:
    return found.detail if found.subject == SUBJECT else f"{found.subject}: {found.detail}"


def _of_size(size: int, limits: _Limits) -> list[Finding]:
    if size <= limits["size"].value:
        return []
    return [Finding("database", WARNING, f"{size_text(size)} in all, more than {size_text(limits['size'].value)}")]


def _of_table(table: TableSize, limits: _Limits) -> list[Finding]:
    found: list[Finding] = []
    if table.bytes > limits["table"].value:
        detail = f"{size_text(table.bytes)} with indexes, more than {size_text(limits['table'].value)}"
        found.append(Finding(table.name, WARNING, detail, kinds=("filled",)))
    if table.dead_rows > DEAD_ROWS_MATTER and table.dead_percent > limits["dead"].value:
        detail = f"{table.dead_percent:.0f} % of its rows are dead ({table.dead_rows:,})"
        found.append(Finding(table.name, WARNING, detail, kinds=("dead",)))
    return found


def _of_growth(tables: Sequence[TableSize], before: SizesBefore | None, limits: _Limits) -> list[Finding]:
    """Tables that grew too much since the last prune noted their sizes, the months of a table together."""
    if before is None:
        return []
    found: list[Finding] = []
    for name in dict.fromkeys(table.part_of for table in tables):
        now = sum(table.bytes for table in tables if table.part_of == name)
        then = max(health_database.NOTED_BYTES, (before.counts.get(f"{name}_mb") or 0) * _MB)
        percent = 100.0 * (now - then) / then
        if now - then > GROWTH_MATTERS_BYTES and percent > limits["growth"].value:
            detail = f"grew from {size_text(then)} to {size_text(now)} since {before.finished_at:%Y-%m-%d %H:%M} UTC"
            found.append(Finding(name, WARNING, detail, kinds=("filled",)))
    return found


def _of_partitions(look: Look, limits: _Limits) -> list[Finding]:
    """The months that should be gone, and those that should be there."""
    days = look.retention_days.get(DAILY, 0)
    months = look.read(lambda conn: health_database.list_partition_days(conn, look.now, look.reporting_timezone, days))
    if not months:
        if SNAPSHOTS not in look.schedule:
            return []
        detail = "no month has a place: nothing was recorded yet"
        return [Finding(DAILY, UNKNOWN, detail, kinds=("late", f"job:{SNAPSHOTS}"))]
    allowed = limits["late"].value / 86_400
    late = [month for month in months if days and month.days_late > allowed]
    found = [
        Finding(month.name, WARNING, f"should have been dropped {month.days_late} days ago", kinds=("old",))
        for month in late[:1]
    ]
    return [*found, *_missing_months(look, months, limits)]


def _missing_months(look: Look, months: Sequence[PartitionDays], limits: _Limits) -> list[Finding]:
    today = months[0].today
    following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    if not _has(months, today):
        state = _without_place(look, partitions.DAILY)
        return [Finding(DAILY, state, f"no partition for {today:%Y-%m}, which has begun", kinds=("missing",))]
    if not _has(months, following) and (following - today).days * 86_400 <= limits["ahead"].value:
        return [Finding(DAILY, WARNING, f"no partition for {following:%Y-%m}, which is near", kinds=("missing",))]
    return []


def _missing_days(look: Look) -> list[Finding]:
    """Days of the inbox that are near and have no partition. Without a default one today's deliveries are refused."""
    days = look.read(lambda conn: health_database.list_days_missing(conn, look.now))
    if not days:
        return []
    names = ", ".join(str(day) for day in days)
    if days[0] > look.now.astimezone(UTC).date():
        return [Finding(INBOX, WARNING, f"no partition for {names}", kinds=("missing",))]
    state = _without_place(look, partitions.INBOX)
    detail = "deliveries are refused" if state == CRITICAL else "deliveries go to the default partition"
    return [Finding(INBOX, state, f"no partition for {names}: today's {detail}", kinds=("missing",))]


def _without_place(look: Look, table: partitions.Table) -> State:
    has_default = look.read(lambda conn: partitions.has_default(conn, table))
    return WARNING if has_default else CRITICAL


def _has(months: Sequence[PartitionDays], day: date) -> bool:
    return any(month.first_day <= day < month.next_day for month in months)


def _hint(found: Finding) -> str:
    if found.state == UNKNOWN:
        return f"bisonsync {SNAPSHOTS}"
    if "filled" in found.kinds:
        table = DAILY if found.subject.startswith(DAILY) else found.subject
        return f"bisonsync prune  # if {table} stays large: fewer days for it under [retention]"
    if found.subject == "database":
        return "bisonsync prune  # if it stays large: fewer days under [retention], or raise database.size"
    return f"bisonsync prune  # for {found.subject}"
