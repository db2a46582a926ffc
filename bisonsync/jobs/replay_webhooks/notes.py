"""What became of the deliveries of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bisonsync.run import Problem
from bisonsync.store.webhooks import Outcome

COUNTS = (
    *("chosen", "processed", "duplicate", "ignored", "failed", "dead", "dead_again", "unknown_workspace"),
    *("mismatch", "test", "skipped", "broken"),
)
MAX_IDS_NAMED = 20


def _zeros() -> Counter[str]:
    return Counter(dict.fromkeys(COUNTS, 0))


@dataclass
class Notes:
    """Counts by status, and problems. ``dead_again``: known dead letters that were tried again and stay dead."""

    counts: Counter[str] = field(default_factory=_zeros)
    problems: list[Problem] = field(default_factory=list[Problem])
    warnings: list[str] = field(default_factory=list[str])
    _failed: list[int] = field(default_factory=list[int])
    _dead: list[int] = field(default_factory=list[int])

    def add(self, outcomes: Iterable[Outcome], *, known_dead: frozenset[int] = frozenset()) -> None:
        """Count what became of some."""
        for outcome in outcomes:
            is_known = outcome.status == "dead" and outcome.id in known_dead
            self.counts["dead_again" if is_known else outcome.status] += 1
            # Of millions that fail the first are told.
            if outcome.status == "failed" and len(self._failed) < MAX_IDS_NAMED:
                self._failed.append(outcome.id)
            elif outcome.status == "dead" and not is_known and len(self._dead) < MAX_IDS_NAMED:
                self._dead.append(outcome.id)

    def all_problems(self) -> tuple[Problem, ...]:
        """Those of single deliveries last: never with the error's own words, which may quote a payload."""
        found = list(self.problems)
        if count := self.counts["failed"]:
            found.append(_of(self._failed, "event_failed", f"{some(count)} failed, to be tried again"))
        if count := self.counts["dead"]:
            found.append(_of(self._dead, "event_dead", f"{some(count)} dead, not tried again by itself"))
        return tuple(found)

    def said(self, *units: str) -> str:
        """All of it in a line."""
        names = [name for name in COUNTS if name != "chosen" and self.counts[name]]
        parts = ", ".join(f"{self.counts[name]} {name.replace('_', ' ')}" for name in names)
        return f"{some(self.counts['chosen'], *units)}{f': {parts}' if parts else ''}"


def named(ids: Sequence[int]) -> str:
    """Ids in a message: the first of them."""
    more = f" and {len(ids) - MAX_IDS_NAMED} more" if len(ids) > MAX_IDS_NAMED else ""
    return ", ".join(str(number) for number in ids[:MAX_IDS_NAMED]) + more


def some(count: int, one: str = "delivery", more: str = "deliveries") -> str:
    """A count with its word."""
    return f"{count} {one if count == 1 else more}"


def _of(ids: Sequence[int], kind: str, what: str) -> Problem:
    return Problem(kind, f"{what}: {named(ids)}", f"see why: bisonsync inbox show {ids[0]}")
