"""What one command may ask for: settings, databases, time, output. Gives it when it is needed, and nothing earlier."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import uuid4

from bisonsync.clock import SystemClock
from bisonsync.errors import BisonsyncError
from bisonsync.output import Output
from bisonsync.runner.options import Options

if TYPE_CHECKING:
    from bisonsync.api.client import InstanceClient
    from bisonsync.settings import Sources
    from bisonsync.settings.models import Settings
    from bisonsync.store.db import Database

DEFAULT_LEASE_TTL_SECONDS = 60.0


class Session:
    """The resources of one command.

    ``is_in_ledger``: this run has a row there. ``clients``: the conversations that were begun. ``is_over``: the work
    has ended, and with it what goes on beside it.
    """

    def __init__(self, options: Options, job: str, *, is_part: bool = False) -> None:
        self.options = options
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
        self.began = time.monotonic()
        self.started_at = self.clock.now()
        self.databases: list[Database] = []
        self.clients: list[InstanceClient] = []
        self.is_in_ledger = False
        self.is_over = threading.Event()
        self.give_up_at = float("inf")
        self._is_part = is_part

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

    @property
    def lease_ttl_seconds(self) -> float:
        """Read without checking all settings: a run that finds every lease busy needs no more of them."""
        from bisonsync.durations import parse_duration

        entry = self.sources.entries.get(("polling", "lease_ttl"))
        if entry is None or not isinstance(entry.value, str | int | float):
            return DEFAULT_LEASE_TTL_SECONDS
        try:
            return parse_duration(entry.value).total_seconds()
        except ValueError:
            return self.settings.polling.lease_ttl.total_seconds()

    @property
    def covers(self) -> list[str] | None:
        """The instances whose share of the job this run does whole; None: all there are; empty: chosen parts alone."""
        if self._is_part or self.options.workspaces:
            return []
        return sorted({name.lower() for name in self.options.instances}) or None

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
        return self._ending(self.database(max_connections=4))

    @cached_property
    def bookkeeping(self) -> Database:
        """For leases, ledger and budget: never waits behind the work."""
        return self._ending(self.database(max_connections=2))

    def database(
        self, *, max_connections: int, clock: SystemClock | None = None, first_connect_seconds: float = 5.0
    ) -> Database:
        """One more way to the database, closed with the session."""
        from bisonsync.store.db import Database

        database = Database(
            self.dsn,
            application_name=f"bisonsync {self.job}",
            clock=clock or self.clock,
            max_connections=max_connections,
            first_connect_seconds=first_connect_seconds,
        )
        self.databases.append(database)
        return database

    def database_for_the_end(self, *, patience_seconds: float, first_connect_seconds: float) -> Database:
        """For the end of a run: not on its clock, for a stopped run closes its row as well."""
        database = self.database(max_connections=1, clock=SystemClock(), first_connect_seconds=first_connect_seconds)
        database.deadline = self.clock.monotonic() + patience_seconds
        return database

    def _ending(self, database: Database) -> Database:
        """A database whose waits end with the --deadline that was given; jobs set the one of the settings as well."""
        seconds = self.options.deadline_seconds
        database.deadline = None if seconds is None else self.began + seconds
        database.ends_by_deadline = True
        return database

    def start_deadline(self) -> float:
        """The monotonic instant at which the run has to end, and from now on every wait for the database."""
        seconds = self.options.deadline_seconds
        self.give_up_at = self.began + (self.settings.polling.deadline.total_seconds() if seconds is None else seconds)
        for database in (self.db, self.bookkeeping):
            database.deadline = self.give_up_at
        return self.give_up_at

    def require_schema(self) -> None:
        """Raises SchemaMismatch unless the database is migrated to what this version expects."""
        from bisonsync.store import migrations

        self.bookkeeping.run(migrations.require_schema)

    def wait_for_jitter(self) -> None:
        """Sleep a share of --jitter that is always the same for this host and job, so that hosts spread out."""
        if self.options.jitter_seconds > 0:
            import socket

            digest = sha256(f"{socket.gethostname()}/{self.job}".encode()).digest()
            self.clock.sleep(self.options.jitter_seconds * int.from_bytes(digest[:4]) / 2**32)

    def show_progress(self, what: str, done: int, total: int) -> None:
        """How far the work is, to a person who waits for it."""
        self.output.progress(what, done, total, elapsed_seconds=self.elapsed_seconds)

    @property
    def elapsed_seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.began

    def cancel_statements(self) -> None:
        """Have the server end what it still computes for this process."""
        for database in self.databases:
            database.cancel()

    def close_databases(self) -> None:
        """Let go of every connection."""
        for database in self.databases:
            quietly(database.close)


def quietly(action: Callable[[], object]) -> None:
    """Tidying up after the verdict is settled; what fails here changes nothing."""
    try:
        action()
    except BisonsyncError:
        return
