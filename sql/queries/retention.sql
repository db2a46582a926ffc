-- name: get_clock
-- The database's time, and which day it is in the reporting zone then or at a given moment.
SELECT
    now() AS database_now,
    coalesce(%(as_of)s::timestamptz, now()) AS as_of,
    (coalesce(%(as_of)s::timestamptz, now()) AT TIME ZONE %(timezone)s::text)::date AS today;

-- name: list_runs_to_keep
-- Old runs that stay: of each job the newest of each status, and the newest three that ended, by which failures in a row
-- are seen; of a job that is run instance by instance those of each. Locks nothing.
SELECT r.run_id
FROM (
    SELECT
        l.run_id,
        l.started_at,
        l.status,
        row_number() OVER (PARTITION BY l.job, l.covers, l.status ORDER BY l.started_at DESC) AS nth_of_status,
        row_number() OVER (
            PARTITION BY l.job, l.covers, l.status IN ('running', 'skipped') ORDER BY l.started_at DESC
        ) AS nth_ended
    FROM email_sync_logs AS l
) AS r
WHERE
    r.started_at < %(before)s::timestamptz
    AND (r.nth_of_status = 1 OR (r.nth_ended <= 3 AND r.status NOT IN ('running', 'skipped')));

-- name: count_runs
-- How many runs began before a moment and may go, and how many rows of workspaces with them; locks nothing.
SELECT count(*) AS rows, coalesce(sum(w.parts), 0)::bigint AS parts
FROM email_sync_logs AS l
CROSS JOIN LATERAL (SELECT count(*) AS parts FROM email_sync_log_workspaces AS p WHERE p.run_id = l.run_id) AS w
WHERE
    l.started_at < %(before)s::timestamptz AND l.status <> 'running' AND NOT l.run_id = ANY(%(keep)s::uuid[]);

-- name: delete_runs
-- Deletes the oldest of them with their workspaces, so many at most.
WITH old AS MATERIALIZED (
    SELECT l.run_id
    FROM email_sync_logs AS l
    WHERE
        l.started_at < %(before)s::timestamptz AND l.status <> 'running' AND NOT l.run_id = ANY(%(keep)s::uuid[])
    ORDER BY l.started_at
    LIMIT %(limit)s::integer
    FOR UPDATE
),

gone AS (
    DELETE FROM email_sync_logs AS l
    USING old AS o
    WHERE l.run_id = o.run_id
    RETURNING l.run_id
)

SELECT
    (SELECT count(*) FROM gone) AS rows,
    (SELECT count(*) FROM email_sync_log_workspaces AS p WHERE p.run_id IN (SELECT o.run_id FROM old AS o)) AS parts;

-- name: count_api_health
-- How many entries are from before a moment; locks nothing.
SELECT count(*) AS rows, 0 AS parts
FROM api_health_logs
WHERE "timestamp" < %(before)s::timestamptz;

-- name: delete_api_health
-- Deletes the oldest of them, so many at most.
WITH old AS MATERIALIZED (
    SELECT a.id
    FROM api_health_logs AS a
    WHERE a."timestamp" < %(before)s::timestamptz
    ORDER BY a.id
    LIMIT %(limit)s::integer
    FOR UPDATE
),

gone AS (
    DELETE FROM api_health_logs AS a
    USING old AS o
    WHERE a.id = o.id
    RETURNING a.id
)

SELECT count(*) AS rows, 0 AS parts
FROM gone;

-- name: count_validation_errors
-- How many faults were resolved before a moment; locks nothing.
SELECT count(*) AS rows, 0 AS parts
FROM data_validation_errors
WHERE resolved_at < %(before)s::timestamptz;

-- name: delete_validation_errors
-- Deletes the oldest of them, so many at most; an open fault never.
WITH old AS MATERIALIZED (
    SELECT e.id
    FROM data_validation_errors AS e
    WHERE e.resolved_at < %(before)s::timestamptz
    ORDER BY e.id
    LIMIT %(limit)s::integer
    FOR UPDATE
),

gone AS (
    DELETE FROM data_validation_errors AS e
    USING old AS o
    WHERE e.id = o.id
    RETURNING e.id
)

SELECT count(*) AS rows, 0 AS parts
FROM gone;

-- name: count_history
-- How many rows of provider_performance_history are of days before one; locks nothing.
SELECT count(*) AS rows, 0 AS parts
FROM provider_performance_history
WHERE snapshot_date < %(before)s::date;

-- name: delete_history
-- Deletes the oldest of them, so many at most.
WITH old AS MATERIALIZED (
    SELECT h.bison_instance, h.email_provider, h.snapshot_date
    FROM provider_performance_history AS h
    WHERE h.snapshot_date < %(before)s::date
    ORDER BY h.snapshot_date, h.bison_instance, h.email_provider
    LIMIT %(limit)s::integer
    FOR UPDATE
),

gone AS (
    DELETE FROM provider_performance_history AS h
    USING old AS o
    WHERE
        h.bison_instance = o.bison_instance
        AND h.email_provider = o.email_provider
        AND h.snapshot_date = o.snapshot_date
    RETURNING h.snapshot_date
)

SELECT count(*) AS rows, 0 AS parts
FROM gone;

-- name: count_episodes
-- How many episodes were over before a moment, everything about them told, and the messages about them; locks nothing.
SELECT count(*) AS rows, coalesce(sum(m.parts), 0)::bigint AS parts
FROM alert_episodes AS e
CROSS JOIN LATERAL (
    SELECT count(*) AS parts, count(*) FILTER (WHERE a.delivered_at IS NULL AND a.dropped_at IS NULL) AS waiting
    FROM alert_messages AS a
    WHERE a.episode_id = e.id
) AS m
WHERE e.closed_at < %(before)s::timestamptz AND m.waiting = 0;

-- name: delete_episodes
-- Deletes the oldest of them with their messages, so many at most.
WITH old AS MATERIALIZED (
    SELECT e.id
    FROM alert_episodes AS e
    WHERE
        e.closed_at < %(before)s::timestamptz
        AND NOT EXISTS (
            SELECT FROM alert_messages AS a
            WHERE a.episode_id = e.id AND a.delivered_at IS NULL AND a.dropped_at IS NULL
        )
    ORDER BY e.id
    LIMIT %(limit)s::integer
    FOR UPDATE
),

gone AS (
    DELETE FROM alert_episodes AS e
    USING old AS o
    WHERE e.id = o.id
    RETURNING e.id
)

SELECT
    (SELECT count(*) FROM gone) AS rows,
    (SELECT count(*) FROM alert_messages AS a WHERE a.episode_id IN (SELECT o.id FROM old AS o)) AS parts;

-- name: count_snapshots
-- How many rows of workspace_snapshots are of days before one; locks nothing.
SELECT count(*) AS rows, 0 AS parts
FROM workspace_snapshots
WHERE snapshot_date < %(before)s::date;

-- name: delete_snapshots
-- Deletes what workspace_snapshots says of days before one, so many rows at most.
WITH old AS MATERIALIZED (
    SELECT s.bison_instance, s.bison_workspace_id, s.snapshot_date
    FROM workspace_snapshots AS s
    WHERE s.snapshot_date < %(before)s::date
    ORDER BY s.snapshot_date, s.bison_instance, s.bison_workspace_id
    LIMIT %(limit)s::integer
    FOR UPDATE
),

gone AS (
    DELETE FROM workspace_snapshots AS s
    USING old AS o
    WHERE
        s.bison_instance = o.bison_instance
        AND s.bison_workspace_id = o.bison_workspace_id
        AND s.snapshot_date = o.snapshot_date
    RETURNING s.snapshot_date
)

SELECT count(*) AS rows, 0 AS parts
FROM gone;

-- name: list_months_before
-- The partitions of sender_email_daily all of whose days are before one, and what stands on them; locks nothing.
SELECT p.partition AS name, bisonsync_private.dependents_of(p.partition) AS dependents
FROM bisonsync_private.daily_partitions() AS p
WHERE p.next_day <= %(before)s::date
ORDER BY p.first_day;

-- name: drop_month
-- Drops the oldest of them on which nothing stands, with what workspace_snapshots says of its days; its name and how many
-- rows that were, or no row when there is none. Locks the history.
SELECT d.partition AS name, d.snapshots
FROM bisonsync_private.drop_daily_partition(%(before)s::date) AS d;

-- name: flush_statistics
-- Lets what this session changed be counted when its transaction ends: counted after a VACUUM, it would be dead for ever.
SELECT pg_stat_force_next_flush();

-- name: spell_vacuums
-- For each table that lost more than 10,000 rows, or more than a tenth of its rows and more than a hundred, by what was
-- just deleted or by what is dead in it, the statement that tidies it up; that passes over a locked table. Locks nothing.
SELECT
    t.name AS table_name,
    format('VACUUM (SKIP_LOCKED, ANALYZE) public.%%I', t.name) AS statement
FROM (
    SELECT
        c.relname::text AS name,
        greatest(coalesce(s.n_dead_tup, 0), coalesce(d.deleted, 0)) AS gone,
        greatest(coalesce(s.n_live_tup, 0), c.reltuples::bigint, 0) AS present
    FROM (
        SELECT DISTINCT l.identity FROM bisonsync_private.access_list() AS l WHERE l.kind = 'TABLE'
    ) AS l
    INNER JOIN pg_class AS c
        ON c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND 'public.' || c.relname = l.identity
    LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid
    LEFT JOIN unnest(%(tables)s::text[], %(deleted)s::bigint[]) AS d (name, deleted) ON d.name = c.relname
) AS t
WHERE t.gone > 10000 OR (t.gone > 100 AND t.gone * 10 > t.present)
ORDER BY t.name;
