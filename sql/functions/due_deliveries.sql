-- needs: due_mismatches, url_origin
CREATE OR REPLACE FUNCTION bisonsync_private.due_deliveries()
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
    SELECT l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id, false
    FROM public.webhook_delivery_log AS l
    WHERE l.status = 'pending' AND (l.next_attempt_at IS NULL OR l.next_attempt_at <= now())
    UNION ALL
    SELECT l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id, false
    FROM public.webhook_delivery_log AS l
    WHERE l.status = 'failed' AND l.next_attempt_at <= now()
    UNION ALL
    SELECT l.id, l.received_at, l.status, l.event_type, l.bison_instance, l.bison_workspace_id, false
    FROM public.webhook_delivery_log AS l
    WHERE
        l.status = 'unknown_workspace'
        AND (
            l.next_attempt_at <= now()
            -- Its instance was not known, and is.
            OR (
                l.bison_instance IS NULL
                AND EXISTS (
                    SELECT
                    FROM bisonsync_private.instance_origins AS i
                    WHERE i.origin = bisonsync_private.url_origin(l.payload #>> '{event,instance_url}')
                )
            )
        )
        AND (
            -- Of whichever instance: which one is meant is read again.
            l.bison_workspace_id IN (SELECT g.bison_workspace_id FROM public.client_registry AS g)
            OR (
                l.source = 'legacy'
                AND EXISTS (
                    SELECT
                    FROM public.client_registry AS g
                    WHERE lower(l.workspace_name) IN (lower(g.workspace_name), lower(g.display_name))
                )
            )
        )
    UNION ALL
    SELECT m.id, m.received_at, m.status, m.event_type, m.bison_instance, m.bison_workspace_id, m.is_pruned
    FROM bisonsync_private.due_mismatches() AS m
$$;

COMMENT ON FUNCTION bisonsync_private.due_deliveries() IS
    'The deliveries that replay-webhooks takes up by itself: pending ones, failed ones whose time has come, those whose workspace is registered by now, and mismatches that are none any more. Each part reads webhook_delivery_log_open, which holds only what is not settled.';
