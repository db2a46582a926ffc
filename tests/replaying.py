"""An inbox whose deliveries tests put there, and the real command that replays them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import psycopg
import receiving
from office import Outcome

Connection = psycopg.Connection[Any]

# Everything that replay may change beside the log; a second time it must change none of it.
EFFECTS = (
    "SELECT coalesce(jsonb_agg(e.row ORDER BY e.row::text), '[]') FROM"
    " (SELECT to_jsonb(m) AS row FROM client_metrics AS m UNION ALL SELECT to_jsonb(l) FROM client_leads AS l"
    " UNION ALL SELECT to_jsonb(k) FROM webhook_event_keys AS k"
    " UNION ALL SELECT to_jsonb(a) FROM sender_emails_cache AS a) AS e"
)
POISON = """
CREATE FUNCTION refuse_lead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.bison_lead_id = any(TG_ARGV[0]::bigint[]) THEN
        RAISE EXCEPTION 'lead of somebody@example.com refused';
    END IF;
    RETURN NEW;
END $$
"""


@dataclass
class Inbox:
    """A database with three registered workspaces of instance ``sim``."""

    dsn: str
    conn: Connection

    def replay(self, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        """The real command with --json, to its end."""
        done = cli.run_cli(["replay-webhooks", "--json", *arguments], self.environment(**(env or {})))
        return Outcome(done.returncode, done.stdout, done.stderr)

    def environment(self, **more: str) -> dict[str, str]:
        return cli.environment(self.dsn) | receiving.INSTANCES | more

    def put(self, *payloads: Mapping[str, Any] | str, **columns: Any) -> list[int]:
        """Put payloads into the log, as pending unless ``columns`` say otherwise; their ids."""
        names = ["source", "payload", *columns]
        values = ", ".join(["%s"] * len(names))
        query = f"INSERT INTO webhook_delivery_log ({', '.join(names)}) VALUES ({values}) RETURNING id"
        ids: list[int] = []
        for payload in payloads:
            text = payload if isinstance(payload, str) else json.dumps(payload)
            row = self.conn.execute(query.encode(), ["sql", text, *columns.values()]).fetchone()
            assert row is not None
            ids.append(row[0])
        return ids

    def put_many(self, count: int) -> None:
        """Put so many different sent mails into the log, as pending."""
        self.conn.execute(
            "INSERT INTO webhook_delivery_log (source, payload)"
            " SELECT 'sql', jsonb_set(jsonb_set(jsonb_set(%s::jsonb, '{data,campaign_event,id}', to_jsonb(n)),"
            " '{data,lead,id}', to_jsonb(n)), '{event,workspace_id}', to_jsonb(n %% 3 + 1))"
            " FROM generate_series(1, %s) AS n",
            [json.dumps(receiving.event(1)), count],
        )

    def poison(self, *leads: int) -> None:
        """Let every event of these leads fail, as a fault in the database would."""
        self.conn.execute("DROP TRIGGER IF EXISTS poison ON client_leads")
        self.conn.execute("DROP FUNCTION IF EXISTS refuse_lead")
        if leads:
            self.conn.execute(POISON)
            self.conn.execute(
                "CREATE TRIGGER poison BEFORE INSERT ON client_leads FOR EACH ROW EXECUTE FUNCTION"
                f" refuse_lead('{{{', '.join(map(str, leads))}}}')".encode()
            )

    def statuses(self) -> dict[int, str]:
        """The status of each delivery by its id."""
        return dict(self.conn.execute("SELECT id, status FROM webhook_delivery_log ORDER BY id").fetchall())

    def tally(self) -> dict[str, int]:
        """How many deliveries there are of each status."""
        return dict(self.conn.execute("SELECT status, count(*) FROM webhook_delivery_log GROUP BY status").fetchall())

    def tried(self) -> set[int]:
        """The ids of deliveries that were ever tried."""
        return {number for (number,) in self.conn.execute("SELECT id FROM webhook_delivery_log WHERE attempts > 0")}

    def effects(self) -> Any:
        """Counters, leads, accounts and keys, whole."""
        return self.one(EFFECTS)

    def one(self, query: str, *values: object) -> Any:
        """The first column of the first row."""
        row = self.conn.execute(query.encode(), values).fetchone()
        assert row is not None
        return row[0]

    @property
    def counted(self) -> int:
        """How many sent mails the counters have."""
        return receiving.counted(self.conn)


def inbox(dsn: str, conn: Connection) -> Inbox:
    """An inbox in a migrated database, as an earlier run left it."""
    receiving.register(conn)
    conn.execute(
        "INSERT INTO bisonsync_private.instance_origins VALUES ('sim', %s, %s)",
        [receiving.INSTANCE_URL, receiving.INSTANCE_URL],
    )
    conn.execute(
        "SELECT bisonsync_private.make_delivery_partitions((now() AT TIME ZONE 'UTC')::date, current_date + 8)"
    )
    return Inbox(dsn, conn)


def write_lines(path: Path, *lines: Any) -> Path:
    """A file of JSON lines; bytes and text stand there as they are."""
    path.write_bytes(b"".join(_line(line) + b"\n" for line in lines))
    return path


def _line(line: Any) -> bytes:
    if isinstance(line, bytes):
        return line
    return line.encode() if isinstance(line, str) else json.dumps(line).encode()
