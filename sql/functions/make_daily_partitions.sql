-- needs: make_partition, missing_partitions
CREATE OR REPLACE FUNCTION bisonsync_private.make_daily_partitions(first_day date, last_day date)
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
    -- Months from before the earliest mail there can be, or far ahead, come from a wrong clock.
    IF first_day < date '2000-01-01' OR last_day > current_date + 400 THEN
        RAISE EXCEPTION 'no partitions are made for % to %', first_day, last_day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Nearly always all are there, and nobody has to wait.
    IF NOT EXISTS (SELECT FROM bisonsync_private.missing_partitions('sender_email_daily', first_day, last_day)) THEN
        RETURN;
    END IF;
    -- Of two runs the second finds what the first has made.
    PERFORM pg_advisory_xact_lock(hashtextextended('sender_email_daily partitions', 0));
    FOR missing IN
        SELECT m.* FROM bisonsync_private.missing_partitions('sender_email_daily', first_day, last_day) AS m
    LOOP
        RETURN NEXT bisonsync_private.make_partition(
            'sender_email_daily', missing.partition, missing.lower_bound, missing.upper_bound,
            'The days of ' || to_char(missing.lower_bound, 'YYYY-MM') || ' of sender_email_daily.'
        );
    END LOOP;
END
$$;

COMMENT ON FUNCTION bisonsync_private.make_daily_partitions(date, date) IS
    'Makes those monthly partitions of sender_email_daily that are missing between two days; returns the names of those made. A month that others cover is there; of one that others cover in part the rest is made.';
