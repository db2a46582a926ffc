"""Alarms: keeps book of what is wrong since when, and of the messages that are due of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from bisonsync.api.slack_messages import Alarm, Body, Kind, alarm_message
from bisonsync.checks.check import CheckResult
from bisonsync.checks.episodes import Policy, Sighting, follow, joined, sight
from bisonsync.run import Problem
from bisonsync.store import alerts as store
from bisonsync.store.alerts import ClientRow, Episode, NewMessage

if TYPE_CHECKING:
    from bisonsync.store.db import Connection, Database

What = Kind | Literal["seen", "opened", "closed"]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an episode: first seen, opened or closed without a message, or the message that was made."""

    check: str
    scope: str
    what: What


@dataclass(frozen=True, slots=True)
class Observed:
    """What a look changed, and what hinders messages (which never fails the job)."""

    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Step:
    """What an observation made of an episode: from none or an open one, with or without a message."""

    seen: Sighting
    before: Episode | None
    after: Episode
    kind: Kind | None

    @property
    def what(self) -> What | None:
        """The change that somebody may want to hear of."""
        if self.kind is not None:
            return self.kind
        if self.before is None:
            return "opened" if self.after.opened_at else "seen"
        if self.after.closed_at is not None:
            return "closed"
        return "opened" if self.after.opened_at != self.before.opened_at else None


def observe(
    conn: Connection,
    results: Sequence[CheckResult],
    *,
    now: datetime,
    policy: Policy,
    clients: Sequence[ClientRow] | None = None,
    remembered: Sequence[Episode] = (),
) -> Observed:
    """Turn what checks say into episodes and messages for the outbox, in the caller's transaction.

    ``now`` is the look's time: a second call with the same changes nothing, so a transaction may be repeated.
    ``clients`` are those of the registry unless given. ``remembered``: what this host told of while no book was kept.
    """
    told_of, problems = known_clients(store.list_clients(conn) if clients is None else clients, policy)
    checks = [result.name for result in results]
    before = {episode.key: episode for episode in store.lock_open_episodes(conn, checks)}
    before |= _carried_over(conn, before, [one for one in remembered if one.check_name in checks])
    seen = sight(results, told_of, policy, alarmed=store.list_open_checks(conn))
    steps = list(_steps(seen, before, now, policy))
    # Of a client that has no channel any more nobody tells the end.
    gone = [replace(before[key], closed_at=now) for key in before.keys() - {sighting.key for sighting in seen}]
    ids = {key: episode.id for key, episode in before.items() if episode.id is not None}
    ids |= store.insert_episodes(conn, [step.after for step in steps if step.before is None])
    store.update_episodes(conn, [*(step.after for step in steps if step.before is not None), *gone])
    # What is without an id another run has opened in the meantime.
    told: list[tuple[_Step, int, What | None]] = [
        (step, ids[step.after.key], step.what) for step in steps if step.after.key in ids
    ]
    changes = [Change(*step.after.key, what) for step, _, what in told if what is not None]
    changes += [Change(*episode.key, "closed") for episode in gone]
    store.drop_reminders(conn, [number for step, number, _ in told if step.kind or step.after.closed_at], now)
    store.insert_messages(conn, [_message(step, number, now) for step, number, _ in told if step.kind], now)
    if changes:
        store.notify_change(conn)
    return Observed(tuple(changes), problems)


def list_episodes(database: Database, *, days: int, limit: int) -> list[store.EpisodeRow]:
    """Open episodes, then those that ended in the last ``days``, the latest first."""
    return database.run(lambda conn: store.list_episodes(conn, days=days, limit=limit))


def _carried_over(
    conn: Connection, book: Mapping[tuple[str, str], Episode], remembered: Sequence[Episode]
) -> dict[tuple[str, str], Episode]:
    """What was told without the book, as episodes of it, so that the end is told and nothing else twice.

    What the book ended since then has been told of by another host.
    """
    told = [one for one in remembered if one.told_state is not None]
    if not told:
        return {}
    ended = store.list_ended(conn, [one.check_name for one in told], min(one.last_seen_at for one in told))
    new = [one for one in told if one.key not in book and not (one.key in ended and ended[one.key] >= one.last_seen_at)]
    ids = store.insert_episodes(conn, new)
    return {one.key: joined(book[one.key], one) for one in told if one.key in book} | {
        one.key: replace(one, id=ids[one.key]) for one in new if one.key in ids
    }


def known_clients(rows: Sequence[ClientRow], policy: Policy) -> tuple[list[ClientRow], tuple[Problem, ...]]:
    """The clients whose channel is set up, under the name that the settings give it; the others are problems."""
    names = {name.casefold(): name for name in policy.channels if name}
    known = [replace(row, channel=names[row.channel.casefold()]) for row in rows if row.channel.casefold() in names]
    problems = tuple(
        Problem(
            "configuration",
            f"workspace {row.key}: client_registry.slack_webhook_url_ref names a channel that is not set up",
            f"add {row.channel!r} to [alerts.channels], or correct the reference",
            str(row.key),
            exit_code=0,
        )
        for row in rows
        if row.channel.casefold() not in names
    )
    return known, problems


def _steps(
    seen: Iterable[Sighting], episodes: Mapping[tuple[str, str], Episode], now: datetime, policy: Policy
) -> Iterator[_Step]:
    """What becomes of each episode that changes."""
    for sighting in seen:
        before = episodes.get(sighting.key)
        after, kind = follow(before, sighting, now, policy)
        if after is not None and after != before:
            yield _Step(sighting, before, after, kind)


def _message(step: _Step, episode_id: int, now: datetime) -> NewMessage:
    assert step.kind is not None and step.after.channel is not None  # the rules set both together
    return NewMessage(episode_id, step.kind, step.after.channel, message_body(step.seen, step.after, step.kind, now))


def message_body(seen: Sighting, episode: Episode, kind: Kind, now: datetime, *, unbooked_by: str = "") -> Body:
    """What is posted of an episode; ``unbooked_by`` is the host that tells it without the book."""
    is_over = kind == "recovery"
    # A client's first finding is its detail already.
    findings = seen.findings[1:] if seen.scope else seen.findings
    return alarm_message(
        Alarm(
            kind=kind,
            check=seen.check,
            about=seen.about,
            state=(episode.told_state or episode.state) if is_over else seen.state,
            detail=f"It was {episode.told_state}: {episode.detail}" if is_over else seen.detail,
            since=episode.first_bad_at,
            at=now,
            hint="" if is_over else seen.hint,
            findings=() if is_over else [(finding.subject, finding.detail) for finding in findings],
            also=() if is_over else seen.also,
            is_unbooked=bool(unbooked_by),
            host="" if seen.scope else unbooked_by,
        )
    )
