"""webhooks by the real command line: one subscription of ours per workspace, its secrets, and the test event."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any

import pytest
from cli import document, environment, finish, start_cli, wait_until
from office import Connection, Office, Outcome

from bisonsync.sandbox import Sandbox
from bisonsync.store import webhook_secrets
from bisonsync.store import webhooks as inbox
from bisonsync.store.webhooks import Delivery

PUBLIC = "https://bison.example.com/in"
SETTINGS = {"BISONSYNC_WEBHOOKS__PUBLIC_URL": PUBLIC, "BISONSYNC_WEBHOOKS__EVENTS": '["email_sent", "tag_attached"]'}
SECRETS = "SELECT {} FROM bisonsync_private.webhook_secrets WHERE bison_workspace_id = %s"


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    """Three workspaces with tokens of their own."""
    with Sandbox(workspaces=3, accounts=9, skew=()) as sandbox:
        office = Office(sandbox, db, conn)
        office.register()
        yield office


def run(office: Office, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
    """The command, which must not have shown any secret, nor kept one in the ledger."""
    before = urls(office)
    outcome = office.run("webhooks", *arguments, env={**SETTINGS, **(env or {})})
    shown = outcome.stdout + outcome.stderr
    ledger = office.one("SELECT coalesce(json_agg(l)::text, '') FROM email_sync_logs AS l")
    for url in {*before, *urls(office)}:
        secret = url.partition("/hooks/")[2].partition("/")[0]
        assert secret
        assert secret not in shown
        assert secret not in ledger
    assert "Traceback" not in shown
    return outcome


def hooks(office: Office, workspace: int) -> list[Any]:
    """What the host has of one workspace."""
    with office.sandbox.lock:
        return sorted(office.sandbox.world.hooks.of(workspace), key=lambda hook: hook.id)


def urls(office: Office) -> list[str]:
    return [hook.url for workspace in (1, 2, 3) for hook in hooks(office, workspace)]


def add(
    office: Office, workspace: int, url: str, name: str = "other", events: tuple[str, ...] = ("email_sent",)
) -> int:
    """Make a webhook as somebody at the platform would; its id."""
    from bisonsync.sandbox.hooks import Webhook

    with office.sandbox.lock:
        book, now = office.sandbox.world.hooks, "2026-01-05T09:00:00.000000Z"
        hook = Webhook(book.number("webhook"), workspace, name, url, list(events), now, now)
        book.webhooks[hook.id] = hook
    return hook.id


def store(office: Office, workspace: int, secret: str) -> None:
    """Let deliveries be taken under a secret."""
    office.conn.execute(
        "INSERT INTO bisonsync_private.webhook_secrets (secret_sha256, bison_instance, bison_workspace_id)"
        " VALUES (%s, 'sim', %s)",
        [sha256(secret.encode()).digest(), workspace],
    )


def give(office: Office, *workspaces: int) -> None:
    """What ``ensure`` would have done."""
    for workspace in workspaces:
        secret = f"made-for-the-tests-of-workspace-{workspace}-0123456789"
        store(office, workspace, secret)
        add(office, workspace, f"{PUBLIC}/hooks/{secret}", "bisonsync", ("email_sent", "tag_attached"))


def secret_of(office: Office, workspace: int) -> str:
    [hook] = [hook for hook in hooks(office, workspace) if hook.name == "bisonsync"]
    return hook.url.removeprefix(f"{PUBLIC}/hooks/")


def taken(office: Office, workspace: int) -> set[bytes]:
    """The SHA-256 of the secrets under which deliveries are taken."""
    rows = office.conn.execute(SECRETS.format("secret_sha256") + " AND retired_at IS NULL", [workspace]).fetchall()
    return {row[0] for row in rows}


def retired(office: Office, workspace: int) -> int:
    return office.one(SECRETS.format("count(*)") + " AND retired_at IS NOT NULL", workspace)


def posts(office: Office) -> int:
    """How many webhooks were made since the last look."""
    return office.sandbox.summary()["requests"]["by_path"].get("/api/webhook-url", {}).get("201", 0)


def test_ensure_makes_one_each_and_twice_changes_nothing(office: Office) -> None:
    first = run(office, "ensure", "--json")
    second = run(office, "ensure", "--json")

    assert (first.code, first.counts["created"]) == (0, 3)
    assert (second.code, second.counts["created"], second.counts["updated"], second.counts["kept"]) == (0, 0, 0, 3)
    assert posts(office) == 3
    for workspace in (1, 2, 3):
        [hook] = hooks(office, workspace)
        assert (hook.name, hook.events) == ("bisonsync", ["email_sent", "tag_attached"])
        assert taken(office, workspace) == {sha256(secret_of(office, workspace).encode()).digest()}
        assert len(secret_of(office, workspace)) >= 43
    assert len(set(urls(office))) == 3
    assert run(office, "verify").code == 0


def test_ensure_by_cron_gives_a_new_workspace_its_webhook_and_else_says_nothing(office: Office) -> None:
    give(office, 1, 2)
    by_cron = [run(office, "ensure", "-q", "--skip-if-locked") for _ in range(2)]

    assert [(outcome.code, outcome.stdout, outcome.stderr) for outcome in by_cron] == [(0, "", "")] * 2
    assert posts(office) == 1
    assert taken(office, 3) == {sha256(secret_of(office, 3).encode()).digest()}


def test_a_dry_run_says_what_it_would_do_and_does_nothing(office: Office) -> None:
    planned = run(office, "ensure", "--dry-run", "--json")

    assert (planned.code, planned.counts["created"]) == (0, 3)
    assert urls(office) == []
    assert office.one("SELECT count(*) FROM bisonsync_private.webhook_secrets") == 0
    assert office.one("SELECT count(*) FROM email_sync_logs") == 0


def test_drift_is_named_and_put_right_in_place(office: Office) -> None:
    give(office, 1, 2, 3)
    secret = secret_of(office, 2)
    [hook] = hooks(office, 2)
    with office.sandbox.lock:
        hook.events, hook.url = ["email_opened", "email_sent"], f"https://before.example.com/hooks/{secret}/test"

    looked = run(office, "verify", "--json")
    put_right = run(office, "ensure", "--json")

    assert looked.code == 9
    assert looked.document["verdict"] == "differences"
    said = [error["message"] for error in looked.document["errors"]]
    assert {error["workspace"] for error in looked.document["errors"]} == {"sim/2"}
    assert any("lacks tag_attached" in text for text in said)
    assert any("has email_opened" in text for text in said)
    assert any("https://before.example.com/hooks/…/…" in text for text in said)
    assert (put_right.code, put_right.counts["updated"], put_right.counts["kept"]) == (0, 1, 2)
    assert [(hook.id, hook.url, hook.events) for hook in hooks(office, 2)] == [
        (hook.id, f"{PUBLIC}/hooks/{secret}", ["email_sent", "tag_attached"])
    ]
    assert run(office, "verify").code == 0


def test_doubles_are_shown_and_removed_only_when_told(office: Office) -> None:
    give(office, 1, 2, 3)
    secret = secret_of(office, 1)
    double = add(office, 1, f"{PUBLIC}/hooks/{secret}")
    store(office, 1, "another-secret-of-the-same")
    other = add(office, 1, f"{PUBLIC}/hooks/another-secret-of-the-same")

    looked = run(office, "verify", "--json")
    left = run(office, "ensure", "--json")
    removed = run(office, "ensure", "--remove-doubles", "--json")

    assert (looked.code, [error["kind"] for error in looked.document["errors"]]) == (9, ["double", "double"])
    assert [f"webhook {number} " in looked.stdout for number in (double, other)] == [True, True]
    assert (left.code, left.counts["doubles"], left.counts["doubles_removed"]) == (0, 2, 0)
    assert (removed.code, removed.counts["doubles"], removed.counts["doubles_removed"]) == (0, 0, 2)
    assert [hook.url for hook in hooks(office, 1)] == [f"{PUBLIC}/hooks/{secret}"]
    assert taken(office, 1) == {sha256(secret.encode()).digest()}


def test_what_is_not_ours_is_shown_and_never_touched(office: Office) -> None:
    give(office, 1, 2)
    others = [
        add(office, 1, "https://somebody.example.com/hooks/their-secret-17"),
        add(office, 1, f"{PUBLIC}/hooks/unknown-secret-18"),
        add(office, 1, f"{PUBLIC}/hooks/{secret_of(office, 2)}", name="copied"),
    ]

    looked = run(office, "verify", "-w", "1", "--json")
    allowed = run(office, "verify", "-w", "1", "--allow-foreign")
    listed = run(office, "list", "-w", "1", "--json")
    ensured = run(office, "ensure", "-w", "1", "--remove-doubles", "--json")
    removed = run(office, "remove", "-w", "1", "--json")

    assert (looked.code, looked.kinds, looked.counts["differences"]) == (9, {"foreign"}, 3)
    assert any("sim/2" in error["message"] for error in looked.document["errors"])
    assert allowed.code == 0
    assert [entry["kind"] for entry in listed.document["webhooks"]].count("foreign") == 3
    assert ensured.counts["foreign"] == 3
    assert (removed.code, removed.counts["removed"]) == (0, 1)
    assert [hook.id for hook in hooks(office, 1)] == others
    assert len(taken(office, 2)) == 1


def test_what_a_host_does_not_know_is_named_and_left_out(office: Office) -> None:
    office.sandbox.set_moods(event_types="13")

    ensured = run(office, "ensure", "--json")
    shown = run(office, "ensure")

    assert ensured.code == 0
    assert ensured.document["unknown_events"] == {"sim": ["tag_attached"]}
    assert "sim does not know tag_attached" in shown.stdout
    assert hooks(office, 1)[0].events == ["email_sent"]
    assert run(office, "verify").code == 0


def test_none_of_the_wanted_events_is_an_error(office: Office) -> None:
    outcome = run(office, "ensure", env={"BISONSYNC_WEBHOOKS__EVENTS": '["email_seen"]'})

    assert outcome.code == 4
    assert "email_seen" in outcome.stderr
    assert urls(office) == []


def test_where_deliveries_arrive_must_be_set(office: Office) -> None:
    outcome = office.run("webhooks", "ensure")

    assert outcome.code == 4
    assert "public_url" in outcome.stderr
    assert urls(office) == []


def test_f20_a_webhook_whose_answer_was_lost_is_made_once(office: Office) -> None:
    office.sandbox.add_fault("reset", path="/api/webhook-url", method="POST", workspace=2, times=1)

    outcome = run(office, "ensure", "--json", env={"BISONSYNC_POLLING__RETRY_ATTEMPTS": "5"})

    assert (outcome.code, outcome.counts["created"]) == (0, 3)
    assert len(hooks(office, 2)) == 1
    assert len(taken(office, 2)) == 1


def test_f20_a_webhook_that_may_have_been_made_is_looked_for_by_the_next_run(office: Office) -> None:
    office.sandbox.add_fault("status", status=502, path="/api/webhook-url", method="POST", workspace=2, times=1)

    unclear = run(office, "ensure", "--json", env={"BISONSYNC_POLLING__RETRY_ATTEMPTS": "5"})
    kept = taken(office, 2)
    again = run(office, "ensure", "--json")

    assert (unclear.code, unclear.counts["created"], unclear.counts["workspaces_failed"]) == (3, 2, 1)
    assert "is not known" in unclear.document["errors"][0]["message"]
    assert len(kept) == 1
    assert (again.code, again.counts["created"], again.counts["kept"]) == (0, 1, 2)
    assert len(hooks(office, 2)) == 1
    assert taken(office, 2) == {sha256(secret_of(office, 2).encode()).digest()}
    assert kept.isdisjoint(taken(office, 2))


def test_a_refused_webhook_leaves_no_secret_that_is_taken(office: Office) -> None:
    office.sandbox.add_fault("status", status=422, path="/api/webhook-url", method="POST")

    outcome = run(office, "ensure", "-w", "1", "--json")

    assert outcome.code == 5
    assert (taken(office, 1), retired(office, 1)) == (set(), 1)


def test_the_secret_is_stored_before_the_platform_hears_of_it(office: Office) -> None:
    office.sandbox.add_fault("hang", path="/api/webhook-url", method="POST")
    process = start_cli(["webhooks", "ensure", "-w", "1"], environment(office.dsn, office.sandbox, **SETTINGS))

    wait_until(lambda: urls(office), "the platform has been told")
    process.kill()
    process.communicate()

    assert taken(office, 1) == {sha256(secret_of(office, 1).encode()).digest()}
    office.sandbox.clear_faults()
    adopted = run(office, "ensure", "-w", "1", "--json", "--lock-wait", "30s")
    assert (adopted.code, adopted.counts["kept"]) == (0, 1)


def test_f23_two_at_once_make_each_once(office: Office) -> None:
    env = environment(office.dsn, office.sandbox, **SETTINGS)
    both = [start_cli(["webhooks", "ensure", "--json", "--lock-wait", "30s"], env) for _ in range(2)]

    done = [document(finish(process))["counts"]["created"] for process in both]

    assert sorted(done) == [0, 3]
    assert posts(office) == 3


def test_f4_a_token_that_acts_elsewhere_changes_nothing(office: Office) -> None:
    office.conn.execute(
        "UPDATE bisonsync_private.workspace_tokens SET token = %s WHERE bison_workspace_id = 2",
        [office.sandbox.mint(3)],
    )

    ensured = run(office, "ensure", "--json")
    removed = run(office, "remove", "-w", "2", "--json")

    assert (ensured.code, ensured.counts["created"]) == (8, 2)
    assert ensured.workspace(2)["verdict"] == "guarded"
    assert removed.code == 8
    assert len(hooks(office, 3)) == 1
    assert hooks(office, 2) == []


def test_a_key_that_would_have_to_be_switched_is_not_used(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens")

    outcome = run(office, "ensure", "--json", env={"BISONSYNC_INSTANCES__SIM__ALLOW_SWITCH": "true"})

    assert (outcome.code, outcome.kinds) == (4, {"credentials"})
    assert urls(office) == []


def test_one_workspace_that_fails_does_not_stop_the_others(office: Office) -> None:
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 2")

    ensured = run(office, "ensure", "--json")
    verified = run(office, "verify", "--json")

    assert (ensured.code, ensured.counts["created"], ensured.counts["workspaces_failed"]) == (3, 2, 1)
    assert (verified.code, verified.kinds) == (3, {"credentials"})


def test_a_list_that_is_not_whole_makes_no_double(office: Office) -> None:
    give(office, 1)
    office.sandbox.set_moods(paginate_webhooks=True)
    for number in range(20):
        add(office, 1, f"https://somebody.example.com/hooks/their-secret-{number}")
    office.sandbox.add_fault("status", status=500, path="/api/webhook-url", page=2)

    broken = run(office, "ensure", "-w", "1", "--json")
    office.sandbox.clear_faults()
    whole = run(office, "ensure", "-w", "1", "--json")

    assert (broken.code, broken.kinds) == (5, {"list_changed"})
    assert (whole.code, whole.counts["kept"], whole.counts["foreign"]) == (0, 1, 20)
    assert len(hooks(office, 1)) == 21


def test_a_secret_in_the_settings_is_used_and_not_stored(office: Office) -> None:
    env = {"BISONSYNC_WEBHOOKS__SECRETS": '{"sim/1": "chosen-by-hand-ü"}'}

    first = run(office, "ensure", "-w", "1", "--json", env=env)
    second = run(office, "ensure", "-w", "1", "--json", env=env)

    assert (first.code, first.counts["created"], second.counts["kept"]) == (0, 1, 1)
    assert "chosen-by" not in first.stdout + first.stderr + second.stdout
    assert [hook.url for hook in hooks(office, 1)] == [f"{PUBLIC}/hooks/chosen-by-hand-%C3%BC"]
    assert office.one("SELECT count(*) FROM bisonsync_private.webhook_secrets") == 0


def test_a_webhook_deleted_at_the_platform_is_made_anew_under_a_new_secret(office: Office) -> None:
    give(office, 1)
    before = secret_of(office, 1)
    with office.sandbox.lock:
        office.sandbox.world.hooks.webhooks.clear()

    looked = run(office, "verify", "-w", "1", "--json")
    made = run(office, "ensure", "-w", "1", "--json")
    restored = add(office, 1, f"{PUBLIC}/hooks/{before}", name="restored")
    after = run(office, "verify", "-w", "1", "--json")

    assert (looked.code, looked.kinds) == (9, {"missing"})
    assert (made.code, made.counts["created"], retired(office, 1)) == (0, 1, 1)
    assert secret_of(office, 1) != before
    assert (after.code, after.kinds) == (9, {"retired"})
    run(office, "ensure", "-w", "1", "--remove-doubles")
    assert restored not in [hook.id for hook in hooks(office, 1)]
    assert len(taken(office, 1)) == 1


def test_remove_asks_which_and_retires_the_secrets(office: Office) -> None:
    give(office, 1, 2, 3)
    store(office, 3, "asked-for-and-never-arrived")
    name = office.sandbox.world.workspaces[2].name
    office.run("workspaces", "disable", "2")

    unsaid = run(office, "remove", "--json")
    both = run(office, "remove", "--all", "-w", "1")
    planned = run(office, "remove", "--all", "--dry-run", "--json")
    still = len(urls(office))
    disabled = run(office, "remove", "-w", name, "--json")
    every = run(office, "remove", "--all", "--json")

    assert (unsaid.code, both.code) == (8, 2)
    assert (planned.counts["removed"], still) == (2, 3)
    assert (disabled.code, disabled.counts["removed"]) == (0, 1)
    assert (every.code, every.counts["removed"]) == (0, 2)
    assert urls(office) == []
    assert [retired(office, workspace) for workspace in (1, 2, 3)] == [1, 1, 2]


def test_a_secret_stays_taken_while_its_webhook_stays(office: Office) -> None:
    give(office, 1)
    office.sandbox.add_fault("status", status=500, path="/api/webhook-url", method="DELETE")

    outcome = run(office, "remove", "-w", "1", "--json")

    assert outcome.code == 5
    assert len(hooks(office, 1)) == 1
    assert len(taken(office, 1)) == 1


def test_list_shows_whose_each_is_without_a_secret(office: Office) -> None:
    give(office, 1, 2, 3)
    add(office, 1, "https://me:pass@somebody.example.com/hooks/their-secret-1?key=hidden#frag", name="crm")

    shown = run(office, "list")
    listed = json.dumps(run(office, "list", "--json").document)

    assert shown.code == 0
    assert len(shown.stdout.splitlines()) == 5
    assert f"ours\tbisonsync\t{PUBLIC}/hooks/…" in shown.stdout
    assert "foreign\tcrm\thttps://somebody.example.com/hooks/…?…#…" in shown.stdout
    assert not [word for word in ("pass@", "their", "hidden", "frag") if word in shown.stdout + listed]
    assert office.one("SELECT count(*) FROM email_sync_logs WHERE job = 'webhooks-list'") == 0


@contextmanager
def receiving(office: Office) -> Iterator[str]:
    """The real receiver's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start_cli(["receive-webhooks", "--port", str(port)], environment(office.dsn, office.sandbox))

    def answers() -> bool:
        assert process.poll() is None
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        wait_until(answers, "the receiver listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        finish(process)


def test_a_test_event_arrives_and_counts_nothing(office: Office) -> None:
    with receiving(office) as url:
        env = {"BISONSYNC_WEBHOOKS__PUBLIC_URL": url}
        run(office, "ensure", "-w", "1", env=env)

        outcome = run(office, "test", "-w", "1", "--json", "--wait", "60s", env=env)

    assert (outcome.code, outcome.counts["arrived"]) == (0, 1)
    assert office.one("SELECT array_agg(status) FROM webhook_delivery_log") == ["test"]
    assert office.one("SELECT count(*) FROM webhook_event_keys") == 0
    assert office.one("SELECT count(*) FROM client_metrics") == 0


def test_a_test_event_that_does_not_arrive_says_what_to_try(office: Office) -> None:
    give(office, 1)
    nobody = {"BISONSYNC_WEBHOOKS__PUBLIC_URL": "http://127.0.0.1:9"}

    silent = run(office, "test", "-w", "1", "--wait", "0s", env=nobody)
    missing = run(office, "test", "-w", "2", "--wait", "0s", env=nobody)
    planned = run(office, "test", "-w", "1", "--dry-run", env=nobody)

    assert (silent.code, missing.code, planned.code) == (3, 4, 0)
    assert "no test delivery came" in silent.stderr
    assert "curl http://127.0.0.1:9/healthz" in silent.stderr
    assert "webhooks ensure" in missing.stderr


def test_a_test_delivery_is_one_of_the_workspace_that_came_since(office: Office) -> None:
    def receive(workspace: int, *, is_test: bool) -> None:
        inbox.receive(office.conn, [Delivery("{}", "receiver", hook=("sim", workspace), is_test=is_test)])

    def found() -> str | None:
        delivery = webhook_secrets.find_test_delivery(office.conn, "sim", 1, since)
        return delivery and delivery.status

    first = webhook_secrets.get_position(office.conn)
    receive(1, is_test=True)
    since = webhook_secrets.get_position(office.conn)
    receive(2, is_test=True)

    assert found() is None
    receive(1, is_test=False)
    assert found() == "dead"
    receive(1, is_test=True)
    receive(1, is_test=False)
    assert found() == "test"
    since = first
    office.conn.execute("DELETE FROM webhook_delivery_log WHERE id > 1")
    assert found() == "test"


def test_a_delivery_that_is_no_test_is_not_taken_for_one(office: Office) -> None:
    give(office, 1)
    office.conn.execute(
        "INSERT INTO webhook_delivery_log (id, source, hook_instance, hook_workspace_id, status, error_message)"
        " VALUES (1000000, 'receiver', 'sim', 1, 'mismatch', 'of another workspace')"
    )

    outcome = run(office, "test", "-w", "1", "--wait", "0s")

    assert outcome.code == 3
    assert "another one did and ended as mismatch, of another workspace" in outcome.stderr


def test_a_test_event_that_the_host_does_not_send_tells_its_words(office: Office) -> None:
    give(office, 1)
    office.sandbox.add_fault("failure", path="/api/webhook-events/test-event")

    outcome = run(office, "test", "-w", "1", "--wait", "0s")

    assert outcome.code == 3
    assert "the host said: " in outcome.stderr
