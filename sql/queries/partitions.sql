-- name: has_rules
-- Whether the function that knows what is missing is there; locks nothing.
SELECT to_regprocedure('bisonsync_private.missing_partitions(text, date, date)') IS NOT NULL;

-- name: list_missing_days
-- What has no place in webhook_delivery_log from today until in eight days (UTC), and whether it has begun; locks nothing.
SELECT m.partition AS name, m.lower_bound::date AS on, m.lower_bound <= now() AS is_needed
FROM bisonsync_private.missing_partitions(
    'webhook_delivery_log', (now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + 8
) AS m;

-- name: list_days_by_name
-- The same before the first migration, of names alone.
SELECT d.name, d.on, d.on = (now() AT TIME ZONE 'UTC')::date AS is_needed
FROM (
    SELECT 'webhook_delivery_log_' || to_char(g, 'YYYY_MM_DD') AS name, g::date AS on
    FROM generate_series(now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC' + interval '8 days', interval '1 day') AS g
) AS d
WHERE to_regclass('public.' || d.name) IS NULL
ORDER BY d.on;

-- name: list_missing_months
-- What has no place in sender_email_daily between two days, and whether it begins on or before a third; locks nothing.
SELECT m.partition AS name, m.lower_bound::date AS on, m.lower_bound::date <= %(needed)s::date AS is_needed
FROM bisonsync_private.missing_partitions('sender_email_daily', %(first)s::date, %(last)s::date) AS m;

-- name: make_days
-- Makes what is missing in webhook_delivery_log between two days (UTC); the names of those made. Locks the default partition.
SELECT p.name
FROM bisonsync_private.make_delivery_partitions(%(first)s::date, %(last)s::date) AS p (name);

-- name: make_months
-- Makes what is missing in sender_email_daily between two days; the names of those made.
SELECT p.name
FROM bisonsync_private.make_daily_partitions(%(first)s::date, %(last)s::date) AS p (name);

-- name: has_default
-- Whether a table has a partition for what no other partition covers; locks nothing.
SELECT EXISTS (SELECT FROM bisonsync_private.partition_bounds(%(table)s::text) AS b WHERE b.is_default);
