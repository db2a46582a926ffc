"""Do mails bounce? By provider, reseller and domain, over 7 days."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from bisonsync.checks.check import NOT_IN_USE, OK, UNKNOWN, CheckResult, Finding, Limit, Look, State, grade, rank, worst
from bisonsync.checks.history import missing_history, read_days
from bisonsync.store import health_numbers
from bisonsync.store.health_numbers import Bounces

NAME = "bounce"
DAYS = 7
# ``sample``: mails that a group must have sent to be judged.
LIMITS: Mapping[str, Limit] = {"warning": Limit(3.0, "%"), "critical": Limit(5.0, "%"), "sample": Limit(200.0)}


def look(look: Look) -> CheckResult:
    """Judge every group that sent enough in the last 7 recorded days.

    UNKNOWN without a recorded day until yesterday, and when nothing at all was sent (0/0).
    """
    limits = look.limits[NAME]
    days = read_days(look)
    if missing := missing_history(look, NAME, days):
        return missing
    last_day = days.last_day
    assert last_day is not None
    if days.first_day == last_day:
        detail = f"the history began on {last_day}: what is sent is known from the second day on"
        return CheckResult(NAME, NOT_IN_USE, detail, thresholds=limits)
    first_day = last_day - timedelta(days=DAYS - 1)
    groups = look.read(lambda conn: health_numbers.sum_bounces(conn, first_day, last_day + timedelta(days=1)))
    return _judge(groups, f"in the {DAYS} days until {last_day}", limits)


def _judge(groups: list[Bounces], when: str, limits: Mapping[str, Limit]) -> CheckResult:
    total = next(group for group in groups if group.dimension == "all")
    if not total.sent:
        detail = f"nothing was sent {when}"
        return CheckResult(NAME, UNKNOWN, detail, "bisonsync dashboard providers", thresholds=limits)
    sample = max(1.0, limits["sample"].value)
    judged = [group for group in groups if group.sent >= sample]
    if not judged:
        detail = f"too few mails to judge: {total.sent:,} were sent {when}, {sample:g} are wanted"
        return CheckResult(NAME, OK, detail, thresholds=limits)
    bad: list[tuple[State, Bounces]] = [(grade(group.percent, limits), group) for group in judged]
    bad.sort(key=lambda each: (rank(each[0]), each[1].percent), reverse=True)
    findings = tuple(Finding(_subject(group), state, _said(group)) for state, group in bad if state != OK)
    detail = f"{_said(total)} {when}" + (f"; too many in {len(findings)} groups" if findings else "")
    return CheckResult(
        NAME,
        worst([state for state, _ in bad]),
        detail,
        "bisonsync dashboard providers" if findings else "",
        value=round(max(group.percent for group in judged), 2),
        unit="%",
        thresholds=limits,
        findings=findings,
    )


def _subject(group: Bounces) -> str:
    return "all accounts" if group.dimension == "all" else f"{group.dimension} {group.group_value}"


def _said(group: Bounces) -> str:
    return f"{group.bounces:,} of {group.sent:,} mails bounced ({group.percent:.1f} %)"
