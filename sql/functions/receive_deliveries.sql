-- needs: apply_events, unwrap_delivery, strip_deep_bodies, processor_version, retry_delay, delivery_success
CREATE OR REPLACE FUNCTION bisonsync_private.receive_deliveries(
    p_received_ats timestamptz[],
    p_sources text[],
    p_hook_instances text[],
    p_hook_workspace_ids bigint[],
    p_forced_verdicts text[],
    p_payloads jsonb[],
    p_raws bytea[],
    p_must_store boolean
)
RETURNS TABLE (
    place integer,
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
    payloads jsonb[];
    -- An element of a variable is found at once, one of a parameter by counting from the first.
    sources text[] := p_sources;
    hook_instances text[] := p_hook_instances;
    hook_workspace_ids bigint[] := p_hook_workspace_ids;
    raws bytea[] := p_raws;
    began_at timestamptz := clock_timestamp();
    one integer;
    reason text;
BEGIN
    -- Those that came together came one after the other: of two events of an account the later one wins.
    SELECT
        array_agg(nextval('public.webhook_delivery_log_id_seq') ORDER BY d.place),
        array_agg(coalesce(d.received_at, now() + (d.place - 1) * interval '1 microsecond') ORDER BY d.place)
    INTO ids, received_ats
    FROM unnest(p_received_ats) WITH ORDINALITY AS d (received_at, place);
    payloads := ARRAY(
        SELECT CASE
            -- Of all others the reader has looked through their whole text (payloads.py).
            WHEN NOT s.store_bodies AND (sources[d.place] = 'sql' OR jsonb_typeof(u.unwrapped -> 'data') IS DISTINCT FROM 'object')
                THEN bisonsync_private.strip_deep_bodies(u.unwrapped)
            ELSE u.unwrapped
        END
        FROM bisonsync_private.webhook_settings AS s
        CROSS JOIN unnest(p_payloads) WITH ORDINALITY AS d (payload, place)
        CROSS JOIN LATERAL bisonsync_private.unwrap_delivery(d.payload, s.store_bodies) AS u
        ORDER BY d.place
    );

    BEGIN
        RETURN QUERY
        INSERT INTO public.webhook_delivery_log AS l (
            id, received_at, source, event_type, bison_instance, bison_workspace_id, workspace_name, hook_instance,
            hook_workspace_id, occurred_at, occurred_rule, payload, payload_raw, dedup_key, dedup_rule, status, success,
            attempts, next_attempt_at, error_message, processing_time_ms, processed_at, processor_version
        )
        SELECT
            e.id, e.received_at, sources[e.place], e.event_type, e.bison_instance, e.bison_workspace_id, e.workspace_name,
            hook_instances[e.place], hook_workspace_ids[e.place], e.occurred_at, e.occurred_rule, payloads[e.place],
            raws[e.place],
            e.dedup_key, e.dedup_rule, e.verdict, bisonsync_private.delivery_success(e.verdict),
            1, CASE WHEN e.verdict = 'unknown_workspace' THEN now() END, e.reason,
            1000 * extract(EPOCH FROM clock_timestamp() - began_at) / cardinality(ids), now(),
            bisonsync_private.processor_version()
        FROM bisonsync_private.apply_events(
            ids, received_ats, p_sources, p_hook_instances, p_hook_workspace_ids, p_forced_verdicts, payloads, false
        ) AS e
        RETURNING
            array_position(ids, l.id), l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id,
            l.error_message;
        RETURN;
    EXCEPTION
        WHEN deadlock_detected OR lock_not_available OR serialization_failure THEN
            IF NOT p_must_store THEN
                RAISE;
            END IF;
            reason := SQLERRM;
        WHEN OTHERS THEN
            reason := SQLERRM;
    END;

    IF cardinality(ids) > 1 THEN
        -- One of them cannot be applied: each by itself, so that it fails alone.
        FOR one IN 1 .. cardinality(ids) LOOP
            RETURN QUERY
            SELECT
                one, r.id, r.received_at, r.status, r.event_type, r.bison_instance, r.bison_workspace_id, r.error_message
            FROM bisonsync_private.receive_deliveries(
                received_ats[one:one], p_sources[one:one], p_hook_instances[one:one], p_hook_workspace_ids[one:one],
                p_forced_verdicts[one:one], payloads[one:one], p_raws[one:one], p_must_store
            ) AS r;
        END LOOP;
        RETURN;
    END IF;

    RETURN QUERY
    INSERT INTO public.webhook_delivery_log AS l (
        id, received_at, source, event_type, workspace_name, hook_instance, hook_workspace_id,
        bison_instance, bison_workspace_id, payload, payload_raw,
        status, success, attempts, next_attempt_at, error_message, processing_time_ms, processed_at, processor_version
    )
    SELECT
        ids[1], received_ats[1], p_sources[1],
        left(lower(btrim(payloads[1] #>> '{event,type}')), 100), payloads[1] #>> '{event,workspace_name}',
        p_hook_instances[1], p_hook_workspace_ids[1], p_hook_instances[1], p_hook_workspace_ids[1], payloads[1], p_raws[1],
        'failed', false, 1, now() + bisonsync_private.retry_delay(1), reason,
        1000 * extract(EPOCH FROM clock_timestamp() - began_at), now(), bisonsync_private.processor_version()
    RETURNING
        1, l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id, l.error_message;
END
$$;

COMMENT ON FUNCTION bisonsync_private.receive_deliveries(
    timestamptz[], text[], text[], bigint[], text[], jsonb[], bytea[], boolean
) IS
    'Stores new deliveries and applies them, all in the caller''s transaction; one row for each, place being its position. One that cannot be applied is stored as failed, and the others are applied without it. Locks that others hold raise unless p_must_store.';
