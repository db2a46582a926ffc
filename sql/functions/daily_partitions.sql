-- needs: partition_bounds
CREATE OR REPLACE FUNCTION bisonsync_private.daily_partitions()
RETURNS TABLE (partition text, first_day date, next_day date)
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
    SELECT b.partition, b.lower_bound::date, b.upper_bound::date
    FROM bisonsync_private.partition_bounds('sender_email_daily') AS b
    WHERE b.is_public AND NOT b.is_default
    ORDER BY b.lower_bound
$$;

COMMENT ON FUNCTION bisonsync_private.daily_partitions() IS
    'The partitions of sender_email_daily, the oldest first: each holds the days from first_day until the day before next_day. Not those that somebody moved to another schema.';
