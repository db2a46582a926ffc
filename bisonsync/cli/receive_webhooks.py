"""Taking deliveries over HTTP: receive-webhooks."""

from __future__ import annotations

import socket
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import single
from bisonsync.keys import WorkspaceKey
from bisonsync.runner import Options, Session, execute, upkeep

if TYPE_CHECKING:
    from bisonsync.clock import Clock
    from bisonsync.errors import DatabaseError
    from bisonsync.receiver.lines import Lines
    from bisonsync.receiver.server import Plan, Server
    from bisonsync.receiver.workers import Crew, Pipe
    from bisonsync.run import Result
    from bisonsync.store.db import Database

RECEIVE_COUNTS = ("requests", "stored", "refused", "unavailable")
# With two connections for each worker it stays below the ten that a database is asked for.
MAX_WORKERS = 4
LOOK_SECONDS = 0.5
UPKEEP_SECONDS = 3600.0
UPKEEP_RETRY_SECONDS = 60.0
BACKLOG = 2048
_EXTRA_HINT = "pip install 'bisonsync[serve]'"


def _receive_webhooks(
    options: Options,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Listen on this port; 0: any.")] = 8080,
    workers: Annotated[int, typer.Option("--workers", min=1, max=MAX_WORKERS, help="So many processes.")] = 1,
) -> None:
    """Receive webhooks: store and apply each delivery, then answer 200.

    Serves POST /hooks/SECRET until TERM or INT, then answers what it accepted and
    ends. A wrong secret gets 404; while the database cannot be used deliveries get
    503, and the sender tries again. GET /healthz tells how it stands. Meant to run
    behind a proxy that speaks TLS.

    \b
    Example:
      bisonsync receive-webhooks
      bisonsync receive-webhooks --host 0.0.0.0 --port 8080 --workers 2
    """

    def body(session: Session) -> Result:
        from bisonsync.errors import UsageError

        if options.workspaces or options.instances:
            raise UsageError(
                "receive-webhooks takes the deliveries of every workspace: -w and --instance cannot narrow it",
                hint="leave them out; 'bisonsync webhooks remove -w ID' ends those of one workspace",
            )
        return _receive(session, host, port, workers)

    execute(options, "receive-webhooks", body, counts=RECEIVE_COUNTS)


receive_webhooks = single("receive-webhooks", _receive_webhooks)


def _receive(session: Session, host: str, port: int, workers: int) -> Result:
    """Serve until stopped.

    It has no row in the ledger: without a lease another host would take it for lost within the hour, and a lease that
    is held for weeks is what "health" warns of. Whether it works show /healthz and webhook_health.
    """
    from bisonsync.run import Result

    _require_extra()
    from bisonsync.receiver.lines import Lines
    from bisonsync.receiver.server import Plan

    session.wait_for_jitter()
    session.require_schema()
    options = session.options
    plan = Plan(
        session.dsn,
        _owners(session),
        _version(),
        log_json=options.log_json,
        quiet=options.quiet or options.as_json,
        keep_bodies=session.settings.webhooks.store_bodies,
    )
    lines = Lines(as_json=plan.log_json, quiet=plan.quiet)
    try:
        _warn_without_secrets(session, plan, lines)
        if not options.dry_run:
            _begin_upkeep(session, lines)
        with _listen(host, port) as sock:
            where = _address(sock)
            if options.dry_run:
                return Result({}, summary=f"would listen on {where}")
            return _serve(session, plan, lines, sock, workers, where)
    finally:
        lines.close()


def _serve(session: Session, plan: Plan, lines: Lines, sock: socket.socket, workers: int, where: str) -> Result:
    from dataclasses import asdict

    from bisonsync.errors import BisonsyncError
    from bisonsync.receiver.workers import Workers
    from bisonsync.run import Problem, Result

    crew: Crew = Workers(workers, work, plan, sock, lines) if workers > 1 else _server(plan, sock, lines)
    problem: Problem | None = None
    try:
        crew.start()
        lines.say(f"listening on {where}/hooks/…, {workers} worker{'s' if workers > 1 else ''}", url=where)
        _watch_over(session, crew, lines)
    except BisonsyncError as error:
        problem = Problem.of(error)
    finally:
        counts = asdict(crew.stop())
    told = ", ".join(f"{counts[name]} {name}" for name in RECEIVE_COUNTS)
    return Result(counts, problems=(problem,) if problem else (), committed=counts["stored"] > 0, summary=told)


def _watch_over(session: Session, crew: Crew, lines: Lines) -> None:
    """Wait for the end; meanwhile keep the workers alive and the partitions made. Raises Stopped, DeadlineExceeded."""
    from bisonsync.errors import DatabaseError, DeadlineExceeded

    clock = session.clock
    seconds = session.options.deadline_seconds
    ends_at = float("inf") if seconds is None else clock.monotonic() + seconds
    # At the begin it may have failed.
    due_at, day = clock.monotonic() + UPKEEP_RETRY_SECONDS, clock.now().date()
    while clock.monotonic() < ends_at:
        clock.sleep(min(LOOK_SECONDS, max(0.0, ends_at - clock.monotonic())))
        crew.look()
        if clock.monotonic() >= due_at or clock.now().date() != day:
            due_at, day = clock.monotonic() + UPKEEP_SECONDS, clock.now().date()
            try:
                _keep_up(session, lines)
            except DatabaseError as error:
                due_at = clock.monotonic() + UPKEEP_RETRY_SECONDS
                _warn_of_upkeep(lines, error)
    raise DeadlineExceeded(f"the deadline of {seconds:g} s has come", hint="what is committed stays")


def _begin_upkeep(session: Session, lines: Lines) -> None:
    """Keep up before anything is received. Raises DatabaseError, but not where nothing can be written for a while.

    The deliveries that come meanwhile get 503 and are sent again; a service that cannot be started is not there when
    it could write.
    """
    from bisonsync.errors import DatabaseError
    from bisonsync.store import webhooks

    try:
        _keep_up(session, lines)
    except DatabaseError as error:
        if not webhooks.is_write_refused(error):
            raise
        _warn_of_upkeep(lines, error)


def _warn_of_upkeep(lines: Lines, error: DatabaseError) -> None:
    lines.say(f"settings and partitions of the inbox are not up to date: {error.message}", level="warning")


def _keep_up(session: Session, lines: Lines) -> None:
    """What every door of the inbox does. Raises DatabaseError; for partitions only where today has no place."""
    ahead = upkeep.keep_up(session)
    if ahead.warning:
        lines.say(ahead.warning, level="warning")


def _owners(session: Session) -> dict[bytes, WorkspaceKey]:
    """Whose the secrets of the settings are, by their SHA-256."""
    owners: dict[bytes, WorkspaceKey] = {}
    for name, secret in session.settings.webhooks.secrets.items():
        owners[sha256(secret.get_secret_value().encode()).digest()] = WorkspaceKey.parse(name)
    return owners


def _warn_without_secrets(session: Session, plan: Plan, lines: Lines) -> None:
    from bisonsync.store import webhook_secrets

    stored = session.bookkeeping.run(webhook_secrets.list_secrets)
    if not plan.owners and not any(row.retired_at is None for row in stored):
        lines.say(
            "there is no hook secret yet, so every delivery gets 404 → bisonsync webhooks ensure", level="warning"
        )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError."""
    from bisonsync.errors import ConfigError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, for asyncio sends at once only on those: the two parts of an answer would be 40 ms apart.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}", hint="choose another --host or --port"
        ) from error
    return sock


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _require_extra() -> None:
    from bisonsync.errors import ConfigError

    try:
        import bisonsync.receiver.server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "bisonsync":
            raise
        raise ConfigError(
            f"receive-webhooks needs the extra 'serve': {error.name} is not installed", hint=_EXTRA_HINT
        ) from None
    assert bisonsync.receiver.server


def _version() -> str:
    from bisonsync import __version__

    return __version__


def _server(plan: Plan, sock: socket.socket, lines: Lines) -> Server:
    from bisonsync.clock import SystemClock
    from bisonsync.receiver.server import Server
    from bisonsync.store.db import Database

    # Never stopped: what was accepted is answered after the signal.
    clock: Clock = SystemClock()

    def connect() -> Database:
        # A lost connection is tried once more, and then the sender is told to come again.
        return Database(
            plan.dsn,
            application_name="bisonsync receive-webhooks",
            clock=clock,
            max_connections=1,
            first_connect_seconds=0.2,
            reconnect_seconds=0.2,
        )

    return Server(sock, plan, lines, connect)


def work(plan: Plan, sock: socket.socket, pipe: Pipe) -> None:
    """One of several workers, in a process of its own."""
    from bisonsync.receiver import workers
    from bisonsync.receiver.lines import Lines

    lines = Lines(as_json=plan.log_json, quiet=plan.quiet)
    workers.work(_server(plan, sock, lines), pipe)
    lines.close()
