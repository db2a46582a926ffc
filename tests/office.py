"""A small agency for tests: a sandbox, a migrated database that knows its workspaces, and the real command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from cli import environment, register, run_cli, wait_until
from mirrored import ACCOUNTS, Mirrored

from bisonsync.sandbox import Sandbox

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The object of --json."""
        return json.loads(self.stdout)

    @property
    def counts(self) -> dict[str, int]:
        return self.document["counts"]

    def workspace(self, number: int) -> dict[str, Any]:
        """What --json says of one workspace."""
        return next(entry for entry in self.document["workspaces"] if entry["id"] == number)

    @property
    def kinds(self) -> set[str]:
        """The kinds of the errors in --json."""
        return {error["kind"] for error in self.document["errors"]}


@dataclass
class Office:
    """A database and a sandbox; ``run`` calls the real command line on both, with a single try per request.

    ``list``: the one that ``poll`` reads and that all the others here speak of.
    """

    sandbox: Sandbox
    dsn: str
    conn: Connection
    list: Mirrored = ACCOUNTS

    def register(self) -> None:
        """Put every workspace and a token of it into the database, as discover and mint-tokens do."""
        register(self.conn, self.sandbox)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        """The real command line in a process of its own."""
        settings = {"BISONSYNC_POLLING__RETRY_ATTEMPTS": "1"} | dict(env or {})
        done = run_cli(arguments, environment(self.dsn, self.sandbox, **settings))
        return Outcome(done.returncode, done.stdout, done.stderr)

    def poll(self, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        return self.run(self.list.job, "--json", *arguments, env=env)

    def live(self, workspace: int | None = None) -> dict[int, set[int]]:
        """The ids of rows that are not removed, by workspace."""
        rows = self.conn.execute(
            f"SELECT bison_workspace_id, array_agg({self.list.id}) FROM {self.list.table}"
            " WHERE removed_at IS NULL AND (%(w)s::bigint IS NULL OR bison_workspace_id = %(w)s) GROUP BY 1".encode(),
            {"w": workspace},
        ).fetchall()
        return {number: set(ids) for number, ids in rows}

    def truth(self) -> dict[int, set[int]]:
        """The ids that the sandbox holds, by workspace; those without any left out."""
        return {number: {row["id"] for row in rows} for number, rows in self.list.serve(self.sandbox).items() if rows}

    def ids(self, workspace: int = 1) -> Sequence[int]:
        """The ids that a workspace of the sandbox holds, in order."""
        return sorted(self.list.held(self.sandbox.world.workspaces[workspace]))

    def take(self, *row_ids: int) -> Any:
        """Let rows go at the sandbox; the last of them."""
        return [self.list.take(self.sandbox, row_id) for row_id in row_ids][-1]

    def change(self, row_id: int, **fields: Any) -> Any:
        """Give a row of the sandbox new values."""
        return self.list.change(self.sandbox, row_id, **fields)

    def change_some(self, **fields: Any) -> Sequence[int]:
        """Change a share or number of the list's rows; their ids."""
        return self.sandbox.change(**fields, campaigns=self.list is not ACCOUNTS)

    def damage(self, kind: str, **fields: Any) -> int:
        """Let answers to requests for the list go wrong; the fault's id."""
        return self.sandbox.add_fault(kind, path=self.list.path, **fields)

    def stored(self, what: str, row_id: int) -> Any:
        """An expression over the stored row of that id."""
        return self.one(f"SELECT {what} FROM {self.list.table} AS c WHERE {self.list.id} = %s", row_id)

    def one(self, query: str, *parameters: Any) -> Any:
        """The first column of a query's only row."""
        row = self.conn.execute(query, parameters).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]

    def writes(self) -> tuple[int, int, int]:
        """Inserts, updates and deletes on the mirror so far; a session tells its figures when it ends."""
        wait_until(
            lambda: (
                not self.one(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'bisonsync%%'"
                )
            ),
            "the command's sessions have ended",
        )
        row = self.conn.execute(
            "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname = %s", [self.list.table]
        ).fetchone()
        assert row is not None
        return row[0], row[1], row[2]
