"""Episodes of alarms, and the outbox of the messages that tell of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, scalar_row

from bisonsync.keys import WorkspaceKey
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection

_Q = load_queries("alerts")


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A workspace with a channel of its own, which the settings name."""

    bison_instance: str
    bison_workspace_id: int
    name: str
    channel: str

    @property
    def key(self) -> WorkspaceKey:
        """The workspace's identity."""
        return WorkspaceKey(self.bison_instance, self.bison_workspace_id)


@dataclass(frozen=True, slots=True)
class Episode:
    """What is wrong since when, as alert_episodes has it; ``id`` is None for one that is not stored yet."""

    check_name: str
    scope: str
    state: str
    first_bad_at: datetime
    last_seen_at: datetime
    bad_count: int = 0
    good_count: int = 0
    opened_at: datetime | None = None
    channel: str | None = None
    told_state: str | None = None
    paged_at: datetime | None = None
    last_message_at: datetime | None = None
    reminders: int = 0
    closed_at: datetime | None = None
    value: float | None = None
    unit: str = ""
    detail: str = ""
    hint: str = ""
    workspaces: Sequence[str] = ()
    caused_by: str | None = None
    id: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What it is about: at most one is open of each."""
        return self.check_name, self.scope


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message for the outbox."""

    episode_id: int
    kind: str
    channel: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message that is ours to send, in ``wait_seconds``. ``may_have_arrived``: it was sent before, perhaps."""

    id: int
    kind: str
    channel: str
    body: dict[str, Any]
    attempts: int
    may_have_arrived: bool
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """An episode as listed, with how many messages it has, how many of them wait, and the oldest fault of those."""

    id: int
    check_name: str
    scope: str
    state: str
    first_bad_at: datetime
    last_seen_at: datetime
    bad_count: int
    good_count: int
    opened_at: datetime | None
    paged_at: datetime | None
    last_message_at: datetime | None
    reminders: int
    closed_at: datetime | None
    value: float | None
    unit: str
    detail: str
    hint: str
    workspaces: list[str]
    caused_by: str | None
    messages: int
    undelivered: int
    last_error: str | None


def list_clients(conn: Connection) -> list[ClientRow]:
    """The workspaces with a channel of their own, by instance and id."""
    with conn.cursor(row_factory=class_row(ClientRow)) as cursor:
        return cursor.execute(_Q["list_clients"]).fetchall()


def lock_open_episodes(conn: Connection, checks: Sequence[str]) -> list[Episode]:
    """The open episodes of these checks; they are ours until the transaction ends."""
    with conn.cursor(row_factory=class_row(Episode)) as cursor:
        return cursor.execute(_Q["lock_open_episodes"], {"checks": list(checks)}).fetchall()


def list_open_episodes(conn: Connection, checks: Sequence[str]) -> list[Episode]:
    """The open episodes of these checks; of no use to whoever means to change them."""
    with conn.cursor(row_factory=class_row(Episode)) as cursor:
        return cursor.execute(_Q["list_open_episodes"], {"checks": list(checks)}).fetchall()


def list_ended(conn: Connection, checks: Sequence[str], since: datetime) -> dict[tuple[str, str], datetime]:
    """When the last episode of each key was over, of those that were at ``since`` or later."""
    rows = conn.execute(_Q["list_ended"], {"checks": list(checks), "since": since}).fetchall()
    return {(check, scope): closed_at for check, scope, closed_at in rows}


def list_open_checks(conn: Connection) -> set[str]:
    """The checks of which something was told that is not over."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(_Q["list_open_checks"]).fetchall())


def insert_episodes(conn: Connection, episodes: Sequence[Episode]) -> dict[tuple[str, str], int]:
    """Store new episodes; the ids of those that no other run has opened in the meantime."""
    if not episodes:
        return {}
    rows = conn.execute(_Q["insert_episodes"], {"episodes": _json(episodes)}).fetchall()
    return {(check, scope): number for number, check, scope in rows}


def update_episodes(conn: Connection, episodes: Sequence[Episode]) -> None:
    """Store the new values of episodes that ``lock_open_episodes`` gave."""
    if episodes:
        conn.execute(_Q["update_episodes"], {"episodes": _json(episodes)})


def drop_reminders(conn: Connection, episode_ids: Sequence[int], now: datetime) -> None:
    """Drop what newer messages make superfluous."""
    if episode_ids:
        conn.execute(_Q["drop_reminders"], {"episode_ids": list(episode_ids), "now": now})


def insert_messages(conn: Connection, messages: Sequence[NewMessage], now: datetime) -> None:
    """Put messages into the outbox."""
    if messages:
        rows = json.dumps([{"number": number, **asdict(message)} for number, message in enumerate(messages)])
        conn.execute(_Q["insert_messages"], {"messages": rows, "now": now})


def claim_message(
    conn: Connection, channels: Sequence[str], now: datetime, *, ttl_seconds: float
) -> ClaimedMessage | None:
    """Take the oldest message that is due for one of the channels; None when there is none that is free."""
    with conn.cursor(row_factory=class_row(ClaimedMessage)) as cursor:
        return cursor.execute(
            _Q["claim_message"], {"channels": list(channels), "now": now, "ttl_seconds": ttl_seconds}
        ).fetchone()


def record_delivery(conn: Connection, message_id: int, now: datetime) -> None:
    """Say that a message was received."""
    conn.execute(_Q["record_delivery"], {"id": message_id, "now": now})


def record_failure(
    conn: Connection,
    message_id: int,
    *,
    error: str,
    next_attempt_at: datetime,
    may_have_arrived: bool,
    holds_channel: bool,
) -> None:
    """Give a message back that was not received."""
    conn.execute(
        _Q["record_failure"],
        {
            "id": message_id,
            "error": error,
            "next_attempt_at": next_attempt_at,
            "may_have_arrived": may_have_arrived,
            "holds_channel": holds_channel,
        },
    )


def count_waiting(conn: Connection) -> int:
    """How many messages are not delivered."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["count_waiting"]).fetchone() or 0


def list_episodes(conn: Connection, *, days: int, limit: int) -> list[EpisodeRow]:
    """Open episodes, then those that ended in the last ``days``."""
    with conn.cursor(row_factory=class_row(EpisodeRow)) as cursor:
        return cursor.execute(_Q["list_episodes"], {"days": days, "limit": limit}).fetchall()


def notify_change(conn: Connection) -> None:
    """Tell listeners that episodes have changed."""
    conn.execute(_Q["notify_change"])


def _json(episodes: Sequence[Episode]) -> str:
    return json.dumps([asdict(episode) for episode in episodes], default=datetime.isoformat)
