"""What changes in the world becomes events: as many as the counters gained, on the same days, with ids of their own."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_asking import ask, read

from bisonsync.sandbox import Account, Advance, Config
from bisonsync.sandbox.advance import advance, change_some
from bisonsync.sandbox.app import App
from bisonsync.sandbox.payloads import envelope
from bisonsync.sandbox.samples import EVENT_TYPES, sample

QUIET = {"active": 0.0, "come": 0, "go": 0, "disconnect": 0, "reconnect": 0, "move": 0, "retag": 0}
GAINED = {
    "email_sent": "emails_sent_count",
    "lead_first_contacted": "total_leads_contacted_count",
    "lead_replied": "total_replied_count",
    "lead_interested": "interested_leads_count",
    "lead_unsubscribed": "unsubscribed_count",
    "email_bounced": "bounced_count",
    "email_opened": "total_opened_count",
}
SERIES = {
    "Sent": "email_sent",
    "Replied": "lead_replied",
    "Total Opens": "email_opened",
    "Bounced": "email_bounced",
    "Unsubscribed": "lead_unsubscribed",
    "Interested": "lead_interested",
}


@pytest.fixture
def app() -> App:
    return App(Config(workspaces=3, accounts=80, skew=(30, 30)))


def payloads(app: App, workspace: int | None = None) -> list[dict[str, Any]]:
    """All events in the order in which they were stored."""
    events = [e for w, events in app.world.hooks.events.items() for e in events if workspace in (None, w)]
    return [envelope(e.happening, app.url) for e in sorted(events, key=lambda e: e.id)]


def types(app: App) -> Counter[str]:
    return Counter(payload["event"]["type"].lower() for payload in payloads(app))


def accounts(app: App) -> dict[int, Account]:
    return {account.id: account for w in app.world.workspaces.values() for account in w.accounts.values()}


def burst(app: App, kind: str, **fields: Any) -> Any:
    return read(ask(app, "/_sandbox/events", None, method="POST", body={"type": kind, **fields}))["made"]


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 9000), st.integers(0, 3), st.integers(0, 20))
def test_as_many_events_as_the_counters_gained_on_the_same_days(minutes: float, seed: int, percent: int) -> None:
    app = App(Config(workspaces=2, accounts=30, seed=seed))
    before = accounts(app)

    advance(app.world, Advance(**{**QUIET, "minutes": minutes, "active": 0.8}))
    change_some(app.world, percent=percent)

    gained: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for account in accounts(app).values():
        for kind, name in GAINED.items():
            gained[account.id][kind] = getattr(account, name) - getattr(before[account.id], name)
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    by_day: defaultdict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for payload in payloads(app):
        kind, data = payload["event"]["type"].lower(), payload["data"]
        found[data["sender_email"]["id"]][kind] += 1
        by_day[payload["event"]["workspace_id"]][kind, data["campaign_event"]["created_at"][:10]] += 1
    assert {i: +counts for i, counts in gained.items() if +counts} == found
    for workspace_id in app.world.workspaces:
        token = app.world.mint(workspace_id).plain
        stats = read(ask(app, "/api/campaign-events/stats?start_date=2026-01-01&end_date=2026-01-20", token))["data"]
        series = {
            (SERIES[row["label"]], day): count
            for row in stats
            if row["label"] in SERIES
            for day, count in row["dates"]
            if count
        }
        known = {key: n for key, n in by_day[workspace_id].items() if key[0] in SERIES.values()}
        assert known == series


def test_the_same_steps_make_the_same_events() -> None:
    def run(seed: int) -> list[dict[str, Any]]:
        app = App(Config(workspaces=2, accounts=50, seed=seed))
        advance(app.world, Advance(minutes=600, disconnect=3, reconnect=2, retag=3, go=1, come=2, move=1))
        burst(app, "", count=50)
        return payloads(app)

    assert run(1) == run(1) != run(2)


def test_events_are_stored_in_the_order_of_their_times(app: App) -> None:
    advance(app.world, Advance(minutes=2000))

    stored = [event for events in app.world.hooks.events.values() for event in events]
    stored.sort(key=lambda event: event.id)
    assert [e.stored_at for e in stored] == sorted(e.happening.at for e in stored)


def test_every_event_has_a_number_of_its_own_and_a_first_contact_is_its_mail(app: App) -> None:
    for _ in range(150):  # single mails too are followed by all that can follow
        advance(app.world, Advance(minutes=60))

    keys: defaultdict[str, list[int]] = defaultdict(list)
    moments: defaultdict[str, list[int]] = defaultdict(list)
    for payload in payloads(app):
        kind, data = payload["event"]["type"].lower(), payload["data"]
        if "reply" in data:
            keys[kind].append(data["reply"]["id"])
        elif "scheduled_email" in data:
            keys[kind].append(data["campaign_event"]["id"])
        if "campaign_event" in data:
            moments[kind].append(data["campaign_event"]["id"])
    assert set(keys) == {*GAINED}
    assert all(len(set(ids)) == len(ids) for ids in keys.values())
    assert set(moments["lead_first_contacted"]) < set(moments["email_sent"])
    others = [i for kind, ids in moments.items() if kind != "lead_first_contacted" for i in ids]
    assert len(set(others)) == len(others)
    assert set(keys["lead_interested"]) < set(keys["lead_replied"])
    assert not set(keys["email_bounced"]) & set(keys["lead_replied"])


def test_as_many_leads_as_the_unique_counters_gained(app: App) -> None:
    before = accounts(app)

    advance(app.world, Advance(**{**QUIET, "minutes": 8 * 1440, "active": 1.0}))

    leads: defaultdict[tuple[int, str], set[int]] = defaultdict(set)
    for payload in payloads(app):
        leads[payload["data"]["sender_email"]["id"], payload["event"]["type"]].add(payload["data"]["lead"]["id"])
    after = accounts(app)
    fresh = {i: after[i].total_leads_contacted_count - before[i].total_leads_contacted_count for i in after}
    assert {i: len(leads[i, "LEAD_FIRST_CONTACTED"]) for i in after} == fresh
    for i, account in after.items():
        gained = account.unique_replied_count - before[i].unique_replied_count
        assert len(leads[i, "LEAD_REPLIED"]) >= gained
        assert len(leads[i, "LEAD_INTERESTED"]) == account.interested_leads_count - before[i].interested_leads_count
        assert len(leads[i, "LEAD_UNSUBSCRIBED"]) == account.unsubscribed_count - before[i].unsubscribed_count
    everywhere = Counter(lead for ids in leads.values() for lead in ids)
    owners: defaultdict[int, set[int]] = defaultdict(set)
    for (account_id, _), ids in leads.items():
        for lead in ids:
            owners[lead].add(account_id)
    assert everywhere
    assert all(len(ids) == 1 for ids in owners.values())


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"come": 2}, {"email_account_added": 2}),
        ({"go": 2}, {"email_account_removed": 2}),
        ({"disconnect": 3}, {"email_account_disconnected": 3}),
        ({"move": 2}, {"email_account_added": 2, "email_account_removed": 2}),
    ],
)
def test_what_happens_to_accounts_is_told(app: App, step: dict[str, int], expected: dict[str, int]) -> None:
    advance(app.world, Advance(**{**QUIET, **step}))

    assert types(app) == expected
    for payload in payloads(app):
        sender = payload["data"]["sender_email"]
        assert sender["updated_at"] == "2026-01-05T10:00:00.000000Z"
        assert sender["status"] in (["not_connected"] if "disconnect" in step else ["connected", "not_connected"])


def test_a_moved_account_leaves_one_workspace_and_comes_into_the_other(app: App) -> None:
    account_id = app.world.workspaces[1].accounts.order()[0]

    app.world.move(account_id, 3)

    assert [(p["event"]["type"], p["event"]["workspace_id"]) for p in payloads(app)] == [
        ("EMAIL_ACCOUNT_ADDED", 3),
        ("EMAIL_ACCOUNT_REMOVED", 1),
    ]


def test_tags_that_come_and_go_are_told_one_by_one(app: App) -> None:
    account_id = app.world.workspaces[1].accounts.order()[0]
    app.world.retag(account_id, ["Google", "One"])
    app.world.hooks.events.clear()

    app.world.retag(account_id, ["Google", "Two", "Three"])
    app.world.retag(account_id, ["Google", "Two", "Three"])

    told = [(p["event"]["type"], p["data"]["tag_name"]) for p in payloads(app)]
    assert told == [("TAG_ATTACHED", "Two"), ("TAG_ATTACHED", "Three"), ("TAG_REMOVED", "One")]
    assert {(p["data"]["taggable_type"], p["data"]["taggable_id"]) for p in payloads(app)} == {
        ("SenderEmail", account_id)
    }


def test_nobody_unsubscribes_twice(app: App) -> None:
    account = app.world.workspaces[1].accounts[app.world.workspaces[1].accounts.order()[0]]
    for more in (3, 5):
        app.world.change(account.id, unsubscribed_count=account.unsubscribed_count + more)

    assert len({payload["data"]["lead"]["id"] for payload in payloads(app)}) == 5


def test_two_changes_at_the_same_moment_can_be_told_apart(app: App) -> None:
    """The time of the last change is all that tells one disconnect from another."""
    account_id = app.world.workspaces[1].accounts.order()[0]
    for status in ("Not connected", "Connected") * 3:
        body = {"id": account_id, "set": {"status": status}}
        read(ask(app, "/_sandbox/accounts/set", None, method="POST", body=body))
    app.world.remove(account_id)

    stamps = [payload["data"]["sender_email"]["updated_at"] for payload in payloads(app)]
    assert len(stamps) == 7
    assert stamps == sorted(set(stamps))


def test_what_changes_no_counter_and_no_state_is_no_event(app: App) -> None:
    change_some(app.world, count=5, only_updated_at=True)
    app.world.rename(1, "Other")
    account_id = app.world.workspaces[1].accounts.order()[0]
    app.world.change(account_id, daily_limit=3, emails_sent_count=0, name="Other Name")

    assert payloads(app) == []


def test_a_page_that_shifts_tells_who_came_and_went(app: App) -> None:
    fault = {"kind": "shift", "insert": 2, "remove": 1}
    ask(app, "/_sandbox/faults", None, method="POST", body=fault)

    ask(app, "/api/sender-emails")

    assert types(app) == {"email_account_removed": 1, "email_account_added": 2}


def outline(payload: dict[str, Any]) -> dict[str, Any]:
    """The names in a payload and in its objects."""
    return {name: [*part] if isinstance(part, dict) else None for name, part in payload["data"].items()}


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_each_type_can_be_had_by_the_number(app: App, kind: str) -> None:
    for account_id in app.world.workspaces[2].accounts.order()[:6]:
        app.world.change(account_id, status="Not connected")
    app.world.hooks.events.clear()
    before = app.world.truth()

    assert burst(app, kind, count=4, workspace=2) == {kind: 4}

    expected = {kind: 4, "email_sent": 4} if kind == "lead_first_contacted" else {kind: 4}
    assert types(app) == expected
    assert {payload["event"]["workspace_id"] for payload in payloads(app)} == {2}
    for payload in payloads(app):
        assert outline(payload) == outline(sample(payload["event"]["type"].lower()))
    after = app.world.truth()
    assert {w for w in after if after[w] != before[w]} == ({2} - _NOTHING_CHANGES.get(kind, set()))
    if kind in GAINED:
        gained = [sum(row[GAINED[kind]] for row in truth[2]) for truth in (before, after)]
        assert gained[1] - gained[0] == 4


_NOTHING_CHANGES = {"untracked_reply_received": {2}, "manual_email_sent": {2}}


def test_a_burst_without_a_type_is_a_usual_mix(app: App) -> None:
    made = burst(app, "", count=2000)

    assert sum(made.values()) == 2000
    assert 0.88 < made["email_sent"] / 2000 < 0.96
    assert types(app) == {**made, "email_sent": made["email_sent"] + made["lead_first_contacted"]}


def test_a_burst_ends_when_nobody_is_left(app: App) -> None:
    there = len(app.world.workspaces[3].accounts)
    assert there > 0

    assert burst(app, "email_account_removed", count=there + 5, workspace=3) == {"email_account_removed": there}

    answer = ask(app, "/_sandbox/events", None, method="POST", body={"type": "email_sent", "workspace": 3})
    assert answer.status == 422
    assert b"email_sent can happen to none of the mailboxes" in answer.body


def test_a_burst_can_be_of_one_account(app: App) -> None:
    account_id = app.world.workspaces[2].accounts.order()[3]

    burst(app, "email_sent", count=5, account=account_id)

    assert {payload["data"]["sender_email"]["id"] for payload in payloads(app)} == {account_id}


@pytest.mark.parametrize(
    "values", [{"type": "email_lost"}, {"count": -1}, {"count": "many"}, {"kind": "x"}, {"workspace": 9}]
)
def test_a_burst_that_cannot_be_is_refused(app: App, values: dict[str, Any]) -> None:
    answer = ask(app, "/_sandbox/events", None, method="POST", body=values)

    assert answer.status == 422
    assert payloads(app) == []


def test_its_own_clock_stands_still_and_the_real_one_is_followed() -> None:
    now = datetime(2026, 8, 1, 12, tzinfo=UTC)
    own, real = (App(Config(workspaces=1, accounts=20, clock=clock), now=lambda: now) for clock in ("own", "real"))

    assert (own.world.now, real.world.now) == (Config().start, now)
    assert [a.email for a in accounts(own).values()] == [a.email for a in accounts(real).values()]
    now += timedelta(minutes=7)
    assert (own.world.now, real.world.now) == (Config().start, now)
    for app in (own, real):
        advance(app.world, Advance(**{**QUIET, "minutes": 600, "active": 1.0, "disconnect": 1}))
    assert (own.world.now, real.world.now) == (Config().start + timedelta(minutes=600), now)
    now -= timedelta(minutes=30)
    assert real.world.now == now + timedelta(minutes=30), "it went back"
    assert types(own) == types(real)
    times = [e.happening.at for e in real.world.hooks.events[1]]
    assert now - timedelta(minutes=570) < min(times) < max(times) == now + timedelta(minutes=30)
