CREATE OR REPLACE FUNCTION bisonsync_private.delivery_partitions()
RETURNS TABLE (partition text, first_moment timestamptz, next_moment timestamptz)
LANGUAGE sql
STABLE
-- What the caller's session has set must not count.
SET search_path = pg_catalog, pg_temp
SET jit = off
SET datestyle = 'ISO, MDY'
SET intervalstyle = 'postgres'
SET timezone = 'UTC'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET array_nulls = on
SET standard_conforming_strings = on
SET transform_null_equals = off
SET quote_all_identifiers = off
AS $$
    SELECT b.partition, b.bounds[1]::timestamptz, b.bounds[2]::timestamptz
    FROM (
        SELECT
            c.relname::text AS partition,
            regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS bounds
        FROM pg_inherits AS i
        INNER JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass('public.webhook_delivery_log')
    ) AS b
    WHERE b.bounds IS NOT NULL
    ORDER BY b.bounds[1]::timestamptz
$$;

COMMENT ON FUNCTION bisonsync_private.delivery_partitions() IS
    'The partitions of webhook_delivery_log but the default one, the oldest first: each holds what was received from first_moment until before next_moment.';
