"""Alarms from the first bad observation to the last word: which messages are made, and that each arrives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cli import heard, wait_until
from conversation import HandClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slackhook import OK, SlackHook

from bisonsync.api.slack import SlackSender
from bisonsync.checks.check import CheckResult, Finding, Limit, State
from bisonsync.checks.episodes import MAIN_CHANNEL, Policy, follow, sight
from bisonsync.clock import SystemClock
from bisonsync.jobs import alerts
from bisonsync.jobs.alerts.delivery import DeliveryReport, deliver
from bisonsync.keys import WorkspaceKey
from bisonsync.store import alerts as store
from bisonsync.store.alerts import ClientRow, Episode
from bisonsync.store.db import Database

Connection = psycopg.Connection[Any]

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FAILED = (500, b"rollup_error", {})


def result(state: State, name: str = "freshness", **values: Any) -> CheckResult:
    return CheckResult(name, state, values.pop("detail", f"{name} is {state}"), **values)


def finding(number: int, state: State = "CRITICAL", **values: Any) -> Finding:
    return Finding(f"Client {number}", state, values.pop("detail", "14 min old"), WorkspaceKey("sim", number), **values)


@dataclass
class Watch:
    """A database that is looked at in minutes of its own, and a Slack."""

    database: Database
    conn: Connection
    slack: SlackHook
    channels: dict[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    clients: list[ClientRow] = field(default_factory=list)
    minute: float = 0.0
    reports: list[DeliveryReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.channels = self.channels or {MAIN_CHANNEL: self.slack.url()}
        self.policy = Policy(frozenset(self.channels))

    @property
    def now(self) -> datetime:
        return BEGIN + self.minute * MINUTE

    def see(self, *results: CheckResult | State) -> list[tuple[str, str]]:
        """Look; which messages were made, of which scope."""
        checks = [result(one) if isinstance(one, str) else one for one in results]
        observed = self.database.run(
            lambda conn: alerts.observe(conn, checks, now=self.now, policy=self.policy, clients=self.clients)
        )
        return [(change.what, change.scope) for change in observed.changes]

    def deliver(self, **options: Any) -> DeliveryReport:
        sender = SlackSender(
            self.channels, user_agent="bisonsync/test", monotonic=SystemClock().monotonic, read_timeout_seconds=0.2
        )
        report = deliver(self.database, sender, now=self.now, clock=HandClock(), **options)
        self.reports.append(report)
        return report

    def look(self, *results: CheckResult | State) -> DeliveryReport:
        """Look and deliver, and let a minute pass."""
        self.see(*results)
        report = self.deliver()
        self.minute += 1
        return report

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.conn.execute(query, parameters).fetchall()  # type: ignore[arg-type]

    def one(self, query: str, *parameters: Any) -> Any:
        ((value,),) = self.rows(query, *parameters)
        return value


@pytest.fixture
def slack() -> Iterator[SlackHook]:
    with SlackHook() as slack:
        yield slack


@pytest.fixture
def database(db: str) -> Iterator[Database]:
    database = Database(db, application_name="bisonsync test", clock=SystemClock())
    yield database
    database.close()


@pytest.fixture
def watch(database: Database, conn: Connection, slack: SlackHook) -> Watch:
    return Watch(database, conn, slack)


def test_three_days_of_looks_each_minute(watch: Watch) -> None:
    while watch.minute <= 3 * 24 * 60 + 1:
        watch.look(result("CRITICAL", findings=(finding(3),)))
    for _ in range(5):
        watch.look("OK")

    assert watch.slack.headings == [
        "🔴 CRITICAL: freshness",
        *["🔴 Still CRITICAL: freshness"] * 18,
        "✅ Over: freshness",
    ]
    made = watch.rows("SELECT created_at FROM alert_messages ORDER BY id")
    assert [(at - BEGIN) / MINUTE for (at,) in made] == [*range(1, 3 * 24 * 60 + 2, 240), 3 * 24 * 60 + 3]
    assert watch.one("SELECT count(*) FROM alert_episodes") == 1
    assert watch.one("SELECT (closed_at, reminders) = (%s, 18) FROM alert_episodes", BEGIN + 4323 * MINUTE)


# From observations to messages


def test_the_first_bad_observation_is_stored_at_once_and_told_of_with_the_second(watch: Watch) -> None:
    bad = result("WARNING", value=400.0, unit="s", hint="bisonsync poll-accounts", findings=(finding(3), finding(4)))

    watch.look(bad)
    first = watch.rows("SELECT state, bad_count, opened_at, value, unit, detail, hint, workspaces FROM alert_episodes")
    told_first = list(watch.slack.headings)
    watch.look(bad)

    assert first == [
        ("WARNING", 1, None, 400.0, "s", "freshness is WARNING", "bisonsync poll-accounts", ["sim/3", "sim/4"])
    ]
    assert told_first == []
    assert watch.slack.headings == ["🟠 WARNING: freshness"]
    assert watch.rows("SELECT bad_count, opened_at, told_state FROM alert_episodes") == [(2, BEGIN + MINUTE, "WARNING")]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_opens_after_so_many_bad_ones_in_a_row(watch: Watch, after: int) -> None:
    watch.policy = Policy(watch.policy.channels, after=after)

    made = [watch.see("UNKNOWN") for watch.minute in range(after)]

    assert ("opening", "") in made[-1]
    assert all(("opening", "") not in one for one in made[:-1])


@pytest.mark.parametrize("close_after", [1, 2, 3])
def test_is_over_after_so_many_good_ones_in_a_row(watch: Watch, close_after: int) -> None:
    watch.policy = Policy(watch.policy.channels, close_after=close_after)
    for state in ("CRITICAL", "CRITICAL", *(["OK"] * (close_after - 1)), "CRITICAL"):
        watch.look(state)

    made = [watch.look("not in use" if number else "OK") for number in range(close_after)]

    assert [report.sent for report in made] == [0] * (close_after - 1) + [1]
    assert watch.slack.headings == ["🔴 CRITICAL: freshness", "✅ Over: freshness"]
    assert "It was CRITICAL: freshness is CRITICAL" in watch.slack.accepted[1].text


def test_flapping_neither_opens_nor_closes(watch: Watch) -> None:
    for state in ("CRITICAL", "OK") * 20:
        watch.look(state)
    assert watch.slack.posts == []

    watch.look("CRITICAL")
    for state in ("CRITICAL", "OK") * 20:
        watch.look(state)
    assert watch.slack.headings == ["🔴 CRITICAL: freshness"]

    watch.look("OK")
    assert watch.slack.headings == ["🔴 CRITICAL: freshness", "✅ Over: freshness"]
    assert watch.one("SELECT count(*) FROM alert_episodes") == 1


def test_what_was_not_told_of_ends_in_silence(watch: Watch) -> None:
    for state in ("CRITICAL", "OK", "OK", "OK"):
        watch.look(state)

    assert watch.slack.posts == []
    assert watch.rows("SELECT opened_at, closed_at FROM alert_episodes") == [(None, BEGIN + 2 * MINUTE)]


def test_a_new_fault_after_the_end_is_a_new_episode(watch: Watch) -> None:
    for state in ("CRITICAL", "CRITICAL", "OK", "OK") * 2:
        watch.look(state)

    assert watch.slack.headings == ["🔴 CRITICAL: freshness", "✅ Over: freshness"] * 2
    assert watch.one("SELECT count(*) FROM alert_episodes WHERE closed_at IS NOT NULL") == 2


@pytest.mark.parametrize("before", ["WARNING", "UNKNOWN"])
def test_becoming_critical_is_told_once(watch: Watch, before: State) -> None:
    for state in (before, before, "CRITICAL", before, "CRITICAL", "OK", "CRITICAL"):
        watch.look(state)

    assert [heading.partition(" ")[2] for heading in watch.slack.headings] == [
        f"{before}: freshness",
        "Worse, now CRITICAL: freshness",
    ]


def test_a_reminder_that_says_less_does_not_make_it_worse_again(watch: Watch) -> None:
    looks: list[tuple[int, State]] = [(0, "CRITICAL"), (1, "CRITICAL"), (300, "WARNING"), (301, "CRITICAL")]

    for watch.minute, state in looks:
        watch.look(state)

    assert watch.slack.headings == ["🔴 CRITICAL: freshness", "🟠 Still WARNING: freshness"]


def test_becoming_unknown_is_not_worse(watch: Watch) -> None:
    for state in ("WARNING", "WARNING", "UNKNOWN", "UNKNOWN"):
        watch.look(state)

    assert watch.slack.headings == ["🟠 WARNING: freshness"]


def old(seconds: float) -> CheckResult:
    return result("CRITICAL", value=seconds, unit="s", thresholds={"page": Limit(3600.0, "s")})


def test_beyond_the_page_threshold_it_is_told_once_more(watch: Watch) -> None:
    for seconds in (700, 760, 3600, 3601, 3661, 700, 9000):
        watch.look(old(seconds))

    assert watch.slack.headings == ["🔴 CRITICAL: freshness", "🔴 CRITICAL for long, paged again: freshness"]
    assert watch.one("SELECT paged_at FROM alert_episodes") == BEGIN + 3 * MINUTE


def test_what_another_check_tells_of_is_not_paged_here(watch: Watch) -> None:
    refused = finding(1, kinds=("page",), caused_by="tokens")
    tokens = result("CRITICAL", "tokens", findings=(finding(1),))
    paged = finding(2, kinds=("page",))

    for stale in (finding(2), finding(2), finding(2), paged):
        page = {"value": 9000.0, "unit": "s", "thresholds": {"page": Limit(3600.0, "s")}}
        watch.look(tokens, result("CRITICAL", findings=(refused, stale), **page))

    assert [heading for heading in watch.slack.headings if "freshness" in heading] == [
        "🔴 CRITICAL: freshness",
        "🔴 CRITICAL for long, paged again: freshness",
    ]
    assert watch.one("SELECT paged_at FROM alert_episodes WHERE check_name = 'freshness'") == BEGIN + 3 * MINUTE


def test_what_opens_beyond_the_page_threshold_is_told_once(watch: Watch) -> None:
    for seconds in (4000, 4060, 4120, 4180):
        watch.look(old(seconds))

    assert watch.slack.headings == ["🔴 CRITICAL: freshness"]


def test_a_reminder_counts_from_the_last_message(watch: Watch) -> None:
    watch.look("WARNING")
    watch.look("WARNING")
    watch.minute = 200
    watch.look("CRITICAL")

    made = {minute: watch.see("CRITICAL") for minute in (239, 240, 241, 439, 440) for watch.minute in [minute]}

    assert made == {239: [], 240: [], 241: [], 439: [], 440: [("reminder", "")]}


def test_the_same_look_counts_once(watch: Watch) -> None:
    made = [watch.see("CRITICAL") for _ in range(3)]
    watch.minute += 1
    made += [watch.see("CRITICAL") for _ in range(3)]

    assert made == [[("seen", "")], [], [], [("opening", "")], [], []]
    assert watch.one("SELECT bad_count FROM alert_episodes") == 2
    assert watch.one("SELECT count(*) FROM alert_messages") == 1


def test_each_check_has_its_own_episode(watch: Watch) -> None:
    watch.look(result("CRITICAL", "tokens"), result("OK", "runs"), result("WARNING", "api"))
    watch.look(result("CRITICAL", "tokens"), result("WARNING", "runs"), result("OK", "api"))

    assert watch.slack.headings == ["🔴 CRITICAL: tokens"]
    assert watch.rows("SELECT check_name, bad_count FROM alert_episodes ORDER BY 1") == [
        ("api", 0),
        ("runs", 1),
        ("tokens", 2),
    ]


def test_a_check_that_was_not_looked_at_stays_as_it_is(watch: Watch) -> None:
    watch.look(result("CRITICAL", "tokens"))
    watch.look(result("CRITICAL", "tokens"))
    for _ in range(5):
        watch.look(result("OK", "runs"))

    assert watch.one("SELECT (bad_count, good_count, closed_at) IS NOT DISTINCT FROM (2, 0, NULL) FROM alert_episodes")


def test_hostile_words_can_be_stored_and_sent(watch: Watch) -> None:
    name = "<!channel> *x* \x00\ud800\n& co"
    bad = result("CRITICAL", detail=name, hint=name, value=float("nan"), findings=(Finding(name, "CRITICAL", name),))

    watch.look(bad)
    watch.look(bad)

    assert "&lt;!channel&gt; *x* &amp; co" in watch.slack.accepted[0].text
    assert watch.one("SELECT detail FROM alert_episodes") == "<!channel> *x* ?\n& co"


def test_five_hundred_workspaces_are_one_message_in_every_channel(watch: Watch) -> None:
    bad = result("CRITICAL", findings=tuple(finding(number, detail="x" * 500) for number in range(1, 501)))

    watch.look(bad)
    watch.look(bad)

    (post,) = watch.slack.accepted
    assert "and 470 more" in json.dumps(post.body["blocks"])
    assert len(watch.one("SELECT workspaces FROM alert_episodes")) == 500


# Causes


def explained(name: str = "freshness", cause: str = "tokens", **values: Any) -> CheckResult:
    found = (finding(3, caused_by=cause), finding(4, caused_by=cause))
    return result("CRITICAL", name, findings=found, caused_by=cause, **values)


def test_what_another_check_tells_of_is_told_with_it(watch: Watch) -> None:
    looks = [
        result("CRITICAL", "tokens", findings=(finding(3),)),
        explained(),
        result("WARNING", "runs", findings=(Finding("poll-accounts", "WARNING", "partial", caused_by="tokens"),)),
    ]
    for _ in range(5):
        watch.look(*looks)

    (post,) = watch.slack.accepted
    assert post.heading == "🔴 CRITICAL: tokens"
    assert "Also failing because of this: freshness (2 workspaces), runs" in post.text
    assert watch.rows("SELECT check_name FROM alert_episodes") == [("tokens",)]


def test_an_open_alarm_waits_in_silence_while_it_is_explained(watch: Watch) -> None:
    watch.look("CRITICAL")
    watch.look("CRITICAL")
    watch.look("OK")
    while watch.minute < 600:
        watch.look(result("CRITICAL", "tokens"), explained())
        watch.minute += 59
    standing = watch.rows(
        "SELECT check_name, caused_by, closed_at, bad_count, good_count FROM alert_episodes ORDER BY id"
    )
    told = [heading for heading in watch.slack.headings if "freshness" in heading]
    watch.look(result("OK", "tokens"), result("CRITICAL"))

    assert standing[0] == ("freshness", "tokens", None, 0, 1)
    assert told == ["🔴 CRITICAL: freshness"]
    assert watch.slack.headings[-1] == "🔴 Still CRITICAL: freshness"
    assert watch.one("SELECT caused_by FROM alert_episodes WHERE check_name = 'freshness'") is None


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([], id="not looked at"),
        pytest.param([result("OK", "tokens")], id="well"),
        pytest.param([result("not in use", "tokens")], id="not in use"),
        pytest.param([result("CRITICAL", "tokens", caused_by="freshness")], id="a circle"),
        pytest.param(
            [result("CRITICAL", "tokens", caused_by="runs"), result("OK", "runs")], id="its own cause is well"
        ),
    ],
)
def test_a_cause_that_is_not_told_of_excuses_nobody(watch: Watch, others: list[CheckResult]) -> None:
    watch.look(explained(), *others)
    watch.look(explained(), *others)

    assert "🔴 CRITICAL: freshness" in watch.slack.headings


def test_a_cause_told_of_before_excuses_a_look_at_one_check(watch: Watch) -> None:
    watch.look(result("CRITICAL", "tokens"))
    watch.look(result("CRITICAL", "tokens"))
    watch.look(explained())
    watch.look(explained())

    assert watch.slack.headings == ["🔴 CRITICAL: tokens"]


def test_a_chain_of_causes_leads_to_the_one_that_is_told(watch: Watch) -> None:
    looks = [explained(cause="runs"), explained("runs", cause="tokens"), result("CRITICAL", "tokens")]

    watch.look(*looks)
    watch.look(*looks)

    assert watch.slack.headings == ["🔴 CRITICAL: tokens"]


def test_only_what_is_not_explained_is_told(watch: Watch) -> None:
    found = (finding(3, caused_by="tokens"), finding(4, "WARNING"))
    looks = [result("CRITICAL", findings=found), result("CRITICAL", "tokens")]

    watch.look(*looks)
    watch.look(*looks)

    freshness = next(post for post in watch.slack.accepted if "freshness" in post.heading)
    assert freshness.heading == "🟠 WARNING: freshness"
    assert "Client 4" in freshness.text
    assert "Client 3" not in freshness.text
    assert watch.one("SELECT workspaces FROM alert_episodes WHERE check_name = 'freshness'") == ["sim/4"]


# Clients


@pytest.fixture
def agency(watch: Watch) -> Watch:
    """Two clients with channels of their own, a third whose channel nobody has set up."""
    watch.channels = {name: watch.slack.url(f"/{name or 'main'}") for name in (MAIN_CHANNEL, "acme", "zeta")}
    watch.policy = Policy(frozenset(watch.channels))
    watch.clients = [
        ClientRow("sim", 3, "Acme", "acme"),
        ClientRow("sim", 4, "Zeta", "ZETA"),
        ClientRow("sim", 5, "Nowhere", "gone"),
    ]
    return watch


def test_a_client_hears_of_its_own_alarms_alone(agency: Watch) -> None:
    mine = Finding("Acme", "CRITICAL", "never read", WorkspaceKey("sim", 3))
    bad = result("CRITICAL", detail="Acme and Other", hint="look at Other", findings=(finding(9, detail="Other"), mine))
    worse = result("CRITICAL", findings=(finding(9), mine, finding(4, "WARNING", detail="7 min old")))

    for look in (bad, bad, worse, worse, result("CRITICAL", findings=(finding(9),)), result("OK"), result("OK")):
        agency.look(look)

    by_path: dict[str, list[str]] = {}
    for post in agency.slack.accepted:
        by_path.setdefault(post.path, []).append(post.heading)
    assert by_path == {
        "/main": ["🔴 CRITICAL: freshness", "✅ Over: freshness"],
        "/acme": ["🔴 CRITICAL: freshness: Acme", "✅ Over: freshness: Acme"],
        "/zeta": ["🟠 WARNING: freshness: Zeta", "✅ Over: freshness: Zeta"],
    }
    told = json.dumps([post.body for post in agency.slack.accepted if post.path != "/main"])
    assert "Other" not in told
    assert "Client 9" not in told
    assert "never read" in told
    assert agency.rows("SELECT DISTINCT scope FROM alert_episodes ORDER BY 1") == [("",), ("sim/3",), ("sim/4",)]


def test_several_findings_of_one_client_are_one_message(agency: Watch) -> None:
    bad = result(
        "CRITICAL",
        findings=(
            finding(3, "WARNING", detail="campaigns 2 h old"),
            finding(3, detail="accounts 1 h old"),
            finding(3, caused_by="tokens", detail="leads"),
        ),
    )
    looks = [bad, result("CRITICAL", "tokens"), explained("completeness")]

    agency.look(*looks)
    agency.look(*looks)

    (post,) = [post for post in agency.slack.accepted if post.path == "/acme"]
    assert post.heading == "🔴 CRITICAL: freshness: Acme"
    assert "campaigns 2 h old\n• Client 3: accounts 1 h old\n" in post.text
    assert post.text.count("campaigns") == 1
    assert "leads" not in post.text


def test_a_client_is_told_how_bad_its_own_part_is(agency: Watch) -> None:
    found = (finding(3, caused_by="tokens"), finding(3, "WARNING", detail="campaigns 2 h old"))
    looks = [result("CRITICAL", findings=found), result("CRITICAL", "tokens")]

    agency.look(*looks)
    agency.look(*looks)

    assert [post.heading for post in agency.slack.accepted if post.path == "/acme"] == ["🟠 WARNING: freshness: Acme"]


def test_a_client_is_not_told_what_a_cause_of_the_whole_check_explains(agency: Watch) -> None:
    looks = [result("CRITICAL", findings=(finding(3),), caused_by="runs"), result("CRITICAL", "runs")]

    agency.look(*looks)
    agency.look(*looks)

    assert [post.path for post in agency.slack.accepted] == ["/main"]


def test_a_client_hears_the_cause_only_where_it_is_its_own(agency: Watch) -> None:
    looks = [result("CRITICAL", "tokens", findings=(finding(3), finding(9))), explained()]

    agency.look(*looks)
    agency.look(*looks)

    posts = {post.path: post for post in agency.slack.accepted}
    assert sorted(posts) == ["/acme", "/main"]
    assert "because of this: freshness (1 workspace)" in posts["/acme"].text
    assert "because of this: freshness (2 workspaces)" in posts["/main"].text


def test_a_channel_that_is_not_set_up_is_a_warning_and_no_message(agency: Watch) -> None:
    bad = [result("CRITICAL", findings=(finding(5),))]
    observed = agency.database.run(
        lambda conn: alerts.observe(conn, bad, now=agency.now, policy=agency.policy, clients=agency.clients)
    )

    (problem,) = observed.problems
    assert (problem.workspace, problem.exit_code) == ("sim/5", 0)
    assert "slack_webhook_url_ref" in problem.message
    assert "'gone'" in problem.hint
    assert agency.rows("SELECT scope FROM alert_episodes") == [("",)]


def test_the_registry_says_who_has_a_channel(agency: Watch) -> None:
    for number, name, display, ref in (
        (3, "w3", "Acme", " acme "),
        (4, "w4", None, "zeta"),
        (5, "w5", " ", " "),
        (6, "w6", None, None),
    ):
        agency.conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name, display_name,"
            " slack_webhook_url_ref) VALUES ('sim', %s, %s, %s, %s)",
            (number, name, display, ref),
        )

    assert agency.database.run(store.list_clients) == [
        ClientRow("sim", 3, "Acme", "acme"),
        ClientRow("sim", 4, "w4", "zeta"),
    ]


def test_what_nobody_could_see_is_neither_good_nor_bad_for_a_client(agency: Watch) -> None:
    bad = result("CRITICAL", findings=(finding(3),))
    for look in (bad, bad, result("UNKNOWN"), result("UNKNOWN"), result("UNKNOWN")):
        agency.look(look)

    assert agency.one("SELECT good_count FROM alert_episodes WHERE scope = 'sim/3'") == 0
    agency.look(result("UNKNOWN", findings=(finding(9),)))
    assert agency.one("SELECT good_count FROM alert_episodes WHERE scope = 'sim/3'") == 1


def test_a_client_that_lost_its_channel_is_not_waited_for(agency: Watch) -> None:
    bad = result("CRITICAL", findings=(finding(3),))
    agency.look(bad)
    agency.look(bad)
    agency.clients = []

    agency.look(bad)

    assert agency.rows("SELECT scope, closed_at IS NULL FROM alert_episodes ORDER BY 1") == [
        ("", True),
        ("sim/3", False),
    ]
    assert [post.path for post in agency.slack.accepted] == ["/main", "/acme"]


def test_the_end_is_told_where_the_beginning_was(agency: Watch) -> None:
    bad = result("CRITICAL", findings=(finding(3),))
    agency.look(bad)
    agency.look(bad)
    agency.clients[0] = ClientRow("sim", 3, "Acme", "zeta")

    agency.look("OK")
    agency.look("OK")

    assert [post.path for post in agency.slack.accepted if "Acme" in post.heading] == ["/acme", "/acme"]


def test_without_slack_episodes_are_kept_and_no_message_is_made(watch: Watch) -> None:
    watch.channels, watch.policy = {}, Policy()
    watch.look("CRITICAL")
    watch.look("CRITICAL")

    assert watch.see("CRITICAL") == []
    assert watch.one("SELECT opened_at FROM alert_episodes") == BEGIN + MINUTE
    assert watch.one("SELECT count(*) FROM alert_messages") == 0
    assert watch.reports[-1] == DeliveryReport()


def test_an_end_whose_beginning_was_not_told_is_not_told(watch: Watch) -> None:
    policy, watch.policy = watch.policy, Policy()
    for state in ("CRITICAL", "CRITICAL", "OK"):
        watch.look(state)
    watch.policy = policy

    watch.look("OK")

    assert watch.slack.posts == []
    assert watch.one("SELECT closed_at FROM alert_episodes") == BEGIN + 3 * MINUTE


def test_slack_set_up_later_hears_of_what_is_open(watch: Watch) -> None:
    policy, watch.policy = watch.policy, Policy()
    for _ in range(3):
        watch.look("CRITICAL")
    watch.policy = policy

    for state in ("CRITICAL", "CRITICAL", "OK", "OK"):
        watch.look(state)

    assert watch.slack.headings == ["🔴 CRITICAL: freshness", "✅ Over: freshness"]


def test_listeners_hear_once_of_each_change_set(watch: Watch) -> None:
    watch.conn.execute("LISTEN bisonsync")
    looks = [["CRITICAL"] * 1, ["CRITICAL"], ["CRITICAL"], ["OK"], ["OK"], ["OK"]]
    told = []
    for states in looks:
        watch.see(*[result(state, name) for state in states for name in ("tokens", "runs", "api")])
        watch.minute += 1
        told.append(heard(watch.conn))

    change = [{"table": "alert_episodes", "workspace": None, "kind": "changed"}]
    assert told == [change, change, [], [], change, []]


def test_two_looks_at_once_open_one_episode(watch: Watch, db: str) -> None:
    with psycopg.connect(db) as other:
        alerts.observe(other, [result("CRITICAL")], now=BEGIN, policy=watch.policy, clients=[])
        watch.conn.execute("SET lock_timeout = '1ms'")
        # The other has not committed: its row cannot be seen, only be waited for.
        with pytest.raises(psycopg.errors.LockNotAvailable), watch.conn.transaction():
            alerts.observe(watch.conn, [result("CRITICAL")], now=BEGIN + MINUTE, policy=watch.policy, clients=[])
        other.commit()
    watch.minute = 1
    watch.see("CRITICAL")

    assert watch.rows("SELECT bad_count FROM alert_episodes") == [(2,)]


def test_a_look_waits_for_one_that_has_not_ended(watch: Watch, db: str) -> None:
    watch.look("CRITICAL")
    second = threading.Thread(target=lambda: watch.look("CRITICAL"))
    with psycopg.connect(db) as other:
        alerts.observe(other, [result("CRITICAL")], now=watch.now - MINUTE / 2, policy=watch.policy, clients=[])
        second.start()
        waiting = "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_until(lambda: watch.rows(waiting) != [], "the second look waits")
        other.commit()
    second.join()

    assert watch.one("SELECT count(*) FROM alert_messages WHERE kind = 'opening'") == 1
    assert watch.one("SELECT bad_count FROM alert_episodes") == 3


def test_an_episode_that_another_run_opened_is_left_to_it(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.policy = Policy(watch.policy.channels, after=1)
    watch.see("CRITICAL")
    monkeypatch.setattr(store, "lock_open_episodes", lambda *_: [])
    watch.minute = 1

    assert watch.see("CRITICAL") == []
    assert watch.one("SELECT count(*) FROM alert_messages") == 1


def test_a_reminder_that_nobody_received_is_overtaken_by_what_is_newer(watch: Watch) -> None:
    watch.look("CRITICAL")
    watch.slack.always = (503, b"", {})
    for watch.minute in (1, 241, 481):
        watch.look("CRITICAL")
    waiting = watch.rows("SELECT kind FROM alert_messages WHERE dropped_at IS NULL ORDER BY id")
    watch.look("OK")
    watch.slack.always = OK
    watch.look("OK")

    assert waiting == [("opening",), ("reminder",)]
    assert watch.slack.headings == ["🔴 CRITICAL: freshness", "✅ Over: freshness"]
    assert watch.reports[-1].waiting == 0


def test_a_reminder_under_way_is_not_dropped(watch: Watch) -> None:
    watch.look("CRITICAL")
    watch.look("CRITICAL")
    watch.minute = 241
    watch.see("CRITICAL")
    claim = watch.database.run(lambda conn: store.claim_message(conn, [MAIN_CHANNEL], watch.now, ttl_seconds=60.0))

    for watch.minute in (241.3, 241.6):
        watch.see("OK")

    assert claim is not None
    assert claim.kind == "reminder"
    assert watch.one("SELECT dropped_at FROM alert_messages WHERE id = %s", claim.id) is None


# Any sequence of observations

STATES: tuple[State, ...] = ("OK", "not in use", "WARNING", "UNKNOWN", "CRITICAL")
observations = st.tuples(st.sampled_from(STATES), st.booleans(), st.integers(1, 300))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(observations, max_size=60),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([frozenset[str](), frozenset({MAIN_CHANNEL})]),
)
def test_any_sequence_keeps_the_rules(
    sequence: list[tuple[State, bool, int]], after: int, close_after: int, channels: frozenset[str]
) -> None:
    policy = Policy(channels, after=after, close_after=close_after)
    episode: Episode | None = None
    told: list[tuple[str, datetime]] = []
    now = BEGIN
    row = {"bad": 0, "good": 0}
    for state, is_explained, minutes in sequence:
        now += minutes * MINUTE
        is_bad = state not in ("OK", "not in use")
        looks = [explained() if is_explained and is_bad else result(state), result("CRITICAL", "tokens")]
        (seen,) = [one for one in sight(looks, [], policy) if one.check == "freshness"]
        episode, kind = follow(episode, seen, now, policy)
        if is_bad and not is_explained:
            row = {"bad": row["bad"] + 1, "good": 0}
        elif not is_bad:
            row = {"bad": 0, "good": row["good"] + 1}

        if kind is not None:
            # The sequence of messages: opening (worse, page, reminder)* recovery, and so on; each in its place.
            is_open = bool(told) and told[-1][0] != "recovery"
            assert is_open is (kind != "opening")
            assert channels
            assert is_bad is (kind != "recovery")
            assert not (is_explained and is_bad)
            if kind == "opening":
                assert row["bad"] >= after
            if kind == "recovery":
                assert row["good"] == close_after
            if kind == "reminder":
                assert now - told[-1][1] >= policy.reminder
            if kind == "worse":
                since = max(n for n, (one, _) in enumerate(told) if one == "opening")
                assert all(one != "worse" for one, _ in told[since:])
            told.append((kind, now))
        if episode is not None and episode.closed_at is not None:
            assert row["good"] == close_after
            episode = None
        # Nothing is forgotten, and nothing kept open.
        assert (episode is None) <= (row["bad"] == 0)
        if row["good"] >= close_after:
            assert episode is None
        if row["bad"] >= after and channels:
            assert told
            assert told[-1][0] != "recovery"
