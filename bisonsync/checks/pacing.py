"""Will each client's monthly target be met?"""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import CheckResult, Limit, Look
from bisonsync.checks.unused import without_figures

LIMITS: Mapping[str, Limit] = {}


def look(look: Look) -> CheckResult:
    """Not in use while the platform's figures are not polled."""
    return without_figures(look, "pacing")
