"""Counts requests: by path and status, by workspace, and how many were in flight at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any


class Flights:
    """Requests in flight, now and at most."""

    __slots__ = ("most", "now")

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def start(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)


class Counters:
    """What was asked of the sandbox since it started or was last told to forget."""

    def __init__(self) -> None:
        self.all = Flights()
        self.by_path: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.by_workspace: defaultdict[int | None, Counter[str]] = defaultdict(Counter)
        self.flights: defaultdict[int | None, Flights] = defaultdict(Flights)

    def start(self, workspace_id: int | None) -> None:
        self.all.start()
        self.flights[workspace_id].start()

    def answered(self, workspace_id: int | None, path: str, status: int) -> None:
        self.by_path[path][status] += 1
        self.by_workspace[workspace_id][f"{path} {status}"] += 1

    def finish(self, workspace_id: int | None) -> None:
        self.all.now -= 1
        self.flights[workspace_id].now -= 1

    def forget(self) -> None:
        """Start counting anew; what is in flight stays in flight."""
        self.by_path.clear()
        self.by_workspace.clear()
        for flights in (self.all, *self.flights.values()):
            flights.most = flights.now

    def total(self) -> int:
        return sum(sum(counts.values()) for counts in self.by_path.values())

    def summary(self) -> dict[str, Any]:
        return {
            "total": self.total(),
            "in_flight": self.all.now,
            "max_in_flight": self.all.most,
            "by_path": {
                path: {str(status): n for status, n in sorted(counts.items())}
                for path, counts in sorted(self.by_path.items())
            },
        }

    def summary_of(self, workspace_id: int) -> dict[str, Any]:
        counts = self.by_workspace.get(workspace_id, Counter())
        flights = self.flights.get(workspace_id, Flights())
        return {"total": sum(counts.values()), "max_in_flight": flights.most, "by_path": dict(sorted(counts.items()))}
