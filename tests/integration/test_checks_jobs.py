"""The checks of runs, leases, clocks and pings in every state they have."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from looking import NOW, add_run, add_state, add_workspace, ago, examine, finding, insert, looking, set_up
from psycopg.conninfo import make_conninfo

from bisonsync.jobs import health
from bisonsync.settings.models import SCHEDULE
from bisonsync.store import leases

Connection = psycopg.Connection[Any]

POLL = {"poll-accounts": timedelta(minutes=3)}


@pytest.mark.parametrize("check", ["runs", "leases", "heartbeat"])
def test_what_may_not_be_read_is_unknown(db: str, check: str) -> None:
    with looking(make_conninfo(db, options="-c role=pg_signal_backend"), check) as look:
        (result,) = health.run(look, [check], on_bug=pytest.fail)

    assert result.state == "UNKNOWN"
    assert "permission denied" in result.detail


# runs


def test_runs_as_scheduled_are_ok(db: str, conn: Connection) -> None:
    for job in SCHEDULE:
        add_run(conn, job, ago(seconds=30))

    result = examine(db, "runs")

    assert result.state == "OK"
    assert result.detail == f"all {len(SCHEDULE)} jobs run: {', '.join(sorted(SCHEDULE))}"
    assert (result.value, result.hint) == (0.5, "")


@pytest.mark.parametrize(("hours", "state"), [(1, "WARNING"), (1.01, "CRITICAL")])
def test_f18_a_job_that_is_not_scheduled_is_alarmed(db: str, conn: Connection, hours: float, state: str) -> None:
    """A warning until its first interval is over; the other jobs run."""
    set_up(conn, ago(hours=hours))
    for job in ("poll-accounts", "health"):
        add_run(conn, job, ago(seconds=30))

    result = examine(db, "runs", schedule={**POLL, "snapshot-providers": timedelta(hours=1)})

    assert result.state == state
    assert finding(result, "snapshot-providers").detail.endswith("is it scheduled?")
    assert "never ran" in result.detail or state == "WARNING"
    assert result.hint == ("bisonsync snapshot-providers" if state == "WARNING" else _SCHEDULED)


_SCHEDULED = "crontab -l; systemctl list-timers 'bisonsync*'"


def test_f18_a_job_that_stopped_long_ago_is_alarmed(db: str, conn: Connection) -> None:
    add_run(conn, "poll-accounts", ago(days=46))

    result = examine(db, "runs", schedule=POLL)

    assert (result.state, result.hint) == ("CRITICAL", _SCHEDULED)
    assert result.detail == ("1 of 1 jobs: poll-accounts last started 46 d ago, meant to run every 3 min: 22079 missed")


def test_a_new_database_has_a_schedule_of_its_own(db: str, conn: Connection) -> None:
    """The jobs could not run before the first workspace was there."""
    set_up(conn, ago(days=40))
    add_run(conn, "health", ago(seconds=30))
    add_workspace(conn, 1, created_at=ago(minutes=2))

    assert examine(db, "runs", schedule=POLL | {"health": timedelta(minutes=1)}).state == "WARNING"


@pytest.mark.parametrize(("minutes", "state"), [(2, "UNKNOWN"), (4, "CRITICAL")])
def test_runs_are_unknown_while_no_job_ever_ran(db: str, conn: Connection, minutes: int, state: str) -> None:
    set_up(conn, ago(minutes=minutes))

    assert examine(db, "runs", schedule=POLL).state == state


def test_runs_without_a_schedule_are_not_in_use(db: str) -> None:
    assert examine(db, "runs", schedule={}).state == "not in use"


@pytest.mark.parametrize(
    ("seconds", "state", "missed"),
    [(360, "OK", None), (361, "WARNING", 1), (540, "WARNING", 2), (541, "CRITICAL", 2), (900, "CRITICAL", 4)],
)
def test_runs_missed_one_slot_warn_and_two_are_critical(
    db: str, conn: Connection, seconds: int, state: str, missed: int | None
) -> None:
    add_run(conn, "poll-accounts", ago(seconds=seconds))

    result = examine(db, "runs", schedule=POLL)

    assert (result.state, result.value) == (state, round(seconds / 180, 1))
    if missed:
        assert result.findings[0].detail.endswith(f": {missed} missed")


@pytest.mark.parametrize(("seconds", "state"), [(5, "OK"), (6, "UNKNOWN")])
def test_a_run_in_the_future_is_not_trusted(db: str, conn: Connection, seconds: int, state: str) -> None:
    add_run(conn, "poll-accounts", ago(-seconds))

    assert examine(db, "runs", schedule=POLL).state == state


@pytest.mark.parametrize("status", ["failed", "guarded", "partial"])
def test_the_last_verdict_is_told(db: str, conn: Connection, status: str) -> None:
    run_id = UUID("11111111-aaaa-4000-8000-000000000001")
    errors = [{"kind": "api", "message": "page 7 is missing"}, {"kind": "api", "message": "page 8"}]
    add_run(conn, "poll-accounts", ago(minutes=5))
    add_run(conn, "poll-accounts", ago(minutes=2), status, run_id=run_id, errors=errors)

    result = examine(db, "runs", schedule=POLL)

    assert result.state == "WARNING"
    assert result.detail == f"1 of 1 jobs: poll-accounts last run {status}: page 7 is missing (and 1 more)"
    assert result.hint == "bisonsync runs show 11111111"


def test_f18_runs_of_chosen_workspaces_do_not_pass_for_the_job(db: str, conn: Connection) -> None:
    set_up(conn, ago(hours=2))
    add_workspace(conn, 1)
    add_run(conn, "poll-accounts", ago(minutes=3), covers=[])

    never = examine(db, "runs", schedule=POLL)
    add_run(conn, "poll-accounts", ago(minutes=30))
    stopped = examine(db, "runs", schedule=POLL)

    assert (never.state, stopped.state) == ("CRITICAL", "CRITICAL")
    assert never.findings[0].detail == (
        "never ran: is it scheduled? (a run of chosen parts, as by -w, began 3 min ago; such runs do not count)"
    )
    assert "last started 30 min ago" in stopped.detail


def test_a_good_run_of_chosen_workspaces_ends_no_row_of_failures(db: str, conn: Connection) -> None:
    for minutes in (2, 5, 8):
        add_run(conn, "poll-accounts", ago(minutes=minutes), "failed")
    add_run(conn, "poll-accounts", ago(minutes=1), covers=[])

    result = examine(db, "runs", schedule=POLL)

    assert result.state == "CRITICAL"
    assert "failed 3 times in a row" in result.detail


def test_failed_runs_of_chosen_workspaces_are_no_failures_of_the_job(db: str, conn: Connection) -> None:
    add_run(conn, "poll-accounts", ago(minutes=2.5))
    for seconds in (30, 60, 90):
        add_run(conn, "poll-accounts", ago(seconds), "failed", covers=[])

    assert examine(db, "runs", schedule=POLL).state == "OK"


def test_a_job_that_is_run_instance_by_instance_is_judged_for_each(db: str, conn: Connection) -> None:
    for instance in ("sim", "other"):
        add_workspace(conn, 1, bison_instance=instance)
        add_run(conn, "poll-accounts", ago(minutes=1), covers=[instance])

    both = examine(db, "runs", schedule=POLL)
    conn.execute("UPDATE email_sync_logs SET started_at = %s WHERE covers = '{other}'", [ago(minutes=30)])
    one = examine(db, "runs", schedule=POLL)

    assert both.state == "OK"
    assert one.state == "CRITICAL"
    assert one.detail.startswith("1 of 1 jobs: poll-accounts for instance other: last started 30 min ago")


def test_an_instance_that_no_run_takes_on_is_alarmed(db: str, conn: Connection) -> None:
    set_up(conn, ago(days=40))
    add_workspace(conn, 1, created_at=ago(days=20))
    add_workspace(conn, 2, bison_instance="other", created_at=ago(minutes=4))
    add_run(conn, "poll-accounts", ago(minutes=1), covers=["sim"])

    result = examine(db, "runs", schedule=POLL)
    conn.execute("UPDATE client_registry SET created_at = %s WHERE bison_instance = 'other'", [ago(minutes=2)])
    young = examine(db, "runs", schedule=POLL)

    assert (result.state, young.state) == ("CRITICAL", "WARNING")
    assert finding(result, "poll-accounts").detail == "for instance other: never ran: is it scheduled?"


def test_a_success_or_differences_are_no_fault(db: str, conn: Connection) -> None:
    add_run(conn, "poll-accounts", ago(minutes=5), "failed")
    add_run(conn, "poll-accounts", ago(minutes=2), "differences")

    assert examine(db, "runs", schedule=POLL).state == "OK"


@pytest.mark.parametrize(("failures", "state"), [(1, "WARNING"), (2, "WARNING"), (3, "CRITICAL")])
def test_more_than_2_failures_in_a_row_are_critical(db: str, conn: Connection, failures: int, state: str) -> None:
    for number in range(5):
        add_run(conn, "poll-accounts", ago(minutes=40 + number), "failed")
    add_run(conn, "poll-accounts", ago(minutes=39), "partial")
    for number in range(failures):
        add_run(conn, "poll-accounts", ago(minutes=3 + number), "failed", errors=[{"kind": "api", "message": "down"}])
    # Neither failures nor successes.
    add_run(conn, "poll-accounts", ago(minutes=2), "skipped")
    add_run(conn, "poll-accounts", ago(minutes=1), "stopped")
    add_run(conn, "poll-accounts", ago(seconds=10), "running")

    result = examine(db, "runs", schedule=POLL)

    assert result.state == state
    if failures == 3:
        assert result.findings[0].detail == "failed 3 times in a row: down"
        assert result.hint.startswith("bisonsync runs show ")


def test_a_lost_run_is_told_as_lost(db: str, conn: Connection) -> None:
    add_run(conn, "poll-accounts", ago(minutes=2), "failed", lost=True)

    assert examine(db, "runs", schedule=POLL).findings[0].detail == "last run lost: it says nothing of why"


@pytest.mark.parametrize(
    ("interval", "minutes", "state"), [(3, 60, "OK"), (3, 61, "WARNING"), (30, 90, "OK"), (30, 91, "WARNING")]
)
def test_a_run_that_does_not_end_is_told(db: str, conn: Connection, interval: int, minutes: int, state: str) -> None:
    run_id = add_run(conn, "poll-accounts", ago(minutes=minutes), "running")
    add_run(conn, "poll-accounts", ago(minutes=1))

    result = examine(db, "runs", schedule={"poll-accounts": timedelta(minutes=interval)})

    assert result.state == state
    if state != "OK":
        assert result.findings[0].detail == "running for 61 min on worker" if minutes == 61 else True
        assert result.hint == f"bisonsync runs show {str(run_id)[:8]}"


def test_other_jobs_runs_say_nothing(db: str, conn: Connection) -> None:
    add_run(conn, "poll-accounts", ago(minutes=1))
    for minutes in range(5):
        add_run(conn, "workspaces-discover", ago(minutes=minutes), "failed")

    assert examine(db, "runs", schedule=POLL).state == "OK"


# leases


def hold(conn: Connection, number: int = 1, *, run: bool = True, **values: Any) -> UUID:
    """A lease of poll-accounts, taken 2 minutes before NOW by a run on another host, renewed 10 s ago."""
    holder = add_run(conn, "poll-accounts", values.pop("started_at", ago(minutes=2)), "running") if run else uuid4()
    key = {"job": "poll-accounts", "bison_instance": "sim", "bison_workspace_id": number}
    fields = {"host": "worker", "pid": 77, "process_key": "elsewhere/77/1", "heartbeat_at": ago(seconds=10)}
    insert(conn, "job_leases", **{**key, "holder": holder, **fields, "expires_at": ago(seconds=-50), **values})
    return holder


def test_leases_never_taken_are_unknown(db: str) -> None:
    result = examine(db, "leases")

    assert (result.state, result.detail) == ("UNKNOWN", "no job took a lease yet")


def test_leases_that_are_free_are_ok(db: str, conn: Connection) -> None:
    insert(conn, "job_leases", job="poll-accounts", bison_instance="sim", bison_workspace_id=1)

    assert examine(db, "leases").state == "OK"


def test_a_lease_of_a_run_at_work_is_ok(db: str, conn: Connection) -> None:
    hold(conn)

    result = examine(db, "leases")

    assert (result.state, result.value) == ("OK", 120)


@pytest.mark.parametrize(("seconds", "state"), [(900, "OK"), (901, "WARNING"), (3600, "WARNING"), (3601, "CRITICAL")])
def test_a_lease_held_for_long_is_told_with_its_holder(db: str, conn: Connection, seconds: int, state: str) -> None:
    add_workspace(conn, 1)
    holder = hold(conn, started_at=ago(seconds=seconds))

    result = examine(db, "leases")

    assert (result.state, result.value) == (state, seconds)
    if seconds == 901:
        assert result.detail == (
            "1 of 1 held: poll-accounts sim/1 Client 1: pid 77 on worker, since 15 min: works on and on"
        )
        assert result.hint == f"bisonsync runs show {str(holder)[:8]}  # and on worker: ps -fp 77"


def test_a_lease_that_no_run_holds_is_told_with_a_command_that_works(db: str, conn: Connection) -> None:
    hold(conn)
    conn.execute("DELETE FROM email_sync_logs")

    result = examine(db, "leases")

    assert result.detail.endswith("no run of the ledger holds it")
    assert result.hint == "bisonsync runs running  # and on worker: ps -fp 77"


@pytest.mark.parametrize(("seconds", "state"), [(50, "OK"), (51, "WARNING")])
def test_a_holder_that_stands_still_is_told(db: str, conn: Connection, seconds: int, state: str) -> None:
    """After half of the lease's life without a sign of life."""
    hold(conn, heartbeat_at=ago(seconds=seconds), expires_at=ago(seconds=seconds - 100))

    result = examine(db, "leases")

    assert result.state == state
    if state != "OK":
        assert result.findings[0].detail == "pid 77 on worker, since 2 min: no sign of life for 51 s"


@pytest.mark.parametrize(("seconds", "state"), [(180, "OK"), (181, "WARNING")])
def test_a_long_life_is_no_leave_to_be_silent(db: str, conn: Connection, seconds: int, state: str) -> None:
    hold(conn, heartbeat_at=ago(seconds=seconds), expires_at=ago(hours=-2))

    assert examine(db, "leases").state == state


@pytest.mark.parametrize(("seconds", "state"), [(-1, "OK"), (0, "WARNING")])
def test_a_lease_that_ran_out_unreleased_is_told(db: str, conn: Connection, seconds: int, state: str) -> None:
    hold(conn, heartbeat_at=ago(seconds=1), expires_at=ago(seconds=seconds))

    result = examine(db, "leases")

    assert result.state == state
    if state != "OK":
        assert "and was not released" in result.detail
        assert result.hint == "bisonsync poll-accounts"


def test_a_holder_that_died_on_this_host_is_told(db: str, conn: Connection) -> None:
    place = leases.process_key().rpartition("/")[0].rpartition("/")[0]
    hold(conn, process_key=f"{place}/4194303/1", pid=4194303)

    result = examine(db, "leases")

    assert result.state == "WARNING"
    assert result.findings[0].detail.endswith("its process is gone; the next run takes it over")


def test_a_holder_that_no_run_is_known_of_is_told(db: str, conn: Connection) -> None:
    hold(conn, run=False)

    result = examine(db, "leases")

    assert result.state == "WARNING"
    assert result.findings[0].detail == "pid 77 on worker: no run of the ledger holds it"


def test_a_lease_of_a_run_that_ended_is_told(db: str, conn: Connection) -> None:
    holder = hold(conn)
    conn.execute("UPDATE email_sync_logs SET status = 'success' WHERE run_id = %s", [holder])

    assert examine(db, "leases").findings[0].detail.endswith("its run has ended (success)")


def test_a_lease_without_an_end_is_told(db: str, conn: Connection) -> None:
    hold(conn, expires_at=None)

    assert examine(db, "leases").state == "WARNING"


@pytest.mark.parametrize(("seconds", "state"), [(5, "OK"), (6, "UNKNOWN")])
def test_a_lease_renewed_in_the_future_is_unknown(db: str, conn: Connection, seconds: int, state: str) -> None:
    hold(conn, heartbeat_at=ago(-seconds))

    assert examine(db, "leases").state == state


# clock


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, "OK"), (5, "OK"), (5.1, "WARNING"), (60, "WARNING"), (60.1, "CRITICAL")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_clocks_that_differ_are_told(db: str, seconds: float, sign: int, state: str) -> None:
    result = examine(db, "clock", host_now=ago(seconds * sign))

    assert (result.state, result.value) == (state, seconds)
    if seconds == 60.1:
        assert result.detail == f"this host is 60 s {'behind' if sign > 0 else 'ahead of'} the database"
        assert result.hint == "timedatectl status"


@pytest.mark.parametrize(("seconds", "state"), [(5, "OK"), (6, "WARNING"), (60, "WARNING"), (61, "CRITICAL")])
@pytest.mark.parametrize("place", ["workspace_sync_state", "email_sync_logs"])
def test_times_in_the_future_are_told(db: str, conn: Connection, place: str, seconds: int, state: str) -> None:
    if place == "email_sync_logs":
        add_run(conn, "poll-accounts", ago(-seconds), finished_at=None)
    else:
        add_workspace(conn, 1)
        add_state(conn, 1, last_complete_at=ago(-seconds))

    result = examine(db, "clock")

    assert (result.state, result.value) == (state, seconds)
    if seconds == 6:
        assert result.detail == f"{place} holds a time 6 s in the future: the database's clock was set back"


# heartbeat


def pinged(conn: Connection, job: str = "poll-accounts", **values: Any) -> None:
    """A job whose ping arrived a minute ago."""
    fields = {"host": "worker", "last_attempt_at": ago(minutes=1), "last_ok_at": ago(minutes=1), **values}
    insert(conn, "heartbeats", **{"job": job, **fields})


def test_pings_that_nobody_asked_for_are_not_in_use(db: str) -> None:
    assert examine(db, "heartbeat").state == "not in use"


def test_pings_asked_for_and_never_sent_are_unknown(db: str) -> None:
    assert examine(db, "heartbeat", heartbeats_expected=True).state == "UNKNOWN"


def test_pings_that_arrive_are_ok(db: str, conn: Connection) -> None:
    pinged(conn)
    # A host that does not run the job any more.
    pinged(conn, host="old", last_attempt_at=ago(days=2), last_ok_at=ago(days=2), last_error="refused")

    result = examine(db, "heartbeat")

    assert (result.state, result.detail) == ("OK", "the pings of poll-accounts arrive")


def test_a_ping_that_failed_is_told(db: str, conn: Connection) -> None:
    pinged(conn)
    pinged(conn, "prune", last_ok_at=ago(minutes=30), last_error="HTTP 404")

    result = examine(db, "heartbeat")

    assert result.state == "WARNING"
    assert result.detail == ("1 of 2 jobs: prune on worker: the last ping failed: HTTP 404; last arrived 30 min ago")
    assert result.hint.startswith("bisonsync prune  # ")


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("workspaces-discover", "workspaces discover"),
        ("webhooks-ensure", "webhooks ensure"),
        ("dead-letters-retry", "dead-letters retry"),
        ("replay-webhooks", "replay-webhooks"),
    ],
)
def test_the_command_of_a_ping_is_one_that_there_is(db: str, conn: Connection, job: str, words: str) -> None:
    pinged(conn, job, last_error="HTTP 404")

    assert examine(db, "heartbeat").hint.startswith(f"bisonsync {words}  # ")


@pytest.mark.parametrize(("seconds", "state"), [(540, "OK"), (541, "WARNING")])
def test_a_ping_is_missed_after_3_intervals(db: str, conn: Connection, seconds: int, state: str) -> None:
    pinged(conn, last_attempt_at=ago(seconds=seconds), last_ok_at=ago(seconds=seconds))

    assert examine(db, "heartbeat").state == state


def test_a_job_that_stopped_pinging_a_week_ago_is_forgotten(db: str, conn: Connection) -> None:
    pinged(conn, last_attempt_at=ago(days=7), last_ok_at=ago(days=7))

    assert examine(db, "heartbeat").state == "not in use"


def test_the_time_of_a_look_is_that_of_the_database(db: str, conn: Connection) -> None:
    """Nothing here looks at the time by itself: a look a year earlier finds the same."""
    year = timedelta(days=365)
    add_run(conn, "poll-accounts", NOW - year)

    assert examine(db, "runs", schedule=POLL, now=NOW - year).state == "OK"
