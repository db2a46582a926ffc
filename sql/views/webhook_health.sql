CREATE OR REPLACE VIEW public.webhook_health WITH (security_invoker = true) AS
WITH errors AS MATERIALIZED (
    SELECT DISTINCT ON (l.bison_instance, l.bison_workspace_id)
        l.bison_instance, l.bison_workspace_id, l.error_message
    FROM public.webhook_delivery_log AS l
    WHERE l.status IN ('failed', 'dead', 'mismatch')
    ORDER BY l.bison_instance, l.bison_workspace_id, l.received_at DESC
)

SELECT
    r.bison_instance,
    r.bison_workspace_id,
    r.workspace_name,
    r.is_active,
    coalesce(
        d.last_at,
        (
            SELECT max(l.received_at)
            FROM public.webhook_delivery_log AS l
            WHERE
                l.bison_instance = r.bison_instance
                AND l.bison_workspace_id = r.bison_workspace_id
                AND l.source IN ('receiver', 'sql', 'legacy')
                AND l.status <> 'test'
        )
    ) AS last_webhook_at,
    d.deliveries AS webhook_count_24h,
    round(100.0 * d.good / nullif(d.good + d.bad, 0), 2) AS success_rate_24h,
    coalesce(100 * d.good >= 95 * (d.good + d.bad) AND d.good > 0, false) AS is_healthy,
    e.error_message AS last_error_message
FROM public.client_registry AS r
CROSS JOIN LATERAL (
    SELECT
        max(l.received_at) AS last_at,
        count(*) AS deliveries,
        count(*) FILTER (WHERE l.success) AS good,
        count(*) FILTER (WHERE NOT l.success) AS bad
    FROM public.webhook_delivery_log AS l
    WHERE
        l.bison_instance = r.bison_instance
        AND l.bison_workspace_id = r.bison_workspace_id
        AND l.received_at > now() - interval '24 hours'
        AND l.source IN ('receiver', 'sql', 'legacy')
        AND l.status <> 'test'
) AS d
LEFT JOIN errors AS e ON e.bison_instance = r.bison_instance AND e.bison_workspace_id = r.bison_workspace_id;

COMMENT ON VIEW public.webhook_health IS
    'How the webhooks of each registered workspace fare, now: a row also where nothing ever came. Counted is what was delivered to us (receiver, sql, legacy), not what we fetched (events, file), and no test.';
COMMENT ON COLUMN public.webhook_health.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.webhook_health.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.webhook_health.workspace_name IS 'Its name.';
COMMENT ON COLUMN public.webhook_health.is_active IS 'Whether it is polled and looked after.';
COMMENT ON COLUMN public.webhook_health.last_webhook_at IS 'When the last delivery came; null: none is in the log.';
COMMENT ON COLUMN public.webhook_health.webhook_count_24h IS 'Deliveries of the last 24 hours, repeated ones included.';
COMMENT ON COLUMN public.webhook_health.success_rate_24h IS
    'Percent of these with which all is well, of those that are decided; null: none is.';
COMMENT ON COLUMN public.webhook_health.is_healthy IS
    'Whether something came in the last 24 hours, and all is well with at least 95 percent of it. Quiet days are not told from silence here: the check webhook-silence does.';
COMMENT ON COLUMN public.webhook_health.last_error_message IS
    'Why the newest delivery that is not processed yet, or never will be, is not; null: there is none.';
