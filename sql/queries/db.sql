-- name: set_local_timeouts
-- Time limits in milliseconds for this transaction alone; a pooler's next client does not inherit them.
SELECT
    set_config('statement_timeout', %(statement)s::text, true),
    set_config('lock_timeout', %(lock)s::text, true),
    set_config('idle_in_transaction_session_timeout', %(idle)s::text, true);

-- name: find_blockers
-- Sessions that hold strong locks on our tables, the oldest transaction first; locks nothing.
SELECT DISTINCT
    a.pid,
    a.application_name,
    a.state,
    extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds
FROM pg_locks AS l
INNER JOIN pg_stat_activity AS a ON a.pid = l.pid
INNER JOIN pg_class AS c ON c.oid = l.relation
WHERE
    l.granted
    AND a.pid <> pg_backend_pid()
    AND a.xact_start < clock_timestamp() - interval '1 second'
    AND c.relnamespace IN ('public'::regnamespace, to_regnamespace('bisonsync_private'))
    AND l.mode NOT IN ('AccessShareLock')
ORDER BY seconds DESC
LIMIT 3;
