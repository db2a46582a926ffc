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
    month date;
    partition text;
    grantee text;
BEGIN
    -- Months from before the earliest mail there can be, or far ahead, come from a wrong clock.
    IF first_day < date '2000-01-01' OR last_day > current_date + 400 THEN
        RAISE EXCEPTION 'no partitions are made for % to %', first_day, last_day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Of two runs at the beginning of a month the second finds what the first has made.
    PERFORM pg_advisory_xact_lock(hashtextextended('sender_email_daily partitions', 0));
    FOR month IN
        SELECT g::date
        FROM generate_series(date_trunc('month', first_day::timestamp), date_trunc('month', last_day::timestamp), interval '1 month') AS g
    LOOP
        partition := 'sender_email_daily_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass('public.' || partition) IS NOT NULL;
        -- Attached rather than made in its place: that blocks neither readers nor writers of the other months.
        EXECUTE format(
            'CREATE TABLE public.%I (LIKE public.sender_email_daily INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES'
            ' INCLUDING COMMENTS, CONSTRAINT snapshot_date_of_month CHECK (snapshot_date >= %L AND snapshot_date < %L))',
            partition, month, (month + interval '1 month')::date
        );
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition);
        EXECUTE format('COMMENT ON TABLE public.%I IS %L', partition, 'The days of ' || to_char(month, 'YYYY-MM') || ' of sender_email_daily.');
        FOR grantee IN
            SELECT 'PUBLIC'
            UNION ALL
            SELECT quote_ident(r.rolname) FROM pg_roles AS r WHERE r.rolname IN ('anon', 'authenticated', 'service_role')
        LOOP
            -- Readers and writers go through the whole table, whose rights they have.
            EXECUTE format('REVOKE ALL ON public.%I FROM %s', partition, grantee);
        END LOOP;
        EXECUTE format(
            'ALTER TABLE public.sender_email_daily ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            partition, month, (month + interval '1 month')::date
        );
        EXECUTE format('ALTER TABLE public.%I DROP CONSTRAINT snapshot_date_of_month', partition);
        RETURN NEXT partition;
    END LOOP;
END
$$;

COMMENT ON FUNCTION bisonsync_private.make_daily_partitions(date, date) IS
    'Makes those monthly partitions of sender_email_daily that are missing between two days; returns the names of those made.';
