"""The daily series tell what the counters gained, by mailbox, day and workspace."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_asking import SUPER_ADMIN, ask, read

from bisonsync.sandbox import Advance, Config, Fault
from bisonsync.sandbox.advance import advance, change_some
from bisonsync.sandbox.app import App
from bisonsync.sandbox.moments import shares_by_day
from bisonsync.sandbox.rows import SERIES

STATS = "/api/campaign-events/stats"
QUIET = {"come": 0, "go": 0, "disconnect": 0, "reconnect": 0, "move": 0, "retag": 0}
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 9), timezones=st.just(UTC))


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=2, accounts=60, skew=(40,)))


def series(app: App, *ids: int, first: str = "2026-01-05", last: str = "2026-01-09", token: str = SUPER_ADMIN) -> Any:
    """Each label's counts, by day."""
    query = "".join(f"&sender_email_ids[]={number}" for number in ids)
    answer = read(ask(app, f"{STATS}?start_date={first}&end_date={last}{query}", token))
    return {one["label"]: dict(one["dates"]) for one in answer["data"]}


def totals(app: App, *ids: int) -> dict[str, int]:
    return {label: sum(days.values()) for label, days in series(app, *ids).items()}


def counters(app: App, *ids: int, workspace: int = 1) -> dict[str, int]:
    accounts = app.world.workspaces[workspace].accounts
    return {
        label: sum(getattr(accounts[number], counter) for number in ids or accounts)
        for label, counter in SERIES.items()
    }


def gained(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {label: after[label] - before[label] for label in before}


def test_a_mailbox_gained_what_its_counters_gained(app: App) -> None:
    chosen = app.world.workspaces[1].accounts.order()[:3]
    before, all_before = counters(app, *chosen), counters(app)

    for _ in range(3):
        advance(app.world, Advance(minutes=1440, active=1.0, **QUIET))

    assert totals(app, *chosen) == gained(before, counters(app, *chosen))
    assert totals(app) == gained(all_before, counters(app))
    assert totals(app)["Sent"] > totals(app, *chosen)["Sent"] > 0
    assert totals(app)["Bounced"] > 0


def test_what_was_sent_before_midnight_counts_for_that_day(app: App) -> None:
    """The world begins on 5 January at 9:00."""
    before = counters(app)["Sent"]
    advance(app.world, Advance(minutes=14 * 60, active=1.0, **QUIET))
    on_the_5th = counters(app)["Sent"] - before
    advance(app.world, Advance(minutes=120, active=1.0, **QUIET))
    advance(app.world, Advance(minutes=60, active=1.0, **QUIET))

    sent = series(app)["Sent"]

    assert sum(sent.values()) == counters(app)["Sent"] - before
    assert on_the_5th < sent["2026-01-05"] < sum(sent.values())
    assert sent["2026-01-06"] > 0
    assert list(sent) == [f"2026-01-0{day}" for day in range(5, 10)]


@given(st.integers(0, 10_000), MOMENTS, MOMENTS)
def test_shares_of_days_add_up_and_none_is_negative(amount: int, one: datetime, other: datetime) -> None:
    began, ended = sorted((one, other))

    shares = shares_by_day(amount, began, ended)

    assert sum(shares.values()) == amount
    assert all(share >= 0 for share in shares.values())
    assert list(shares) == [date.fromordinal(n) for n in range(began.toordinal(), ended.toordinal() + 1)]


def test_shares_follow_the_time_of_each_day() -> None:
    shares = shares_by_day(48, datetime(2026, 1, 5, 12), datetime(2026, 1, 7, 12))

    assert list(shares.values()) == [12, 24, 12]


def test_changes_count_on_their_day_and_a_fall_counts_nothing(app: App) -> None:
    account = app.world.workspaces[1].accounts.order()[0]
    app.world.change(account, emails_sent_count=500, bounced_count=9)
    sent = series(app, account)["Sent"]["2026-01-05"]

    app.world.change(account, emails_sent_count=3, bounced_count=10)

    assert series(app, account)["Sent"]["2026-01-05"] == sent
    assert series(app, account)["Bounced"]["2026-01-05"] > 0
    (other,) = change_some(app.world, count=1, workspace_id=1)
    assert series(app, other)["Sent"]["2026-01-05"] > 0


def test_the_past_of_a_mailbox_stays_where_it_was(app: App) -> None:
    account = app.world.workspaces[1].accounts.order()[0]
    app.world.change(account, emails_sent_count=app.world.workspaces[1].accounts[account].emails_sent_count + 7)
    gone = app.world.workspaces[1].accounts.order()[1]
    app.world.change(gone, emails_sent_count=app.world.workspaces[1].accounts[gone].emails_sent_count + 5)

    app.world.move(account, 2)
    app.world.remove(gone)

    first, second = app.world.mint(1).plain, app.world.mint(2).plain
    assert sum(series(app, account, token=first)["Sent"].values()) == 7
    assert sum(series(app, account, token=second)["Sent"].values()) == 0
    assert sum(series(app, token=first)["Sent"].values()) == 12


def test_other_ids_and_campaigns_have_nothing(app: App) -> None:
    change_some(app.world, percent=100)
    elsewhere = app.world.workspaces[2].accounts.order()[0]

    assert totals(app, elsewhere) == totals(app, 99_999) == dict.fromkeys(SERIES, 0)
    answer = read(ask(app, f"{STATS}?start_date=2026-01-05&end_date=2026-01-05&campaign_ids[]=4"))
    assert all(count == 0 for one in answer["data"] for _, count in one["dates"])


@pytest.mark.parametrize("misspelt", ["sender_emails_ids[]=1", "sender_email_ids=1", "sender_email_ids[]=x"])
def test_a_misspelt_filter_is_dropped_in_silence(app: App, misspelt: str) -> None:
    change_some(app.world, percent=100)

    answer = read(ask(app, f"{STATS}?start_date=2026-01-05&end_date=2026-01-09&{misspelt}"))

    assert {one["label"]: sum(n for _, n in one["dates"]) for one in answer["data"]} == totals(app)


def test_a_host_may_ignore_the_filter_or_lack_the_route(app: App) -> None:
    change_some(app.world, percent=100)
    whole = totals(app)

    app.config = Config(daily_stats="whole")
    assert totals(app, app.world.workspaces[1].accounts.order()[0]) == whole

    app.config = Config(daily_stats="none")
    answer = ask(app, f"{STATS}?start_date=2026-01-05&end_date=2026-01-05")
    assert (answer.status, b"could not be found" in answer.body) == (404, True)


def test_counts_may_come_as_strings(app: App) -> None:
    change_some(app.world, percent=100)
    sent = series(app)["Sent"]["2026-01-05"]

    app.faults.add(Fault(kind="strings", path=STATS))

    assert series(app)["Sent"]["2026-01-05"] == str(sent) != "0"
