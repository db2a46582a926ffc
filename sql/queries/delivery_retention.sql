-- name: list_stray_days
-- The days before today (UTC), since a moment, of which deliveries lie in the default partition.
SELECT DISTINCT (l.received_at AT TIME ZONE 'UTC')::date AS day
FROM webhook_delivery_log_default AS l
WHERE
    l.received_at >= greatest(%(since)s::timestamptz, now() - interval '390 days')
    AND l.received_at < date_trunc('day', now(), 'UTC')
ORDER BY day;

-- name: list_fat_days
-- The partitions that ended before a moment in which settled deliveries have payloads, the oldest first: never made slim,
-- or with fewer unsettled ones than then; how many payloads that are, counted only if asked; and what stands on them.
-- Locks nothing.
SELECT
    p.partition AS name,
    CASE
        WHEN %(is_counted)s::boolean THEN (
            SELECT count(*)
            FROM webhook_delivery_log AS l
            WHERE
                l.received_at >= p.first_moment
                AND l.received_at < p.next_moment
                AND bisonsync_private.is_settled(l.status)
                AND (l.payload IS NOT NULL OR l.payload_raw IS NOT NULL)
        )
        ELSE 0
    END AS payloads,
    bisonsync_private.dependents_of(p.partition) AS dependents
FROM bisonsync_private.delivery_partitions() AS p
LEFT JOIN bisonsync_private.slim_deliveries AS s ON s.partition = p.partition
LEFT JOIN (
    SELECT o.tableoid, count(*) AS unsettled
    FROM webhook_delivery_log AS o
    WHERE o.status IN ('pending', 'failed', 'dead', 'unknown_workspace', 'mismatch')
    GROUP BY o.tableoid
) AS u ON u.tableoid = to_regclass('public.' || p.partition)
WHERE p.next_moment <= %(before)s::timestamptz AND (s.partition IS NULL OR coalesce(u.unsettled, 0) < s.unsettled)
ORDER BY p.first_moment;

-- name: slim_day
-- Removes the payloads of a day's settled deliveries; how many, or null when too much of it changed meanwhile. Locks the
-- partition, for a moment the whole table.
SELECT bisonsync_private.slim_delivery_partition(%(name)s::text);

-- name: list_old_days
-- The partitions that ended before a moment, the oldest first, how many deliveries in each are unsettled, and what stands
-- on it; locks nothing.
SELECT
    p.partition AS name,
    coalesce(u.unsettled, 0) AS unsettled,
    bisonsync_private.dependents_of(p.partition) AS dependents
FROM bisonsync_private.delivery_partitions() AS p
LEFT JOIN (
    SELECT o.tableoid, count(*) AS unsettled
    FROM webhook_delivery_log AS o
    WHERE o.status IN ('pending', 'failed', 'dead', 'unknown_workspace', 'mismatch')
    GROUP BY o.tableoid
) AS u ON u.tableoid = to_regclass('public.' || p.partition)
WHERE p.next_moment <= %(before)s::timestamptz
ORDER BY p.first_moment;

-- name: drop_day
-- Drops one of them; whether it is gone, and how many unsettled deliveries are kept. Locks the whole table for a moment.
SELECT d.is_dropped, d.kept
FROM bisonsync_private.drop_delivery_partition(
    %(name)s::text, %(before)s::timestamptz, %(most_kept)s::integer
) AS d;

-- name: count_old_deliveries
-- How many settled deliveries from before a moment lie in the default partition; locks nothing.
SELECT count(*)
FROM webhook_delivery_log_default AS l
WHERE l.received_at < %(before)s::timestamptz AND bisonsync_private.is_settled(l.status);

-- name: delete_old_deliveries
-- Deletes some of them, so many at most; how many.
WITH old AS MATERIALIZED (
    SELECT l.id, l.received_at
    FROM webhook_delivery_log_default AS l
    WHERE l.received_at < %(before)s::timestamptz AND bisonsync_private.is_settled(l.status)
    LIMIT %(limit)s::integer
    FOR UPDATE
),

gone AS (
    DELETE FROM webhook_delivery_log_default AS l
    USING old AS o
    WHERE l.id = o.id AND l.received_at = o.received_at
    RETURNING l.id
)

SELECT count(*)
FROM gone;

-- name: count_unsettled
-- How many deliveries from before a moment are not settled, by status; locks nothing.
SELECT l.status, count(*) AS deliveries
FROM webhook_delivery_log AS l
WHERE
    l.status IN ('pending', 'failed', 'dead', 'unknown_workspace', 'mismatch')
    AND l.received_at < %(before)s::timestamptz
GROUP BY l.status
ORDER BY deliveries DESC, l.status;

-- name: mark_keys_pruned
-- Notes that keys from before a moment may be gone, so that their months are folded no more.
UPDATE bisonsync_private.webhook_settings AS s
SET keys_pruned_before = %(before)s::timestamptz
WHERE
    (s.keys_pruned_before IS NULL OR s.keys_pruned_before < %(before)s::timestamptz)
    AND EXISTS (SELECT FROM webhook_event_keys AS k WHERE k.occurred_at < %(before)s::timestamptz);

-- name: count_keys
-- How many keys are of events from before a moment; locks nothing.
SELECT count(*)
FROM webhook_event_keys AS k
WHERE k.occurred_at < %(before)s::timestamptz;

-- name: get_key_pages
-- How many pages the keys have.
SELECT pg_relation_size('public.webhook_event_keys') / current_setting('block_size')::bigint;

-- name: delete_keys
-- Deletes those of them that lie in some pages; how many. There is no index by time: each page is read once.
WITH gone AS (
    DELETE FROM webhook_event_keys AS k
    WHERE
        k.ctid >= %(first)s::tid
        AND k.ctid < %(last)s::tid
        AND k.occurred_at < %(before)s::timestamptz
    RETURNING k.delivery_id
)

SELECT count(*)
FROM gone;
