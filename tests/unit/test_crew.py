"""A crew over workspaces: each has its answer, whatever happens; no more are taken than can be read at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from conversation import HandClock

from bisonsync.api.lanes import Lanes
from bisonsync.errors import ApiError, BisonsyncError, GuardRefused, LeaseBusy, Stopped
from bisonsync.keys import WorkspaceKey
from bisonsync.polling import crew
from bisonsync.polling.results import outcome_of, problems_of_run, sum_up
from bisonsync.polling.visit import Tally, Visit
from bisonsync.run import WorkspaceAccess, WorkspaceOutcome, WorkspacesRun, hand_out
from bisonsync.store.registry import WorkspaceRow

PLAN = crew.Plan("rows")


class Host:
    """A client that says in which workspace a token acts, and counts how often it was asked."""

    def __init__(self, instance: str = "sim", acting: int | None = None) -> None:
        self.instance = instance
        self.acting = acting
        self.asked = 0
        self.stats: dict[str, Any] = {}

    def get_acting_workspace(self, token: str, *, who: str, meter: object = None) -> Any:
        self.asked += 1
        number = int(token) if self.acting is None else self.acting
        return SimpleNamespace(id=number, shown=f"client {number}")


def row(number: int, *, instance: str = "sim", total: int = 0) -> WorkspaceRow:
    return cast(
        "WorkspaceRow",
        SimpleNamespace(
            key=WorkspaceKey(instance, number),
            bison_instance=instance,
            bison_workspace_id=number,
            workspace_name=f"Client {number}",
            accounts_total=total,
        ),
    )


def run_over(
    rows: Sequence[WorkspaceRow], *, concurrency: int = 1, clients: dict[str, Host] | None = None, dry_run: bool = False
) -> WorkspacesRun:
    clients = {"sim": Host()} if clients is None else clients
    return cast(
        "WorkspacesRun",
        SimpleNamespace(
            job="poll-rows",
            run_id=uuid4(),
            started_at=datetime(2026, 1, 5, tzinfo=UTC),
            clock=HandClock(),
            dry_run=dry_run,
            progress=lambda what, done, total: None,
            workspaces=tuple(rows),
            claim=hand_out(rows),
            leases={},
            clients=clients,
            concurrency=dict.fromkeys(clients, concurrency),
            access={each.key: WorkspaceAccess(str(each.bison_workspace_id), "it") for each in rows},
        ),
    )


def words(row: WorkspaceRow, error: BisonsyncError) -> str:
    return f"{type(error).__name__}: {error.message}"


def test_what_goes_wrong_in_one_workspace_is_its_answer_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def visit(one: Visit) -> str:
        if one.row.bison_workspace_id == 2:
            raise ApiError("it is down")
        if one.row.bison_workspace_id == 3:
            raise KeyError("a surprise")
        return "done"

    rows = [row(number) for number in range(1, 5)] + [row(5, instance="gone")]

    visited = crew.over(run_over(rows, concurrency=2), visit, words, PLAN)

    assert visited.stop is None
    assert [(key.bison_workspace_id, answer) for key, answer in visited.answers.items()] == [
        (1, "done"),
        (2, "ApiError: it is down"),
        (3, "BisonsyncError: KeyError: 'a surprise'"),
        (4, "done"),
        (5, "ConfigError: instance gone is not in the settings"),
    ]
    assert "KeyError: 'a surprise'" in capsys.readouterr().err


@pytest.mark.parametrize(("side_by_side", "first"), [(False, 3), (True, 3 + crew.SPARE_WORKSPACES)])
def test_begins_with_what_it_can_read_at_once_and_asks_for_one_more_each_time(side_by_side: bool, first: int) -> None:
    rows = [row(number) for number in range(1, 10)]
    run, claim, asked = run_over(rows, concurrency=3), hand_out(rows[:-1]), list[int]()

    def counted(instance: str, count: int, among: AbstractSet[WorkspaceKey] | None = None) -> Sequence[WorkspaceRow]:
        asked.append(count)
        return claim(instance, count, among)

    run.claim = counted
    visited = crew.over(run, lambda one: "read", words, crew.Plan("rows", side_by_side=side_by_side))

    assert asked == [first, *[1] * 8]
    # The ninth is another host's.
    assert visited.answers == dict.fromkeys([each.key for each in rows[:-1]], "read")


def test_what_is_a_runs_own_is_handed_out_once_the_largest_first() -> None:
    claim = hand_out([row(1, total=5), row(2, total=500), row(3, total=50), row(4, instance="other", total=900)])

    taken = [*claim("sim", 2, {WorkspaceKey("sim", 1), WorkspaceKey("sim", 2)}), *claim("sim", 9), *claim("sim", 1)]

    assert [each.bison_workspace_id for each in taken] == [2, 1, 3]


def test_a_stop_is_told_and_what_it_kept_from_being_visited_has_its_answer() -> None:
    rows = [row(number) for number in range(1, 6)]
    run = run_over(rows)
    clock = cast("HandClock", run.clock)

    def visit(one: Visit) -> str:
        clock.stopped_by = 15
        return "committed"

    visited = crew.over(run, visit, words, PLAN)

    assert isinstance(visited.stop, Stopped)
    assert list(visited.answers.values()) == ["committed", *["Stopped: stopped by SIGTERM"] * 4]


def test_a_stop_does_not_wait_for_a_request_that_hangs() -> None:
    rows = [row(1)]
    run = run_over(rows)
    clock = cast("HandClock", run.clock)
    hangs, given_up = threading.Event(), list[bool]()

    def visit(one: Visit) -> None:
        one.lanes.submit(one.row.key, hangs.wait)
        waiting = one.lanes.submit(one.row.key, hangs.wait)
        clock.stopped_by = 15
        try:
            waiting.result()
        finally:
            given_up.append(waiting.cancelled())

    visited = crew.over(run, visit, lambda row, error: type(error), crew.Plan("rows", side_by_side=True))
    hangs.set()

    assert (visited.answers, given_up) == ({rows[0].key: Stopped}, [True])


def test_a_bug_in_the_answer_itself_is_not_silent() -> None:
    def failed(row: WorkspaceRow, error: BisonsyncError) -> None:
        raise ZeroDivisionError

    def visit(one: Visit) -> None:
        raise ApiError("it is down")

    with pytest.raises(ZeroDivisionError):
        crew.over(run_over([row(1)]), visit, failed, PLAN)


def visit_of(host: Host, lanes: Lanes | None = None) -> Visit:
    run = run_over([row(7)], clients={"sim": host})
    return Visit(run, run.workspaces[0], cast("Any", host), Tally(), lanes=lanes)


@pytest.mark.parametrize("lists", [1, 3])
def test_n_lists_of_a_workspace_cost_n_and_one_questions_whose_it_is(lists: int) -> None:
    host = Host()
    lanes = Lanes(2, name="test")
    visit = visit_of(host, lanes)

    for _ in range(lists):
        visit.prove(visit.ask_before())
        # The list is read here.
        visit.prove(lanes.submit(visit.row.key, visit.ask))
    lanes.close()

    assert host.asked == lists + 1


def test_an_answer_from_elsewhere_proves_nothing_and_stands_before_no_list() -> None:
    host = Host(acting=8)
    visit = visit_of(host)

    with pytest.raises(GuardRefused, match=r"it acts in workspace 8 \(client 8\), not in 7 \(Client 7\): nothing w"):
        visit.prove()
    host.acting = 7
    visit.prove(visit.ask_before())

    assert host.asked == 2


def test_the_answer_after_a_list_is_asked_for_anew_where_the_reader_brought_none() -> None:
    host = Host()
    visit = visit_of(host)

    visit.prove(visit.ask_before())
    visit.prove(None)

    assert host.asked == 2


@pytest.mark.parametrize(
    ("error", "verdict", "note"),
    [
        (Stopped(15), "skipped", ""),
        (LeaseBusy("another run switches"), "skipped", "another run switches"),
        (GuardRefused("it acts elsewhere"), "guarded", ""),
        (ApiError("it is down"), "failed", ""),
    ],
)
def test_what_an_error_makes_of_a_workspace(error: BisonsyncError, verdict: str, note: str) -> None:
    outcome = outcome_of(row(1), error, {"rows_read": 0})

    assert (outcome.verdict, outcome.note, outcome.committed) == (verdict, note, False)
    assert [problem.workspace for problem in outcome.problems] == ([] if verdict == "skipped" else ["sim/1"])


def test_a_run_is_busy_only_when_others_have_what_all_of_its_workspaces_need() -> None:
    run = run_over([row(1), row(2)])
    busy = outcome_of(row(1), LeaseBusy("another run switches"), {})
    failed = outcome_of(row(2), ApiError("it is down"), {})
    resting = WorkspaceOutcome(*row(2).key, "", "skipped", silent_note="not due")

    assert [problem.exit_code for problem in problems_of_run(run, [busy, busy], None)] == [75]
    assert problems_of_run(run, [busy, failed], None) == ()
    assert problems_of_run(run, [busy, resting], None) == ()
    assert [problem.exit_code for problem in problems_of_run(run, [busy, busy], Stopped(15))] == [143]
    assert sum_up(run, [busy, failed], ["rows_read"])["workspaces_failed"] == 1
