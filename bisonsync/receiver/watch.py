"""Looks at the database every few seconds: whose the hook secrets are, and whether it can be used."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from bisonsync.errors import DatabaseError
from bisonsync.store import migrations, webhook_secrets
from bisonsync.store.db import Connection, Database

Workspace = tuple[str, int]

LOOK_SECONDS = 3.0
# An unknown secret makes for a look of its own, but not more often than this.
_SOONEST_SECONDS = 1.0
_PATIENCE_SECONDS = 3.0
# After so long without a good look nothing is known of the database.
_STALE_SECONDS = 3 * LOOK_SECONDS


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen last. ``error`` is why the newest look failed."""

    owners: Mapping[bytes, Workspace] = field(repr=False)
    seen_at: float = float("-inf")
    looked_at: float = float("-inf")
    error: str | None = None
    kind: str | None = None


class Watch:
    """One thread with one connection; ``find_owner`` belongs to the event loop's thread."""

    def __init__(
        self,
        db: Database,
        fixed: Mapping[bytes, Workspace],
        *,
        monotonic: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._db = db
        self._fixed = dict(fixed)
        self._monotonic = monotonic
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._asked: list[asyncio.Future[None]] = []
        self._wake = threading.Event()
        self._is_ending = False
        self.sight = Sight(self._fixed)
        self._look()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> tuple[str, str] | None:
        """Kind and message of why the database cannot be used; None when it could be a moment ago."""
        sight = self.sight
        if sight.error is not None:
            return sight.kind or "database", sight.error
        if self._monotonic() - sight.seen_at > _STALE_SECONDS:
            return "database", "the database does not answer"
        return None

    async def find_owner(self, secret: str) -> Workspace | None:
        """Whose a secret is. One that is not known is looked up once more. Raises DatabaseError when that fails."""
        digest = sha256(secret.encode(errors="surrogatepass")).digest()
        owner = _match(self.sight.owners, digest)
        if owner is None and self._monotonic() - self.sight.looked_at >= _SOONEST_SECONDS:
            looked = self._loop.create_future()
            self._asked.append(looked)
            self._wake.set()
            await looked
            owner = _match(self.sight.owners, digest)
        if owner is None and self.sight.error is not None:
            raise DatabaseError(self.sight.error)
        return owner

    def end(self) -> None:
        """Look no more."""
        self._is_ending = True
        self._wake.set()
        self._thread.join(2 * _PATIENCE_SECONDS)
        self._db.close()

    def _look_on(self) -> None:
        while not self._is_ending:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if not self._is_ending:
                self._look()
                self._loop.call_soon_threadsafe(self._answer)

    def _look(self) -> None:
        began = self._monotonic()
        self._db.deadline = began + _PATIENCE_SECONDS
        try:
            stored = self._db.run(_read, statement_timeout_seconds=_PATIENCE_SECONDS, lock_timeout_seconds=1.0)
        except DatabaseError as error:
            self._note(began, error.message, error.kind)
        except Exception as error:  # the thread must live
            self._note(began, f"a bug: {type(error).__name__} while the database was looked at", "bug")
        else:
            if self.sight.error is not None:
                self._tell("the database can be used again")
            self.sight = Sight({**stored, **self._fixed}, began, began)

    def _note(self, began: float, message: str, kind: str) -> None:
        """What is known stays; whoever has a secret that was taken goes on."""
        if self.sight.error is None:
            self._tell(message)
        self.sight = Sight(self.sight.owners, self.sight.seen_at, began, message, kind)

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        for looked in asked:
            if not looked.done():
                looked.set_result(None)


def _read(conn: Connection) -> dict[bytes, Workspace]:
    migrations.require_schema(conn)
    return {
        bytes(row.secret_sha256): (row.bison_instance, row.bison_workspace_id)
        for row in webhook_secrets.list_secrets(conn)
        if row.retired_at is None
    }


def _match(owners: Mapping[bytes, Workspace], digest: bytes) -> Workspace | None:
    """Whose the digest is; how long that takes tells nothing of how much of it is right."""
    found: Workspace | None = None
    for known, owner in owners.items():
        if hmac.compare_digest(known, digest):
            found = owner
    return found
