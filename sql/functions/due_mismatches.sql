-- needs: read_delivery
CREATE OR REPLACE FUNCTION bisonsync_private.due_mismatches()
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
    WHERE
        l.status = 'mismatch'
        AND (l.hook_instance, l.hook_workspace_id, l.error_message) IN (
            -- The reason names all that decides it: one of each is read, not thousands at each run.
            SELECT o.hook_instance, o.hook_workspace_id, o.error_message
            FROM (
                SELECT DISTINCT ON (m.hook_instance, m.hook_workspace_id, m.error_message)
                    m.hook_instance, m.hook_workspace_id, m.error_message, m.id, m.received_at
                FROM public.webhook_delivery_log AS m
                WHERE m.status = 'mismatch' AND m.hook_instance IS NOT NULL
                ORDER BY m.hook_instance, m.hook_workspace_id, m.error_message, m.id
            ) AS o
            INNER JOIN public.webhook_delivery_log AS p ON p.id = o.id AND p.received_at = o.received_at
            CROSS JOIN LATERAL bisonsync_private.read_delivery(
                p.payload, p.received_at, p.source, p.hook_instance, p.hook_workspace_id, NULL
            ) AS r
            WHERE r.verdict <> 'mismatch'
        )
$$;

COMMENT ON FUNCTION bisonsync_private.due_mismatches() IS
    'The deliveries of status mismatch that are none by the settings of today: a base_url, former_urls or the registry was put right.';
