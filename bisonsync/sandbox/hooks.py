"""What the host keeps of its webhooks: who wants what sent where, what happened, and how its deliveries went."""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, overload

from bisonsync.sandbox.rows import Account, Tag

KEPT = timedelta(days=10)


@dataclass(slots=True)
class Webhook:
    """A registration; nothing keeps the same URL from being there twice."""

    id: int
    workspace_id: int
    name: str
    url: str
    events: list[str]
    created_at: str
    updated_at: str


class Happening(NamedTuple):
    """One thing that happened; the numbers that its type has no use for are 0."""

    type: str
    workspace_id: int
    workspace_name: str
    at: datetime
    account: Account
    lead: int = 0
    campaign_event: int = 0
    scheduled_email: int = 0
    reply: int = 0
    tag: Tag | None = None


@dataclass(slots=True)
class Attempt:
    """One try to deliver: what was answered, or why nothing was."""

    id: int
    at: datetime
    response_code: int | None
    error: str | None


@dataclass(slots=True, eq=False)
class Delivery:
    """One body on its way to one URL; `event` None: the sample of a type."""

    id: int
    workspace_id: int
    webhook_id: int | None
    url: str
    type: str
    at: datetime
    event: Event | None
    tries: int | None = None
    """How often it is tried; None: as often as the host does it."""
    status: Literal["pending", "succeeded", "failed"] = "pending"
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    is_copy: bool = False
    wrap: str = ""
    is_lower: bool = False
    is_reworded: bool = False
    delay: float = 0.0


@dataclass(slots=True, eq=False)
class Event:
    """A stored happening; its id is the only thing that tells it from another."""

    id: int
    happening: Happening
    stored_at: datetime
    deliveries: list[Delivery] = field(default_factory=list[Delivery])


class Newest(Sequence[int]):
    """The ids of `events[low:high]`, newest first, without making them all."""

    def __init__(self, events: Sequence[Event], low: int, high: int) -> None:
        self._events, self._high, self._count = events, high, max(0, high - low)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self._events[self._high - 1 - i].id for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._events[self._high - 1 - index].id


def _hold(_: list[Delivery]) -> None:
    """Nobody sends anything."""


class HookBook:
    """The registrations, the events of the last days and the numbers given to them."""

    def __init__(self, seed: int, *, clock: Callable[[], datetime], is_live: bool) -> None:
        self._seed = seed
        self._clock = clock
        self._is_live = is_live
        self._numbers: dict[str, int] = {}
        self._batch: list[Happening] | None = None
        self.instance_url = "http://localhost"
        self.webhooks: dict[int, Webhook] = {}
        self.events: dict[int, list[Event]] = {}
        self.attempts: dict[int, Delivery] = {}
        self.last_mail: dict[int, int] = {}
        """The newest scheduled e-mail of each lead."""
        self.send: Callable[[list[Delivery]], None] = _hold
        """Sends what faults leave of new deliveries."""
        self.resend: Callable[[list[Delivery]], None] = _hold
        """Sends deliveries as they are."""

    def now(self) -> datetime:
        """Tell the world's time."""
        return self._clock()

    def number(self, kind: str) -> int:
        """Give the next number of a kind: a reply, an event, ..."""
        number = self._numbers.get(kind, 0) + 1
        self._numbers[kind] = number
        return number

    def of(self, workspace_id: int) -> list[Webhook]:
        """List the registrations of a workspace."""
        return [webhook for webhook in self.webhooks.values() if webhook.workspace_id == workspace_id]

    @contextmanager
    def batch(self) -> Generator[None]:
        """Keep what happens until the end of the block, then store it in the order of its times."""
        if self._batch is not None:
            yield
            return
        held = self._batch = []
        try:
            yield
        finally:
            self._batch = None
            self._store(sorted(held, key=lambda happening: happening.at))

    def record(self, happenings: Iterable[Happening]) -> None:
        """Store what happened and send it to whoever wants it."""
        if self._batch is None:
            self._store(list(happenings))
        else:
            self._batch += happenings

    def _store(self, happenings: list[Happening]) -> None:
        if not happenings:
            return
        wanted: dict[tuple[int, str], list[Webhook]] = {}
        for webhook in self.webhooks.values():
            for event_type in dict.fromkeys(webhook.events):
                wanted.setdefault((webhook.workspace_id, event_type), []).append(webhook)
        outgoing: list[Delivery] = []
        newest = self._clock()
        for happening in happenings:
            webhooks = wanted.get((happening.workspace_id, happening.type), ())
            events = self.events.setdefault(happening.workspace_id, [])
            # A clock that runs finds what happened earlier only now.
            stored_at = newest if self._is_live else happening.at
            if events:
                stored_at = max(stored_at, events[-1].stored_at)
            event = Event(self.number("event"), happening, stored_at)
            events.append(event)
            for webhook in webhooks:
                delivery = self.new_delivery(webhook.workspace_id, webhook.url, happening.type, event, webhook.id)
                event.deliveries.append(delivery)
                outgoing.append(delivery)
        for workspace_id in {happening.workspace_id for happening in happenings}:
            self._forget(self.events.get(workspace_id, []), newest - KEPT)
        if outgoing:
            self.send(outgoing)

    def _forget(self, events: list[Event], before: datetime) -> None:
        if events and events[0].stored_at < before:
            gone = bisect_left(events, before, key=lambda event: event.stored_at)
            for event in events[:gone]:
                for delivery in event.deliveries:
                    for attempt in delivery.attempts:
                        self.attempts.pop(attempt.id, None)
            del events[:gone]

    def new_delivery(
        self, workspace_id: int, url: str, event_type: str, event: Event | None = None, webhook_id: int | None = None
    ) -> Delivery:
        """Make a delivery that is still to be sent."""
        at = event.stored_at if event else self._clock()
        return Delivery(self.number("delivery"), workspace_id, webhook_id, url, event_type, at, event)

    def copy_delivery(self, delivery: Delivery) -> Delivery:
        """Let the same event be delivered to the same URL once more."""
        copy = replace(delivery, id=self.number("delivery"), attempts=[], is_copy=True)
        if copy.event is not None:
            copy.event.deliveries.append(copy)
        return copy

    def find_event(self, workspace_id: int, event_id: int) -> Event:
        """Return a stored event. Raises KeyError."""
        events = self.events.get(workspace_id, [])
        index = bisect_left(events, event_id, key=lambda event: event.id)
        if index == len(events) or events[index].id != event_id:
            raise KeyError(event_id)
        return events[index]

    def uuid_of(self, event: Event) -> str:
        """Return the second name of an event."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sandbox:{self._seed}:{event.id}"))

    def between(self, workspace_id: int, low: datetime, high: datetime | None) -> tuple[list[Event], int, int]:
        """Find the events stored from `low` until before `high`: the list, and the positions in it."""
        events = self.events.get(workspace_id, [])
        first = bisect_left(events, low, key=lambda event: event.stored_at)
        last = bisect_left(events, high, key=lambda event: event.stored_at) if high else len(events)
        return events, first, last
