"""The dead-man pings of a run: a watcher elsewhere hears that it starts, and how it ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bisonsync import __version__
from bisonsync.runner.session import Session, quietly

if TYPE_CHECKING:
    from bisonsync.api.heartbeat import Heartbeat

# How long the end of a run waits for the database to note how its ping went.
NOTE_SECONDS = 3.0


class Pings:
    """``start`` within the block, the end as the block is left.

    ``code``: how the run ended; None: nothing is told of the end.
    """

    def __init__(self, session: Session) -> None:
        self.code: int | None = None
        self._session = session
        self._heartbeat: Heartbeat | None = None

    def __enter__(self) -> Pings:
        return self

    def start(self) -> None:
        """Tell the watcher of this job, if it has one, that it starts. Raises ConfigError for an unusable address."""
        from bisonsync import settings

        session, options = self._session, self._session.options
        if options.heartbeat_url_file:
            url = settings.read_heartbeat_url_file(options.heartbeat_url_file, environ=os.environ)
        elif session.job in settings.HEARTBEAT_JOBS and session.covers != []:
            url = session.sources.heartbeat_url(session.job)
        else:
            url = None
        # A dry run is no sign of life.
        if url and not options.dry_run:
            from bisonsync.api.heartbeat import Heartbeat

            self._heartbeat = Heartbeat(url, user_agent=f"bisonsync/{__version__}")
            # A begin without an end alarms the watcher, and a name that was typed wrong has none.
            if options.heartbeat_url_file or session.covers is None:
                self._heartbeat.begin()

    def __exit__(self, *_: object) -> None:
        """Tell the watcher how the run ended, and keep how that went if the database was used."""
        session, heartbeat = self._session, self._heartbeat
        if heartbeat is None or self.code is None:
            return
        error = heartbeat.end(self.code)
        if error:
            session.output.log(f"the end ping of {session.job} failed: {error}", level="warning")
        elif heartbeat.begin_error:
            session.output.log(f"the start ping of {session.job} failed: {heartbeat.begin_error}", level="warning")
        if not session.databases:
            return
        from bisonsync.store import heartbeats

        database = session.database_for_the_end(patience_seconds=NOTE_SECONDS, first_connect_seconds=0.0)
        quietly(lambda: database.run(lambda conn: heartbeats.upsert(conn, session.job, error=error)))
