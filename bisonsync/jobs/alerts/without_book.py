"""Alarms while the database keeps no book: they go out all the same, and this host remembers in a file what it told."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from bisonsync.api.slack_messages import Body, repeated
from bisonsync.checks.check import CheckResult
from bisonsync.checks.episodes import Policy, Sighting, follow, joined, sight
from bisonsync.errors import DatabaseError
from bisonsync.jobs.alerts import known_clients, message_body
from bisonsync.jobs.alerts.delivery import LONGEST_DELIVERY_SECONDS, DeliveryReport, Sender, undelivered
from bisonsync.store import alerts as store
from bisonsync.store.alert_file import AlertFile, Remembered
from bisonsync.store.alerts import ClientRow, Episode

if TYPE_CHECKING:
    from bisonsync.clock import Clock
    from bisonsync.store.db import Database

PAUSE_SECONDS = 1.0

_Memory = dict[tuple[str, str], Remembered]


@dataclass(frozen=True, slots=True)
class Book:
    """What can be read of the book that cannot be written: the clients with channels, and the open episodes."""

    clients: Sequence[ClientRow] = ()
    episodes: Sequence[Episode] = ()


@dataclass(frozen=True, slots=True)
class _Due:
    """A message, and the episode once it is told."""

    channel: str
    body: Body
    told: Episode


def read_book(database: Database, results: Sequence[CheckResult]) -> Book:
    """What the database still tells of the book; nothing where it tells nothing."""
    checks = [result.name for result in results]
    try:
        return database.run(lambda conn: Book(store.list_clients(conn), store.list_open_episodes(conn, checks)))
    except DatabaseError:
        return Book()


def tell(
    results: Sequence[CheckResult],
    book: Book,
    file: AlertFile,
    sender: Sender,
    policy: Policy,
    *,
    host: str,
    clock: Clock,
    give_up_at: float = math.inf,
) -> DeliveryReport:
    """Send what is due by the rules of the book, as far as this host can know; what is over is left to the book.

    Before and after each message it is written down: one that was under way when a run died is sent again, marked.
    What was not received is due again at the next look. Raises Stopped.
    """
    if not policy.channels:
        return DeliveryReport()
    with file.turn(clock):
        now = clock.now()
        memory: _Memory = {one.episode.key: one for one in file.load(now)}
        # Who cannot remember cannot count either.
        policy = policy if file.save([*memory.values()]) else replace(policy, after=1)
        clients, problems = known_clients(book.clients, policy)
        opened = [one.check_name for one in book.episodes if one.opened_at is not None and not one.scope]
        seen = sight(results, clients, policy, alarmed=opened)
        due = _observe(seen, {one.key: one for one in book.episodes}, memory, now, policy, host)
        file.save([*memory.values()])
        report = _send(due, memory, file, sender, clock, give_up_at)
    return replace(report, problems=(*problems, *report.problems))


def _observe(
    seen: Sequence[Sighting],
    book: Mapping[tuple[str, str], Episode],
    memory: _Memory,
    now: datetime,
    policy: Policy,
    host: str,
) -> list[_Due]:
    """Write down what was seen, and return the messages that are due of it."""
    due: list[_Due] = []
    endless = replace(policy, close_after=sys.maxsize)
    for sighting in seen:
        known = memory.get(sighting.key)
        before = book.get(sighting.key)
        if known is not None:
            before = known.episode if before is None else joined(known.episode, before)
        after, kind = follow(before, sighting, now, endless)
        if after is None or (after.told_state is None and not after.bad_count):
            memory.pop(sighting.key, None)
            continue
        memory[sighting.key] = Remembered(
            after if kind is None else _untold(after, before), known is not None and known.may_have_arrived
        )
        if kind is not None and after.channel is not None:
            due.append(_Due(after.channel, message_body(sighting, after, kind, now, unbooked_by=host), after))
    return due


def _untold(after: Episode, before: Episode | None) -> Episode:
    """The episode as it is until its message has been received."""
    return replace(
        after,
        channel=before.channel if before else None,
        told_state=before.told_state if before else None,
        paged_at=before.paged_at if before else None,
        last_message_at=before.last_message_at if before else None,
        reminders=before.reminders if before else 0,
    )


def _send(
    due: Sequence[_Due], memory: _Memory, file: AlertFile, sender: Sender, clock: Clock, give_up_at: float
) -> DeliveryReport:
    end = min(give_up_at, clock.monotonic() + LONGEST_DELIVERY_SECONDS)
    usable = set(sender.channels)
    errors: dict[str, str] = {}
    written: set[str] = set()
    sent = failed = 0
    for one in due:
        if one.channel not in usable or clock.monotonic() >= end:
            continue
        if one.channel in written:
            clock.sleep(PAUSE_SECONDS)
        written.add(one.channel)
        known = memory[one.told.key]
        memory[one.told.key] = replace(known, may_have_arrived=True)
        file.save([*memory.values()])
        body = repeated(one.body) if known.may_have_arrived else one.body
        delivery = sender.send(one.channel, body, now=clock.now())
        if delivery.is_delivered:
            sent += 1
            memory[one.told.key] = Remembered(one.told)
        else:
            failed += 1
            errors.setdefault(one.channel, delivery.error)
            memory[one.told.key] = replace(known, may_have_arrived=known.may_have_arrived or delivery.may_have_arrived)
            if not delivery.is_about_message:
                usable -= {one.channel} if delivery.is_refused else sender.neighbours(one.channel)
        file.save([*memory.values()])
    problems = tuple(undelivered(name, error) for name, error in errors.items())
    return DeliveryReport(sent, failed, len(due) - sent, problems)
