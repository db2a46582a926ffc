"""What a health check is given and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from bisonsync.errors import DatabaseError
    from bisonsync.keys import WorkspaceKey
    from bisonsync.store.db import Connection, Database

T = TypeVar("T")

State = Literal["OK", "WARNING", "UNKNOWN", "CRITICAL", "not in use"]
OK: State = "OK"
WARNING: State = "WARNING"
UNKNOWN: State = "UNKNOWN"
CRITICAL: State = "CRITICAL"
NOT_IN_USE: State = "not in use"

# From best to worst; what is not in use does not count.
_ORDER: tuple[State, ...] = (NOT_IN_USE, OK, WARNING, UNKNOWN, CRITICAL)

Unit = Literal["s", "%", "B", ""]


@dataclass(frozen=True, slots=True)
class Limit:
    """One threshold as an operator may set it: seconds (``s``), percent (``%``), bytes (``B``) or a number.

    A value beyond it, not at it, is bad: "more than 10 %".
    """

    value: float
    unit: Unit = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found about one of its subjects: a workspace, a job, a provider, a table.

    ``kinds`` say what is the matter in the words of causes.py, by which it tells the cause: ``job:NAME`` for what
    depends on that job having run, ``error:KIND`` for what an error of that kind brought about, and others.
    """

    subject: str
    state: State
    detail: str
    workspace: WorkspaceKey | None = None
    caused_by: str | None = None
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check stands.

    ``value`` is the figure that decided (in ``unit``), None where there is none. ``thresholds`` are those it was held
    against. ``detail`` says what is the matter in one line, ``hint`` is the next command to type. ``findings`` are its
    subjects that are not OK, the worst first. ``caused_by`` names the check whose failure is the cause of this one.
    """

    name: str
    state: State
    detail: str
    hint: str = ""
    value: float | None = None
    unit: Unit = ""
    thresholds: Mapping[str, Limit] = field(default_factory=dict[str, Limit])
    findings: tuple[Finding, ...] = ()
    caused_by: str | None = None


@dataclass(frozen=True)
class Look:
    """One look at the database: what every check is given.

    ``now`` is the database's time at the begin of the look, unless a test says otherwise; ``host_now`` this host's
    clock at the same moment. ``schedule`` has the interval of each job that is meant to run; ``hooks`` are the
    workspaces whose hook secret stands in the settings, ``receiver_url`` is where deliveries arrive, if that is told.
    ``write_error`` is what became of this run's own first write, if that failed.
    """

    database: Database
    now: datetime
    host_now: datetime
    limits: Mapping[str, Mapping[str, Limit]]
    schedule: Mapping[str, timedelta]
    retention_days: Mapping[str, int] = field(default_factory=dict[str, int])
    reporting_timezone: str = "UTC"
    instances: Mapping[str, str] = field(default_factory=dict[str, str])
    readers: str | Sequence[str] = ()
    heartbeats_expected: bool = False
    hooks: frozenset[WorkspaceKey] = frozenset()
    receiver_url: str = ""
    write_error: DatabaseError | None = None

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` in a transaction of its own. Raises DatabaseError."""
        return self.database.run(work, statement_timeout_seconds=10.0, lock_timeout_seconds=1.0, lock_attempts=1)

    def limit(self, check: str, name: str) -> float:
        """The value of one threshold."""
        return self.limits[check][name].value


def worst(states: Sequence[State]) -> State:
    """The worst of several states: OK < WARNING < UNKNOWN < CRITICAL; ``not in use`` only when nothing else is."""
    return _ORDER[max((rank(state) for state in states), default=0)]


def rank(state: State) -> int:
    """Where a state stands between ``not in use`` and CRITICAL."""
    return _ORDER.index(state)


def grade(value: float, limits: Mapping[str, Limit]) -> State:
    """CRITICAL beyond ``critical``, WARNING beyond ``warning``, else OK; a limit that is not there is not reached."""
    if "critical" in limits and value > limits["critical"].value:
        return CRITICAL
    if "warning" in limits and value > limits["warning"].value:
        return WARNING
    return OK
