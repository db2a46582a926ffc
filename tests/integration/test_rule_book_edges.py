"""Deliveries at the edges of the rules: odd values, changed surroundings, and events that lie close together."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from cli import wait_until
from conftest import named
from psycopg.sql import SQL, Identifier

from bisonsync.jobs.pull_events.pull import problems_of
from bisonsync.store import migrations, webhooks
from bisonsync.store.webhooks import Delivery, Outcome

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]
Object = dict[str, Any]

NOW = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = (NOW - timedelta(days=1)).isoformat()
BASE_URLS = {"north": "https://north.example.com", "south": "https://south.example.com"}


@pytest.fixture
def inbox(conn: Connection) -> Iterator[Connection]:
    """Two instances, each with a workspace 1; the first has a workspace 2 as well."""
    register(conn)
    yield conn


def register(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)"
        " VALUES ('north', 1, 'Acme'), ('north', 2, 'Beta'), ('south', 1, 'Gamma')"
    )
    use(conn, BASE_URLS)


def use(conn: Connection, base_urls: dict[str, str]) -> None:
    webhooks.write_settings(conn, timezone="Europe/Berlin", store_bodies=False, base_urls=base_urls)


def told(kind: str = "EMAIL_SENT", data: object = None, *, workspace: object = 2, **event: object) -> Object:
    return {"event": {"type": kind, "workspace_id": workspace} | event, "data": {} if data is None else data}


def sent(number: object = 1, *, created_at: str = YESTERDAY, **event: Any) -> Object:
    return told(data={"campaign_event": {"id": number, "created_at": created_at}}, **event)


def deliver(conn: Connection, *bodies: object, **how: Any) -> list[Outcome]:
    return webhooks.receive(conn, [Delivery(json.dumps(body), "receiver", **how) for body in bodies])


def replay(conn: Connection) -> list[str]:
    """Replay the whole log; the statuses it has then."""
    keys = conn.execute("SELECT id, received_at FROM webhook_delivery_log").fetchall()
    webhooks.process(conn, [key[0] for key in keys], [key[1] for key in keys])
    return [row[0] for row in conn.execute("SELECT status FROM webhook_delivery_log ORDER BY id").fetchall()]


def counted(conn: Connection) -> dict[str, int]:
    """Emails sent, by workspace."""
    rows = conn.execute(
        "SELECT bison_instance || '/' || bison_workspace_id, sum(emails_sent_mtd)::int FROM client_metrics GROUP BY 1"
    ).fetchall()
    return {workspace: number for workspace, number in rows if number}


@pytest.mark.parametrize("kind", ["EMAIL_ACCOUNT_UPDATED", "email_account_"])
def test_an_unknown_type_named_like_those_of_accounts_is_ignored(inbox: Connection, kind: str) -> None:
    (outcome,) = deliver(inbox, told(kind, {"sender_email": {"id": 7, "updated_at": YESTERDAY}}))
    assert (outcome.status, outcome.error_message) == ("ignored", "unknown type of event")
    assert inbox.execute("SELECT count(*) FROM sender_emails_cache").fetchone() == (0,)


@pytest.mark.parametrize("digits", [61, 130, 100_000])
def test_a_moment_longer_than_postgres_reads_is_none(inbox: Connection, digits: int) -> None:
    (outcome,) = deliver(inbox, sent(created_at=f"2026-01-01T00:00:00.{'1' * digits}Z"))
    assert (outcome.status, counted(inbox)) == ("processed", {"north/2": 1})
    assert inbox.execute("SELECT occurred_rule FROM webhook_delivery_log").fetchone() == ("received_at",)


def test_a_moment_s_fraction_may_be_long(inbox: Connection) -> None:
    moment = f"{(NOW - timedelta(days=1)):%Y-%m-%dT%H:%M:%S}.{'1' * 60}+05:30"
    deliver(inbox, sent(created_at=moment))
    assert inbox.execute("SELECT occurred_rule FROM webhook_delivery_log").fetchone() == ("campaign_event.created_at",)


@pytest.mark.superuser
def test_digits_of_other_scripts_are_no_numbers_in_any_locale(server: Connection, server_dsn: str) -> None:
    if server.info.server_version < 180000:
        pytest.skip("has no locale in which every script's digits are digits")
    name = "test_digits_of_other_scripts"
    server.execute(SQL("DROP DATABASE IF EXISTS {}").format(Identifier(name)))
    server.execute(
        SQL(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin"
            " BUILTIN_LOCALE 'PG_UNICODE_FAST'"
        ).format(Identifier(name))
    )
    try:
        with psycopg.connect(named(server_dsn, name), autocommit=True) as conn:
            assert conn.execute(r"SELECT '٤' ~ '^\d$'").fetchone() == (True,), "such a locale"
            migrations.apply_all(conn)
            register(conn)
            lead = told(data={"campaign_event": {"id": "٤", "created_at": "٢٠26-01-01"}, "lead": {"id": "٤٥"}})
            account: Object = {"id": 7, "updated_at": YESTERDAY, "emails_sent": "٤", "daily_limit": "٤"}
            outcomes = deliver(
                conn,
                lead,
                told(workspace="٢"),
                told("EMAIL_ACCOUNT_ADDED", {"sender_email": account | {"id": "٧"}}),
                told("EMAIL_ACCOUNT_ADDED", {"sender_email": account}),
            )
            assert [outcome.status for outcome in outcomes] == ["processed", "dead", "dead", "processed"]
            assert counted(conn) == {"north/2": 1}
    finally:
        server.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def test_equal_bodies_of_one_batch_stay_what_they_are_when_replayed(inbox: Connection) -> None:
    began = NOW - timedelta(hours=3)
    outcomes = webhooks.receive(
        inbox,
        [
            Delivery(json.dumps(told()), "file", received_at=began + timedelta(minutes=minutes))
            for minutes in (9, 11, 0)
        ],
    )
    before = [outcome.status for outcome in outcomes]
    assert (before, counted(inbox)) == (["processed", "processed", "duplicate"], {"north/2": 2})
    assert (replay(inbox), counted(inbox)) == (before, {"north/2": 2})


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE client_registry SET workspace_name = 'Acme Ltd' WHERE workspace_name = 'Acme'",
        "UPDATE client_registry SET display_name = 'acme' WHERE workspace_name = 'Gamma'",
        "UPDATE client_registry SET workspace_name = CASE WHEN workspace_name = 'Acme' THEN 'Gamma' ELSE 'Acme' END"
        " WHERE workspace_name IN ('Acme', 'Gamma')",
    ],
    ids=["renamed", "not the only one", "names exchanged"],
)
def test_what_a_workspace_s_name_counted_stays_its_own(inbox: Connection, change: LiteralString) -> None:
    inbox.execute("SELECT increment_metric('Acme', 'emails_sent', 5)")
    inbox.execute(change)
    assert (replay(inbox), counted(inbox)) == (["processed"], {"north/1": 5})


def test_a_second_instance_with_the_same_workspace_takes_nothing_back(inbox: Connection) -> None:
    deliver(inbox, sent())
    inbox.execute(
        "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES ('south', 2, 'Delta')"
    )
    assert (replay(inbox), counted(inbox)) == (["processed"], {"north/2": 1})


@pytest.mark.parametrize(
    "base_urls",
    [{"south": "https://south.example.com"}, {**BASE_URLS, "north": "https://moved.example.com"}],
    ids=["no longer in the settings", "moved"],
)
@pytest.mark.parametrize("hook", [None, ("north", 2)])
def test_an_instance_s_new_settings_take_nothing_back(
    inbox: Connection, base_urls: dict[str, str], hook: tuple[str, int] | None
) -> None:
    event = sent(instance_url="https://north.example.com")
    assert [outcome.status for outcome in deliver(inbox, event, event, hook=hook)] == ["processed", "duplicate"]
    use(inbox, base_urls)
    assert (replay(inbox), counted(inbox)) == (["processed", "duplicate"], {"north/2": 1})
    use(inbox, BASE_URLS)
    assert (replay(inbox), counted(inbox)) == (["processed", "duplicate"], {"north/2": 1})


@pytest.mark.parametrize("count", [1, 2])
def test_an_account_that_another_makes_meanwhile_is_updated(inbox: Connection, db: str, count: int) -> None:
    outcomes: list[Outcome] = []
    bodies = [
        told("EMAIL_ACCOUNT_DISCONNECTED", {"sender_email": {"id": 7 + n, "updated_at": NOW.isoformat()}})
        for n in range(count)
    ]
    with psycopg.connect(db) as poll, psycopg.connect(db, autocommit=True) as receiver:
        poll.execute(
            "INSERT INTO sender_emails_cache (bison_instance, bison_workspace_id, bison_account_id, workspace_name,"
            " email_address, status) VALUES ('north', 2, 7, 'Beta', 'sam@example.com', 'Connected')"
        )
        thread = threading.Thread(target=lambda: outcomes.extend(deliver(receiver, *bodies)))
        thread.start()
        waits = "SELECT true FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        wait_until(lambda: inbox.execute(waits, [receiver.info.backend_pid]).fetchone(), "the event waits for the poll")
        poll.commit()
        thread.join()
    assert [outcome.status for outcome in outcomes] == ["processed"] * count
    assert [outcome.id for outcome in outcomes] == list(range(1, count + 1)), "applied at once, not one by one"
    found = inbox.execute("SELECT email_address, status FROM sender_emails_cache WHERE bison_account_id = 7").fetchall()
    assert found == [("sam@example.com", "Not connected")]


def test_a_pull_tells_the_rules_reasons_but_not_what_postgres_says(inbox: Connection) -> None:
    inbox.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'cannot take %', NEW.lead_email; END $$"
    )
    inbox.execute("CREATE TRIGGER refuse BEFORE INSERT ON client_leads FOR EACH ROW EXECUTE FUNCTION refuse()")
    lead = {"id": 3, "email": "ann@example.org"}
    event = told(data={"campaign_event": {"id": 1, "created_at": YESTERDAY}, "lead": lead})
    failed, dead = deliver(inbox, event, told(data=[]), hook=("north", 2))
    assert failed.error_message == "cannot take ann@example.org"
    (problem,) = problems_of("north/2", [failed, dead])
    assert problem.message == "north/2: 2 of the events pulled could not be applied, the first: email_sent"
    (problem,) = problems_of("north/2", [dead])
    assert problem.message.endswith("the first: email_sent, data is missing or no object")
