"""A sandbox, a database behind a fault proxy, and what the mirror must look like before and after a poll."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cli
import psycopg
from cli import Mirror
from faultproxy import FaultProxy, Victim
from mirrored import ACCOUNTS, Mirrored

from bisonsync.sandbox import Sandbox

SUMMED = ("accounts_read", "inserted", "updated", "unchanged", "removed", "restored", "invalid")
CHANGES = ("inserted", "updated", "restored", "removed")


@dataclass(frozen=True)
class Picture:
    """The mirror as a reader finds it: live rows, and the ids that are marked as removed."""

    live: Mirror
    removed: frozenset[tuple[int, int]]

    def of(self, workspace: int) -> Picture:
        """One workspace's part."""
        return Picture(cli.part_of(self.live, workspace), frozenset(key for key in self.removed if key[0] == workspace))

    def after_reading(self, truth: Mirror) -> Picture:
        """What a whole poll of the truth makes of this."""
        return Picture(truth, (self.removed | self.live.keys()) - truth.keys())

    def counts_until(self, other: Picture) -> dict[str, int]:
        """What a poll that leads from here to the other picture did."""
        known = self.live.keys() | self.removed
        return {
            "inserted": len(other.live.keys() - known),
            "updated": sum(other.live[key] != self.live[key] for key in other.live.keys() & self.live.keys()),
            "restored": len(other.live.keys() & self.removed),
            "removed": len(self.live.keys() - other.live.keys()),
        }


@dataclass
class Scene:
    """Workspaces that are registered in a database of the test's own. Commands reach it through ``proxy``.

    ``list``: what is polled, and what pictures are of.
    """

    sandbox: Sandbox
    dsn: str
    conn: psycopg.Connection[Any]
    proxy: FaultProxy
    env: dict[str, str] = field(default_factory=dict[str, str])
    gone: list[tuple[int, Any]] = field(default_factory=list[tuple[int, Any]])
    list: Mirrored = ACCOUNTS

    @property
    def workspaces(self) -> list[int]:
        with self.sandbox.lock:
            return sorted(self.sandbox.world.workspaces)

    def environment(self, *, direct: bool = False, **more: str) -> dict[str, str]:
        """For a command that reaches the database through the proxy, or directly."""
        return cli.environment(self.dsn if direct else self.proxy.dsn, self.sandbox, **self.env, **more)

    def start(self, *arguments: str, direct: bool = False, **more: str) -> subprocess.Popen[str]:
        """Start a poll with --json."""
        return cli.start_cli([self.list.job, "--json", *arguments], self.environment(direct=direct, **more))

    def start_victim(self, victim: Victim, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a poll that rules of the proxy may harm."""
        process = self.start(*arguments, **more)
        victim.is_(process)
        return process

    def poll(self, *arguments: str, direct: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a poll with --json to its end."""
        return cli.finish(self.start(*arguments, direct=direct, **more))

    def truth(self) -> Mirror:
        return cli.truth(self.sandbox) if self.list is ACCOUNTS else self.list.truth(self.sandbox)

    def picture(self) -> Picture:
        removed = self.conn.execute(
            f"SELECT bison_workspace_id, {self.list.id} FROM {self.list.table} WHERE removed_at IS NOT NULL".encode()
        ).fetchall()
        live = cli.mirror(self.conn) if self.list is ACCOUNTS else self.list.mirror(self.conn)
        return Picture(live, frozenset((workspace, account) for workspace, account in removed))

    def churn(self) -> None:
        """In every workspace a few rows change, one comes, one goes, and the one that went last time comes back."""
        with self.sandbox.lock:
            world = self.sandbox.world
            back, self.gone = self.gone, []
            for workspace in [*world.workspaces.values()]:
                rows = self.list.held(workspace)
                for row_id in rows.order()[1:4]:
                    more = {self.list.counter: getattr(rows[row_id], self.list.counter) + 1}
                    self.list.change(self.sandbox, row_id, **more)
                self.gone.append((workspace.id, rows.take(rows.order()[-1])))
                self.list.add_like(self.sandbox, workspace)
            for workspace_id, row in back:
                self.list.held(world.workspaces[workspace_id]).put(row)

    def one(self, query: str, *values: object) -> Any:
        """The first column of the first row."""
        row = self.conn.execute(query.encode(), values).fetchone()
        return row[0] if row else None

    def ledger(self, run_id: object = None) -> dict[str, Any]:
        """A run's row, by default the newest's, as JSON; ``workspaces``: its workspaces by id."""
        run = self.one(
            "SELECT to_jsonb(r) FROM email_sync_logs AS r WHERE %s::uuid IS NULL OR run_id = %s::uuid"
            " ORDER BY started_at DESC LIMIT 1",
            run_id,
            run_id,
        )
        rows = self.conn.execute(
            "SELECT bison_workspace_id, to_jsonb(w) FROM email_sync_log_workspaces AS w WHERE run_id = %s",
            (run["run_id"],),
        ).fetchall()
        return {**run, "workspaces": dict(rows)}

    def open_runs(self) -> list[str]:
        return [str(run) for (run,) in self.conn.execute("SELECT run_id FROM email_sync_logs WHERE status = 'running'")]

    def held_leases(self) -> int:
        return self.one("SELECT count(*) FROM job_leases WHERE holder IS NOT NULL")

    def expire_leases(self) -> None:
        """Let every lease run out now, by the database's clock."""
        self.conn.execute("UPDATE job_leases SET expires_at = clock_timestamp() - interval '1 ms'")

    def sessions(self) -> int:
        """How many sessions commands have in this database."""
        return self.one(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'bisonsync%%'"
        )


def assert_sums(run: dict[str, Any]) -> None:
    """The run's counts are the sums of what its workspaces committed."""
    for name in SUMMED:
        committed = sum(row["counts"].get(name, 0) for row in run["workspaces"].values())
        assert run["counts"].get(name, 0) == committed, name


@contextmanager
def scene(dsn: str, mirrored: Mirrored = ACCOUNTS, **world: Any) -> Generator[Scene]:
    """A scene over a migrated database: registered by ``cli.register`` unless that was done before."""
    with (
        Sandbox(**world) as sandbox,
        psycopg.connect(dsn, autocommit=True) as conn,
        FaultProxy(dsn) as proxy,
    ):
        made = Scene(sandbox, dsn, conn, proxy, list=mirrored)
        if made.one("SELECT count(*) FROM client_registry"):
            # The same seed makes the same world and the same tokens.
            for number in made.workspaces:
                sandbox.mint(number)
        else:
            cli.register(conn, sandbox)
        yield made


def end(process: subprocess.Popen[str]) -> None:
    """Leave no process behind, in whatever state it is."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
