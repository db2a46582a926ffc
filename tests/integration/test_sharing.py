"""Several hosts with the same crontab: runs that start together share the workspaces, by the real command line."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cli
import pytest
from faultproxy import Victim, said_by
from scene import Scene, end, scene

WORKSPACES = list(range(1, 9))
# One request at a time: a run begins with this many workspaces, and asks for one more whenever one is done.
AT_ONCE = 3
NARROW = {f"BISONSYNC_INSTANCES__{cli.INSTANCE.upper()}__CONCURRENCY": "1"}


@pytest.fixture
def stage(db: str) -> Iterator[Scene]:
    with scene(db, workspaces=len(WORKSPACES), accounts=64) as made:
        made.env = NARROW
        yield made


@contextmanager
def standing(stage: Scene, *starts: Sequence[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Polls that were started one after another, have what they can read at once, and go on after the block."""
    processes: list[subprocess.Popen[str]] = []
    try:
        with stage.sandbox.lock:
            for arguments in starts:
                before, runs = stage.held_leases(), len(stage.open_runs())
                processes.append(stage.start(*arguments, direct=True))
                held = min(before + AT_ONCE, len(WORKSPACES))
                cli.wait_until(lambda runs=runs: len(stage.open_runs()) > runs, "it has begun")
                cli.wait_until(lambda held=held: stage.held_leases() >= held, "it has its leases")
            yield processes
    except BaseException:
        for process in processes:
            end(process)
        raise


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, list[int]]:
    """The workspaces of a run by verdict."""
    found: dict[str, list[int]] = {}
    for one in cli.document(done)["workspaces"]:
        found.setdefault(one["verdict"], []).append(one["id"])
    return found


def times_read(stage: Scene) -> dict[int, int]:
    rows = stage.conn.execute(
        "SELECT bison_workspace_id, count(*) FROM email_sync_log_workspaces WHERE committed_at IS NOT NULL GROUP BY 1"
    ).fetchall()
    return dict(rows)


def held(stage: Scene) -> set[int]:
    rows = stage.conn.execute("SELECT bison_workspace_id FROM job_leases WHERE holder IS NOT NULL").fetchall()
    return {number for (number,) in rows}


def hold_elsewhere(stage: Scene, *workspaces: int) -> None:
    """Let a run on another host hold workspaces."""
    for workspace in workspaces:
        stage.conn.execute(
            "INSERT INTO job_leases (job, bison_instance, bison_workspace_id, holder, host, pid, process_key,"
            " generation, heartbeat_at, expires_at) VALUES ('poll-accounts', %s, %s, %s, 'elsewhere.example.com', 4711,"
            " 'another-boot/pid:[1]/4711/99', 7, now(), now() + interval '1 hour')",
            (cli.INSTANCE, workspace, uuid.UUID(int=1)),
        )


@pytest.mark.stock
@pytest.mark.parametrize("hosts", [2, 3])
def test_runs_that_start_together_share_the_workspaces_and_read_none_twice(stage: Scene, hosts: int) -> None:
    with standing(stage, *[()] * hosts) as processes:
        pass
    done = [cli.finish(process) for process in processes]

    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * hosts
    shares = [set(verdicts(one)["complete"]) for one in done]
    assert all(shares)
    assert sorted(number for share in shares for number in share) == WORKSPACES
    assert times_read(stage) == dict.fromkeys(WORKSPACES, 1)
    assert stage.picture().live == stage.truth()
    assert stage.held_leases() == 0
    for one, share in zip(done, shares, strict=True):
        assert set(verdicts(one).get("skipped", [])) == set(WORKSPACES) - share
        assert cli.document(one)["counts"]["workspaces_total"] == len(WORKSPACES)


def test_what_another_run_has_read_meanwhile_is_left_alone(stage: Scene) -> None:
    with standing(stage, ()) as (slow,):
        mine = held(stage)
        number = stage.sandbox.add_fault("hang", path="/api/", workspace=min(mine))
    other = stage.poll()
    stage.sandbox.clear_faults(number)
    done = cli.finish(slow)

    assert (other.returncode, done.returncode) == (0, 0)
    assert set(verdicts(done)["complete"]) == mine
    assert times_read(stage) == dict.fromkeys(WORKSPACES, 1)
    errors = {one["error"] for one in cli.document(done)["workspaces"] if one["id"] not in mine}
    assert errors == {"read by another run meanwhile"}
    assert all(f"pid {slow.pid}" in one["error"] for one in cli.document(other)["workspaces"] if one["id"] in mine)


def test_a_run_that_finds_all_read_since_it_began_has_done_its_part(stage: Scene) -> None:
    """As --jitter lets it: what was read while it waited is young enough."""
    victim = Victim()
    rule = stage.proxy.at("committed", said_by("runs", "open_run"), victim.pause)
    late = stage.start_victim(victim)
    cli.wait_until(rule.hit.is_set, "it has begun")
    assert stage.poll().returncode == 0
    stage.sandbox.forget_requests()

    late.send_signal(signal.SIGCONT)
    done = cli.finish(late)

    assert (done.returncode, cli.document(done)["verdict"]) == (0, "success")
    assert verdicts(done) == {"skipped": WORKSPACES}
    assert stage.sandbox.summary()["requests"]["total"] == 0


def test_what_a_killed_run_had_begun_and_what_not_is_read_by_the_other(stage: Scene) -> None:
    with standing(stage, (), ()) as (killed, other):
        killed.kill()
        killed.wait()
        end(killed)
    done = cli.finish(other)

    assert (done.returncode, done.stderr) == (0, "")
    assert verdicts(done) == {"complete": WORKSPACES}
    assert stage.picture().live == stage.truth()


def test_what_failed_on_another_host_is_tried_by_this_one(stage: Scene) -> None:
    """A host without a way to the API comes to the end of its share first, and would else fail the others' too."""
    with standing(stage, ()) as (process,):
        mine = held(stage)
        broken = cli.finish(stage.start("--deadline", "1ms", direct=True))
    done = cli.finish(process)

    assert set(verdicts(broken)["failed"]) == set(WORKSPACES) - mine
    assert (done.returncode, done.stderr) == (0, "")
    assert verdicts(done) == {"complete": WORKSPACES}
    assert stage.picture().live == stage.truth()


def test_what_failed_is_free_for_others_at_once(stage: Scene) -> None:
    """Else a host that fails all that is left holds it while the others look for more, and they end."""
    stage.env = {"BISONSYNC_POLLING__READ_TIMEOUT": "4s"}
    refused = stage.sandbox.add_fault("status", status=404, path="/api/sender-emails", workspace=1)
    hanging = stage.sandbox.add_fault("hang", path="/api/", workspace=2)
    process = stage.start(direct=True)
    cli.wait_until(lambda: held(stage) == set(WORKSPACES[1:]), "the first has failed")

    stage.sandbox.clear_faults(refused)
    other = stage.poll()
    stage.sandbox.clear_faults(hanging)
    done = cli.finish(process)

    assert (other.returncode, verdicts(other)["complete"]) == (0, [1])
    assert (done.returncode, verdicts(done)["failed"]) == (3, [1])
    assert stage.picture().live == stage.truth()


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "not ended"])
def test_what_a_lost_host_held_is_taken_once_its_leases_have_ended(stage: Scene, ends: bool) -> None:
    hold_elsewhere(stage, 1, 2)

    with standing(stage, ()) as (process,):
        if ends:
            stage.conn.execute("UPDATE job_leases SET expires_at = now() WHERE host = 'elsewhere.example.com'")
    done = cli.finish(process)

    assert done.returncode == 0
    assert set(verdicts(done)["complete"]) == set(WORKSPACES if ends else WORKSPACES[2:])
    skipped = [one["error"] for one in cli.document(done)["workspaces"] if one["verdict"] == "skipped"]
    assert len(skipped) == (0 if ends else 2)
    assert all("held by another run: pid 4711 on elsewhere.example.com" in error for error in skipped)


def test_when_nothing_is_left_to_take_the_run_says_who_has_it(stage: Scene) -> None:
    hold_elsewhere(stage, *WORKSPACES)

    done = stage.poll()

    assert (done.returncode, cli.document(done)["verdict"]) == (75, "skipped")
    assert "elsewhere.example.com" in done.stderr


@pytest.mark.parametrize(
    ("state", "first"),
    [
        ("last_complete_at = now() - bison_workspace_id * interval '10 minutes'", {6, 7, 8}),
        ("last_complete_at = now() + (bison_workspace_id - 9) * interval '10 minutes'", {1, 2, 3}),
        (
            "last_complete_at = CASE WHEN bison_workspace_id NOT IN (2, 4, 5) THEN last_complete_at END",
            {2, 4, 5},
        ),
        ("last_complete_at = date_trunc('hour', now()) - interval '1 day', total = bison_workspace_id % 5", {4, 3, 8}),
    ],
    ids=["oldest", "the other way round", "never read", "largest"],
)
def test_the_longest_unread_come_first_and_of_those_the_largest(stage: Scene, state: str, first: set[int]) -> None:
    assert stage.poll().returncode == 0
    stage.conn.execute(f"UPDATE workspace_sync_state SET {state}".encode())

    with standing(stage, ()) as (process,):
        begun = held(stage)
    done = cli.finish(process)

    assert (begun, done.returncode) == (first, 0)
    assert times_read(stage) == dict.fromkeys(WORKSPACES, 2)


def test_workspaces_that_are_named_are_taken_at_once_and_read_in_any_case(stage: Scene) -> None:
    named = [argument for number in (1, 2, 3, 4, 5) for argument in ("-w", str(number))]

    with standing(stage, named) as (process,):
        cli.wait_until(lambda: stage.held_leases() == 5, "it has all that were named")
        stage.conn.execute(
            "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_attempt_at,"
            " interval_seconds) SELECT %s, n, 'accounts', now(), 180 FROM generate_series(1, 8) AS n",
            (cli.INSTANCE,),
        )
    done = cli.finish(process)

    assert done.returncode == 0
    assert verdicts(done) == {"complete": [1, 2, 3, 4, 5]}


def test_a_dry_run_takes_nothing_and_reads_all_beside_others(stage: Scene) -> None:
    hold_elsewhere(stage, *WORKSPACES)

    done = stage.poll("--dry-run")

    assert done.returncode == 0
    assert verdicts(done) == {"complete": WORKSPACES}
    assert stage.one("SELECT max(generation) FROM job_leases") == 7


def test_campaigns_are_shared_by_their_own_reads(stage: Scene) -> None:
    """That the accounts were read says nothing of the campaigns."""
    with stage.sandbox.lock:
        processes = [cli.start_cli(["poll-campaigns", "--json"], stage.environment(direct=True)) for _ in range(2)]
        cli.wait_until(lambda: stage.held_leases() == 2 * AT_ONCE, "both have their leases")
        stage.conn.execute(
            "INSERT INTO workspace_sync_state (bison_instance, bison_workspace_id, resource, last_attempt_at,"
            " interval_seconds) SELECT %s, n, 'accounts', now(), 180 FROM generate_series(1, 8) AS n",
            (cli.INSTANCE,),
        )
    done: list[Any] = [cli.finish(process) for process in processes]

    assert [one.returncode for one in done] == [0, 0]
    assert sorted(number for one in done for number in verdicts(one)["complete"]) == WORKSPACES
