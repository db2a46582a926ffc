-- needs: apply_events, processor_version, retry_delay, delivery_success, is_settled, strip_deep_bodies
CREATE OR REPLACE FUNCTION bisonsync_private.process_deliveries(p_ids bigint[], p_received_ats timestamptz[])
RETURNS TABLE (
    id bigint,
    received_at timestamptz,
    status text,
    event_type text,
    bison_instance text,
    bison_workspace_id bigint,
    error_message text
)
LANGUAGE plpgsql
VOLATILE
-- Found by their keys, whatever the statistics say; and planned once, for planning takes longer than a lone delivery.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
-- Up to PostgreSQL 17 a forbidden plan costs 1e10, which would have each statement compiled.
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    ids bigint[];
    received_ats timestamptz[];
    sources text[];
    hook_instances text[];
    hook_workspace_ids bigint[];
    forced_verdicts text[];
    payloads jsonb[];
    store_bodies boolean;
    began_at timestamptz := clock_timestamp();
    one integer;
    reason text;
BEGIN
    -- Before any lock on the table: prune holds this one while a slim copy of a day takes the day's place.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('webhook_delivery_log days', 0));
    SELECT
        array_agg(l.id), array_agg(l.received_at), array_agg(l.source),
        -- A name alone told whose it is: it stays so when the workspace is renamed, or another gets its name.
        array_agg(
            CASE WHEN l.source = 'legacy' AND l.dedup_key IS NOT NULL THEN l.bison_instance ELSE l.hook_instance END
        ),
        array_agg(
            CASE
                WHEN l.source = 'legacy' AND l.dedup_key IS NOT NULL THEN l.bison_workspace_id ELSE l.hook_workspace_id
            END
        ),
        -- Of whose address it came to nothing is known any more: nobody can tell that it is that one's.
        array_agg(CASE WHEN l.status = 'mismatch' AND l.hook_instance IS NULL THEN 'mismatch' END),
        array_agg(l.payload)
    INTO ids, received_ats, sources, hook_instances, hook_workspace_ids, forced_verdicts, payloads
    FROM (
        SELECT d.*
        FROM unnest(p_ids, p_received_ats) AS c (id, received_at)
        INNER JOIN public.webhook_delivery_log AS d ON d.id = c.id AND d.received_at = c.received_at
        -- A test is nobody's event. Ignored by no version of the rules: somebody discarded it. What was pruned cannot be
        -- read again; only what is settled is, so that anything else without a payload came without one.
        WHERE
            d.status <> 'test'
            AND NOT (d.status = 'ignored' AND d.processor_version IS NULL)
            AND (d.payload IS NOT NULL OR NOT bisonsync_private.is_settled(d.status))
        ORDER BY d.id
        FOR UPDATE OF d SKIP LOCKED
    ) AS l;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    SELECT s.store_bodies INTO store_bodies FROM bisonsync_private.webhook_settings AS s;

    BEGIN
        RETURN QUERY
        UPDATE public.webhook_delivery_log AS l
        SET
            event_type = e.event_type,
            bison_instance = e.bison_instance,
            bison_workspace_id = e.bison_workspace_id,
            workspace_name = e.workspace_name,
            -- One that was stored before all shapes were looked through.
            payload = CASE
                WHEN e.verdict = 'dead' AND NOT store_bodies THEN bisonsync_private.strip_deep_bodies(l.payload)
                ELSE l.payload
            END,
            occurred_at = e.occurred_at,
            occurred_rule = e.occurred_rule,
            dedup_key = e.dedup_key,
            dedup_rule = e.dedup_rule,
            status = e.verdict,
            success = bisonsync_private.delivery_success(e.verdict),
            attempts = l.attempts + 1,
            -- Asked again, but not at each run, in case it was registered under another instance.
            next_attempt_at = CASE WHEN e.verdict = 'unknown_workspace' THEN now() + interval '1 hour' END,
            error_message = e.reason,
            processing_time_ms = 1000 * extract(EPOCH FROM clock_timestamp() - began_at) / cardinality(ids),
            -- One that stays a mismatch is as old as before.
            processed_at = CASE
                WHEN l.status = 'mismatch' AND e.verdict = 'mismatch' THEN l.processed_at ELSE now()
            END,
            processor_version = bisonsync_private.processor_version()
        FROM bisonsync_private.apply_events(
            ids, received_ats, sources, hook_instances, hook_workspace_ids, forced_verdicts, payloads, true
        ) AS e
        WHERE
            l.id = e.id
            AND l.received_at = e.received_at
            -- It was counted when it was not too old yet, or when it was known whose it is.
            AND NOT (
                e.verdict IN ('ignored', 'unknown_workspace', 'mismatch')
                AND l.status IN ('processed', 'duplicate')
                AND e.dedup_key IS NULL
            )
        RETURNING
            l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id, l.error_message;
        RETURN;
    EXCEPTION
        WHEN deadlock_detected OR lock_not_available OR serialization_failure THEN
            RAISE;
        WHEN OTHERS THEN
            reason := SQLERRM;
    END;

    IF cardinality(ids) > 1 THEN
        -- One of them cannot be applied: each by itself, so that it fails alone.
        FOR one IN 1 .. cardinality(ids) LOOP
            RETURN QUERY
            SELECT r.id, r.received_at, r.status, r.event_type, r.bison_instance, r.bison_workspace_id, r.error_message
            FROM bisonsync_private.process_deliveries(ids[one:one], received_ats[one:one]) AS r;
        END LOOP;
        RETURN;
    END IF;

    RETURN QUERY
    UPDATE public.webhook_delivery_log AS l
    SET
        attempts = l.attempts + 1,
        status = CASE WHEN bisonsync_private.retry_delay(l.attempts + 1) IS NULL THEN 'dead' ELSE 'failed' END,
        success = false,
        next_attempt_at = now() + bisonsync_private.retry_delay(l.attempts + 1),
        error_message = reason,
        processing_time_ms = 1000 * extract(EPOCH FROM clock_timestamp() - began_at),
        processed_at = now(),
        processor_version = bisonsync_private.processor_version()
    WHERE l.id = ids[1] AND l.received_at = received_ats[1]
    RETURNING
        l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id, l.error_message;
END
$$;

COMMENT ON FUNCTION bisonsync_private.process_deliveries(bigint[], timestamptz[]) IS
    'Applies stored deliveries, or applies them again by today''s rules, in the caller''s transaction; one row for each that it decided. Those that another transaction holds, tests, and those that were discarded or pruned are left out. One that cannot be applied is tried again later (retry_delay), then dead, and the others are applied without it.';
