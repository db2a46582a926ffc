"""Do the dead-man pings arrive, by which another place notices our own silence?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from bisonsync.checks.check import NOT_IN_USE, OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look
from bisonsync.checks.wording import command, short, span, worst_first, worst_of
from bisonsync.store import health_jobs
from bisonsync.store.health_jobs import Heartbeat

NAME = "heartbeat"
# Intervals of the job since a ping last arrived.
LIMITS: Mapping[str, Limit] = {"warning": Limit(3)}
_QUESTION = "  # with its --heartbeat-url-file; is that address right, and reached from there?"
# A job that has not tried for so long does not ping any more; that it does not run is told by runs.
_FORGOTTEN = timedelta(days=7)


def look(look: Look) -> CheckResult:
    """Take the last ping of each job; not in use where no job pings, UNKNOWN where one should and none did yet."""
    limits = look.limits[NAME]
    rows = look.read(lambda conn: health_jobs.list_heartbeats(conn, look.now - _FORGOTTEN))
    if not rows and not look.heartbeats_expected:
        return CheckResult(NAME, NOT_IN_USE, "no job pings a dead-man switch", thresholds=limits)
    if not rows:
        detail = "no job has pinged yet"
        return CheckResult(NAME, UNKNOWN, detail, "bisonsync runs list", thresholds=limits)
    bad = worst_first([found for row in rows if (found := _judge(look, row)) is not None])
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        f"{len(bad)} of {len(rows)} jobs: {bad[0].subject} {bad[0].detail}"
        if bad
        else f"the pings of {', '.join(row.job for row in rows)} arrive",
        hint=f"{command(bad[0].subject)}{_QUESTION}" if bad else "",
        value=round(max(_intervals(look, row) for row in rows), 1),
        thresholds=limits,
        findings=bad,
    )


def _judge(look: Look, row: Heartbeat) -> Finding | None:
    kinds = (f"job:{row.job}",)
    if row.last_error is not None:
        since = "never" if row.last_ok_at is None else span((look.now - row.last_ok_at).total_seconds()) + " ago"
        detail = f"on {row.host}: the last ping failed: {short(row.last_error)}; last arrived {since}"
        return Finding(row.job, WARNING, detail, kinds=kinds)
    if _intervals(look, row) > look.limits[NAME]["warning"].value:
        detail = f"on {row.host}: last pinged {span((look.now - row.last_attempt_at).total_seconds())} ago"
        return Finding(row.job, WARNING, detail, kinds=(*kinds, "late"))
    return None


def _intervals(look: Look, row: Heartbeat) -> float:
    """How many intervals of its job ago a ping last arrived; 0 for a job without one."""
    interval = look.schedule.get(row.job)
    if interval is None:
        return 0.0
    return max(0.0, (look.now - (row.last_ok_at or row.last_attempt_at)) / interval)
