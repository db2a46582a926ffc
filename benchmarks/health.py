"""Measures health on a grown database beside its floor: python benchmarks/health.py [accounts] [days] [deliveries].

The floor is one plain connection that counts the rows of every table a look reads, of the deliveries those of a day: a
look cannot know less. A temporary Postgres with fsync on; the rows are made by SQL, a million deliveries a day until
twenty minutes ago, so that every workspace is found silent and its past is looked at.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from poll import PYTHON, bisonsync, database, environment
from psycopg.conninfo import make_conninfo

from bisonsync.checks import NAMES, find_check
from bisonsync.checks.check import Look
from bisonsync.checks.limits import merge_limits
from bisonsync.clock import SystemClock
from bisonsync.settings.models import RETENTION, SCHEDULE
from bisonsync.store.db import Database
from bisonsync.store.health import read_now

WORKSPACES = 27
COUNT_ALL = (
    "import psycopg, sys\n"
    "with psycopg.connect(sys.argv[1]) as conn:\n"
    "    for table in ('sender_emails_cache', 'sender_email_daily', 'provider_performance_history', 'email_sync_logs',"
    " 'email_sync_log_workspaces', 'api_health_logs', 'workspace_sync_state'):\n"
    "        conn.execute(f'SELECT count(*) FROM {table}').fetchone()\n"
    "    conn.execute(\"SELECT count(*) FROM webhook_delivery_log WHERE received_at > now() - interval '24 hours'\")"
    ".fetchone()\n"
)
# The checks that look at the log of deliveries.
PARTS = ("webhook-silence", "webhook-success", "inbox")
DELIVERIES_A_DAY = 1_000_000


FILL = (
    """
    INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name)
    SELECT 'sim', w, 'Client ' || w FROM generate_series(1, %(workspaces)s) AS w
    """,
    """
    INSERT INTO bisonsync_private.workspace_tokens
        (bison_instance, bison_workspace_id, token, token_name, status, minted_at, verified_at)
    SELECT 'sim', w, 'x', 'x', 'valid', now(), now() FROM generate_series(1, %(workspaces)s) AS w
    """,
    """
    INSERT INTO sender_emails_cache (
        bison_instance, bison_workspace_id, bison_account_id, email_address, domain, emails_sent_count,
        unique_replied_count, bounced_count, status, daily_limit, email_provider, volume_per_account, price,
        bison_created_at, first_seen_at
    )
    SELECT
        'sim', 1 + a %% %(workspaces)s, a, 'a' || a || '@d' || a / 3 || '.example.com', 'd' || a / 3 || '.example.com',
        %(days)s * 40, %(days)s, %(days)s / 4, 'Connected', 40,
        (ARRAY['Google', 'Microsoft', 'Yahoo', 'Unknown'])[1 + a %% 4], 50, 3,
        now() - interval '200 days', now() - interval '100 days'
    FROM generate_series(1, %(accounts)s) AS a
    """,
    "SELECT bisonsync_private.make_daily_partitions(current_date - %(days)s, current_date + 40)",
    """
    INSERT INTO sender_email_daily (
        snapshot_date, bison_instance, bison_workspace_id, bison_account_id, emails_sent_count, unique_replied_count,
        bounced_count, email_provider, domain, is_connected, daily_limit, volume_per_account, price, created_on
    )
    SELECT
        current_date - %(days)s + d, bison_instance, bison_workspace_id, bison_account_id, d * 40, d, d / 4,
        email_provider, domain, true, 40, 50, 3, date '2026-01-01'
    FROM generate_series(0, %(days)s) AS d, sender_emails_cache
    """,
    """
    INSERT INTO workspace_snapshots (bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete)
    SELECT 'sim', w, current_date - %(days)s + d, 1, true
    FROM generate_series(1, %(workspaces)s) AS w, generate_series(0, %(days)s) AS d
    """,
    """
    INSERT INTO email_sync_logs (run_id, job, host, status, exit_code, started_at, finished_at, duration_ms)
    SELECT
        gen_random_uuid(), job, 'h', 'success', 0, now() - n * minutes * interval '1 minute',
        now() - n * minutes * interval '1 minute', 900
    FROM (VALUES ('poll-accounts', 3), ('health', 1)) AS v (job, minutes), generate_series(1, 30 * 1440 / minutes) AS n
    """,
    """
    INSERT INTO email_sync_log_workspaces
        (run_id, bison_instance, bison_workspace_id, resource, workspace_name, verdict, counts, committed_at)
    SELECT run_id, 'sim', w, 'accounts', 'Client ' || w, 'complete', '{"accounts_read": 185}', started_at
    FROM email_sync_logs, generate_series(1, %(workspaces)s) AS w
    WHERE job = 'poll-accounts'
    """,
    """
    INSERT INTO api_health_logs
        (run_id, bison_instance, endpoint, api_name, requests, response_time_ms, success, "timestamp")
    SELECT run_id, 'sim', e, 'emailbison', 350, 150, true, started_at
    FROM email_sync_logs, (VALUES ('GET /api/sender-emails'), ('GET /api/users')) AS v (e)
    WHERE job = 'poll-accounts'
    """,
    """
    INSERT INTO workspace_sync_state (
        bison_instance, bison_workspace_id, resource, last_attempt_at, last_complete_at, read_started_at, total,
        distinct_ids, verdict, last_run_id
    )
    SELECT
        'sim', w, 'accounts', now(), now(), now(), 185, 185, 'complete',
        (SELECT run_id FROM email_sync_logs WHERE job = 'poll-accounts' ORDER BY started_at DESC LIMIT 1)
    FROM generate_series(1, %(workspaces)s) AS w
    """,
    """
    INSERT INTO bisonsync_private.webhook_secrets (secret_sha256, bison_instance, bison_workspace_id, made_at)
    SELECT sha256(w::text::bytea), 'sim', w, now() - interval '90 days' FROM generate_series(1, %(workspaces)s) AS w
    """,
    """
    SELECT bisonsync_private.make_delivery_partitions(
        (now() AT TIME ZONE 'UTC')::date - %(deliveries)s / %(deliveries_a_day)s - 1,
        (now() AT TIME ZONE 'UTC')::date + 7
    )
    """,
    # One in 20,000 is dead; every fifth came twice.
    """
    INSERT INTO webhook_delivery_log (
        received_at, source, event_type, bison_instance, bison_workspace_id, hook_instance, hook_workspace_id,
        occurred_at, occurred_rule, payload, dedup_key, dedup_rule, status, success, attempts, error_message,
        processing_time_ms, processed_at, processor_version
    )
    SELECT
        t.at, 'receiver', 'email_sent', 'sim', 1 + n %% %(workspaces)s, 'sim', 1 + n %% %(workspaces)s,
        t.at, 'campaign_event.created_at', '{"event": {"type": "EMAIL_SENT"}, "data": {"campaign_event": {"id": 1}}}',
        'campaign_event:' || n, 'campaign_event.id', s.status, s.status <> 'dead', 1,
        CASE WHEN s.status = 'dead' THEN 'data is missing or no object' END, 1, t.at, 1
    FROM generate_series(1, %(deliveries)s) AS n
    CROSS JOIN LATERAL (
        SELECT now() - interval '20 minutes' - (%(deliveries)s - n) * interval '1 day' / %(deliveries_a_day)s AS at
    ) AS t
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n %% 20000 = 0 THEN 'dead' WHEN n %% 5 = 0 THEN 'duplicate' ELSE 'processed' END AS status
    ) AS s
    """,
    """
    INSERT INTO webhook_event_keys (
        bison_instance, bison_workspace_id, event_type, dedup_key, occurred_at, delivery_id, metric
    )
    SELECT
        'sim', 1 + n %% %(workspaces)s,
        (ARRAY['email_sent', 'lead_replied', 'email_opened', 'email_send_failed'])[1 + n %% 4],
        'campaign_event:' || n, now() - n * interval '1 day' / %(deliveries_a_day)s, n, 'emails_sent'
    FROM generate_series(1, %(deliveries)s / 10) AS n
    """,
    "VACUUM ANALYZE",
)


def fill(dsn: str, accounts: int, days: int, deliveries: int) -> None:
    """An agency that has been polled every 3 minutes for 30 days and snapshotted for ``days``."""
    values = {
        "workspaces": WORKSPACES,
        "accounts": accounts,
        "days": days,
        "deliveries": deliveries,
        "deliveries_a_day": DELIVERIES_A_DAY,
    }
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as conn:
        for statement in FILL:
            conn.execute(statement, values)


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    accounts, days, deliveries = [*given, *(5_000, 90, 10_000_000)[len(given) :]]
    with database() as dsn:
        env = environment(dsn)
        bisonsync(env, "migrate")
        fill(dsn, accounts, days, deliveries)
        columns: dict[str, list[float]] = {"health": [], "floor": []}
        for _ in range(6):
            for name, command in (
                ("health", [PYTHON, "-m", "bisonsync", "health", "--json"]),
                ("floor", [PYTHON, "-c", COUNT_ALL, dsn]),
            ):
                columns[name].append(timed(command, env))
        health, floor = (statistics.median(column[1:]) for column in columns.values())
        size = f"{accounts:,} accounts, {days} days, {deliveries:,} deliveries"
        print(f"health, {size}: {health:.2f} s; counting the same tables: {floor:.2f} s")
        spent = {name: server_seconds(dsn, name) for name in NAMES}
        print(f"of that the server computes for {sum(spent.values()):.2f} s: ", end="")
        print(", ".join(f"{name} {spent[name]:.2f} s" for name in PARTS))
        with psycopg.connect(one_process(dsn), autocommit=True) as conn:
            began = used(conn.info.backend_pid)
            conn.execute("SELECT * FROM webhook_health").fetchall()
            print(f"the view webhook_health: {used(conn.info.backend_pid) - began:.2f} s")


def server_seconds(dsn: str, name: str) -> float:
    """For how long the server computes for one check, whatever else the machine does."""
    database = Database(one_process(dsn), application_name="benchmark", clock=SystemClock(), max_connections=1)
    try:
        now, pid = database.run(lambda conn: (read_now(conn), conn.info.backend_pid))
        look = Look(
            database=database, now=now, host_now=now, limits=merge_limits(), schedule=SCHEDULE, retention_days=RETENTION
        )
        find_check(name).look(look)
        began = used(pid)
        find_check(name).look(look)
        return used(pid) - began
    finally:
        database.close()


def one_process(dsn: str) -> str:
    """The database without helpers whose work would not be seen."""
    return make_conninfo(dsn, options="-c max_parallel_workers_per_gather=0")


def used(pid: int) -> float:
    """The processor time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(command: list[str], env: dict[str, str]) -> float:
    """Run a command; stops at the first that says something of errors."""
    began = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.stderr:
        sys.exit(done.stderr)
    return seconds


if __name__ == "__main__":
    main()
