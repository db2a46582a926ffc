"""kill -9 of a pull at every point that matters: nothing is left out or counts twice, and the next one goes on."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import cli
import pytest
from faultproxy import Victim, said_by
from scene import Scene, end, scene

pytestmark = pytest.mark.kills

# More than one part in the first workspace, where a part has 40 pages of 15.
EVENTS = {1: 650, 2: 40}


@pytest.fixture
def stage(db: str) -> Iterator[Scene]:
    began = datetime.now(UTC) - timedelta(days=1)
    with scene(db, workspaces=2, accounts=8, skew=(5,), start=began) as made:
        for workspace, count in EVENTS.items():
            made.sandbox.make_events(type="email_sent", count=count, workspace=workspace)
        yield made


def start(stage: Scene, *, direct: bool = False) -> subprocess.Popen[str]:
    return cli.start_cli(["pull-events", "--json"], stage.environment(direct=direct))


def stored(stage: Scene) -> Counter[int]:
    rows = stage.conn.execute("SELECT bison_workspace_id, count(*) FROM webhook_delivery_log GROUP BY 1").fetchall()
    return Counter(dict(rows))


def counted(stage: Scene) -> Counter[int]:
    rows = stage.conn.execute("SELECT bison_workspace_id, emails_sent_mtd FROM client_metrics").fetchall()
    return sum((Counter({workspace: count}) for workspace, count in rows), Counter[int]())


Arm = Callable[[Scene, Victim], Callable[[], bool]]


def in_database(when: str, family: str, name: str, *, nth: int = 1) -> Arm:
    def arm(stage: Scene, victim: Victim) -> Callable[[], bool]:
        return stage.proxy.at(when, said_by(family, name), victim.kill, nth=nth).hit.is_set  # type: ignore[arg-type]

    return arm


def at_request(path: str, after: int) -> Arm:
    def arm(stage: Scene, victim: Victim) -> Callable[[], bool]:
        stage.sandbox.add_fault("hang", path=path, after=after, times=1)
        return lambda: bool(stage.sandbox.summary()["faults"][0]["hits"])

    return arm


POINTS: dict[str, Arm] = {
    "between-pages-of-the-first-part": at_request("/api/events", 7),
    "between-pages-of-the-second-part": at_request("/api/events", 45),
    "while-identity-is-asked-again": at_request("/api/users", 4),
    "before-the-events": in_database("statement", "webhooks", "receive_deliveries", nth=2),
    "after-the-events": in_database("answered", "webhooks", "receive_deliveries", nth=2),
    "at-the-progress": in_database("answered", "event_pulls", "record_progress", nth=2),
    "before-a-commit": in_database("commit", "event_pulls", "record_progress", nth=3),
    "after-a-commit": in_database("committed", "event_pulls", "record_progress", nth=2),
}


@pytest.mark.parametrize("arm", POINTS.values(), ids=POINTS.keys())
def test_f01_a_kill_leaves_out_no_event_and_counts_none_twice(stage: Scene, arm: Arm) -> None:
    victim = Victim()
    is_reached = arm(stage, victim)

    process = start(stage)
    victim.is_(process)
    try:
        cli.wait_until(lambda: is_reached() or process.poll() not in (None, -signal.SIGKILL), "the point is reached")
        assert is_reached()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=cli.PATIENCE)
    finally:
        end(process)
    stage.proxy.forget()
    stage.sandbox.clear_faults()
    cli.wait_until(lambda: stage.sessions() == 0, "the sessions of the killed run have ended")
    after_kill = stored(stage)
    done = cli.finish(start(stage, direct=True))

    assert process.returncode == -signal.SIGKILL
    assert counted(stage) == Counter(EVENTS)
    assert stored(stage) == Counter(EVENTS)
    assert done.returncode == 0, done.stderr
    assert cli.document(done)["counts"]["new"] == 690 - after_kill.total()
    assert (stage.open_runs(), stage.held_leases()) == ([], 0)


def test_a_commit_whose_answer_is_lost_is_neither_repeated_nor_miscounted(stage: Scene) -> None:
    cut = stage.proxy.at(
        "committed", said_by("event_pulls", "record_progress"), lambda conversation: conversation.cut()
    )

    done = cli.finish(start(stage))

    assert cut.hit.is_set()
    assert done.returncode == 0, done.stderr
    counts = cli.document(done)["counts"]
    assert (counts["new"], counts["known"], counts["events_read"]) == (690, 0, 690)
    assert stored(stage) == counted(stage) == Counter(EVENTS)


def test_a_run_that_is_stopped_keeps_what_is_stored_and_the_next_goes_on(stage: Scene) -> None:
    stage.sandbox.add_fault("hang", path="/api/events", workspace=1, after=42, times=1)
    process = start(stage, direct=True)
    cli.wait_until(lambda: stage.sandbox.summary()["faults"][0]["hits"], "the second part is being read")

    process.send_signal(signal.SIGTERM)
    done = cli.finish(process)
    stage.sandbox.clear_faults()
    again = cli.finish(start(stage, direct=True))

    assert (done.returncode, cli.document(done)["verdict"]) == (143, "stopped")
    assert cli.document(done)["counts"]["new"] == 640
    assert cli.document(again)["counts"]["new"] == 50
    assert stored(stage) == counted(stage) == Counter(EVENTS)


def test_f23_two_pulls_at_once_share_the_workspaces_and_store_nothing_twice(stage: Scene) -> None:
    stage.sandbox.add_fault("hang", path="/api/events", workspace=1, after=3, times=1)
    first = start(stage, direct=True)
    cli.wait_until(lambda: stage.sandbox.summary()["faults"][0]["hits"], "the first pull holds its leases")

    second = cli.finish(start(stage, direct=True))
    end(first)

    assert second.returncode == 75
    assert "pid" in cli.document(second)["errors"][0]["message"]
