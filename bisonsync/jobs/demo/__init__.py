"""``demo``: runs the real commands on a Postgres and an Email Bison look-alike of its own, and checks what they did."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bisonsync.errors import BisonsyncError, Stopped
from bisonsync.jobs.demo.database import Postgres, own_database
from bisonsync.keys import WorkspaceKey
from bisonsync.run import Result
from bisonsync.store import dashboards, runs
from bisonsync.store.db import Database

if TYPE_CHECKING:
    from bisonsync.clock import Clock
    from bisonsync.sandbox import Sandbox

INSTANCE = "sim"
WORKSPACES = 5
ACCOUNTS = 240
# The workspace whose list will come back empty.
ILL_WORKSPACE = 1
CHILD_SECONDS = 10.0

Figures = tuple[int, int, int, int, int]

_INTRODUCTION = f"""\
This runs the real commands on a Postgres and on an Email Bison look-alike of its
own: {WORKSPACES} workspaces with {ACCOUNTS} mailboxes. Your settings are not used, and both
are gone at the end.
"""
_GO_ON = """\
The same with your own Email Bison, its super-admin key in the file main.key:

  bisonsync init --embedded --base-url https://send.example.com \\
    --api-key-file main.key
  bisonsync migrate
  bisonsync workspaces discover
  bisonsync workspaces mint-tokens
  bisonsync poll-accounts          # from cron, every 3 minutes
"""
_OR_KEEP = "To try commands on this one first: bisonsync demo --keep"


@dataclass(frozen=True)
class Stage:
    """What the demo plays on. ``show``: the commands print to our own stdout and stderr, else nowhere."""

    postgres: Postgres
    sandbox: Sandbox
    clock: Clock
    environ: Mapping[str, str]
    say: Callable[[str], None]
    show: bool


def run(stage: Stage, *, keep: bool = False) -> Result:
    """Play the demo and take everything away again; with ``keep`` only once it is stopped.

    Raises BisonsyncError when a command does not do what it should, ConfigError without a Postgres to start,
    LeaseBusy while another demo of this user runs, Stopped.
    """
    try:
        with own_database(stage.postgres) as dsn, stage.sandbox:
            play = _Play(stage, dsn)
            try:
                play.all()
            finally:
                play.database.close()
            if keep:
                _wait(stage, dsn)
            else:
                stage.say(f"{_GO_ON}\n{_OR_KEEP}\n")
    except BisonsyncError:
        # A Ctrl-C reaches the programs that we run as well: what they say of it is not the reason.
        stage.clock.check()
        raise
    counts = {"commands": len(play.done), "workspaces": WORKSPACES, "accounts": play.accounts}
    details = {"commands": [{"command": line, "exit_code": code} for line, code in play.done]}
    return Result(counts, summary=f"{len(play.done)} commands did what they should", details=details)


def _wait(stage: Stage, dsn: str) -> None:
    """Say how to go on playing, until Ctrl-C."""
    exports = "\n".join(
        f"  export {name}={shlex.quote(value)}" for name, value in _settings(dsn, stage.sandbox).items()
    )
    stage.sandbox.clear_faults()
    stage.say(
        f"Both stay up until you press Ctrl-C here. In another terminal:\n\n{exports}\n\n"
        "  bisonsync poll-accounts\n"
        f"  curl -X POST {stage.sandbox.url}/_sandbox/advance -d '{{\"minutes\": 60}}'    # an hour passes\n"
        "  bisonsync poll-accounts && bisonsync dashboard\n"
        "  bisonsync runs list\n\n"
        f"{_GO_ON}"
    )
    try:
        while True:
            stage.clock.sleep(3600)
    except Stopped:
        stage.say("Taking both away.")


def _settings(dsn: str, sandbox: Sandbox) -> dict[str, str]:
    """The settings that point a command at the demo, and at nothing else."""
    return {
        "BISONSYNC_CONFIG": os.devnull,
        "BISONSYNC_DATABASE_URL": dsn,
        f"BISONSYNC_INSTANCES__{INSTANCE.upper()}__BASE_URL": sandbox.url,
        f"BISONSYNC_INSTANCES__{INSTANCE.upper()}__API_KEY": sandbox.super_admin_token,
    }


@dataclass
class _Play:
    """The demo's acts: each shows a command, runs it, and holds what it did against the look-alike."""

    stage: Stage
    dsn: str
    done: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def __post_init__(self) -> None:
        self.database = Database(self.dsn, application_name="bisonsync demo", clock=self.stage.clock)
        others = {name: value for name, value in self.stage.environ.items() if not name.startswith("BISONSYNC_")}
        self.environ = {**others, **_settings(self.dsn, self.stage.sandbox)}

    @property
    def accounts(self) -> int:
        """How many accounts the look-alike holds."""
        return sum(len(rows) for rows in self.stage.sandbox.truth().values())

    def all(self) -> None:
        """Play every act. Raises BisonsyncError at the first that goes wrong."""
        self.stage.say(_INTRODUCTION)
        self._set_up()
        self._poll_first()
        self._poll_changes()
        self._poll_empty_list()
        self._look()

    def _set_up(self) -> None:
        self._act("The tables, the workspaces that the super-admin key sees, a token for each.")
        self._command("migrate")
        self._command("workspaces discover")
        self._require_run(workspaces_total=WORKSPACES, added=WORKSPACES)
        self._command("workspaces mint-tokens")
        self._require_run(minted=WORKSPACES)

    def _poll_first(self) -> None:
        self._act("The first poll: each list is read whole, proved, stored in one transaction.")
        self._command("poll-accounts")
        self._require_run(workspaces_ok=WORKSPACES, inserted=self.accounts, updated=0, removed=0)
        self._require_mirror()

    def _poll_changes(self) -> None:
        before = _rows(self.stage.sandbox)
        moved = self.stage.sandbox.advance(minutes=60, active=0.3, come=2, go=1, disconnect=3, reconnect=0)
        after = _rows(self.stage.sandbox)
        self._act(
            f"An hour later at the host: {moved['grown']} mailboxes have sent, {moved['come']} came,"
            f" {moved['go']} went, {moved['disconnect']} lost their connection. Only what changed is written."
        )
        self._command("poll-accounts")
        self._require_run(
            workspaces_ok=WORKSPACES,
            inserted=len(after.keys() - before.keys()),
            removed=len(before.keys() - after.keys()),
            updated=sum(before[key] != after[key] for key in before.keys() & after.keys()),
        )
        self._require_mirror()

    def _poll_empty_list(self) -> None:
        sandbox = self.stage.sandbox
        held = len(sandbox.truth()[ILL_WORKSPACE])
        sandbox.add_fault("empty_list", workspace=ILL_WORKSPACE)
        self._act(
            f"Now the host serves an empty list for one workspace: 0 of {held} mailboxes, and says "
            "that this is all. Nothing is removed, the other workspaces go on, the exit code is 8."
        )
        self._command("poll-accounts", exits=8)
        self._require_run(workspaces_ok=WORKSPACES - 1, inserted=0, updated=0, removed=0)
        self._require_mirror()
        self._command("runs show")

    def _look(self) -> None:
        self._act("The mirror in figures. What is not fresh and complete says so.")
        self._command("dashboard accounts")

    def _act(self, text: str) -> None:
        self.stage.say(f"{textwrap.fill(text, 78)}\n")

    def _command(self, line: str, *, exits: int = 0) -> None:
        """Show and run a command. Raises BisonsyncError when it ends otherwise than by ``exits``, Stopped."""
        self.stage.clock.check()
        self.stage.say(f"$ bisonsync {line}")
        shown = self.stage.show
        with tempfile.TemporaryFile() as unseen:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "bisonsync", *line.split()],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=None if shown else subprocess.DEVNULL,
                stderr=None if shown else unseen,
            )
            try:
                while process.poll() is None:
                    self.stage.clock.sleep(0.05)
            finally:
                _end(process)
            self.stage.clock.check()
            code = process.returncode
            if code != exits:
                unseen.seek(0)
                said = unseen.read().decode(errors="replace").strip()
                raise BisonsyncError(
                    f"'bisonsync {line}' ended with exit code {code} instead of {exits}"
                    + (f": {said}" if said else ""),
                    hint="what it says is above" if shown else "run 'bisonsync demo' to see everything it says",
                )
        self.done.append((line, code))
        self.stage.say("")

    def _require_run(self, **counts: int) -> None:
        """Raises BisonsyncError unless the ledger's newest run has these counts."""
        newest = self.database.run(lambda conn: runs.list_runs(conn, job=None, status=None, limit=1))
        found: Mapping[str, Any] = newest[0].counts if newest else {}
        self._require({name: found.get(name, 0) for name in counts}, counts, "the ledger's newest run")

    def _require_mirror(self) -> None:
        """Raises BisonsyncError unless the database shows every workspace as the look-alike holds it."""
        counted = self.database.run(lambda conn: dashboards.count_accounts(conn, None))
        found: dict[WorkspaceKey, Figures] = {}
        for row in counted:
            one = (row.accounts, row.connected, row.sent, row.unique_replies, row.bounced)
            found[row.key] = _add(found.get(row.key, (0, 0, 0, 0, 0)), one)
        wanted = {(INSTANCE, number): _figures(rows) for number, rows in self.stage.sandbox.truth().items()}
        self._require(found, wanted, "the mirror")

    def _require(self, found: object, wanted: object, what: str) -> None:
        if found != wanted:
            raise BisonsyncError(
                f"after 'bisonsync {self.done[-1][0]}' {what} says {found}, but it should say {wanted}",
                hint="this is a bug: the demo compares what the commands did with what the look-alike holds",
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that a command has ended: asked to, then killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(CHILD_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _rows(sandbox: Sandbox) -> dict[tuple[int, int], dict[str, Any]]:
    """Every account of the look-alike, without the field that moves with any activity."""
    return {
        (number, row["id"]): {name: value for name, value in row.items() if name != "updated_at"}
        for number, rows in sandbox.truth().items()
        for row in rows
    }


def _figures(rows: list[dict[str, Any]]) -> Figures:
    return (
        len(rows),
        sum(row["status"].lower() == "connected" for row in rows),
        sum(row["emails_sent_count"] for row in rows),
        sum(row["unique_replied_count"] for row in rows),
        sum(row["bounced_count"] for row in rows),
    )


def _add(one: Figures, other: Figures) -> Figures:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3], one[4] + other[4])
