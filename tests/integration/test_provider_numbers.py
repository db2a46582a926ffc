"""dashboard providers: every figure by value, what costs are, and what it says of days that are missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from cli import environment, run_cli
from terminal import Screen, at_terminal

from bisonsync.queries import load_queries
from bisonsync.store.snapshots import write_history

Connection = psycopg.Connection[Any]

LAST = date(2026, 3, 15)
# The 30 days hold 15 of a month of 28 and 15 of one of 31.
MONTHS = 15 / 28 + 15 / 31
COLUMNS = (
    "snapshot_date, bison_instance, bison_workspace_id, bison_account_id, emails_sent_count, unique_replied_count,"
    " bounced_count, email_provider, reseller, is_connected, daily_limit, volume_per_account, price"
)
Daily = tuple[int, int, int]


def days(first: int, last: int = 0) -> list[date]:
    """From so many days before the last one to so many."""
    return [LAST - timedelta(days=ago) for ago in range(first, last - 1, -1)]


def workspace(conn: Connection, number: int, recorded: Iterable[date], *, instance: str = "sim") -> None:
    """A workspace whose accounts were seen on these days."""
    recorded = list(recorded)
    conn.execute("SELECT bisonsync_private.make_daily_partitions(%s, %s)", (recorded[0], recorded[-1]))
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name, created_at)"
        " VALUES (%s, %s, 'Amber', %s)",
        (instance, number, recorded[0]),
    )
    conn.execute(
        "INSERT INTO workspace_snapshots (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)"
        " SELECT %s, %s, unnest(%s::date[]), 1, true",
        (instance, number, recorded),
    )


def account(
    conn: Connection,
    number: int,
    account_id: int,
    provider: str,
    daily: dict[date, Daily],
    *,
    instance: str = "sim",
    reseller: str | None = None,
    price: float | None = None,
    connected: bool = True,
) -> None:
    """An account seen on the days of ``daily``, each with the mails, unique replies and bounces since the last."""
    sent, replies, bounces = 1000, 100, 10
    with conn.cursor() as cursor, cursor.copy(f"COPY sender_email_daily ({COLUMNS}) FROM STDIN".encode()) as rows:
        for day, (more, answered, bounced) in daily.items():
            sent, replies, bounces = sent + more, replies + answered, bounces + bounced
            key = (day, instance, number, account_id)
            rows.write_row((*key, sent, replies, bounces, provider, reseller, connected, 30, 40, price))


def history(conn: Connection, recorded: Iterable[date], *, instance: str = "sim") -> None:
    """What snapshot-providers would have written on these days."""
    for day in recorded:
        write_history(conn, instance, day, zone="UTC")


@pytest.fixture
def month(conn: Connection) -> None:
    """45 recorded days: Google falls in the last week, Microsoft does not, and one account stopped."""
    recorded = days(45)
    workspace(conn, 1, recorded)
    week = set(days(6))
    account(
        conn,
        1,
        101,
        "Google",
        {day: (100, 1 if day in week else 3, 2) for day in recorded},
        reseller="Mailr",
        price=4.0,
    )
    account(conn, 1, 102, "Google", dict.fromkeys(days(45, 20), (10, 1, 0)), reseller="Zapmail", price=9.0)
    account(conn, 1, 201, "Microsoft", dict.fromkeys(recorded, (50, 2, 1)), connected=False)
    account(conn, 1, 202, "Microsoft", dict.fromkeys(recorded, (0, 0, 0)), reseller="Mailr", price=2.0)
    history(conn, days(29))


def show(db: str, *arguments: str) -> tuple[int, list[list[dict[str, str]]], str]:
    """Exit code, tables as rows by heading, and stderr."""
    done = run_cli(["dashboard", "providers", *arguments], environment(db))
    tables: list[list[dict[str, str]]] = []
    for block in done.stdout.split("\n\n"):
        heading, *rows = [line.split("\t") for line in block.splitlines()] or [[]]
        tables.append([dict(zip(heading, row, strict=True)) for row in rows])
    return done.returncode, tables, done.stderr


def document(db: str, *arguments: str) -> dict[str, Any]:
    done = run_cli(["dashboard", "providers", *arguments, "--json"], environment(db))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("month")
def test_every_figure_is_shown(db: str) -> None:
    code, (providers, costs), said = show(db)

    assert code == 0
    columns = ["provider", "accounts", "connected", "in use %"]
    columns += [f"{figure} {length} d" for figure in ("sent", "reply %", "bounce %") for length in (1, 7, 30)]
    columns += ["change %", "to week before", "p value", "as of", "complete", "gaps 1 d", "gaps 7 d", "gaps 30 d"]
    assert list(providers[0]) == columns
    # Google: 30 days of 100 mails and 10 of 10; 23 days of 3 replies, 7 of 1, 10 of 1.
    assert [" ".join(row.values()).rstrip() for row in providers] == [
        "Microsoft 2 1 38 50 350 1500 4.00 4.00 4.00 2.00 2.00 2.00 +0.0 steady 0.58 2026-03-15 yes 0 0 0",
        "Google 1 1 75 100 700 3100 1.00 1.00 2.77 2.00 2.00 1.94 -66.7 drop 0.0058 2026-03-15 yes 0 0 0",
        "all 3 2 50 150 1050 4600 2.00 2.00 3.17 2.00 2.00 1.96",
    ]
    google, microsoft = 4 * MONTHS + 9 * 10 / 28, 2 * MONTHS
    assert [list(row.values()) for row in costs] == [
        ["provider", "Microsoft", "2", "1", "1500", "60", "4.00", "2.00", f"{microsoft:.2f}", f"{microsoft / 60:.2f}"],
        ["provider", "Google", "1", "0", "3100", "86", "2.77", "1.94", f"{google:.2f}", f"{google / 86:.2f}"],
        ["reseller", "Mailr", "2", "0", "3000", "76", "2.53", "2.00", f"{6 * MONTHS:.2f}", f"{6 * MONTHS / 76:.2f}"],
        ["reseller", "Unknown", "1", "1", "1500", "60", "4.00", "2.00", "-", "-"],
        ["reseller", "Zapmail", "0", "0", "100", "10", "10.00", "0.00", f"{90 / 28:.2f}", f"{9 / 28:.2f}"],
    ]
    assert "the last recorded day is" in said


@pytest.mark.usefixtures("month")
def test_as_json_it_has_the_same_figures(db: str) -> None:
    shown = document(db)

    assert (shown["job"], shown["verdict"], shown["counts"]) == (
        *("dashboard-providers", "success"),
        {"providers": 2, "drops": 1},
    )
    google = shown["providers"][1]
    assert google.pop("days_ago") > 0
    trend = google.pop("trend")
    cost = round(4 * MONTHS + 90 / 28, 2)
    assert google == {
        "provider": "Google",
        "instance": "sim",
        "as_of": "2026-03-15",
        "is_complete": True,
        "accounts": 1,
        "connected": 1,
        "utilization_percentage": 75.0,
        "sent_1d": 100,
        "unique_replies_1d": 1,
        "bounces_1d": 2,
        "reply_rate_1d": 1.0,
        "bounce_rate_1d": 2.0,
        "sent_7d": 700,
        "unique_replies_7d": 7,
        "bounces_7d": 14,
        "reply_rate_7d": 1.0,
        "bounce_rate_7d": 2.0,
        "sent_30d": 3100,
        "unique_replies_30d": 86,
        "bounces_30d": 60,
        "reply_rate_30d": 2.7742,
        "bounce_rate_30d": 1.9355,
        "gaps_1d": 0,
        "gaps_7d": 0,
        "gaps_30d": 0,
        "change": {
            "judgement": "drop",
            "is_drop": True,
            "is_significant": True,
            "percent": -66.67,
            "reply_rate": 1.0,
            "reply_rate_before": 3.0,
            "workspaces_left_out": 0,
            "fall_p_value": pytest.approx(0.0058471, abs=1e-7),
            "rise_p_value": pytest.approx(0.9983016, abs=1e-7),
        },
        "cost_30d": cost,
        "cost_per_reply_30d": round(cost / 86, 4),
        "accounts_without_price": 0,
    }
    assert [(day["day"], day["reply_rate"], day["is_recorded"]) for day in trend[-2:]] == [
        ("2026-03-14", 1.2857, True),
        ("2026-03-15", 1.0, True),
    ]
    assert len(trend) == 30
    assert [(one["provider"], one["change"]["is_significant"]) for one in shown["providers"]] == [
        ("Microsoft", False),
        ("Google", True),
    ]
    assert [one["reseller"] for one in shown["resellers"]] == ["Mailr", "Unknown", "Zapmail"]
    assert (shown["totals"]["sent_30d"], shown["totals"]["reply_rate_30d"]) == (4600, 3.1739)


def test_a_change_is_told_in_words(db: str, conn: Connection) -> None:
    recorded = days(14)
    workspace(conn, 1, recorded)
    week = set(days(6))
    weeks = {"Aol": (1000, 10, 20), "Gmx": (1000, 50, 43), "Me": (20, 3, 0), "Web": (1000, 100, 85), "Yahoo": (9, 0, 9)}
    for number, (name, (sent, before, after)) in enumerate(weeks.items()):
        account(conn, 1, number, name, {day: (sent, after if day in week else before, 0) for day in recorded})
    history(conn, days(0))

    judged = {
        one["provider"]: (one["change"]["judgement"], one["change"]["is_significant"])
        for one in document(db)["providers"]
    }

    assert judged == {
        "Aol": ("higher", True),
        "Gmx": ("lower", True),
        "Me": ("too few", None),
        "Web": ("lower", True),
        "Yahoo": ("too few", None),
    }


def provider_line(screen: Screen, provider: str) -> str:
    """The line of a provider in the first table."""
    (found,) = [line for line in screen.lines if line.startswith(provider)]
    return found


def cost_of(db: str, provider: str) -> tuple[float | None, float | None]:
    one = next(one for one in document(db)["providers"] if one["provider"] == provider)
    return one["cost_30d"], one["cost_per_reply_30d"]


def test_days_that_nobody_recorded_cost_too_and_days_without_the_account_do_not(db: str, conn: Connection) -> None:
    recorded = [day for day in days(30) if day not in days(9, 5)]
    workspace(conn, 1, recorded)
    account(conn, 1, 1, "always", dict.fromkeys(recorded, (10, 1, 0)), price=31)
    away = set(days(20, 11))
    account(conn, 1, 2, "away", {day: (10, 1, 0) for day in recorded if day not in away}, price=31)
    account(conn, 1, 3, "late", dict.fromkeys(days(2), (10, 1, 0)), price=31)
    account(conn, 1, 4, "no reply", dict.fromkeys(recorded, (10, 0, 0)), price=31)
    account(conn, 1, 5, "no price", dict.fromkeys(recorded, (10, 1, 0)))
    history(conn, days(0))

    february = 31 / 28
    assert cost_of(db, "always") == (round(15 * february + 15, 2), round(round(15 * february + 15, 2) / 25, 4))
    # Ten days away, of which the last four were in March; of the day it came back only that day is paid.
    assert cost_of(db, "away")[0] == round(9 * february + 11, 2)
    assert cost_of(db, "late")[0] == 3
    assert cost_of(db, "no reply") == (round(15 * february + 15, 2), None)
    assert cost_of(db, "no price") == (None, None)


def test_a_leap_day_costs_a_29th_and_a_new_price_counts_from_its_day(db: str, conn: Connection) -> None:
    recorded = [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    workspace(conn, 1, recorded)
    account(conn, 1, 1, "Google", dict.fromkeys(recorded, (10, 1, 0)), price=29)
    conn.execute("UPDATE sender_email_daily SET price = 62 WHERE snapshot_date = '2024-03-01'")
    history(conn, recorded)

    assert cost_of(db, "Google")[0] == 1 + 1 + 2


def test_the_trend_shows_missing_days_as_such(db: str, conn: Connection) -> None:
    recorded = [day for day in days(40) if day not in days(5, 4)]
    workspace(conn, 1, recorded)
    account(conn, 1, 1, "Google", {day: (100, 8 if day < LAST - timedelta(days=9) else 0, 0) for day in recorded})
    account(conn, 1, 2, "Yahoo", dict.fromkeys(recorded, (0, 0, 0)))
    account(conn, 1, 3, "Aol", dict.fromkeys(days(3), (10, 1, 0)))
    history(conn, [day for day in days(29) if day in recorded])

    trend = {one["provider"]: one["trend"] for one in document(db)["providers"]}
    assert [day["is_recorded"] for day in trend["Google"][-7:]] == [True, False, False, True, True, True, True]
    assert [day["reply_rate"] for day in trend["Google"][-14:]] == [
        *(8.0, 8.0, 8.0, 8.0, 6.8571, 5.7143, 4.5714, 3.4286),
        # The week of the day before lacks the days that nobody recorded, and so do those after it.
        *(None, None, 0.0, 0.0, 0.0, 0.0),
    ]
    assert {(day["reply_rate"], day["is_recorded"]) for day in trend["Yahoo"][:10]} == {(None, True)}
    narrow = at_terminal(["dashboard", "providers"], environment(db), columns=80)
    wide = at_terminal(["dashboard", "providers"], environment(db), columns=200)
    assert provider_line(narrow, "Google").endswith("▇▇▇▇▅▄▂▁··▁▁▁▁")
    assert provider_line(wide, "Google").endswith("▇" * 20 + "▅▄▂▁··▁▁▁▁")


@pytest.fixture
def two(conn: Connection) -> None:
    """Two instances, of which one has the better Google; the other was last recorded two days before."""
    workspace(conn, 1, days(30))
    account(conn, 1, 1, "Google", dict.fromkeys(days(30), (100, 3, 1)), reseller="Mailr", price=1)
    history(conn, days(0))
    workspace(conn, 1, days(30, 2), instance="other")
    account(conn, 1, 1, "Google", dict.fromkeys(days(30, 2), (10, 1, 0)), reseller="Mailr", instance="other")
    history(conn, days(2, 2), instance="other")


@pytest.mark.usefixtures("two")
def test_each_instance_has_its_own_last_day(db: str) -> None:
    _, (providers, costs), said = show(db)
    only = document(db, "--instance", "other")

    assert [(row["provider"], row["instance"], row["sent 7 d"], row["as of"]) for row in providers] == [
        ("Google", "other", "70", "2026-03-13"),
        ("Google", "sim", "700", "2026-03-15"),
        ("all", "", "770", ""),
    ]
    assert [(row["cost by"], row["name"], row["instance"], row["unique replies 30 d"]) for row in costs] == [
        ("provider", "Google", "other", "28"),
        ("provider", "Google", "sim", "90"),
        ("reseller", "Mailr", "", "118"),
    ]
    assert "warning: other: the last recorded day is" in said
    assert [one["instance"] for one in only["providers"]] == ["other"]
    assert [(one["reseller"], one["sent_30d"]) for one in only["resellers"]] == [("Mailr", 280)]


@pytest.mark.usefixtures("two")
def test_one_instance_needs_no_column(db: str) -> None:
    _, (providers, _), _ = show(db, "--instance", "sim")

    assert "instance" not in providers[0]
    assert [row["sent 7 d"] for row in providers] == ["700"]


@pytest.mark.usefixtures("two")
def test_what_cannot_be_chosen_is_refused(db: str) -> None:
    unknown = run_cli(["dashboard", "providers", "--instance", "sum"], environment(db))
    workspace_only = run_cli(["dashboard", "providers", "-w", "1"], environment(db))

    assert (unknown.returncode, unknown.stdout) == (4, "")
    assert "'sum'" in unknown.stderr
    assert (workspace_only.returncode, workspace_only.stdout) == (2, "")
    assert "performance_by('workspace'" in workspace_only.stderr


@pytest.mark.usefixtures("month")
def test_the_weeks_are_compared_once_and_not_for_each_provider(conn: Connection) -> None:
    query = load_queries("providers")["list_providers"]

    plan = conn.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, {"instances": None, "timezone": "UTC"}).fetchone()

    def loops(node: dict[str, Any]) -> list[int]:
        is_comparison = node.get("Function Name") == "check_provider_reply_rate_drop"
        mine = [node["Actual Loops"]] if is_comparison else []
        return mine + [number for part in node.get("Plans", []) for number in loops(part)]

    assert plan is not None
    assert loops(plan[0][0]["Plan"]) == [1]


def test_an_empty_history_does_not_look_fine(db: str) -> None:
    done = run_cli(["dashboard", "providers"], environment(db))

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "error: no day is recorded yet → run 'bisonsync snapshot-providers'\n"
    shown = document(db)
    assert (shown["providers"], shown["resellers"], [error["kind"] for error in shown["errors"]]) == ([], [], ["empty"])


def test_a_database_that_is_not_migrated_is_an_error(empty_db: str) -> None:
    assert run_cli(["dashboard", "providers"], environment(empty_db)).returncode == 6


def test_what_is_missing_is_said_in_words(db: str, conn: Connection) -> None:
    recorded = [day for day in days(45) if day != LAST - timedelta(days=7)]
    workspace(conn, 1, recorded)
    account(conn, 1, 1, "Google", dict.fromkeys(recorded, (100, 3, 1)))
    workspace(conn, 2, days(45, 1))
    account(conn, 2, 2, "Google", dict.fromkeys(days(45, 1), (100, 3, 1)))
    history(conn, days(44))

    _, (providers, _), said = show(db)

    google = providers[0]
    assert (google["complete"], google["gaps 1 d"], google["gaps 7 d"], google["gaps 30 d"]) == ("no", "1", "2", "1")
    assert (google["to week before"], google["change %"], google["p value"]) == ("gap", "-", "-")
    ago = document(db)["providers"][0]["days_ago"]
    assert said.splitlines() == [
        f"warning: sim: the last recorded day is {ago} days ago → bisonsync snapshot-providers",
        "warning: sim: not every workspace was read completely for 2026-03-15 → bisonsync poll-accounts",
        "warning: sim: 1 d lacks 1, 7 d lacks 2, 30 d lacks 1: workspaces not recorded at both ends"
        " → bisonsync snapshot-providers --fill-gaps",
        "warning: sim: the change leaves out 2 workspaces not recorded in both weeks",
    ]


def test_a_day_without_its_beginning_is_no_zero(db: str, conn: Connection) -> None:
    recorded = [day for day in days(45) if day != LAST - timedelta(days=1)]
    workspace(conn, 1, recorded)
    account(conn, 1, 1, "Google", dict.fromkeys(recorded, (100, 3, 1)))
    account(conn, 1, 2, "Microsoft", dict.fromkeys(recorded, (10, 0, 0)))
    history(conn, recorded[-1:])

    _, (providers, _), _ = show(db)

    google, total = providers[0], providers[-1]
    assert (google["sent 1 d"], google["reply % 1 d"], google["sent 7 d"]) == ("gap", "-", "600")
    assert (total["provider"], total["sent 1 d"], total["sent 7 d"]) == ("all", "gap", "660")


def test_a_young_history_is_no_gap(db: str, conn: Connection) -> None:
    recorded = days(10)
    workspace(conn, 1, recorded)
    account(conn, 1, 1, "Google", dict.fromkeys(recorded, (100, 3, 1)))
    history(conn, recorded)

    _, (providers, _), said = show(db)

    assert (providers[0]["sent 30 d"], providers[0]["gaps 30 d"]) == ("1000", "1")
    assert "warning: sim: the history began on 2026-03-05: 30 days are whole from 2026-04-04 on\n" in said
    assert "lacks" not in said
    trend = document(db)["providers"][0]["trend"]
    # Of the first day only the counters are known, not what it added to them.
    assert [day["is_recorded"] for day in trend[-12:]] == [False, False, *[True] * 10]


def test_the_day_is_that_of_the_reporting_zone(db: str, conn: Connection) -> None:
    # So far from each other that it is never the same day in both.
    early, late = "Pacific/Kiritimati", "Etc/GMT+12"
    row = conn.execute("SELECT (now() AT TIME ZONE %s)::date - 3", (late,)).fetchone()
    assert row is not None
    workspace(conn, 1, [row[0]])
    account(conn, 1, 1, "Google", {row[0]: (0, 0, 0)})
    history(conn, row)

    def days_ago(zone: str) -> int:
        done = run_cli(["dashboard", "providers", "--json"], environment(db, BISONSYNC_REPORTING_TIMEZONE=zone))
        return json.loads(done.stdout)["providers"][0]["days_ago"]

    assert days_ago(early) > days_ago(late) >= 3


@pytest.mark.usefixtures("month")
@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_tables_that_fit(db: str, conn: Connection, columns: int) -> None:
    conn.execute("UPDATE sender_email_daily SET emails_sent_count = emails_sent_count * 12345")
    history(conn, days(29))

    screen = at_terminal(["dashboard", "providers"], environment(db), columns=columns)

    assert screen.code == 0
    assert max(len(line) for line in screen.lines if "warning" not in line) <= columns
    text = " ".join(" ".join(screen.lines).split())
    for words in ["8,641,500", "steady", "provider Google", "reseller Zapmail", "as of sim", "2026-03-15 UTC, "]:
        assert words in text
    assert "bounce %" in text
    assert ("38,269,500" in text, "in use" in text) == (True, columns == 200)


@pytest.mark.usefixtures("month")
def test_the_colour_comes_with_the_word(db: str) -> None:
    assert "\x1b[31mdrop" in at_terminal(["dashboard", "providers"], environment(db), columns=80).raw
    plain = at_terminal(["dashboard", "providers", "--no-color"], environment(db), columns=80).raw
    assert "drop" in plain
    assert "\x1b[3" not in plain


def test_the_accounts_present_are_summed_per_instance_and_provider(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES"
        " ('sim', 1, 'Amber'), ('sim', 2, 'Birch'), ('other', 1, 'Cedar')"
    )
    conn.execute(
        "INSERT INTO workspace_sync_state"
        " (bison_instance, bison_workspace_id, resource, last_complete_at, verdict, interval_seconds) VALUES"
        " ('sim', 1, 'accounts', now(), 'complete', 86400), ('sim', 2, 'accounts', now(), 'incomplete', 86400),"
        " ('other', 1, 'accounts', now(), 'complete', 86400)"
    )
    conn.execute(
        "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address,"
        " email_provider, status,"
        " emails_sent_count, total_replied_count, unique_replied_count, bounced_count, daily_limit, volume_per_account,"
        " removed_at) VALUES"
        " ('sim', 1, 1, 'a@example.com', 'Google', 'Connected', 1000, 40, 30, 5, 20, 40, NULL),"
        " ('sim', 2, 2, 'a@example.com', 'Google', 'Not connected', 200, 9, 6, 1, 50, 40, NULL),"
        " ('sim', 2, 3, 'a@example.com', 'Google', 'Connected', 999, 99, 99, 99, 99, 99, now()),"
        " ('sim', 1, 4, 'a@example.com', 'Unknown', NULL, 0, 0, 0, 0, NULL, NULL, NULL),"
        " ('other', 1, 1, 'a@example.com', 'Google', 'Connected', 3, 15, 15, 0, 10, NULL, NULL)"
    )

    rows = conn.execute("SELECT * FROM aggregate_provider_stats()").fetchall()

    shown = [[float(cell) if isinstance(cell, Decimal) else cell for cell in row[:13]] for row in rows]
    assert shown == [
        ["other", "Google", 1, 1, 3, 15, 15, 0, 500, 3, 10, 0, None],
        ["sim", "Google", 2, 1, 1200, 49, 36, 6, 3, 600, 20, 80, 25],
        ["sim", "Unknown", 1, 0, 0, 0, 0, 0, None, 0, 0, 0, None],
    ]
    assert [row[14:] for row in rows] == [(True, False), (False, False), (False, False)]
    assert all(row[13] is not None for row in rows)


def test_of_a_workspace_never_read_the_sums_are_of_no_time(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
        " VALUES ('sim', 1, 'Amber'), ('sim', 2, 'Birch')"
    )
    conn.execute(
        "INSERT INTO workspace_sync_state"
        " (bison_instance, bison_workspace_id, resource, last_complete_at, verdict, interval_seconds)"
        " VALUES ('sim', 1, 'accounts', now(), 'complete', 86400)"
    )
    conn.execute(
        "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, email_address)"
        " VALUES ('sim', 1, 1, 'a@example.com'), ('gone', 1, 1, 'b@example.com')"
    )

    rows = conn.execute(
        "SELECT bison_instance, as_of, is_complete, is_stale FROM aggregate_provider_stats()"
    ).fetchall()

    assert rows == [("gone", None, False, True), ("sim", None, False, True)]
