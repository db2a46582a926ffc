-- needs: daily_partitions, dependents_of
CREATE OR REPLACE FUNCTION bisonsync_private.drop_daily_partition(before date)
RETURNS TABLE (partition text, snapshots bigint)
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
    oldest record;
BEGIN
    -- A date from a wrong clock or a wrong setting: the trailing windows stand on these days.
    IF before IS NULL OR before > current_date - 60 THEN
        RAISE EXCEPTION 'days from % on are needed by the windows of 30 days and are not dropped', before
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT p.* INTO oldest
    FROM bisonsync_private.daily_partitions() AS p
    WHERE p.next_day <= before AND bisonsync_private.dependents_of(p.partition) IS NULL
    ORDER BY p.first_day
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Together: a day that is said to be recorded and has no rows would read as a day without mails.
    DELETE FROM public.workspace_snapshots AS s WHERE s.snapshot_date < oldest.next_day;
    GET DIAGNOSTICS snapshots = ROW_COUNT;
    EXECUTE format('DROP TABLE public.%I', oldest.partition);
    partition := oldest.partition;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bisonsync_private.drop_daily_partition(date) IS
    'Drops the oldest month of sender_email_daily all of whose days are before a day and on which nothing stands, and with it what workspace_snapshots says of days until its end; returns the name of the partition and how many rows of that, or nothing when there is none so old.';
