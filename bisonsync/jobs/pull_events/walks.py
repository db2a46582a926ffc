"""How far back an event log is read, and what an event of it is as a delivery."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from bisonsync.api.event_log import Part, Walk
from bisonsync.keys import WorkspaceKey
from bisonsync.models import StoredEvent, clean_value
from bisonsync.payloads import NotJson, read_body
from bisonsync.store.event_pulls import Pull
from bisonsync.store.webhooks import Delivery

# What a host keeps.
KEPT = timedelta(days=10)
# Read again each time: an event may show in the log a while after its moment.
OVERLAP = timedelta(hours=1)
# How often a log is read without relying on its order, and a host without one asked again.
WHOLE_EVERY = timedelta(days=1)


def first_walk(pull: Pull, now: datetime) -> Walk:
    """The read that brings a workspace up to date: once a day back to the last whole one, whatever the order."""
    is_whole = pull.whole_at is None or now - pull.whole_at >= WHOLE_EVERY
    since = pull.whole_until if is_whole else pull.pulled_until
    low = now - KEPT if since is None else max(now - KEPT, since - OVERLAP)
    return replace(_walk(low, now, "whole" if is_whole else "newest"), known=pull.pulled_until)


def interrupted_walk(pull: Pull, now: datetime) -> Walk | None:
    """The read that an earlier run did not end, where there is one."""
    if pull.walk_cursor is None or pull.walk_from is None or pull.walk_kind is None:
        return None
    walk = _walk(pull.walk_from, now, pull.walk_kind)
    return replace(walk, top=pull.walk_until, cursor=pull.walk_cursor)


def advanced(pull: Pull, part: Part, now: datetime) -> Pull:
    """How far a log is read with a part of a walk."""
    walk = part.walk
    pull = replace(pull, walk_from=None, walk_until=None, walk_kind=None, walk_cursor=None, absent_at=None)
    if not part.is_end:
        # Without a cursor nobody could go on with it.
        state = {"walk_from": walk.low, "walk_until": walk.top, "walk_kind": walk.kind, "walk_cursor": walk.cursor}
        return replace(pull, **state) if walk.cursor else pull
    top = max((moment for moment in (pull.pulled_until, walk.top) if moment is not None), default=None)
    if walk.kind == "whole":
        return replace(pull, pulled_until=top, whole_until=walk.top or pull.whole_until, whole_at=now)
    return replace(pull, pulled_until=top)


def delivery_of(event: StoredEvent, key: WorkspaceKey, now: datetime, *, keep_bodies: bool = False) -> Delivery:
    """An event of the log as a delivery that came when the host stored it, as far as that can be."""
    text = json.dumps(event.payload)
    try:
        body = read_body(text.encode(), keep_bodies=keep_bodies)
    except NotJson:
        # Nested too deep, or infinite: what can be kept of it, for whoever looks at the dead letters.
        body = read_body(json.dumps(clean_value(event.payload)).encode(), keep_bodies=keep_bodies)
    received_at = now if event.created_at is None else min(event.created_at, now)
    return Delivery(body.text, "events", raw=body.raw, received_at=received_at, hook=key)


def _walk(low: datetime, now: datetime, kind: Any) -> Walk:
    # A host that keeps longer is not asked for more; one that ignores the filter is left when it goes too far back.
    return Walk(low, now - KEPT - WHOLE_EVERY, now, kind, is_filtered=low > now - KEPT)
