-- needs: delivery_partitions, stored_columns
CREATE OR REPLACE FUNCTION bisonsync_private.drop_delivery_partition(p_partition text, p_before timestamptz, p_most_kept integer)
RETURNS TABLE (is_dropped boolean, kept bigint)
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
    attempt integer := 0;
BEGIN
    -- Beyond these an event is too old to be counted; what is younger may have to be told from its repetition.
    IF p_before IS NULL OR p_before > now() - interval '70 days' THEN
        RAISE EXCEPTION 'deliveries from % on are needed', p_before USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (
        SELECT FROM bisonsync_private.delivery_partitions() AS p WHERE p.partition = p_partition AND p.next_moment <= p_before
    ) THEN
        RAISE EXCEPTION '% is no day of webhook_delivery_log that is over before %', p_partition, p_before
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    LOOP
        attempt := attempt + 1;
        BEGIN
            -- Long enough for an autovacuum to give way; the receiver needs no lock on this day. Who changes stored
            -- deliveries waits here, before it holds the table that we need in the end.
            PERFORM set_config('lock_timeout', '1500ms', true);
            PERFORM pg_advisory_xact_lock(hashtextextended('webhook_delivery_log days', 0));
            EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', p_partition);
            EXECUTE format(
                'SELECT count(*) FROM public.%I'
                ' WHERE status IN (''pending'', ''failed'', ''dead'', ''unknown_workspace'', ''mismatch'')',
                p_partition
            ) INTO kept;
            is_dropped := kept <= p_most_kept;
            IF is_dropped AND kept > 0 THEN
                -- They leave the whole table and come back to it, which a subscriber of the table can follow.
                EXECUTE format('CREATE TEMPORARY TABLE moved_rows (LIKE public.%I)', p_partition);
                EXECUTE format(
                    'WITH gone AS ('
                    ' DELETE FROM public.%I'
                    ' WHERE status IN (''pending'', ''failed'', ''dead'', ''unknown_workspace'', ''mismatch'')'
                    ' RETURNING *'
                    ') INSERT INTO pg_temp.moved_rows SELECT * FROM gone',
                    p_partition
                );
            END IF;
            IF is_dropped THEN
                -- Behind this one everybody waits, the receiver too: hardly at all, or it is tried again later.
                PERFORM set_config('lock_timeout', '200ms', true);
                EXECUTE format('ALTER TABLE public.webhook_delivery_log DETACH PARTITION public.%I', p_partition);
            END IF;
            EXIT;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                IF attempt = 8 THEN
                    RAISE;
                END IF;
        END;
        PERFORM pg_sleep(0.5);
    END LOOP;
    IF is_dropped THEN
        IF kept > 0 THEN
            EXECUTE format(
                'INSERT INTO public.webhook_delivery_log (%s) OVERRIDING SYSTEM VALUE SELECT %1$s FROM pg_temp.moved_rows',
                bisonsync_private.stored_columns('webhook_delivery_log')
            );
            DROP TABLE pg_temp.moved_rows;
        END IF;
        EXECUTE format('DROP TABLE public.%I', p_partition);
        DELETE FROM bisonsync_private.slim_deliveries AS s WHERE s.partition = p_partition;
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bisonsync_private.drop_delivery_partition(text, timestamptz, integer) IS
    'Drops a day of webhook_delivery_log that is over before a moment. What is unsettled in it is kept, in the default partition; where that is more than p_most_kept, the day stays. Returns whether it is gone, and how many deliveries are kept.';
