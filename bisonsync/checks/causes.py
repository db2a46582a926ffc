"""Which check's failure is the cause of which: one place that sees what all of them found.

No two findings may excuse each other: at the end of every chain is a finding without a cause, and its check is alarmed.
What is late is caused by a job that did not run, and nothing causes that; what a run says of its errors causes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bisonsync.checks.check import CRITICAL, NOT_IN_USE, OK, UNKNOWN, CheckResult, Finding
from bisonsync.keys import WorkspaceKey

# Which checks tell of errors of a kind, where any does. An error of any other kind stands for itself.
_TOLD_BY: Mapping[str, tuple[str, ...]] = {
    "error:credentials": ("tokens",),
    "error:shrink": ("account-drop",),
    "error:guarded": ("account-drop",),
    "error:validation": ("validation",),
    "error:incomplete": ("completeness",),
    "error:api": ("api",),
    "error:api_unavailable": ("api",),
    "error:database": ("access",),
}
# What a job's guard refuses: a mirror that is too old or not whole; of a job that reads lists, another's token.
_GUARDS: Mapping[str, tuple[str, ...]] = {"job:snapshot-providers": ("freshness", "completeness")}
_GUARD_OF_LISTS = ("tokens",)
_READS_LISTS = ("job:poll-", "job:pull-")
# Slow answers explain no error, nor does what is open to outsiders.
_NEEDED: Mapping[str, tuple[str, ...]] = {"api": ("unanswered",), "access": ("refused",)}
# What is found of one list explains nothing of another.
_BY_LIST = frozenset({"account-drop", "completeness", "workspace-failures"})
# What stands still while the jobs cannot use the database, or cannot write into it.
_STANDS_STILL = frozenset({"freshness", "runs", "completeness", "workspace-failures", "leases", "heartbeat"})
_NEEDS_WRITES = _STANDS_STILL | {"webhook-silence"}

# What cannot look without anything read.
_NEED_READS = frozenset({"api", "capacity", "disconnects"})
_UNREAD = Finding("reads", UNKNOWN, "", kinds=("job:poll-accounts", "late", "unread"))

_Found = Mapping[str, tuple[Finding, ...]]


def attribute(results: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
    """The same results with what is the cause of each finding, and of each check all of whose findings have one.

    A cause that a check has named itself stays.
    """
    found = {result.name: tuple(finding for finding in result.findings if _is_bad(finding)) for result in results}
    is_schema_wrong = any(result.name == "schema" and result.state == CRITICAL for result in results)
    return tuple(_attributed(result, found, _fallback(result, found, is_schema_wrong)) for result in results)


def _fallback(result: CheckResult, found: _Found, is_schema_wrong: bool) -> str | None:
    """The check that tells of a database that the jobs cannot use, where this one may be bad because of it."""
    if is_schema_wrong and result.name != "schema" and (result.state == UNKNOWN or result.name in _STANDS_STILL):
        return "schema"
    return "database" if result.name in _NEEDS_WRITES and _has(found, "database", "unwritable") else None


def _attributed(result: CheckResult, found: _Found, fallback: str | None) -> CheckResult:
    if result.state in (OK, NOT_IN_USE):
        return result
    findings = tuple(
        replace(finding, caused_by=finding.caused_by or _cause(result.name, finding, found) or fallback)
        if _is_bad(finding)
        else finding
        for finding in result.findings
    )
    causes = [finding.caused_by for finding in findings if _is_bad(finding)]
    if not causes:
        needs_reads = result.state == UNKNOWN and result.name in _NEED_READS
        causes = [(_cause(result.name, _UNREAD, found) if needs_reads else None) or fallback]
    cause = result.caused_by or (causes[0] if all(causes) else None)
    return replace(result, findings=findings, caused_by=cause)


def _cause(check: str, finding: Finding, found: _Found) -> str | None:
    """The check whose finding is this one's cause, if any is."""
    if check == "runs":
        return None if "verdict" not in finding.kinds else _cause_of_errors(finding, found)
    return next((cause for cause in _causes(check, finding, found) if cause != check), None)


def _causes(check: str, finding: Finding, found: _Found) -> Iterable[str]:
    """The checks that explain a finding, the deepest cause first."""
    jobs = _jobs(finding)
    errors = {told for kind in finding.kinds for told in _told_by(kind, jobs)}
    if finding.workspace is not None and check in ("freshness", "completeness", "workspace-failures"):
        yield from (
            cause
            for cause in ("tokens", "account-drop")
            if cause in errors and _has(found, cause, *_of_list(cause, jobs), workspace=finding.workspace)
        )
        if "access" in errors and _has(found, "access", "refused"):
            yield "access"
        if check == "freshness" and _has(found, "leases", "held", *jobs, workspace=finding.workspace):
            yield "leases"
    if "late" in finding.kinds and jobs and _has(found, "runs", "absent", *jobs):
        yield "runs"
    if finding.workspace is not None and check in ("freshness", "completeness", "workspace-failures"):
        if "api" in errors and _has(found, "api", "unanswered", f"instance:{finding.workspace[0]}"):
            yield "api"
        failing = ("failing", *_of_list("workspace-failures", jobs))
        if check != "workspace-failures" and _has(found, "workspace-failures", *failing, workspace=finding.workspace):
            yield "workspace-failures"
    if check != "freshness" and "unread" in finding.kinds and _has(found, "freshness"):
        yield "freshness"


def _cause_of_errors(finding: Finding, found: _Found) -> str | None:
    """The check that tells of the first of a run's errors, if others tell of all of them."""
    kinds = [kind for kind in finding.kinds if kind.startswith("error:")]
    jobs = _jobs(finding)
    causes = [
        next(
            (
                check
                for check in _told_by(kind, jobs)
                if _has(found, check, *_NEEDED.get(check, ()), *_of_list(check, jobs))
            ),
            None,
        )
        for kind in kinds
    ]
    return causes[0] if causes and all(causes) else None


def _told_by(kind: str, jobs: Sequence[str]) -> tuple[str, ...]:
    if kind == "error:guard":
        return next((_GUARDS.get(job) or _GUARD_OF_LISTS for job in jobs if job in _GUARDS or _reads_list(job)), ())
    return _TOLD_BY.get(kind, ())


def _reads_list(job: str) -> bool:
    return job.startswith(_READS_LISTS)


def _of_list(check: str, jobs: Sequence[str]) -> tuple[str, ...]:
    """What a check must have found of the list that a job reads, to be the cause of what became of it."""
    return tuple(job for job in jobs if check in _BY_LIST and _reads_list(job))


def _has(found: _Found, check: str, *kinds: str, workspace: WorkspaceKey | None = None) -> bool:
    """Whether a check found something bad of all these kinds, in this workspace where one is given.

    That nothing was read is told by freshness; where others have nothing to look at, it causes nothing.
    """
    return any(
        set(kinds) <= set(finding.kinds) and (workspace is None or finding.workspace == workspace)
        for finding in found.get(check, ())
        if check == "freshness" or "unread" not in finding.kinds
    )


def _jobs(finding: Finding) -> list[str]:
    return [kind for kind in finding.kinds if kind.startswith("job:")]


def _is_bad(finding: Finding) -> bool:
    return finding.state not in (OK, NOT_IN_USE)
