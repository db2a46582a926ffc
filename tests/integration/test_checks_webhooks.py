"""Checks of webhooks in every state: silence, success, inbox."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from looking import NOW, add_state, add_workspace, ago, examine, finding, insert, looking, set_up
from psycopg.conninfo import make_conninfo

from bisonsync.checks.check import CheckResult
from bisonsync.jobs import health
from bisonsync.store import webhooks
from bisonsync.store.webhooks import Delivery, Outcome

Connection = psycopg.Connection[Any]

WEEKS = (7, 14, 21, 28)


def came(conn: Connection, number: int | None, at: datetime, count: int = 1, **values: Any) -> None:
    """So many deliveries of a workspace, the last at that moment, all within a second."""
    for n in range(count):
        fields = {
            "bison_instance": "sim",
            "bison_workspace_id": number,
            "event_type": "email_sent",
            "source": "receiver",
            "status": "processed",
            "success": True,
            **values,
        }
        insert(conn, "webhook_delivery_log", received_at=at - timedelta(milliseconds=n), **fields)


def add_secret(conn: Connection, number: int, **values: Any) -> None:
    """A secret that was made a month before NOW."""
    key = {"bison_instance": "sim", "bison_workspace_id": number, "made_at": ago(days=30), **values}
    insert(conn, "bisonsync_private.webhook_secrets", secret_sha256=bytes([number]) * 32, **key)


def add_habit(conn: Connection, number: int, *, at: datetime = NOW, instance: str = "sim", count: int = 10) -> None:
    """A workspace to which deliveries came a quarter before this time of day, and one after it, for five weeks."""
    add_workspace(conn, number, bison_instance=instance)
    for days in (35, *WEEKS):
        came(conn, number, at - timedelta(days=days, minutes=15), count, bison_instance=instance)
        came(conn, number, at - timedelta(days=days, minutes=-20), bison_instance=instance)


def silence(db: str, **fields: Any) -> CheckResult:
    return examine(db, "webhook-silence", **fields)


# Every check of webhooks


@pytest.mark.parametrize("check", ["webhook-silence", "webhook-success", "inbox"])
def test_without_webhooks_nothing_is_in_use(db: str, conn: Connection, check: str) -> None:
    add_workspace(conn, 1)
    add_secret(conn, 1, retired_at=NOW)

    result = examine(db, check)

    assert result.state == "not in use"
    assert set(result.thresholds)


@pytest.mark.parametrize("check", ["webhook-silence", "webhook-success", "inbox"])
def test_what_may_not_be_read_is_unknown(db: str, conn: Connection, check: str) -> None:
    add_workspace(conn, 1)
    as_another = make_conninfo(db, options="-c role=pg_signal_backend")

    with looking(as_another, check) as look:
        (result,) = health.run(look, [check], on_bug=pytest.fail)

    assert result.state == "UNKNOWN"
    assert "permission denied" in result.detail


# webhook-silence


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, "OK"), (600, "OK"), (601, "WARNING"), (3600, "WARNING"), (3601, "CRITICAL")]
)
def test_silence_warns_beyond_10_minutes_and_is_critical_beyond_an_hour(
    db: str, conn: Connection, seconds: float, state: str
) -> None:
    add_habit(conn, 1, count=1)
    for days in WEEKS:
        came(conn, 1, ago(days=days, minutes=10), 10)
    came(conn, 1, ago(seconds))

    result = silence(db)

    assert (result.state, result.value, result.unit) == (state, 0 if state == "OK" else seconds, "s")
    assert (result.hint == "bisonsync webhooks list -w sim/1") is (state != "OK")


def test_silence_names_the_workspace_its_habit_and_who_receives(db: str, conn: Connection) -> None:
    for number in (1, 2, 3):
        add_habit(conn, number)
        add_secret(conn, number)
    came(conn, 1, ago(minutes=1))
    came(conn, 2, ago(minutes=25))
    came(conn, 3, ago(minutes=10))

    result = silence(db)

    habit = "nothing for 25 min, where 10 or more had come by then in 4 of 4 weeks before; 2 more of sim receive"
    assert result.findings[0].detail == habit
    assert result.detail == f"1 of 3 workspaces: sim/2 Client 2: {habit}"
    assert (result.state, result.hint) == ("WARNING", "bisonsync webhooks verify -w sim/2")
    assert result.findings[0].workspace == ("sim", 2)


def test_silence_of_all_is_critical_at_once_and_asks_the_receiver(db: str, conn: Connection) -> None:
    for number in (1, 2):
        add_habit(conn, number)
        add_secret(conn, number)
        came(conn, number, ago(minutes=16))
    # Nothing is awaited here, and its silence says nothing.
    add_workspace(conn, 3)
    came(conn, 3, ago(days=40))

    result = silence(db, receiver_url="https://hooks.example.com")

    assert result.state == "CRITICAL"
    assert result.detail.startswith("every workspace that should receive webhooks now is silent: ")
    assert result.findings[0].detail.endswith("; nothing comes from anywhere")
    assert result.hint == "curl -fsS https://hooks.example.com/healthz; bisonsync webhooks verify"
    assert silence(db).hint.startswith("curl -fsS http://127.0.0.1:8080/healthz")


def test_silence_of_several_is_not_that_of_all_while_others_receive(db: str, conn: Connection) -> None:
    for number in (1, 2, 3):
        add_habit(conn, number)
        came(conn, number, ago(minutes=16))
    came(conn, 3, ago(minutes=1))

    result = silence(db)

    assert (result.state, len(result.findings)) == ("WARNING", 2)
    assert result.findings[0].detail.endswith("; 1 more of sim receives")


def test_silence_of_one_instance_is_told_from_that_of_all(db: str, conn: Connection) -> None:
    add_habit(conn, 1)
    add_habit(conn, 1, instance="two")
    came(conn, 1, ago(minutes=16))
    came(conn, 1, ago(minutes=1), bison_instance="two")

    result = silence(db)

    assert result.state == "WARNING"
    assert result.findings[0].detail.endswith("; nothing comes from sim, but from other instances")


def test_silence_of_the_only_one_awaited_is_not_that_of_all(db: str, conn: Connection) -> None:
    add_habit(conn, 1)
    came(conn, 1, ago(minutes=16))

    result = silence(db)

    assert result.state == "WARNING"
    assert result.findings[0].detail.endswith("; no other workspace should receive any now")


@pytest.mark.parametrize(("quiet_weeks", "state"), [(0, "WARNING"), (1, "WARNING"), (2, "OK")])
def test_silence_forgives_one_quiet_week_of_four(db: str, conn: Connection, quiet_weeks: int, state: str) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(days=35))
    for days in WEEKS[quiet_weeks:]:
        came(conn, 1, ago(days=days, minutes=15), 10)
        came(conn, 1, ago(days=days, minutes=-20))
    came(conn, 1, ago(minutes=20))

    assert silence(db).state == state


@pytest.mark.parametrize(("count", "state"), [(9, "OK"), (10, "WARNING")])
def test_silence_of_few_deliveries_is_chance(db: str, conn: Connection, count: int, state: str) -> None:
    add_habit(conn, 1, count=count)
    came(conn, 1, ago(minutes=20))

    assert silence(db).state == state
    assert silence(db, limits={"enough": count}).state == "WARNING"


@pytest.mark.parametrize(("minutes", "state"), [(10, "OK"), (11, "WARNING"), (30, "WARNING"), (31, "OK")])
def test_silence_that_has_just_begun_is_none_where_the_day_usually_ends_by_now(
    db: str, conn: Connection, minutes: int, state: str
) -> None:
    """In other weeks another delivery came so long after this time of day."""
    add_workspace(conn, 1)
    came(conn, 1, ago(days=35))
    for days in WEEKS:
        came(conn, 1, ago(days=days, minutes=15), 10)
        came(conn, 1, ago(days=days, minutes=-minutes))
    came(conn, 1, ago(minutes=20))

    assert silence(db).state == state


@pytest.mark.parametrize(("minutes", "state"), [(30, "OK"), (31, "CRITICAL")])
def test_silence_forgives_a_day_that_ends_half_an_hour_early(
    db: str, conn: Connection, minutes: int, state: str
) -> None:
    """In other weeks deliveries came until so long after the last one of today."""
    add_workspace(conn, 1)
    came(conn, 1, ago(days=35))
    for days in WEEKS:
        came(conn, 1, ago(days=days, hours=5, minutes=-minutes), 30)
    came(conn, 1, ago(hours=5))

    assert silence(db).state == state


def test_silence_over_night_does_not_count_the_evening_with_the_morning(db: str, conn: Connection) -> None:
    """In other weeks the evening was a little longer, and the morning begins in a quarter of an hour."""
    add_workspace(conn, 1)
    came(conn, 1, ago(days=35))
    for days in WEEKS:
        came(conn, 1, ago(days=days, hours=15, minutes=-20), 10)
        came(conn, 1, ago(days=days, minutes=-15), 10)
    came(conn, 1, ago(hours=15))

    assert silence(db).state == "OK"


@pytest.mark.parametrize(("minutes", "state"), [(9, "OK"), (10, "WARNING")])
def test_silence_waits_10_minutes_for_what_begins_late(db: str, conn: Connection, minutes: int, state: str) -> None:
    """In other weeks the first came so long before this time of day."""
    add_workspace(conn, 1)
    came(conn, 1, ago(days=35))
    for days in WEEKS:
        came(conn, 1, ago(days=days, minutes=minutes), 10)
    came(conn, 1, ago(hours=15))

    assert silence(db).state == ("CRITICAL" if state == "WARNING" else state)


def test_silence_lasts_until_something_comes_however_long(db: str, conn: Connection) -> None:
    """The weeks compared are those before the last delivery; at night what should have come by day is missed."""
    add_workspace(conn, 1)
    for days in range(46, 81):
        came(conn, 1, ago(days=days, minutes=30), 10)

    for now in (NOW, ago(hours=9), ago(hours=-15)):
        assert silence(db, now=now).state == "CRITICAL", now

    came(conn, 1, ago(minutes=1))

    assert silence(db).state == "OK"


@pytest.mark.parametrize(
    "values",
    [
        {"status": "test"},
        {"status": "mismatch", "success": False},
        {"source": "events"},
        {"source": "file"},
    ],
    ids=lambda each: "-".join(map(str, each.values())),
)
def test_f19_what_no_webhook_brought_breaks_no_silence(db: str, conn: Connection, values: dict[str, Any]) -> None:
    """Events that were fetched are those that the webhooks did not bring."""
    add_habit(conn, 1)
    came(conn, 1, ago(minutes=20))
    came(conn, 1, ago(minutes=1), 20, **values)

    assert silence(db).state == "WARNING"


@pytest.mark.parametrize("values", [{"status": "test"}, {"status": "mismatch"}, {"source": "events"}])
def test_f19_what_no_webhook_brought_makes_no_habit(db: str, conn: Connection, values: dict[str, Any]) -> None:
    add_habit(conn, 1, count=1)
    for days in WEEKS:
        came(conn, 1, ago(days=days, minutes=16), 20, **values)
    came(conn, 1, ago(minutes=20))

    assert silence(db).state == "OK"


@pytest.mark.parametrize("values", [{"status": "failed", "success": False}, {"source": "sql"}, {"source": "legacy"}])
def test_silence_is_broken_by_whatever_was_delivered(db: str, conn: Connection, values: dict[str, Any]) -> None:
    add_habit(conn, 1)
    came(conn, 1, ago(minutes=1), **values)

    assert silence(db).state == "OK"


def test_silence_warns_of_a_workspace_without_a_secret_where_others_have_one(db: str, conn: Connection) -> None:
    for number in (1, 2, 3):
        add_workspace(conn, number)
    add_secret(conn, 1)
    came(conn, 1, ago(minutes=1))
    add_secret(conn, 2, retired_at=NOW)

    result = silence(db)

    assert (result.state, result.hint) == ("WARNING", "bisonsync webhooks ensure")
    assert result.detail == "2 of 3 workspaces: sim/2 Client 2: it has no hook secret: no webhook comes"
    assert [found.subject for found in result.findings] == ["sim/2 Client 2", "sim/3 Client 3"]
    assert silence(db, hooks=frozenset({("sim", 2), ("sim", 3)})).state == "UNKNOWN"


def test_silence_warns_where_the_settings_want_webhooks_and_nobody_has_one(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)

    result = silence(db, receiver_url="https://hooks.example.com")

    assert (result.state, result.hint) == ("WARNING", "bisonsync webhooks ensure")
    assert result.detail == "1 of 1 workspaces: sim/1 Client 1: it has no hook secret: no webhook comes"


@pytest.mark.parametrize(("hours", "state"), [(24, "OK"), (25, "WARNING")])
def test_silence_asks_for_no_secret_where_another_door_brings_webhooks(
    db: str, conn: Connection, hours: int, state: str
) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(hours=hours), source="sql")
    add_workspace(conn, 2)
    add_secret(conn, 2)
    came(conn, 2, ago(minutes=1))

    assert silence(db).state == state


def test_silence_tells_of_missing_secrets_also_where_nothing_has_come_yet(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    add_secret(conn, 1)
    add_workspace(conn, 2)

    result = silence(db)

    assert (result.state, result.hint) == ("UNKNOWN", "bisonsync webhooks test")
    assert [found.subject for found in result.findings] == ["webhooks", "sim/2 Client 2"]


@pytest.mark.parametrize(
    ("read_minutes", "changed_minutes", "state"),
    [
        # Last webhook 30 minutes ago; what it was about may show 13 minutes later.
        (1, 17, "OK"),
        (1, 16, "WARNING"),
        (15, 25, "OK"),
        (16, 25, "WARNING"),
    ],
)
def test_silence_is_right_where_the_mirror_proves_that_nothing_was_sent(
    db: str, conn: Connection, read_minutes: int, changed_minutes: int, state: str
) -> None:
    add_habit(conn, 1)
    came(conn, 1, ago(minutes=30))
    add_state(conn, 1, last_complete_at=ago(minutes=read_minutes))
    account(conn, 1, updated_at=ago(minutes=changed_minutes))

    assert silence(db).state == state


def test_silence_is_not_excused_by_a_mirror_that_nobody_read_since(db: str, conn: Connection) -> None:
    add_habit(conn, 1)
    came(conn, 1, ago(minutes=20))
    account(conn, 1, updated_at=ago(minutes=40))

    assert silence(db).state == "WARNING"

    add_state(conn, 1, last_complete_at=ago(minutes=7))

    assert silence(db).state == "WARNING"

    conn.execute("UPDATE workspace_sync_state SET last_complete_at = %s", [ago(minutes=6)])

    assert silence(db).state == "OK"


@pytest.mark.parametrize(("days", "sent", "state"), [(2, 500, "OK"), (2, 501, "CRITICAL"), (0.4, 500, "CRITICAL")])
def test_silence_of_days_is_right_where_no_account_has_sent_since(
    db: str, conn: Connection, days: float, sent: int, state: str
) -> None:
    """Somebody changed a limit, which is no mail. What was recorded today may have been sent since."""
    add_habit(conn, 1)
    came(conn, 1, ago(days=days))
    add_state(conn, 1, last_complete_at=ago(minutes=1))
    account(conn, 1, updated_at=ago(minutes=40), emails_sent_count=sent)
    conn.execute("SELECT bisonsync_private.make_daily_partitions(date '2026-01-01', date '2026-01-31')")
    day = {"snapshot_date": ago(days=days).date(), "bison_account_id": 1, "emails_sent_count": 500}
    insert(conn, "sender_email_daily", bison_instance="sim", bison_workspace_id=1, **day)

    assert silence(db).state == state


def account(conn: Connection, number: int, **values: Any) -> None:
    key = {"bison_instance": "sim", "bison_workspace_id": number, "bison_account_id": number}
    insert(conn, "sender_emails_cache", email_address="a@example.com", **key, **values)


@pytest.mark.parametrize(
    ("first", "days", "state"),
    [(6, (3, 5, 6), "WARNING"), (6, (3, 5), "OK"), (5, (3, 4, 5), "WARNING"), (4, (3, 4), "OK"), (7, (4, 5, 6), "OK")],
)
def test_silence_of_a_young_log_is_held_against_working_days(
    db: str, conn: Connection, first: int, days: tuple[int, ...], state: str
) -> None:
    """NOW is a Monday: three days before is a Friday. Three must have been busy, and all but one that the log knows."""
    add_workspace(conn, 1)
    came(conn, 1, ago(days=first, hours=1))
    for each in days:
        came(conn, 1, ago(days=each, minutes=15), 10)
        came(conn, 1, ago(days=each, minutes=-20))
    came(conn, 1, ago(minutes=20))

    result = silence(db)

    assert result.state == state
    if state != "OK":
        told = f"10 or more had come by then in 3 of {len(days) + (first == 6)} working days before"
        assert told in result.findings[0].detail


def test_silence_of_a_young_log_is_no_alarm_at_the_weekend(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    for days in range(3, 8):
        came(conn, 1, ago(days=days, minutes=15), 10)

    assert silence(db, now=ago(days=1)).state == "OK"
    assert silence(db, now=ago(days=2)).state == "OK"


def test_silence_of_a_workspace_that_is_not_looked_after_is_nobodys(db: str, conn: Connection) -> None:
    add_habit(conn, 1)
    came(conn, 1, ago(minutes=20))
    conn.execute("UPDATE client_registry SET is_active = false")

    assert silence(db).state == "not in use"


def test_silence_is_unknown_while_no_webhook_has_ever_come(db: str, conn: Connection) -> None:
    for number in (1, 2):
        add_workspace(conn, number)
        add_secret(conn, number, made_at=ago(minutes=1))

    result = silence(db)

    assert (result.state, result.detail, result.hint) == (
        "UNKNOWN",
        "no webhook has ever come",
        "bisonsync webhooks test",
    )


@pytest.mark.parametrize(
    ("made", "tested", "state"),
    [
        (timedelta(days=1), False, "OK"),
        (timedelta(days=1, seconds=1), False, "UNKNOWN"),
        (timedelta(days=9), True, "OK"),
    ],
)
def test_silence_is_unknown_where_a_day_brought_not_even_a_test(
    db: str, conn: Connection, made: timedelta, tested: bool, state: str
) -> None:
    for number in (1, 2):
        add_workspace(conn, number)
    came(conn, 1, ago(minutes=1))
    add_secret(conn, 2, made_at=NOW - made)
    if tested:
        came(conn, 2, ago(days=8), status="test")

    result = silence(db)

    assert result.state == state
    assert "1 of 2 with a secret have had none yet" in result.detail
    if state == "UNKNOWN":
        assert finding(result, "sim/2").detail == "it has a secret, and not even a test has come"
        assert result.hint == "bisonsync webhooks test -w sim/2"


def test_silence_knows_the_secrets_of_the_settings(db: str, conn: Connection) -> None:
    for number in (1, 2):
        add_workspace(conn, number)
    came(conn, 1, ago(minutes=1))

    assert silence(db).state == "OK"
    assert silence(db, hooks=frozenset({("sim", 2)})).state == "UNKNOWN"


@pytest.mark.parametrize(("seconds", "state"), [(5, "OK"), (6, "UNKNOWN")])
def test_silence_does_not_trust_a_delivery_in_the_future(db: str, conn: Connection, seconds: int, state: str) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(-seconds))

    result = silence(db)

    assert result.state == state
    assert (result.hint == "bisonsync health clock") is (state == "UNKNOWN")


# webhook-success


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [(100, 0, "OK"), (95, 5, "OK"), (189, 11, "WARNING"), (80, 20, "WARNING"), (79, 21, "CRITICAL")],
)
def test_success_warns_below_95_percent_and_is_critical_below_80(
    db: str, conn: Connection, good: int, bad: int, state: str
) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(minutes=5), good)
    came(conn, 1, ago(minutes=5), bad, status="failed", success=False)

    result = examine(db, "webhook-success")

    assert (result.state, result.value, result.unit) == (state, 100 * good / (good + bad), "%")
    assert result.detail.startswith(f"all is well with {good} of {good + bad} deliveries (")
    if state != "OK":
        assert finding(result, "sim/1 Client 1").workspace == ("sim", 1)
        assert result.hint == "bisonsync inbox list --status failed -w sim/1; bisonsync dead-letters list -w sim/1"


def test_success_is_judged_in_each_workspace(db: str, conn: Connection) -> None:
    for number in (1, 2):
        add_workspace(conn, number)
    came(conn, 1, ago(minutes=5), 400)
    came(conn, 2, ago(minutes=5), 18)
    came(conn, 2, ago(minutes=5), 2, status="dead", success=False)

    result = examine(db, "webhook-success")

    assert (result.state, result.value) == ("WARNING", 90)
    assert result.detail == "all is well with 418 of 420 deliveries (99.5 %) in 24 hours; worst: sim/2 Client 2"


@pytest.mark.parametrize(("good", "state"), [(17, "OK"), (18, "WARNING")])
def test_success_of_few_deliveries_says_nothing(db: str, conn: Connection, good: int, state: str) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(minutes=5), good)
    came(conn, 1, ago(minutes=5), 2, status="failed", success=False)

    result = examine(db, "webhook-success")

    assert result.state == state
    assert result.detail.startswith("too few to judge") is (state == "OK")
    assert examine(db, "webhook-success", limits={"sample": 5}).state == "WARNING"


def test_success_is_judged_in_all_where_each_has_too_few(db: str, conn: Connection) -> None:
    for number in (1, 2):
        add_workspace(conn, number)
        came(conn, number, ago(minutes=5), 9)
        came(conn, number, ago(minutes=5), 2, status="failed", success=False)

    result = examine(db, "webhook-success")

    assert (result.state, result.findings[0].subject) == ("WARNING", "all workspaces")
    assert result.hint == "bisonsync inbox list --status failed; bisonsync dead-letters list"


def test_success_counts_deliveries_that_tell_no_workspace(db: str, conn: Connection) -> None:
    came(conn, None, ago(minutes=5), 20, status="dead", success=False, bison_instance=None)

    result = examine(db, "webhook-success")

    assert (result.state, result.findings[0].subject) == ("CRITICAL", "deliveries that tell no workspace")


@pytest.mark.parametrize(
    "values",
    [
        {"status": "mismatch", "success": False},
        {"status": "test", "success": True},
        {"status": "unknown_workspace", "success": None},
        {"status": "pending", "success": None},
    ],
    ids=lambda each: str(each["status"]),
)
def test_success_is_that_of_decided_deliveries_alone(db: str, conn: Connection, values: dict[str, Any]) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(minutes=5), 19)
    came(conn, 1, ago(minutes=5), 2, status="failed", success=False)
    came(conn, 1, ago(minutes=5), 30, **values)

    result = examine(db, "webhook-success")

    assert (result.state, result.value) == ("WARNING", round(100 * 19 / 21, 2))


@pytest.mark.parametrize(("hours", "state"), [(23.9, "WARNING"), (24.1, "OK")])
def test_success_is_that_of_24_hours(db: str, conn: Connection, hours: float, state: str) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(minutes=5), 30)
    came(conn, 1, ago(hours=hours), 3, status="failed", success=False)

    assert examine(db, "webhook-success").state == state


@pytest.mark.parametrize(("days", "state"), [(2, "WARNING"), (6.9, "WARNING"), (7.1, "UNKNOWN")])
def test_success_after_a_pause_is_that_of_the_last_day_with_any(
    db: str, conn: Connection, days: float, state: str
) -> None:
    add_workspace(conn, 1)
    came(conn, 1, ago(days=days), 18)
    came(conn, 1, ago(days=days), 2, status="failed", success=False)
    came(conn, 1, ago(minutes=5), status="test")

    result = examine(db, "webhook-success")

    assert result.state == state
    if state == "UNKNOWN":
        assert result.detail == "no delivery was decided in 7 days"
        assert result.hint
    else:
        assert f"in the 24 hours until {ago(days=days):%Y-%m-%d %H:%M} UTC" in result.detail


def test_success_leaves_out_workspaces_that_are_not_looked_after(db: str, conn: Connection) -> None:
    add_workspace(conn, 1, is_active=False)
    came(conn, 1, ago(minutes=5), 30, status="failed", success=False)
    add_workspace(conn, 2)
    came(conn, 2, ago(minutes=5), 30)

    assert examine(db, "webhook-success").state == "OK"


# inbox


def lies(conn: Connection, status: str, minutes: float = 5, **values: Any) -> None:
    """A delivery that came so long before NOW and is not settled."""
    fields = {"bison_workspace_id": 1, "success": False, **values}
    came(conn, None, ago(minutes=minutes), status=status, **fields)


@pytest.fixture
def inbox(conn: Connection) -> Connection:
    """An inbox of one workspace in which all is well."""
    add_workspace(conn, 1)
    came(conn, 1, ago(minutes=1))
    return conn


@pytest.mark.usefixtures("inbox")
def test_inbox_is_ok_when_nothing_is_due(db: str) -> None:
    result = examine(db, "inbox")

    assert (result.state, result.value, result.unit) == ("OK", 0, "s")
    assert result.detail == "nothing is due, nothing is dead, mismatched or unknown"


def test_inbox_that_is_set_up_and_empty_is_ok(db: str, conn: Connection) -> None:
    add_workspace(conn, 1)
    assert examine(db, "inbox", hooks=frozenset({("sim", 1)})).state == "OK"

    add_secret(conn, 1)

    result = examine(db, "inbox")
    assert (result.state, result.detail) == ("OK", "no delivery has come yet")


@pytest.mark.parametrize(
    ("seconds", "state"),
    [(0, "OK"), (600, "OK"), (601, "WARNING"), (3600, "WARNING"), (3601, "CRITICAL")],
)
@pytest.mark.parametrize("status", ["pending", "failed"])
def test_inbox_warns_of_what_is_due_for_10_minutes(
    db: str, inbox: Connection, status: str, seconds: float, state: str
) -> None:
    lies(inbox, status, 1440, next_attempt_at=ago(seconds))
    lies(inbox, status, 1440, next_attempt_at=ago(-1))

    result = examine(db, "inbox")

    assert (result.state, result.value) == (state, seconds)
    if state != "OK":
        assert result.detail.startswith("backlog: 1 delivery is due and not taken, the first for ")
        assert result.hint == "bisonsync replay-webhooks"


def test_inbox_takes_what_is_pending_without_a_time_as_due_since_it_came(db: str, inbox: Connection) -> None:
    lies(inbox, "pending", 11)

    assert examine(db, "inbox").value == 660


def test_inbox_backlog_is_caused_by_replay_that_does_not_run(db: str, inbox: Connection) -> None:
    set_up(inbox, ago(days=2))
    lies(inbox, "failed", next_attempt_at=ago(minutes=20))
    schedule = {"replay-webhooks": timedelta(minutes=1)}

    with looking(db, "inbox", "runs", schedule=schedule) as look:
        results = {each.name: each for each in health.run(look, ["runs", "inbox"], on_bug=pytest.fail)}

    assert results["inbox"].state == "WARNING"
    assert results["inbox"].caused_by == "runs"


@pytest.mark.parametrize(("dead", "state"), [(0, "OK"), (1, "WARNING"), (100, "WARNING"), (101, "CRITICAL")])
def test_inbox_warns_of_dead_letters(db: str, inbox: Connection, dead: int, state: str) -> None:
    came(inbox, 1, ago(days=20), dead, status="dead", success=False, error_message="data is missing or no object")

    result = examine(db, "inbox")

    assert result.state == state
    if dead:
        count = "1 delivery" if dead == 1 else f"{dead} deliveries"
        assert finding(result, "dead letters").detail == f"{count}, data is missing or no object"
        assert result.hint == "bisonsync dead-letters list"
        assert examine(db, "inbox", limits={"dead": dead, "many_dead": dead}).state == "OK"


def test_inbox_tells_the_most_frequent_reason_of_dead_letters(db: str, inbox: Connection) -> None:
    came(inbox, 1, ago(days=20), 3, status="dead", success=False, error_message="no type")
    came(inbox, 1, ago(days=1), 2, status="dead", success=False, error_message="too odd")

    assert examine(db, "inbox").findings[0].detail == "5 deliveries, 3 of them: no type"


@pytest.mark.parametrize("days", [0, 3.01, 60])
def test_inbox_alarms_of_a_mismatch_as_long_as_it_lies_there(db: str, inbox: Connection, days: float) -> None:
    hook = {"hook_instance": "sim", "hook_workspace_id": 1, "error_message": "the payload is of workspace 7"}
    # Pulled now, of an event that happened before.
    lies(inbox, "mismatch", 1440 * days, processed_at=ago(hours=2), **hook)
    lies(inbox, "mismatch", 1440 * days, processed_at=ago(hours=5), **hook)

    result = examine(db, "inbox")

    assert result.state == "CRITICAL"
    found = finding(result, "sim/1 Client 1")
    assert found.detail == "2 mismatches, the last 2 h ago (the first 5 h ago): the payload is of workspace 7"
    # It names another client.
    assert found.workspace is None
    assert result.hint.startswith("bisonsync inbox list --status mismatch; bisonsync webhooks list -w sim/1; if the")


def test_inbox_names_each_workspace_that_is_not_registered(db: str, inbox: Connection) -> None:
    for number, count in ((7, 2), (8, 1)):
        waiting = {"status": "unknown_workspace", "success": None, "workspace_name": f"Client {number}"}
        came(inbox, number, ago(hours=3), count, next_attempt_at=ago(hours=2), **waiting)
    lies(inbox, "unknown_workspace", bison_workspace_id=None, bison_instance=None, workspace_name="Old name")

    result = examine(db, "inbox")

    assert (result.state, result.value) == ("WARNING", 0)
    assert finding(result, "sim/7 Client 7").detail == (
        "not registered, 2 deliveries wait for that, the first came 3 h ago"
    )
    assert finding(result, "a workspace named Old name").state == "WARNING"
    assert result.detail.endswith("1 delivery waits for that, the first came 5 min ago")
    assert result.hint == "bisonsync workspaces discover; bisonsync replay-webhooks"


def test_inbox_counts_the_deliveries_of_a_workspace_registered_since_as_due(db: str, inbox: Connection) -> None:
    lies(inbox, "unknown_workspace", 1440, bison_workspace_id=7, next_attempt_at=ago(hours=5), success=None)
    add_workspace(inbox, 7, created_at=ago(minutes=30))

    result = examine(db, "inbox")

    assert (result.state, result.value) == ("WARNING", 1800)
    assert [each.subject for each in result.findings] == ["backlog"]


def receive(conn: Connection, event_type: str) -> Outcome:
    payload = json.dumps({"event": {"type": event_type, "workspace_id": 1}, "data": {"reply": {"id": 1}}})
    (outcome,) = webhooks.receive(conn, [Delivery(payload, "receiver", hook=("sim", 1))])
    return outcome


def test_f14_inbox_names_types_that_are_not_known_and_no_other_spelling(db: str, inbox: Connection) -> None:
    for event_type in ("LEAD_REPLIED", "Lead_Replied", "EMAIL_SEND_FAILED"):
        now = receive(inbox, event_type).received_at
    assert examine(db, "inbox", now=now).state == "OK"

    outcome = receive(inbox, "LEAD_ABDUCTED")

    result = examine(db, "inbox", now=outcome.received_at)
    assert outcome.status == "ignored"
    assert (result.state, result.detail) == (
        "WARNING",
        "event type lead_abducted: not known, came in 1 workspace: kept, without effect",
    )
    assert result.hint == "bisonsync inbox list --status ignored"


@pytest.mark.parametrize(("hours", "state"), [(23.9, "WARNING"), (24.1, "OK")])
def test_inbox_tells_an_unknown_type_for_a_day(db: str, inbox: Connection, hours: float, state: str) -> None:
    key = {"bison_instance": "sim", "bison_workspace_id": 1, "delivery_id": 1, "occurred_at": ago(hours=hours)}
    insert(inbox, "webhook_event_keys", event_type="lead_abducted", dedup_key="body:1", **key)

    assert examine(db, "inbox").state == state


def test_inbox_tells_the_worst_first_and_how_many_more(db: str, inbox: Connection) -> None:
    lies(inbox, "failed", next_attempt_at=ago(minutes=20))
    lies(inbox, "dead", error_message="no type")
    lies(inbox, "unknown_workspace", bison_workspace_id=7, next_attempt_at=NOW)
    lies(inbox, "mismatch", hook_instance="sim", hook_workspace_id=1, error_message="of workspace 7")

    result = examine(db, "inbox")

    assert result.state == "CRITICAL"
    assert [each.subject for each in result.findings] == ["sim/1 Client 1", "backlog", "dead letters", "sim/7"]
    assert result.detail.endswith("; and 1 more")

    inbox.execute("DELETE FROM webhook_delivery_log WHERE status = 'mismatch'")

    many = examine(db, "inbox", limits={"many_dead": 0})
    assert (many.state, many.findings[0].subject) == ("CRITICAL", "dead letters")
    assert many.hint == "bisonsync dead-letters list"
