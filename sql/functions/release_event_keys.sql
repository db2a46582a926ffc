CREATE OR REPLACE FUNCTION bisonsync_private.release_event_keys(p_events bisonsync_private.webhook_event[])
RETURNS SETOF bisonsync_private.webhook_event
LANGUAGE plpgsql
VOLATILE
AS $$
BEGIN
    RETURN QUERY
    WITH stored AS (
        SELECT
            l.bison_instance, l.bison_workspace_id, l.event_type, l.dedup_key,
            e.id, e.received_at, e.verdict, e.reason,
            e.bison_instance AS now_instance, e.bison_workspace_id AS now_workspace_id, e.event_type AS now_type,
            e.dedup_key AS now_key, e.occurred_at, e.metric, e.amount
        FROM unnest(p_events) AS e
        INNER JOIN public.webhook_delivery_log AS l ON l.id = e.id AND l.received_at = e.received_at
        WHERE l.dedup_key IS NOT NULL AND l.bison_workspace_id IS NOT NULL
    ),
    released AS (
        DELETE FROM public.webhook_event_keys AS k
        USING stored AS s
        WHERE
            k.bison_instance = s.bison_instance
            AND k.bison_workspace_id = s.bison_workspace_id
            AND k.event_type = s.event_type
            AND k.dedup_key = s.dedup_key
            AND k.delivery_id = s.id
            -- One that has grown too old was counted in its time.
            AND s.reason IS DISTINCT FROM 'too old: more than 70 days ago'
            AND (
                s.verdict <> 'apply'
                OR (k.bison_instance, k.bison_workspace_id, k.event_type, k.dedup_key, k.occurred_at, k.metric, k.amount)
                IS DISTINCT FROM (
                    s.now_instance, s.now_workspace_id, s.now_type, s.now_key, s.occurred_at, s.metric, s.amount
                )
            )
        RETURNING k.*
    )
    SELECT
        0, r.delivery_id, NULL::timestamptz, 'apply', NULL::text, r.event_type, r.bison_instance, r.bison_workspace_id,
        NULL::text, r.occurred_at, NULL::text, r.dedup_key, NULL::text, r.metric, -r.amount, NULL::bigint, NULL::jsonb,
        NULL::text, NULL::jsonb
    FROM released AS r;
END
$$;

COMMENT ON FUNCTION bisonsync_private.release_event_keys(bisonsync_private.webhook_event[]) IS
    'Gives up the keys of stored deliveries that are read otherwise today than when they were counted; returns what they counted, as events of the opposite amount. What they told of leads and accounts stays.';
