-- needs: delivery_partitions, is_settled
CREATE OR REPLACE FUNCTION bisonsync_private.slim_delivery_partition(p_partition text)
RETURNS bigint
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
    day record;
    slim text := p_partition || '_slim';
    columns text;
    values_of text;
    oldest xid;
    stripped bigint;
    grantee text;
    changed bigint[];
    kept bigint;
    attempt integer := 0;
BEGIN
    SELECT p.* INTO day FROM bisonsync_private.delivery_partitions() AS p WHERE p.partition = p_partition;
    IF NOT FOUND OR day.next_moment > now() - interval '1 day' THEN
        RAISE EXCEPTION '% is no day of webhook_delivery_log that is over', p_partition USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF EXISTS (SELECT FROM bisonsync_private.slim_deliveries AS s WHERE s.partition = p_partition) THEN
        -- Some few were settled since.
        EXECUTE format(
            'UPDATE public.%I SET payload = NULL, payload_raw = NULL'
            ' WHERE bisonsync_private.is_settled(status) AND (payload IS NOT NULL OR payload_raw IS NOT NULL)',
            p_partition
        );
        GET DIAGNOSTICS stripped = ROW_COUNT;
    ELSE
        EXECUTE format(
            'SELECT count(*) FROM (SELECT FROM public.%I'
            ' WHERE bisonsync_private.is_settled(status) AND (payload IS NOT NULL OR payload_raw IS NOT NULL) LIMIT 1) AS f',
            p_partition
        ) INTO stripped;
        IF stripped > 0 THEN
            -- A copy without payloads takes the partition's place: the space of them is given back at once, and for nearly
            -- all of the time nobody is kept from anything. What changes while it is copied is found by its xmin.
            oldest := pg_snapshot_xmin(pg_current_snapshot())::xid;
            EXECUTE format(
                'CREATE TABLE public.%I (LIKE public.webhook_delivery_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
                ' INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS,'
                ' CONSTRAINT received_on_day CHECK (received_at >= %L AND received_at < %L))',
                slim, day.first_moment, day.next_moment
            );
            EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', slim);
            FOR grantee IN
                SELECT 'PUBLIC'
                UNION ALL
                SELECT quote_ident(r.rolname) FROM pg_roles AS r WHERE r.rolname IN ('anon', 'authenticated', 'service_role')
            LOOP
                EXECUTE format('REVOKE ALL ON public.%I FROM %s', slim, grantee);
            END LOOP;
            SELECT
                string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
                string_agg(
                    CASE
                        WHEN a.attname IN ('payload', 'payload_raw')
                            THEN format('CASE WHEN NOT bisonsync_private.is_settled(l.status) THEN l.%I END', a.attname)
                        ELSE format('l.%I', a.attname)
                    END,
                    ', ' ORDER BY a.attnum
                )
            INTO columns, values_of
            FROM pg_attribute AS a
            WHERE a.attrelid = 'public.webhook_delivery_log'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
            EXECUTE format('INSERT INTO public.%I (%s) SELECT %s FROM public.%I AS l', slim, columns, values_of, p_partition);
            GET DIAGNOSTICS stripped = ROW_COUNT;

            LOOP
                attempt := attempt + 1;
                BEGIN
                    -- Long enough for an autovacuum to give way; the receiver needs no lock on this day. Who changes stored
                    -- deliveries waits here, before it holds the table that we need in the end.
                    PERFORM set_config('lock_timeout', '1500ms', true);
                    PERFORM pg_advisory_xact_lock(hashtextextended('webhook_delivery_log days', 0));
                    EXECUTE format('LOCK TABLE public.%I IN SHARE MODE', p_partition);
                    EXECUTE format(
                        'SELECT array_agg(l.id) FROM public.%I AS l WHERE age(l.xmin) <= age(%L::xid)', p_partition, oldest
                    ) INTO changed;
                    IF changed IS NOT NULL THEN
                        EXECUTE format('DELETE FROM public.%I AS l WHERE l.id = any($1)', slim) USING changed;
                        EXECUTE format(
                            'INSERT INTO public.%I (%s) SELECT %s FROM public.%I AS l WHERE l.id = any($1)',
                            slim, columns, values_of, p_partition
                        ) USING changed;
                    END IF;
                    -- Behind this one everybody waits, the receiver too: hardly at all, or it is tried again later.
                    PERFORM set_config('lock_timeout', '200ms', true);
                    EXECUTE format('ALTER TABLE public.webhook_delivery_log DETACH PARTITION public.%I', p_partition);
                    EXIT;
                EXCEPTION
                    WHEN lock_not_available OR deadlock_detected THEN
                        IF attempt = 8 THEN
                            RAISE;
                        END IF;
                END;
                PERFORM pg_sleep(0.5);
            END LOOP;
            EXECUTE format('DROP TABLE public.%I', p_partition);
            EXECUTE format('ALTER TABLE public.%I RENAME TO %I', slim, p_partition);
            EXECUTE format(
                'ALTER TABLE public.webhook_delivery_log ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                p_partition, day.first_moment, day.next_moment
            );
            EXECUTE format('ALTER TABLE public.%I DROP CONSTRAINT received_on_day', p_partition);
            EXECUTE format(
                'COMMENT ON TABLE public.%I IS %L',
                p_partition,
                'The deliveries received on ' || (day.first_moment AT TIME ZONE 'UTC')::date || ' (UTC), without payloads.'
            );
        END IF;
    END IF;

    EXECUTE format(
        'SELECT count(*) FROM public.%I'
        ' WHERE status IN (''pending'', ''failed'', ''dead'', ''unknown_workspace'', ''mismatch'')',
        p_partition
    ) INTO kept;
    INSERT INTO bisonsync_private.slim_deliveries (partition, unsettled)
    VALUES (p_partition, kept)
    ON CONFLICT (partition) DO UPDATE SET slimmed_at = now(), unsettled = excluded.unsettled;
    RETURN CASE WHEN attempt > 0 THEN stripped - kept ELSE stripped END;
END
$$;

COMMENT ON FUNCTION bisonsync_private.slim_delivery_partition(text) IS
    'Removes the payloads of the settled deliveries of a day that is long over, and gives their space back; returns how many deliveries are without now that were not. For a fraction of a second nobody may write to that day, and for a few milliseconds nobody uses the table.';
