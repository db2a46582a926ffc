-- needs: daily_differences, expected_workspaces
CREATE OR REPLACE FUNCTION bisonsync_private.compute_provider_history(p_instance text, p_day date, p_zone text)
RETURNS TABLE (
    bison_instance text,
    email_provider text,
    snapshot_date date,
    total_accounts bigint,
    active_accounts bigint,
    total_sent bigint,
    total_replies bigint,
    unique_replies bigint,
    total_bounces bigint,
    avg_reply_rate numeric,
    avg_emails_per_account numeric,
    total_daily_limit bigint,
    total_volume_capacity numeric,
    utilization_percentage numeric,
    is_complete boolean,
    sent_1d bigint,
    unique_replies_1d bigint,
    bounces_1d bigint,
    reply_rate_1d numeric,
    bounce_rate_1d numeric,
    sent_7d bigint,
    unique_replies_7d bigint,
    bounces_7d bigint,
    reply_rate_7d numeric,
    bounce_rate_7d numeric,
    sent_30d bigint,
    unique_replies_30d bigint,
    bounces_30d bigint,
    reply_rate_30d numeric,
    bounce_rate_30d numeric,
    gaps_1d integer,
    gaps_7d integer,
    gaps_30d integer,
    resets integer,
    falling_counters integer
)
LANGUAGE sql
STABLE
AS $$
WITH windows AS (
    -- The rows of 30 days hold those of 7 and 1: only a difference across a gap may reach out of the shorter ones.
    SELECT
        d.email_provider,
        coalesce(sum(d.sent) FILTER (WHERE w.in_1d), 0)::bigint AS sent_1d,
        coalesce(sum(d.unique_replies) FILTER (WHERE w.in_1d), 0)::bigint AS unique_replies_1d,
        coalesce(sum(d.bounces) FILTER (WHERE w.in_1d), 0)::bigint AS bounces_1d,
        coalesce(sum(d.sent) FILTER (WHERE w.in_7d), 0)::bigint AS sent_7d,
        coalesce(sum(d.unique_replies) FILTER (WHERE w.in_7d), 0)::bigint AS unique_replies_7d,
        coalesce(sum(d.bounces) FILTER (WHERE w.in_7d), 0)::bigint AS bounces_7d,
        sum(d.sent)::bigint AS sent_30d,
        sum(d.unique_replies)::bigint AS unique_replies_30d,
        sum(d.bounces)::bigint AS bounces_30d,
        count(*) FILTER (WHERE d.is_reset AND d.snapshot_date = p_day) AS resets,
        coalesce(sum(d.falling_counters) FILTER (WHERE d.snapshot_date = p_day), 0) AS falling_counters
    FROM public.daily_differences(p_day - 29, p_day + 1) AS d
    CROSS JOIN LATERAL (
        SELECT
            d.snapshot_date = p_day AND (d.previous_date = p_day - 1 OR d.is_new) AS in_1d,
            d.snapshot_date >= p_day - 6 AND (d.previous_date >= p_day - 7 OR d.is_new) AS in_7d
    ) AS w
    WHERE d.bison_instance = p_instance
    GROUP BY d.email_provider
),
totals AS (
    SELECT
        d.email_provider,
        count(*) AS total_accounts,
        count(*) FILTER (WHERE d.is_connected) AS active_accounts,
        sum(d.emails_sent_count)::bigint AS total_sent,
        sum(d.total_replied_count)::bigint AS total_replies,
        sum(d.unique_replied_count)::bigint AS unique_replies,
        sum(d.bounced_count)::bigint AS total_bounces,
        coalesce(sum(d.daily_limit) FILTER (WHERE d.is_connected), 0)::bigint AS total_daily_limit,
        coalesce(sum(d.volume_per_account), 0) AS total_volume_capacity
    FROM public.sender_email_daily AS d
    WHERE d.snapshot_date = p_day AND d.bison_instance = p_instance
    GROUP BY d.email_provider
),
state AS (
    SELECT
        coalesce(bool_and(e.is_complete), false) AS is_complete,
        count(*) FILTER (WHERE NOT (e.is_recorded AND s.day_1)) AS gaps_1d,
        count(*) FILTER (WHERE NOT (e.is_recorded AND s.day_7)) AS gaps_7d,
        count(*) FILTER (WHERE NOT (e.is_recorded AND s.day_30)) AS gaps_30d
    FROM bisonsync_private.expected_workspaces(p_instance, p_day, p_zone) AS e
    CROSS JOIN LATERAL (
        SELECT
            count(*) FILTER (WHERE b.snapshot_date = p_day - 1) > 0 AS day_1,
            count(*) FILTER (WHERE b.snapshot_date = p_day - 7) > 0 AS day_7,
            count(*) FILTER (WHERE b.snapshot_date = p_day - 30) > 0 AS day_30
        FROM public.workspace_snapshots AS b
        WHERE
            b.bison_instance = p_instance
            AND b.bison_workspace_id = e.bison_workspace_id
            AND b.snapshot_date IN (p_day - 1, p_day - 7, p_day - 30)
    ) AS s
)

SELECT
    p_instance,
    coalesce(t.email_provider, w.email_provider),
    p_day,
    coalesce(t.total_accounts, 0),
    coalesce(t.active_accounts, 0),
    coalesce(t.total_sent, 0),
    coalesce(t.total_replies, 0),
    coalesce(t.unique_replies, 0),
    coalesce(t.total_bounces, 0),
    round(100.0 * t.unique_replies / nullif(t.total_sent, 0), 4),
    round(t.total_sent::numeric / nullif(t.total_accounts, 0), 4),
    coalesce(t.total_daily_limit, 0),
    coalesce(t.total_volume_capacity, 0),
    round(100.0 * t.total_daily_limit / nullif(t.total_volume_capacity, 0), 4),
    s.is_complete,
    coalesce(w.sent_1d, 0),
    coalesce(w.unique_replies_1d, 0),
    coalesce(w.bounces_1d, 0),
    round(100.0 * w.unique_replies_1d / nullif(w.sent_1d, 0), 4),
    round(100.0 * w.bounces_1d / nullif(w.sent_1d, 0), 4),
    coalesce(w.sent_7d, 0),
    coalesce(w.unique_replies_7d, 0),
    coalesce(w.bounces_7d, 0),
    round(100.0 * w.unique_replies_7d / nullif(w.sent_7d, 0), 4),
    round(100.0 * w.bounces_7d / nullif(w.sent_7d, 0), 4),
    coalesce(w.sent_30d, 0),
    coalesce(w.unique_replies_30d, 0),
    coalesce(w.bounces_30d, 0),
    round(100.0 * w.unique_replies_30d / nullif(w.sent_30d, 0), 4),
    round(100.0 * w.bounces_30d / nullif(w.sent_30d, 0), 4),
    s.gaps_1d::integer,
    s.gaps_7d::integer,
    s.gaps_30d::integer,
    coalesce(w.resets, 0)::integer,
    coalesce(w.falling_counters, 0)::integer
FROM totals AS t
FULL JOIN windows AS w ON w.email_provider = t.email_provider
CROSS JOIN state AS s
WHERE t.email_provider IS NOT NULL OR w.sent_30d > 0 OR w.unique_replies_30d > 0 OR w.bounces_30d > 0
$$;

COMMENT ON FUNCTION bisonsync_private.compute_provider_history(text, date, text) IS
    'What provider_performance_history should hold of one instance and day, from sender_email_daily alone; workspace_snapshots and the registry say only whether it is complete and where a window lacks an end. A provider without accounts has a row while its last 30 days hold anything.';
