"""Sums up what a run did."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from bisonsync.jobs.snapshot_providers.work import WORKSPACE_COUNTS, Policy, Work, outcome_of
from bisonsync.run import Result, WorkspacesRun


def result_of(run: WorkspacesRun, policy: Policy, work: Work, today: date) -> Result:
    """Count, and say in one line, what became of the workspaces and of the history."""
    outcomes = tuple(work.outcomes.get(row.key) or outcome_of(row, "skipped", {}) for row in run.workspaces)

    def of(*verdicts: str) -> int:
        return sum(outcome.verdict in verdicts for outcome in outcomes)

    is_past = policy.on is not None and policy.on != today
    totals = {name: sum(outcome.counts.get(name, 0) for outcome in outcomes) for name in WORKSPACE_COUNTS}
    if is_past:
        totals["accounts"] = sum(written.accounts for written in work.shown)
    counts = {
        "workspaces_total": len(outcomes),
        "workspaces_ok": of("complete"),
        "workspaces_failed": of("failed"),
        "workspaces_refused": of("guarded"),
        **totals,
        "providers": sum(written.providers for written in work.shown),
        "history_inserted": sum(written.inserted for written in work.history),
        "history_updated": sum(written.updated for written in work.history),
        "history_deleted": sum(written.deleted for written in work.history),
        "gaps": work.gaps,
        "resets": sum(written.resets for written in work.shown),
        "falling_counters": sum(written.falling_counters for written in work.shown),
        **work.extra_counts,
    }
    return Result(
        counts=counts,
        workspaces=outcomes,
        problems=tuple(work.problems),
        committed=work.is_history_committed,
        summary=_summary(
            counts, work, policy.on if is_past else None, of("complete", "incomplete"), is_dry_run=run.dry_run
        ),
        warnings=tuple(work.warnings),
    )


def _summary(counts: Mapping[str, int], work: Work, past_day: date | None, recorded: int, *, is_dry_run: bool) -> str:
    days = sorted({day for days in work.days.values() for day in days})
    parts = [
        f"{past_day} computed again for {recorded} of {counts['workspaces_total']} workspaces"
        if past_day
        else f"{recorded} of {counts['workspaces_total']} workspaces recorded"
        + (f" for {' and '.join(str(day) for day in days)}" if days else ""),
        f"{counts['accounts']} accounts",
    ]
    if not past_day:
        parts += [f"{counts[name]} {name}" for name in ("inserted", "updated", "unchanged")]
    parts.append(
        f"history of {counts['providers']} providers: {counts['history_inserted']} inserted,"
        f" {counts['history_updated']} updated, {counts['history_deleted']} deleted"
        if past_day or not is_dry_run
        else "the history would follow from them"
    )
    for name, words in (("resets", "counters reset"), ("falling_counters", "counters fell")):
        if counts[name]:
            parts.append(f"{counts[name]} {words}")
    if counts["gaps"] and not past_day:
        parts.append(f"{counts['gaps']} days of workspaces missing between recorded ones")
    return "; ".join([", ".join(parts), *work.notes])
