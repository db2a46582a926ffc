-- needs: parse_event_count, parse_event_time, parse_event_id, provider_by_type
CREATE OR REPLACE FUNCTION bisonsync_private.apply_to_accounts(p_events bisonsync_private.webhook_event[])
RETURNS void
LANGUAGE plpgsql
VOLATILE
AS $$
DECLARE
    told_workspaces bigint;
    tries integer := 0;
BEGIN
    LOOP
        BEGIN
            WITH told AS MATERIALIZED (
                SELECT
                    e.bison_instance,
                    e.bison_workspace_id,
                    e.account_id,
                    max(e.occurred_at) FILTER (WHERE e.event_type ~ 'connected$') AS connection_at,
                    max(e.told_at) FILTER (WHERE e.event_type ~ 'connected$') AS connection_told_at,
                    max(e.occurred_at) FILTER (WHERE e.event_type = 'email_account_disconnected') AS disconnected_at,
                    max(e.occurred_at) FILTER (WHERE e.event_type IN ('email_account_added', 'email_account_removed')) AS presence_at,
                    max(e.occurred_at) FILTER (WHERE e.event_type = 'email_account_removed') AS removed_at,
                    bool_or(e.event_type LIKE 'warmup\_%') AS is_warmup_off,
                    (array_agg(e.account ORDER BY e.occurred_at DESC, md5(e.account::text)))[1] AS account
                FROM (
                    SELECT
                        u.*,
                        bisonsync_private.parse_event_id(u.account -> 'id')::bigint AS account_id,
                        -- What came at once counts from when it came: the platform's own time of it can be that of an earlier
                        -- activity.
                        CASE
                            WHEN u.received_at - u.occurred_at <= interval '10 minutes' THEN greatest(u.received_at, u.occurred_at)
                            ELSE u.occurred_at
                        END AS told_at
                    FROM unnest(p_events) AS u
                    -- Other types may be named like these; of them no account is read.
                    WHERE u.verdict IN ('apply', 'again') AND u.event_type ~ '^(email_account_|warmup_)' AND u.account IS NOT NULL
                ) AS e
                LEFT JOIN public.workspace_sync_state AS s
                    ON
                        s.bison_instance = e.bison_instance
                        AND s.bison_workspace_id = e.bison_workspace_id
                        AND s.resource = 'accounts'
                -- A complete read that began after the event knows better.
                WHERE s.last_complete_at IS NULL OR s.last_complete_at <= e.told_at
                GROUP BY e.bison_instance, e.bison_workspace_id, e.account_id
            ),
            -- Of the same moment the worse is believed.
            judged AS MATERIALIZED (
                SELECT
                    t.*,
                    t.connection_at = t.disconnected_at AS is_disconnected,
                    t.presence_at = t.removed_at AS is_removed
                FROM told AS t
            ),
            updated AS (
                UPDATE public.sender_emails_cache AS c
                SET
                    status = n.status,
                    status_as_of = n.status_as_of,
                    warmup_enabled = n.warmup_enabled,
                    removed_at = n.removed_at,
                    presence_as_of = n.presence_as_of,
                    event_applied_at = now(),
                    updated_at = now()
                FROM (
                    SELECT
                        k.id,
                        CASE
                            WHEN d.is_newer_status THEN CASE WHEN j.is_disconnected THEN 'Not connected' ELSE 'Connected' END
                            ELSE k.status
                        END AS status,
                        CASE WHEN d.is_newer_status THEN j.connection_at ELSE k.status_as_of END AS status_as_of,
                        CASE WHEN j.is_warmup_off THEN false ELSE k.warmup_enabled END AS warmup_enabled,
                        CASE
                            WHEN NOT d.is_newer_presence THEN k.removed_at
                            WHEN j.is_removed THEN j.presence_at
                            WHEN j.presence_at > k.removed_at THEN NULL
                            ELSE k.removed_at
                        END AS removed_at,
                        CASE WHEN d.is_newer_presence THEN j.presence_at ELSE k.presence_as_of END AS presence_as_of,
                        k.status AS old_status,
                        k.status_as_of AS old_status_as_of,
                        k.warmup_enabled AS old_warmup_enabled,
                        k.removed_at AS old_removed_at,
                        k.presence_as_of AS old_presence_as_of
                    FROM judged AS j
                    INNER JOIN public.sender_emails_cache AS k
                        ON
                            k.bison_instance = j.bison_instance
                            AND k.bison_workspace_id = j.bison_workspace_id
                            AND k.bison_account_id = j.account_id
                    CROSS JOIN LATERAL (
                        SELECT
                            coalesce(
                                j.connection_at > coalesce(k.status_as_of, '-infinity')
                                OR (j.connection_at = k.status_as_of AND j.is_disconnected)
                                -- The known status is of a read that began before the event came.
                                OR (j.connection_told_at >= k.status_as_of AND k.status_as_of > coalesce(k.event_applied_at, '-infinity')),
                                false
                            ) AS is_newer_status,
                            coalesce(
                                j.presence_at > coalesce(k.presence_as_of, '-infinity')
                                OR (j.presence_at = k.presence_as_of AND j.is_removed),
                                false
                            ) AS is_newer_presence
                    ) AS d
                    ORDER BY k.bison_instance, k.bison_workspace_id, k.bison_account_id
                    FOR NO KEY UPDATE OF k
                ) AS n
                WHERE
                    c.id = n.id
                    AND (n.status, n.status_as_of, n.warmup_enabled, n.removed_at, n.presence_as_of) IS DISTINCT FROM (
                        n.old_status, n.old_status_as_of, n.old_warmup_enabled, n.old_removed_at, n.old_presence_as_of
                    )
                RETURNING c.bison_instance, c.bison_workspace_id
            ),
            inserted AS (
                INSERT INTO public.sender_emails_cache (
                    bison_instance, bison_workspace_id, bison_account_id, workspace_name, email_address, account_name, domain,
                    emails_sent_count, total_replied_count, unique_replied_count, total_opened_count, unique_opened_count,
                    bounced_count, unsubscribed_count, interested_leads_count, total_leads_contacted_count,
                    status, status_as_of, daily_limit, warmup_enabled, account_type, email_provider,
                    bison_created_at, removed_at, presence_as_of, event_applied_at
                )
                SELECT
                    j.bison_instance,
                    j.bison_workspace_id,
                    j.account_id,
                    r.workspace_name,
                    coalesce(lower(btrim(j.account ->> 'email')), ''),
                    j.account ->> 'name',
                    nullif(split_part(lower(btrim(j.account ->> 'email')), '@', 2), ''),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'emails_sent'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'replied'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'unique_replies'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'opened'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'unique_opens'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'bounced'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'unsubscribed'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'interested'), 0),
                    coalesce(bisonsync_private.parse_event_count(j.account -> 'total_leads_contacted'), 0),
                    CASE
                        WHEN j.is_disconnected THEN 'Not connected'
                        WHEN j.connection_at IS NOT NULL THEN 'Connected'
                        WHEN lower(btrim(j.account ->> 'status')) = 'connected' THEN 'Connected'
                        WHEN lower(btrim(j.account ->> 'status')) IN ('not_connected', 'not connected') THEN 'Not connected'
                        ELSE j.account ->> 'status'
                    END,
                    j.connection_at,
                    bisonsync_private.parse_event_count(j.account -> 'daily_limit'),
                    CASE WHEN j.is_warmup_off THEN false END,
                    j.account ->> 'type',
                    bisonsync_private.provider_by_type(j.account ->> 'type', split_part(lower(j.account ->> 'email'), '@', 2)),
                    bisonsync_private.parse_event_time(j.account ->> 'created_at'),
                    CASE WHEN j.is_removed THEN j.presence_at END,
                    j.presence_at,
                    now()
                FROM judged AS j
                INNER JOIN public.client_registry AS r
                    ON r.bison_instance = j.bison_instance AND r.bison_workspace_id = j.bison_workspace_id
                WHERE NOT EXISTS (
                    SELECT
                    FROM public.sender_emails_cache AS k
                    WHERE
                        k.bison_instance = j.bison_instance
                        AND k.bison_workspace_id = j.bison_workspace_id
                        AND k.bison_account_id = j.account_id
                )
                ORDER BY j.bison_instance, j.bison_workspace_id, j.account_id
                RETURNING bison_instance, bison_workspace_id
            )
            SELECT count(pg_notify(
                'bisonsync',
                json_build_object(
                    'table', 'sender_emails_cache', 'workspace', w.bison_instance || '/' || w.bison_workspace_id, 'kind', 'events'
                )::text
            ))
            INTO told_workspaces
            FROM (
                SELECT u.bison_instance, u.bison_workspace_id FROM updated AS u
                UNION
                SELECT i.bison_instance, i.bison_workspace_id FROM inserted AS i
            ) AS w;
            RETURN;
        EXCEPTION
            -- A poll or another batch has made one of them since this began: it is there to be updated now.
            WHEN unique_violation THEN
                tries := tries + 1;
                IF tries = 5 THEN
                    RAISE;
                END IF;
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION bisonsync_private.apply_to_accounts(bisonsync_private.webhook_event[]) IS
    'Writes what events say of sender emails: added, removed, disconnected, reconnected, warm-up off. Of each the latest wins, whatever the order of arrival, and a complete read that began later wins over all.';
