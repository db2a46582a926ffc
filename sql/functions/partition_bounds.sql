CREATE OR REPLACE FUNCTION bisonsync_private.partition_bounds(p_table text)
RETURNS TABLE (partition text, is_public boolean, is_default boolean, lower_bound timestamptz, upper_bound timestamptz)
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
    SELECT
        b.partition,
        b.is_public,
        b.said = 'DEFAULT',
        CASE b.bounds[1] WHEN 'MINVALUE' THEN '-infinity' ELSE trim('''' FROM b.bounds[1])::timestamptz END,
        CASE b.bounds[2] WHEN 'MAXVALUE' THEN 'infinity' ELSE trim('''' FROM b.bounds[2])::timestamptz END
    FROM (
        SELECT
            c.relname::text AS partition,
            c.relnamespace = 'public'::regnamespace AS is_public,
            e.said,
            regexp_match(e.said, 'FROM \((MINVALUE|''[^'']+'')\) TO \((MAXVALUE|''[^'']+'')\)') AS bounds
        FROM pg_inherits AS i
        INNER JOIN pg_class AS c ON c.oid = i.inhrelid
        CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS e (said)
        WHERE i.inhparent = to_regclass(format('public.%I', p_table))
    ) AS b
    ORDER BY 4
$$;

COMMENT ON FUNCTION bisonsync_private.partition_bounds(text) IS
    'The partitions of a table that is partitioned by day or moment, the oldest first, whatever they are called: each holds what is from lower_bound until before upper_bound (a day begins at midnight UTC here), the default one what no other holds.';
