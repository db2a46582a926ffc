-- needs: is_newer_contact
CREATE OR REPLACE FUNCTION bisonsync_private.apply_to_leads(p_events bisonsync_private.webhook_event[])
RETURNS void
LANGUAGE plpgsql
VOLATILE
AS $$
BEGIN
    INSERT INTO public.client_leads AS l (
        bison_instance, bison_workspace_id, bison_lead_id,
        lead_email, first_name, last_name, company, title, phone, custom_variables, contact_as_of, contact_hash,
        conversation_url, conversation_as_of,
        first_sent_at, last_sent_at, first_contacted_at, last_contacted_at, first_opened_at, last_opened_at, first_replied_at, last_replied_at, first_interested_at, last_interested_at, first_bounced_at, last_bounced_at, first_unsubscribed_at, last_unsubscribed_at, first_manual_sent_at, last_manual_sent_at
    )
    SELECT
        g.bison_instance,
        g.bison_workspace_id,
        g.lead_id,
        nullif(lower(btrim((g.latest).lead ->> 'email')), ''),
        (g.latest).lead ->> 'first_name',
        (g.latest).lead ->> 'last_name',
        (g.latest).lead ->> 'company',
        (g.latest).lead ->> 'title',
        coalesce(
            (g.latest).lead ->> 'phone',
            (
                SELECT v.variable ->> 'value'
                FROM jsonb_array_elements(
                    CASE jsonb_typeof((g.latest).lead -> 'custom_variables')
                        WHEN 'array' THEN (g.latest).lead -> 'custom_variables' ELSE '[]'
                    END
                ) WITH ORDINALITY AS v (variable, place)
                WHERE lower(btrim(v.variable ->> 'name')) IN ('phone', 'phone number', 'phone_number')
                ORDER BY v.place
                LIMIT 1
            )
        ),
        CASE jsonb_typeof((g.latest).lead -> 'custom_variables')
            WHEN 'array' THEN (g.latest).lead -> 'custom_variables' ELSE '[]'
        END,
        (g.latest).occurred_at,
        md5((g.latest).lead::text)::uuid,
        CASE
            WHEN (g.last_reply).reply_uuid IS NOT NULL THEN (
                SELECT i.base_url || '/inbox/replies/' || (g.last_reply).reply_uuid
                FROM bisonsync_private.instance_origins AS i
                WHERE i.bison_instance = g.bison_instance AND NOT i.is_former
                ORDER BY i.origin
                LIMIT 1
            )
        END,
        (g.last_reply).occurred_at,
        g.first_sent_at,
        g.last_sent_at,
        g.first_contacted_at,
        g.last_contacted_at,
        g.first_opened_at,
        g.last_opened_at,
        g.first_replied_at,
        g.last_replied_at,
        g.first_interested_at,
        g.last_interested_at,
        g.first_bounced_at,
        g.last_bounced_at,
        g.first_unsubscribed_at,
        g.last_unsubscribed_at,
        g.first_manual_sent_at,
        g.last_manual_sent_at
    FROM (
        SELECT
            e.bison_instance,
            e.bison_workspace_id,
            e.lead_id,
            -- The latest that has an address.
            (array_agg(e ORDER BY nullif(btrim(e.lead ->> 'email'), '') IS NOT NULL DESC, e.occurred_at DESC, md5(e.lead::text) DESC))[1] AS latest,
            (
                array_agg(e ORDER BY e.occurred_at DESC, e.reply_uuid DESC) FILTER (
                    WHERE e.reply_uuid IS NOT NULL AND e.event_type IN ('lead_replied', 'lead_interested')
                )
            )[1] AS last_reply,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'email_sent') AS first_sent_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'email_sent') AS last_sent_at,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'lead_first_contacted') AS first_contacted_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'lead_first_contacted') AS last_contacted_at,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'email_opened') AS first_opened_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'email_opened') AS last_opened_at,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'lead_replied') AS first_replied_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'lead_replied') AS last_replied_at,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'lead_interested') AS first_interested_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'lead_interested') AS last_interested_at,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'email_bounced') AS first_bounced_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'email_bounced') AS last_bounced_at,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'lead_unsubscribed') AS first_unsubscribed_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'lead_unsubscribed') AS last_unsubscribed_at,
            min(e.occurred_at) FILTER (WHERE e.event_type = 'manual_email_sent') AS first_manual_sent_at,
            max(e.occurred_at) FILTER (WHERE e.event_type = 'manual_email_sent') AS last_manual_sent_at
        FROM unnest(p_events) AS e
        WHERE e.verdict IN ('apply', 'again') AND e.lead_id IS NOT NULL
        GROUP BY e.bison_instance, e.bison_workspace_id, e.lead_id
    ) AS g
    ORDER BY g.bison_instance, g.bison_workspace_id, g.lead_id
    ON CONFLICT (bison_instance, bison_workspace_id, bison_lead_id) DO UPDATE SET
        lead_email = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.lead_email ELSE l.lead_email
        END,
        first_name = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.first_name ELSE l.first_name
        END,
        last_name = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.last_name ELSE l.last_name
        END,
        company = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.company ELSE l.company
        END,
        title = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.title ELSE l.title
        END,
        phone = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.phone ELSE l.phone
        END,
        custom_variables = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.custom_variables ELSE l.custom_variables
        END,
        contact_as_of = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.contact_as_of ELSE l.contact_as_of
        END,
        contact_hash = CASE
            WHEN bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
                l.lead_email, l.contact_as_of, l.contact_hash)
                THEN excluded.contact_hash ELSE l.contact_hash
        END,
        conversation_url = CASE WHEN (excluded.conversation_as_of, excluded.conversation_url) > (coalesce(l.conversation_as_of, '-infinity'), coalesce(l.conversation_url, '')) THEN excluded.conversation_url ELSE l.conversation_url END,
        conversation_as_of = greatest(l.conversation_as_of, excluded.conversation_as_of),
        first_sent_at = least(l.first_sent_at, excluded.first_sent_at),
        last_sent_at = greatest(l.last_sent_at, excluded.last_sent_at),
        first_contacted_at = least(l.first_contacted_at, excluded.first_contacted_at),
        last_contacted_at = greatest(l.last_contacted_at, excluded.last_contacted_at),
        first_opened_at = least(l.first_opened_at, excluded.first_opened_at),
        last_opened_at = greatest(l.last_opened_at, excluded.last_opened_at),
        first_replied_at = least(l.first_replied_at, excluded.first_replied_at),
        last_replied_at = greatest(l.last_replied_at, excluded.last_replied_at),
        first_interested_at = least(l.first_interested_at, excluded.first_interested_at),
        last_interested_at = greatest(l.last_interested_at, excluded.last_interested_at),
        first_bounced_at = least(l.first_bounced_at, excluded.first_bounced_at),
        last_bounced_at = greatest(l.last_bounced_at, excluded.last_bounced_at),
        first_unsubscribed_at = least(l.first_unsubscribed_at, excluded.first_unsubscribed_at),
        last_unsubscribed_at = greatest(l.last_unsubscribed_at, excluded.last_unsubscribed_at),
        first_manual_sent_at = least(l.first_manual_sent_at, excluded.first_manual_sent_at),
        last_manual_sent_at = greatest(l.last_manual_sent_at, excluded.last_manual_sent_at),
        updated_at = now()
    -- What is known already is not written again.
    WHERE
        bisonsync_private.is_newer_contact(excluded.lead_email, excluded.contact_as_of, excluded.contact_hash,
            l.lead_email, l.contact_as_of, l.contact_hash)
        OR (excluded.conversation_as_of, excluded.conversation_url) > (coalesce(l.conversation_as_of, '-infinity'), coalesce(l.conversation_url, ''))
        OR excluded.first_sent_at < coalesce(l.first_sent_at, 'infinity')
            OR excluded.last_sent_at > coalesce(l.last_sent_at, '-infinity')
            OR excluded.first_contacted_at < coalesce(l.first_contacted_at, 'infinity')
            OR excluded.last_contacted_at > coalesce(l.last_contacted_at, '-infinity')
            OR excluded.first_opened_at < coalesce(l.first_opened_at, 'infinity')
            OR excluded.last_opened_at > coalesce(l.last_opened_at, '-infinity')
            OR excluded.first_replied_at < coalesce(l.first_replied_at, 'infinity')
            OR excluded.last_replied_at > coalesce(l.last_replied_at, '-infinity')
            OR excluded.first_interested_at < coalesce(l.first_interested_at, 'infinity')
            OR excluded.last_interested_at > coalesce(l.last_interested_at, '-infinity')
            OR excluded.first_bounced_at < coalesce(l.first_bounced_at, 'infinity')
            OR excluded.last_bounced_at > coalesce(l.last_bounced_at, '-infinity')
            OR excluded.first_unsubscribed_at < coalesce(l.first_unsubscribed_at, 'infinity')
            OR excluded.last_unsubscribed_at > coalesce(l.last_unsubscribed_at, '-infinity')
            OR excluded.first_manual_sent_at < coalesce(l.first_manual_sent_at, 'infinity')
            OR excluded.last_manual_sent_at > coalesce(l.last_manual_sent_at, '-infinity');

    IF FOUND THEN
        PERFORM pg_notify(
            'bisonsync',
            json_build_object(
                'table', 'client_leads', 'workspace', w.bison_instance || '/' || w.bison_workspace_id, 'kind', 'events'
            )::text
        )
        FROM (
            SELECT DISTINCT e.bison_instance, e.bison_workspace_id
            FROM unnest(p_events) AS e
            WHERE e.verdict IN ('apply', 'again') AND e.lead_id IS NOT NULL
        ) AS w;
    END IF;
END
$$;

COMMENT ON FUNCTION bisonsync_private.apply_to_leads(bisonsync_private.webhook_event[]) IS
    'Writes the leads that events name: first and last time of each kind, the contact as the latest event tells it. The order of events and their repetition change nothing.';
