"""What the rules for deliveries, which are functions of the database, need of this side: settings, and days ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisonsync.runner.session import Session

if TYPE_CHECKING:
    from bisonsync.store.db import Connection
    from bisonsync.store.partitions import Ahead

_SECTIONS = ("instances", "reporting_timezone", "webhooks")


def is_set(session: Session) -> bool:
    """Whether the settings say anything of what the rules need."""
    return any(key[0] in _SECTIONS for key in session.sources.entries)


def write_settings(session: Session, conn: Connection) -> None:
    """Hand what the rules need of the settings to the database."""
    from bisonsync.store import webhooks

    settings = session.settings
    webhooks.write_settings(
        conn,
        timezone=settings.reporting_timezone,
        store_bodies=settings.webhooks.store_bodies,
        base_urls={name: instance.base_url for name, instance in settings.instances.items()},
        former_urls={name: instance.former_urls for name, instance in settings.instances.items()},
    )


def keep_up(session: Session) -> Ahead:
    """Do what every door of the inbox does: write the settings, make the partitions of the days to come.

    Raises DatabaseError; for partitions only where today has no place.
    """
    from bisonsync.store import partitions

    session.bookkeeping.run(lambda conn: write_settings(session, conn))
    return partitions.make_days(partitions.briefly(session.bookkeeping))
