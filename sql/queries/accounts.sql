-- name: count_changes
-- How many accounts a read would insert, update, restore and leave; changes nothing.
SELECT
    count(*) FILTER (WHERE d.action = 'insert') AS inserted,
    count(*) FILTER (WHERE d.action IN ('update', 'extra')) AS updated,
    count(*) FILTER (WHERE d.action = 'restore') AS restored,
    count(*) FILTER (WHERE d.action = 'keep') AS unchanged
FROM bisonsync_private.compare_sender_emails(
    %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text,
    %(rows)s::json, %(read_started_at)s::timestamptz, %(rules)s::jsonb
) AS d;

-- name: upsert_accounts
-- Inserts what is new, updates and restores what differs, leaves the rest untouched and unlocked; counts of each. Of the
-- rows whose known fields stayed (idle), which unknown ones moved in a sample.
WITH d AS MATERIALIZED (
    SELECT *
    FROM bisonsync_private.compare_sender_emails(
        %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text,
        %(rows)s::json, %(read_started_at)s::timestamptz, %(rules)s::jsonb
    )
),

updated AS (
    UPDATE sender_emails_cache AS c
    SET
        workspace_name = d.workspace_name,
        email_address = d.email_address,
        account_name = d.account_name,
        domain = d.domain,
        emails_sent_count = d.emails_sent_count,
        total_replied_count = d.total_replied_count,
        unique_replied_count = d.unique_replied_count,
        total_opened_count = d.total_opened_count,
        unique_opened_count = d.unique_opened_count,
        bounced_count = d.bounced_count,
        unsubscribed_count = d.unsubscribed_count,
        interested_leads_count = d.interested_leads_count,
        total_leads_contacted_count = d.total_leads_contacted_count,
        status = d.status,
        status_as_of = d.status_as_of,
        daily_limit = d.daily_limit,
        warmup_enabled = d.warmup_enabled,
        account_type = d.account_type,
        email_provider = d.email_provider,
        reseller = d.reseller,
        price = d.price,
        volume_per_account = d.volume_per_account,
        tags = d.tags,
        extra = d.extra,
        bison_created_at = d.bison_created_at,
        removed_at = NULL,
        updated_at = now()
    FROM d
    WHERE
        d.action IN ('update', 'extra', 'restore')
        AND c.bison_instance = %(instance)s::text
        AND c.bison_workspace_id = %(workspace_id)s::bigint
        AND c.bison_account_id = d.bison_account_id
        -- What an event committed since the comparison wins; the next poll has the rest.
        AND greatest(c.status_as_of, c.event_applied_at) IS NOT DISTINCT FROM d.stored_as_of
        AND c.removed_at IS NOT DISTINCT FROM d.stored_removed_at
    RETURNING d.action
),

inserted AS (
    INSERT INTO sender_emails_cache (
        bison_instance, bison_workspace_id, bison_account_id, workspace_name, email_address, account_name, domain,
        emails_sent_count, total_replied_count, unique_replied_count, total_opened_count, unique_opened_count,
        bounced_count, unsubscribed_count, interested_leads_count, total_leads_contacted_count,
        status, status_as_of, daily_limit, warmup_enabled, account_type, email_provider, reseller,
        price, volume_per_account, tags, extra, bison_created_at
    )
    SELECT
        %(instance)s::text, %(workspace_id)s::bigint, d.bison_account_id, d.workspace_name, d.email_address,
        d.account_name, d.domain, d.emails_sent_count, d.total_replied_count, d.unique_replied_count,
        d.total_opened_count, d.unique_opened_count, d.bounced_count, d.unsubscribed_count,
        d.interested_leads_count, d.total_leads_contacted_count, d.status, d.status_as_of, d.daily_limit,
        d.warmup_enabled, d.account_type, d.email_provider, d.reseller, d.price, d.volume_per_account,
        d.tags, d.extra, d.bison_created_at
    FROM d
    WHERE d.action = 'insert'
    ORDER BY d.bison_account_id
    ON CONFLICT (bison_instance, bison_workspace_id, bison_account_id) DO NOTHING
    RETURNING 1
),

sample AS MATERIALIZED (
    SELECT coalesce(d.old_extra, d.extra) AS old, d.extra AS new
    FROM d
    WHERE
        d.action IN ('keep', 'extra')
        AND d.stored_removed_at IS NULL
        AND (SELECT bool_or(e.action = 'extra') FROM d AS e)
    ORDER BY hashint8(d.bison_account_id)
    LIMIT 200
)

SELECT
    (SELECT count(*) FROM inserted) AS inserted,
    (SELECT count(*) FROM updated WHERE updated.action IN ('update', 'extra')) AS updated,
    (SELECT count(*) FROM updated WHERE updated.action = 'restore') AS restored,
    (SELECT count(*) FROM d)
    - (SELECT count(*) FROM inserted)
    - (SELECT count(*) FROM updated) AS unchanged,
    (SELECT count(*) FROM d WHERE d.action IN ('keep', 'extra') AND d.stored_removed_at IS NULL) AS idle,
    (SELECT count(*) FROM sample) AS sampled,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_object('path', m.path, 'moved', m.moved, 'present', m.present)), '[]')
        FROM (SELECT array_agg(s.old) AS old, array_agg(s.new) AS new FROM sample AS s) AS a
        CROSS JOIN LATERAL bisonsync_private.find_moving_fields(a.old, a.new) AS m
    ) AS moves;

-- name: list_missing
-- How many accounts are live, and which of them a read that began at that time did not show; locks nothing. Those that an
-- event told of since then are not missing.
SELECT
    count(*) AS live,
    coalesce(
        array_agg(c.bison_account_id) FILTER (
            WHERE
                c.first_seen_at < %(read_started_at)s::timestamptz
                AND (greatest(c.status_as_of, c.event_applied_at) >= %(read_started_at)s::timestamptz) IS NOT TRUE
                AND seen.id IS NULL
        ),
        '{}'
    ) AS missing
FROM sender_emails_cache AS c
LEFT JOIN unnest(%(seen_ids)s::bigint[]) AS seen (id) ON seen.id = c.bison_account_id
WHERE
    c.bison_instance = %(instance)s::text
    AND c.bison_workspace_id = %(workspace_id)s::bigint
    AND c.removed_at IS NULL;

-- name: tombstone_accounts
-- Marks accounts as removed; how many were not so before.
WITH removed AS (
    UPDATE sender_emails_cache
    SET removed_at = now(), updated_at = now()
    WHERE
        bison_instance = %(instance)s::text
        AND bison_workspace_id = %(workspace_id)s::bigint
        AND bison_account_id = any(%(ids)s::bigint[])
        AND removed_at IS NULL
        -- Once more, for an event may have been committed since they were judged.
        AND first_seen_at < %(read_started_at)s::timestamptz
        AND (greatest(status_as_of, event_applied_at) >= %(read_started_at)s::timestamptz) IS NOT TRUE
    RETURNING 1
)

SELECT count(*) FROM removed;
