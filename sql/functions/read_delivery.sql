-- needs: identify_event, event_moment, event_owner, judge_event
CREATE OR REPLACE FUNCTION bisonsync_private.read_delivery(
    body jsonb,
    received_at timestamptz,
    source text,
    hook_instance text,
    hook_workspace_id bigint,
    forced_verdict text
)
RETURNS TABLE (
    verdict text,
    reason text,
    event_type text,
    bison_instance text,
    bison_workspace_id bigint,
    workspace_name text,
    occurred_at timestamptz,
    occurred_rule text,
    dedup_key text,
    dedup_rule text,
    metric text,
    amount bigint,
    lead_id bigint,
    lead jsonb,
    reply_uuid text,
    account jsonb
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        judged.verdict,
        judged.reason,
        told.event_type,
        owned.bison_instance,
        owned.bison_workspace_id,
        btrim(told.workspace_name),
        moment.occurred_at,
        moment.occurred_rule,
        CASE
            WHEN judged.verdict <> 'apply' THEN NULL
            WHEN told.key_id IS NULL THEN 'body:' || encode(
                sha256(
                    convert_to(
                        jsonb_build_object(
                            'event',
                            (told.event - 'name' - 'workspace_name') || jsonb_build_object('type', told.event_type),
                            'data',
                            told.part
                        )::text,
                        'UTF8'
                    )
                ),
                'hex'
            )
            ELSE split_part(told.key_rule, '.', 1) || ':' || told.key_id
        END,
        CASE WHEN judged.verdict = 'apply' THEN CASE WHEN told.key_id IS NULL THEN 'body' ELSE told.key_rule END END,
        told.metric,
        told.amount,
        -- An id of another shape, or beyond what a lead can have, is as none: the event counts, without a row of its lead.
        -- Not \d: in some locales that is any script's digit, which bigint refuses.
        CASE
            WHEN told.wanted_rule IN ('campaign_event.id', 'reply.id') AND told.lead_id ~ '^[0-9]{1,18}$'
                THEN told.lead_id::bigint
        END,
        CASE WHEN jsonb_typeof(told.lead) = 'object' THEN told.lead END,
        CASE WHEN jsonb_typeof(told.reply -> 'uuid') = 'string' THEN told.reply ->> 'uuid' END,
        CASE WHEN told.wanted_rule = 'sender_email.id+updated_at' THEN told.sender_email END
    FROM bisonsync_private.identify_event(body, source) AS told
    CROSS JOIN LATERAL bisonsync_private.event_moment(
        told.campaign_event, told.reply, told.scheduled_email, told.sender_email, told.wanted_rule, received_at
    ) AS moment
    CROSS JOIN LATERAL bisonsync_private.event_owner(
        hook_instance, hook_workspace_id, told.wanted_rule = 'increment.id', told.workspace_name, told.origin,
        told.workspace_id
    ) AS owned
    CROSS JOIN LATERAL bisonsync_private.judge_event(
        forced_verdict, told.fault, moment.is_sample, told.event, told.part, told.workspace_name, told.origin,
        told.workspace_id, told.wanted_rule = 'increment.id', hook_instance, hook_workspace_id, owned.bison_instance,
        owned.is_registered, moment.occurred_at
    ) AS judged
$$;

COMMENT ON FUNCTION bisonsync_private.read_delivery(jsonb, timestamptz, text, text, bigint, text) IS
    'What one unwrapped delivery says, and whether it may take effect (verdict apply) or how it ends without (dead, mismatch, unknown_workspace, test, ignored). hook_…: whose secret or token brought it; forced_verdict: known from elsewhere. Reads only, never raises. The identities are those of the vendor''s payloads, which number neither events nor deliveries.';
