"""What goes wrong in an agency gives the alarm of its own name at the next look, and no other without a cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cli import environment, start_cli, wait_until
from office import Connection, Office

from bisonsync.sandbox import Sandbox
from bisonsync.settings.models import SCHEDULE

# Everything but the poll ran when the day began; what is looked at here is seconds old.
OTHER_JOBS = tuple(job for job in SCHEDULE if job != "poll-accounts")
SHIFTED = {
    "email_sync_logs": ("started_at", "finished_at"),
    "email_sync_log_workspaces": ("committed_at",),
    "workspace_sync_state": ("last_attempt_at", "last_complete_at", "read_started_at", "shrink_pending_since"),
    "job_leases": ("heartbeat_at", "expires_at"),
    "api_health_logs": ("timestamp",),
    "bisonsync_private.workspace_tokens": ("minted_at", "verified_at"),
}


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    """Three workspaces with 90, 40 and 20 accounts, in which all is well."""
    with Sandbox(workspaces=3, accounts=150, skew=(90, 40)) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        assert office.poll().code == office.run("snapshot-providers").code == 0
        _other_jobs_ran(office)
        yield office


def _other_jobs_ran(office: Office) -> None:
    for job in OTHER_JOBS:
        office.conn.execute(
            "INSERT INTO email_sync_logs (run_id, job, status, started_at, finished_at)"
            " VALUES (gen_random_uuid(), %s, 'success', now(), now())",
            [job],
        )


def pass_time(office: Office, minutes: float) -> None:
    """Let so much time pass in which only the poll does not run."""
    for table, columns in SHIFTED.items():
        moved = ", ".join(f'"{name}" = "{name}" - make_interval(secs => %(seconds)s)' for name in columns)
        office.conn.execute(f"UPDATE {table} SET {moved}".encode(), {"seconds": 60 * minutes})
    _other_jobs_ran(office)


def look(office: Office, *arguments: str) -> dict[str, dict[str, Any]]:
    """The checks that are not well, by name."""
    done = office.run("health", "--json", *arguments)
    assert "Traceback" not in done.stderr
    bad = {check["name"]: check for check in done.document["checks"] if check["state"] not in ("OK", "not in use")}
    assert (done.code == 0) is (not bad)
    return bad


def alarms(bad: dict[str, dict[str, Any]]) -> set[str]:
    """The names of the checks that are alarmed by themselves."""
    return {name for name, check in bad.items() if check["caused_by"] is None}


def kill_the_poller(office: Office) -> None:
    """In the middle of a run that holds all leases; and nobody starts it again."""
    office.sandbox.set_moods(latency=5.0)
    process = start_cli(["poll-accounts"], environment(office.dsn, office.sandbox))
    held = "SELECT count(*) FROM job_leases WHERE holder IS NOT NULL"
    wait_until(lambda: office.one(held) == 3, "the poll holds its leases")
    process.kill()
    process.communicate()
    office.sandbox.set_moods(latency=0.0)


def revoke_token(office: Office, number: int) -> None:
    with office.sandbox.lock:
        world = office.sandbox.world
        (token,) = [token for token in world.tokens.values() if token.workspace_id == number]
        world.revoke(token.id)


def shrink(office: Office, number: int, accounts: int) -> None:
    with office.sandbox.lock:
        world = office.sandbox.world
        for account_id in sorted(world.workspaces[number].accounts)[:accounts]:
            world.remove(account_id)


def hold_lease(office: Office, number: int) -> None:
    """A run on another host works on a workspace for twenty minutes, and shows signs of life."""
    office.conn.execute(
        "WITH run AS (INSERT INTO email_sync_logs (run_id, job, host, pid, status, started_at)"
        " VALUES (gen_random_uuid(), 'poll-accounts', 'other-host', 4711, 'running', now() - interval '20 minutes')"
        " RETURNING run_id)"
        " UPDATE job_leases SET holder = run.run_id, host = 'other-host', pid = 4711, process_key = 'other/4711/1',"
        " heartbeat_at = now(), expires_at = now() + interval '1 minute'"
        " FROM run WHERE bison_workspace_id = %s",
        [number],
    )


def fill_table(office: Office) -> None:
    office.conn.execute(
        "INSERT INTO email_sync_logs (run_id, job, status, started_at, command)"
        " SELECT gen_random_uuid(), 'migrate', 'success', now() - interval '9 days', repeat('x', 400)"
        " FROM generate_series(1, 6000)"
    )


FILLED = ("--threshold", "database.table=2MB")


def test_all_is_well(office: Office) -> None:
    assert look(office) == {}


def test_a_poller_killed_for_10_minutes(office: Office) -> None:
    kill_the_poller(office)
    pass_time(office, 11)

    bad = look(office)

    assert alarms(bad) == {"runs"}
    assert bad["runs"]["state"] == "CRITICAL"
    assert "poll-accounts last started 11 min ago" in bad["runs"]["detail"]
    assert bad["runs"]["hint"].startswith("crontab -l")
    assert bad["freshness"]["state"] == "CRITICAL"
    assert {name: check["caused_by"] for name, check in bad.items() if name != "runs"} == {
        "freshness": "runs",
        "leases": "runs",
    }


def test_a_revoked_token(office: Office) -> None:
    revoke_token(office, 2)
    office.poll()

    bad = look(office)

    assert alarms(bad) == {"tokens"}
    assert bad["tokens"]["state"] == "CRITICAL"
    assert "sim/2" in bad["tokens"]["detail"]
    assert "bisonsync workspaces mint-tokens" in bad["tokens"]["hint"]
    assert bad["runs"]["caused_by"] == bad["completeness"]["caused_by"] == "tokens"


def test_a_revoked_token_for_an_hour(office: Office) -> None:
    """The workspace grows stale and fails again and again: still one alarm."""
    revoke_token(office, 2)
    office.conn.execute("UPDATE workspace_sync_state SET consecutive_failures = 4 WHERE bison_workspace_id = 2")
    pass_time(office, 61)
    office.poll()

    bad = look(office)

    assert alarms(bad) == {"tokens"}
    assert bad["freshness"]["state"] == bad["workspace-failures"]["state"] == "CRITICAL"
    assert [each["detail"] for each in bad["freshness"]["findings"]] == ["accounts 61 min old; page"]


def test_a_workspace_that_shrank(office: Office) -> None:
    shrink(office, 1, 45)
    assert office.poll().code == 8

    bad = look(office)

    assert alarms(bad) == {"account-drop"}
    assert bad["account-drop"]["detail"].startswith("1 of 3 workspaces: sim/1 ")
    assert "45 of 90 accounts (50 %) missing, held back by the guard" in bad["account-drop"]["detail"]
    assert bad["account-drop"]["hint"].startswith("bisonsync poll-accounts -w sim/1 --allow-shrink  # ")


def test_a_lease_that_is_held(office: Office) -> None:
    pass_time(office, 11)
    hold_lease(office, 3)
    office.poll()

    bad = look(office)

    assert alarms(bad) == {"leases"}
    assert "pid 4711 on other-host, since 20 min" in bad["leases"]["detail"]
    assert bad["leases"]["hint"].startswith("bisonsync runs ")
    assert bad["leases"]["hint"].endswith("  # and on other-host: ps -fp 4711")
    assert bad["freshness"]["caused_by"] == "leases"
    assert [each["subject"].split()[0] for each in bad["freshness"]["findings"]] == ["sim/3"]


def test_a_table_that_is_full(office: Office) -> None:
    fill_table(office)

    bad = look(office, *FILLED)

    assert alarms(bad) == {"database"}
    assert "email_sync_logs" in bad["database"]["detail"]
    assert bad["database"]["hint"].startswith("bisonsync prune")


def test_all_of_it_at_once(office: Office) -> None:
    revoke_token(office, 2)
    shrink(office, 1, 45)
    office.poll()
    fill_table(office)
    kill_the_poller(office)
    pass_time(office, 11)
    hold_lease(office, 3)

    bad = look(office, *FILLED)

    assert alarms(bad) == {"tokens", "account-drop", "runs", "leases", "database"}
    causes = {each["subject"].split()[0]: each["caused_by"] for each in bad["freshness"]["findings"]}
    assert causes == {"sim/1": "account-drop", "sim/2": "tokens", "sim/3": "leases"}


def test_all_is_well_again(office: Office) -> None:
    """An alarm is over as soon as its reason is."""
    revoke_token(office, 2)
    kill_the_poller(office)
    pass_time(office, 11)
    assert office.poll().code == 3
    office.conn.execute(
        "UPDATE bisonsync_private.workspace_tokens SET token = %s, minted_at = now() WHERE bison_workspace_id = 2",
        [office.sandbox.mint(2)],
    )
    assert office.poll().code == 0

    assert look(office) == {}
