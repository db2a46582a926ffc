-- name: count_changes
-- How many accounts' figures a read would insert, update and leave; changes nothing.
SELECT
    count(*) FILTER (WHERE d.action = 'insert') AS inserted,
    count(*) FILTER (WHERE d.action IN ('update', 'extra')) AS updated,
    count(*) FILTER (WHERE d.action = 'keep') AS unchanged
FROM bisonsync_private.compare_warmup(
    %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text, %(rows)s::jsonb, %(rules)s::jsonb
) AS d;

-- name: upsert_warmup
-- Inserts what is new, updates what differs, leaves the rest untouched and unlocked; counts of each, and which unknown
-- fields moved in a sample of the rows whose known ones stayed (idle).
WITH d AS MATERIALIZED (
    SELECT *
    FROM bisonsync_private.compare_warmup(
        %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text, %(rows)s::jsonb, %(rules)s::jsonb
    )
),

updated AS (
    UPDATE sender_email_warmup AS w
    SET
        workspace_name = (d.fresh).workspace_name,
        warmup_score = (d.fresh).warmup_score,
        warmup_emails_sent = (d.fresh).warmup_emails_sent,
        warmup_replies_received = (d.fresh).warmup_replies_received,
        warmup_emails_saved_from_spam = (d.fresh).warmup_emails_saved_from_spam,
        warmup_bounces_received_count = (d.fresh).warmup_bounces_received_count,
        warmup_bounces_caused_count = (d.fresh).warmup_bounces_caused_count,
        warmup_disabled_for_bouncing_count = (d.fresh).warmup_disabled_for_bouncing_count,
        warmup_daily_limit = (d.fresh).warmup_daily_limit,
        warmup_enabled = (d.fresh).warmup_enabled,
        window_start = (d.fresh).window_start,
        window_end = (d.fresh).window_end,
        extra = (d.fresh).extra,
        updated_at = now()
    FROM d
    WHERE
        d.action IN ('update', 'extra')
        AND w.bison_instance = %(instance)s::text
        AND w.bison_workspace_id = %(workspace_id)s::bigint
        AND w.bison_account_id = (d.fresh).bison_account_id
    RETURNING 1
),

inserted AS (
    INSERT INTO sender_email_warmup
    SELECT (d.fresh).*
    FROM d
    WHERE d.action = 'insert'
    ORDER BY (d.fresh).bison_account_id
    ON CONFLICT (bison_instance, bison_workspace_id, bison_account_id) DO NOTHING
    RETURNING 1
)

SELECT
    (SELECT count(*) FROM inserted) AS inserted,
    (SELECT count(*) FROM updated) AS updated,
    (SELECT count(*) FROM d) - (SELECT count(*) FROM inserted) - (SELECT count(*) FROM updated) AS unchanged,
    m.*
FROM (SELECT array_agg(d.action) AS actions, array_agg(d.old_extra) AS old, array_agg((d.fresh).extra) AS new FROM d) AS a
CROSS JOIN bisonsync_private.sample_moves(a.actions, a.old, a.new) AS m;
