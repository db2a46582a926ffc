CREATE OR REPLACE FUNCTION bisonsync_private.open_body_windows(p_events bisonsync_private.webhook_event[])
RETURNS bisonsync_private.webhook_event[]
LANGUAGE plpgsql
VOLATILE
AS $$
BEGIN
    -- Within ten minutes of one that took effect it is the same event; else the first of its kind here opens a window.
    RETURN ARRAY(
        SELECT (
            e.place, e.id, e.received_at, e.verdict, e.reason, e.event_type, e.bison_instance, e.bison_workspace_id,
            e.workspace_name, e.occurred_at, e.occurred_rule,
            CASE
                WHEN e.dedup_rule IS DISTINCT FROM 'body' THEN e.dedup_key
                ELSE coalesce(
                    (
                        SELECT k.dedup_key
                        FROM public.webhook_event_keys AS k
                        WHERE
                            k.bison_instance = e.bison_instance
                            AND k.bison_workspace_id = e.bison_workspace_id
                            AND k.event_type = e.event_type
                            AND k.dedup_key >= e.dedup_key || ':'
                            AND k.dedup_key < e.dedup_key || ';'
                            AND k.occurred_at > e.occurred_at - interval '10 minutes'
                            AND k.occurred_at < e.occurred_at + interval '10 minutes'
                        -- One that took effect keeps its own, also beside others that came with it.
                        ORDER BY k.delivery_id <> e.id, k.occurred_at
                        LIMIT 1
                    ),
                    e.dedup_key || ':' || (
                        extract(EPOCH FROM e.first_at)::numeric
                        + 600 * floor(extract(EPOCH FROM e.occurred_at - e.first_at) / 600)
                    )::text
                )
            END,
            e.dedup_rule, e.metric, e.amount, e.lead_id, e.lead, e.reply_uuid, e.account
        )::bisonsync_private.webhook_event
        FROM (
            SELECT
                u.*,
                min(u.occurred_at) OVER (
                    PARTITION BY u.bison_instance, u.bison_workspace_id, u.event_type, u.dedup_key
                ) AS first_at
            FROM unnest(p_events) AS u
        ) AS e
        ORDER BY e.place
    );
END
$$;

COMMENT ON FUNCTION bisonsync_private.open_body_windows(bisonsync_private.webhook_event[]) IS
    'Events that have no id of their own get the key of the ten-minute window of their body that they fall into, or of a new one. The caller holds the locks that keep others from opening the same.';
