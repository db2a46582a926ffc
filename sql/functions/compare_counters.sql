-- needs: fold_metrics
CREATE OR REPLACE FUNCTION bisonsync_private.compare_counters(
    p_instances text[],
    p_workspace_ids bigint[],
    p_first_month date,
    p_last_month date
)
RETURNS TABLE (
    bison_instance text,
    bison_workspace_id bigint,
    metric_month date,
    counter text,
    stored bigint,
    folded bigint
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        coalesce(f.bison_instance, c.bison_instance),
        coalesce(f.bison_workspace_id, c.bison_workspace_id),
        coalesce(f.metric_month, c.metric_month),
        n.counter,
        coalesce((to_jsonb(c) ->> n.counter)::bigint, 0),
        coalesce((to_jsonb(f) ->> n.counter)::bigint, 0)
    FROM (
        SELECT g.*
        FROM bisonsync_private.webhook_settings AS s
        CROSS JOIN LATERAL bisonsync_private.fold_metrics(
            p_instances, p_workspace_ids, p_first_month, p_last_month, s.reporting_timezone
        ) AS g
    ) AS f
    FULL JOIN (
        SELECT m.*
        FROM public.client_metrics AS m
        WHERE
            m.metric_month >= p_first_month
            AND m.metric_month <= coalesce(p_last_month, 'infinity')
            AND (
                p_instances IS NULL
                OR (m.bison_instance, m.bison_workspace_id) IN (
                    SELECT w.bison_instance, w.bison_workspace_id
                    FROM unnest(p_instances, p_workspace_ids) AS w (bison_instance, bison_workspace_id)
                )
            )
    ) AS c
        ON
            c.bison_instance = f.bison_instance
            AND c.bison_workspace_id = f.bison_workspace_id
            AND c.metric_month = f.metric_month
    CROSS JOIN unnest('{
        emails_sent_webhook,emails_sent_after,replies_webhook,replies_after,interested_webhook,interested_after,
        bounced_webhook,bounced_after,unsubscribed_webhook,unsubscribed_after,unique_replies_webhook
    }'::text[]) WITH ORDINALITY AS n (counter, place)
    WHERE
        coalesce((to_jsonb(c) ->> n.counter)::bigint, 0) <> coalesce((to_jsonb(f) ->> n.counter)::bigint, 0)
        -- In the same snapshot as the keys: of a month that is being pruned nothing is said.
        AND NOT EXISTS (
            SELECT
            FROM bisonsync_private.webhook_settings AS s
            WHERE
                coalesce(f.metric_month, c.metric_month)::timestamp AT TIME ZONE s.reporting_timezone
                < s.keys_pruned_before
        )
    ORDER BY 1, 2, 3, n.place
$$;

COMMENT ON FUNCTION bisonsync_private.compare_counters(text[], bigint[], date, date) IS
    'Every counter of the webhook part of client_metrics that differs from the fold of webhook_event_keys, of these workspaces (null: of all) in these months (p_last_month null: without end), months left out whose keys may be pruned. One snapshot: an event is in both or in neither, so it can be asked at any time.';
