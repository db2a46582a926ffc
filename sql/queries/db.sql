-- name: set_local_timeouts
-- Time limits in milliseconds for this transaction alone, which a pooler's next client does not inherit; and by which
-- process id the server knows it.
SELECT
    pg_backend_pid(),
    set_config('statement_timeout', %(statement)s::text, true),
    set_config('lock_timeout', %(lock)s::text, true),
    set_config('idle_in_transaction_session_timeout', %(idle)s::text, true);

-- name: find_blockers
-- The sessions for which another one waits at this moment; locks nothing.
SELECT
    b.pid,
    a.application_name,
    a.state,
    extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds
FROM unnest(pg_blocking_pids(%(backend_pid)s::integer)) AS b (pid)
LEFT JOIN pg_stat_activity AS a ON a.pid = b.pid
ORDER BY seconds DESC NULLS LAST
LIMIT 3;
