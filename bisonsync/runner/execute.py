"""A command from its first line to its exit code: whatever happens becomes one report."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from bisonsync.errors import ArgumentRefused, BisonsyncError, LeaseBusy, UsageError
from bisonsync.output import unread
from bisonsync.run import Problem, Result
from bisonsync.runner.options import Options
from bisonsync.runner.pings import Pings
from bisonsync.runner.report import Ending, JobEnding
from bisonsync.runner.session import Session, quietly


def execute(
    options: Options,
    job: str,
    body: Callable[[Session], Result],
    *,
    counts: Sequence[str] = (),
    ending: Ending | None = None,
    is_part: bool = False,
) -> NoReturn:
    """Run a command to its end: whatever happens becomes one report and one exit code.

    ``counts`` are those that the report has even when nothing could be done; ``ending`` for a command that has no
    verdict. ``is_part``: the command's own options chose some of the job's work, as -w does.
    """
    ending = ending or JobEnding(counts)
    code = ending.bug_code
    try:
        code = _run(Session(options, job, is_part=is_part), ending, body)
    except Exception:  # of the report itself
        traceback.print_exc()
    finally:
        leave(code)


def leave(code: int) -> NoReturn:
    """End the process at once: tearing the interpreter down would cost as much as importing half of it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def settle(code: int, *, is_asked_for: bool = True) -> int:
    """The exit code once everything printed is written: that of the work, which stays whoever reads.

    Only where printing was all there was to do, is a full disk a failure.
    """
    fault = unread(sys.stdout)
    if fault is None:
        return code
    sys.stderr.write(f"error: the output could not be written: {fault.strerror}\n")
    return code or int(is_asked_for)


def _run(session: Session, ending: Ending, body: Callable[[Session], Result]) -> int:
    _listen_to_signals(session)
    with Pings(session) as pings:
        result, is_refused = _carry_out(session, pings, body)
        result, code, verdict = _close(session, ending, result, is_refused=is_refused)
        ending.print_result(session, result, verdict)
        code = settle(code, is_asked_for=not ending.may_go_unread(session))
        if not is_refused or session.options.heartbeat_url_file:
            pings.code = ending.ping_code(code, result)
    session.close_databases()
    return code


def _listen_to_signals(session: Session) -> None:
    """The first one stops the run, the second ends it with what the server computes for it, a third at once."""
    count = 0

    def on_signal(number: int, _frame: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            session.clock.stop(number)
            return
        try:
            if count == 2:
                session.cancel_statements()
        finally:
            os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _carry_out(session: Session, pings: Pings, body: Callable[[Session], Result]) -> tuple[Result, bool]:
    """Do the work; every error becomes a result. Whether it was refused for its own arguments."""
    try:
        pings.start()
        return body(session), False
    except LeaseBusy as error:
        problem = Problem.of(error)
        problem = replace(problem, exit_code=0) if session.options.skip_if_locked else problem
        return Result({}, workspaces=error.left_out, problems=(problem,)), False
    except BisonsyncError as error:
        return Result({}, problems=(Problem.of(error),)), isinstance(error, ArgumentRefused | UsageError)
    except Exception as error:  # the last line of defence
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        bug = Problem("bug", message, "this is a bug; the traceback is above", exit_code=1)
        return Result({}, problems=(bug,)), False


def _close(session: Session, ending: Ending, result: Result, *, is_refused: bool) -> tuple[Result, int, str]:
    """Close what is open, the ledger last; the result with its exit code and verdict."""
    session.output.end_progress()
    code, verdict = ending.judge(session, result)
    for client in session.clients:
        quietly(client.close)
    session.is_over.set()
    if not session.is_in_ledger:
        return result, code, verdict
    from bisonsync.runner import ledger

    try:
        if is_refused:
            ledger.forget_run(session)
        else:
            status = ending.ledger_status(verdict, result)
            result = ledger.close_run(session, result, status=status, exit_code=code)
    except BisonsyncError as error:
        result = replace(result, problems=(*result.problems, Problem.of(error)))
        code, verdict = ending.judge(session, result)
    return result, code, verdict
