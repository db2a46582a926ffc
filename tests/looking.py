"""One health check on a database of a test's own, at a time that the test sets."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bisonsync.checks import find_check
from bisonsync.checks.check import CheckResult, Finding, Look
from bisonsync.clock import SystemClock
from bisonsync.settings.models import SCHEDULE
from bisonsync.store.db import Database

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@contextmanager
def looking(
    dsn: str,
    *checks: str,
    now: datetime = NOW,
    limits: Mapping[str, Mapping[str, float]] | None = None,
    schedule: Mapping[str, timedelta] = SCHEDULE,
    **fields: Any,
) -> Generator[Look]:
    """What these checks are given, with their default limits but for ``limits`` ({check: {name: value}}).

    This host's clock agrees with the database's unless ``host_now`` is given; ``fields`` are those of Look.
    """
    database = Database(dsn, application_name="bisonsync tests", clock=SystemClock(), max_connections=1)
    made = {check: dict(find_check(check).LIMITS) for check in checks}
    for check, values in (limits or {}).items():
        made[check] |= {name: replace(made[check][name], value=value) for name, value in values.items()}
    try:
        yield Look(database=database, now=now, limits=made, schedule=schedule, **{"host_now": now, **fields})
    finally:
        database.close()


def examine(
    dsn: str, check: str, *, now: datetime = NOW, limits: Mapping[str, float] | None = None, **fields: Any
) -> CheckResult:
    """Look once, by one check alone."""
    with looking(dsn, check, now=now, limits={check: limits or {}}, **fields) as look:
        return find_check(check).look(look)


def finding(result: CheckResult, subject: str) -> Finding:
    """The only finding whose subject begins so."""
    (found,) = [each for each in result.findings if each.subject.startswith(subject)]
    return found
