"""Does every scheduled job run, as often as it is meant to, and well?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from bisonsync.checks.check import (
    CRITICAL,
    NOT_IN_USE,
    OK,
    UNKNOWN,
    WARNING,
    CheckResult,
    Finding,
    Limit,
    Look,
    State,
    grade,
    rank,
)
from bisonsync.checks.clock import TOLERANCE_SECONDS
from bisonsync.checks.wording import short, span, worst_of
from bisonsync.store import health_jobs
from bisonsync.store.health_jobs import JobRuns

NAME = "runs"
# Intervals since the last start; and runs in a row that failed.
LIMITS: Mapping[str, Limit] = {"warning": Limit(2), "critical": Limit(3), "failures": Limit(2)}
_LONG = timedelta(hours=1)
_WHERE_SCHEDULED = "crontab -l; systemctl list-timers 'bisonsync*'"


@dataclass(frozen=True, slots=True)
class _Told:
    finding: Finding
    hint: str


def look(look: Look) -> CheckResult:
    """Look at each job of the schedule: when it last started, how it ended, and whether it still runs.

    One that never ran is CRITICAL from one interval after the database was set up, and a warning until then; UNKNOWN
    as long as no job ran at all. A skipped or stopped run is neither a failure nor a success, and a run of chosen
    workspaces is none of the job.
    """
    limits = look.limits[NAME]
    if not look.schedule:
        return CheckResult(NAME, NOT_IN_USE, "no job is scheduled", thresholds=limits)
    rows = look.read(lambda conn: health_jobs.list_job_runs(conn, sorted(look.schedule)))
    set_up_at = look.read(health_jobs.find_set_up_at)
    jobs = list(dict.fromkeys(row.job for row in rows))
    is_new = all(row.last_start is None for row in rows)
    told = list(dict.fromkeys(each for row in rows for each in _judge(look, row, set_up_at, is_new=is_new)))
    told.sort(key=lambda each: -rank(each.finding.state))
    bad = tuple(each.finding for each in told)
    late = max((_intervals(look, row) for row in rows), default=0.0)
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        f"{len({finding.subject for finding in bad})} of {len(jobs)} jobs: {bad[0].subject} {bad[0].detail}"
        if bad
        else f"all {len(jobs)} jobs run: {', '.join(jobs)}",
        hint=told[0].hint if told else "",
        value=round(late, 1),
        thresholds=limits,
        findings=bad,
    )


def _intervals(look: Look, row: JobRuns) -> float:
    """How many of its intervals ago a job last started; 0 for one that never did."""
    return 0.0 if row.last_start is None else (look.now - row.last_start) / look.schedule[row.job]


def _judge(look: Look, row: JobRuns, set_up_at: datetime | None, *, is_new: bool) -> Iterator[_Told]:
    limits, interval = look.limits[NAME], look.schedule[row.job]
    if row.last_start is None:
        known_since = max((at for at in (set_up_at, row.known_since) if at is not None), default=None)
        yield _never(look, row, interval, None if known_since is None else look.now - known_since, is_new=is_new)
        return
    age = (look.now - row.last_start).total_seconds()
    if age < -TOLERANCE_SECONDS:
        detail = f"started {span(-age)} in the future: a clock is wrong"
        yield _Told(_finding(row, UNKNOWN, detail, "clock"), "bisonsync health clock")
        return
    late = grade(_intervals(look, row), limits)
    if late != OK:
        missed = int(_intervals(look, row)) - 1 or 1
        detail = f"last started {span(age)} ago, meant to run every {span(interval.total_seconds())}: {missed} missed"
        detail += _parts(look, row)
        yield _Told(_finding(row, late, detail, "absent"), _WHERE_SCHEDULED)
    if row.failures > limits["failures"].value:
        detail = f"failed {row.failures} times in a row: {_reason(row)}"
        yield _Told(_finding(row, CRITICAL, detail, "verdict", *_errors(row)), f"bisonsync runs show {_id(row)}")
    elif row.status in ("failed", "guarded", "partial"):
        detail = f"last run {'lost' if row.lost else row.status}: {_reason(row)}"
        yield _Told(_finding(row, WARNING, detail, "verdict", *_errors(row)), f"bisonsync runs show {_id(row)}")
    running = look.now - (row.running_since or look.now)
    if running > max(3 * interval, _LONG):
        detail = f"running for {span(running.total_seconds())} on {row.running_on}"
        yield _Told(_finding(row, WARNING, detail, "long"), f"bisonsync runs show {str(row.running_id)[:8]}")


def _never(look: Look, row: JobRuns, interval: timedelta, known_for: timedelta | None, *, is_new: bool) -> _Told:
    parts = _parts(look, row)
    if known_for is not None and known_for > interval:
        return _Told(_finding(row, CRITICAL, f"never ran: is it scheduled?{parts}", "absent"), _WHERE_SCHEDULED)
    detail = f"has not run yet, meant to run every {span(interval.total_seconds())}: is it scheduled?{parts}"
    # A look without --alert is no run.
    command = "bisonsync health --alert" if row.job == "health" else f"bisonsync {row.job}"
    return _Told(_finding(row, UNKNOWN if is_new else WARNING, detail, "absent"), command)


def _parts(look: Look, row: JobRuns) -> str:
    """What somebody wonders who sees newer runs in the ledger."""
    if row.last_part is None or (row.last_start is not None and row.last_part <= row.last_start):
        return ""
    age = span((look.now - row.last_part).total_seconds())
    return f" (a run of chosen parts, as by -w, began {age} ago; such runs do not count)"


def _finding(row: JobRuns, state: State, detail: str, *kinds: str) -> Finding:
    detail = f"for instance {', '.join(row.instances)}: {detail}" if row.instances else detail
    return Finding(row.job, state, detail, kinds=(f"job:{row.job}", *kinds))


def _errors(row: JobRuns) -> list[str]:
    return list(dict.fromkeys(f"error:{error.get('kind')}" for error in row.errors or ()))


def _reason(row: JobRuns) -> str:
    errors = row.errors or []
    if not errors:
        return "it says nothing of why"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{short(str(errors[0].get('message')))}{more}"


def _id(row: JobRuns) -> str:
    return str(row.run_id)[:8]
