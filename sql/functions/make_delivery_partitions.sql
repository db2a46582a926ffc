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
    day date;
    partition text;
    grantee text;
BEGIN
    IF first_day < current_date - 400 OR last_day > current_date + 400 THEN
        RAISE EXCEPTION 'no partitions are made for % to %', first_day, last_day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Nearly always all are there, and nobody has to wait.
    IF NOT EXISTS (
        SELECT
        FROM generate_series(first_day::timestamp, last_day::timestamp, interval '1 day') AS g (day)
        WHERE to_regclass('public.webhook_delivery_log_' || to_char(g.day, 'YYYY_MM_DD')) IS NULL
    ) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('webhook_delivery_log partitions', 0));
    FOR day IN
        SELECT g.day::date FROM generate_series(first_day::timestamp, last_day::timestamp, interval '1 day') AS g (day)
    LOOP
        partition := 'webhook_delivery_log_' || to_char(day, 'YYYY_MM_DD');
        CONTINUE WHEN to_regclass('public.' || partition) IS NOT NULL;
        -- Attached rather than made in its place: that blocks neither readers nor writers of the other days.
        EXECUTE format(
            'CREATE TABLE public.%I (LIKE public.webhook_delivery_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES'
            ' INCLUDING COMMENTS, CONSTRAINT received_on_day CHECK (received_at >= %L AND received_at < %L))',
            partition, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
        );
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition);
        EXECUTE format('COMMENT ON TABLE public.%I IS %L', partition, 'The deliveries received on ' || day || ' (UTC).');
        FOR grantee IN
            SELECT 'PUBLIC'
            UNION ALL
            SELECT quote_ident(r.rolname) FROM pg_roles AS r WHERE r.rolname IN ('anon', 'authenticated', 'service_role')
        LOOP
            EXECUTE format('REVOKE ALL ON public.%I FROM %s', partition, grantee);
        END LOOP;
        -- Nobody may put more of that day there between the look and the attaching, which would refuse it.
        LOCK TABLE public.webhook_delivery_log_default IN ACCESS EXCLUSIVE MODE;
        -- What came on that day already, while there was no place for it.
        IF EXISTS (
            SELECT
            FROM public.webhook_delivery_log_default AS l
            WHERE l.received_at >= day::timestamp AT TIME ZONE 'UTC' AND l.received_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
        ) THEN
            EXECUTE format(
                'WITH moved AS (DELETE FROM public.webhook_delivery_log_default WHERE received_at >= %L AND received_at < %L RETURNING *)'
                ' INSERT INTO public.%I SELECT * FROM moved',
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC', partition
            );
        END IF;
        EXECUTE format(
            'ALTER TABLE public.webhook_delivery_log ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            partition, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
        );
        EXECUTE format('ALTER TABLE public.%I DROP CONSTRAINT received_on_day', partition);
        RETURN NEXT partition;
    END LOOP;
END
$$;

COMMENT ON FUNCTION bisonsync_private.make_delivery_partitions(date, date) IS
    'Makes those daily partitions of webhook_delivery_log that are missing between two days (UTC), moving in what came before they were made; returns the names of those made.';
