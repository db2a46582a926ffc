"""Which tests CI may leave out: those that need what a machine can lack, by name. Any other skip fails there."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any

import pytest

# What CI tries to install and may not get, and what no machine can have at once.
ALLOWED = (
    "cron is not installed",
    "systemd-analyze is not installed",
    "no pgbouncer here",
    "cron can be started by root alone",
    "only root can become another user",
    "root can read every file",
    "EXPLAIN (GENERIC_PLAN) came with PostgreSQL 16",
    "needs /proc",
    "needs wal_level = logical",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Fail what is skipped in CI for a reason that is not allowed."""
    report = yield
    return _refused(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """The same for a module that is skipped as a whole."""
    report = yield
    return _refused(report)


def _refused(report: Any) -> Any:
    if os.environ.get("CI") == "true" and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = re.sub("^Skipped: ", "", reason)
        if not reason.startswith(ALLOWED):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, for a reason that tests/skips.py does not allow: {reason}"
    return report
