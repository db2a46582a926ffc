"""Sends the messages that are due from the outbox."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from bisonsync.api.slack_messages import check_message, repeated
from bisonsync.checks.episodes import MAIN_CHANNEL
from bisonsync.errors import ApiError, ApiUnavailable, ConfigError, Stopped
from bisonsync.run import Problem
from bisonsync.store import alerts as store
from bisonsync.store.alerts import ClaimedMessage

if TYPE_CHECKING:
    from bisonsync.api.slack import Delivery
    from bisonsync.clock import Clock
    from bisonsync.store.db import Database

# Longer than any attempt: what is claimed for longer belongs to a run that died.
CLAIM_SECONDS = 60.0
# The next run, a minute later, sends the rest.
LONGEST_DELIVERY_SECONDS = 45.0
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """How many messages were received, how many attempts failed, how many messages wait; why, per channel."""

    sent: int = 0
    failed: int = 0
    waiting: int = 0
    problems: tuple[Problem, ...] = ()


class Sender(Protocol):
    """What posts messages; ``send`` never raises for what the other side does."""

    @property
    def channels(self) -> frozenset[str]: ...

    def neighbours(self, channel: str) -> frozenset[str]: ...

    def send(self, channel: str, body: Mapping[str, Any], *, now: datetime) -> Delivery: ...


def deliver(
    database: Database, sender: Sender, *, now: datetime, clock: Clock, give_up_at: float = math.inf
) -> DeliveryReport:
    """Send what is due from the outbox, the oldest of each channel first, at most one message a second and channel.

    Each message is recorded as sent before it is, in a transaction of its own. A channel that fails is left for this
    run, and with it those of the same host. ``now`` is the database's time, ``give_up_at`` a monotonic instant.
    Raises DatabaseError and Stopped, and nothing for what the other side does.
    """
    began = clock.monotonic()
    end = min(give_up_at, began + LONGEST_DELIVERY_SECONDS)
    usable: set[str] = set(sender.channels)
    sent = failed = 0
    errors: dict[str, str] = {}
    while usable and clock.monotonic() < end:
        at = now + timedelta(seconds=clock.monotonic() - began)
        message = database.run(partial(store.claim_message, channels=sorted(usable), now=at, ttl_seconds=CLAIM_SECONDS))
        if message is None:
            break
        delivery = _send(database, sender, message, at, clock)
        at = now + timedelta(seconds=clock.monotonic() - began)
        _record(database, message, delivery, at)
        if delivery.is_delivered:
            sent += 1
            continue
        failed += 1
        errors.setdefault(message.channel, delivery.error)
        if not delivery.is_about_message:
            usable -= {message.channel} if delivery.is_refused else sender.neighbours(message.channel)
    waiting = database.run(store.count_waiting)
    return DeliveryReport(sent, failed, waiting, tuple(undelivered(name, error) for name, error in errors.items()))


def find_channel(channels: frozenset[str], name: str | None) -> str:
    """The channel of this name, in any case; the agency's own without one. Raises ConfigError."""
    named = {channel.casefold(): channel for channel in channels}
    found = named.get(MAIN_CHANNEL if name is None else name.strip().casefold() or "-")
    if found is not None:
        return found
    if name is None:
        raise ConfigError(
            "no Slack webhook is set up: [alerts] slack_webhook_url is missing",
            hint="make an incoming webhook in Slack, put its address into a file of mode 0600,"
            " and name that file in [alerts] slack_webhook_url_file",
        )
    others = ", ".join(sorted(filter(None, channels)))
    raise ConfigError(
        f"no channel {name!r} is in [alerts.channels]",
        hint=f"there are: {others}" if others else f"add {name!r} with the address of its webhook to [alerts.channels]",
    )


def post_test(sender: Sender, channel: str, *, host: str, now: datetime) -> None:
    """Post one message that says it is a test. Raises ApiError when it is not taken."""
    delivery = sender.send(channel, check_message(host), now=now)
    if delivery.is_delivered:
        return
    message = f"{channel_name(channel)}: the message was not taken: {delivery.error}"
    if delivery.is_refused:
        raise ApiError(message, hint="look in Slack whether the webhook still exists; a new one has a new address")
    raise ApiUnavailable(message, hint="try again; is there a proxy or firewall between this host and Slack?")


def channel_name(channel: str) -> str:
    """A channel as the settings name it."""
    return f"[alerts.channels] {channel}" if channel else "[alerts] slack_webhook_url"


def _send(database: Database, sender: Sender, message: ClaimedMessage, at: datetime, clock: Clock) -> Delivery:
    try:
        clock.sleep(message.wait_seconds)
    except Stopped:
        # It was not sent: the next run need not mark it as repeated.
        database.run(
            lambda conn: store.record_failure(
                conn,
                message.id,
                error="stopped before it was sent",
                next_attempt_at=at,
                may_have_arrived=False,
                holds_channel=True,
            )
        )
        raise
    body = repeated(message.body) if message.may_have_arrived else message.body
    return sender.send(message.channel, body, now=at)


def _record(database: Database, message: ClaimedMessage, delivery: Delivery, at: datetime) -> None:
    if delivery.is_delivered:
        database.run(lambda conn: store.record_delivery(conn, message.id, at))
        return
    pause = 0.0
    if delivery.retry_after_seconds is not None:
        pause = delivery.retry_after_seconds
    elif delivery.is_refused:
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(message.attempts - 1, 10), LONGEST_PAUSE_SECONDS)
    database.run(
        lambda conn: store.record_failure(
            conn,
            message.id,
            error=delivery.error,
            next_attempt_at=at + timedelta(seconds=pause),
            may_have_arrived=delivery.may_have_arrived,
            holds_channel=not delivery.is_about_message,
        )
    )


def undelivered(channel: str, error: str) -> Problem:
    """What an operator is told of a channel that took no message."""
    return Problem(
        "alerts",
        f"{channel_name(channel)}: a message could not be delivered: {error}; it is kept and sent again",
        f"bisonsync alerts test --channel {channel}" if channel else "bisonsync alerts test",
        exit_code=0,
    )
