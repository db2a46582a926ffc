"""dead-letters: what is dead is listed, applied again or given up with a reason; a mismatch only once it is none."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from cli import document, environment, run_cli
from inbox_scene import deliver, event, register, statuses

from bisonsync.store import webhooks

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]
Letters = dict[str, list[int]]


@pytest.fixture
def letters(conn: Connection) -> Letters:
    """Three that died of a database fault which is mended, two that can never be applied, and a mismatch."""
    register(conn, 1, 2)
    curable = deliver(conn, [event(n, kind="LEAD_REPLIED") for n in range(3)], source="legacy")
    hopeless = deliver(conn, [{"event": {"type": "EMAIL_SENT", "workspace_id": 1}, "data": n} for n in range(2)])
    mismatch = deliver(conn, [event(9, workspace=2)], source="receiver", hook=("sim", 1))
    # As they would be after eight failures: nothing of them was ever applied.
    conn.execute("DELETE FROM webhook_event_keys")
    conn.execute("DELETE FROM client_metrics")
    conn.execute(
        "UPDATE webhook_delivery_log SET status = 'dead', success = false, attempts = 8, error_message = 'disk full',"
        " dedup_key = NULL, dedup_rule = NULL WHERE source = 'legacy'"
    )
    return {
        "curable": [outcome.id for outcome in curable],
        "hopeless": [outcome.id for outcome in hopeless],
        "mismatch": [outcome.id for outcome in mismatch],
    }


def rows(conn: Connection, ids: list[int]) -> list[tuple[Any, ...]]:
    return conn.execute(
        "SELECT status, attempts, error_message FROM webhook_delivery_log WHERE id = ANY(%s) ORDER BY id", [ids]
    ).fetchall()


def one(conn: Connection, query: LiteralString) -> Any:
    row = conn.execute(query).fetchone()
    assert row is not None
    return row[0]


def replies(conn: Connection) -> int:
    return one(conn, "SELECT coalesce(sum(replies_mtd), 0)::int FROM client_metrics")


def write_settings(conn: Connection, base_url: str) -> None:
    webhooks.write_settings(conn, timezone="UTC", store_bodies=False, base_urls={"sim": base_url})


def test_the_dead_and_the_mismatches_are_listed_apart(db: str, letters: Letters) -> None:
    told = document(run_cli(["dead-letters", "list", "--json"], environment(db)))
    text = run_cli(["dead-letters", "list"], environment(db)).stdout

    assert told["counts"] == {"dead": 5, "mismatch": 1}
    assert {row["id"] for row in told["dead_letters"]} == {*letters["curable"], *letters["hopeless"]}
    assert [row["id"] for row in told["mismatches"]] == letters["mismatch"]
    assert [(r["event_type"], r["deliveries"]) for r in told["reasons"] if r["error_message"] == "disk full"] == [
        ("lead_replied", 3)
    ]
    assert text.count("received (UTC)") == 2


def test_a_retry_applies_at_once_what_can_be_applied(db: str, conn: Connection, letters: Letters) -> None:
    done = run_cli(["dead-letters", "retry", *map(str, letters["curable"]), "--json"], environment(db))

    assert done.returncode == 0, done.stderr
    assert (document(done)["counts"]["retried"], document(done)["counts"]["processed"], replies(conn)) == (3, 3, 3)
    assert rows(conn, letters["curable"]) == [("processed", 1, None)] * 3
    assert conn.execute("SELECT status, counts ->> 'retried' FROM email_sync_logs").fetchall() == [("success", "3")]


def test_one_that_is_dead_again_is_told_and_the_others_are_applied(db: str, conn: Connection, letters: Letters) -> None:
    done = run_cli(["dead-letters", "retry", "--all"], environment(db))

    assert (done.returncode, replies(conn)) == (3, 3)
    assert "5 tried again: 3 processed, 2 dead" in done.stdout
    assert (
        f"2 email_sent are dead again (ids {letters['hopeless'][0]}, {letters['hopeless'][1]}): data is" in done.stderr
    )
    assert statuses(conn) == {"processed": 3, "dead": 2, "mismatch": 1}


def test_what_fails_again_begins_its_schedule_anew(db: str, conn: Connection, letters: Letters) -> None:
    conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'still full'; END $$"
    )
    conn.execute("CREATE TRIGGER refuse BEFORE INSERT ON webhook_event_keys FOR EACH ROW EXECUTE FUNCTION refuse()")

    done = run_cli(["dead-letters", "retry", "--all", "--event", "LEAD_REPLIED"], environment(db))

    assert (done.returncode, "3 lead_replied are failed again" in done.stderr) == (3, True)
    assert rows(conn, letters["curable"]) == [("failed", 1, "still full")] * 3
    assert conn.execute(
        "SELECT count(*) FROM webhook_delivery_log WHERE status = 'failed' AND next_attempt_at > now()"
    ).fetchone() == (3,)


def test_more_than_a_batch_is_retried_each_once(db: str, conn: Connection) -> None:
    register(conn, 1)
    deliver(conn, [{"event": {"type": "EMAIL_SENT"}, "data": n} for n in range(450)])

    done = run_cli(["dead-letters", "retry", "--all", "--json"], environment(db))

    assert (done.returncode, document(done)["counts"]["dead"], statuses(conn)) == (3, 450, {"dead": 450})
    assert conn.execute("SELECT DISTINCT attempts FROM webhook_delivery_log").fetchall() == [(1,)]


def test_a_mismatch_stays_one_and_is_told_when_it_is_asked_for(db: str, conn: Connection, letters: Letters) -> None:
    by_id = run_cli(["dead-letters", "retry", str(letters["mismatch"][0])], environment(db))
    every = document(run_cli(["dead-letters", "retry", "--all", "--json"], environment(db)))

    assert (by_id.returncode, "is still of another workspace" in by_id.stderr) == (8, True)
    assert (every["counts"]["retried"], every["counts"]["mismatch"]) == (5, 0)
    assert [row[0] for row in rows(conn, letters["mismatch"])] == ["mismatch"]


@pytest.mark.parametrize("by_id", [True, False])
def test_a_mismatch_is_applied_once_its_host_is_known(db: str, conn: Connection, by_id: bool) -> None:
    register(conn, 1)
    write_settings(conn, "https://sim.example.com")
    body = event(9, kind="LEAD_REPLIED")
    body["event"]["instance_url"] = "https://app.example.com"
    (letter,) = deliver(conn, [body], source="receiver", hook=("sim", 1))
    assert letter.status == "mismatch"
    env = environment(
        db,
        BISONSYNC_INSTANCES__SIM__BASE_URL="https://sim.example.com",
        BISONSYNC_INSTANCES__SIM__FORMER_URLS='["https://app.example.com"]',
    )

    done = run_cli(["dead-letters", "retry", *([str(letter.id)] if by_id else ["--all"])], env)

    assert (done.returncode, rows(conn, [letter.id])[0][0], replies(conn)) == (0, "processed", 1), done.stderr


def test_one_without_content_can_be_tried_again_and_given_up(db: str, conn: Connection) -> None:
    number = one(conn, "SELECT ingest_webhook(NULL) ->> 'id'")

    retry = run_cli(["dead-letters", "retry", number], environment(db))
    assert (retry.returncode, "is dead again" in retry.stderr) == (3, True)
    discard = run_cli(["dead-letters", "discard", number, "--reason", "nothing in it"], environment(db))

    assert (discard.returncode, statuses(conn)) == (0, {"ignored": 1}), discard.stderr


def test_what_another_transaction_holds_is_left_and_told(db: str, conn: Connection, letters: Letters) -> None:
    held, *rest = letters["curable"]
    with psycopg.connect(db) as other:
        other.execute("SELECT FROM webhook_delivery_log WHERE id = %s FOR UPDATE", [held])
        done = run_cli(["dead-letters", "retry", *map(str, letters["curable"])], environment(db))

    assert (done.returncode, f"1 left as they are (id {held})" in done.stderr) == (3, True)
    assert [row[0] for row in rows(conn, [held, *rest])] == ["dead", "processed", "processed"]


def test_a_discarded_letter_keeps_the_reason_and_is_never_applied(db: str, conn: Connection, letters: Letters) -> None:
    done = run_cli(
        ["dead-letters", "discard", str(letters["curable"][0]), "--reason", "seen by hand"], environment(db, USER="ann")
    )

    assert done.returncode == 0, done.stderr
    ((status, _, reason),) = rows(conn, letters["curable"][:1])
    assert status == "ignored"
    assert reason.startswith("discarded by ") and reason.endswith(": seen by hand; it was dead: disk full")
    (run,) = conn.execute("SELECT job, command, counts ->> 'discarded', host FROM email_sync_logs").fetchall()
    assert run[:3] == (
        "dead-letters-discard",
        f"dead-letters discard {letters['curable'][0]} --reason seen by hand",
        "1",
    )
    assert run[3]
    applied = webhooks.process(
        conn,
        *zip(*conn.execute("SELECT id, received_at FROM webhook_delivery_log ORDER BY id").fetchall(), strict=True),
    )
    assert letters["curable"][0] not in {outcome.id for outcome in applied}


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--all"], {"ignored": 5, "mismatch": 1}),
        (["--all", "--event", "email_sent"], {"ignored": 2, "dead": 3, "mismatch": 1}),
        (["--all", "--mismatch"], {"dead": 5, "ignored": 1}),
        (["--all", "-w", "2"], {"dead": 5, "mismatch": 1}),
    ],
    ids=" ".join,
)
def test_what_is_discarded_can_be_chosen(
    options: list[str], left: dict[str, int], db: str, conn: Connection, letters: Letters
) -> None:
    done = run_cli(["dead-letters", "discard", "--reason", "old", *options], environment(db))

    assert done.returncode == 0, done.stderr
    assert statuses(conn) == left
    # A mismatch that was given up is applied as little as one that was not.
    every = conn.execute("SELECT id, received_at FROM webhook_delivery_log WHERE source = 'receiver'").fetchall()
    assert {outcome.status for outcome in webhooks.process(conn, *zip(*every, strict=True))} <= {"mismatch"}


def test_a_dry_run_only_counts(db: str, conn: Connection, letters: Letters) -> None:
    before = statuses(conn)

    retry = run_cli(["dead-letters", "retry", "--all", "--dry-run"], environment(db))
    discard = run_cli(["dead-letters", "discard", "--all", "--reason", "x", "--dry-run", "--json"], environment(db))

    assert (retry.returncode, discard.returncode) == (0, 0)
    assert "5 would be tried again: 3 lead_replied (dead: disk full); 2 email_sent (dead: data is" in retry.stdout
    assert document(discard)["counts"] == {"discarded": 0, "chosen": 5}
    assert (statuses(conn), replies(conn)) == (before, 0)


def test_what_is_not_dead_is_left_as_it_is(db: str, conn: Connection, letters: Letters) -> None:
    (sent,) = deliver(conn, [event(100)])

    done = run_cli(["dead-letters", "discard", str(sent.id), "--reason", "x"], environment(db))
    unknown = run_cli(["dead-letters", "retry", "99999"], environment(db))

    assert (done.returncode, f"delivery {sent.id} is processed, not dead or mismatch" in done.stderr) == (3, True)
    assert rows(conn, [sent.id])[0][0] == "processed"
    assert (unknown.returncode, "there is no delivery 99999" in unknown.stderr) == (4, True)


@pytest.mark.parametrize(
    "wrong",
    [
        ["retry"],
        ["retry", "5", "--all"],
        ["retry", "5", "--event", "x"],
        ["discard", "5"],
        ["discard", "5", "--reason", " "],
        ["discard", "--reason", "x"],
    ],
    ids=" ".join,
)
def test_an_unclear_choice_is_wrong_usage(wrong: list[str], db: str) -> None:
    assert run_cli(["dead-letters", *wrong], environment(db)).returncode == 2
