-- needs: delivery_partitions, dependents_of, is_settled, make_partition_table, stored_columns
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
    fat text := p_partition || '_fat';
    columns text := bisonsync_private.stored_columns('webhook_delivery_log');
    values_of text;
    assignments text;
    bounds text;
    oldest xid;
    stripped bigint;
    present bigint;
    changed bigint[];
    known bigint;
    kept bigint;
    attempt integer := 0;
BEGIN
    SELECT p.* INTO day FROM bisonsync_private.delivery_partitions() AS p WHERE p.partition = p_partition;
    IF NOT FOUND OR day.next_moment > now() - interval '1 day' THEN
        RAISE EXCEPTION '% is no day of webhook_delivery_log that is over', p_partition USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF EXISTS (SELECT FROM bisonsync_private.slim_deliveries AS s WHERE s.partition = p_partition)
        OR bisonsync_private.dependents_of(p_partition) IS NOT NULL
    THEN
        -- Some few were settled since; or somebody's view stands on it, so that no copy can take its place.
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
            -- Unlogged while it is filled: a publication of all tables would send its rows to subscribers, who have no
            -- such table and would stop at it.
            PERFORM bisonsync_private.make_partition_table(
                'webhook_delivery_log', slim, 'UNLOGGED', day.first_moment, day.next_moment
            );
            SELECT
                string_agg(v.value, ', ' ORDER BY v.attnum),
                string_agg(format('%I = %s', v.attname, v.value), ', ')
                    FILTER (WHERE v.attname NOT IN ('id', 'received_at') AND v.attidentity = '')
            INTO values_of, assignments
            FROM (
                SELECT
                    a.attnum,
                    a.attname,
                    a.attidentity,
                    CASE
                        WHEN a.attname IN ('payload', 'payload_raw')
                            THEN format('CASE WHEN NOT bisonsync_private.is_settled(l.status) THEN l.%I END', a.attname)
                        ELSE format('l.%I', a.attname)
                    END AS value
                FROM pg_attribute AS a
                WHERE
                    a.attrelid = 'public.webhook_delivery_log'::regclass
                    AND a.attnum > 0
                    AND NOT a.attisdropped
                    AND a.attgenerated = ''
            ) AS v;
            EXECUTE format('INSERT INTO public.%I (%s) SELECT %s FROM public.%I AS l', slim, columns, values_of, p_partition);
            GET DIAGNOSTICS stripped = ROW_COUNT;
            -- A crash empties what is unlogged. This writes it once more, now into the log, and sends it to nobody.
            EXECUTE format('ALTER TABLE public.%I SET LOGGED', slim);

            LOOP
                attempt := attempt + 1;
                BEGIN
                    -- Long enough for an autovacuum to give way; the receiver needs no lock on this day. Who changes stored
                    -- deliveries waits here, before it holds the table that we need in the end.
                    PERFORM set_config('lock_timeout', '1500ms', true);
                    PERFORM pg_advisory_xact_lock(hashtextextended('webhook_delivery_log days', 0));
                    EXECUTE format('LOCK TABLE public.%I IN SHARE MODE', p_partition);
                    EXECUTE format(
                        'SELECT count(*), coalesce(array_agg(l.id) FILTER (WHERE age(l.xmin) <= age(%L::xid)), ''{}'')'
                        ' FROM public.%I AS l',
                        oldest, p_partition
                    ) INTO present, changed;
                    EXECUTE format('SELECT count(*) FROM public.%I WHERE id = any($1)', slim) INTO known USING changed;
                    IF present <> stripped OR known <> cardinality(changed) OR known > 1000 THEN
                        -- Rows came or went, or are too many to be brought up to date while everybody waits.
                        EXECUTE format('DROP TABLE public.%I', slim);
                        RETURN NULL;
                    END IF;
                    -- Behind this one everybody waits, the receiver too: hardly at all, or it is tried again later.
                    PERFORM set_config('lock_timeout', '200ms', true);
                    SELECT pg_get_expr(c.relpartbound, c.oid) INTO bounds
                    FROM pg_class AS c
                    WHERE c.oid = to_regclass(format('public.%I', p_partition));
                    EXECUTE format('ALTER TABLE public.webhook_delivery_log DETACH PARTITION public.%I', p_partition);
                    EXECUTE format('ALTER TABLE public.%I RENAME TO %I', p_partition, fat);
                    EXECUTE format('ALTER TABLE public.%I RENAME TO %I', slim, p_partition);
                    EXECUTE format('ALTER TABLE public.webhook_delivery_log ATTACH PARTITION public.%I %s', p_partition, bounds);
                    EXIT;
                EXCEPTION
                    WHEN lock_not_available OR deadlock_detected THEN
                        IF attempt = 8 THEN
                            RAISE;
                        END IF;
                END;
                PERFORM pg_sleep(0.5);
            END LOOP;
            EXECUTE format('ALTER TABLE public.%I DROP CONSTRAINT within_bounds', p_partition);
            IF known > 0 THEN
                -- Only now, when it is the table that subscribers know: they have these values, and nothing is new to them.
                EXECUTE format(
                    'UPDATE public.%I AS s SET %s FROM public.%I AS l'
                    ' WHERE s.id = l.id AND s.received_at = l.received_at AND l.id = any($1)',
                    p_partition, assignments, fat
                ) USING changed;
            END IF;
            EXECUTE format('DROP TABLE public.%I', fat);
            EXECUTE format(
                'COMMENT ON TABLE public.%I IS %L',
                p_partition,
                'The deliveries received on ' || to_char(day.first_moment, 'YYYY-MM-DD') || ' (UTC), without payloads.'
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
    'Removes the payloads of the settled deliveries of a day that is long over, and gives their space back unless a view stands on it; returns how many deliveries are without now that were not, or null when so much of it changed meanwhile that it is left to the next run. For a fraction of a second nobody may write to that day, and for a few milliseconds nobody uses the table.';
