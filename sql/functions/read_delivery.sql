-- needs: parse_event_time, parse_event_id, url_origin
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
        j.verdict,
        j.reason,
        p.event_type,
        o.instance,
        o.workspace_id,
        btrim(p.workspace_name),
        t.occurred_at,
        t.occurred_rule,
        CASE
            WHEN j.verdict <> 'apply' THEN NULL
            WHEN k.id IS NULL THEN 'body:' || encode(
                sha256(
                    convert_to(
                        jsonb_build_object(
                            'event', (p.event - 'name' - 'workspace_name') || jsonb_build_object('type', p.event_type),
                            'data', p.part
                        )::text,
                        'UTF8'
                    )
                ),
                'hex'
            )
            ELSE split_part(k.rule, '.', 1) || ':' || k.id
        END,
        CASE WHEN j.verdict = 'apply' THEN CASE WHEN k.id IS NULL THEN 'body' ELSE k.rule END END,
        CASE p.event_type
            WHEN 'email_sent' THEN 'emails_sent'
            WHEN 'lead_replied' THEN 'replies'
            WHEN 'lead_interested' THEN 'interested'
            WHEN 'email_bounced' THEN 'bounced'
            WHEN 'lead_unsubscribed' THEN 'unsubscribed'
            WHEN 'increment_metric' THEN CASE WHEN source = 'legacy' THEN p.legacy_metric END
        END,
        CASE WHEN r.wanted_rule = 'increment.id' THEN p.legacy_amount ELSE 1 END,
        -- An id of another shape, or beyond what a lead can have, is as none: the event counts, without a row of its lead.
        -- Not \d: in some locales that is any script's digit, which bigint refuses.
        CASE
            WHEN r.wanted_rule IN ('campaign_event.id', 'reply.id') AND r.lead_id ~ '^[0-9]{1,18}$' THEN r.lead_id::bigint
        END,
        CASE WHEN jsonb_typeof(p.lead) = 'object' THEN p.lead END,
        CASE WHEN jsonb_typeof(p.reply -> 'uuid') = 'string' THEN p.reply ->> 'uuid' END,
        CASE WHEN r.wanted_rule = 'sender_email.id+updated_at' THEN p.sender_email END
    FROM (
        SELECT
            body -> 'event' AS event,
            body -> 'data' AS part,
            CASE
                WHEN jsonb_typeof(body #> '{event,type}') = 'string' THEN lower(btrim(body #>> '{event,type}'))
            END AS event_type
        OFFSET 0
    ) AS b
    CROSS JOIN LATERAL (
        SELECT
            b.event,
            b.part,
            nullif(b.event_type, '') AS event_type,
            b.event ->> 'workspace_name' AS workspace_name,
            b.event -> 'workspace_id' AS workspace_id,
            b.event ->> 'instance_url' AS instance_url,
            -- An empty object arrives from some senders as an empty list.
            nullif(b.part -> 'reply', '[]') AS reply,
            nullif(b.part -> 'campaign_event', '[]') AS campaign_event,
            nullif(b.part -> 'scheduled_email', '[]') AS scheduled_email,
            nullif(b.part -> 'sender_email', '[]') AS sender_email,
            b.part -> 'lead' AS lead,
            CASE replace(lower(btrim(b.part ->> 'metric')), '_mtd', '')
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
            CASE WHEN b.part ->> 'increment_by' ~ '^-?[0-9]{1,9}$' THEN (b.part ->> 'increment_by')::bigint END AS legacy_amount
        OFFSET 0
    ) AS p
    CROSS JOIN LATERAL (
        SELECT
            bisonsync_private.parse_event_id(p.workspace_id) AS workspace_id,
            bisonsync_private.parse_event_id(p.lead -> 'id') AS lead_id,
            -- Nearly always it is told as it is known.
            coalesce(
                (SELECT i.origin FROM bisonsync_private.instance_origins AS i WHERE i.origin = p.instance_url LIMIT 1),
                bisonsync_private.url_origin(p.instance_url)
            ) AS origin,
            CASE
                WHEN
                    p.event_type IN ('email_sent', 'lead_first_contacted', 'email_opened', 'lead_unsubscribed')
                    THEN 'campaign_event.id'
                WHEN
                    p.event_type IN (
                        'lead_replied', 'lead_interested', 'email_bounced', 'untracked_reply_received', 'manual_email_sent'
                    )
                    THEN 'reply.id'
                WHEN
                    p.event_type IN (
                        'email_account_added', 'email_account_removed', 'email_account_disconnected',
                        'email_account_reconnected'
                    )
                    OR p.event_type LIKE 'warmup\_%'
                    THEN 'sender_email.id+updated_at'
                WHEN p.event_type = 'increment_metric' AND source = 'legacy' THEN 'increment.id'
                ELSE 'body'
            END AS wanted_rule
        OFFSET 0
    ) AS r
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN x.id IS NOT NULL AND x.version IS NOT NULL THEN x.id || '@' || x.version
                WHEN r.wanted_rule = 'sender_email.id+updated_at' THEN NULL
                WHEN x.id IS NULL AND r.wanted_rule = 'campaign_event.id'
                    THEN bisonsync_private.parse_event_id(p.scheduled_email -> 'id')
                ELSE x.id
            END AS id,
            CASE
                WHEN x.id IS NULL AND r.wanted_rule = 'campaign_event.id' THEN 'scheduled_email.id'
                ELSE r.wanted_rule
            END AS rule
        FROM (
            SELECT
                CASE r.wanted_rule
                    WHEN 'campaign_event.id' THEN bisonsync_private.parse_event_id(p.campaign_event -> 'id')
                    WHEN 'reply.id' THEN bisonsync_private.parse_event_id(p.reply -> 'id')
                    WHEN 'sender_email.id+updated_at' THEN bisonsync_private.parse_event_id(p.sender_email -> 'id')
                    WHEN 'increment.id' THEN p.part ->> 'id'
                END AS id,
                CASE
                    WHEN r.wanted_rule = 'sender_email.id+updated_at'
                        -- The same moment in another spelling is the same.
                        THEN coalesce(
                            to_char(
                                bisonsync_private.parse_event_time(p.sender_email ->> 'updated_at') AT TIME ZONE 'UTC',
                                'YYYY-MM-DD"T"HH24:MI:SS.US'
                            ),
                            left(p.sender_email ->> 'updated_at', 100)
                        )
                END AS version
            OFFSET 0
        ) AS x
        OFFSET 0
    ) AS k
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN m.is_future THEN received_at ELSE coalesce(m.told_at, received_at) END AS occurred_at,
            CASE WHEN m.is_future OR m.told_at IS NULL THEN 'received_at' ELSE m.told_rule END AS occurred_rule,
            m.sample_at
        FROM (
            SELECT c.told_at, c.told_rule, c.sample_at, coalesce(c.told_at > received_at + interval '1 hour', false) AS is_future
            FROM (
                SELECT
                    coalesce(
                        s.campaign_event_at,
                        s.reply_at,
                        s.sent_at,
                        -- A mail moves its mailbox. What else happens to one may find it as it was for months.
                        CASE WHEN r.wanted_rule IN ('campaign_event.id', 'reply.id') THEN s.moved_at END
                    ) AS told_at,
                    CASE
                        WHEN s.campaign_event_at IS NOT NULL THEN 'campaign_event.created_at'
                        WHEN s.reply_at IS NOT NULL THEN 'reply.created_at'
                        WHEN s.sent_at IS NOT NULL THEN 'scheduled_email.sent_at'
                        ELSE 'sender_email.updated_at'
                    END AS told_rule,
                    coalesce(s.campaign_event_at, s.reply_at, s.sent_at, s.moved_at) AS sample_at
                FROM (
                    SELECT
                        f.campaign_event_at,
                        f.reply_at,
                        CASE
                            WHEN coalesce(f.campaign_event_at, f.reply_at) IS NULL
                                THEN bisonsync_private.parse_event_time(p.scheduled_email ->> 'sent_at')
                        END AS sent_at,
                        CASE
                            WHEN coalesce(f.campaign_event_at, f.reply_at) IS NULL
                                THEN bisonsync_private.parse_event_time(p.sender_email ->> 'updated_at')
                        END AS moved_at
                    FROM (
                        SELECT
                            bisonsync_private.parse_event_time(p.campaign_event ->> 'created_at') AS campaign_event_at,
                            bisonsync_private.parse_event_time(p.reply ->> 'created_at') AS reply_at
                        OFFSET 0
                    ) AS f
                    OFFSET 0
                ) AS s
            ) AS c
            OFFSET 0
        ) AS m
        OFFSET 0
    ) AS t
    CROSS JOIN LATERAL (
        SELECT
            n.instance,
            n.workspace_id,
            n.instance IS NOT NULL AND n.workspace_id IS NOT NULL AND EXISTS (
                SELECT
                FROM public.client_registry AS g
                WHERE g.bison_instance = n.instance AND g.bison_workspace_id = n.workspace_id
            ) AS is_registered
        FROM (
            SELECT
                CASE
                    WHEN hook_instance IS NOT NULL THEN hook_instance
                    WHEN p.event_type = 'increment_metric' AND source = 'legacy' THEN (
                        SELECT CASE WHEN count(*) = 1 THEN min(g.bison_instance) END
                        FROM public.client_registry AS g
                        WHERE lower(btrim(p.workspace_name)) IN (lower(g.workspace_name), lower(g.display_name))
                    )
                    WHEN r.origin IS NOT NULL THEN (
                        SELECT i.bison_instance
                        FROM bisonsync_private.instance_origins AS i
                        LEFT JOIN public.client_registry AS g
                            ON g.bison_instance = i.bison_instance AND g.bison_workspace_id = w.workspace_id
                        WHERE i.origin = r.origin
                        ORDER BY i.is_former, g.bison_workspace_id IS NULL, i.bison_instance
                        LIMIT 1
                    )
                    ELSE (
                        SELECT CASE WHEN count(*) = 1 THEN min(g.bison_instance) END
                        FROM public.client_registry AS g
                        WHERE g.bison_workspace_id = w.workspace_id
                    )
                END AS instance,
                CASE
                    WHEN hook_instance IS NOT NULL THEN hook_workspace_id
                    WHEN p.event_type = 'increment_metric' AND source = 'legacy' THEN (
                        SELECT CASE WHEN count(*) = 1 THEN min(g.bison_workspace_id) END
                        FROM public.client_registry AS g
                        WHERE lower(btrim(p.workspace_name)) IN (lower(g.workspace_name), lower(g.display_name))
                    )
                    ELSE w.workspace_id
                END AS workspace_id
            FROM (
                SELECT CASE WHEN r.workspace_id ~ '^[0-9]{1,18}$' THEN r.workspace_id::bigint END AS workspace_id OFFSET 0
            ) AS w
            OFFSET 0
        ) AS n
        OFFSET 0
    ) AS o
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN v.fault IN ('mismatch', 'unknown_workspace', 'test', 'ignored') THEN v.fault
                WHEN v.fault IS NOT NULL THEN 'dead'
                ELSE 'apply'
            END AS verdict,
            CASE v.fault
                WHEN 'mismatch' THEN coalesce(
                    'the payload is of workspace ' || left(r.workspace_id, 40) || ' at '
                    || coalesce(left(r.origin, 200), 'an instance it does not name')
                    || ', the address it came to belongs to ' || hook_instance || '/' || hook_workspace_id,
                    'the payload is of another workspace than the address it came to'
                )
                WHEN 'unknown_workspace' THEN CASE
                    WHEN p.event_type = 'increment_metric' AND source = 'legacy'
                        THEN 'no registered workspace, or more than one, has this name: ' || coalesce(left(p.workspace_name, 100), '')
                    ELSE 'workspace ' || left(r.workspace_id, 40) || ' of '
                    || coalesce(o.instance, left(r.origin, 200), 'an instance it does not name') || ' is not registered'
                END
                WHEN 'test' THEN 'a test'
                WHEN 'ignored' THEN 'too old: more than 70 days ago'
                ELSE v.fault
            END AS reason
        FROM (
            SELECT CASE
                WHEN forced_verdict IS NOT NULL THEN forced_verdict
                WHEN body IS NULL THEN 'it came without content'
                WHEN jsonb_typeof(body) <> 'object' THEN 'the body is no JSON object'
                WHEN jsonb_typeof(p.event) IS DISTINCT FROM 'object' THEN 'there is no event object in it'
                -- The vendor's published sample, which test calls send as well, is no event of anybody: these are its moments.
                WHEN
                    p.sender_email ->> 'created_at' = '2024-08-02T06:06:40.000000Z'
                    AND (
                        t.sample_at IN (
                            '2024-08-02 06:06:40Z', '2024-08-02 06:08:38Z', '2024-08-02 06:09:35Z', '2024-08-03 10:00:05Z'
                        )
                        OR (r.wanted_rule = 'sender_email.id+updated_at' AND t.sample_at < '2024-08-05 00:00Z')
                    )
                    THEN 'test'
                WHEN
                    p.event ->> 'workspace_name' = 'Red Team' AND hook_workspace_id::text <> r.workspace_id
                    AND p.part @> '{"tag_id": 1, "tag_name": "Interested", "taggable_id": 20, "taggable_type": "Campaign"}'
                    THEN 'test'
                WHEN
                    hook_instance IS NOT NULL
                    AND (
                        (r.workspace_id IS NOT NULL AND r.workspace_id <> hook_workspace_id::text)
                        OR (
                            r.origin IS NOT NULL
                            AND coalesce(
                                (
                                    -- A former address at which another instance is now is that one's.
                                    SELECT bool_and(
                                        i.origin <> r.origin
                                        OR (
                                            i.is_former
                                            AND EXISTS (
                                                SELECT
                                                FROM bisonsync_private.instance_origins AS o
                                                WHERE
                                                    o.origin = i.origin
                                                    AND NOT o.is_former
                                                    AND o.bison_instance <> i.bison_instance
                                            )
                                        )
                                    )
                                    FROM bisonsync_private.instance_origins AS i
                                    WHERE i.bison_instance = hook_instance
                                ),
                                -- Of an instance that is no longer in the settings only what is plainly another's is refused.
                                EXISTS (SELECT FROM bisonsync_private.instance_origins AS i WHERE i.origin = r.origin)
                            )
                        )
                    )
                    THEN 'mismatch'
                WHEN p.event_type IS NULL THEN 'event.type is missing or no text'
                WHEN length(p.event_type) > 100 THEN 'event.type is no type: it is too long'
                WHEN jsonb_typeof(p.part) IS DISTINCT FROM 'object' THEN 'data is missing or no object'
                WHEN coalesce(jsonb_typeof(p.reply), 'null') NOT IN ('object', 'null') THEN 'data.reply is no object'
                WHEN coalesce(jsonb_typeof(p.campaign_event), 'null') NOT IN ('object', 'null') THEN 'data.campaign_event is no object'
                WHEN coalesce(jsonb_typeof(p.scheduled_email), 'null') NOT IN ('object', 'null') THEN 'data.scheduled_email is no object'
                WHEN coalesce(jsonb_typeof(p.sender_email), 'null') NOT IN ('object', 'null') THEN 'data.sender_email is no object'
                WHEN r.wanted_rule = 'reply.id' AND jsonb_typeof(p.reply -> 'id') IN ('object', 'array', 'boolean')
                    THEN 'data.reply.id is neither number nor text'
                WHEN
                    r.wanted_rule = 'campaign_event.id'
                    AND jsonb_typeof(p.campaign_event -> 'id') IN ('object', 'array', 'boolean')
                    THEN 'data.campaign_event.id is neither number nor text'
                WHEN k.rule = 'scheduled_email.id' AND jsonb_typeof(p.scheduled_email -> 'id') IN ('object', 'array', 'boolean')
                    THEN 'data.scheduled_email.id is neither number nor text'
                WHEN
                    r.wanted_rule = 'sender_email.id+updated_at'
                    AND bisonsync_private.parse_event_id(p.sender_email -> 'id') !~ '^[0-9]{1,18}$' IS NOT FALSE
                    THEN 'data.sender_email.id is missing or no number'
                WHEN r.wanted_rule = 'increment.id' AND p.legacy_metric IS NULL
                    THEN 'there is no counter named ' || coalesce(left(p.part ->> 'metric', 100), 'nothing')
                WHEN r.wanted_rule = 'increment.id' AND p.legacy_amount IS NULL THEN 'increment_by is no whole number'
                WHEN jsonb_typeof(p.workspace_id) NOT IN ('number', 'string', 'null') OR r.workspace_id !~ '^[0-9]{1,18}$'
                    THEN 'event.workspace_id is no number'
                WHEN r.workspace_id IS NULL AND hook_instance IS NULL AND r.wanted_rule <> 'increment.id'
                    THEN 'event.workspace_id is missing, and it came to no workspace''s own address'
                WHEN NOT o.is_registered THEN 'unknown_workspace'
                WHEN t.occurred_at < now() - interval '70 days' THEN 'ignored'
            END AS fault
            OFFSET 0
        ) AS v
        OFFSET 0
    ) AS j
$$;

COMMENT ON FUNCTION bisonsync_private.read_delivery(jsonb, timestamptz, text, text, bigint, text) IS
    'What one unwrapped delivery says, and whether it may take effect (verdict apply) or how it ends without (dead, mismatch, unknown_workspace, test, ignored). hook_…: whose secret or token brought it; forced_verdict: known from elsewhere. Reads only, never raises. The identities are those of the vendor''s payloads, which number neither events nor deliveries.';
