"""Checks of numbers in every state: accounts connected, falling replies, bounces, capacity, how the API answers."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from looking import NOW, add_part, add_run, add_workspace, ago, examine, finding, insert, looking
from office import Office
from psycopg.conninfo import make_conninfo

from bisonsync.jobs import health
from bisonsync.sandbox import Sandbox

Connection = psycopg.Connection[Any]

TODAY = NOW.date()


def add_accounts(conn: Connection, number: int, count: int, *, first: int = 1, **values: Any) -> None:
    """Accounts of one workspace, connected unless ``status`` says otherwise."""
    fields = {"status": "Connected", **values}
    conn.execute(
        f"INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address,"
        f" {', '.join(fields)}) SELECT 'sim', %s, n, n || '@example.com', {', '.join(['%s'] * len(fields))}"
        f" FROM generate_series(%s::bigint, %s::bigint) AS n".encode(),
        [number, *fields.values(), first, first + count - 1],
    )


def add_day(conn: Connection, day: date, number: int = 1) -> None:
    """A recorded day of one workspace, and a place for it."""
    conn.execute("SELECT bisonsync_private.make_daily_partitions(%s::date, %s::date)", [day, day])
    insert(
        conn,
        "workspace_snapshots",
        bison_instance="sim",
        bison_workspace_id=number,
        snapshot_date=day,
        accounts=1,
        is_complete=True,
    )


def add_counters(conn: Connection, day: date, account: int = 1, number: int = 1, **values: Any) -> None:
    """The counters of one account as last seen on a recorded day."""
    key = {"bison_instance": "sim", "bison_workspace_id": number, "bison_account_id": account}
    insert(conn, "sender_email_daily", **{"snapshot_date": day, **key, "email_provider": "Google", **values})


def add_api(conn: Connection, at: datetime, run_id: UUID | None = None, **values: Any) -> None:
    """What one endpoint cost a run that ended then."""
    fields = {"bison_instance": "sim", "requests": 100, "response_time_ms": 150, "success": True, **values}
    insert(conn, "api_health_logs", endpoint="/x", api_name="emailbison", timestamp=at, run_id=run_id, **fields)


# Every check


@pytest.mark.parametrize("check", ["disconnects", "provider-drop", "bounce", "capacity", "api"])
def test_an_empty_database_is_unknown(db: str, check: str) -> None:
    result = examine(db, check)

    assert (result.state, result.value) == ("UNKNOWN", None)
    assert result.hint in ("bisonsync poll-accounts", "bisonsync snapshot-providers")


@pytest.mark.parametrize("check", ["disconnects", "provider-drop", "bounce", "capacity", "api"])
def test_what_may_not_be_read_is_unknown(db: str, check: str) -> None:
    with looking(make_conninfo(db, options="-c role=pg_signal_backend"), check) as look:
        (result,) = health.run(look, [check], on_bug=pytest.fail)

    assert result.state == "UNKNOWN"
    assert "permission denied" in result.detail


# disconnects


@pytest.mark.parametrize(
    ("disconnected", "state"), [(0, "OK"), (20, "OK"), (21, "WARNING"), (80, "WARNING"), (81, "CRITICAL")]
)
def test_disconnects_warns_beyond_5_percent_and_is_critical_beyond_20(
    db: str, conn: Connection, disconnected: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_accounts(conn, 1, 400 - disconnected)
    add_accounts(conn, 1, disconnected, first=1001, status="Not connected")

    result = examine(db, "disconnects")

    assert (result.state, result.value, result.unit) == (state, disconnected / 4, "%")
    assert [each.workspace for each in result.findings] == ([("sim", 1)] if state != "OK" else [])
    assert result.hint == ("bisonsync dashboard accounts -w sim/1" if state != "OK" else "")


def test_disconnects_judges_each_workspace_by_itself(db: str, conn: Connection) -> None:
    for number, down in ((1, 0), (2, 3), (3, 9)):
        add_workspace(conn, number)
        add_accounts(conn, number, 40 - down, first=100 * number)
        add_accounts(conn, number, down, first=100 * number + 50, status="Disconnected")

    result = examine(db, "disconnects")

    assert [(each.workspace, each.state) for each in result.findings] == [
        (("sim", 3), "CRITICAL"),
        (("sim", 2), "WARNING"),
    ]
    assert finding(result, "sim/3").detail == "Client 3: 9 of 40 accounts (22.5 %) are not connected"
    assert result.detail.startswith("12 of 120 accounts (10.0 %) are not connected; too many in 2 of 3 workspaces")


@pytest.mark.parametrize(("lost", "state"), [(10, "OK"), (11, "WARNING")])
def test_disconnects_tells_many_since_yesterday_where_they_are_few_of_all(
    db: str, conn: Connection, lost: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_accounts(conn, 1, 989)
    add_accounts(conn, 1, 20, first=2001, status="Not connected")
    add_day(conn, TODAY - timedelta(days=1))
    for account in range(2001, 2021):
        add_counters(conn, TODAY - timedelta(days=1), account, is_connected=account - 2001 < lost)

    result = examine(db, "disconnects")

    assert result.state == state
    assert f"{lost} of them since yesterday" in result.detail


def test_disconnects_compares_with_yesterday_of_the_reporting_zone_alone(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_accounts(conn, 1, 20, status="Not connected")
    add_day(conn, TODAY - timedelta(days=2))
    for account in range(1, 21):
        add_counters(conn, TODAY - timedelta(days=2), account, is_connected=True)

    here = examine(db, "disconnects", now=datetime(2026, 1, 5, 1, tzinfo=UTC))
    there = examine(db, "disconnects", now=datetime(2026, 1, 5, 1, tzinfo=UTC), reporting_timezone="America/New_York")

    assert "not recorded yesterday" in here.detail
    assert "20 of them since yesterday" in there.detail


def test_disconnects_leaves_out_what_is_removed_or_inactive(db: str, conn: Connection) -> None:
    for number, active in ((1, True), (2, False)):
        add_workspace(conn, number, is_active=active)
    add_accounts(conn, 1, 10)
    add_accounts(conn, 1, 10, first=100, status="Not connected", removed_at=NOW)
    add_accounts(conn, 2, 10, status="Not connected")

    assert examine(db, "disconnects").state == "OK"


# provider-drop


def add_weeks(conn: Connection, before: tuple[int, int], after: tuple[int, int], *, day: date = TODAY) -> None:
    """An account that sent and was replied so much in the 7 days that end with ``day`` and in the 7 before."""
    for number, days_ago in enumerate((14, 7, 0)):
        sent = sum(week[0] for week in (before, after)[:number])
        replies = sum(week[1] for week in (before, after)[:number])
        add_day(conn, day - timedelta(days=days_ago))
        add_counters(conn, day - timedelta(days=days_ago), emails_sent_count=sent, unique_replied_count=replies)


@pytest.mark.parametrize(
    ("replies", "state"),
    [(520, "OK"), (400, "OK"), (399, "WARNING"), (250, "WARNING"), (249, "CRITICAL"), (0, "CRITICAL")],
)
def test_provider_drop_warns_beyond_20_percent_and_is_critical_beyond_50(
    db: str, conn: Connection, replies: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_weeks(conn, (10_000, 500), (10_000, replies))

    result = examine(db, "provider-drop")

    assert result.state == state
    assert result.value == (0.0 if state == "OK" else round(100 - replies / 5, 2))
    assert [each.subject for each in result.findings] == ([] if state == "OK" else ["Google at sim"])
    assert result.hint == ("" if state == "OK" else "bisonsync dashboard providers")


@pytest.mark.parametrize("weeks", [((1000, 10), (1000, 7)), ((200, 10), (199, 0)), ((199, 100), (200, 0))])
def test_provider_drop_leaves_chance_and_small_samples_alone(
    db: str, conn: Connection, weeks: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    add_workspace(conn, 1)
    add_weeks(conn, *weeks)

    result = examine(db, "provider-drop")

    assert result.state == "OK"
    assert ("too few mails" in result.detail) is (weeks[1][0] < 1000)


def test_provider_drop_judges_200_mails(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_weeks(conn, (200, 40), (200, 0))

    assert examine(db, "provider-drop").state == "CRITICAL"


def test_provider_drop_waits_for_two_weeks_of_history(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    for days in (13, 0):
        add_day(conn, TODAY - timedelta(days=days))

    result = examine(db, "provider-drop")

    assert result.state == "not in use"
    assert "can be compared from 2026-01-06 on" in result.detail


def test_provider_drop_without_the_ends_of_its_weeks_is_unknown(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_weeks(conn, (1000, 50), (1000, 50))
    week_ago = TODAY - timedelta(days=7)
    conn.execute("DELETE FROM workspace_snapshots WHERE snapshot_date = %s", [week_ago])
    conn.execute("DELETE FROM sender_email_daily WHERE snapshot_date = %s", [week_ago])

    result = examine(db, "provider-drop")

    assert (result.state, result.hint) == ("UNKNOWN", "bisonsync snapshot-providers --fill-gaps")


@pytest.mark.parametrize("check", ["provider-drop", "bounce"])
@pytest.mark.parametrize(("days_ago", "is_known"), [(1, True), (2, False)])
def test_a_history_that_stands_still_is_unknown(
    db: str, conn: Connection, check: str, days_ago: int, is_known: bool
) -> None:
    add_workspace(conn, 1)
    add_weeks(conn, (1000, 50), (1000, 50), day=TODAY - timedelta(days=days_ago))

    result = examine(db, check)

    assert (result.state == "UNKNOWN") is not is_known
    if not is_known:
        assert result.detail == "the last recorded day is 2026-01-03, 2 days ago"
        assert (result.hint, result.findings[0].kinds) == (
            "bisonsync snapshot-providers",
            ("late", "job:snapshot-providers"),
        )


@pytest.mark.parametrize("check", ["provider-drop", "bounce"])
def test_a_history_that_nobody_wants_is_not_in_use(db: str, check: str) -> None:
    result = examine(db, check, schedule={"poll-accounts": timedelta(minutes=3)})

    assert result.state == "not in use"


# bounce


def add_week(conn: Connection, sent: int, bounced: int, account: int = 1, **values: Any) -> None:
    """What an account sent and what bounced in the 7 days until today."""
    week_ago = TODAY - timedelta(days=7)
    add_counters(conn, week_ago, account, **values)
    add_counters(conn, TODAY, account, emails_sent_count=sent, bounced_count=bounced, **values)


@pytest.fixture
def week(conn: Connection) -> Connection:
    """A workspace recorded a week ago and today."""
    add_workspace(conn, 1)
    for days in (7, 0):
        add_day(conn, TODAY - timedelta(days=days))
    return conn


@pytest.mark.parametrize(
    ("bounced", "state"), [(0, "OK"), (30, "OK"), (31, "WARNING"), (50, "WARNING"), (51, "CRITICAL")]
)
def test_bounce_warns_beyond_3_percent_and_is_critical_beyond_5(
    db: str, week: Connection, bounced: int, state: str
) -> None:
    add_week(week, 1000, bounced, domain="one.example.com", reseller="Zapmail")

    result = examine(db, "bounce")

    assert (result.state, result.value, result.unit) == (state, bounced / 10, "%")
    subjects = {"all accounts", "provider Google", "reseller Zapmail", "domain one.example.com"}
    assert {each.subject for each in result.findings} == (set() if state == "OK" else subjects)


def test_bounce_finds_one_bad_domain_among_many_good(db: str, week: Connection) -> None:
    add_week(week, 9800, 10, account=1, domain="good.example.com")
    add_week(week, 200, 12, account=2, domain="bad.example.com")

    result = examine(db, "bounce")

    assert result.state == "CRITICAL"
    assert [(each.subject, each.state) for each in result.findings] == [("domain bad.example.com", "CRITICAL")]
    assert result.findings[0].detail == "12 of 200 mails bounced (6.0 %)"
    assert result.value == 6.0


@pytest.mark.parametrize(("sent", "state"), [(199, "OK"), (200, "CRITICAL")])
def test_bounce_judges_nobody_who_sent_less_than_200(db: str, week: Connection, sent: int, state: str) -> None:
    add_week(week, sent, sent)

    result = examine(db, "bounce")

    assert result.state == state
    assert ("too few mails to judge" in result.detail) is (state == "OK")


def test_bounce_counts_7_days(db: str, week: Connection) -> None:
    for days in (8, 6):
        add_day(week, TODAY - timedelta(days=days))
    for days, bounced in ((8, 0), (7, 900), (6, 900), (0, 910)):
        sent = {8: 0, 7: 1000, 6: 1000, 0: 2000}[days]
        add_counters(week, TODAY - timedelta(days=days), emails_sent_count=sent, bounced_count=bounced)

    result = examine(db, "bounce")

    assert (result.state, result.value) == ("OK", 1.0)


def test_bounce_without_a_mail_sent_is_unknown(db: str, week: Connection) -> None:
    add_week(week, 0, 0)

    result = examine(db, "bounce")

    assert (result.state, result.detail) == ("UNKNOWN", "nothing was sent in the 7 days until 2026-01-05")


def test_bounce_is_not_in_use_on_the_first_day(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_day(conn, TODAY)
    add_counters(conn, TODAY, emails_sent_count=1000, bounced_count=900)

    assert examine(db, "bounce").state == "not in use"


# capacity


@pytest.mark.parametrize(
    ("daily_limit", "state"), [(49, "WARNING"), (50, "OK"), (100, "OK"), (101, "WARNING"), (0, "WARNING")]
)
def test_capacity_warns_below_50_and_beyond_100_percent(
    db: str, conn: Connection, daily_limit: int, state: str
) -> None:
    add_workspace(conn, 1)
    add_accounts(conn, 1, 10, daily_limit=daily_limit, volume_per_account=100)
    add_accounts(conn, 1, 10, first=100, status="Not connected", daily_limit=10_000, volume_per_account=1)

    result = examine(db, "capacity")

    assert (result.state, result.value) == (state, daily_limit)
    assert result.hint == ("" if state == "OK" else "bisonsync dashboard accounts -w sim/1")


def test_capacity_finds_a_workspace_out_of_bounds_where_the_whole_is_not(db: str, conn: Connection) -> None:
    for number, daily_limit in ((1, 90), (2, 20)):
        add_workspace(conn, number)
        add_accounts(conn, number, 10, daily_limit=daily_limit, volume_per_account=100)

    result = examine(db, "capacity")

    assert (result.state, result.value) == ("WARNING", 55)
    assert [each.workspace for each in result.findings] == [("sim", 2)]


def test_capacity_without_any_volume_is_not_in_use(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_accounts(conn, 1, 10, daily_limit=20)

    assert examine(db, "capacity").state == "not in use"


@pytest.mark.parametrize(
    ("status", "daily_limit", "caused_by"), [("Not connected", 20, "disconnects"), ("Connected", None, None)]
)
def test_capacity_of_nothing_is_unknown(
    db: str, conn: Connection, status: str, daily_limit: int | None, caused_by: str | None
) -> None:
    add_workspace(conn, 1)
    add_accounts(conn, 1, 10, status=status, daily_limit=daily_limit, volume_per_account=25)

    result = examine(db, "capacity")

    assert (result.state, result.value) == ("UNKNOWN", None)
    assert result.findings[0].caused_by == caused_by


# api


@pytest.mark.parametrize(
    ("milliseconds", "state"),
    [(150, "OK"), (2000, "OK"), (2001, "WARNING"), (10_000, "WARNING"), (10_001, "CRITICAL")],
)
def test_api_warns_beyond_2_seconds_on_average(db: str, conn: Connection, milliseconds: int, state: str) -> None:
    add_api(conn, ago(minutes=3), response_time_ms=milliseconds)

    result = examine(db, "api")

    assert (result.state, result.value, result.unit) == (state, milliseconds / 1000, "s")
    assert [each.subject for each in result.findings] == ([] if state == "OK" else ["sim"])


def test_api_weighs_endpoints_by_their_requests(db: str, conn: Connection) -> None:
    add_api(conn, ago(minutes=3), requests=99, response_time_ms=1000)
    add_api(conn, ago(minutes=3), requests=1, response_time_ms=50_000)
    add_api(conn, ago(minutes=3), requests=900, errors=0, response_time_ms=None)

    assert examine(db, "api").value == 1.49


@pytest.mark.parametrize(
    ("column", "count", "state"),
    [
        ("rate_limited", 5, "OK"),
        ("rate_limited", 6, "WARNING"),
        ("errors", 5, "OK"),
        ("errors", 6, "WARNING"),
        ("errors", 50, "WARNING"),
        ("errors", 51, "CRITICAL"),
    ],
)
def test_api_warns_beyond_5_percent_of_429s_and_errors(
    db: str, conn: Connection, column: str, count: int, state: str
) -> None:
    add_api(conn, ago(minutes=3), None, **{column: count})

    result = examine(db, "api")

    assert result.state == state
    assert (f"{count}.0 % of 100 requests" in result.detail) is (state != "OK")


def test_api_leaves_refused_tokens_to_their_own_check(db: str, conn: Connection) -> None:
    run_id = add_run(conn, "poll-accounts", ago(minutes=4), "partial")
    for number in (1, 2):
        add_part(conn, run_id, number, "failed", error={"kind": "credentials", "message": "refused"})
    add_part(conn, run_id, 3, "failed", error={"kind": "api_unavailable", "message": "HTTP 500"})
    # Each costs two: the question whose token it is, and the first page beside it.
    add_api(conn, ago(minutes=3), run_id, requests=10, errors=4)
    assert examine(db, "api").state == "OK"

    conn.execute("UPDATE api_health_logs SET errors = 5")

    assert examine(db, "api").state == "WARNING"


def test_api_does_not_take_workspaces_without_a_token_for_refused_requests(db: str, conn: Connection) -> None:
    with Sandbox(workspaces=3) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id <> 1")
        assert office.poll().code == 3
        conn.execute("DELETE FROM api_health_logs WHERE id <> (SELECT min(id) FROM api_health_logs)")
        conn.execute('UPDATE api_health_logs SET errors = 4, requests = 10, "timestamp" = %s', (ago(minutes=3),))

    assert examine(db, "api").state == "WARNING"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("slow_factor = 0.5, slowed_at = now()", "slowed down to 50 % of its rate after 429s in a row"),
        (
            "limit_told = 3000, foreign_per_minute = 2900, foreign_at = now(), told_at = now()",
            "another program uses the same key: 2,900 of its 3,000 requests a minute, so that 100 are left",
        ),
        ("limit_told = 3000, foreign_per_minute = 1400, foreign_at = now(), told_at = now()", ""),
        ("slow_factor = 0.5, slowed_at = now() - interval '11 minutes'", ""),
    ],
)
def test_api_says_what_is_left_of_the_rate(db: str, conn: Connection, columns: LiteralString, said: str) -> None:
    add_api(conn, ago(minutes=3))
    conn.execute(
        "INSERT INTO rate_budgets (bison_instance, tokens, refilled_at, requests_per_minute)"
        " VALUES ('sim', 0, now(), 1500)"
    )
    conn.execute(f"UPDATE rate_budgets SET {columns}")

    found = examine(db, "api")

    assert found.state == ("WARNING" if said else "OK")
    assert said in found.detail


def test_api_judges_each_instance(db: str, conn: Connection) -> None:
    add_api(conn, ago(minutes=3), requests=10_000)
    add_api(conn, ago(minutes=3), bison_instance="slow", requests=10, response_time_ms=3000)

    result = examine(db, "api")

    assert [each.subject for each in result.findings] == ["slow"]


@pytest.mark.parametrize(
    ("minutes", "state", "window"),
    [
        (0, "WARNING", "s on average"),
        (59, "WARNING", "s on average"),
        (60, "OK", "the last hour"),
    ],
)
def test_api_looks_at_the_last_hour(db: str, conn: Connection, minutes: int, state: str, window: str) -> None:
    add_api(conn, ago(minutes=minutes), response_time_ms=5000)
    add_api(conn, ago(minutes=1), requests=1)

    result = examine(db, "api")

    assert result.state == state
    assert window in result.detail


@pytest.mark.parametrize(("minutes", "state"), [(60, "OK"), (24 * 60 - 1, "OK"), (24 * 60, "UNKNOWN")])
def test_api_makes_do_with_the_last_day(db: str, conn: Connection, minutes: int, state: str) -> None:
    add_api(conn, ago(minutes=minutes))

    result = examine(db, "api")

    assert result.state == state
    assert "24 hours" in result.detail


def test_api_does_not_judge_an_instance_that_was_not_asked(db: str, conn: Connection) -> None:
    add_api(conn, ago(minutes=3), requests=0, response_time_ms=None)

    assert examine(db, "api").state == "UNKNOWN"
