"""Which failing check is the cause of which other."""

from __future__ import annotations

from collections.abc import Sequence

from bisonsync.checks.check import CheckResult


def attribute(results: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """The same results, each with its cause where another's failure is one."""
    return tuple(results)
