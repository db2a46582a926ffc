CREATE OR REPLACE FUNCTION bisonsync_private.mark_accounts_due(p_events bisonsync_private.webhook_event[])
RETURNS void
LANGUAGE plpgsql
VOLATILE
AS $$
BEGIN
    UPDATE public.workspace_sync_state AS s
    SET due_since = now()
    FROM (
        SELECT e.bison_instance, e.bison_workspace_id, max(e.received_at) AS received_at
        FROM unnest(p_events) AS e
        WHERE e.verdict IN ('apply', 'again') AND e.event_type LIKE 'tag\_%'
        GROUP BY e.bison_instance, e.bison_workspace_id
    ) AS t
    WHERE
        s.bison_instance = t.bison_instance
        AND s.bison_workspace_id = t.bison_workspace_id
        AND s.resource = 'accounts'
        AND s.due_since IS NULL
        AND (s.last_complete_at IS NULL OR s.last_complete_at <= t.received_at);
END
$$;

COMMENT ON FUNCTION bisonsync_private.mark_accounts_due(bisonsync_private.webhook_event[]) IS
    'Notes that the accounts of a workspace should be read again, for tags were attached or removed: payloads of accounts carry no tags. A workspace never read is due anyway.';
