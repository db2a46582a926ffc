"""Do webhooks come where they should come now?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    worst,
)
from bisonsync.checks.clock import TOLERANCE_SECONDS
from bisonsync.checks.wording import named, span, worst_first
from bisonsync.store import health_webhooks
from bisonsync.store.health_webhooks import Silence, Traffic

NAME = "webhook-silence"
# ``enough``: so many deliveries make a time at which some are expected; fewer may fail to come by chance.
LIMITS: Mapping[str, Limit] = {"warning": Limit(600, "s"), "critical": Limit(3600, "s"), "enough": Limit(10)}
# Out of four weeks one may have been a holiday or an outage; a log that is younger has its working days compared.
_BUSY_WEEKS = 3
_BUSY_WORKDAYS = 3
# A new subscription has so long to deliver something, be it a test.
_TRIAL = timedelta(days=1)
# To whom webhooks came so lately without a secret of ours, they come by a function of the operator's.
_SERVED = timedelta(days=1)

_Limits = Mapping[str, Limit]


@dataclass(frozen=True, slots=True)
class _Silent:
    """A workspace that should receive webhooks now and does not."""

    row: Traffic
    seconds: float
    usual: Silence


def look(look: Look) -> CheckResult:
    """Tell a silence that is unusual for a workspace from nights, weekends and clients who send nothing.

    It is unusual when at least ``enough`` deliveries came in most of the comparable times of the workspace's own past
    (days may end half an hour earlier than others), unless its accounts, read since, have neither sent nor received
    anything. Tests are no traffic, nor is what we fetched. WARNING where there are webhooks of ours, and none of this
    workspace. UNKNOWN where a secret is a day old and not even a test has come, where nothing has come anywhere, and
    when the last delivery lies in the future. Not in use without public_url, secret and deliveries.
    """
    limits = look.limits[NAME]
    rows = look.read(lambda conn: health_webhooks.list_traffic(conn, look.now))
    bare = _without_secret(look, rows)
    if not bare and not any(row.last_at or _has_secret(look, row) for row in rows):
        detail = "no active workspace has a webhook of ours, and none has ever come"
        return CheckResult(NAME, NOT_IN_USE, detail, thresholds=limits)
    if not any(row.last_at or row.is_tested for row in rows) and any(_has_secret(look, row) for row in rows):
        detail = "no webhook has ever come"
        findings = (Finding("webhooks", UNKNOWN, detail), *bare)
        return CheckResult(NAME, UNKNOWN, detail, "bisonsync webhooks test", thresholds=limits, findings=findings)
    return _sum_up(look, limits, rows, _find_silent(look, limits, rows), bare)


def _has_secret(look: Look, row: Traffic) -> bool:
    return row.secret_since is not None or row.key in look.hooks


def _without_secret(look: Look, rows: Sequence[Traffic]) -> list[Finding]:
    """The workspaces that have no webhook of ours though others have or the settings want one, and no other door."""
    if not look.receiver_url and not any(_has_secret(look, row) for row in rows):
        return []
    return [
        Finding(
            named(row.key, row.name), WARNING, "it has no hook secret: no webhook comes", row.key, kinds=("no_secret",)
        )
        for row in rows
        if not _has_secret(look, row) and (row.last_at is None or look.now - row.last_at > _SERVED)
    ]


def _find_silent(look: Look, limits: _Limits, rows: Sequence[Traffic]) -> list[_Silent]:
    """The unusual silences."""
    late = limits["warning"].value
    quiet = [row for row in rows if row.last_at and (look.now - row.last_at).total_seconds() > late]
    enough = max(1, round(limits["enough"].value))
    usual = look.read(
        lambda conn: health_webhooks.list_silences(
            conn, quiet, look.now, look.reporting_timezone, late_seconds=late, enough=enough
        )
    )
    by_key = {each.key: each for each in usual}
    return [
        _Silent(row, (look.now - row.last_at).total_seconds(), by_key[row.key])
        for row in quiet
        if row.last_at
        and _is_awaited(by_key[row.key])
        and not _is_idle(look, row.last_at + timedelta(seconds=late), by_key[row.key])
    ]


def _is_awaited(usual: Silence) -> bool:
    if usual.weeks_known >= _BUSY_WEEKS:
        return usual.weeks_busy >= _BUSY_WEEKS
    return usual.workdays_busy >= max(_BUSY_WORKDAYS, usual.workdays_known - 1)


def _is_idle(look: Look, told_at: datetime, usual: Silence) -> bool:
    """Whether the mirror proves that there was nothing to tell: its accounts were read since, and none has moved."""
    read_at, changed_at = usual.accounts_read_at, usual.accounts_changed_at
    if read_at is None or changed_at is None:
        return False
    interval = timedelta(seconds=usual.accounts_interval_seconds)
    # What the last deliveries were about shows in the read after them.
    settled_at = told_at + interval
    if read_at <= settled_at or look.now - read_at > 5 * interval:
        return False
    return usual.is_unmoved or changed_at <= settled_at


def _sum_up(
    look: Look, limits: _Limits, rows: Sequence[Traffic], silent: Sequence[_Silent], bare: Sequence[Finding]
) -> CheckResult:
    late = timedelta(seconds=limits["warning"].value)
    receiving = [row for row in rows if row.last_at is not None and look.now - row.last_at <= late]
    is_everything = len(silent) > 1 and not receiving
    findings = _untold(look, rows)
    for each in silent:
        state: State = CRITICAL if is_everything else grade(each.seconds, limits)
        detail = f"nothing for {span(each.seconds)}, {_habit(each.usual, limits)}; {_others(each, silent, receiving)}"
        key = each.row.key
        findings.append(Finding(named(key, each.row.name), state, detail, key, kinds=("silent",)))
    told = {finding.workspace for finding in findings}
    bad = worst_first([*findings, *(finding for finding in bare if finding.workspace not in told)])
    return CheckResult(
        NAME,
        worst([OK, *(finding.state for finding in bad)]),
        _detail(look, rows, bad, bare, is_everything=is_everything),
        hint=_hint(look, rows, bad, is_everything=is_everything),
        value=round(max((each.seconds for each in silent), default=0.0)),
        unit="s",
        thresholds=limits,
        findings=bad,
    )


def _untold(look: Look, rows: Sequence[Traffic]) -> list[Finding]:
    """The workspaces of which nothing can be said."""
    found: list[Finding] = []
    for row in rows:
        subject = named(row.key, row.name)
        ahead = 0.0 if row.last_at is None else (row.last_at - look.now).total_seconds()
        if ahead > TOLERANCE_SECONDS:
            detail = f"the last webhook came {span(ahead)} in the future: a clock is wrong"
            found.append(Finding(subject, UNKNOWN, detail, row.key, kinds=("clock",)))
        elif row.last_at is None and not row.is_tested and _is_tried(look, row):
            found.append(Finding(subject, UNKNOWN, "it has a secret, and not even a test has come", row.key))
    return found


def _is_tried(look: Look, row: Traffic) -> bool:
    if row.secret_since is not None:
        return look.now - row.secret_since > _TRIAL
    return row.key in look.hooks


def _habit(usual: Silence, limits: _Limits) -> str:
    busy, known, times = usual.weeks_busy, usual.weeks_known, "weeks"
    if usual.weeks_known < _BUSY_WEEKS:
        busy, known, times = usual.workdays_busy, usual.workdays_known, "working days"
    return f"where {limits['enough'].value:g} or more had come by then in {busy} of {known} {times} before"


def _others(each: _Silent, silent: Sequence[_Silent], receiving: Sequence[Traffic]) -> str:
    instance = each.row.bison_instance
    same = sum(row.bison_instance == instance for row in receiving)
    if same:
        return f"{same} more of {instance} {'receives' if same == 1 else 'receive'}"
    if receiving:
        return f"nothing comes from {instance}, but from other instances"
    return "nothing comes from anywhere" if len(silent) > 1 else "no other workspace should receive any now"


def _detail(
    look: Look, rows: Sequence[Traffic], bad: Sequence[Finding], bare: Sequence[Finding], *, is_everything: bool
) -> str:
    last_ats = [row.last_at for row in rows if row.last_at is not None]
    new = sum(row.last_at is None and _has_secret(look, row) for row in rows)
    watched = len(last_ats) + new
    never = sum(row.last_at is None and not _has_secret(look, row) for row in rows) if bare else 0
    more = f"; {new} of {watched} with a secret have had none yet" if new else ""
    if is_everything:
        return f"every workspace that should receive webhooks now is silent: {bad[0].subject}: {bad[0].detail}{more}"
    if bad:
        return f"{len(bad)} of {watched + never} workspaces: {bad[0].subject}: {bad[0].detail}{more}"
    last = f", the last webhook came {span((look.now - max(last_ats)).total_seconds())} ago" if last_ats else ""
    return f"none of {watched} workspaces is silent against its habit{last}{more}"


def _hint(look: Look, rows: Sequence[Traffic], bad: Sequence[Finding], *, is_everything: bool) -> str:
    if not bad:
        return ""
    row = next(row for row in rows if row.key == bad[0].workspace)
    if "clock" in bad[0].kinds:
        return "bisonsync health clock"
    if "no_secret" in bad[0].kinds:
        return "bisonsync webhooks ensure"
    if "silent" not in bad[0].kinds:
        return f"bisonsync webhooks test -w {row.key}"
    if is_everything and any(_has_secret(look, each) for each in rows):
        return f"curl -fsS {look.receiver_url or 'http://127.0.0.1:8080'}/healthz; bisonsync webhooks verify"
    # Without a secret of ours they came by a function of the operator's.
    return f"bisonsync webhooks {'verify' if _has_secret(look, row) else 'list'} -w {row.key}"
