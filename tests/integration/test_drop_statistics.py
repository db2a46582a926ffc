"""A fall of the reply rate is told from chance: over thousands of generated histories, and at every edge."""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
# (day, mails sent, new unique replies)
History = Sequence[tuple[date, int, int]]

LAST = date(2026, 3, 15)
ENDS = [LAST - timedelta(days=days) for days in (14, 7, 0)]
HISTORIES = 2000
WORKSPACE = 1
FIGURES = ("sent", "unique_replies", "reply_rate")


class Luck:
    """Draws how many of so many mails are replied to, each with the same chance."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._tables: dict[tuple[int, float], list[float]] = {}

    def replies(self, sent: int, rate: float) -> int:
        if (sent, rate) not in self._tables:
            self._tables[sent, rate] = list(accumulate(_binomial(sent, rate)))
        return bisect(self._tables[sent, rate], self._random.random())


def _binomial(sent: int, rate: float) -> Iterable[float]:
    ways = math.lgamma(sent + 1)
    for replies in range(sent):
        yield math.exp(
            ways
            - math.lgamma(replies + 1)
            - math.lgamma(sent - replies + 1)
            + replies * math.log(rate)
            + (sent - replies) * math.log1p(-rate)
        )


def record(conn: Connection, histories: Mapping[str, History], *, workspace: int = WORKSPACE) -> None:
    """Each provider is one account, whose counters grow by its history from the day before the first."""
    conn.execute("SELECT bisonsync_private.make_daily_partitions(%s, %s)", (ENDS[0] - timedelta(days=31), LAST))
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('sim', %s, 'Amber')"
        " ON CONFLICT DO NOTHING",
        (workspace,),
    )
    insert = (
        "COPY sender_email_daily (snapshot_date, bison_instance, bison_workspace_id, bison_account_id, email_provider,"
        " emails_sent_count, unique_replied_count) FROM STDIN"
    )
    with conn.cursor() as cursor, cursor.copy(insert) as rows:
        for number, (provider, history) in enumerate(histories.items()):
            sent = replies = 1000
            for day, more, answered in history:
                sent, replies = sent + more, replies + answered
                rows.write_row((day, "sim", workspace, 1000 * workspace + number, provider, sent, replies))
    conn.execute(
        "INSERT INTO workspace_snapshots (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)"
        " SELECT DISTINCT bison_instance, bison_workspace_id, snapshot_date, 1, true FROM sender_email_daily"
        " ON CONFLICT DO NOTHING"
    )


def compared(conn: Connection, *arguments: Any) -> dict[str, dict[str, Any]]:
    """What the function says of each provider."""
    places = ", ".join(["%s"] * len(arguments))
    cursor = conn.execute(f"SELECT * FROM check_provider_reply_rate_drop({places})".encode(), arguments)
    names = [column.name for column in cursor.description or ()]
    found = [dict(zip(names, row, strict=True)) for row in cursor]
    assert all((row["p_value"] is None) == (row["state"] != "compared") == (row["is_drop"] is None) for row in found)
    return {row["email_provider"]: row for row in found}


def weeks(before: tuple[int, int], recent: tuple[int, int]) -> History:
    """Two weeks of (sent, replies), recorded at their ends alone."""
    return [(ENDS[0], 0, 0), (ENDS[1], *before), (ENDS[2], *recent)]


VOLUMES = [(200, 200), (500, 500), (2000, 2000), (20_000, 20_000), (200, 20_000), (20_000, 200), (500, 2000)]


@pytest.mark.parametrize("rate", [0.01, 0.03, 0.1])
def test_a_rate_that_did_not_fall_alarms_in_five_of_a_hundred_at_most(conn: Connection, rate: float) -> None:
    luck = Luck(1)
    histories = {
        f"{before} {recent} {number}": weeks((before, luck.replies(before, rate)), (recent, luck.replies(recent, rate)))
        for before, recent in VOLUMES
        for number in range(HISTORIES)
    }

    record(conn, histories)
    said = compared(conn)

    assert {row["state"] for row in said.values()} == {"compared"}
    for before, recent in VOLUMES:
        alarms = sum(said[f"{before} {recent} {number}"]["is_drop"] for number in range(HISTORIES))
        assert alarms <= 0.05 * HISTORIES, f"{before} mails, then {recent}"


def test_a_fall_of_forty_percent_is_found_within_a_week(conn: Connection) -> None:
    luck = Luck(2)
    days = [LAST - timedelta(days=days) for days in range(20, -1, -1)]
    mails = [286, 286, 286, 285, 286, 285, 286] * 3
    rates = [0.03] * 14 + [0.018] * 7
    assert sum(mails[:7]) == 2000
    histories = {
        f"provider {number}": [
            (days[0] - timedelta(days=1), 0, 0),
            *((day, sent, luck.replies(sent, rate)) for day, sent, rate in zip(days, mails, rates, strict=True)),
        ]
        for number in range(HISTORIES)
    }

    record(conn, histories)
    looks = [compared(conn, day) for day in days[13:]]

    before, *after = [{name for name, row in look.items() if row["is_drop"]} for look in looks]
    assert len(before) <= 0.05 * HISTORIES
    assert len(set[str]().union(*after)) >= 0.75 * HISTORIES


def test_the_probability_is_the_exact_one(conn: Connection) -> None:
    chance = random.Random(3)
    cases = [(0, 0, 0, 0), (5, 0, 0, 0), (200, 0, 200, 9), (200, 9, 200, 0), (1, 1, 400, 400)]
    for _ in range(300):
        recent, before = chance.choice([1, 7, 200, 900]), chance.choice([1, 7, 200, 900])
        rate = chance.choice([0.01, 0.1, 0.7])
        cases.append((recent, int(recent * rate * chance.random()), before, int(before * rate * chance.random())))

    rows = conn.execute(
        "SELECT fall_p_value(a, b, c, d)"
        " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) WITH ORDINALITY AS t (a, b, c, d, o)"
        " ORDER BY o",
        [list(column) for column in zip(*cases, strict=True)],
    ).fetchall()

    for case, (found,) in zip(cases, rows, strict=True):
        assert found == pytest.approx(float(_exact(*case)), rel=1e-9), case


def _exact(recent: int, replies: int, before: int, replies_before: int) -> Fraction:
    """Of all ways to deal the replies out to the mails of both weeks, those with so few in the recent one."""
    every = replies + replies_before
    ways = sum(math.comb(recent, few) * math.comb(before, every - few) for few in range(replies + 1))
    return Fraction(ways, math.comb(recent + before, every))


@pytest.mark.parametrize(
    ("case", "p_value"),
    [
        ((2_000_000, 0, 2_000_000, 60_000), 0.0),
        ((2_000_000, 60_000, 2_000_000, 0), 1.0),
        ((10**9, 10**7, 10**9, 10**7), 0.5),
        # More replies than mails, as a host may count them: each mail counts as replied to.
        ((10, 12, 12, 11), 1.0),
        ((10, 5, 10, 15), 252 / 15_504),
    ],
)
def test_numbers_of_any_size_have_a_probability(
    conn: Connection, case: tuple[int, int, int, int], p_value: float
) -> None:
    row = conn.execute("SELECT fall_p_value(%s::bigint, %s::bigint, %s::bigint, %s::bigint)", case).fetchone()

    assert row is not None
    assert row[0] == pytest.approx(p_value, abs=1e-3)


def test_both_edges_of_each_threshold(conn: Connection) -> None:
    record(
        conn,
        {
            "200 mails": weeks((200, 20), (200, 5)),
            "199 mails": weeks((200, 20), (199, 5)),
            "199 before": weeks((199, 20), (200, 5)),
            "20 percent": weeks((50_000, 5000), (50_000, 4000)),
            "a little more": weeks((50_000, 5000), (50_000, 3999)),
            "no reply": weeks((500, 20), (500, 0)),
            "never a reply": weeks((500, 0), (500, 0)),
            "a rise": weeks((500, 0), (500, 20)),
            "no mail": weeks((0, 0), (0, 0)),
            "by chance": weeks((200, 6), (200, 3)),
        },
    )

    said = compared(conn)

    assert {name: (row["state"], row["is_drop"], row["change_percent"]) for name, row in said.items()} == {
        "200 mails": ("compared", True, -75),
        "199 mails": ("too few sends", None, Decimal("-74.87")),
        "199 before": ("too few sends", None, Decimal("-75.13")),
        "20 percent": ("compared", False, -20),
        "a little more": ("compared", True, Decimal("-20.02")),
        "no reply": ("compared", True, -100),
        "never a reply": ("compared", False, None),
        "a rise": ("compared", False, None),
        "no mail": ("too few sends", None, None),
        "by chance": ("compared", False, -50),
    }
    assert said["no reply"]["snapshot_date"] == LAST
    assert [said["20 percent"][f"{week}_{figure}"] for week in ("recent", "previous") for figure in FIGURES] == [
        *(50_000, 4000, 8),
        *(50_000, 5000, 10),
    ]


def test_thresholds_can_be_given(conn: Connection) -> None:
    record(conn, {"Google": weeks((200, 30), (200, 21)), "Yahoo": weeks((150, 30), (150, 5))})

    def drops(*thresholds: float) -> set[str]:
        return {name for name, row in compared(conn, LAST, *thresholds).items() if row["is_drop"]}

    assert drops() == set()
    assert drops(200, 20, 0.2) == {"Google"}
    assert drops(200, 30, 0.2) == set()
    assert drops(150, 20, 0.05) == {"Yahoo"}


def test_a_workspace_not_recorded_at_every_end_is_left_out_of_both_weeks(conn: Connection) -> None:
    # A new client's first week has few replies, as cold lists have: that is no fall of the others.
    record(conn, {"Google": weeks((1000, 30), (1000, 30)), "Yahoo": weeks((10, 1), (10, 1))})
    record(conn, {"Google": [(ENDS[1], 0, 0), (ENDS[2], 9000, 9)], "Aol": [(ENDS[1], 0, 0)]}, workspace=2)

    said = compared(conn)

    google = said["Google"]
    assert (google["state"], google["is_drop"], google["recent_sent"], google["previous_sent"]) == (
        *("compared", False),
        *(1000, 1000),
    )
    assert {name: (row["state"], row["workspaces_left_out"]) for name, row in said.items()} == {
        "Google": ("compared", 1),
        "Yahoo": ("too few sends", 0),
        "Aol": ("gap", 1),
    }


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_without_one_of_the_three_days_nothing_is_compared(conn: Connection, missing: int) -> None:
    history = list(weeks((1000, 100), (1000, 10)))
    del history[missing]
    record(conn, {"Google": history})

    google = compared(conn, LAST)["Google"]

    assert (google["state"], google["is_drop"], google["workspaces_left_out"]) == ("gap", None, 1)


def test_a_workspace_that_was_switched_off_is_not_missed(conn: Connection) -> None:
    record(conn, {"Google": weeks((1000, 100), (1000, 10))})
    record(conn, {"Google": [(ENDS[0], 0, 0), (ENDS[1], 1000, 100)]}, workspace=2)
    conn.execute("UPDATE client_registry SET is_active = false WHERE bison_workspace_id = 2")

    google = compared(conn)["Google"]

    assert (google["state"], google["is_drop"], google["workspaces_left_out"]) == ("compared", True, 0)
    assert google["previous_sent"] == 1000


def test_mails_of_which_the_week_is_not_known_count_in_neither(conn: Connection) -> None:
    between = (ENDS[1] + timedelta(days=1), 500, 50)
    record(
        conn,
        {
            "seen": weeks((1000, 100), (1000, 10)),
            # Not there on the day between the weeks, as an account that was removed for a day.
            "away": [(ENDS[0], 0, 0), (ENDS[1] - timedelta(days=1), 300, 9), between, (ENDS[2], 400, 12)],
        },
    )

    away = compared(conn)["away"]

    assert (away["previous_sent"], away["previous_unique_replies"]) == (300, 9)
    assert (away["recent_sent"], away["recent_unique_replies"]) == (400, 12)


def test_a_new_account_counts_from_its_first_mail(conn: Connection) -> None:
    record(conn, {"Google": weeks((1000, 100), (1000, 100)), "new": [(ENDS[2], 300, 6)]})
    conn.execute("UPDATE sender_email_daily SET created_on = snapshot_date WHERE email_provider = 'new'")

    new = compared(conn)["new"]

    assert (new["recent_sent"], new["previous_sent"], new["state"]) == (1300, 0, "too few sends")


def test_nothing_recorded_says_nothing(conn: Connection) -> None:
    assert compared(conn) == {}
    assert compared(conn, LAST) == {}
