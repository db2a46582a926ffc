"""Is all well? health."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bisonsync.cli.options import Command, single
from bisonsync.keys import WorkspaceKey
from bisonsync.runner import Options, Session, execute
from bisonsync.runner.report import JobEnding

if TYPE_CHECKING:
    from bisonsync.checks.check import CheckResult, Look, State
    from bisonsync.errors import DatabaseError
    from bisonsync.output import Output
    from bisonsync.run import Problem, Result
    from bisonsync.store.alert_file import AlertFile

JOB = "health"
_FINDINGS_SHOWN = 5
_LAST_WORDS_SECONDS = 10.0
_EXIT_CODES = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3, "not in use": 3}


class HealthCommand(Command):
    """As the monitoring plugins have it: a wrong command line is UNKNOWN."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _usage_is_unknown():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _usage_is_unknown():
            return super().invoke(ctx)


@contextmanager
def _usage_is_unknown() -> Generator[None]:
    try:
        yield
    except Exception as error:
        # The class of these errors lies elsewhere in each version of typer.
        if getattr(error, "exit_code", None) == 2:
            error.__dict__["exit_code"] = _EXIT_CODES["UNKNOWN"]
        raise


def _health(
    options: Options,
    checks: Annotated[
        list[str] | None, typer.Argument(metavar="[CHECK]...", show_default=False, help="Only these checks.")
    ] = None,
    alert: Annotated[
        bool, typer.Option("--alert", help="Send messages: keeps book of what is wrong since when.")
    ] = False,
    nagios: Annotated[bool, typer.Option("--nagios", help="One line as monitoring plugins print it.")] = False,
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="CHECK.NAME=VALUE", help="A threshold of this look; may be repeated."),
    ] = None,
) -> None:
    """Look at everything that can go wrong; OK only when it was seen to be.

    Exit code 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. What is not set up does not
    count. Sends nothing unless --alert is given.

    \b
    Example:
      bisonsync health
      bisonsync health freshness tokens --threshold freshness.warning=7m
      bisonsync health --nagios
      bisonsync health --alert -q
    """
    from bisonsync.checks import NAMES

    unknown = [name for name in checks or () if name not in NAMES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(NAMES)}", param_hint="CHECK")
    if nagios and options.as_json:
        raise typer.BadParameter("cannot be given together with --json", param_hint="--nagios")
    if options.workspaces or options.instances:
        raise typer.BadParameter("a look is at all workspaces and instances", param_hint="-w, --instance")
    _execute(options, checks or [], threshold or [], alert=alert, nagios=nagios)


def _execute(
    options: Options, names: Sequence[str], thresholds: Sequence[str], *, alert: bool, nagios: bool
) -> NoReturn:
    from bisonsync.checks.limits import split_flag

    flags: dict[str, dict[str, str]] = {}
    for text in thresholds:
        try:
            check, name, value = split_flag(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r}: {error}", param_hint="--threshold") from None
        flags.setdefault(check, {})[name] = value
    ending = HealthEnding(is_alerting=alert, as_nagios=nagios)
    execute(options, JOB, lambda session: look(session, ending, names, flags), ending=ending)


class HealthEnding(JobEnding):
    """Ends with a state and a plugin's exit code instead of a verdict."""

    bug_code = _EXIT_CODES["UNKNOWN"]

    def __init__(self, *, is_alerting: bool, as_nagios: bool) -> None:
        super().__init__()
        self.is_alerting = is_alerting
        self.as_nagios = as_nagios
        self.state: State = "UNKNOWN"
        self.checks: tuple[CheckResult, ...] = ()

    def judge(self, session: Session, result: Result) -> tuple[int, str]:
        """What could not be looked at is UNKNOWN, whatever the reason; what was seen to be CRITICAL stays so."""
        if any(problem.exit_code for problem in result.problems) and self.state != "CRITICAL":
            self.state = "UNKNOWN"
        return _EXIT_CODES[self.state], "UNKNOWN" if self.state == "not in use" else self.state

    def may_go_unread(self, session: Session) -> bool:
        """What was seen stands in the exit code, whoever reads of it."""
        return True

    def ledger_status(self, verdict: str, result: Result) -> str:
        """The job is done when it has looked, whatever it saw."""
        return "failed" if any(problem.exit_code for problem in result.problems) else "success"

    def ping_code(self, code: int, result: Result) -> int:
        """The watcher waits for silence; what was seen is told by the alerts."""
        return code if any(problem.exit_code for problem in result.problems) else 0

    def print_result(self, session: Session, result: Result, verdict: str) -> None:
        """The object of --json, the line of --nagios, or the table."""
        output, problems = session.output, result.all_problems
        if output.as_json:
            # Programs rely on the list, also when what came after the look has failed.
            checks = {"checks": [check_json(check) for check in self.checks]}
            super().print_result(session, replace(result, details=checks), verdict)
        elif self.as_nagios:
            from bisonsync.checks.nagios import status_line

            hindered = [problem.message for problem in problems if problem.exit_code]
            reason = hindered[0] if hindered and self.state == "UNKNOWN" else ""
            output.text(status_line(self.state, self.checks, reason))
        else:
            if not output.quiet and self.checks:
                _print_table(output, self.state, self.checks)
            elif self.checks and not (self.is_alerting and session.settings.alerts.slack_webhook_url):
                # Cron mails it, where no message of Slack tells it.
                told = [check for check in self.checks if check.state not in ("OK", "not in use")]
                output.problems([(f"{check.name} {check.state}: {_sum_up(check)}", check.hint, None) for check in told])
            output.problems([(problem.message, problem.hint, problem.workspace) for problem in problems])


def look(session: Session, ending: HealthEnding, names: Sequence[str], flags: dict[str, dict[str, str]]) -> Result:
    """Look, and keep book of it where messages are sent."""
    from bisonsync.errors import DatabaseError
    from bisonsync.run import Problem, Result

    session.wait_for_jitter()
    is_alerting = ending.is_alerting and not session.options.dry_run
    try:
        given, results = _look(session, ending, names, flags, is_alerting=is_alerting)
    except DatabaseError as error:
        if not is_alerting:
            raise
        from bisonsync.checks.writes import unreachable

        sent, told = _alert_without_book(session, (unreachable(error),), can_read=False)
        return Result(sent, problems=(Problem.of(error), *told))
    counts = {
        "ok": sum(result.state == "OK" for result in results),
        "warning": sum(result.state == "WARNING" for result in results),
        "critical": sum(result.state == "CRITICAL" for result in results),
        "unknown": sum(result.state == "UNKNOWN" for result in results),
        "not_in_use": sum(result.state == "not in use" for result in results),
    }
    told = ()
    if is_alerting:
        sent, told = _alert(session, given, results)
        counts |= sent
    return Result(counts, problems=told)


def _look(
    session: Session, ending: HealthEnding, names: Sequence[str], flags: dict[str, dict[str, str]], *, is_alerting: bool
) -> tuple[Look, tuple[CheckResult, ...]]:
    from bisonsync.jobs import health as job

    write_error = _open_ledger(session) if is_alerting else None
    given = _make_look(session, flags, write_error)
    results = job.run(given, names, on_bug=lambda _: traceback.print_exc())
    ending.state = job.overall(results)
    ending.checks = results
    return given, results


def _open_ledger(session: Session) -> DatabaseError | None:
    """Open the ledger row; why there is none. A database that no job can use is what the look is to tell of."""
    from bisonsync.errors import DatabaseError, DatabaseUnavailable, SchemaMismatch
    from bisonsync.runner import ledger

    try:
        ledger.open_run(session)
    except DatabaseUnavailable:
        raise
    except SchemaMismatch:
        session.output.log("no ledger row: see the check schema")
    except DatabaseError as error:
        session.output.log("no ledger row: see the check database")
        return error
    return None


def _alert(
    session: Session, look: Look, results: tuple[CheckResult, ...]
) -> tuple[dict[str, int], tuple[Problem, ...]]:
    """Keep book of what is wrong, and send what is due. What cannot be sent fails nothing: it is kept."""
    from bisonsync.checks.writes import is_refusal, refused, unreachable
    from bisonsync.cli.alerts import alert_policy, slack_sender
    from bisonsync.errors import DatabaseError, DatabaseUnavailable, SchemaMismatch
    from bisonsync.jobs import alerts as job
    from bisonsync.jobs.alerts.delivery import deliver
    from bisonsync.run import Problem

    policy = alert_policy(session.settings.alerts)
    file = _alert_file(session)
    remembered = [one.episode for one in file.load(session.clock.now())]
    give_up_at = float("inf") if session.bookkeeping.deadline is None else session.bookkeeping.deadline
    try:
        seen = session.bookkeeping.run(
            lambda conn: job.observe(conn, results, now=look.now, policy=policy, remembered=remembered)
        )
        if remembered:
            file.forget([result.name for result in results], session.clock.now())
        sender = slack_sender(session)
        report = deliver(session.bookkeeping, sender, now=look.now, clock=session.clock, give_up_at=give_up_at)
    except DatabaseError as error:
        can_read = not isinstance(error, DatabaseUnavailable)
        if not isinstance(error, SchemaMismatch) and not any(is_refusal(result) for result in results):
            others = tuple(result for result in results if result.name != "database")
            results = (*others, refused(error) if can_read else unreachable(error))
        sent, told = _alert_without_book(session, results, can_read=can_read)
        problem = Problem.of(error)
        return sent, (replace(problem, message=f"the book of alarms cannot be kept: {problem.message}"), *told)
    sent = {"messages_sent": report.sent, "messages_failed": report.failed, "messages_waiting": report.waiting}
    return sent, (*seen.problems, *report.problems)


def _alert_without_book(
    session: Session, results: tuple[CheckResult, ...], *, can_read: bool
) -> tuple[dict[str, int], tuple[Problem, ...]]:
    """Send what is due though the database does not take it into the book."""
    from bisonsync.cli.alerts import alert_policy, slack_sender
    from bisonsync.jobs.alerts import without_book as job
    from bisonsync.store.leases import host_name

    file = _alert_file(session)
    deadline = float("inf") if session.bookkeeping.deadline is None else session.bookkeeping.deadline
    report = job.tell(
        results,
        job.read_book(session.bookkeeping, results) if can_read else job.Book(),
        file,
        slack_sender(session),
        alert_policy(session.settings.alerts),
        host=host_name(),
        clock=session.clock,
        # What found out too late that there is no database is told all the same.
        give_up_at=max(deadline, session.clock.monotonic() + _LAST_WORDS_SECONDS),
    )
    for fault in file.faults:
        session.output.log(fault, level="warning")
    sent = {"messages_sent": report.sent, "messages_failed": report.failed, "messages_waiting": report.waiting}
    return sent, report.problems


def _alert_file(session: Session) -> AlertFile:
    """Where this host remembers what it told while no book was kept."""
    import os

    from bisonsync.store.alert_file import AlertFile, file_name, state_folders

    return AlertFile(state_folders(os.environ), file_name(session.sources.database_url(), os.environ))


def _make_look(session: Session, flags: dict[str, dict[str, str]], write_error: DatabaseError | None) -> Look:
    from bisonsync.checks.check import Look
    from bisonsync.checks.limits import merge_limits
    from bisonsync.store import health, migrations

    settings = session.settings
    limits = merge_limits(settings.alerts.thresholds, flags)
    session.bookkeeping.run(migrations.require_sight)
    host_before = session.clock.now()
    now = session.bookkeeping.run(health.read_now)
    host_after = session.clock.now()
    return Look(
        database=session.bookkeeping,
        now=now,
        host_now=host_before + (host_after - host_before) / 2,
        limits=limits,
        schedule=settings.intervals,
        retention_days=settings.retention_days,
        reporting_timezone=settings.reporting_timezone,
        instances={name: instance.base_url for name, instance in settings.instances.items()},
        readers=session.access_readers,
        heartbeats_expected=bool(settings.heartbeats),
        hooks=frozenset(WorkspaceKey.parse(name) for name in settings.webhooks.secrets),
        receiver_url=settings.webhooks.public_url or "",
        write_error=write_error,
    )


def check_json(result: CheckResult) -> dict[str, Any]:
    """One entry of ``checks``."""
    return {
        "name": result.name,
        "state": result.state,
        "value": result.value,
        "unit": result.unit,
        "thresholds": {name: limit.value for name, limit in result.thresholds.items()},
        "detail": result.detail,
        "hint": result.hint,
        "caused_by": result.caused_by,
        "findings": [
            {
                "subject": finding.subject,
                "state": finding.state,
                "detail": finding.detail,
                "caused_by": finding.caused_by,
            }
            for finding in result.findings
        ],
    }


def _print_table(output: Output, state: State, results: Sequence[CheckResult]) -> None:
    """Every check a line; of those that are not OK what was found and what to do."""
    if output.on_terminal:
        rows = [[result.name, result.state, _seen(result)] for result in results]
        output.table(["check", "state", "what was seen"], rows)
        output.text("")
    else:
        columns = ["check", "state", "value", "detail", "hint", "caused_by"]
        output.table(columns, [_cells(result) for result in results])
    states = [result.state for result in results]
    seen = [f"{states.count(one)} {one}" for one in ("CRITICAL", "UNKNOWN", "WARNING", "OK", "not in use")]
    output.text(f"health: {state}: {', '.join(text for text in seen if not text.startswith('0 '))}")


def _cells(result: CheckResult) -> list[str]:
    value = "" if result.value is None else f"{result.value:g}{result.unit}"
    hint = "" if result.state in ("OK", "not in use") else result.hint
    return [result.name, result.state, value, result.detail, hint, result.caused_by or ""]


def _sum_up(result: CheckResult) -> str:
    """The detail on one line, whatever names are in it, and which check is the cause."""
    return " ".join(result.detail.split()) + (f" (because of {result.caused_by})" if result.caused_by else "")


def _seen(result: CheckResult) -> str:
    """What a person reads of one check."""
    lines = [_sum_up(result)]
    if result.state in ("OK", "not in use"):
        return lines[0]
    # Often the first line has told of the worst already.
    told = [
        finding.detail == result.detail or (finding.subject in result.detail and finding.detail in result.detail)
        for finding in result.findings
    ]
    more = [finding for finding, is_told in zip(result.findings, told, strict=True) if not is_told]
    lines += [" ".join(f"· {finding.subject}: {finding.detail}".split()) for finding in more[:_FINDINGS_SHOWN]]
    if len(more) > _FINDINGS_SHOWN:
        lines.append(f"· and {len(more) - _FINDINGS_SHOWN} more")
    if result.hint:
        lines.append(f"→ {result.hint}")
    return "\n".join(lines)


health = single("health", _health, command=HealthCommand)
