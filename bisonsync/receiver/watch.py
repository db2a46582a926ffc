"""Looks at the database every few seconds: whose the hook secrets are, and whether deliveries can be stored."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from bisonsync.errors import DatabaseError
from bisonsync.keys import WorkspaceKey
from bisonsync.store import health_writes, migrations, webhook_secrets, webhooks
from bisonsync.store.db import Connection, Database
from bisonsync.store.health_writes import ReadOnly

LOOK_SECONDS = 3.0
# Unknown secrets make for looks of their own, so far apart: guessing must not load the database.
SOONEST_SECONDS = 0.1
# So many requests with unknown secrets wait for a look; whoever comes then is told to come again.
MAX_ASKING = 200
_PATIENCE_SECONDS = 3.0
# After so long without a good look nothing is known of the database.
_STALE_SECONDS = 3 * LOOK_SECONDS
_STANDBY = "it is a standby; give the primary's address"
_SET_READ_ONLY = "default_transaction_read_only is on, as hostings set it while a disk is nearly full"


class Undecided(Exception):
    """Nobody knows yet whose a secret is; ``reason`` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why no delivery can be stored. ``reason`` is for anybody: it tells nothing of where the database is."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen last, and what is wrong by the newest look."""

    owners: Mapping[bytes, WorkspaceKey] = field(repr=False)
    seen_at: float = float("-inf")
    trouble: Trouble | None = None


class Watch:
    """One thread with one connection; ``find_owner`` belongs to the event loop's thread."""

    def __init__(
        self,
        db: Database,
        fixed: Mapping[bytes, WorkspaceKey],
        *,
        monotonic: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._db = db
        self._fixed = dict(fixed)
        self._monotonic = monotonic
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._asked: list[tuple[int, asyncio.Future[None]]] = []
        self._begun = 0
        self._began_at = float("-inf")
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._unwritable: Trouble | None = None
        self.sight = Sight(self._fixed)
        self._look()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> Trouble | None:
        """Why no delivery can be stored; None when it could be a moment ago."""
        sight = self.sight
        if sight.trouble is None and self._monotonic() - sight.seen_at > _STALE_SECONDS:
            return Trouble("database", "the database does not answer")
        return sight.trouble or self._unwritable

    @property
    def asking(self) -> int:
        """How many requests wait for a look."""
        return len(self._asked)

    async def find_owner(self, secret: str, give_up_at: float) -> WorkspaceKey | None:
        """Whose a secret is, None if it is nobody's. Raises Undecided.

        It may have been stored a moment ago: one that is not known waits, until ``give_up_at`` by the loop's clock, for
        a look that began after this call.
        """
        digest = sha256(secret.encode(errors="surrogatepass")).digest()
        owner = _match(self.sight.owners, digest)
        if owner is not None:
            return owner
        if len(self._asked) >= MAX_ASKING:
            raise Undecided("too many deliveries with unknown secrets at once")
        looked = self._loop.create_future()
        self._asked.append((self._begun, looked))
        self._wake.set()
        try:
            async with asyncio.timeout_at(give_up_at):
                await looked
        except TimeoutError:
            raise Undecided("the database is too slow") from None
        sight = self.sight
        owner = _match(sight.owners, digest)
        if owner is None and sight.trouble is not None:
            raise Undecided(sight.trouble.reason)
        return owner

    def note_write(self, error: Exception | None) -> None:
        """Hear from the writer's thread how a transaction of deliveries ended; a failed one makes for a trial."""
        was_writable = self._unwritable is None
        self._unwritable = _trouble(error) if error is not None else None
        if error is not None and was_writable:
            self._wake.set()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._wake.set()
        self._thread.join(2 * _PATIENCE_SECONDS)
        self._db.close()

    def _look_on(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            self._ended.wait(max(0.0, self._began_at + SOONEST_SECONDS - self._monotonic()))
            if self._ended.is_set():
                return
            self._look()
            self._loop.call_soon_threadsafe(self._answer, self._begun)
            # Where the database can be used the writer's error may have been of its delivery alone.
            if self._unwritable is not None and self.sight.trouble is None and not self._ended.is_set():
                self._try_write()

    def _look(self) -> None:
        began = self._began_at = self._monotonic()
        self._begun += 1
        self._db.deadline = began + _PATIENCE_SECONDS
        try:
            stored, read_only = self._db.run(
                _read, statement_timeout_seconds=_PATIENCE_SECONDS, lock_timeout_seconds=1.0
            )
        except Exception as error:  # the thread must live
            # What is known stays; whoever has a secret that was taken goes on.
            self._note(Sight(self.sight.owners, self.sight.seen_at, _trouble(error)), _shown(error))
            return
        owners = {**stored, **self._fixed}
        if read_only is None:
            self._note(Sight(owners, began), "")
            return
        reason = f"the database can only be read: {_STANDBY if read_only.is_standby else _SET_READ_ONLY}"
        self._note(Sight(owners, began, Trouble("read_only", reason)), reason)
        # A setting of the database or the role is heard of by new sessions alone.
        self._db.close()

    def _note(self, sight: Sight, message: str) -> None:
        before, self.sight = self.sight.trouble, sight
        if sight.trouble is not None and before is None:
            self._tell(message)
        elif sight.trouble is None and before is not None:
            self._tell("the database can be used again")

    def _try_write(self) -> None:
        """Find out whether a delivery could be stored, for while /healthz says no there may come none."""
        self._db.deadline = self._monotonic() + _PATIENCE_SECONDS
        try:
            self._db.run(
                webhooks.try_store,
                statement_timeout_seconds=_PATIENCE_SECONDS,
                lock_timeout_seconds=1.0,
                lock_attempts=1,
            )
        except Exception as error:  # the thread must live
            self._unwritable = _trouble(error)
        else:
            self._unwritable = None

    def _answer(self, begun: int) -> None:
        """Let those go on who asked before the look of this number began."""
        waiting, self._asked = self._asked, []
        for asked_at, looked in waiting:
            if asked_at >= begun:
                self._asked.append((asked_at, looked))
            elif not looked.done():
                looked.set_result(None)


def _read(conn: Connection) -> tuple[dict[bytes, WorkspaceKey], ReadOnly | None]:
    """Whose the secrets are, and why nothing can be written, if that is so."""
    migrations.require_schema(conn)
    owners = {bytes(row.secret_sha256): row.key for row in webhook_secrets.list_secrets(conn) if row.retired_at is None}
    return owners, health_writes.find_read_only(conn)


def _trouble(error: Exception) -> Trouble:
    return Trouble(error.kind if isinstance(error, DatabaseError) else "bug", webhooks.explain(error))


def _shown(error: Exception) -> str:
    if isinstance(error, DatabaseError):
        return error.message
    return f"a bug: {type(error).__name__} while the database was looked at"


def _match(owners: Mapping[bytes, WorkspaceKey], digest: bytes) -> WorkspaceKey | None:
    """Whose the digest is; how long that takes tells nothing of how much of it is right."""
    found: WorkspaceKey | None = None
    for known, owner in owners.items():
        if hmac.compare_digest(known, digest):
            found = owner
    return found
