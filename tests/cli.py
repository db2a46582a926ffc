"""Runs the real command line in a process of its own, and compares the mirror with what a sandbox holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg

import bisonsync
from bisonsync.sandbox import Sandbox

INSTANCE = "sim"
CHECKOUT = Path(bisonsync.__file__).parents[1]
# The longest that anything here may take, on a busy machine too; what hangs is a finding, not a slow machine.
PATIENCE = 120.0

Mirror = dict[tuple[int, int], tuple[Any, ...]]


def environment(dsn: str | None = None, sandbox: Sandbox | None = None, **more: str) -> dict[str, str]:
    """The whole environment of a command: an empty home, a database, one instance; no settings of this machine."""
    home = _empty_home()
    made = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(CHECKOUT),
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "XDG_DATA_HOME": home,
    }
    if dsn is not None:
        # What a test's own connections undo of their role's settings, a command has to stand.
        made["BISONSYNC_DATABASE_URL"] = re.sub(r"[?&](options|client_encoding)=[^&]*", "", dsn)
    if sandbox is not None:
        made[f"BISONSYNC_INSTANCES__{INSTANCE.upper()}__BASE_URL"] = sandbox.url
        made[f"BISONSYNC_INSTANCES__{INSTANCE.upper()}__API_KEY"] = sandbox.super_admin_token
    return made | more


def start_cli(arguments: Iterable[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start ``python -m bisonsync`` and return at once."""
    command = [sys.executable, "-m", "bisonsync", *arguments]
    return subprocess.Popen(
        command,
        env=dict(env),
        cwd=env["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a started command; one that hangs is killed and fails the test."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        _, stderr = process.communicate()
        raise AssertionError(f"still running after {timeout:.0f} s; it said: {stderr}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run_cli(
    arguments: Iterable[str], env: Mapping[str, str], timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m bisonsync`` to its end."""
    return finish(start_cli(arguments, env), timeout)


def run_into(command: str, where: str, env: Mapping[str, str]) -> int:
    """The exit code of a command whose output goes where a shell says: ``>/dev/full``, ``2>&-``, ``| true``."""
    line = f"exec {{ends}}>&1; ({sys.executable} -m bisonsync {command}; echo $? >&$ends) {where}"
    done = subprocess.run(
        ["bash", "-c", line],
        env=dict(env),
        cwd=env["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return int(done.stdout.splitlines()[-1])


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON object that ``--json`` prints."""
    assert done.stdout.count("\n") == 1, f"not one line: {done.stdout!r}; stderr: {done.stderr}"
    read = json.loads(done.stdout)
    assert isinstance(read, dict)
    return read


def register(conn: psycopg.Connection[Any], sandbox: Sandbox, workspaces: Iterable[int] | None = None) -> None:
    """What ``workspaces discover`` and ``mint-tokens`` would have done, without running them."""
    with sandbox.lock:
        names = {workspace.id: workspace.name for workspace in sandbox.world.workspaces.values()}
    for number in names if workspaces is None else workspaces:
        conn.execute(
            "INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name) VALUES (%s, %s, %s)",
            (INSTANCE, number, names[number].strip()),
        )
        conn.execute(
            "INSERT INTO bisonsync_private.workspace_tokens"
            " (bison_instance, bison_workspace_id, token, token_name, status, minted_at, verified_at)"
            " VALUES (%s, %s, %s, 'for tests', 'valid', now(), now())",
            (INSTANCE, number, sandbox.mint(number)),
        )


def truth(sandbox: Sandbox) -> Mirror:
    """What a complete mirror of the sandbox holds: (workspace, account) to its values."""
    return {
        (workspace_id, row["id"]): (
            row["email"].lower(),
            row["name"],
            row["status"],
            row["daily_limit"],
            row["emails_sent_count"],
            row["unique_replied_count"],
            row["bounced_count"],
            sorted(tag["name"] for tag in row["tags"]),
        )
        for workspace_id, rows in sandbox.truth().items()
        for row in rows
    }


def mirror(conn: psycopg.Connection[Any]) -> Mirror:
    """What the database shows as live, in the form of ``truth``."""
    rows = conn.execute(
        "SELECT bison_workspace_id, bison_account_id, email_address, account_name, status, daily_limit,"
        " emails_sent_count, unique_replied_count, bounced_count, tags"
        " FROM sender_emails_cache WHERE removed_at IS NULL"
    ).fetchall()
    return {
        (workspace_id, account_id): (*values, sorted(tag["name"] for tag in tags))
        for workspace_id, account_id, *values, tags in rows
    }


def part_of(whole: Mirror, workspace_id: int) -> Mirror:
    """One workspace's part."""
    return {key: values for key, values in whole.items() if key[0] == workspace_id}


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Ask again until the answer is true, and return it; for what another process does in its own time."""
    give_up_at = time.monotonic() + timeout
    while True:
        # On a busy machine seconds can lie between two looks: the last one is after the end.
        is_last = time.monotonic() > give_up_at
        if answer := condition():
            return answer
        if is_last:
            raise AssertionError(f"after {timeout:.0f} s still not: {what}")
        time.sleep(0.005)


def heard(listener: psycopg.Connection[Any]) -> list[Any]:
    """What a listening session (in autocommit) was told by all that is committed, since it was last asked."""
    listener.execute("SELECT pg_notify('bisonsync', '\"that is all\"')")
    told: list[Any] = []
    for note in listener.notifies(timeout=PATIENCE):
        if (said := json.loads(note.payload)) == "that is all":
            return told
        told.append(said)
    raise AssertionError(f"our own notification never came, only {told}")


def _empty_home() -> str:
    """A folder that nobody writes to; one a machine and user is enough."""
    folder = Path(tempfile.gettempdir()) / f"bisonsync-tests-home-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)
