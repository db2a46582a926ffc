"""Does anything lie in the inbox that should not: due, dead, of another workspace, of a type that is not known?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bisonsync.checks.check import (
    CRITICAL,
    NOT_IN_USE,
    OK,
    WARNING,
    CheckResult,
    Finding,
    Limit,
    Look,
    State,
    grade,
    rank,
    worst,
)
from bisonsync.checks.wording import named, short, span
from bisonsync.store import health_webhooks
from bisonsync.store.health_webhooks import Backlog, DeadReason, Mismatch, UnknownType, Unregistered

NAME = "inbox"
# ``warning`` and ``critical``: how long the oldest delivery has been due. ``dead`` and ``many_dead``: how many there
# may be. ``types``: how long a type that is not known is told of.
LIMITS: Mapping[str, Limit] = {
    "warning": Limit(600, "s"),
    "critical": Limit(3600, "s"),
    "dead": Limit(0),
    "many_dead": Limit(100),
    "types": Limit(86_400, "s"),
}
# Types that hosts are known to send and that change nothing here: nobody has to do anything about them.
WITHOUT_EFFECT = (
    "email_send_failed",
    "manual_email_send_failed",
    "blacklisted_email_added",
    "blacklisted_email_removed",
    "blacklisted_domain_added",
    "blacklisted_domain_removed",
)
_FINDINGS_IN_DETAIL = 3

_Limits = Mapping[str, Limit]


@dataclass(frozen=True, slots=True)
class _Told:
    finding: Finding
    hint: str


def look(look: Look) -> CheckResult:
    """Look for what replay should have taken, dead letters, mismatches, unregistered workspaces and unknown types.

    Not in use while no delivery has ever come and there is no secret.
    """
    limits = look.limits[NAME]
    if not look.read(health_webhooks.has_deliveries):
        return _empty(look, limits)
    types_since = look.now - timedelta(seconds=limits["types"].value)
    backlog = look.read(lambda conn: health_webhooks.sum_backlog(conn, look.now))
    told = [
        *_judge_mismatches(look, look.read(health_webhooks.list_mismatches)),
        *_judge_backlog(look, limits, backlog),
        *_judge_dead(limits, look.read(health_webhooks.list_dead)),
        *_judge_unregistered(look, look.read(health_webhooks.list_unregistered)),
        *_judge_types(look.read(lambda conn: health_webhooks.list_unknown_types(conn, types_since, WITHOUT_EFFECT))),
    ]
    told.sort(key=lambda each: -rank(each.finding.state))
    bad = tuple(each.finding for each in told)
    return CheckResult(
        NAME,
        worst([OK, *(finding.state for finding in bad)]),
        _detail(bad, backlog),
        hint=told[0].hint if told else "",
        value=round(_age(look, backlog)),
        unit="s",
        thresholds=limits,
        findings=bad,
    )


def _empty(look: Look, limits: _Limits) -> CheckResult:
    if look.hooks or look.read(health_webhooks.has_secrets):
        return CheckResult(NAME, OK, "no delivery has come yet", value=0, unit="s", thresholds=limits)
    return CheckResult(NAME, NOT_IN_USE, "no delivery has ever come", thresholds=limits)


def _detail(bad: Sequence[Finding], backlog: Backlog) -> str:
    if not bad:
        due = _count(backlog.due, "delivery is", "deliveries are") if backlog.due else "nothing is"
        return f"{due} due, nothing is dead, mismatched or unknown"
    told = [f"{finding.subject}: {finding.detail}" for finding in bad[:_FINDINGS_IN_DETAIL]]
    return "; ".join([*told, *([f"and {len(bad) - len(told)} more"] if len(bad) > len(told) else [])])


def _age(look: Look, backlog: Backlog) -> float:
    return 0.0 if backlog.oldest_due_at is None else (look.now - backlog.oldest_due_at).total_seconds()


def _judge_mismatches(look: Look, rows: Sequence[Mismatch]) -> list[_Told]:
    told: list[_Told] = []
    for row in rows:
        count = _count(row.deliveries, "mismatch", "mismatches")
        since = f" (the first {_ago(look, row.first_at)})" if row.deliveries > 1 else ""
        detail = f"{count}, the last {_ago(look, row.last_at)}{since}: {short(row.reason)}"
        hint = (
            f"bisonsync inbox list --status mismatch; bisonsync webhooks list -w {row.key};"
            " if the host in it is this instance, add its address to former_urls"
        )
        # Of no workspace: its client's own channel must not hear of another.
        told.append(_Told(Finding(named(row.key, row.name), CRITICAL, detail, kinds=("mismatch",)), hint))
    return told


def _judge_backlog(look: Look, limits: _Limits, backlog: Backlog) -> list[_Told]:
    age = _age(look, backlog)
    state = grade(age, limits)
    if state == OK:
        return []
    detail = f"{_count(backlog.due, 'delivery is', 'deliveries are')} due and not taken, the first for {span(age)}"
    finding = Finding("backlog", state, detail, kinds=("late", "job:replay-webhooks"))
    return [_Told(finding, "bisonsync replay-webhooks")]


def _judge_dead(limits: _Limits, rows: Sequence[DeadReason]) -> list[_Told]:
    total = rows[0].total if rows else 0
    state: State = WARNING if total > limits["dead"].value else OK
    if total > limits["many_dead"].value:
        state = CRITICAL
    if state == OK:
        return []
    most = f"{rows[0].deliveries:,} of them: " if len(rows) > 1 else ""
    detail = f"{_count(total, 'delivery', 'deliveries')}, {most}{short(rows[0].reason) or 'no reason is known'}"
    return [_Told(Finding("dead letters", state, detail, kinds=("dead",)), "bisonsync dead-letters list")]


def _judge_unregistered(look: Look, rows: Sequence[Unregistered]) -> list[_Told]:
    told: list[_Told] = []
    for row in rows:
        count = _count(row.deliveries, "delivery waits", "deliveries wait")
        detail = f"not registered, {count} for that, the first came {_ago(look, row.first_at)}"
        finding = Finding(_unregistered(row), WARNING, detail, kinds=("unregistered",))
        hint = "bisonsync workspaces discover; bisonsync replay-webhooks"
        if row.bison_instance is None and row.bison_workspace_id is not None:
            hint = f"if the host it came from is an instance of yours, add its address to former_urls; else {hint}"
        told.append(_Told(finding, hint))
    return told


def _unregistered(row: Unregistered) -> str:
    name = f" {short(row.name)}" if row.name else ""
    if row.bison_workspace_id is None:
        return f"a workspace named{name or ' nothing'}"
    return f"{row.bison_instance or 'an unknown instance'}/{row.bison_workspace_id}{name}"


def _judge_types(rows: Sequence[UnknownType]) -> list[_Told]:
    told: list[_Told] = []
    for row in rows:
        where = _count(row.workspaces, "workspace", "workspaces")
        detail = f"not known, came in {where}: kept, without effect"
        finding = Finding(f"event type {short(row.event_type)}", WARNING, detail, kinds=("type",))
        told.append(_Told(finding, "bisonsync inbox list --status ignored"))
    return told


def _ago(look: Look, at: datetime) -> str:
    return f"{span((look.now - at).total_seconds())} ago"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
