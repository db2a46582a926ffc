-- needs: parse_event_time, parse_event_id, url_origin
CREATE OR REPLACE FUNCTION bisonsync_private.identify_event(body jsonb, source text)
RETURNS TABLE (
    event jsonb,
    part jsonb,
    event_type text,
    workspace_name text,
    workspace_id text,
    origin text,
    reply jsonb,
    campaign_event jsonb,
    scheduled_email jsonb,
    sender_email jsonb,
    lead jsonb,
    lead_id text,
    metric text,
    amount bigint,
    wanted_rule text,
    key_id text,
    key_rule text,
    fault text
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        outer_parts.event,
        outer_parts.part,
        nullif(outer_parts.event_type, ''),
        parts.workspace_name,
        ids.workspace_id,
        ids.origin,
        parts.reply,
        parts.campaign_event,
        parts.scheduled_email,
        parts.sender_email,
        parts.lead,
        ids.lead_id,
        CASE outer_parts.event_type
            WHEN 'email_sent' THEN 'emails_sent'
            WHEN 'lead_replied' THEN 'replies'
            WHEN 'lead_interested' THEN 'interested'
            WHEN 'email_bounced' THEN 'bounced'
            WHEN 'lead_unsubscribed' THEN 'unsubscribed'
            WHEN 'increment_metric' THEN CASE WHEN source = 'legacy' THEN parts.legacy_metric END
        END,
        CASE WHEN ids.wanted_rule = 'increment.id' THEN parts.legacy_amount ELSE 1 END,
        ids.wanted_rule,
        CASE
            WHEN own_key.id IS NOT NULL AND own_key.version IS NOT NULL THEN own_key.id || '@' || own_key.version
            WHEN ids.wanted_rule = 'sender_email.id+updated_at' THEN NULL
            WHEN own_key.id IS NULL AND ids.wanted_rule = 'campaign_event.id'
                THEN bisonsync_private.parse_event_id(parts.scheduled_email -> 'id')
            ELSE own_key.id
        END,
        CASE
            WHEN own_key.id IS NULL AND ids.wanted_rule = 'campaign_event.id' THEN 'scheduled_email.id'
            ELSE ids.wanted_rule
        END,
        CASE
            WHEN body IS NULL THEN 'it came without content'
            WHEN jsonb_typeof(body) <> 'object' THEN 'the body is no JSON object'
            WHEN jsonb_typeof(outer_parts.event) IS DISTINCT FROM 'object' THEN 'there is no event object in it'
            WHEN nullif(outer_parts.event_type, '') IS NULL THEN 'event.type is missing or no text'
            WHEN length(outer_parts.event_type) > 100 THEN 'event.type is no type: it is too long'
            WHEN jsonb_typeof(outer_parts.part) IS DISTINCT FROM 'object' THEN 'data is missing or no object'
            WHEN coalesce(jsonb_typeof(parts.reply), 'null') NOT IN ('object', 'null') THEN 'data.reply is no object'
            WHEN coalesce(jsonb_typeof(parts.campaign_event), 'null') NOT IN ('object', 'null')
                THEN 'data.campaign_event is no object'
            WHEN coalesce(jsonb_typeof(parts.scheduled_email), 'null') NOT IN ('object', 'null')
                THEN 'data.scheduled_email is no object'
            WHEN coalesce(jsonb_typeof(parts.sender_email), 'null') NOT IN ('object', 'null')
                THEN 'data.sender_email is no object'
            WHEN ids.wanted_rule = 'reply.id' AND jsonb_typeof(parts.reply -> 'id') IN ('object', 'array', 'boolean')
                THEN 'data.reply.id is neither number nor text'
            WHEN
                ids.wanted_rule = 'campaign_event.id'
                AND jsonb_typeof(parts.campaign_event -> 'id') IN ('object', 'array', 'boolean')
                THEN 'data.campaign_event.id is neither number nor text'
            WHEN
                ids.wanted_rule = 'campaign_event.id'
                AND own_key.id IS NULL
                AND jsonb_typeof(parts.scheduled_email -> 'id') IN ('object', 'array', 'boolean')
                THEN 'data.scheduled_email.id is neither number nor text'
            WHEN ids.wanted_rule = 'sender_email.id+updated_at' AND own_key.id !~ '^[0-9]{1,18}$' IS NOT FALSE
                THEN 'data.sender_email.id is missing or no number'
            WHEN ids.wanted_rule = 'increment.id' AND parts.legacy_metric IS NULL
                THEN 'there is no counter named ' || coalesce(left(outer_parts.part ->> 'metric', 100), 'nothing')
            WHEN ids.wanted_rule = 'increment.id' AND parts.legacy_amount IS NULL THEN 'increment_by is no whole number'
            WHEN
                jsonb_typeof(parts.workspace_id) NOT IN ('number', 'string', 'null')
                OR ids.workspace_id !~ '^[0-9]{1,18}$'
                THEN 'event.workspace_id is no number'
        END
    FROM (
        SELECT
            body -> 'event' AS event,
            body -> 'data' AS part,
            CASE
                WHEN jsonb_typeof(body #> '{event,type}') = 'string' THEN lower(btrim(body #>> '{event,type}'))
            END AS event_type
        -- A fence: without one, each part is cut out of the whole payload again wherever it is named below.
        OFFSET 0
    ) AS outer_parts
    CROSS JOIN LATERAL (
        SELECT
            outer_parts.event ->> 'workspace_name' AS workspace_name,
            outer_parts.event -> 'workspace_id' AS workspace_id,
            outer_parts.event ->> 'instance_url' AS instance_url,
            -- An empty object arrives from some senders as an empty list.
            nullif(outer_parts.part -> 'reply', '[]') AS reply,
            nullif(outer_parts.part -> 'campaign_event', '[]') AS campaign_event,
            nullif(outer_parts.part -> 'scheduled_email', '[]') AS scheduled_email,
            nullif(outer_parts.part -> 'sender_email', '[]') AS sender_email,
            outer_parts.part -> 'lead' AS lead,
            CASE replace(lower(btrim(outer_parts.part ->> 'metric')), '_mtd', '')
                WHEN 'emails_sent' THEN 'emails_sent'
                WHEN 'replies' THEN 'replies'
                WHEN 'interested' THEN 'interested'
                WHEN 'positive_replies' THEN 'interested'
                WHEN 'bounced' THEN 'bounced'
                WHEN 'bounces' THEN 'bounced'
                WHEN 'unsubscribed' THEN 'unsubscribed'
                WHEN 'unsubscribes' THEN 'unsubscribed'
                WHEN 'unique_replies' THEN 'unique_replies'
            END AS legacy_metric,
            CASE
                WHEN outer_parts.part ->> 'increment_by' ~ '^-?[0-9]{1,9}$' THEN (outer_parts.part ->> 'increment_by')::bigint
            END AS legacy_amount
        -- A fence: each object is named many times, here and by the caller, and is to be cut out once.
        OFFSET 0
    ) AS parts
    CROSS JOIN LATERAL (
        SELECT
            bisonsync_private.parse_event_id(parts.workspace_id) AS workspace_id,
            bisonsync_private.parse_event_id(parts.lead -> 'id') AS lead_id,
            -- Nearly always it is told as it is known.
            coalesce(
                (
                    SELECT known.origin
                    FROM bisonsync_private.instance_origins AS known
                    WHERE known.origin = parts.instance_url
                    LIMIT 1
                ),
                bisonsync_private.url_origin(parts.instance_url)
            ) AS origin,
            CASE
                WHEN
                    outer_parts.event_type IN ('email_sent', 'lead_first_contacted', 'email_opened', 'lead_unsubscribed')
                    THEN 'campaign_event.id'
                WHEN
                    outer_parts.event_type IN (
                        'lead_replied', 'lead_interested', 'email_bounced', 'untracked_reply_received', 'manual_email_sent'
                    )
                    THEN 'reply.id'
                WHEN
                    outer_parts.event_type IN (
                        'email_account_added', 'email_account_removed', 'email_account_disconnected',
                        'email_account_reconnected'
                    )
                    OR outer_parts.event_type LIKE 'warmup\_%'
                    THEN 'sender_email.id+updated_at'
                WHEN outer_parts.event_type = 'increment_metric' AND source = 'legacy' THEN 'increment.id'
                ELSE 'body'
            END AS wanted_rule
        -- A fence: the address is looked up once, and the ids are read once.
        OFFSET 0
    ) AS ids
    CROSS JOIN LATERAL (
        SELECT
            CASE ids.wanted_rule
                WHEN 'campaign_event.id' THEN bisonsync_private.parse_event_id(parts.campaign_event -> 'id')
                WHEN 'reply.id' THEN bisonsync_private.parse_event_id(parts.reply -> 'id')
                WHEN 'sender_email.id+updated_at' THEN bisonsync_private.parse_event_id(parts.sender_email -> 'id')
                WHEN 'increment.id' THEN outer_parts.part ->> 'id'
            END AS id,
            CASE
                WHEN ids.wanted_rule = 'sender_email.id+updated_at'
                    -- The same moment in another spelling is the same.
                    THEN coalesce(
                        to_char(
                            bisonsync_private.parse_event_time(parts.sender_email ->> 'updated_at') AT TIME ZONE 'UTC',
                            'YYYY-MM-DD"T"HH24:MI:SS.US'
                        ),
                        left(parts.sender_email ->> 'updated_at', 100)
                    )
            END AS version
        -- A fence: the key, its rule and the faults all name the id.
        OFFSET 0
    ) AS own_key
    -- A fence: the caller names the key and the fault more than once.
    OFFSET 0
$$;

COMMENT ON FUNCTION bisonsync_private.identify_event(jsonb, text) IS
    'The parts of one unwrapped delivery, what it counts, and by which id it is known: wanted_rule is the rule of its type, key_rule the one that found key_id. fault: what is wrong with its shape; null for a sound one. Reads only, never raises.';
