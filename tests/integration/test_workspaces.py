"""workspaces by the real command line: the registry, and a token of its own for each workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from office import Connection, Office

from bisonsync.sandbox import Sandbox

pytestmark = pytest.mark.stock


@pytest.fixture
def office(db: str, conn: Connection) -> Iterator[Office]:
    """Four workspaces, nothing registered."""
    with Sandbox(workspaces=4, accounts=40, skew=()) as sandbox:
        yield Office(sandbox, db, conn)


def registered(office: Office) -> dict[int, str]:
    return dict(office.conn.execute("SELECT bison_workspace_id, workspace_name FROM client_registry").fetchall())


def tokens(office: Office) -> dict[int, str]:
    return dict(
        office.conn.execute("SELECT bison_workspace_id, status FROM bisonsync_private.workspace_tokens").fetchall()
    )


def minted(office: Office) -> int:
    """How often the host was asked for a token."""
    return sum(office.sandbox.summary()["requests"]["by_path"]["/api/workspaces/v1.1/{team_id}/api-tokens"].values())


@pytest.mark.parametrize("paginated", [False, True])
def test_discover_registers_every_workspace_as_active_and_twice_changes_nothing(
    office: Office, paginated: bool
) -> None:
    office.sandbox.set_moods(paginate_workspaces=paginated)

    first = office.run("workspaces", "discover", "--json")
    second = office.run("workspaces", "discover", "--json")

    assert first.code == second.code == 0
    assert first.counts["added"] == 4
    assert second.counts == {"instances": 1, "workspaces_total": 4, "added": 0, "changed": 0, "vanished": 0}
    assert registered(office) == {w.id: w.name for w in office.sandbox.world.workspaces.values()}
    assert office.one("SELECT bool_and(is_active) FROM client_registry")


def test_the_four_commands_fill_the_mirror_from_nothing(empty_db: str) -> None:
    import psycopg

    with Sandbox(workspaces=3, accounts=70, skew=()) as sandbox, psycopg.connect(empty_db, autocommit=True) as conn:
        office = Office(sandbox, empty_db, conn)

        codes = [
            office.run(*command).code
            for command in (["migrate"], ["workspaces", "discover"], ["workspaces", "mint-tokens"], ["poll-accounts"])
        ]

        assert codes == [0, 0, 0, 0]
        assert office.live() == office.truth()


def test_a_vanished_workspace_is_noted_and_read_until_disabled(office: Office) -> None:
    office.run("workspaces", "discover")
    office.sandbox.world.remove_workspace(4)

    outcome = office.run("workspaces", "discover", "--json")

    assert outcome.code == 0
    assert outcome.counts["vanished"] == 1
    assert office.one("SELECT is_active AND vanished_at IS NOT NULL FROM client_registry WHERE bison_workspace_id = 4")


def test_a_key_that_sees_less_marks_nothing_as_vanished(office: Office) -> None:
    office.run("workspaces", "discover")
    one = office.sandbox.world.workspaces[1].row()
    office.sandbox.add_fault(
        "reply", path="/api/workspaces", status=200, content_type="application/json", body=_json([one])
    )

    outcome = office.run("workspaces", "discover", "--json")

    assert outcome.code == 8
    assert "workspaces disable sim/" in outcome.document["errors"][0]["hint"]
    assert office.one("SELECT count(*) FROM client_registry WHERE vanished_at IS NOT NULL") == 0


def test_workspaces_that_somebody_disabled_may_be_missing(office: Office) -> None:
    office.run("workspaces", "discover")
    for number in (2, 3, 4):
        assert office.run("workspaces", "disable", f"sim/{number}").code == 0
        office.sandbox.world.remove_workspace(number)

    outcome = office.run("workspaces", "discover", "--json")

    assert (outcome.code, outcome.counts["vanished"]) == (0, 3)


def test_one_unreadable_workspace_does_not_hide_the_others(office: Office) -> None:
    rows = [w.row() for w in office.sandbox.world.workspaces.values()]
    rows[2] = {"id": "none", "name": "odd"}
    office.sandbox.add_fault(
        "reply", path="/api/workspaces", status=200, content_type="application/json", body=_json(rows)
    )

    outcome = office.run("workspaces", "discover", "--json")

    assert outcome.code == 3
    assert outcome.kinds == {"validation"}
    assert len(registered(office)) == 3


def test_mint_makes_one_token_each_and_none_the_second_time(office: Office) -> None:
    office.run("workspaces", "discover")

    first = office.run("workspaces", "mint-tokens", "--json")
    made = minted(office)
    second = office.run("workspaces", "mint-tokens", "--json")

    assert (first.code, first.counts["minted"]) == (0, 4)
    assert (second.code, second.counts["kept"], second.counts["minted"]) == (0, 4, 0)
    assert minted(office) == made == 4
    assert tokens(office) == dict.fromkeys([1, 2, 3, 4], "valid")
    stored = office.one("SELECT token FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 1")
    assert stored not in first.stdout + first.stderr
    assert office.one("SELECT bool_and(outcome = 'stored') FROM bisonsync_private.token_intents")


def test_a_refused_token_is_replaced_and_a_valid_one_kept(office: Office) -> None:
    office.register()
    office.conn.execute(
        "UPDATE bisonsync_private.workspace_tokens SET token = '9|long-gone' WHERE bison_workspace_id = 2"
    )

    outcome = office.run("workspaces", "mint-tokens", "--json")

    assert (outcome.code, outcome.counts["minted"], outcome.counts["kept"]) == (0, 1, 3)
    assert office.run("workspaces", "verify").code == 0


def test_f20_a_token_whose_answer_was_lost_is_asked_for_once_and_named(office: Office) -> None:
    office.run("workspaces", "discover")
    office.sandbox.add_fault("reset", path="/api/workspaces/v1.1/2/api-tokens", method="POST", times=1)

    lost = office.run("workspaces", "mint-tokens", "--json", env={"BISONSYNC_POLLING__RETRY_ATTEMPTS": "5"})

    assert lost.code == 3
    assert lost.counts["minted"] == 3
    assert minted(office) == 4
    assert office.one("SELECT outcome FROM bisonsync_private.token_intents WHERE bison_workspace_id = 2") == "unknown"
    name = office.one("SELECT token_name FROM bisonsync_private.token_intents WHERE bison_workspace_id = 2")
    assert name in lost.stdout
    again = office.run("workspaces", "mint-tokens", "--json")
    assert again.code == 0
    assert tokens(office)[2] == "valid"
    assert name not in again.stdout


def test_a_token_asked_for_by_a_run_that_was_killed_is_named_once(office: Office) -> None:
    office.register()
    office.conn.execute(
        "INSERT INTO bisonsync_private.token_intents (bison_instance, bison_workspace_id, token_name)"
        " VALUES ('sim', 1, 'bisonsync elsewhere 12345678')"
    )

    first, second = (office.run("workspaces", "mint-tokens", "--json") for _ in range(2))

    assert (first.code, second.code) == (3, 0)
    assert "bisonsync elsewhere 12345678" in first.stdout
    assert second.document["errors"] == []


def test_a_token_that_was_certainly_not_made_leaves_nothing_to_look_for(office: Office) -> None:
    office.run("workspaces", "discover")
    office.sandbox.add_fault(
        "status", status=429, seconds=0.1, path="/api/workspaces/v1.1/2/api-tokens", method="POST", times=1
    )

    limited = office.run("workspaces", "mint-tokens", "--json")

    assert limited.code == 3
    assert office.one("SELECT outcome FROM bisonsync_private.token_intents WHERE bison_workspace_id = 2") == "failed"


def test_a_workspace_listed_without_a_name_keeps_the_one_it_had(office: Office) -> None:
    office.run("workspaces", "discover")
    before = registered(office)
    rows = [w.row() | {"name": None} for w in office.sandbox.world.workspaces.values()]
    office.sandbox.add_fault(
        "reply", path="/api/workspaces", status=200, content_type="application/json", body=_json([*rows, {"id": 99}])
    )

    outcome = office.run("workspaces", "discover", "--json")

    assert (outcome.code, outcome.counts["changed"], outcome.counts["added"]) == (0, 0, 1)
    assert registered(office) == before | {99: "workspace 99"}


def test_a_new_token_that_acts_elsewhere_is_not_used(office: Office) -> None:
    office.run("workspaces", "discover")
    office.sandbox.add_fault("identity", workspace=2, to=3)

    outcome = office.run("workspaces", "mint-tokens", "--json", "-w", "2")

    assert outcome.code == 8
    assert tokens(office) == {2: "mismatch"}


def test_two_mints_at_once_make_each_token_once(office: Office) -> None:
    from cli import document, environment, finish, start_cli

    office.run("workspaces", "discover")
    env = environment(office.dsn, office.sandbox)

    both = [start_cli(["workspaces", "mint-tokens", "--json", "--lock-wait", "30s"], env) for _ in range(2)]
    done = [finish(process) for process in both]

    assert [process.returncode for process in done] == [0, 0]
    assert sorted(document(process)["counts"]["minted"] for process in done) == [0, 4]
    assert minted(office) == 4


def test_verify_tells_each_state_of_a_token(office: Office) -> None:
    office.register()
    change = "UPDATE bisonsync_private.workspace_tokens SET token = %s WHERE bison_workspace_id = %s"
    office.conn.execute(change, ["9|expired", 2])
    office.conn.execute(change, [office.sandbox.mint(1), 3])
    office.conn.execute("DELETE FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 4")

    outcome = office.run("workspaces", "verify", "--json")

    states = {entry["workspace"]: entry["state"] for entry in outcome.document["tokens"]}
    assert states == {"sim/1": "valid", "sim/2": "refused", "sim/3": "mismatch", "sim/4": "missing"}
    assert outcome.code == 8
    assert tokens(office) == {1: "valid", 2: "refused", 3: "mismatch"}


def test_add_registers_by_hand_and_refuses_a_token_of_another_workspace(office: Office, tmp_path: Path) -> None:
    right, wrong = tmp_path / "3.key", tmp_path / "1.key"
    right.write_text(office.sandbox.mint(3) + "\n")
    wrong.write_text(office.sandbox.mint(1))

    refused = office.run("workspaces", "add", "3", "--instance", "sim", "--token-file", str(wrong))
    added = office.run("workspaces", "add", "3", "--token-file", str(right))

    assert refused.code == 8
    assert added.code == 0
    assert registered(office) == {3: office.sandbox.world.workspaces[3].name}
    assert office.poll().code == 0
    assert set(office.live()) == {3}


def test_tokens_in_the_settings_do_without_a_super_admin_key(office: Office, tmp_path: Path) -> None:
    config = tmp_path / "bisonsync.toml"
    config.write_text(
        f'database_url = "{office.dsn}"\n[instances.sim]\nbase_url = "{office.sandbox.url}"\n'
        f'[instances.sim.workspaces.2]\napi_key = "{office.sandbox.mint(2)}"\n'
    )
    config.chmod(0o600)
    from cli import environment, run_cli

    env = environment() | {"BISONSYNC_CONFIG": str(config)}

    codes = [run_cli(command, env).returncode for command in (["workspaces", "discover"], ["poll-accounts"])]

    assert codes == [0, 0]
    assert set(office.live()) == {2}


def test_disable_and_enable_choose_what_is_polled(office: Office) -> None:
    office.register()
    name = office.sandbox.world.workspaces[2].name

    disabled = office.run("workspaces", "disable", "sim/1", name)
    polled = office.poll()
    named = office.run("poll-accounts", "-w", "1")
    enabled = office.run("workspaces", "enable", "1", "--json")

    assert disabled.code == enabled.code == 0
    assert [entry["id"] for entry in polled.document["workspaces"]] == [3, 4]
    assert named.code == 4
    assert "workspaces enable 1" in named.stderr
    assert enabled.counts == {"workspaces_total": 1, "changed": 1}


def test_list_shows_the_registry_without_tokens(office: Office) -> None:
    office.register()
    secret = office.one("SELECT token FROM bisonsync_private.workspace_tokens WHERE bison_workspace_id = 1")

    shown = office.run("workspaces", "list")
    document = office.run("workspaces", "list", "--json").document

    assert len(shown.stdout.splitlines()) == 5
    assert {entry["token"] for entry in document["registered"]} == {"valid"}
    assert secret not in shown.stdout + str(document)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-w", "Nobody"], "no workspace 'Nobody' is registered"),
        (["--instance", "elsewhere"], "elsewhere"),
    ],
)
def test_an_unknown_name_is_told_with_the_next_step(office: Office, arguments: list[str], says: str) -> None:
    office.register()

    outcome = office.run("poll-accounts", *arguments)

    assert outcome.code == 4
    assert says in outcome.stderr
    assert "→" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_no_active_workspace_is_an_error_and_in_the_ledger(office: Office) -> None:
    outcome = office.run("poll-accounts")

    assert outcome.code == 4
    assert "workspaces discover" in outcome.stderr
    row = office.conn.execute("SELECT status, exit_code FROM email_sync_logs").fetchone()
    assert row == ("failed", 4)


def _json(rows: list[dict[str, object]]) -> str:
    import json

    return json.dumps({"data": rows})
