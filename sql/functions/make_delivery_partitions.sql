-- needs: make_partition, missing_partitions
CREATE OR REPLACE FUNCTION bisonsync_private.make_delivery_partitions(first_day date, last_day date)
RETURNS SETOF text
LANGUAGE plpgsql
VOLATILE
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
DECLARE
    missing record;
BEGIN
    IF first_day < current_date - 400 OR last_day > current_date + 400 THEN
        RAISE EXCEPTION 'no partitions are made for % to %', first_day, last_day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Nearly always all are there, and nobody has to wait.
    IF NOT EXISTS (SELECT FROM bisonsync_private.missing_partitions('webhook_delivery_log', first_day, last_day)) THEN
        RETURN;
    END IF;
    -- Of two runs the second finds what the first has made.
    PERFORM pg_advisory_xact_lock(hashtextextended('webhook_delivery_log partitions', 0));
    FOR missing IN
        SELECT m.* FROM bisonsync_private.missing_partitions('webhook_delivery_log', first_day, last_day) AS m
    LOOP
        RETURN NEXT bisonsync_private.make_partition(
            'webhook_delivery_log', missing.partition, missing.lower_bound, missing.upper_bound,
            'The deliveries received on ' || to_char(missing.lower_bound, 'YYYY-MM-DD') || ' (UTC).'
        );
    END LOOP;
END
$$;

COMMENT ON FUNCTION bisonsync_private.make_delivery_partitions(date, date) IS
    'Makes those daily partitions of webhook_delivery_log that are missing between two days (UTC), moving in what came before they were made; returns the names of those made. A day that others cover is there; of one that others cover in part the rest is made.';
