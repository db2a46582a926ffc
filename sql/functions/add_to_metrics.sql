CREATE OR REPLACE FUNCTION bisonsync_private.add_to_metrics(p_events bisonsync_private.webhook_event[], p_zone text)
RETURNS void
LANGUAGE plpgsql
VOLATILE
AS $$
BEGIN
    INSERT INTO public.client_metrics (bison_instance, bison_workspace_id, metric_month)
    SELECT DISTINCT e.bison_instance, e.bison_workspace_id, date_trunc('month', e.occurred_at AT TIME ZONE p_zone)::date AS month
    FROM unnest(p_events) AS e
    WHERE e.verdict = 'apply' AND e.metric IS NOT NULL
    ORDER BY e.bison_instance, e.bison_workspace_id, month
    ON CONFLICT DO NOTHING;

    -- Locked first, so that the statement below sees the last committed as_of; in one order, so that nobody waits in a circle.
    PERFORM
    FROM public.client_metrics AS m
    WHERE (m.bison_instance, m.bison_workspace_id, m.metric_month) IN (
        SELECT e.bison_instance, e.bison_workspace_id, date_trunc('month', e.occurred_at AT TIME ZONE p_zone)::date
        FROM unnest(p_events) AS e
        WHERE e.verdict = 'apply' AND e.metric IS NOT NULL
    )
    ORDER BY m.bison_instance, m.bison_workspace_id, m.metric_month
    FOR NO KEY UPDATE;

    UPDATE public.client_metrics AS m
    SET
        emails_sent_webhook = m.emails_sent_webhook + d.emails_sent_webhook,
        emails_sent_after = m.emails_sent_after + d.emails_sent_after,
        replies_webhook = m.replies_webhook + d.replies_webhook,
        replies_after = m.replies_after + d.replies_after,
        interested_webhook = m.interested_webhook + d.interested_webhook,
        interested_after = m.interested_after + d.interested_after,
        bounced_webhook = m.bounced_webhook + d.bounced_webhook,
        bounced_after = m.bounced_after + d.bounced_after,
        unsubscribed_webhook = m.unsubscribed_webhook + d.unsubscribed_webhook,
        unsubscribed_after = m.unsubscribed_after + d.unsubscribed_after,
        unique_replies_webhook = m.unique_replies_webhook + d.unique_replies_webhook,
        updated_at = now()
    FROM (
        SELECT
            c.bison_instance,
            c.bison_workspace_id,
            c.metric_month,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'emails_sent'), 0) AS emails_sent_webhook,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'emails_sent' AND e.occurred_at > c.as_of), 0) AS emails_sent_after,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'replies'), 0) AS replies_webhook,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'replies' AND e.occurred_at > c.as_of), 0) AS replies_after,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'interested'), 0) AS interested_webhook,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'interested' AND e.occurred_at > c.as_of), 0) AS interested_after,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'bounced'), 0) AS bounced_webhook,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'bounced' AND e.occurred_at > c.as_of), 0) AS bounced_after,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'unsubscribed'), 0) AS unsubscribed_webhook,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'unsubscribed' AND e.occurred_at > c.as_of), 0) AS unsubscribed_after,
            coalesce(sum(e.amount) FILTER (WHERE e.metric = 'unique_replies'), 0) AS unique_replies_webhook
        FROM unnest(p_events) AS e
        INNER JOIN public.client_metrics AS c
            ON
                c.bison_instance = e.bison_instance
                AND c.bison_workspace_id = e.bison_workspace_id
                AND c.metric_month = date_trunc('month', e.occurred_at AT TIME ZONE p_zone)::date
        WHERE e.verdict = 'apply' AND e.metric IS NOT NULL
        GROUP BY c.bison_instance, c.bison_workspace_id, c.metric_month
    ) AS d
    WHERE
        m.bison_instance = d.bison_instance
        AND m.bison_workspace_id = d.bison_workspace_id
        AND m.metric_month = d.metric_month
        AND (
            d.emails_sent_webhook <> 0
            OR d.emails_sent_after <> 0
            OR d.replies_webhook <> 0
            OR d.replies_after <> 0
            OR d.interested_webhook <> 0
            OR d.interested_after <> 0
            OR d.bounced_webhook <> 0
            OR d.bounced_after <> 0
            OR d.unsubscribed_webhook <> 0
            OR d.unsubscribed_after <> 0
            OR d.unique_replies_webhook <> 0
        );

    PERFORM pg_notify(
        'bisonsync',
        json_build_object(
            'table', 'client_metrics', 'workspace', w.bison_instance || '/' || w.bison_workspace_id, 'kind', 'events'
        )::text
    )
    FROM (
        SELECT DISTINCT e.bison_instance, e.bison_workspace_id
        FROM unnest(p_events) AS e
        WHERE e.verdict = 'apply' AND e.metric IS NOT NULL
    ) AS w;
END
$$;

COMMENT ON FUNCTION bisonsync_private.add_to_metrics(bisonsync_private.webhook_event[], text) IS
    'Adds events (verdict apply) to the webhook part of their months; p_zone: the reporting time zone. What was polled is never touched.';
