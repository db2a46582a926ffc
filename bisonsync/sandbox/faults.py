"""Faults: what can go wrong, to which requests it happens, and how often."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast, get_args

Instead = Literal["status", "html", "failure", "reply"]
"""Answered instead of the request, which then has no effect."""
Delivery = Literal["slow", "drip", "truncate", "reset", "close", "hang", "content_type"]
"""The request has its effect; its answer arrives late, damaged or never."""
Rows = Literal["statuses", "no_id", "meta", "links", "duplicate", "empty_list", "empty_page"]
"""A list is wrong in itself."""
Content = Literal["fields", "strings", "no_token"]
"""An object or the rows of a list are wrong in themselves."""
Scope = Literal["switch", "identity"]
"""Before the request is served, its token acts in another workspace."""
After = Literal["shift", "turn"]
"""After the page is served, accounts come and go, or the host turns to another way of paging."""
Webhooks = Literal["lose", "redeliver", "reorder", "wrap", "reword", "lower_type"]
"""The delivery of an event goes wrong; `path` is that of the URL it goes to, `event` its type."""
Kind = Instead | Delivery | Rows | Content | Scope | After | Webhooks


@cache
def kinds(*groups: Any) -> tuple[str, ...]:
    """List the kinds of these groups."""
    return tuple(kind for group in groups for kind in get_args(group))


KINDS = kinds(Instead, Delivery, Rows, Content, Scope, After, Webhooks)
_ONCE = frozenset(kinds(Scope, After))
_OF_LISTS = frozenset(kinds(Rows, After))
_SENDER_EMAILS = "/api/sender-emails"


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Address: `path` is a prefix (for the kinds of `Rows` and `After`: the sender emails, if not given), `workspace`
    the id of the acting (or named) workspace, `page` and `from_page` the page of a list (a cursor has none).
    Of the requests that fit, the first `after` are spared and then `times` are hit (None: all; for switch, identity,
    shift and turn: one), each with probability `rate`.

    What the other fields mean depends on the kind: `effects.py` tells.
    """

    kind: Kind
    path: str = ""
    method: str = ""
    workspace: int | None = None
    page: int | None = None
    from_page: int | None = None
    event: str = ""
    after: int = 0
    times: int | None = None
    rate: float = 1.0

    status: int = 500
    statuses: tuple[int, ...] = ()
    body: str = "json"
    retry_after: str = "seconds"
    headers: Mapping[str, str] = field(default_factory=_nothing)
    content_type: str = "text/html; charset=utf-8"
    seconds: float = 0.0
    fraction: float = 0.5
    rows: tuple[int, ...] = ()
    accounts: tuple[int, ...] = ()
    set: Mapping[str, Any] = field(default_factory=_nothing)
    drop: tuple[str, ...] = ()
    words: tuple[str, ...] = ("CONNECTED", "connected", "Not Connected", "Disconnected", "Failed", "Pending move")
    by: int = 0
    to: int | None = None
    insert: int = 0
    remove: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; there are {', '.join(KINDS)}")
        if self.kind in kinds(Scope) and self.to is None:
            raise ValueError(f"fault {self.kind} needs to=WORKSPACE-ID")
        if self.kind == "turn" and self.body not in ("both", "number", "cursor"):
            raise ValueError("fault turn needs body=both, number or cursor")
        for f in fields(self):
            if not _has_type(getattr(self, f.name), str(f.type)):
                raise ValueError(f"{f.name} of a fault is {f.type}, not {getattr(self, f.name)!r}")

    @property
    def is_of_campaigns(self) -> bool:
        return self.path.startswith("/api/campaigns")


def _has_type(value: Any, type_name: str) -> bool:
    if value is None:
        return type_name.endswith("None")
    expected = {"int": int, "flo": int | float, "tup": tuple, "Map": Mapping}.get(type_name[:3], str)
    return isinstance(value, cast(type, expected)) and not isinstance(value, bool)


def fault_from(values: Mapping[str, Any]) -> Fault:
    """Read a fault from JSON values. Raises ValueError naming what is unknown or of the wrong type."""
    types = {f.name: str(f.type) for f in fields(Fault)}
    unknown = sorted(set(values) - set(types))
    if unknown or "kind" not in values:
        raise ValueError(f"a fault has {', '.join(types)}; unknown: {', '.join(unknown) or 'its kind'}")
    taken: dict[str, Any] = {
        name: _tuple(value) if types[name].startswith("tuple") else value for name, value in values.items()
    }
    return Fault(**taken)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(cast(list[Any], value)) if isinstance(value, list | tuple) else (value,)


@dataclass(slots=True)
class Entry:
    """A fault in force, with the number of requests that fitted and of those that were hit."""

    id: int
    fault: Fault
    seen: int = 0
    hits: int = 0


class Target(NamedTuple):
    """What a fault's address is compared with; `bearer` is the kind of the token."""

    method: str
    path: str
    workspace: int | None
    page: int | None
    bearer: str
    event: str = ""

    @property
    def is_list(self) -> bool:
        return self.page is not None


class Hits(NamedTuple):
    """The faults that hit one request, by the moment at which they act; `turn` counts the hits of `instead`."""

    scope: list[Fault]
    instead: Fault | None
    turn: int
    content: list[Fault]
    delivery: list[Fault]
    after: list[Fault]


NO_HITS = Hits([], None, 0, [], [], [])


def _fits(fault: Fault, target: Target) -> bool:
    bearer = {"switch": "super-admin", "identity": "api-user"}.get(fault.kind, target.bearer)
    path = fault.path or (_SENDER_EMAILS if fault.kind in _OF_LISTS else "")
    return (
        target.path.startswith(path)
        and bearer == target.bearer
        and fault.method in ("", target.method)
        and fault.event.lower() in ("", target.event)
        and fault.workspace in (None, target.workspace)
        and fault.page in (None, target.page)
        and (fault.from_page is None or (target.page is not None and target.page >= fault.from_page))
        and (fault.kind not in _OF_LISTS or target.is_list)
    )


class FaultBook:
    """The faults in force, in the order in which they were added."""

    def __init__(self, faults: Iterable[Fault], random_: random.Random) -> None:
        self._random = random_
        self._next_id = 1
        self.entries: list[Entry] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> int:
        """Put a fault in force and return its number."""
        entry = Entry(self._next_id, fault)
        self._next_id += 1
        self.entries.append(entry)
        return entry.id

    def clear(self, fault_id: int | None = None) -> None:
        """Take one fault, or all, out of force."""
        self.entries = [] if fault_id is None else [e for e in self.entries if e.id != fault_id]

    def pick(self, target: Target) -> Hits:
        """Count the request for the faults that it fits, and return those that hit it."""
        scope = [entry.fault for entry in self._hitting(target, Scope)]
        instead = next(self._hitting(target, Instead), None)
        served = () if instead else (Rows, Content)
        return Hits(
            scope=scope,
            instead=instead.fault if instead else None,
            turn=instead.hits - 1 if instead else 0,
            content=[entry.fault for entry in self._hitting(target, *served)],
            delivery=[entry.fault for entry in self._hitting(target, Delivery)],
            after=[] if instead else [entry.fault for entry in self._hitting(target, After)],
        )

    def pick_webhook(self, target: Target) -> list[Fault]:
        """Count a delivery for the faults that it fits, and return those that hit it."""
        return [entry.fault for entry in self._hitting(target, Webhooks)]

    def _hitting(self, target: Target, *groups: Any) -> Iterator[Entry]:
        wanted = kinds(*groups)
        for entry in self.entries:
            fault = entry.fault
            if fault.kind not in wanted or not _fits(fault, target):
                continue
            entry.seen += 1
            times = 1 if fault.times is None and fault.kind in _ONCE else fault.times
            if entry.seen <= fault.after or (times is not None and entry.hits >= times):
                continue
            if fault.rate < 1 and self._random.random() >= fault.rate:
                continue
            entry.hits += 1
            yield entry
