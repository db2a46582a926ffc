-- name: has_access_rules
-- Whether the functions that know the access rules are there; locks nothing.
SELECT
    to_regprocedure('bisonsync_private.access_changes(jsonb)') IS NOT NULL
    AND to_regprocedure('bisonsync_private.refused_changes()') IS NOT NULL;

-- name: get_database_size
-- Bytes of the whole database on disk.
SELECT pg_database_size(current_database());

-- name: list_table_sizes
-- Our tables with their sizes and their dead rows, partitions one by one under the table they are part of; locks nothing.
WITH ours AS (
    SELECT DISTINCT c.oid, c.relnamespace, c.relname
    FROM bisonsync_private.access_list() AS l
    INNER JOIN pg_namespace AS n ON n.nspname = split_part(l.identity, '.', 1)
    INNER JOIN pg_class AS c
        ON c.relnamespace = n.oid AND c.relname = substr(l.identity, strpos(l.identity, '.') + 1)
    WHERE l.kind = 'TABLE' AND c.relkind = 'r'
)

SELECT
    o.relname::text AS name,
    coalesce(p.relname, o.relname)::text AS part_of,
    -- Null for a table that was dropped meanwhile.
    coalesce(pg_total_relation_size(o.oid), 0) AS bytes,
    coalesce(s.n_live_tup, 0) AS live_rows,
    coalesce(s.n_dead_tup, 0) AS dead_rows
FROM ours AS o
LEFT JOIN pg_inherits AS i ON i.inhrelid = o.oid
LEFT JOIN pg_class AS p ON p.oid = i.inhparent
LEFT JOIN pg_stat_user_tables AS s ON s.relid = o.oid
ORDER BY bytes DESC, name;

-- name: find_sizes_before
-- The sizes in MB of the database and of large tables as the last prune noted them, and when that was; locks nothing.
SELECT l.finished_at, l.counts
FROM email_sync_logs AS l
WHERE
    l.job = 'prune'
    AND l.counts ? 'database_mb'
    AND l.finished_at <= %(now)s::timestamptz
    AND l.started_at > %(now)s::timestamptz - interval '7 days'
ORDER BY l.started_at DESC
LIMIT 1;

-- name: list_days_missing
-- The days from that of a moment to the seventh after it (UTC) that have no partition of the inbox, or only for a part;
-- nothing where there is no inbox yet. Each is made a day before it must be there. Locks nothing.
SELECT DISTINCT m.lower_bound::date
FROM bisonsync_private.missing_partitions(
    'webhook_delivery_log',
    (%(now)s::timestamptz AT TIME ZONE 'UTC')::date,
    (%(now)s::timestamptz AT TIME ZONE 'UTC')::date + 7
) AS m
WHERE
    EXISTS (SELECT FROM bisonsync_private.delivery_partitions())
    OR EXISTS (SELECT FROM webhook_delivery_log)
ORDER BY 1;

-- name: list_partition_days
-- The partitions of sender_email_daily, the oldest first: from when to before when, how many days of retention each is
-- late for being dropped (negative: not due), and today; locks nothing.
SELECT
    p.partition AS name,
    p.first_day,
    p.next_day,
    (t.today - %(retention_days)s::integer) - p.next_day AS days_late,
    t.today
FROM (SELECT (%(now)s::timestamptz AT TIME ZONE %(timezone)s::text)::date AS today) AS t
CROSS JOIN (
    -- A partition without a bound is one of somebody else's making.
    SELECT
        d.partition,
        greatest(d.first_day, date '0001-01-01') AS first_day,
        least(d.next_day, date '9999-12-31') AS next_day
    FROM bisonsync_private.daily_partitions() AS d
) AS p
ORDER BY p.first_day;
