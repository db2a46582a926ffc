"""Looks at everything that can go wrong, and says how it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bisonsync.checks import NAMES, find_check
from bisonsync.checks.causes import attribute
from bisonsync.checks.check import UNKNOWN, CheckResult, Look, State, worst
from bisonsync.errors import BisonsyncError, DatabaseUnavailable, DeadlineExceeded, SchemaMismatch, Stopped


def run(look: Look, names: Sequence[str] = (), *, on_bug: Callable[[str], None]) -> tuple[CheckResult, ...]:
    """The named checks, or all, in their usual order, with what is the cause of what.

    A check that cannot look is UNKNOWN; the others go on. ``on_bug`` hears of a check that broke.
    Raises DatabaseUnavailable when nothing can be looked at, DeadlineExceeded, Stopped.
    """
    wanted = [name for name in NAMES if not names or name in names]
    return attribute(tuple(_look(name, look, on_bug) for name in wanted))


def overall(results: Sequence[CheckResult]) -> State:
    """The worst state of all that are in use."""
    return worst([result.state for result in results])


def _look(name: str, look: Look, on_bug: Callable[[str], None]) -> CheckResult:
    try:
        return find_check(name).look(look)
    except (DatabaseUnavailable, DeadlineExceeded, Stopped):
        raise
    except SchemaMismatch as error:
        return CheckResult(name, UNKNOWN, f"cannot look: {error.message}", error.hint, caused_by="schema")
    except BisonsyncError as error:
        return CheckResult(name, UNKNOWN, f"cannot look: {error.message}", error.hint)
    except Exception as error:  # one broken check must not hide the others
        on_bug(name)
        return CheckResult(
            name, UNKNOWN, f"cannot look: {type(error).__name__}: {error}", "this is a bug; the traceback is on stderr"
        )
