"""The command health as operators, cron and monitoring systems call it."""

from __future__ import annotations

import re
import subprocess
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from cli import document, environment, run_cli, run_into
from office import Office
from plugin_line import read_line
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from slackhook import SlackHook
from terminal import at_terminal

from bisonsync.checks import NAMES, find_check
from bisonsync.checks.limits import merge_limits
from bisonsync.cli.health import HealthEnding, look
from bisonsync.errors import ConfigError, DatabaseUnavailable
from bisonsync.runner import Options, Session
from bisonsync.sandbox import Sandbox

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]
CODES_OF_TERMINALS = "\x1b\x07\u202e"
TEXT_STYLES = re.compile(r"\x1b\[[0-9;]*m")
CODES = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}


def health(dsn: str | None, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_cli(["health", *arguments], environment(dsn, **env))


def test_an_empty_database_is_not_ok(db: str) -> None:
    done = health(db, "--json")
    said = document(done)

    assert done.returncode == CODES[said["verdict"]] > 0
    assert [check["name"] for check in said["checks"]] == list(NAMES)
    states = {check["name"]: check["state"] for check in said["checks"]}
    assert states["freshness"] == states["api"] == "UNKNOWN"
    assert "bug" not in done.stderr
    assert not [check for check in said["checks"] if "cannot look" in check["detail"]]


def test_every_check_that_is_not_ok_has_a_hint(db: str) -> None:
    for check in document(health(db, "--json"))["checks"]:
        assert check["hint"] or check["state"] in ("OK", "not in use"), check["name"]


def test_the_object_has_the_parts_that_programs_rely_on(db: str) -> None:
    said = document(health(db, "--json", "clock"))

    assert {
        "schema_version",
        "job",
        "run_id",
        "verdict",
        "started_at",
        "duration_ms",
        "counts",
        "workspaces",
        "errors",
    } <= set(said)
    assert (said["schema_version"], said["job"]) == (1, "health")
    (check,) = said["checks"]
    assert {"name", "state", "value", "thresholds", "detail", "hint", "caused_by"} <= set(check)
    assert (check["name"], check["state"]) == ("clock", "OK")


def test_without_a_database_one_line_says_unknown() -> None:
    done = health("postgresql://nobody@127.0.0.1:9/none", "--nagios")

    assert done.returncode == 3
    assert done.stdout.count("\n") == 1
    assert read_line(done.stdout.rstrip("\n"))[0] == "UNKNOWN"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["no-such-check"],
        ["--threshold", "freshness"],
        ["--json", "--nagios"],
        ["-w", "1"],
        ["--instance", "sim"],
    ],
)
def test_a_wrong_command_line_is_unknown(db: str, arguments: list[str]) -> None:
    done = health(db, *arguments)

    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr


def test_a_wrong_option_before_the_command_is_unknown_for_health_alone(db: str) -> None:
    looked = run_cli(["--bogus", "health"], environment(db))
    polled = run_cli(["--bogus", "poll-accounts"], environment(db))

    assert (looked.returncode, polled.returncode) == (3, 2)


@pytest.mark.parametrize("arguments", [[], ["--deadline", "1s"], ["--config", "/no/such/file"]])
def test_the_object_has_its_list_of_checks_also_when_nothing_could_be_looked_at(arguments: list[str]) -> None:
    done = health("postgresql://nobody@127.0.0.1:9/none", "--json", *arguments)

    assert (done.returncode, document(done)["verdict"], document(done)["checks"]) == (3, "UNKNOWN", [])


@pytest.mark.parametrize(("form", "where"), [("", "| true"), ("--json", ">&- 2>&-"), ("--nagios", ">/dev/full")])
def test_what_was_seen_stands_in_the_exit_code_whoever_reads(db: str, form: str, where: str) -> None:
    assert run_into(f"health clock {form}", where, environment(db)) == 0


def test_no_settings_at_all_is_unknown() -> None:
    done = health(None)

    assert done.returncode == 3
    assert "no database URL is given" in done.stderr


def test_a_database_without_the_schema_is_not_ok_and_names_the_command(empty_db: str) -> None:
    done = health(empty_db, "--json")
    said = document(done)

    assert done.returncode in (2, 3)
    schema = next(check for check in said["checks"] if check["name"] == "schema")
    assert (schema["state"], "bisonsync migrate" in schema["hint"]) == ("CRITICAL", True)
    others = [
        check for check in said["checks"] if check["state"] not in ("OK", "not in use") and check["name"] != "schema"
    ]
    assert {check["caused_by"] for check in others if "cannot look" in check["detail"]} <= {"schema"}


def test_a_migration_that_was_forgotten_is_alarmed(db: str, conn: Connection) -> None:
    conn.execute("DELETE FROM bisonsync_migrations WHERE version = (SELECT max(version) FROM bisonsync_migrations)")
    with SlackHook() as slack:
        url = slack.url("/services/T0/B0/x")
        looks = [health(db, "--alert", "-q", BISONSYNC_ALERTS__SLACK_WEBHOOK_URL=url) for _ in range(2)]

    assert [look.returncode for look in looks] == [2, 2]
    assert "🔴 CRITICAL: schema" in slack.headings


def test_what_is_critical_stays_so_when_its_messages_cannot_be_kept(empty_db: str) -> None:
    done = health(empty_db, "--alert", "--json")
    said = document(done)

    assert (done.returncode, said["verdict"], [error["kind"] for error in said["errors"]]) == (
        2,
        "CRITICAL",
        ["schema"],
    )
    assert "CRITICAL" in [check["state"] for check in said["checks"] if check["name"] == "schema"]


def test_a_jitter_is_waited_for_before_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("socket.gethostname", lambda: "one")
    monkeypatch.setenv("BISONSYNC_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    session = Session(Options(jitter_seconds=36_000.0), "health")
    monkeypatch.setattr(session.clock, "sleep", slept.append)

    with pytest.raises(DatabaseUnavailable):
        look(session, HealthEnding(is_alerting=False, as_nagios=False), ["clock"], {})

    # More than any wait for a database.
    assert slept[0] > 600


def test_the_monitoring_line_and_the_exit_code_agree(db: str) -> None:
    done = health(db, "--nagios")
    state, _, data = read_line(done.stdout.removesuffix("\n"))

    assert done.returncode == CODES[state]
    assert [part for part in data if part.startswith("clock=")]


def test_a_flag_moves_a_threshold_of_this_look(db: str, conn: Connection) -> None:
    with Sandbox(workspaces=1) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        assert office.poll().code == 0
        conn.execute("UPDATE workspace_sync_state SET last_complete_at = now() - interval '6 minutes'")

        as_it_is = office.run("health", "freshness", "--json")
        moved = office.run("health", "freshness", "--json", "--threshold", "freshness.warning=7m")

    assert (as_it_is.code, as_it_is.document["verdict"]) == (1, "WARNING")
    assert (moved.code, moved.document["verdict"]) == (0, "OK")
    assert moved.document["checks"][0]["thresholds"]["warning"] == 420


def test_a_look_writes_nothing_unless_it_alerts(db: str, conn: Connection) -> None:
    health(db)
    looked = conn.execute("SELECT count(*) FROM email_sync_logs").fetchone()
    done = health(db, "--alert", "-q")
    alerted = conn.execute("SELECT job, status, exit_code FROM email_sync_logs").fetchall()

    assert looked == (0,)
    assert alerted == [("health", "success", done.returncode)]
    assert done.stdout == ""


def test_the_second_bad_look_sends_one_message_and_the_third_none(db: str) -> None:
    with SlackHook() as slack:
        url = slack.url("/services/T0/B0/secret-part")
        looks = [
            health(db, "--alert", "--json", "freshness", BISONSYNC_ALERTS__SLACK_WEBHOOK_URL=url) for _ in range(3)
        ]

    sent = [document(look)["counts"]["messages_sent"] for look in looks]
    assert (sent, [look.returncode for look in looks]) == ([0, 1, 0], [3, 3, 3])
    (post,) = slack.accepted
    assert "freshness" in post.heading
    assert "secret-part" not in "".join(look.stdout + look.stderr for look in looks)


def test_slack_away_fails_no_look_and_loses_no_message(db: str) -> None:
    with SlackHook(always=(500, b"", {})) as slack:
        url = slack.url("/services/T0/B0/secret-part")
        looks = [
            health(db, "--alert", "-q", "clock", "freshness", BISONSYNC_ALERTS__SLACK_WEBHOOK_URL=url) for _ in range(2)
        ]
        last = looks[-1]
        listed = document(run_cli(["alerts", "list", "--json"], environment(db)))

    assert (last.returncode, last.stdout) == (3, "")
    assert "could not be delivered" in last.stderr
    assert "secret-part" not in last.stderr
    assert listed["counts"] == {"open": 1, "undelivered": 1}


def test_cron_gets_a_line_for_each_thing_that_is_wrong_and_none_when_quiet_and_well(db: str) -> None:
    wrong = health(db, "-q", "freshness", "clock")
    well = health(db, "-q", "clock")

    assert wrong.stdout == ""
    assert wrong.stderr.startswith("error: freshness UNKNOWN: ")
    assert (well.returncode, well.stdout, well.stderr) == (0, "", "")


def test_cron_gets_what_is_wrong_where_no_slack_hears_of_it(db: str) -> None:
    with SlackHook() as slack:
        told = health(
            db, "--alert", "-q", "freshness", BISONSYNC_ALERTS__SLACK_WEBHOOK_URL=slack.url("/services/T0/B0/x")
        )
    mailed = health(db, "--alert", "-q", "freshness")

    assert (told.stdout, told.stderr) == ("", "")
    assert mailed.stdout == ""
    assert mailed.stderr.startswith("error: freshness UNKNOWN: ")


def test_the_command_that_makes_up_for_a_look_that_never_came_is_one_that_is_kept(db: str, conn: Connection) -> None:
    # Set up when the suite began, which may be long ago.
    conn.execute("UPDATE bisonsync_migrations SET applied_at = now()")
    (hint,) = [check["hint"] for check in document(health(db, "runs", "--json"))["checks"]]
    assert hint == "bisonsync health --alert"
    run_cli([*hint.split()[1:], "-q"], environment(db))

    (runs,) = document(health(db, "runs", "--json"))["checks"]

    assert "health" not in [finding["subject"] for finding in runs["findings"]]


def test_a_mail_says_which_check_is_the_cause(db: str, conn: Connection) -> None:
    with Sandbox(workspaces=1) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        conn.execute("UPDATE workspace_sync_state SET last_complete_at = now() - interval '6 minutes'")
        conn.execute("UPDATE client_registry SET created_at = now() - interval '1 day'")
        conn.execute("UPDATE bisonsync_migrations SET applied_at = now() - interval '1 day'")
        wrong = office.run("health", "-q", "freshness", "runs")

    (line,) = [line for line in wrong.stderr.splitlines() if "freshness" in line]
    assert " (because of runs)" in line


@pytest.mark.superuser
def test_a_role_that_sees_no_rows_is_told_so(db: str, conn: Connection) -> None:
    role = f"blind_{uuid4().hex}"
    name = Identifier(role)
    conn.execute(SQL("CREATE ROLE {} LOGIN").format(name))
    conn.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(name))
    dsn = make_conninfo(db, user=role)
    try:
        looked = health(dsn, "--nagios")
        polled = run_cli(["runs", "list"], environment(dsn))
    finally:
        conn.execute(SQL("DROP OWNED BY {}").format(name))
        conn.execute(SQL("DROP ROLE {}").format(name))

    assert looked.returncode == 3
    assert f"role {role} sees no row" in looked.stdout
    assert polled.returncode == 6
    assert f"role {role} sees no row" in polled.stderr
    assert "migrate" not in polled.stderr


def test_a_name_cannot_steer_the_terminal(db: str, conn: Connection) -> None:
    with Sandbox(workspaces=1) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        conn.execute("UPDATE client_registry SET workspace_name = %s", ["Two\nlines\r\x1b]0;owned\x07\x1b[2J\u202eend"])
        screens = [
            at_terminal(command, environment(db), columns=80) for command in (["health"], ["workspaces", "list"])
        ]

    for screen in screens:
        assert [line for line in screen.lines if "Two" in line]
        assert not set(CODES_OF_TERMINALS) & set(TEXT_STYLES.sub("", screen.raw))
    assert [line for line in screens[0].lines if "Two lines" in line]


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_a_table_that_fits(db: str, columns: int) -> None:
    screen = at_terminal(["health"], environment(db), columns=columns)

    assert max(map(len, screen.lines)) <= columns
    assert [line for line in screen.lines if line.startswith("health: ")]
    for name in NAMES:
        assert [line for line in screen.lines if line.startswith(name)]


def test_settings_come_between_the_defaults_and_the_flags() -> None:
    limits = merge_limits({"freshness": {"warning": "6m", "critical": "20m"}}, {"freshness": {"warning": "7m"}})

    assert limits["freshness"]["warning"].value == 420
    assert limits["freshness"]["critical"].value == 1200
    assert limits["freshness"]["page"] == find_check("freshness").LIMITS["page"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"freshnes": {"warning": "6m"}}, "'freshnes' is no check"),
        ({"freshness": {"warn": "6m"}}, "'warn' is no threshold of freshness"),
        ({"freshness": {"warning": "soon"}}, "freshness.warning"),
        ({"bounce": {"warning": "-1"}}, "bounce.warning"),
        ({"bounce": {"warning": "nan"}}, "bounce.warning"),
        ({"bounce": {"warning": "ten"}}, "bounce.warning"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(given: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge_limits(given)

    assert message in caught.value.message
