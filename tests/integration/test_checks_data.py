"""Checks of lists in every state: freshness, completeness, failures, lost accounts, tokens, quarantine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from looking import NOW, add_part, add_run, add_state, add_workspace, ago, examine, finding, insert, looking
from psycopg.conninfo import make_conninfo

from bisonsync.jobs import health
from bisonsync.jobs.poll_warmup import EVERY_SECONDS
from bisonsync.settings.models import SCHEDULE

Connection = psycopg.Connection[Any]


def add_token(conn: Connection, number: int, **values: Any) -> None:
    fields = {"token": "t", "token_name": "n", "status": "valid", "minted_at": ago(days=3), **values}
    insert(conn, "bisonsync_private.workspace_tokens", bison_instance="sim", bison_workspace_id=number, **fields)


def add_failure(conn: Connection, number: int, kind: str, verdict: str = "failed", **values: Any) -> None:
    """A workspace's last attempt, a minute ago, that ended with an error of this kind."""
    run_id = add_run(conn, "poll-accounts", ago(minutes=1), "partial")
    add_state(conn, number, verdict=verdict, last_error=f"{kind} it is", last_run_id=run_id, **values)
    add_part(conn, run_id, number, verdict, error={"kind": kind, "message": f"{kind} it is"}, committed_at=None)


# Every check of workspaces


@pytest.mark.parametrize("check", ["freshness", "completeness", "workspace-failures", "account-drop", "tokens"])
def test_no_active_workspace_is_unknown(db: str, conn: Connection, check: str) -> None:
    add_workspace(conn, 1, is_active=False)
    add_state(conn, 1)

    result = examine(db, check)

    assert (result.state, result.detail) == ("UNKNOWN", "no active workspace")
    assert result.hint == "bisonsync workspaces discover"


@pytest.mark.parametrize(
    ("check", "detail"),
    [
        ("completeness", "accounts never tried"),
        ("workspace-failures", "accounts never tried"),
        ("account-drop", "nothing was read in the last 60 min"),
        ("tokens", "no token is stored, and it was never read"),
        ("validation", "nothing was read yet"),
    ],
)
def test_a_workspace_never_read_is_unknown(db: str, conn: Connection, check: str, detail: str) -> None:
    add_workspace(conn, 1)

    result = examine(db, check)

    assert result.state == "UNKNOWN"
    assert detail in result.findings[0].detail
    assert result.hint


@pytest.mark.parametrize(
    "check", ["freshness", "completeness", "workspace-failures", "account-drop", "tokens", "validation"]
)
def test_what_may_not_be_read_is_unknown(db: str, conn: Connection, check: str) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1)
    as_another = make_conninfo(db, options="-c role=pg_signal_backend")

    with looking(as_another, check) as look:
        (result,) = health.run(look, [check], on_bug=pytest.fail)

    assert result.state == "UNKNOWN"
    assert "permission denied" in result.detail


# freshness


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (timedelta(0), "OK"),
        (timedelta(minutes=5), "OK"),
        (timedelta(minutes=5, seconds=1), "WARNING"),
        (timedelta(minutes=10), "WARNING"),
        (timedelta(minutes=10, seconds=1), "CRITICAL"),
        (timedelta(minutes=60), "CRITICAL"),
    ],
)
def test_freshness_warns_beyond_5_minutes_and_is_critical_beyond_10(
    db: str, conn: Connection, age: timedelta, state: str
) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, last_complete_at=NOW - age)

    result = examine(db, "freshness")

    assert result.state == state
    assert (result.value, result.unit) == (age.total_seconds(), "s")
    assert all("page" not in each.kinds for each in result.findings)


def test_freshness_pages_beyond_60_minutes(db: str, conn: Connection) -> None:
    for number, minutes in ((1, 1), (2, 12), (3, 61)):
        add_workspace(conn, number)
        add_state(conn, number, last_complete_at=ago(minutes=minutes))

    result = examine(db, "freshness")

    assert result.detail == "2 of 3 lists: oldest 61 min (sim/3 Client 3)"
    assert finding(result, "sim/3").detail == "accounts 61 min old; page"
    assert "page" in finding(result, "sim/3").kinds
    assert "page" not in finding(result, "sim/2").kinds
    assert {name: limit.value for name, limit in result.thresholds.items()} == {
        "warning": 300,
        "critical": 600,
        "page": 3600,
    }


def test_freshness_of_a_list_never_read_is_critical(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_workspace(conn, 2, display_name="Acme")
    add_state(conn, 1)

    result = examine(db, "freshness")

    assert (result.state, result.detail) == ("CRITICAL", "1 of 2 lists: 1 never read, oldest 60 s (sim/1 Client 1)")
    assert finding(result, "sim/2 Acme").detail == "accounts never read"
    assert result.hint == "bisonsync poll-accounts -w sim/2"

    conn.execute("UPDATE workspace_sync_state SET last_complete_at = NULL")

    assert examine(db, "freshness").hint == "bisonsync poll-accounts"


@pytest.mark.parametrize(("seconds", "state"), [(5, "OK"), (6, "UNKNOWN")])
def test_freshness_does_not_trust_a_read_in_the_future(db: str, conn: Connection, seconds: int, state: str) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, last_complete_at=ago(-seconds))

    result = examine(db, "freshness")

    assert result.state == state
    assert (result.hint == "bisonsync health clock") is (state == "UNKNOWN")


@pytest.mark.parametrize(
    ("minutes", "state"), [(25, "OK"), (26, "WARNING"), (50, "WARNING"), (51, "CRITICAL"), (299, "CRITICAL")]
)
def test_freshness_waits_longer_for_what_is_read_less_often(
    db: str, conn: Connection, minutes: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, last_complete_at=ago(minutes=minutes))

    result = examine(db, "freshness", schedule={"poll-accounts": timedelta(minutes=15)})

    assert result.state == state
    assert all("page" not in each.kinds for each in result.findings)


def test_freshness_takes_the_interval_of_the_list_when_its_job_is_not_scheduled(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, last_complete_at=ago(minutes=9), interval_seconds=900)

    assert examine(db, "freshness", schedule={}).state == "OK"
    assert examine(db, "freshness").state == "WARNING"


EVERY_JOB = {job: every for job, every in SCHEDULE.items() if job.startswith("poll-")}


@pytest.mark.parametrize("check", ["freshness", "completeness", "workspace-failures"])
def test_a_list_is_in_use_from_the_first_time_that_somebody_tried_it(db: str, conn: Connection, check: str) -> None:
    """Who does not poll campaigns hears nothing of them; who does hears of the job to look at."""
    add_workspace(conn, 1)
    add_state(conn, 1)
    unused = examine(db, check, schedule=EVERY_JOB)
    add_state(conn, 1, resource="campaigns", verdict="failed", last_complete_at=None, consecutive_failures=4)

    used = examine(db, check, schedule=EVERY_JOB)

    assert (unused.state, used.state) == ("OK", "CRITICAL")
    assert used.hint.startswith("bisonsync poll-campaigns ")
    assert "job:poll-campaigns" in used.findings[0].kinds


@pytest.mark.parametrize(("minutes", "state"), [(600, "OK"), (601, "WARNING")])
def test_a_list_that_rests_is_no_older_for_its_job_coming_more_often(
    db: str, conn: Connection, minutes: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1)
    add_state(conn, 1, resource="warmup", last_complete_at=ago(minutes=minutes), interval_seconds=21600)

    assert examine(db, "freshness", schedule=EVERY_JOB).state == state


def test_the_lists_have_the_jobs_and_intervals_of_the_settings(conn: Connection) -> None:
    rows = conn.execute("SELECT job, default_interval_seconds, rest_seconds FROM bisonsync_lists").fetchall()

    assert {job: seconds for job, seconds, rest in rows if not rest} == {
        job: SCHEDULE[job].total_seconds() for job, _, rest in rows if not rest
    }
    assert {job: rest for job, _, rest in rows if rest} == {"poll-warmup": EVERY_SECONDS}


def test_freshness_keeps_a_limit_that_was_set(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, last_complete_at=ago(minutes=8))

    result = examine(db, "freshness", limits={"warning": 420}, schedule={"poll-accounts": timedelta(minutes=15)})

    assert result.state == "WARNING"


def test_freshness_shows_the_limits_of_the_oldest_list(db: str, conn: Connection) -> None:
    """Value and limits belong together: monitoring compares them."""
    for number, minutes, interval in ((1, 20, 900), (2, 12, 180)):
        add_workspace(conn, number)
        add_state(conn, number, last_complete_at=ago(minutes=minutes), interval_seconds=interval)
    add_workspace(conn, 3)

    result = examine(db, "freshness", schedule={})

    assert (result.value, result.thresholds["warning"].value) == (1200, 1500)
    assert result.state == "CRITICAL"


# completeness


@pytest.mark.parametrize("verdict", ["incomplete", "guarded", "failed"])
def test_completeness_warns_of_each_verdict_but_complete(db: str, conn: Connection, verdict: str) -> None:
    for number in (1, 2):
        add_workspace(conn, number)
    add_state(conn, 1)
    add_state(conn, 2, verdict=verdict, last_error="page 7 is missing", last_complete_at=ago(minutes=4))

    result = examine(db, "completeness")

    assert (result.state, result.value) == ("WARNING", 1)
    assert result.detail == (
        f"1 of 2 lists not complete: sim/2 Client 2: accounts {verdict}: page 7 is missing; last complete 4 min ago"
    )
    assert result.hint == "bisonsync poll-accounts -w sim/2"


@pytest.mark.parametrize("verdict", ["complete", "skipped"])
def test_completeness_is_ok_when_every_list_is_complete(db: str, conn: Connection, verdict: str) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, verdict=verdict)

    assert examine(db, "completeness").state == "OK"


@pytest.mark.parametrize(("minutes", "state"), [(60, "WARNING"), (61, "CRITICAL"), (None, "CRITICAL")])
def test_completeness_is_critical_an_hour_after_the_last_complete_read(
    db: str, conn: Connection, minutes: int | None, state: str
) -> None:
    add_workspace(conn, 1)
    last = None if minutes is None else ago(minutes=minutes)
    add_state(conn, 1, verdict="incomplete", last_complete_at=last)

    assert examine(db, "completeness").state == state


@pytest.mark.parametrize(("hours", "state"), [(7, "WARNING"), (7.1, "CRITICAL")])
def test_completeness_gives_a_list_that_rests_an_hour_from_when_it_is_due(
    db: str, conn: Connection, hours: float, state: str
) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1)
    last = ago(hours=hours)
    add_state(conn, 1, resource="warmup", verdict="incomplete", last_complete_at=last, interval_seconds=21600)

    assert examine(db, "completeness", schedule=EVERY_JOB).state == state


# workspace-failures


@pytest.mark.parametrize(("failures", "state"), [(0, "OK"), (3, "OK"), (4, "CRITICAL")])
def test_workspace_failures_are_critical_beyond_3_in_a_row(
    db: str, conn: Connection, failures: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_workspace(conn, 2)
    add_state(conn, 1)
    add_state(conn, 2, verdict="failed", consecutive_failures=failures, last_error="HTTP 500")

    result = examine(db, "workspace-failures")

    assert (result.state, result.value) == (state, failures)
    if failures > 3:
        assert finding(result, "sim/2").detail == "accounts failed 4 times in a row: HTTP 500"
        assert result.hint == "bisonsync poll-accounts -v -w sim/2"


# account-drop


def read_of(conn: Connection, number: int, *, seen: int, removed: int, minutes: float = 2, **counts: int) -> None:
    """A workspace whose last read saw so many accounts and removed so many."""
    add_workspace(conn, number)
    add_state(conn, number, total=seen)
    run_id = add_run(conn, "poll-accounts", ago(minutes=minutes))
    known = {"accounts_read": seen, "inserted": 0, "restored": 0, "removed": removed, **counts}
    add_part(conn, run_id, number, counts=known, committed_at=ago(minutes=minutes))


@pytest.mark.parametrize(
    ("seen", "removed", "state"), [(100, 0, "OK"), (90, 10, "OK"), (89, 11, "CRITICAL"), (900, 100, "OK")]
)
def test_account_drop_is_critical_beyond_10_percent(
    db: str, conn: Connection, seen: int, removed: int, state: str
) -> None:
    read_of(conn, 1, seen=seen, removed=removed)

    result = examine(db, "account-drop")

    assert (result.state, result.value) == (state, 100 * removed / (seen + removed))


def test_account_drop_says_who_lost_how_many(db: str, conn: Connection) -> None:
    read_of(conn, 1, seen=100, removed=0)
    read_of(conn, 2, seen=35, removed=15)

    result = examine(db, "account-drop")

    assert result.detail == "1 of 2 workspaces: sim/2 Client 2: one read removed 15 of 50 accounts (30 %)"
    assert result.hint == "bisonsync poll-accounts -w sim/2  # brings back what the host lists again"


def test_account_drop_measures_against_what_was_there_before(db: str, conn: Connection) -> None:
    """Accounts that came with the same read do not hide those that went."""
    read_of(conn, 1, seen=100, removed=12, inserted=8, restored=2)

    assert examine(db, "account-drop").value == 11.8


def test_account_drop_is_over_when_the_accounts_are_back(db: str, conn: Connection) -> None:
    read_of(conn, 1, seen=50, removed=50, minutes=6)
    run_id = add_run(conn, "poll-accounts", ago(minutes=3))
    back = {"accounts_read": 95, "inserted": 0, "restored": 45, "removed": 0}
    add_part(conn, run_id, 1, counts=back, committed_at=ago(minutes=3))

    result = examine(db, "account-drop")

    assert (result.state, result.value) == ("OK", 5.0)


@pytest.mark.parametrize(("minutes", "state"), [(59, "CRITICAL"), (61, "OK")])
def test_account_drop_is_over_after_an_hour(db: str, conn: Connection, minutes: float, state: str) -> None:
    read_of(conn, 1, seen=50, removed=50, minutes=minutes)
    read_of(conn, 2, seen=50, removed=0)

    assert examine(db, "account-drop").state == state


@pytest.mark.parametrize(("missing", "state"), [(10, "OK"), (11, "CRITICAL"), (100, "CRITICAL")])
def test_account_drop_tells_what_the_guard_holds_back(db: str, conn: Connection, missing: int, state: str) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, verdict="guarded", shrink_pending_since=ago(minutes=7), shrink_missing_ids=list(range(missing)))
    conn.execute(
        "INSERT INTO sender_emails_cache"
        " (bison_instance, bison_workspace_id, bison_account_id, email_address, removed_at)"
        " SELECT 'sim', 1, n, n || '@example.com', CASE WHEN n >= 100 THEN now() END FROM generate_series(0, 119) AS n"
    )

    result = examine(db, "account-drop")

    assert result.state == state
    if state != "OK":
        share = f"{missing} of 100 accounts ({missing} %)"
        assert result.findings[0].detail == f"{share} missing, held back by the guard, for 7 min"
        assert result.hint.startswith("bisonsync poll-accounts -w sim/1 --allow-shrink")


def test_account_drop_may_leave_small_numbers_alone(db: str, conn: Connection) -> None:
    read_of(conn, 1, seen=2, removed=2)

    assert examine(db, "account-drop").state == "CRITICAL"
    assert examine(db, "account-drop", limits={"accounts": 2}).state == "OK"


def test_account_drop_of_a_workspace_without_accounts_is_no_drop(db: str, conn: Connection) -> None:
    read_of(conn, 1, seen=0, removed=0)

    result = examine(db, "account-drop")

    assert (result.state, result.value) == ("OK", 0)


# tokens


def test_tokens_that_work_are_ok(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_token(conn, 1)
    add_state(conn, 1)

    result = examine(db, "tokens")

    assert (result.state, result.detail) == ("OK", "all 1 workspaces have one that works")


@pytest.mark.parametrize(
    ("status", "detail"), [("refused", "its token was refused"), ("mismatch", "its token acts in another workspace")]
)
def test_tokens_that_verify_found_wrong_are_critical(db: str, conn: Connection, status: str, detail: str) -> None:
    add_workspace(conn, 1)
    add_token(conn, 1, status=status)
    add_state(conn, 1)

    result = examine(db, "tokens")

    assert (result.state, result.findings[0].detail) == ("CRITICAL", detail)
    assert result.hint == "bisonsync workspaces verify; bisonsync workspaces mint-tokens"


@pytest.mark.parametrize("kind", ["credentials", "guard"])
def test_tokens_that_the_last_read_found_wrong_are_critical(db: str, conn: Connection, kind: str) -> None:
    for number in (1, 2):
        add_workspace(conn, number)
        add_token(conn, number)
    add_state(conn, 1)
    add_failure(conn, 2, kind)

    result = examine(db, "tokens")

    assert (result.state, result.value) == ("CRITICAL", 1)
    assert result.detail == f"1 of 2 workspaces; sim/2 Client 2: {kind} it is"


def test_tokens_are_not_blamed_for_other_errors(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_token(conn, 1)
    add_failure(conn, 1, "api_unavailable")

    assert examine(db, "tokens").state == "OK"


def test_tokens_renewed_since_the_last_read_are_given_a_chance(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_token(conn, 1, minted_at=ago(seconds=10))
    add_failure(conn, 1, "credentials")

    assert examine(db, "tokens").state == "OK"


def test_tokens_missing_where_the_read_needed_one_are_critical(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_token(conn, 1, token=None, status="minting", minted_at=None)
    add_failure(conn, 1, "credentials")

    result = examine(db, "tokens")

    assert (result.state, result.hint) == ("CRITICAL", "bisonsync workspaces mint-tokens")


def test_tokens_may_stand_in_the_settings(db: str, conn: Connection) -> None:
    """A workspace that was read without a stored token has one."""
    add_workspace(conn, 1)
    add_state(conn, 1)

    assert examine(db, "tokens").state == "OK"


@pytest.mark.parametrize(("hours", "state"), [(23, "WARNING"), (25, "OK")])
def test_tokens_warn_of_a_super_admin_key_refused_today(db: str, conn: Connection, hours: int, state: str) -> None:
    add_workspace(conn, 1)
    add_token(conn, 1)
    add_state(conn, 1)
    error = {"kind": "credentials", "workspace": None, "message": "the super-admin key of instance sim was refused"}
    add_run(conn, "workspaces-discover", ago(hours=hours), "failed", errors=[error])
    add_run(conn, "workspaces-verify", ago(hours=hours), "failed", errors=[{**error, "workspace": "sim/1"}])

    result = examine(db, "tokens")

    assert result.state == state
    if state != "OK":
        assert [each.subject for each in result.findings] == ["workspaces-discover"]
        assert result.hint.endswith("bisonsync workspaces discover")


@pytest.mark.parametrize(("covers", "state"), [(None, "OK"), ([], "WARNING"), (["other"], "WARNING")], ids=str)
def test_a_super_admin_key_that_worked_since_is_forgiven(db: str, conn: Connection, covers: object, state: str) -> None:
    """But not for a run of chosen workspaces or of another instance."""
    add_workspace(conn, 1)
    add_state(conn, 1)
    add_run(conn, "workspaces-discover", ago(hours=2), "failed", errors=[{"kind": "credentials", "workspace": None}])
    add_run(conn, "workspaces-discover", ago(hours=1), covers=covers)

    assert examine(db, "tokens").state == state


# validation


def quarantine(conn: Connection, records: int, **values: Any) -> None:
    for record in range(records):
        for field in ("daily_limit", "name"):
            fields = {"source": "accounts", "bison_instance": "sim", "bison_workspace_id": 1, "workspace": "Client 1"}
            given = {"record_id": str(record), "field": field, "error_type": "int", "message": "no number"}
            insert(conn, "data_validation_errors", **{**fields, **given, **values})


@pytest.mark.parametrize(("records", "state"), [(0, "OK"), (1, "WARNING"), (5, "WARNING"), (6, "CRITICAL")])
def test_validation_warns_of_one_record_and_is_critical_beyond_5_percent(
    db: str, conn: Connection, records: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, total=100)
    quarantine(conn, records)

    result = examine(db, "validation")

    assert (result.state, result.value) == (state, records)
    if records == 6:
        assert result.detail == (
            "6 records kept aside: sim/1 Client 1: 6 of 100 accounts (6.0 %), daily_limit: no number"
        )
        assert result.hint.endswith("bisonsync poll-accounts -w sim/1")


def test_validation_of_a_list_without_rows_is_unknown(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1, total=0)
    quarantine(conn, 1)

    assert examine(db, "validation").state == "UNKNOWN"


def test_validation_warns_of_what_came_without_a_workspace(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_state(conn, 1)
    quarantine(conn, 2, bison_instance=None, bison_workspace_id=None, workspace=None, source="webhook")

    result = examine(db, "validation")

    assert (result.state, result.findings[0].subject) == ("WARNING", "webhook")


def test_validation_is_over_when_the_record_is_right_again(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_workspace(conn, 2, is_active=False)
    add_state(conn, 1)
    quarantine(conn, 20, resolved_at=NOW)
    quarantine(conn, 20, bison_workspace_id=2)

    assert examine(db, "validation").state == "OK"


# What is not there yet


@pytest.mark.parametrize("check", ["reconcile", "pacing"])
def test_checks_of_figures_are_not_in_use_until_figures_are_polled(db: str, conn: Connection, check: str) -> None:
    month = {"bison_instance": "sim", "bison_workspace_id": 1, "metric_month": "2026-01-01"}
    assert examine(db, check).state == "not in use"

    insert(conn, "client_metrics", emails_sent_webhook=7, **month)

    assert examine(db, check).state == "not in use"

    conn.execute("UPDATE client_metrics SET as_of = now()")

    result = examine(db, check)
    assert (result.state, bool(result.hint)) == ("UNKNOWN", True)
