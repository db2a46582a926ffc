-- needs: read_delivery, unwrap_delivery
CREATE OR REPLACE FUNCTION bisonsync_private.find_known_events(
    p_instance text,
    p_workspace_id bigint,
    p_received_ats timestamptz[],
    p_payloads jsonb[]
)
RETURNS TABLE (
    place integer,
    is_known boolean,
    is_mismatch boolean,
    identity text
)
LANGUAGE sql
STABLE
AS $$
    WITH events AS MATERIALIZED (
        SELECT d.place, d.received_at, u.payload, r.event_type, r.occurred_at, r.dedup_rule, r.dedup_key
        FROM unnest(p_received_ats, p_payloads) WITH ORDINALITY AS d (received_at, payload, place)
        CROSS JOIN bisonsync_private.webhook_settings AS s
        CROSS JOIN LATERAL (
            SELECT bisonsync_private.unwrap_delivery(d.payload, s.store_bodies) AS payload OFFSET 0
        ) AS u
        CROSS JOIN LATERAL bisonsync_private.read_delivery(
            u.payload, d.received_at, 'events', p_instance, p_workspace_id, NULL
        ) AS r
    ),

    -- What took no effect has no key: it is known by its payload, for as long as a host tries to deliver.
    keyless AS MATERIALIZED (
        SELECT l.payload, bool_or(l.status = 'mismatch') AS is_mismatch
        FROM public.webhook_delivery_log AS l
        WHERE
            l.bison_instance = p_instance
            AND l.bison_workspace_id = p_workspace_id
            AND l.received_at >= (SELECT min(e.received_at) - interval '1 hour' FROM events AS e)
            AND l.received_at <= (SELECT max(e.received_at) + interval '26 hours' FROM events AS e)
            AND l.dedup_key IS NULL
            AND l.payload IS NOT NULL
        GROUP BY l.payload
    )

    SELECT
        e.place::integer,
        CASE
            WHEN e.dedup_rule = 'body' THEN EXISTS (
                SELECT
                FROM public.webhook_event_keys AS k
                WHERE
                    k.bison_instance = p_instance
                    AND k.bison_workspace_id = p_workspace_id
                    AND k.event_type = e.event_type
                    AND k.dedup_key >= e.dedup_key || ':'
                    AND k.dedup_key < e.dedup_key || ';'
                    AND k.occurred_at > e.occurred_at - interval '10 minutes'
                    AND k.occurred_at < e.occurred_at + interval '10 minutes'
            )
            WHEN e.dedup_key IS NOT NULL THEN EXISTS (
                SELECT
                FROM public.webhook_event_keys AS k
                WHERE
                    k.bison_instance = p_instance
                    AND k.bison_workspace_id = p_workspace_id
                    AND k.event_type = e.event_type
                    AND k.dedup_key = e.dedup_key
            )
            ELSE false
        END
        OR l.payload IS NOT NULL,
        coalesce(l.is_mismatch, false),
        coalesce(e.event_type || ' ' || e.dedup_key, e.payload::text)
    FROM events AS e
    LEFT JOIN keyless AS l ON l.payload = e.payload
$$;

COMMENT ON FUNCTION bisonsync_private.find_known_events(text, bigint, timestamptz[], jsonb[]) IS
    'Which events of a workspace''s event log the inbox has already, however they came: by their key if they took effect, by their payload if not. is_mismatch: it lies there as one of another workspace. identity tells equal ones apart from others. The rules are those of read_delivery and open_body_windows; reads only, so that receive_deliveries has the last word.';
