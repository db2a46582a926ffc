"""What every command shares: settings, connection, leases, ledger, report and exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from bisonsync import __version__
from bisonsync.clock import SystemClock
from bisonsync.errors import (
    ArgumentRefused,
    BisonsyncError,
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
    LeaseBusy,
    Stopped,
    UsageError,
)
from bisonsync.keys import WorkspaceKey
from bisonsync.output import Output, unread
from bisonsync.run import (
    NOTICE,
    STOP_GRACE_SECONDS,
    VERDICTS,
    InstanceAccess,
    Problem,
    Result,
    Run,
    SetupRun,
    WorkspaceOutcome,
    WorkspacesRun,
)
from bisonsync.runner.access import access_of
from bisonsync.runner.options import Options
from bisonsync.runner.selection import choose

if TYPE_CHECKING:
    from bisonsync.api.client import InstanceClient
    from bisonsync.api.heartbeat import Heartbeat
    from bisonsync.settings import Sources
    from bisonsync.settings.models import Instance, Settings
    from bisonsync.store.db import Connection, Database
    from bisonsync.store.leases import Holder, Lease
    from bisonsync.store.registry import WorkspaceRow
    from bisonsync.store.tokens import TokenRow

DEFAULT_LEASE_TTL_SECONDS = 60.0
HEARTBEATS_PER_TTL = 4
# A block serves all lanes of an instance for a round or two; the rest of the budget stays for other processes.
BUDGET_BLOCK_PER_LANE = 3
LOCK_POLL_SECONDS = 0.5
LOOK_SECONDS = 0.2
MAX_HOLDERS_NAMED = 3
# Stands for the job itself where it works on no workspace.
NO_WORKSPACE = WorkspaceKey("", 0)
# How long the end of a run waits for a database that is gone.
LEDGER_PATIENCE_SECONDS = 45.0
LEDGER_HASTE_SECONDS = 3.0


# The workspaces that -w and --instance mean, of those that are registered.
Pick = Callable[["Sequence[WorkspaceRow]", Sequence[str], Sequence[str]], "list[WorkspaceRow]"]


def execute(
    options: Options,
    job: str,
    body: Callable[[Session], Result],
    *,
    counts: Sequence[str] = (),
    is_part: bool = False,
) -> NoReturn:
    """Run a command to its end: whatever happens becomes one report and one exit code.

    ``counts`` are those that the report has even when nothing could be done. ``is_part``: the command's own options
    chose some of the job's work, as -w does.
    """
    session = Session(options, job, counts, is_part=is_part)
    result = session.carry_out(body)
    code = session.report(result)
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


class Session:
    """One command: gives what it needs when it needs it, and nothing earlier."""

    def __init__(self, options: Options, job: str, counts: Sequence[str] = (), *, is_part: bool = False) -> None:
        self.options = options
        self._is_part = is_part
        self._zero_counts = dict.fromkeys(counts, 0)
        self.job = job
        self.run_id = uuid4()
        self.clock = SystemClock()
        self.output = Output(
            as_json=options.as_json,
            quiet=options.quiet,
            verbose=options.verbose,
            log_json=options.log_json,
            color=not (options.no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"),
        )
        self._began = time.monotonic()
        self._started_at = self.clock.now()
        self._databases: list[Database] = []
        self._clients: list[InstanceClient] = []
        self._ledger_open = False
        self._is_refused = False
        self._heart: threading.Event | None = None
        self._heartbeat: Heartbeat | None = None
        self._give_up_at = float("inf")
        self._signals = 0
        self._left_out: tuple[WorkspaceOutcome, ...] = ()

    # What a command may ask for

    @cached_property
    def sources(self) -> Sources:
        """What was given as settings, not yet checked."""
        from bisonsync import settings

        overrides = {"database_url": self.options.database_url} if self.options.database_url else {}
        return settings.locate(self.options.config, environ=os.environ, overrides=overrides)

    @cached_property
    def settings(self) -> Settings:
        """The checked settings. Raises ConfigError with every problem."""
        from bisonsync import settings

        return settings.load(self.sources)

    @property
    def access_readers(self) -> str | list[str]:
        """Who may read besides the owner; checks all settings only where something is said about it."""
        said = any(key[0] == "access" for key in self.sources.entries)
        return self.settings.access.readers if said else []

    @cached_property
    def dsn(self) -> str:
        """The database's address; starts the embedded server when that is the database."""
        url = self.sources.database_url()
        if url == "embedded":
            from bisonsync import embedded

            return embedded.start()
        return url

    @cached_property
    def db(self) -> Database:
        """For the work itself."""
        return self._ending(self._database(max_connections=4))

    @cached_property
    def bookkeeping(self) -> Database:
        """For leases, ledger and budget: never waits behind the work."""
        return self._ending(self._database(max_connections=2))

    def _ending(self, database: Database) -> Database:
        """A database whose waits end with the --deadline that was given; jobs set the one of the settings as well."""
        seconds = self.options.deadline_seconds
        database.deadline = None if seconds is None else self._began + seconds
        database.ends_by_deadline = True
        return database

    def client(self, name: str, instance: Instance, *, deadline: float) -> InstanceClient:
        """The conversation with one instance."""
        from bisonsync.api.budget import Grant, RateBudget
        from bisonsync.api.client import InstanceClient
        from bisonsync.api.http import Http
        from bisonsync.store import budgets

        polling = self.settings.polling
        locked_out: list[DatabaseError] = []

        def take(wanted: int) -> Grant:
            rate = instance.requests_per_minute
            # Every request asks: they must not wait for the same lock one after another.
            if locked_out:
                raise locked_out[0]
            try:
                taken = self.bookkeeping.run(
                    lambda conn: budgets.take(conn, name, wanted=wanted, requests_per_minute=rate)
                )
            except DatabaseUnavailable:
                raise
            except DatabaseError as error:
                locked_out.append(error)
                raise
            return Grant(taken.tokens, taken.wait_seconds, taken.is_blocked)

        budget = RateBudget(
            take,
            lambda tokens: self.bookkeeping.run(lambda conn: budgets.give_back(conn, name, tokens)),
            lambda seconds: self.bookkeeping.run(lambda conn: budgets.block(conn, name, seconds)),
            clock=self.clock,
            block_size=min(BUDGET_BLOCK_PER_LANE * instance.concurrency, instance.requests_per_minute),
        )
        http = Http(
            instance.base_url,
            user_agent=f"bisonsync/{__version__}",
            connect_timeout_seconds=polling.connect_timeout.total_seconds(),
            read_timeout_seconds=polling.read_timeout.total_seconds(),
            monotonic=self.clock.monotonic,
        )
        client = InstanceClient(
            name,
            http,
            budget,
            clock=self.clock,
            deadline=deadline,
            attempts=polling.retry_attempts,
            failures_before_giving_up=polling.failures_before_giving_up,
        )
        self._clients.append(client)
        return client

    def deadline(self) -> float:
        """The monotonic instant at which the run has to end."""
        seconds = self.options.deadline_seconds
        return self._began + (self.settings.polling.deadline.total_seconds() if seconds is None else seconds)

    def _start_deadline(self) -> float:
        """The deadline, which from now on ends waits for the database as well."""
        self._give_up_at = self.deadline()
        for database in (self.db, self.bookkeeping):
            database.deadline = self._give_up_at
        return self._give_up_at

    @property
    def covers(self) -> list[str] | None:
        """The instances whose share of the job this run does whole; None: all there are; empty: chosen parts alone."""
        if self._is_part or self.options.workspaces:
            return []
        return sorted({name.lower() for name in self.options.instances}) or None

    def require_schema(self) -> None:
        """Raises SchemaMismatch unless the database is migrated to what this version expects."""
        from bisonsync.store import migrations

        self.bookkeeping.run(migrations.require_schema)

    def write_webhook_settings(self, conn: Connection) -> None:
        """Hand what the rules for deliveries need of the settings to the database, where a function applies them."""
        from bisonsync.store import webhooks

        settings = self.settings
        webhooks.write_settings(
            conn,
            timezone=settings.reporting_timezone,
            store_bodies=settings.webhooks.store_bodies,
            base_urls={name: instance.base_url for name, instance in settings.instances.items()},
            former_urls={name: instance.former_urls for name, instance in settings.instances.items()},
        )

    def open_ledger(self) -> None:
        """Open the ledger row of this run, and close the rows of runs whose process is gone."""
        from bisonsync.store import migrations, runs

        def work(conn: Any) -> None:
            migrations.require_schema(conn)
            runs.close_lost_runs(conn, ttl_seconds=self._lease_ttl_seconds)
            command = _command_line(sys.argv[1:])
            runs.open_run(conn, self.run_id, self.job, command=command, version=__version__, covers=self.covers)

        self.bookkeeping.run(work)
        self._ledger_open = True

    def over_workspaces(
        self,
        body: Callable[[WorkspacesRun], Result],
        *,
        pick: Pick | None = None,
        leased: bool = True,
        in_ledger: bool = True,
    ) -> Result:
        """Run ``body`` over the chosen workspaces, under leases and with a ledger row (neither in a dry run).

        ``pick`` chooses by -w and --instance, else those that are active. What writes nothing of a workspace needs no
        lease; what only looks needs no ledger row.
        """
        from bisonsync.store import registry

        self.wait_for_jitter()
        if self.options.dry_run or not in_ledger:
            self.require_schema()
        else:
            self.open_ledger()
        rows = (pick or choose)(
            self.bookkeeping.run(registry.list_workspaces), self.options.workspaces, self.options.instances
        )
        held: Mapping[WorkspaceKey, Lease] = {}
        if leased and not self.options.dry_run:
            held = self._take_leases(rows)
            rows = [row for row in rows if row.key in held]
        return self._with_left_out(body(self._run(rows, held)))

    def alone(self, body: Callable[[Run], Result]) -> Result:
        """Run ``body`` as the only run of this job on any host, with a ledger row (neither in a dry run).

        Its one lease is of no workspace. Raises LeaseBusy when another run has it.
        """
        self.wait_for_jitter()
        if self.options.dry_run:
            self.require_schema()
        else:
            self.open_ledger()
        lease = None if self.options.dry_run else self._take_lease_of_job()
        return body(
            Run(
                job=self.job,
                run_id=self.run_id,
                started_at=self._started_at,
                clock=self.clock,
                deadline=self._start_deadline(),
                db=self.db,
                bookkeeping=self.bookkeeping,
                lease=lease,
                dry_run=self.options.dry_run,
                progress=self._show_progress,
            )
        )

    def over_instances(self, body: Callable[[SetupRun], Result], *, names: Sequence[str] = ()) -> Result:
        """Run ``body`` over the configured instances (those of --instance, or ``names``), with a ledger row."""
        from bisonsync.store import leases

        self.wait_for_jitter()
        wanted = [name.lower() for name in (names or self.options.instances)]
        configured = self.settings.instances
        unknown = [name for name in wanted if name not in configured]
        hint = "add [instances.NAME] with base_url and api_key_file, or set BISONSYNC_INSTANCES__NAME__BASE_URL"
        if unknown:
            raise ArgumentRefused(f"instance {unknown[0]!r} is not in the settings", hint=hint)
        if not configured:
            raise ConfigError("no instance is in the settings", hint=hint)
        if self.options.dry_run:
            self.require_schema()
        else:
            self.open_ledger()
            self.bookkeeping.run(self.write_webhook_settings)
        deadline = self._start_deadline()
        instances = {
            name: InstanceAccess(
                client=self.client(name, instance, deadline=deadline),
                api_key=instance.api_key.get_secret_value() if instance.api_key else None,
                workspace_keys={number: own.api_key.get_secret_value() for number, own in instance.workspaces.items()},
                concurrency=instance.concurrency,
            )
            for name, instance in configured.items()
            if not wanted or name in wanted
        }
        run = SetupRun(
            run_id=self.run_id,
            host=leases.host_name(),
            bookkeeping=self.bookkeeping,
            instances=instances,
            dry_run=self.options.dry_run,
            max_shrink=self.settings.polling.max_shrink,
        )
        return self._with_left_out(self._until_stopped(lambda: body(run)))

    def setup_run(self) -> SetupRun:
        """For commands that change the registry without asking the API."""
        return SetupRun(self.run_id, "", self.bookkeeping, {}, self.options.dry_run, 0.0)

    def lease_workspaces(self, rows: Sequence[WorkspaceRow]) -> list[WorkspaceRow]:
        """Those of ``rows`` whose lease for this job is ours now; all of them in a dry run. Raises LeaseBusy."""
        if self.options.dry_run:
            return list(rows)
        held = self._take_leases(rows)
        return [row for row in rows if row.key in held]

    # Beginning and end

    def carry_out(self, body: Callable[[Session], Result]) -> Result:
        """Do the work; every error becomes a result."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            self._begin_heartbeat()
            return body(self)
        except LeaseBusy as error:
            problem = Problem.of(error)
            problem = replace(problem, exit_code=0) if self.options.skip_if_locked else problem
            return Result({}, workspaces=self._left_out, problems=(problem,))
        except BisonsyncError as error:
            self._is_refused = isinstance(error, ArgumentRefused | UsageError)
            return Result({}, problems=(Problem.of(error),))
        except Exception as error:  # the last line of defence
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"
            return Result({}, problems=(Problem("bug", message, "this is a bug; the traceback is above", exit_code=1),))

    def _until_stopped(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` in a thread that is left behind when the run is stopped and a request hangs. Raises Stopped."""
        from concurrent.futures import Future, wait

        future: Future[Result] = Future()

        def call() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # it belongs to whoever waits
                future.set_exception(error)

        threading.Thread(target=call, name="job", daemon=True).start()
        give_up_at: float | None = None
        while not future.done():
            wait([future], timeout=LOOK_SECONDS)
            try:
                self.clock.check()
            except Stopped:
                give_up_at = give_up_at or self.clock.monotonic() + STOP_GRACE_SECONDS
                if self.clock.monotonic() >= give_up_at:
                    raise
        return future.result()

    def report(self, result: Result) -> int:
        """Close what is open, print what is due; the exit code."""
        self.output.end_progress()
        code, verdict = self.judge(result)
        for client in self._clients:
            self._quietly(client.close)
        if self._heart is not None:
            self._heart.set()
        if self._ledger_open:
            try:
                result = self._forget_run(result) if self._is_refused else self._close_ledger(result, verdict, code)
            except BisonsyncError as error:
                result = replace(result, problems=(*result.problems, Problem.of(error)))
                code, verdict = self.judge(result)
        self.print_result(result, result.all_problems, verdict)
        code = settle(code, is_asked_for=self.is_asked_for)
        if self._heartbeat is not None and not (self._is_refused and not self.options.heartbeat_url_file):
            self._end_heartbeat(self._heartbeat, self.heartbeat_code(code, result))
        for database in self._databases:
            self._quietly(database.close)
        return code

    @property
    def is_asked_for(self) -> bool:
        """Whether what is printed is all that the command does: what the ledger has is done, whoever reads of it."""
        return self.output.is_asked_for and not self._ledger_open

    def judge(self, result: Result) -> tuple[int, str]:
        """The exit code and the verdict of a result."""
        code = result.exit_code
        if self.options.skip_if_locked and any(problem.kind == LeaseBusy.kind for problem in result.problems):
            return code, "skipped"
        return code, VERDICTS[code]

    def ledger_status(self, verdict: str, result: Result) -> str:
        """What the ledger says of the run."""
        return verdict

    def heartbeat_code(self, code: int, result: Result) -> int:
        """What the watcher elsewhere is told of the end."""
        return code

    def print_result(self, result: Result, problems: Sequence[Problem], verdict: str) -> None:
        """Print what is due of a result."""
        milliseconds = self._elapsed_ms()
        if self.output.as_json:
            self.output.document(
                {
                    "schema_version": 1,
                    "job": self.job,
                    "run_id": str(self.run_id),
                    "verdict": verdict,
                    "started_at": self._started_at,
                    "duration_ms": milliseconds,
                    "counts": {**self._zero_counts, **result.counts},
                    "workspaces": [outcome.as_json() for outcome in result.workspaces],
                    "errors": [problem.as_json() for problem in problems],
                    **({"warnings": list(result.warnings)} if result.warnings else {}),
                    **({"dry_run": True} if self.options.dry_run else {}),
                    **result.details,
                }
            )
        elif result.summary:
            planned = "dry run, nothing written: " if self.options.dry_run else ""
            self.output.result(f"{self.job}: {verdict}: {planned}{result.summary}, {milliseconds / 1000:.1f} s")
        for outcome in result.workspaces:
            counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items() if count)
            self.output.log(f"{outcome.key} {outcome.name}: {outcome.verdict}{': ' if counts else ''}{counts}")
        if not self.options.quiet:
            # Nothing that cron would have to mail: health tells what does not pass by itself.
            for warning in result.warnings:
                self.output.log(warning, level="warning")
        for notice in (p for p in problems if p.kind == NOTICE):
            self.output.log(f"{notice.message} → {notice.hint}", level="warning")
        # What another run is doing is no mail from cron.
        told = [p for p in problems if p.exit_code or not (self.options.quiet and p.kind == LeaseBusy.kind)]
        self.output.problems([(p.message, p.hint, p.workspace) for p in told if p.kind != NOTICE])

    def _close_ledger(self, result: Result, verdict: str, code: int) -> Result:
        """Close the ledger row; the result with the counts that the ledger has."""
        from bisonsync.store import runs

        health = _api_health(self._clients)
        failed = [str(o.key) for o in result.workspaces if o.verdict not in ("complete", "skipped")]
        outcomes = [
            runs.WorkspaceOutcomeRow(
                o.bison_instance,
                o.bison_workspace_id,
                o.name,
                o.verdict,
                {"kind": o.problems[0].kind if o.problems else o.verdict, "message": o.reason} if o.reason else None,
            )
            for o in result.workspaces
        ]

        def work(conn: Connection) -> dict[str, Any] | None:
            return runs.close_run(
                conn,
                self.run_id,
                status=self.ledger_status(verdict, result),
                exit_code=code,
                duration_ms=self._elapsed_ms(),
                counts=result.counts,
                workspaces_failed=failed,
                errors=[problem.as_json() for problem in result.all_problems],
                outcomes=outcomes,
                api_health=health,
            )

        in_haste = (
            verdict == "stopped"
            or self.clock.monotonic() >= self._give_up_at
            or any(p.kind == DatabaseUnavailable.kind for p in result.all_problems)
        )
        closed = self._ledger(LEDGER_HASTE_SECONDS if in_haste else LEDGER_PATIENCE_SECONDS).run(work)
        return replace(result, counts={k: (closed or {}).get(k, v) for k, v in result.counts.items()})

    def _forget_run(self, result: Result) -> Result:
        """Take the row of a run that was refused for its own arguments out of the ledger: the job was not at fault."""
        from bisonsync.store import runs

        self._ledger(LEDGER_HASTE_SECONDS).run(lambda conn: runs.forget_run(conn, self.run_id))
        return result

    def _ledger(self, patience_seconds: float) -> Database:
        """For the end of a run: not on its clock, for a stopped run closes its row as well."""
        database = self._database(max_connections=1, clock=SystemClock(), first_connect_seconds=patience_seconds)
        database.deadline = self.clock.monotonic() + patience_seconds
        return database

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)

    def _on_signal(self, number: int, _frame: Any) -> None:
        self._signals += 1
        if self._signals == 1:
            self.clock.stop(number)
            return
        try:
            if self._signals == 2:
                for database in self._databases:
                    database.cancel()
        finally:
            os._exit(128 + number)

    @staticmethod
    def _quietly(action: Callable[[], None]) -> None:
        """Tidying up after the verdict is settled; what fails here changes nothing."""
        try:
            action()
        except BisonsyncError:
            return

    # Dead-man pings

    def _begin_heartbeat(self) -> None:
        """Tell the watcher of this job, if it has one, that it begins. Raises ConfigError for an unusable address."""
        from bisonsync import settings

        if self.options.heartbeat_url_file:
            url = settings.read_heartbeat_url_file(self.options.heartbeat_url_file, environ=os.environ)
        elif self.job in settings.HEARTBEAT_JOBS and self.covers != []:
            url = self.sources.heartbeat_url(self.job)
        else:
            url = None
        # A dry run is no sign of life.
        if url and not self.options.dry_run:
            from bisonsync.api.heartbeat import Heartbeat

            self._heartbeat = Heartbeat(url, user_agent=f"bisonsync/{__version__}")
            # A begin without an end alarms the watcher, and a name that was typed wrong has none.
            if self.options.heartbeat_url_file or self.covers is None:
                self._heartbeat.begin()

    def _end_heartbeat(self, heartbeat: Heartbeat, code: int) -> None:
        """Tell the watcher how the run ended, and keep how that went if the database was used; changes nothing else."""
        error = heartbeat.end(code)
        if error:
            self.output.log(f"the dead-man ping for the end of {self.job} failed: {error}", level="warning")
        elif heartbeat.begin_error:
            begin_error = heartbeat.begin_error
            self.output.log(f"the dead-man ping for the begin of {self.job} failed: {begin_error}", level="warning")
        if not self._databases:
            return
        from bisonsync.store import heartbeats

        database = self._database(max_connections=1, clock=SystemClock(), first_connect_seconds=0.0)
        database.deadline = self.clock.monotonic() + LEDGER_HASTE_SECONDS
        self._quietly(lambda: database.run(lambda conn: heartbeats.upsert(conn, self.job, error=error)))

    # Leases

    @property
    def _lease_ttl_seconds(self) -> float:
        """Read without checking all settings: a run that finds every lease busy needs no more of them."""
        from bisonsync.durations import parse_duration

        entry = self.sources.entries.get(("polling", "lease_ttl"))
        if entry is None or not isinstance(entry.value, str | int | float):
            return DEFAULT_LEASE_TTL_SECONDS
        try:
            return parse_duration(entry.value).total_seconds()
        except ValueError:
            return self.settings.polling.lease_ttl.total_seconds()

    def _take_leases(self, rows: Sequence[WorkspaceRow]) -> dict[WorkspaceKey, Lease]:
        """Take what is free, waiting for the rest as long as --lock-wait says; what is not ours then is left out.

        Raises LeaseBusy when other runs hold everything, DatabaseError when what nobody holds is locked.
        """
        give_up_at = self.clock.monotonic() + self.options.lock_wait_seconds
        if self.options.deadline_seconds is not None:
            give_up_at = min(give_up_at, self._began + self.options.deadline_seconds)
        held = self._take([row.key for row in rows])
        while len(held) < len(rows) and self.clock.monotonic() < give_up_at:
            self.clock.sleep(LOCK_POLL_SECONDS)
            held |= self._take([row.key for row in rows if row.key not in held])
        if len(held) == len(rows):
            return held
        holders = self._holders()
        locked = [row.key for row in rows if row.key not in held and row.key not in holders]
        error = self._wait_for_locks(locked) if locked else None
        if error is None:
            held |= self._take(locked)
        self._left_out = tuple(
            WorkspaceOutcome(*row.key, row.workspace_name, "failed", problems=(Problem.of(error, str(row.key)),))
            if error is not None and row.key in locked
            else WorkspaceOutcome(*row.key, row.workspace_name, "skipped", note=_held_by(holders.get(row.key)))
            for row in rows
            if row.key not in held
        )
        if not held and error is not None:
            raise error
        if not held:
            notes = list(dict.fromkeys(outcome.note for outcome in self._left_out))
            more = f"; and {len(notes) - MAX_HOLDERS_NAMED} more runs" if len(notes) > MAX_HOLDERS_NAMED else ""
            raise LeaseBusy(
                f"{self.job}: every workspace is {'; '.join(notes[:MAX_HOLDERS_NAMED])}{more}",
                hint="let it end, or wait for it with --lock-wait 2m",
            )
        return held

    def _take_lease_of_job(self) -> Lease:
        """Take the one lease of a job that works on no workspace, waiting for it as long as --lock-wait says."""
        give_up_at = self.clock.monotonic() + self.options.lock_wait_seconds
        while not (held := self._take([NO_WORKSPACE])) and self.clock.monotonic() < give_up_at:
            self.clock.sleep(LOCK_POLL_SECONDS)
        if held:
            return held[NO_WORKSPACE]
        holder = self._holders().get(NO_WORKSPACE)
        if holder is None and (error := self._wait_for_locks([NO_WORKSPACE])) is not None:
            raise error
        raise LeaseBusy(
            f"{self.job} is at work already, {_held_by(holder)}", hint="let it end, or wait for it with --lock-wait 2m"
        )

    def _take(self, wanted: Sequence[WorkspaceKey]) -> dict[WorkspaceKey, Lease]:
        """Take those that are free now; the leases are renewed from then on."""
        from bisonsync.store import leases

        def work(conn: Connection) -> list[Lease]:
            return leases.take(conn, self.job, wanted, run_id=self.run_id, ttl_seconds=self._lease_ttl_seconds)

        taken = self.bookkeeping.run(work)
        if taken:
            self._start_heart()
        return {lease.key: lease for lease in taken}

    def _wait_for_locks(self, keys: Sequence[WorkspaceKey]) -> DatabaseError | None:
        """Wait for the end of the transactions that keep leases locked; the error naming them if it does not come."""
        from bisonsync.store import leases

        try:
            self.bookkeeping.run(lambda conn: leases.lock(conn, self.job, keys))
        except DatabaseError as error:
            return error
        return None

    def _holders(self) -> dict[WorkspaceKey, Holder]:
        from bisonsync.store import leases

        listed = self.bookkeeping.run(lambda conn: leases.list_holders(conn, self.job))
        return {holder.key: holder for holder in listed}

    def _start_heart(self) -> None:
        if self._heart is not None:
            return
        from bisonsync.store import leases

        stop = self._heart = threading.Event()
        ttl = self._lease_ttl_seconds
        database = self._database(max_connections=1, clock=SystemClock())

        def beat() -> None:
            while not stop.wait(ttl / HEARTBEATS_PER_TTL):
                try:
                    database.run(lambda conn: leases.renew(conn, self.run_id, ttl_seconds=ttl))
                except BisonsyncError as error:
                    # The fence in each commit decides; a missed beat alone harms nobody.
                    self.output.log(f"the leases could not be renewed: {error.message}", level="warning")

        threading.Thread(target=beat, name="heartbeat", daemon=True).start()

    def _with_left_out(self, result: Result) -> Result:
        """Name the workspaces that other runs are working on: skipping them is no failure."""
        counts = dict(result.counts)
        for name, verdicts in (("workspaces_total", ("skipped", "failed")), ("workspaces_failed", ("failed",))):
            if name in counts:
                counts[name] += sum(outcome.verdict in verdicts for outcome in self._left_out)
        workspaces = (*result.workspaces, *self._left_out)
        skipped: dict[str, list[str]] = {}
        for outcome in workspaces:
            if outcome.verdict == "skipped" and outcome.note:
                skipped.setdefault(outcome.note, []).append(str(outcome.key))
        said = "".join(f"; skipped {', '.join(names)}, {note}" for note, names in skipped.items())
        return replace(result, workspaces=workspaces, counts=counts, summary=result.summary + said)

    # The pieces of a run

    def _run(self, rows: Sequence[WorkspaceRow], held: Mapping[WorkspaceKey, Lease]) -> WorkspacesRun:
        from bisonsync.store import tokens

        deadline = self._start_deadline()
        configured = self.settings.instances
        clients = {
            name: self.client(name, configured[name], deadline=deadline)
            for name in sorted({row.bison_instance for row in rows})
            if name in configured
        }

        def prepare(conn: Connection) -> list[TokenRow]:
            if self._ledger_open:
                self.write_webhook_settings(conn)
            return tokens.list_tokens(conn)

        stored = {row.key: row.token for row in self.bookkeeping.run(prepare)}
        return WorkspacesRun(
            job=self.job,
            run_id=self.run_id,
            started_at=self._started_at,
            clock=self.clock,
            deadline=deadline,
            db=self.db,
            bookkeeping=self.bookkeeping,
            workspaces=tuple(rows),
            leases=held,
            clients=clients,
            concurrency={name: configured[name].concurrency for name in clients},
            access={
                row.key: access_of(row.key, configured.get(row.bison_instance), stored.get(row.key)) for row in rows
            },
            dry_run=self.options.dry_run,
            progress=self._show_progress,
        )

    def _show_progress(self, what: str, done: int, total: int) -> None:
        self.output.progress(what, done, total, elapsed_seconds=time.monotonic() - self._began)

    def _database(
        self, *, max_connections: int, clock: SystemClock | None = None, first_connect_seconds: float = 5.0
    ) -> Database:
        from bisonsync.store.db import Database

        database = Database(
            self.dsn,
            application_name=f"bisonsync {self.job}",
            clock=clock or self.clock,
            max_connections=max_connections,
            first_connect_seconds=first_connect_seconds,
        )
        self._databases.append(database)
        return database

    def wait_for_jitter(self) -> None:
        """Sleep a share of --jitter that is always the same for this host and job, so that hosts spread out."""
        if self.options.jitter_seconds > 0:
            import socket

            digest = sha256(f"{socket.gethostname()}/{self.job}".encode()).digest()
            self.clock.sleep(self.options.jitter_seconds * int.from_bytes(digest[:4]) / 2**32)


def _held_by(holder: Holder | None) -> str:
    return f"held by another run: {holder or 'it ended just now'}"


def _api_health(clients: Sequence[InstanceClient]) -> list[Any]:
    if not clients:
        return []
    from bisonsync.store.runs import ApiHealthRow

    rows: list[ApiHealthRow] = []
    for client in clients:
        for endpoint, stat in client.stats.items():
            times = sorted(stat.times_ms)

            def at(share: float, times: list[float] = times) -> float | None:
                return round(times[min(len(times) - 1, int(share * len(times)))], 1) if times else None

            rows.append(
                ApiHealthRow(
                    bison_instance=client.instance,
                    endpoint=endpoint,
                    api_name="emailbison",
                    requests=stat.requests,
                    retries=stat.retries,
                    rate_limited=stat.rate_limited,
                    errors=stat.errors,
                    mean_ms=round(sum(times) / len(times), 1) if times else None,
                    p50_ms=at(0.5),
                    p95_ms=at(0.95),
                    max_ms=at(1.0),
                    success=stat.errors == stat.retries,
                )
            )
    return rows


def _command_line(arguments: Sequence[str]) -> str:
    """The arguments as given, without a value that could hold a secret."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        if hide_next:
            shown.append("…")
        elif argument.startswith("--database-url="):
            shown.append("--database-url=…")
        else:
            shown.append(argument)
        hide_next = argument == "--database-url"
    return " ".join(shown)[:500]
