"""Every command that touches the database, once, on a small world that is the same each time: what each said, what it
left. Two tours under other settings of the same database must not differ."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cli
import psycopg
import receiving
from conftest import FRIENDLY
from psycopg.sql import SQL, Identifier, Literal

from bisonsync.sandbox import Sandbox

Connection = psycopg.Connection[Any]

SECRET = "abcdefghijklmnop"
# The tour's own connection stands idle while commands run.
_PATIENT = "-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c row_security=on"
# The worlds of all tours of a process are alike in their dates too.
_START = datetime.now(UTC) - timedelta(minutes=10)
# What no two runs have alike, by the end of its name or wholly.
_VARYING = re.compile(
    r"(_at|_ms|_id|_until|_since|_seconds|_mb|_bytes)$"
    r"|^(id|value|detail|hint|note|message|age|host|pid|command|version|started|requests|retries|runs|days|deliveries)$"
)
# Run ids, moments, ports.
_VARYING_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\d[T ][\d:.]+(?:\+00(?::00)?|Z)?|:\d{4,5}\b")
_TABLES = {
    "client_registry": "bison_workspace_id, workspace_name, is_active",
    "sender_emails_cache": (
        "bison_workspace_id, bison_account_id, email_address, domain, emails_sent_count, reply_rate_percentage, status,"
        " is_connected, daily_limit, email_provider, reseller, price, tags, extra, bison_created_at, removed_at IS NULL"
    ),
    "sender_email_daily": "bison_workspace_id, bison_account_id, emails_sent_count, email_provider, domain",
    "provider_performance_history": "email_provider, total_accounts, total_sent, avg_reply_rate, is_complete",
    "client_metrics": "bison_workspace_id, emails_sent_mtd, replies_mtd, interested_mtd, bounced_mtd",
    "client_leads": "bison_workspace_id, bison_lead_id, lead_email, status",
    "webhook_delivery_log": "source, event_type, bison_workspace_id, status, dedup_rule, occurred_rule, attempts",
    "webhook_event_keys": "bison_workspace_id, event_type, split_part(dedup_key, ':', 1)",
    "workspace_sync_state": "bison_workspace_id, resource, verdict, total, distinct_ids, consecutive_failures",
    "email_sync_logs": "job, status, exit_code",
    "email_sync_log_workspaces": "bison_workspace_id, resource, verdict",
    "data_validation_errors": "source, field, error_type",
}
# How the catalogs spell things depends on settings of the session that asks; this one's are the same each time.
_CATALOG = {
    "partitions": (
        "SELECT p.relname, c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits AS i"
        " INNER JOIN pg_class AS c ON c.oid = i.inhrelid INNER JOIN pg_class AS p ON p.oid = i.inhparent"
        " WHERE p.relkind = 'p'"
    ),
    "grants": (
        "SELECT o.name, a.grantee = 0, a.privilege_type FROM ("
        " SELECT relname AS name, relacl AS acl FROM pg_class"
        " WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'bisonsync_private'))"
        " UNION ALL SELECT proname, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc"
        " WHERE pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'bisonsync_private'))"
        ") AS o, aclexplode(o.acl) AS a"
    ),
    "row security": "SELECT relname, relrowsecurity FROM pg_class WHERE relnamespace = 'public'::regnamespace",
}
_DOORS = (
    "SELECT r.email_provider, r.total_sent::text, r.avg_reply_rate::text FROM public.aggregate_provider_stats() AS r",
    "SELECT r.total::text, r.disconnect_rate::text FROM public.get_account_status_stats() AS r",
    "SELECT r.group_value, r.sent::text, r.reply_rate::text FROM public.performance_by('provider',"
    " (now() AT TIME ZONE 'UTC')::date - 7, (now() AT TIME ZONE 'UTC')::date + 1) AS r",
    "SELECT count(*)::text FROM public.check_provider_reply_rate_drop()",
    "SELECT count(*)::text FROM public.get_email_sync_health()",
    "SELECT public.cleanup_old_email_sync_logs(400)::text",
    "SELECT public.increment_metric('{name}', 'emails_sent_mtd', 3)::text",
    "SELECT public.ingest_webhook('{{\"event\": {{\"type\": \"LEAD_REPLIED\", \"workspace_id\": 1,"
    " \"instance_url\": \"{url}\"}}, \"data\": {{\"reply\": {{\"id\": 77, \"created_at\": \"{moment}\"}},"
    " \"lead\": {{\"id\": 5, \"email\": \"lead@example.com\"}}}}}}') ->> 'status'",
    "SELECT public.ingest_webhook('{{\"event\": {{\"type\": \"email_account_disconnected\", \"workspace_id\": 1,"
    " \"instance_url\": \"{url}\"}}, \"data\": {{\"sender_email\": {{\"id\": 1, \"email\": \"a@example.com\"}}}}}}')"
    " ->> 'status'",
    "SELECT public.ingest_webhook('{{\"event\": {{\"type\": \"never_heard\", \"workspace_id\": 1,"
    " \"instance_url\": \"{url}\"}}, \"data\": {{}}}}') ->> 'status'",
    "SELECT public.ingest_webhook('[]') ->> 'status'",
)  # fmt: skip
_PENDING = (
    "INSERT INTO webhook_delivery_log (source, payload)"
    " SELECT 'sql', jsonb_set(jsonb_set(jsonb_set(%s::jsonb, '{data,campaign_event,id}', to_jsonb(n)),"
    " '{data,lead,id}', to_jsonb(n)), '{event,workspace_id}', to_jsonb(n %% 2 + 1)) FROM generate_series(1, 20) AS n"
)


@dataclass(frozen=True)
class Step:
    """One command: exit code, what it said without what varies, and how long it took in seconds."""

    name: str
    code: int
    said: Any
    seconds: float


@dataclass(frozen=True)
class Tour:
    """All steps in order, and what the database holds in the end."""

    steps: tuple[Step, ...]
    left: Mapping[str, list[str]]

    def differences(self, other: Tour) -> list[str]:
        """What the other tour did otherwise, a line each; none when both are alike."""
        lines = [
            f"{one.name}: exit {one.code} {_unlike(one.said, two.said)}, exit {two.code} {_unlike(two.said, one.said)}"
            for one, two in zip(self.steps, other.steps, strict=True)
            if (one.code, one.said) != (two.code, two.said)
        ]
        for name, rows in self.left.items():
            if rows != other.left[name]:
                lines.append(f"{name}: {sorted(set(rows) ^ set(other.left[name]))[:4]}")
        return lines


def settle(server: Connection, dsn: str, settings: Mapping[str, str]) -> None:
    """Have every session of this database begin with these settings."""
    name = Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
    for setting, value in settings.items():
        server.execute(SQL("ALTER DATABASE {} SET {} = {}").format(name, Identifier(setting), Literal(value)))


def tour(dsn: str, folder: Path, *, workspaces: int = 2, accounts: int = 30) -> Tour:
    """Make the tour in an empty database, with so many accounts in all."""
    with (
        Sandbox(workspaces=workspaces, accounts=accounts, skew=(), seed=7, start=_START) as sandbox,
        psycopg.connect(dsn, autocommit=True, client_encoding="UTF8", options=f"{FRIENDLY} {_PATIENT}") as conn,
    ):
        guide = _Guide(dsn, folder, sandbox, conn)
        guide.go()
        return Tour(tuple(guide.steps), _left(conn))


class _Guide:
    def __init__(self, dsn: str, folder: Path, sandbox: Sandbox, conn: Connection) -> None:
        self._sandbox, self._conn, self._folder = sandbox, conn, folder
        self.steps: list[Step] = []
        self._env = cli.environment(
            dsn,
            sandbox,
            BISONSYNC_POLLING__RETRY_ATTEMPTS="2",
            **{f"BISONSYNC_INSTANCES__{cli.INSTANCE.upper()}__REQUESTS_PER_MINUTE": "1000000"},
            BISONSYNC_WEBHOOKS__PUBLIC_URL="http://127.0.0.1:1",
            PGCLIENTENCODING="SQL_ASCII",
        )

    def go(self) -> None:
        self._run("migrate")
        self._run("migrate", "status")
        self._run("workspaces", "discover")
        self._run("workspaces", "mint-tokens")
        self._run("workspaces", "list")
        self._run("workspaces", "verify")
        self._run("poll-accounts")
        self._change_some()
        self._run("poll-accounts")
        self._run("webhooks", "ensure")
        self._run("webhooks", "list")
        self._run("webhooks", "verify")
        self._doors()
        self._deliver()
        self._conn.execute(_PENDING.encode(), [json.dumps(self._event(1))])
        self._run("replay-webhooks")
        self._replay_file()
        self._sandbox.make_events(type="email_sent", count=9, workspace=1)
        self._run("pull-events")
        self._run("rebuild-counters", "--diff-only")
        self._run("rebuild-counters")
        self._run("snapshot-providers")
        self._run("snapshot-providers", "--fill-gaps")
        self._run("dead-letters", "list")
        self._run("dead-letters", "retry", "--all")
        self._run("inbox", "list")
        self._run("inbox", "show", "1")
        for name in ("accounts", "freshness", "providers"):
            self._run("dashboard", name)
        self._run("alerts", "list")
        self._run("health", "--alert")
        self._run("runs", "list")
        self._run("runs", "show")
        self._run("prune")

    def _run(self, *arguments: str) -> None:
        name = " ".join(word for word in arguments if not word.startswith("/"))
        began = time.perf_counter()
        done = cli.run_cli([*arguments, "--json"], self._env)
        seconds = time.perf_counter() - began
        said: Any = None
        with suppress(ValueError):
            said = _steady(json.loads(done.stdout))
        self._note(name, done.returncode, said, seconds, "" if said is not None else done.stderr)

    def _note(self, name: str, code: int, said: Any, seconds: float, stderr: str = "") -> None:
        assert "Traceback" not in stderr, f"{name}: {stderr}"
        self.steps.append(Step(f"{len(self.steps) + 1} {name}", code, said, seconds))

    def _change_some(self) -> None:
        with self._sandbox.lock:
            world = self._sandbox.world
            for workspace in world.workspaces.values():
                for account_id in workspace.accounts.order()[:2]:
                    sent = workspace.accounts[account_id].emails_sent_count
                    world.change(account_id, workspace_id=workspace.id, emails_sent_count=sent + 3, name="Ann \\ Ö'k")
                workspace.accounts.take(workspace.accounts.order()[-1])

    def _doors(self) -> None:
        """As any other program's session calls them, with the settings that its sessions begin with."""
        name = self._sandbox.world.workspaces[1].name.strip()
        moment = datetime.now(UTC).isoformat()
        with psycopg.connect(self._env["BISONSYNC_DATABASE_URL"], autocommit=True) as conn:
            for door in _DOORS:
                text = door.format(name=name, url=self._sandbox.url, moment=moment)
                began = time.perf_counter()
                try:
                    rows = conn.execute(text.encode()).fetchall()
                except psycopg.Error as error:
                    self._note(door[:40], 1, str(error), 0.0)
                    continue
                seconds = time.perf_counter() - began
                said = sorted(str([_steady(_text(value)) for value in row]) for row in rows)
                self._note(door[:40], 0, said, seconds)

    def _deliver(self) -> None:
        env = {key: value for key, value in self._env.items() if key.startswith("BISONSYNC_INSTANCES")}
        with receiving.receiver(
            self._env["BISONSYNC_DATABASE_URL"],
            **env,
            PGCLIENTENCODING="SQL_ASCII",
            BISONSYNC_WEBHOOKS__SECRETS=json.dumps({f"{cli.INSTANCE}/1": SECRET}),
        ) as running:
            answers = [
                running.post(SECRET, json.dumps(self._event(number)).encode()).status for number in (901, 902, 901)
            ]
            answers.append(running.post(SECRET, json.dumps({"event": 1, "data": "\ud800\0"}).encode()).status)
            answers.append(running.ask("GET", "/healthz").status)
            code = running.stop()
        self._note("receive-webhooks", code, answers, 0.0)

    def _replay_file(self) -> None:
        path = self._folder / "deliveries.jsonl"
        path.write_text("".join(json.dumps(self._event(number)) + "\n" for number in range(500, 520)))
        self._run("replay-webhooks", "--from", str(path))

    def _event(self, number: int) -> dict[str, Any]:
        event = receiving.event(number)
        event["event"]["instance_url"] = self._sandbox.url
        return event


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _steady(part: Any) -> Any:
    """What a command said, without what no two runs have alike."""
    if isinstance(part, dict):
        return {key: _steady(value) for key, value in part.items() if not _VARYING.search(key)}
    if isinstance(part, list):
        steady = [_steady(value) for value in part]
        # Views and functions are made in any order that their needs allow, and workspaces end in any order.
        return sorted(steady, key=lambda value: json.dumps(value, sort_keys=True))
    return _VARYING_TEXT.sub("…", part) if isinstance(part, str) else part


def _unlike(part: Any, other: Any) -> str:
    """What of one answer the other has not."""
    if isinstance(part, dict) and isinstance(other, dict):
        part = {key: value for key, value in part.items() if other.get(key) != value}
    return json.dumps(part, sort_keys=True)[:600]


def _left(conn: Connection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for table, columns in _TABLES.items():
        rows = conn.execute(f"SELECT ({columns})::text FROM public.{table}".encode()).fetchall()
        found[table] = sorted(re.sub(r":\d{4,5}\b", "", text) for (text,) in rows)
    for name, query in _CATALOG.items():
        found[name] = sorted(str(row) for row in conn.execute(query.encode()).fetchall())
    return found


# What a session may begin with and what can change how a statement is read, planned, run or answered.
_CATEGORIES = (
    "Client Connection Defaults / ",
    "Query Tuning / ",
    "Version and Platform Compatibility / ",
    "Developer Options",
    "Error Handling",
    "Resource Usage / Memory",
    "Statistics / ",
)
# Part of each BEGIN, not given to ordinary roles to load, or refusing by design: a job that cannot write says so, and
# who is forbidden to read views may not call what reads one.
_NOT_TRIED = frozenset(
    {
        "transaction_isolation",
        "transaction_read_only",
        "transaction_deferrable",
        "local_preload_libraries",
        "default_transaction_read_only",
        "restrict_nonsystem_relation_kind",
    }
)
_TEXTS = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Australia/Lord_Howe",
    "client_encoding": "SQL_ASCII",
    "search_path": "nowhere",
    "default_text_search_config": "pg_catalog.german",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "timezone_abbreviations": "India",
    "default_tablespace": "pg_default",
    "temp_tablespaces": "pg_default",
    "default_table_access_method": "heap",
}


@dataclass(frozen=True)
class Setting:
    """A setting, the value that the server begins with, and one that is tried instead."""

    name: str
    category: str
    usual: str
    tried: str


def settings_to_try(conn: Connection) -> list[Setting]:
    """Every setting of this server that a role or database may set and that can matter, each away from its default."""
    rows = conn.execute(
        "SELECT name, category, vartype, boot_val, min_val, max_val, enumvals FROM pg_settings"
        " WHERE context = 'user' AND category LIKE ANY (%s) ORDER BY name",
        [[f"{category}%" for category in _CATEGORIES]],
    ).fetchall()
    return [
        Setting(name, category, usual or "", value)
        for name, category, kind, usual, least, most, words in rows
        if name not in _NOT_TRIED
        for value in _values(name, kind, usual or "", least, most, words or [])
    ]


def _values(name: str, kind: str, usual: str, least: str, most: str, words: list[str]) -> list[str]:
    if kind == "bool":
        return ["off" if usual == "on" else "on"]
    if kind == "enum":
        return [word for word in words if word != usual]
    if name.endswith("_timeout"):
        return ["1s"]
    if kind in ("integer", "real"):
        return [least if float(least) != float(usual) else most]
    return [_TEXTS[name]] if name in _TEXTS else []
