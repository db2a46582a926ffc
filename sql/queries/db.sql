-- name: pin_settings
-- Sets for this transaction alone what its statements rely on, so that nothing counts that the role, the database, the
-- environment or a pooler's last client has set: names, texts of dates and numbers, parsing, no JIT compiler (which takes
-- longer than any statement here saves), no limits but ours (in milliseconds). What a hosting guards by (read only) and
-- what an administrator tunes (memory, costs, durability) stays. Returns by which process id the server knows us.
SELECT
    pg_catalog.pg_backend_pid(),
    pg_catalog.set_config('search_path', 'public, pg_temp', true),
    pg_catalog.set_config('statement_timeout', %(statement)s::text, true),
    pg_catalog.set_config('lock_timeout', %(lock)s::text, true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', %(idle)s::text, true),
    CASE
        -- A server that cannot see a client go, as on Windows, takes nothing but 0.
        WHEN pg_catalog.version() !~* 'windows|mingw|msvc|visual'
            THEN pg_catalog.set_config('client_connection_check_interval', '2000', true)
    END,
    CASE
        -- It came with PostgreSQL 17.
        WHEN pg_catalog.current_setting('transaction_timeout', true) <> '0'
            THEN pg_catalog.set_config('transaction_timeout', '0', true)
    END,
    CASE
        -- It came with PostgreSQL 15.8.
        WHEN pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) <> ''
            THEN pg_catalog.set_config('restrict_nonsystem_relation_kind', '', true)
    END,
    CASE
        -- Spelled out, the database's own is refused for partitioned tables; another one is the administrator's choice.
        WHEN pg_catalog.current_setting('default_tablespace') = '' THEN NULL
        WHEN pg_catalog.current_setting('default_tablespace') = (
            SELECT t.spcname
            FROM pg_catalog.pg_database AS d
            INNER JOIN pg_catalog.pg_tablespace AS t ON t.oid = d.dattablespace
            WHERE d.datname = pg_catalog.current_database()
        )
            THEN pg_catalog.set_config('default_tablespace', '', true)
    END,
    -- On, it ends the session at the first error, also one that a function or a savepoint deals with.
    pg_catalog.set_config('exit_on_error', 'off', true),
    pg_catalog.set_config('jit', 'off', true),
    pg_catalog.set_config('client_encoding', 'UTF8', true),
    pg_catalog.set_config('DateStyle', 'ISO, MDY', true),
    pg_catalog.set_config('IntervalStyle', 'postgres', true),
    pg_catalog.set_config('TimeZone', 'UTC', true),
    pg_catalog.set_config('extra_float_digits', '1', true),
    pg_catalog.set_config('bytea_output', 'hex', true),
    pg_catalog.set_config('array_nulls', 'on', true),
    pg_catalog.set_config('backslash_quote', 'safe_encoding', true),
    pg_catalog.set_config('standard_conforming_strings', 'on', true),
    pg_catalog.set_config('transform_null_equals', 'off', true),
    pg_catalog.set_config('quote_all_identifiers', 'off', true),
    pg_catalog.set_config('row_security', 'on', true);

-- name: find_blockers
-- The sessions for which another one waits at this moment. The name that one gives itself may be another's: a pooler
-- leaves it to clients that give none. Hidden is what only the same role or pg_read_all_stats may see. Locks nothing, and
-- spells schemas out, for it runs outside our transactions.
SELECT
    b.pid,
    coalesce(a.usename::pg_catalog.text, a.backend_type) AS user_name,
    nullif(a.application_name, '') AS application,
    CASE WHEN a.client_port = -1 THEN 'the local socket' ELSE pg_catalog.host(a.client_addr) END AS address,
    a.state,
    pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since,
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint AS seconds,
    a.pid IS NOT NULL AND a.backend_start IS NULL AS is_hidden
FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(%(backend_pid)s::integer)) AS b (pid)
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
ORDER BY seconds DESC NULLS LAST
LIMIT 3;

-- name: join_by_hashing
-- For this transaction alone: join sets by hashing or sorting. Before a table's first ANALYZE the planner expects one row
-- of a workspace, and a nested loop over its thousands would take hours.
SELECT set_config('enable_nestloop', 'off', true);
