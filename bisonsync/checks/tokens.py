"""Does every active workspace have a token that works?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, State
from bisonsync.checks.freshness import no_workspace
from bisonsync.checks.wording import named, short, span, worst_first, worst_of
from bisonsync.store import health_data
from bisonsync.store.health_data import TokenState

NAME = "tokens"
LIMITS: Mapping[str, Limit] = {}
_KEYS_SINCE = timedelta(days=1)


def look(look: Look) -> CheckResult:
    """Take what ``workspaces verify`` noted and how the last read ended.

    A workspace without a stored token that was read has one in the settings. One that was neither is UNKNOWN.
    """
    rows = look.read(health_data.list_token_states)
    if not rows:
        return no_workspace(NAME, LIMITS)
    keys = look.read(lambda conn: health_data.list_refused_keys(conn, look.now - _KEYS_SINCE))
    bad: list[Finding] = []
    for row in rows:
        state, detail = _judge(row)
        if state != OK:
            bad.append(Finding(named(row.key, row.name), state, detail, row.key))
    by_workspace = len(bad)
    for key in keys:
        ago = span((look.now - key.started_at).total_seconds())
        bad.append(Finding(key.job, WARNING, f"{ago} ago: {short(key.message)}"))
    found = worst_first(bad)
    return CheckResult(
        NAME,
        worst_of(found, OK),
        f"{by_workspace} of {len(rows)} workspaces; {found[0].subject}: {found[0].detail}"
        if found
        else f"all {len(rows)} workspaces have one that works",
        hint=_hint(found, rows),
        value=by_workspace,
        findings=found,
    )


def _judge(row: TokenState) -> tuple[State, str]:
    if row.has_token and row.status in ("refused", "mismatch"):
        said = "was refused" if row.status == "refused" else "acts in another workspace"
        return CRITICAL, f"its token {said}"
    if row.last_attempt_at is None:
        return (OK, "") if row.has_token else (UNKNOWN, "no token is stored, and it was never read")
    is_renewed = row.renewed_at is not None and row.renewed_at > row.last_attempt_at
    if row.verdict in ("failed", "guarded") and row.error_kind in ("credentials", "guard") and not is_renewed:
        return CRITICAL, short(row.last_error)
    return OK, ""


def _hint(bad: tuple[Finding, ...], rows: list[TokenState]) -> str:
    if not bad:
        return ""
    if bad[0].workspace is None:
        return "put a valid api_key of the instance into the settings, then: bisonsync workspaces discover"
    has_token = next(row.has_token for row in rows if row.key == bad[0].workspace)
    return (
        "bisonsync workspaces verify; bisonsync workspaces mint-tokens"
        if has_token
        else ("bisonsync workspaces mint-tokens")
    )
