"""Makes two months of webhooks of two instances, with all that goes wrong on the way, and knows what they mean."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from webhook_events import BASE_URLS, NAMES, Maker, Sent
from webhook_model import Event, Legacy, Setting, Tenant, month_of

from bisonsync.store import partitions, webhooks

Connection = psycopg.Connection[Any]


@dataclass
class World:
    """Events, the deliveries of them in the order in which they are to arrive, and all that the rules need besides."""

    now: datetime
    setting: Setting
    events: list[Event]
    deliveries: list[Sent]
    again: Callable[[], list[Sent]]
    """Every event once more, spelled otherwise."""
    legacy_calls: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    """Of increment_metric, those with names that nobody has included."""

    def legacy(self, at: datetime) -> list[Legacy]:
        """What those calls mean that mean something, made at ``at``."""
        by_name = {name.lower(): tenant for tenant, name in NAMES.items()}
        meanings = {
            "emails_sent_mtd": "emails_sent", "replies_mtd": "replies", "positive_replies_mtd": "interested",
            "interested_mtd": "interested", "bounces_mtd": "bounced", "bounced_mtd": "bounced",
            "unsubscribes_mtd": "unsubscribed", "unsubscribed_mtd": "unsubscribed",
            "unique_replies_mtd": "unique_replies",
        }  # fmt: skip
        return [
            Legacy(by_name[name.strip().lower()], meanings[metric], amount, at)
            for name, metric, amount in self.legacy_calls
            if name.strip().lower() in by_name and metric in meanings
        ]


def make_world(
    seed: int,
    count: int,
    *,
    zone: str,
    now: datetime,
    repeated: float = 0.3,
    base_urls: Mapping[str, str] = BASE_URLS,
) -> World:
    """``count`` events with ``repeated`` of them delivered more than once."""
    maker = Maker(random.Random(seed), count, ZoneInfo(zone), now, base_urls)
    drafts = [maker.draft() for _ in range(count)]
    resent = maker.rng.choices(drafts, k=round(count * repeated))
    deliveries = [draft.send() for draft in drafts + resent]
    maker.rng.shuffle(deliveries)
    calls = [
        (
            maker.rng.choice([*NAMES.values(), "  acme ", "Nobody & Co"]),
            maker.rng.choice(_LEGACY),
            maker.rng.choice([-1, 1, 1, 2, 5]),
        )
        for _ in range(max(20, count // 200))
    ]
    return World(
        now,
        Setting(ZoneInfo(zone), base_urls, {maker.polled[0]: maker.polled[1]}, _polled_months(now, ZoneInfo(zone))),
        [draft.event for draft in drafts],
        deliveries,
        lambda: maker.rng.sample([draft.send() for draft in drafts], len(drafts)),
        calls,
    )


_LEGACY = (
    "emails_sent_mtd", "replies_mtd", "positive_replies_mtd", "interested_mtd", "bounces_mtd", "bounced_mtd",
    "unsubscribes_mtd", "unsubscribed_mtd", "unique_replies_mtd", "nonsense_mtd",
)  # fmt: skip


def _polled_months(now: datetime, zone: ZoneInfo) -> dict[tuple[Tenant, date], tuple[datetime, int]]:
    """One workspace was polled in this month and in the middle of the last."""
    last = (now.astimezone(zone).replace(day=1) - timedelta(days=12)).astimezone(UTC)
    return {(("west", 1), month_of(at, zone)): (at, 1000) for at in (last, now - timedelta(minutes=1))}


def install(conn: Connection, world: World) -> None:
    """Write the settings, workspaces, and what polls left before the first event."""
    with conn.transaction():
        webhooks.write_settings(
            conn, timezone=world.setting.zone.key, store_bodies=False, base_urls=world.setting.base_urls
        )
        partitions.make(conn, partitions.INBOX, date.today(), date.today() + timedelta(days=8))
        for tenant, name in NAMES.items():
            register(conn, tenant, name)
        for (instance, workspace), poll in world.setting.polls.items():
            conn.execute(
                "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_attempt_at,"
                " last_complete_at, verdict) VALUES (%s, %s, 'accounts', %s, %s, 'complete')",
                (instance, workspace, poll.at, poll.at),
            )
            for account, (is_connected, removed_at) in poll.accounts.items():
                conn.execute(
                    "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id,"
                    " email_address, status, status_as_of, removed_at) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    (
                        instance, workspace, account, f"box{account}@example.com",
                        "Connected" if is_connected else "Not connected", poll.at, removed_at,
                    ),
                )  # fmt: skip
        for ((instance, workspace), month), (as_of, figure) in world.setting.polled.items():
            conn.execute(
                "INSERT INTO client_metrics (bison_instance, bison_workspace_id, metric_month, as_of,"
                " emails_sent_polled, replies_polled, interested_polled, bounced_polled, unsubscribed_polled,"
                " unique_replies_polled)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (instance, workspace, month, as_of, *[figure] * 6),
            )


def register(conn: Connection, tenant: Tenant, name: str) -> None:
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES (%s, %s, %s)",
        (*tenant, name),
    )


def check_log(conn: Connection, world: World, acknowledged: Counter[int]) -> dict[int, datetime]:
    """Every acknowledged delivery is a row with the status that its event must have; when each first counted."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    reasons: dict[int, set[str | None]] = defaultdict(set)
    received: dict[int, datetime] = {}
    for number, status, reason, received_at in conn.execute(
        "SELECT substring(payload::text FROM 'mark-(\\d+)-')::integer, status, error_message, received_at"
        " FROM webhook_delivery_log WHERE source <> 'legacy'"
    ):
        found[number][status] += 1
        reasons[number].add(reason)
        if status in ("processed", "ignored"):
            received[number] = received_at
    for event in world.events:
        statuses, (one, rest) = found[event.number], event.final_statuses
        assert set(statuses) <= {one, rest}, (event, statuses, reasons[event.number])
        assert statuses.total() >= acknowledged[event.number] > 0, event
        if one != rest and not event.is_windowed:
            assert statuses[one] == 1, (event, statuses)
        if event.fate not in ("applied", "unknown_type"):
            assert all(reasons[event.number]), event
        if event.fate == "too_old":
            assert all(str(reason).startswith("too old") for reason in reasons[event.number])
    assert set(found) == {event.number for event in world.events}
    return received


def rows_of(conn: Connection) -> dict[str, list[Any]]:
    """What must not be written without need, with the transaction that wrote it."""
    return {
        table: conn.execute(f"SELECT xmin::text, t::text FROM {table} AS t ORDER BY t::text".encode()).fetchall()
        for table in ("client_metrics", "client_leads", "sender_emails_cache", "webhook_event_keys")
    }
