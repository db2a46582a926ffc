-- name: count_changes
-- How many campaigns a read would insert, update, restore and leave; changes nothing.
SELECT
    count(*) FILTER (WHERE d.action = 'insert') AS inserted,
    count(*) FILTER (WHERE d.action IN ('update', 'extra')) AS updated,
    count(*) FILTER (WHERE d.action = 'restore') AS restored,
    count(*) FILTER (WHERE d.action = 'keep') AS unchanged
FROM bisonsync_private.compare_campaigns(
    %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text,
    %(rows)s::jsonb, %(read_started_at)s::timestamptz, %(rules)s::jsonb
) AS d;

-- name: upsert_campaigns
-- Inserts what is new, updates and restores what differs, leaves the rest untouched and unlocked; counts of each, and
-- which unknown fields moved in a sample of the rows whose known ones stayed (idle).
WITH d AS MATERIALIZED (
    SELECT *
    FROM bisonsync_private.compare_campaigns(
        %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text,
        %(rows)s::jsonb, %(read_started_at)s::timestamptz, %(rules)s::jsonb
    )
),

updated AS (
    UPDATE campaigns_cache AS c
    SET
        workspace_name = (d.fresh).workspace_name,
        uuid = (d.fresh).uuid,
        sequence_id = (d.fresh).sequence_id,
        name = (d.fresh).name,
        type = (d.fresh).type,
        status = (d.fresh).status,
        completion_percentage = (d.fresh).completion_percentage,
        emails_sent = (d.fresh).emails_sent,
        opened = (d.fresh).opened,
        unique_opens = (d.fresh).unique_opens,
        replied = (d.fresh).replied,
        unique_replies = (d.fresh).unique_replies,
        bounced = (d.fresh).bounced,
        unsubscribed = (d.fresh).unsubscribed,
        interested = (d.fresh).interested,
        total_leads_contacted = (d.fresh).total_leads_contacted,
        total_leads = (d.fresh).total_leads,
        max_emails_per_day = (d.fresh).max_emails_per_day,
        max_new_leads_per_day = (d.fresh).max_new_leads_per_day,
        daily_max_sends_per_receiving_domain = (d.fresh).daily_max_sends_per_receiving_domain,
        plain_text = (d.fresh).plain_text,
        open_tracking = (d.fresh).open_tracking,
        sequence_prioritization = (d.fresh).sequence_prioritization,
        can_unsubscribe = (d.fresh).can_unsubscribe,
        unsubscribe_text = (d.fresh).unsubscribe_text,
        include_auto_replies_in_stats = (d.fresh).include_auto_replies_in_stats,
        tags = (d.fresh).tags,
        extra = (d.fresh).extra,
        bison_created_at = (d.fresh).bison_created_at,
        removed_at = NULL,
        updated_at = now()
    FROM d
    WHERE
        d.action IN ('update', 'extra', 'restore')
        AND c.bison_instance = %(instance)s::text
        AND c.bison_workspace_id = %(workspace_id)s::bigint
        AND c.bison_campaign_id = (d.fresh).bison_campaign_id
    RETURNING d.action
),

inserted AS (
    INSERT INTO campaigns_cache
    SELECT (d.fresh).*
    FROM d
    WHERE d.action = 'insert'
    ORDER BY (d.fresh).bison_campaign_id
    ON CONFLICT (bison_instance, bison_workspace_id, bison_campaign_id) DO NOTHING
    RETURNING 1
)

SELECT
    (SELECT count(*) FROM inserted) AS inserted,
    (SELECT count(*) FROM updated WHERE updated.action <> 'restore') AS updated,
    (SELECT count(*) FROM updated WHERE updated.action = 'restore') AS restored,
    (SELECT count(*) FROM d) - (SELECT count(*) FROM inserted) - (SELECT count(*) FROM updated) AS unchanged,
    m.*
FROM (SELECT array_agg(d.action) AS actions, array_agg(d.old_extra) AS old, array_agg((d.fresh).extra) AS new FROM d) AS a
CROSS JOIN bisonsync_private.sample_moves(a.actions, a.old, a.new) AS m;

-- name: list_missing
-- How many campaigns are live, and which of them a read that began at that time did not show; locks nothing.
SELECT
    count(*) AS live,
    coalesce(
        array_agg(c.bison_campaign_id) FILTER (
            WHERE c.first_seen_at < %(read_started_at)s::timestamptz AND seen.id IS NULL
        ),
        '{}'
    ) AS missing
FROM campaigns_cache AS c
LEFT JOIN unnest(%(seen_ids)s::bigint[]) AS seen (id) ON seen.id = c.bison_campaign_id
WHERE
    c.bison_instance = %(instance)s::text
    AND c.bison_workspace_id = %(workspace_id)s::bigint
    AND c.removed_at IS NULL;

-- name: tombstone_campaigns
-- Marks campaigns as removed; how many were not so before.
WITH removed AS (
    UPDATE campaigns_cache
    SET removed_at = now(), updated_at = now()
    WHERE
        bison_instance = %(instance)s::text
        AND bison_workspace_id = %(workspace_id)s::bigint
        AND bison_campaign_id = any(%(ids)s::bigint[])
        AND removed_at IS NULL
    RETURNING 1
)

SELECT count(*) FROM removed;
