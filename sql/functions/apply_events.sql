-- needs: read_delivery, open_body_windows, release_event_keys, apply_to_leads, apply_to_accounts, mark_accounts_due, add_to_metrics, is_known_event_type
CREATE OR REPLACE FUNCTION bisonsync_private.apply_events(
    p_ids bigint[],
    p_received_ats timestamptz[],
    p_sources text[],
    p_hook_instances text[],
    p_hook_workspace_ids bigint[],
    p_forced_verdicts text[],
    p_payloads jsonb[],
    p_again boolean
)
RETURNS SETOF bisonsync_private.webhook_event
LANGUAGE plpgsql
VOLATILE
AS $$
DECLARE
    zone text;
    events bisonsync_private.webhook_event[];
    taken_back bisonsync_private.webhook_event[] := '{}';
    kept text[];
    owned bigint[];
BEGIN
    SELECT s.reporting_timezone INTO zone FROM bisonsync_private.webhook_settings AS s;
    events := ARRAY(
        SELECT (
            d.place, d.id, d.received_at, r.verdict, r.reason, r.event_type, r.bison_instance, r.bison_workspace_id,
            r.workspace_name, r.occurred_at, r.occurred_rule, r.dedup_key, r.dedup_rule, r.metric, r.amount, r.lead_id,
            r.lead, r.reply_uuid, r.account
        )::bisonsync_private.webhook_event
        FROM unnest(
            p_ids, p_received_ats, p_sources, p_hook_instances, p_hook_workspace_ids, p_forced_verdicts, p_payloads
        ) WITH ORDINALITY AS d (id, received_at, source, hook_instance, hook_workspace_id, forced_verdict, payload, place)
        CROSS JOIN LATERAL bisonsync_private.read_delivery(
            d.payload, d.received_at, d.source, d.hook_instance, d.hook_workspace_id, d.forced_verdict
        ) AS r
    );

    IF EXISTS (SELECT FROM unnest(events) AS e WHERE e.dedup_rule = 'body') THEN
        -- Who looks whether a body came lately must be alone until its own is committed.
        PERFORM pg_advisory_xact_lock(b.number)
        FROM (
            SELECT DISTINCT hashtextextended(e.bison_instance || '/' || e.bison_workspace_id || '/' || e.event_type, 0) AS number
            FROM unnest(events) AS e
            WHERE e.dedup_rule = 'body'
            ORDER BY number
        ) AS b;
        events := bisonsync_private.open_body_windows(events);
    END IF;

    IF p_again THEN
        taken_back := ARRAY(SELECT r FROM bisonsync_private.release_event_keys(events) AS r);
    END IF;

    -- In the order of the key, so that two batches never wait for each other.
    WITH inserted AS (
        INSERT INTO public.webhook_event_keys AS k (
            bison_instance, bison_workspace_id, event_type, dedup_key, occurred_at, delivery_id, metric, amount
        )
        SELECT
            e.bison_instance, e.bison_workspace_id, e.event_type, e.dedup_key, e.occurred_at, e.id, e.metric, e.amount
        FROM unnest(events) AS e
        WHERE e.verdict = 'apply'
        ORDER BY
            e.bison_instance COLLATE "C", e.bison_workspace_id, e.event_type COLLATE "C", e.dedup_key COLLATE "C", e.place
        ON CONFLICT DO NOTHING
        RETURNING k.delivery_id
    )
    SELECT coalesce(array_agg(i.delivery_id), '{}') INTO owned FROM inserted AS i;

    IF cardinality(owned) < cardinality(events) THEN
        events := ARRAY(
            SELECT (
                e.place, e.id, e.received_at,
                CASE
                    WHEN e.verdict <> 'apply' THEN e.verdict
                    WHEN e.id = any(owned) THEN 'apply'
                    WHEN
                        p_again
                        AND EXISTS (
                            SELECT
                            FROM public.webhook_event_keys AS k
                            WHERE
                                k.bison_instance = e.bison_instance
                                AND k.bison_workspace_id = e.bison_workspace_id
                                AND k.event_type = e.event_type
                                AND k.dedup_key = e.dedup_key
                                AND k.delivery_id = e.id
                        )
                        THEN 'again'
                    ELSE 'duplicate'
                END,
                e.reason, e.event_type, e.bison_instance, e.bison_workspace_id, e.workspace_name, e.occurred_at,
                e.occurred_rule, e.dedup_key, e.dedup_rule, e.metric, e.amount, e.lead_id, e.lead, e.reply_uuid, e.account
            )::bisonsync_private.webhook_event
            FROM unnest(events) AS e
            ORDER BY e.place
        );
    END IF;

    SELECT array_agg(DISTINCT e.event_type) INTO kept FROM unnest(events) AS e WHERE e.verdict IN ('apply', 'again');
    IF kept IS NOT NULL THEN
        PERFORM bisonsync_private.apply_to_leads(events);
        IF EXISTS (SELECT FROM unnest(kept) AS t (event_type) WHERE t.event_type ~ '^(email_account_|warmup_)') THEN
            PERFORM bisonsync_private.apply_to_accounts(events);
        END IF;
        IF EXISTS (SELECT FROM unnest(kept) AS t (event_type) WHERE t.event_type ~ '^tag_') THEN
            PERFORM bisonsync_private.mark_accounts_due(events);
        END IF;
    END IF;
    -- Last: every batch of a workspace waits for this row until the one before it is committed.
    IF EXISTS (SELECT FROM unnest(events || taken_back) AS e WHERE e.verdict = 'apply' AND e.metric IS NOT NULL) THEN
        PERFORM bisonsync_private.add_to_metrics(events || taken_back, zone);
    END IF;

    RETURN QUERY
    SELECT
        e.place, e.id, e.received_at,
        CASE
            WHEN e.verdict NOT IN ('apply', 'again') THEN e.verdict
            WHEN e.dedup_rule = 'increment.id' OR bisonsync_private.is_known_event_type(e.event_type) THEN 'processed'
            ELSE 'ignored'
        END,
        CASE
            WHEN e.verdict NOT IN ('apply', 'again') THEN e.reason
            WHEN e.dedup_rule = 'increment.id' OR bisonsync_private.is_known_event_type(e.event_type) THEN NULL
            ELSE 'unknown type of event'
        END,
        e.event_type, e.bison_instance, e.bison_workspace_id, e.workspace_name, e.occurred_at, e.occurred_rule,
        e.dedup_key, e.dedup_rule, e.metric, e.amount, e.lead_id, e.lead, e.reply_uuid, e.account
    FROM unnest(events) AS e;
END
$$;

COMMENT ON FUNCTION bisonsync_private.apply_events(bigint[], timestamptz[], text[], text[], bigint[], text[], jsonb[], boolean) IS
    'The one rule book: reads unwrapped deliveries, lets each event that is new take effect once, and returns for each delivery the status it has now (as verdict). Called by receive_deliveries and process_deliveries alone, in whose transaction everything commits. p_again: the deliveries were stored before.';
