CREATE OR REPLACE FUNCTION bisonsync_private.fold_metrics(
    p_instances text[],
    p_workspace_ids bigint[],
    p_first_month date,
    p_last_month date,
    p_zone text
)
RETURNS TABLE (
    bison_instance text,
    bison_workspace_id bigint,
    metric_month date,
    emails_sent_webhook bigint,
    emails_sent_after bigint,
    replies_webhook bigint,
    replies_after bigint,
    interested_webhook bigint,
    interested_after bigint,
    bounced_webhook bigint,
    bounced_after bigint,
    unsubscribed_webhook bigint,
    unsubscribed_after bigint,
    unique_replies_webhook bigint
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        e.bison_instance,
        e.bison_workspace_id,
        e.month,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'emails_sent'), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'emails_sent' AND e.occurred_at > c.as_of), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'replies'), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'replies' AND e.occurred_at > c.as_of), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'interested'), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'interested' AND e.occurred_at > c.as_of), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'bounced'), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'bounced' AND e.occurred_at > c.as_of), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'unsubscribed'), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'unsubscribed' AND e.occurred_at > c.as_of), 0)::bigint,
        coalesce(sum(e.amount) FILTER (WHERE e.metric = 'unique_replies'), 0)::bigint
    FROM (
        SELECT
            k.bison_instance,
            k.bison_workspace_id,
            date_trunc('month', k.occurred_at AT TIME ZONE p_zone)::date AS month,
            k.occurred_at,
            k.metric,
            k.amount
        FROM (
            SELECT a.bison_instance, a.bison_workspace_id, a.occurred_at, a.metric, a.amount
            FROM public.webhook_event_keys AS a
            WHERE p_instances IS NULL
            UNION ALL
            -- By the key's first columns, so that one workspace does not cost the scan of all.
            SELECT b.bison_instance, b.bison_workspace_id, b.occurred_at, b.metric, b.amount
            FROM unnest(p_instances, p_workspace_ids) AS w (bison_instance, bison_workspace_id)
            INNER JOIN public.webhook_event_keys AS b
                ON b.bison_instance = w.bison_instance AND b.bison_workspace_id = w.bison_workspace_id
            WHERE p_instances IS NOT NULL
        ) AS k
        WHERE
            k.metric IS NOT NULL
            -- No zone is further from UTC than a day; which month it is, is decided as where it was counted.
            AND k.occurred_at >= p_first_month::timestamp AT TIME ZONE 'UTC' - interval '1 day'
            AND k.occurred_at < (coalesce(p_last_month, 'infinity')::timestamp + interval '1 month') AT TIME ZONE 'UTC' + interval '1 day'
    ) AS e
    LEFT JOIN public.client_metrics AS c
        ON
            c.bison_instance = e.bison_instance
            AND c.bison_workspace_id = e.bison_workspace_id
            AND c.metric_month = e.month
    WHERE e.month >= p_first_month AND e.month <= coalesce(p_last_month, 'infinity')
    GROUP BY e.bison_instance, e.bison_workspace_id, e.month
$$;

COMMENT ON FUNCTION bisonsync_private.fold_metrics(text[], bigint[], date, date, text) IS
    'The webhook part of client_metrics as the deduplicated log has it: of these workspaces (null: of all) in these months (p_last_month null: without end), a row for each in which something was counted. p_zone: the reporting time zone.';
