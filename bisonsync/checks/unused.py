"""What the checks of monthly figures say until any are polled."""

from __future__ import annotations

from bisonsync.checks.check import NOT_IN_USE, UNKNOWN, CheckResult, Look
from bisonsync.store import health_webhooks


def without_figures(look: Look, check: str) -> CheckResult:
    """``not in use`` while no monthly figures are polled; UNKNOWN with some, for this version cannot judge them."""
    if look.read(health_webhooks.has_polled_figures):
        detail = "monthly figures are polled, but this version does not look at them"
        return CheckResult(check, UNKNOWN, detail, "look with the version of bisonsync that polls them")
    return CheckResult(check, NOT_IN_USE, "no monthly figures are polled yet")
