"""What the checks of webhooks and monthly figures say until there are any."""

from __future__ import annotations

from bisonsync.checks.check import NOT_IN_USE, UNKNOWN, CheckResult, Look
from bisonsync.store import health_data


def without(look: Look, check: str, table: str, what: str) -> CheckResult:
    """``not in use`` while there is no such table; UNKNOWN beside one, for this version cannot judge what it holds."""
    if look.read(lambda conn: health_data.has_table(conn, table)):
        return CheckResult(check, UNKNOWN, f"table {table} is there, but this version does not look at {what}")
    return CheckResult(check, NOT_IN_USE, f"no {what} yet")
