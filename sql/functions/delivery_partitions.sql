-- needs: partition_bounds
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
    SELECT b.partition, b.lower_bound, b.upper_bound
    FROM bisonsync_private.partition_bounds('webhook_delivery_log') AS b
    WHERE b.is_public AND NOT b.is_default
    ORDER BY b.lower_bound
$$;

COMMENT ON FUNCTION bisonsync_private.delivery_partitions() IS
    'The partitions of webhook_delivery_log but the default one, the oldest first: each holds what was received from first_moment until before next_moment. Not those that somebody moved to another schema.';
