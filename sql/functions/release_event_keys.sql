CREATE OR REPLACE FUNCTION bisonsync_private.release_event_keys(p_events bisonsync_private.webhook_event[])
RETURNS SETOF bisonsync_private.webhook_event
LANGUAGE plpgsql
VOLATILE
SET enable_seqscan = off
-- Up to PostgreSQL 17 a forbidden plan costs 1e10, which would have each statement compiled.
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    -- Row by row through the keys: plans are kept, and one that was made while a table was empty would else walk along
    -- all of it for each event.
    WITH stored AS MATERIALIZED (
        SELECT
            l.bison_instance, l.bison_workspace_id, l.event_type, l.dedup_key,
            e.id, e.verdict,
            e.bison_instance AS now_instance, e.bison_workspace_id AS now_workspace_id, e.event_type AS now_type,
            e.dedup_key AS now_key, e.occurred_at, e.metric, e.amount
        FROM unnest(p_events) AS e
        CROSS JOIN LATERAL (
            SELECT d.bison_instance, d.bison_workspace_id, d.event_type, d.dedup_key
            FROM public.webhook_delivery_log AS d
            WHERE d.id = e.id AND d.received_at = e.received_at
            OFFSET 0
        ) AS l
        WHERE
            l.dedup_key IS NOT NULL
            AND l.bison_workspace_id IS NOT NULL
            -- One that has grown too old was counted in its time, and whose it is was known then: other settings, names
            -- and registrations take nothing back.
            AND e.verdict NOT IN ('ignored', 'unknown_workspace', 'mismatch')
    ),
    changed AS MATERIALIZED (
        SELECT k.place
        FROM stored AS s
        CROSS JOIN LATERAL (
            SELECT o.ctid AS place, o.*
            FROM public.webhook_event_keys AS o
            WHERE
                o.bison_instance = s.bison_instance
                AND o.bison_workspace_id = s.bison_workspace_id
                AND o.event_type = s.event_type
                AND o.dedup_key = s.dedup_key
            OFFSET 0
        ) AS k
        WHERE
            k.delivery_id = s.id
            AND (
                s.verdict <> 'apply'
                OR (k.bison_instance, k.bison_workspace_id, k.event_type, k.dedup_key, k.occurred_at, k.metric, k.amount)
                IS DISTINCT FROM (
                    s.now_instance, s.now_workspace_id, s.now_type, s.now_key, s.occurred_at, s.metric, s.amount
                )
            )
    ),
    released AS (
        DELETE FROM public.webhook_event_keys AS k
        USING changed AS c
        WHERE k.ctid = c.place
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
