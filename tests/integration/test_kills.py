"""kill -9 of the real process at every point that matters: the mirror is whole, and the next run goes on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import cli
import psycopg
import pytest
from conftest import database
from faultproxy import Rule, Victim, said_by
from mirrored import CAMPAIGNS
from scene import CHANGES, Picture, Scene, assert_sums, end, scene

pytestmark = pytest.mark.kills

WORLD: dict[str, Any] = {"workspaces": 5, "accounts": 100, "skew": (34, 22)}
ROUNDS = 3

Arm = Callable[[Scene, Victim, int], Callable[[], bool]]


@pytest.fixture(scope="module")
def polled(server: psycopg.Connection[Any], server_dsn: str, template: str) -> Iterator[str]:
    """The name of a database whose mirror is complete, to be copied."""
    with database(server, server_dsn, template) as dsn:
        with scene(dsn, **WORLD) as made:
            assert made.poll().returncode == 0
        yield psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]  # type: ignore[misc]


@pytest.fixture
def stage(server: psycopg.Connection[Any], server_dsn: str, polled: str) -> Iterator[Scene]:
    with database(server, server_dsn, polled) as dsn, scene(dsn, **WORLD) as made:
        yield made


def in_database(when: str, family: str, name: str, *, first: int = 1, step: int = 0) -> Arm:
    """The n-th time that something is said or answered; n grows with the rounds by ``step``."""

    def arm(stage: Scene, victim: Victim, turn: int) -> Callable[[], bool]:
        rule: Rule = stage.proxy.at(when, said_by(family, name), victim.kill, nth=first + step * turn)  # type: ignore[arg-type]
        return rule.hit.is_set

    return arm


def at_request(path: str, *, first: int = 0, step: int = 1) -> Arm:
    """While a request is under way: the n-th of its kind gets no answer."""

    def arm(stage: Scene, victim: Victim, turn: int) -> Callable[[], bool]:
        stage.sandbox.clear_faults()
        stage.sandbox.add_fault("hang", path=path, after=first + step * turn, times=1)
        return lambda: bool(stage.sandbox.summary()["faults"][0]["hits"])

    return arm


POINTS: dict[str, Arm] = {
    "before-the-ledger-opens": in_database("commit", "runs", "open_run"),
    "after-the-ledger-opened": in_database("committed", "runs", "open_run"),
    "before-leases-are-taken": in_database("commit", "leases", "take_leases"),
    "after-leases-are-taken": in_database("committed", "leases", "take_leases"),
    "while-budget-is-taken": in_database("statement", "budgets", "lock_budget"),
    "before-a-read": in_database("committed", "visits", "start_read", step=1),
    "while-identity-is-asked": at_request("/api/users", step=2),
    "between-pages": at_request("/api/sender-emails", step=3),
    "at-the-fence": in_database("statement", "leases", "fence_lease", step=1),
    "after-the-fence": in_database("answered", "leases", "fence_lease", step=1),
    "before-the-rows": in_database("statement", "accounts", "upsert_accounts", step=1),
    "after-the-rows": in_database("answered", "accounts", "upsert_accounts", step=1),
    "before-the-tombstones": in_database("statement", "accounts", "tombstone_accounts", step=1),
    "after-the-tombstones": in_database("answered", "accounts", "tombstone_accounts", step=1),
    "at-the-state": in_database("statement", "visits", "record_read", step=1),
    "at-the-counts": in_database("answered", "visits", "record_result", step=1),
    "at-the-last-look": in_database("answered", "leases", "commit_before_expiry", step=1),
    "before-a-commit": in_database("commit", "visits", "record_result", step=1),
    "after-a-commit": in_database("committed", "visits", "record_result", step=1),
    "before-the-ledger-closes": in_database("commit", "runs", "close_run"),
    "after-the-ledger-closed": in_database("committed", "runs", "close_run"),
}


# Where another list says other words than accounts.
POINTS_OF_CAMPAIGNS: dict[str, Arm] = {
    "after-the-rows": in_database("answered", "campaigns", "upsert_campaigns", step=1),
    "after-the-tombstones": in_database("answered", "campaigns", "tombstone_campaigns", step=1),
    "before-a-commit": in_database("commit", "visits", "record_result", step=1),
    "after-a-commit": in_database("committed", "visits", "record_result", step=1),
}


@pytest.mark.parametrize("arm", POINTS_OF_CAMPAIGNS.values(), ids=POINTS_OF_CAMPAIGNS.keys())
def test_f01_a_kill_of_poll_campaigns_leaves_every_workspace_old_or_new(db: str, arm: Arm) -> None:
    with scene(db, CAMPAIGNS, **{**WORLD, "campaigns": 100}) as stage:
        assert stage.poll().returncode == 0

        test_f01_a_kill_leaves_every_workspace_old_or_new_and_the_next_run_goes_on(stage, arm)


@pytest.mark.parametrize("arm", POINTS.values(), ids=POINTS.keys())
def test_f01_a_kill_leaves_every_workspace_old_or_new_and_the_next_run_goes_on(stage: Scene, arm: Arm) -> None:
    for turn in range(ROUNDS):
        stage.churn()
        before, whole = stage.picture(), stage.picture().after_reading(stage.truth())
        known = stage.ledger()["run_id"]
        victim = Victim()
        is_reached = arm(stage, victim, turn)

        process = stage.start_victim(victim)
        try:
            wait_for(is_reached, process)
            process.send_signal(signal.SIGKILL)
            _, stderr = process.communicate(timeout=cli.PATIENCE)
        finally:
            end(process)
        stage.proxy.forget()
        stage.sandbox.clear_faults()

        assert (process.returncode, stderr) == (-signal.SIGKILL, "")
        assert_old_or_new(stage, before, whole, known)
        assert_next_run_goes_on(stage, whole)


@pytest.mark.parametrize("part", range(3))
def test_f01_a_kill_after_any_number_of_bytes_leaves_every_workspace_old_or_new(stage: Scene, part: int) -> None:
    for turn in range(ROUNDS):
        stage.churn()
        before, whole = stage.picture(), stage.picture().after_reading(stage.truth())
        known = stage.ledger()["run_id"]
        victim = Victim()
        stage.proxy.allow_bytes(4_000 + 3_800 * (ROUNDS * part + turn), victim.kill)

        process = stage.start_victim(victim)
        try:
            process.communicate(timeout=cli.PATIENCE)
        finally:
            end(process)
        stage.proxy.forget()

        assert process.returncode == -signal.SIGKILL
        assert_old_or_new(stage, before, whole, known)
        assert_next_run_goes_on(stage, whole)


def wait_for(is_reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    cli.wait_until(lambda: is_reached() or process.poll() is not None, "the point is reached")
    if process.poll() == -signal.SIGKILL:
        # The kill comes just before the proxy notes that it was there.
        cli.wait_until(is_reached, "the point is noted")
    assert is_reached(), process.communicate()


def assert_old_or_new(stage: Scene, before: Picture, whole: Picture, known: str) -> None:
    """Each workspace is wholly as before, without a part in the ledger, or wholly new, with exactly its counts there.

    ``known`` is the newest run before the one that was killed, which may have died before it was in the ledger.
    """
    # A commit that was sent before the kill may still be under way on the server.
    cli.wait_until(lambda: stage.sessions() == 0, "the sessions of the killed run have ended")
    now = stage.picture()
    run = stage.ledger()
    committed = {} if run["run_id"] == known else run["workspaces"]
    for workspace in stage.workspaces:
        old, new = before.of(workspace), whole.of(workspace)
        assert now.of(workspace) == (new if workspace in committed else old)
    for workspace, row in committed.items():
        expected = before.of(workspace).counts_until(whole.of(workspace))
        assert {name: row["counts"][name] for name in CHANGES} == expected


def assert_next_run_goes_on(stage: Scene, whole: Picture) -> None:
    """At once, on the same host: it makes the rest new, closes the lost run with its sums, and leaves nothing open."""
    before = stage.picture()
    lost = stage.open_runs()

    done = stage.poll()

    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    document = cli.document(done)
    assert document["verdict"] == "success"
    assert stage.picture() == whole
    assert {name: document["counts"][name] for name in CHANGES} == before.counts_until(whole)
    assert stage.open_runs() == []
    assert stage.held_leases() == 0
    assert_sums(stage.ledger(document["run_id"]))
    for run_id in lost:
        run = stage.ledger(run_id)
        assert (run["status"], run["lost"], run["exit_code"]) == ("failed", True, None)
        assert_sums(run)
