-- needs: is_settled
CREATE OR REPLACE FUNCTION bisonsync_private.chosen_deliveries(
    p_since timestamptz,
    p_until timestamptz,
    p_event_types text[],
    p_statuses text[],
    p_workspace_instances text[],
    p_workspace_ids bigint[],
    p_instances text[],
    p_ids bigint[],
    p_older_than integer
)
RETURNS TABLE (
    id bigint,
    received_at timestamptz,
    status text,
    event_type text,
    bison_instance text,
    bison_workspace_id bigint,
    is_pruned boolean
)
LANGUAGE sql
STABLE
AS $$
    SELECT l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id,
        -- What is not settled and has none never had one.
        l.payload IS NULL AND bisonsync_private.is_settled(l.status)
    FROM public.webhook_delivery_log AS l
    WHERE
        (p_since IS NULL OR l.received_at >= p_since)
        AND (p_until IS NULL OR l.received_at < p_until)
        AND (p_event_types IS NULL OR l.event_type = any(p_event_types))
        AND (p_statuses IS NULL OR l.status = any(p_statuses))
        AND (p_instances IS NULL OR l.bison_instance = any(p_instances))
        AND (p_ids IS NULL OR l.id = any(p_ids))
        AND (p_older_than IS NULL OR l.processor_version < p_older_than)
        AND (
            p_workspace_ids IS NULL
            OR EXISTS (
                SELECT
                FROM unnest(p_workspace_instances, p_workspace_ids) AS w (bison_instance, bison_workspace_id)
                WHERE
                    (l.bison_instance = w.bison_instance AND l.bison_workspace_id = w.bison_workspace_id)
                    -- One that failed before its workspace was known.
                    OR (
                        l.bison_workspace_id IS NULL
                        AND l.payload #>> '{event,workspace_id}' = w.bison_workspace_id::text
                    )
            )
        )
$$;

COMMENT ON FUNCTION bisonsync_private.chosen_deliveries(
    timestamptz, timestamptz, text[], text[], text[], bigint[], text[], bigint[], integer
) IS
    'The deliveries that fit every part of a choice; a part that is null says nothing. Times are those of received_at, the end not included.';
