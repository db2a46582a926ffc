"""Months of webhooks as clients cause them: no false alarm by night, at weekends and at the end of summer time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from looking import add_workspace, insert, looking

from bisonsync.checks import find_check
from bisonsync.checks.check import CheckResult

Connection = psycopg.Connection[Any]

BERLIN = ZoneInfo("Europe/Berlin")
# A Monday; summer time ends in the night to the last Sunday of October, the last day of the fourth week.
BEGIN = datetime(2026, 9, 28)
OFFICE, SMALL, CLOCK, QUOTA = 1, 2, 3, 4
POLLED = QUOTA
STEP = timedelta(minutes=30)


@dataclass(frozen=True)
class Event:
    at: datetime
    workspace: int


def local(day: int, hours: float) -> datetime:
    """A moment by the clocks of Berlin."""
    naive = BEGIN + timedelta(days=day, hours=hours)
    return naive.replace(tzinfo=BERLIN).astimezone(UTC)


def events_of(day: int, chance: random.Random) -> Iterator[Event]:
    """What the clients' mails cause on one day."""
    yield from (Event(at, CLOCK) for at in between(local(day, 0), local(day + 1, 0), 30, chance))
    if day % 7 >= 5:
        return
    office = local(day, 9 + chance.uniform(0, 0.25)), local(day, 17 + chance.uniform(-0.25, 0.25))
    yield from (Event(at, OFFICE) for at in between(*office, 25, chance))
    yield from (Event(at, SMALL) for at in between(local(day, 8), local(day, 18), 0.6, chance))
    # Its mails are used up at any time of the day, and in the fifth week it sends nothing at all.
    if day < 28:
        used_up = local(day, chance.uniform(11, 17))
        yield from (Event(at, QUOTA) for at in between(local(day, 9), used_up, 40, chance))


def between(begin: datetime, end: datetime, an_hour: float, chance: random.Random) -> Iterator[datetime]:
    at = begin
    while (at := at + timedelta(hours=-math.log(1 - chance.random()) / an_hour)) < end:
        yield at


class World:
    """The database as deliveries and polls would have it at each moment."""

    def __init__(self, conn: Connection, events: list[Event]) -> None:
        self.conn = conn
        self.events = sorted(events, key=lambda event: event.at)
        for number in (OFFICE, SMALL, CLOCK, QUOTA):
            add_workspace(conn, number)
        key = {"bison_instance": "sim", "bison_workspace_id": POLLED}
        insert(conn, "workspace_sync_state", resource="accounts", verdict="complete", **key)
        insert(conn, "sender_emails_cache", bison_account_id=1, email_address="a@example.com", **key)

    def advance(self, now: datetime) -> None:
        """Deliver what is due, and poll the accounts of one of them every three minutes."""
        due = [event for event in self.events if event.at <= now]
        del self.events[: len(due)]
        self.conn.execute(
            "INSERT INTO webhook_delivery_log"
            " (received_at, bison_workspace_id, bison_instance, source, status, success)"
            " SELECT e.*, 'sim', 'receiver', 'processed', true FROM unnest(%s::timestamptz[], %s::bigint[]) AS e",
            [[event.at for event in due], [event.workspace for event in due]],
        )
        moved = [event.at for event in due if event.workspace == POLLED]
        if moved:
            seen_at = min(now, moved[-1] + timedelta(minutes=3))
            self.conn.execute("UPDATE sender_emails_cache SET updated_at = %s", [seen_at])
        self.conn.execute("UPDATE workspace_sync_state SET last_complete_at = %s", [now - timedelta(minutes=1)])


def test_a_month_of_habits_is_no_alarm_and_an_outage_is_one(db: str, conn: Connection) -> None:
    chance = random.Random(7)
    world = World(conn, [event for day in range(37) for event in events_of(day, chance)])

    with looking(db, "webhook-silence", reporting_timezone="Europe/Berlin") as given:
        look = find_check("webhook-silence").look

        def seen(now: datetime) -> CheckResult:
            world.advance(now)
            return look(replace(given, now=now))

        now = local(0, 0)
        while now < local(35, 0):
            # The third and the fourth week are as the others.
            step = STEP if not 14 <= (now - local(0, 0)).days < 26 else timedelta(days=1)
            now += step
            result = seen(now)
            assert result.state == "OK", (now.astimezone(BERLIN), result.detail)

        # Monday morning of the sixth week: at half past ten nothing arrives any more.
        seen(local(35, 10.5))
        kept = world.events
        world.events = []
        assert seen(local(35, 10.6)).state == "OK"
        outage = [seen(local(35, hours)) for hours in (11.5, 16, 27, 33.5)]
        world.events = kept
        over = seen(local(36, 0) + timedelta(hours=10))

    assert [result.state for result in outage] == ["CRITICAL"] * 4
    # The one that sends little is not missed on the first day, and the one that is polled has nothing to tell.
    assert [finding.workspace for finding in outage[0].findings] == [("sim", OFFICE), ("sim", CLOCK)]
    assert over.state == "OK"
