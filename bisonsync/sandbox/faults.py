"""Faults: what can go wrong, to which requests it happens, and how often."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast, get_args

INSTEAD = ("status", "html", "failure", "reply")
"""Answered instead of the request, which then has no effect."""
DELIVERY = ("slow", "drip", "truncate", "reset", "close", "hang", "content_type")
"""The request has its effect; its answer arrives late, damaged or never."""
CONTENT = ("fields", "strings", "statuses", "no_id", "no_token", "meta", "duplicate", "empty_list", "empty_page")
"""The answer is wrong in itself."""
SCOPE = ("switch", "identity")
"""Before the request is served, its token acts in another workspace."""
AFTER = ("shift",)
"""After the request is served, accounts come and go."""

Kind = Literal[
    "status", "html", "failure", "reply",
    "slow", "drip", "truncate", "reset", "close", "hang", "content_type",
    "fields", "strings", "statuses", "no_id", "no_token", "meta", "duplicate", "empty_list", "empty_page",
    "switch", "identity", "shift",
]  # fmt: skip
_ONCE = frozenset(SCOPE + AFTER)
_READS = frozenset({*CONTENT, *AFTER} - {"fields", "strings", "no_token"})


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Address: `path` is a prefix, `workspace` the id of the acting (or named) workspace, `page` and `from_page`
    the page asked for (first page: 1; a cursor has none). Of the requests that fit, the first `after` are
    spared and then `times` are hit (None: all; for switch, identity and shift: once), each with probability `rate`.

    What the other fields mean depends on the kind: `effects.py` tells.
    """

    kind: Kind
    path: str = ""
    method: str = ""
    workspace: int | None = None
    page: int | None = None
    from_page: int | None = None
    after: int = 0
    times: int | None = None
    rate: float = 1.0

    status: int = 500
    statuses: tuple[int, ...] = ()
    body: str = "json"
    retry_after: str = ""
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
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown fault {self.kind!r}; there are {', '.join(get_args(Kind))}")
        if self.kind in ("switch", "identity") and self.to is None:
            raise ValueError(f"fault {self.kind} needs to=WORKSPACE-ID")


_TUPLES = frozenset({"statuses", "rows", "accounts", "drop", "words"})


def fault_from(values: Mapping[str, Any]) -> Fault:
    """Read a fault from JSON values. Raises ValueError naming what is unknown."""
    names = [f.name for f in fields(Fault)]
    unknown = sorted(set(values) - set(names))
    if unknown or "kind" not in values:
        raise ValueError(f"a fault has a kind and {', '.join(names[1:])}; unknown: {', '.join(unknown) or 'none'}")
    taken: dict[str, Any] = {name: _tuple(value) if name in _TUPLES else value for name, value in values.items()}
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


@dataclass(frozen=True, slots=True)
class Target:
    """What a fault's address is compared with."""

    method: str
    path: str
    workspace: int | None
    page: int | None
    bearer: str


def _fits(fault: Fault, target: Target) -> bool:
    if fault.kind == "switch" and target.bearer != "super-admin":
        return False
    if fault.kind == "identity" and target.bearer != "api-user":
        return False
    return (
        target.path.startswith(fault.path)
        and fault.method in ("", target.method)
        and fault.workspace in (None, target.workspace)
        and fault.page in (None, target.page)
        and (fault.from_page is None or (target.page is not None and target.page >= fault.from_page))
        and (fault.kind not in _READS or target.method == "GET")
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
        scope = self._hitting(target, SCOPE)
        instead = next(self._hitting(target, INSTEAD), None)
        served = () if instead else CONTENT
        return Hits(
            scope=[entry.fault for entry in scope],
            instead=instead.fault if instead else None,
            turn=instead.hits - 1 if instead else 0,
            content=[entry.fault for entry in self._hitting(target, served)],
            delivery=[entry.fault for entry in self._hitting(target, DELIVERY)],
            after=[entry.fault for entry in self._hitting(target, AFTER if served else ())],
        )

    def _hitting(self, target: Target, kinds: tuple[str, ...]) -> Iterator[Entry]:
        for entry in self.entries:
            fault = entry.fault
            if fault.kind not in kinds or not _fits(fault, target):
                continue
            entry.seen += 1
            times = 1 if fault.times is None and fault.kind in _ONCE else fault.times
            if entry.seen <= fault.after or (times is not None and entry.hits >= times):
                continue
            if fault.rate < 1 and self._random.random() >= fault.rate:
                continue
            entry.hits += 1
            yield entry


class Hits(NamedTuple):
    """The faults that hit one request, by the moment at which they act."""

    scope: list[Fault]
    instead: Fault | None
    turn: int
    content: list[Fault]
    delivery: list[Fault]
    after: list[Fault]


NO_HITS = Hits([], None, 0, [], [], [])
