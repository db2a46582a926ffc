"""demo and sandbox, by the real command line: what a newcomer sees, and that nothing is left running."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest
from cli import PATIENCE, environment, finish, run_cli, start_cli
from terminal import at_terminal

from bisonsync import embedded
from bisonsync.clock import SystemClock
from bisonsync.errors import BisonsyncError, DatabaseUnavailable, Stopped
from bisonsync.jobs import demo
from bisonsync.sandbox import Fault, Sandbox

COMMANDS = [
    ("migrate", 0),
    ("workspaces discover", 0),
    ("workspaces mint-tokens", 0),
    ("poll-accounts", 0),
    ("poll-accounts", 0),
    ("poll-accounts", 8),
    ("runs show", 0),
    ("dashboard accounts", 0),
]


@pytest.fixture
def home(session_folder: Path) -> Iterator[Path]:
    """A new user's empty home, which the server's user can reach also when we are root."""
    folder = session_folder / f"home-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    folder.chmod(0o711)
    yield folder
    if (place := folder / "bisonsync" / "demo").exists():
        embedded.stop(place)


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    """That user's environment, with settings that no demo may use."""
    folder = str(home)
    poison = {"BISONSYNC_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    poison |= {"BISONSYNC_INSTANCES__REAL__BASE_URL": "http://127.0.0.1:1", "BISONSYNC_INSTANCES__REAL__API_KEY": "k"}
    (home / "bisonsync.toml").write_text('[instances.other]\nbase_url = "http://127.0.0.1:1"\napi_key = "k"\n')
    (home / "bisonsync.toml").chmod(stat.S_IRUSR | stat.S_IWUSR)
    return environment(HOME=folder, XDG_DATA_HOME=folder, XDG_CONFIG_HOME=folder, **poison)


def said_until(output: IO[str] | None, words: str) -> str:
    """What a command says up to the line with these words; it fails when the command ends before."""
    assert output is not None
    said = ""
    while line := output.readline():
        said += line
        if words in line:
            return said
    raise AssertionError(f"never said {words!r}, but: {said}")


def assert_nothing_is_left(home: Path) -> None:
    assert list((home / "bisonsync").iterdir()) == []
    servers = [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if str(home / "bisonsync").encode() in _words_of(path)
    ]
    assert servers == []


def _words_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_newcomer_sees_every_command_do_what_it_should(home: Path, env: Mapping[str, str]) -> None:
    killed = start_cli(["demo"], env)
    said_until(killed.stdout, "$ bisonsync workspaces mint-tokens")
    killed.kill()
    finish(killed)

    done = run_cli(["demo"], env, timeout=2 * PATIENCE)

    assert done.returncode == 0, done.stderr
    shown = [line.removeprefix("$ bisonsync ") for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert shown == [command for command, _ in COMMANDS]
    for words in (
        "240 accounts read, 240 inserted",
        "241 accounts read, 2 inserted",
        "0 of 94 mailboxes",
        "poll-accounts: guarded: 4 of 5 workspaces complete",
        "guarded (exit 8)",
        "fresh, guarded",
        "bisonsync init --embedded --base-url",
        "demo: success: 8 commands did what they should",
    ):
        assert words in done.stdout
    assert "misses 94 of 94 accounts; none of these was removed" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_is_left(home)


def test_as_json_it_is_one_object(home: Path, env: Mapping[str, str]) -> None:
    done = run_cli(["demo", "--json"], env, timeout=2 * PATIENCE)

    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert (shown["job"], shown["verdict"]) == ("demo", "success")
    assert shown["commands"] == [{"command": command, "exit_code": code} for command, code in COMMANDS]
    assert shown["counts"] == {"commands": 8, "workspaces": 5, "accounts": 241}
    assert_nothing_is_left(home)


def test_one_at_a_time_and_stopped_it_leaves_nothing(home: Path, env: Mapping[str, str]) -> None:
    first = start_cli(["demo"], env)
    said_until(first.stdout, "$ bisonsync migrate")

    second = run_cli(["demo"], env)
    first.send_signal(signal.SIGINT)
    done = finish(first)

    assert second.returncode == 75
    assert second.stderr == "error: another demo of this user is running → wait for its end, or end it\n"
    assert done.returncode == 130, done.stderr
    assert_nothing_is_left(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_or_hung_up_it_leaves_nothing(home: Path, env: Mapping[str, str], number: signal.Signals) -> None:
    process = start_cli(["demo"], env)
    said_until(process.stdout, "$ bisonsync poll-accounts")

    process.send_signal(number)
    done = finish(process)

    assert done.returncode == 143, done.stderr
    assert_nothing_is_left(home)


def test_keep_stays_up_for_other_commands_until_it_is_stopped(home: Path, env: Mapping[str, str]) -> None:
    process = start_cli(["demo", "--keep"], env)
    said_until(process.stdout, "Both stay up")
    exports = [
        line.split(maxsplit=1)[1] for line in said_until(process.stdout, "API_KEY=").splitlines() if line.strip()
    ]
    settings = dict(shlex.split(export)[0].split("=", 1) for export in exports)

    poll = run_cli(["poll-accounts", "--json"], {**env, **settings})
    process.send_signal(signal.SIGINT)
    done = finish(process)

    assert poll.returncode == 0, poll.stderr
    assert json.loads(poll.stdout)["counts"]["unchanged"] == 241
    assert done.returncode == 0, done.stderr
    assert_nothing_is_left(home)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            Fault(kind="status", status=401, path="/api/workspaces"),
            "'bisonsync workspaces discover' ended with exit code 4 instead of 0",
        ),
        (Fault(kind="fields", set={"emails_sent_count": 1}, path="/api/sender-emails"), "the mirror says"),
    ],
)
def test_a_command_that_does_otherwise_is_told_and_everything_taken_away(
    home: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, reason: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    stage = demo.Stage(
        postgres=embedded,
        sandbox=Sandbox(workspaces=demo.WORKSPACES, accounts=demo.ACCOUNTS, faults=(fault,)),
        clock=SystemClock(),
        environ=dict(os.environ),
        say=lambda _: None,
        show=False,
    )

    with pytest.raises(BisonsyncError) as caught:
        demo.run(stage)

    assert reason in caught.value.message
    assert caught.value.exit_code == 1
    assert_nothing_is_left(home)


def test_a_stop_is_told_as_one_also_when_it_hit_the_server_s_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    clock = SystemClock()

    class Interrupted:
        """Ctrl-C at a terminal reaches initdb as well, which fails of it."""

        status = staticmethod(embedded.status)
        stop = staticmethod(embedded.stop)

        def start(self, data_dir: Path | None = None, *, server_options: Mapping[str, str] | None = None) -> str:
            clock.stop(signal.SIGINT)
            raise DatabaseUnavailable("initdb failed")

    sandbox = Sandbox(workspaces=1, accounts=1)
    stage = demo.Stage(Interrupted(), sandbox, clock, environ={}, say=lambda _: None, show=False)

    with pytest.raises(Stopped):
        demo.run(stage)


def test_without_a_postgres_to_start_it_says_what_to_install(home: Path, env: Mapping[str, str]) -> None:
    (home / "empty").mkdir()

    done = run_cli(["demo"], {**env, "BISONSYNC_PG_BIN": str(home / "empty")})

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    assert "BISONSYNC_PG_BIN" in done.stderr


def test_it_takes_no_settings_of_yours(env: Mapping[str, str]) -> None:
    done = run_cli(["demo", "-w", "17"], env)

    assert (done.returncode, done.stdout) == (2, "")


def test_the_sandbox_takes_its_own_flags(env: Mapping[str, str]) -> None:
    help_ = run_cli(["sandbox", "--help"], env)
    wrong = run_cli(["sandbox", "--workspaces", "0"], env)

    assert help_.returncode == 0
    assert "usage: bisonsync sandbox [FLAGS]" in help_.stdout
    assert "--latency TIME" in help_.stdout
    assert wrong.returncode == 2
    assert "bisonsync sandbox: error: a sandbox needs at least one workspace" in wrong.stderr


def test_a_port_that_is_taken_is_one_line(env: Mapping[str, str]) -> None:
    with Sandbox(workspaces=1, accounts=1) as other:
        done = run_cli(["sandbox", "--port", str(other.port)], env)

    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {other.port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_person_is_told_how_to_point_bisonsync_at_the_sandbox(env: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # A terminal on stdout alone; the process is stopped once it has spoken.
        script = Path(folder) / "typed"
        code = (
            "import os, pty, signal, sys\n"
            "said = b''\n"
            "def read(fd):\n"
            "    global said\n"
            "    part = os.read(fd, 65536)\n"
            "    said += part\n"
            "    if b'/_sandbox/advance' in said and b'^C' not in said:\n"
            "        os.write(fd, b'\\x03')\n"
            "    return part\n"
            "status = pty.spawn([sys.executable, '-m', 'bisonsync', 'sandbox', '--workspaces', '2'], read)\n"
            f"open({str(script)!r}, 'wb').write(said)\n"
            "sys.exit(os.waitstatus_to_exitcode(status))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], env=dict(env), stdin=subprocess.DEVNULL, timeout=PATIENCE)
        said = script.read_text()

    assert done.returncode == 0
    for words in (
        "export BISONSYNC_DATABASE_URL=",
        "export BISONSYNC_INSTANCES__SIM__BASE_URL=http://127.0.0.1:",
        "export BISONSYNC_INSTANCES__SIM__API_KEY='1|super-admin",
        "bisonsync poll-accounts",
    ):
        assert words in said


@pytest.mark.parametrize("command", [["dashboard"], ["runs"], ["demo"], ["runs", "show"], ["dashboard", "freshness"]])
def test_help_has_an_example_and_fits_80_columns(env: Mapping[str, str], command: list[str]) -> None:
    screen = at_terminal([*command, "--help"], env, columns=80)

    assert screen.code == 0
    assert max(map(len, screen.lines)) <= 80
    assert f"bisonsync {' '.join(command)}" in " ".join(screen.lines).split("Example:")[1]
