"""What is made of a result: exit code, verdict, what the ledger and the watcher are told, what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bisonsync.errors import LeaseBusy
from bisonsync.run import NOTICE, VERDICTS, Problem, Result

if TYPE_CHECKING:
    from bisonsync.runner.session import Session


class Ending(Protocol):
    """How a command ends. ``bug_code``: its exit code when not even its report could be made."""

    bug_code: int

    def judge(self, session: Session, result: Result) -> tuple[int, str]:
        """The exit code and the verdict of a result."""
        ...

    def ledger_status(self, verdict: str, result: Result) -> str:
        """What the ledger says of the run."""
        ...

    def ping_code(self, code: int, result: Result) -> int:
        """What the watcher elsewhere is told of the end."""
        ...

    def print_result(self, session: Session, result: Result, verdict: str) -> None:
        """Print what is due of a result."""
        ...

    def may_go_unread(self, session: Session) -> bool:
        """Whether the command has done its work though nobody could read what it printed."""
        ...


class JobEnding:
    """A verdict and the exit code of it. ``counts``: those that the report has even when nothing could be done."""

    bug_code = 1

    def __init__(self, counts: Sequence[str] = ()) -> None:
        self._zero_counts = dict.fromkeys(counts, 0)

    def judge(self, session: Session, result: Result) -> tuple[int, str]:
        """As the causes decide; leases that are all busy are no failure with --skip-if-locked."""
        code = result.exit_code
        if session.options.skip_if_locked and any(problem.kind == LeaseBusy.kind for problem in result.problems):
            return code, "skipped"
        return code, VERDICTS[code]

    def ledger_status(self, verdict: str, result: Result) -> str:
        """The verdict."""
        return verdict

    def ping_code(self, code: int, result: Result) -> int:
        """The exit code."""
        return code

    def may_go_unread(self, session: Session) -> bool:
        """What the ledger has is done, whoever reads of it."""
        return session.is_in_ledger or not session.output.is_asked_for

    def print_result(self, session: Session, result: Result, verdict: str) -> None:
        """The object of --json, or the line of the result; with -v each workspace; problems on stderr."""
        output, options, milliseconds = session.output, session.options, round(session.elapsed_seconds * 1000)
        problems = result.all_problems
        if output.as_json:
            output.document(
                {
                    "schema_version": 1,
                    "job": session.job,
                    "run_id": str(session.run_id),
                    "verdict": verdict,
                    "started_at": session.started_at,
                    "duration_ms": milliseconds,
                    "counts": {**self._zero_counts, **result.counts},
                    "workspaces": [outcome.as_json() for outcome in result.workspaces],
                    "errors": [problem.as_json() for problem in problems],
                    **({"warnings": list(result.warnings)} if result.warnings else {}),
                    **({"dry_run": True} if options.dry_run else {}),
                    **result.details,
                }
            )
        elif result.summary:
            planned = "dry run, nothing written: " if options.dry_run else ""
            output.result(f"{session.job}: {verdict}: {planned}{result.summary}, {milliseconds / 1000:.1f} s")
        for outcome in result.workspaces:
            counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items() if count)
            output.log(f"{outcome.key} {outcome.name}: {outcome.verdict}{': ' if counts else ''}{counts}")
        if not options.quiet:
            # Nothing that cron would have to mail: health tells what does not pass by itself.
            for warning in result.warnings:
                output.log(warning, level="warning")
        self._print_problems(session, problems)

    def _print_problems(self, session: Session, problems: Sequence[Problem]) -> None:
        for notice in (p for p in problems if p.kind == NOTICE):
            session.output.log(f"{notice.message} → {notice.hint}", level="warning")
        # What another run is doing is no mail from cron.
        told = [p for p in problems if p.exit_code or not (session.options.quiet and p.kind == LeaseBusy.kind)]
        session.output.problems([(p.message, p.hint, p.workspace) for p in told if p.kind != NOTICE])
