-- needs: compare_counters
CREATE OR REPLACE FUNCTION bisonsync_private.repair_counters(p_instance text, p_workspace_id bigint, p_month date)
RETURNS TABLE (
    bison_instance text,
    bison_workspace_id bigint,
    metric_month date,
    counter text,
    stored bigint,
    folded bigint
)
LANGUAGE plpgsql
VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    names text[];
    wrong bigint[];
    right_ones bigint[];
BEGIN
    INSERT INTO public.client_metrics (bison_instance, bison_workspace_id, metric_month)
    VALUES (p_instance, p_workspace_id, p_month)
    ON CONFLICT DO NOTHING;

    -- Whoever counts takes this lock before it commits: with it in hand, keys and counters stand still together. The
    -- next statement sees all that was committed until now.
    PERFORM
    FROM public.client_metrics AS m
    WHERE m.bison_instance = p_instance AND m.bison_workspace_id = p_workspace_id AND m.metric_month = p_month
    FOR NO KEY UPDATE;

    SELECT array_agg(d.counter), array_agg(d.stored), array_agg(d.folded)
    INTO names, wrong, right_ones
    FROM bisonsync_private.compare_counters(ARRAY[p_instance], ARRAY[p_workspace_id], p_month, p_month) AS d;
    IF names IS NULL THEN
        RETURN;
    END IF;

    UPDATE public.client_metrics AS m
    SET
        emails_sent_webhook = r.emails_sent_webhook,
        emails_sent_after = r.emails_sent_after,
        replies_webhook = r.replies_webhook,
        replies_after = r.replies_after,
        interested_webhook = r.interested_webhook,
        interested_after = r.interested_after,
        bounced_webhook = r.bounced_webhook,
        bounced_after = r.bounced_after,
        unsubscribed_webhook = r.unsubscribed_webhook,
        unsubscribed_after = r.unsubscribed_after,
        unique_replies_webhook = r.unique_replies_webhook,
        updated_at = now()
    FROM public.client_metrics AS o
    CROSS JOIN LATERAL jsonb_populate_record(
        o, (SELECT jsonb_object_agg(n.name, n.value) FROM unnest(names, right_ones) AS n (name, value))
    ) AS r
    WHERE
        o.bison_instance = p_instance AND o.bison_workspace_id = p_workspace_id AND o.metric_month = p_month
        AND m.bison_instance = o.bison_instance
        AND m.bison_workspace_id = o.bison_workspace_id
        AND m.metric_type = o.metric_type
        AND m.metric_month = o.metric_month;

    PERFORM pg_notify(
        'bisonsync',
        json_build_object(
            'table', 'client_metrics', 'workspace', p_instance || '/' || p_workspace_id, 'kind', 'rebuild'
        )::text
    );
    RETURN QUERY
    SELECT p_instance, p_workspace_id, p_month, n.name, n.before, n.after
    FROM unnest(names, wrong, right_ones) AS n (name, before, after);
END
$$;

COMMENT ON FUNCTION bisonsync_private.repair_counters(text, bigint, date) IS
    'Sets one workspace''s counters of one month to the fold of webhook_event_keys, and returns those that were wrong. Locks the row: events of that workspace wait until the transaction ends.';
