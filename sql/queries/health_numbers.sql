-- name: count_disconnected
-- The accounts present in each active workspace, how many are not connected, and how many of those were connected in the
-- snapshot of the day before; locks nothing.
WITH yesterday AS (
    SELECT (%(now)s::timestamptz AT TIME ZONE %(timezone)s::text)::date - 1 AS day
)

SELECT
    s.bison_instance,
    s.bison_workspace_id,
    max(coalesce(r.display_name, r.workspace_name)) AS name,
    count(*) AS accounts,
    count(*) FILTER (WHERE NOT s.is_connected) AS disconnected,
    count(*) FILTER (WHERE NOT s.is_connected AND d.is_connected) AS newly_disconnected,
    EXISTS (
        SELECT FROM workspace_snapshots AS w
        WHERE
            w.bison_instance = s.bison_instance
            AND w.bison_workspace_id = s.bison_workspace_id
            AND w.snapshot_date = (SELECT y.day FROM yesterday AS y)
    ) AS is_comparable
FROM sender_emails_cache AS s
INNER JOIN client_registry AS r
    ON r.bison_instance = s.bison_instance AND r.bison_workspace_id = s.bison_workspace_id AND r.is_active
LEFT JOIN sender_email_daily AS d
    ON d.snapshot_date = (SELECT y.day FROM yesterday AS y)
    AND d.bison_instance = s.bison_instance
    AND d.bison_workspace_id = s.bison_workspace_id
    AND d.bison_account_id = s.bison_account_id
WHERE s.removed_at IS NULL
GROUP BY s.bison_instance, s.bison_workspace_id
ORDER BY s.bison_instance, s.bison_workspace_id;

-- name: find_recorded_days
-- The first and the last recorded day until today, and how many days ago the last one was; locks nothing.
WITH today AS (
    SELECT (%(now)s::timestamptz AT TIME ZONE %(timezone)s::text)::date AS day
)

SELECT
    min(w.snapshot_date) AS first_day,
    max(w.snapshot_date) AS last_day,
    max(t.day) - max(w.snapshot_date) AS days_ago
FROM today AS t
LEFT JOIN workspace_snapshots AS w ON w.snapshot_date <= t.day;

-- name: sum_bounces
-- Mails sent and bounced on the days [from_date, to_date), in all and by provider, reseller and domain, as
-- performance_by() counts them; locks nothing.
SELECT
    CASE
        WHEN grouping(d.email_provider) = 0 THEN 'provider'
        WHEN grouping(d.reseller) = 0 THEN 'reseller'
        WHEN grouping(d.domain) = 0 THEN 'domain'
        ELSE 'all'
    END AS dimension,
    coalesce(d.email_provider, d.reseller, d.domain, 'Unknown') AS group_value,
    coalesce(sum(d.sent), 0)::bigint AS sent,
    coalesce(sum(d.bounces), 0)::bigint AS bounces
FROM daily_differences(%(from_date)s::date, %(to_date)s::date) AS d
GROUP BY GROUPING SETS ((d.email_provider), (d.reseller), (d.domain), ())
ORDER BY dimension, group_value;

-- name: list_drops
-- How each provider's replies per mail of the last 7 days stand to the 7 before; locks nothing.
SELECT
    bison_instance,
    email_provider,
    recent_sent,
    recent_reply_rate::double precision AS recent_reply_rate,
    previous_reply_rate::double precision AS previous_reply_rate,
    change_percent::double precision AS change_percent,
    p_value,
    coalesce(is_drop, false) AS is_drop,
    state,
    workspaces_left_out
FROM check_provider_reply_rate_drop(
    %(on_date)s::date, %(min_sends)s::bigint, %(min_fall_percent)s::numeric, %(alpha)s::double precision
);

-- name: sum_capacity
-- What the accounts present in each active workspace may send a day and what they are meant to carry: ``accounts`` in
-- all, ``priced`` those of which a volume is known, the sums over those of them that are connected; locks nothing.
SELECT
    s.bison_instance,
    s.bison_workspace_id,
    max(coalesce(r.display_name, r.workspace_name)) AS name,
    count(*) AS accounts,
    count(s.volume_per_account) AS priced,
    count(*) FILTER (WHERE s.is_connected) AS connected,
    coalesce(sum(s.daily_limit) FILTER (WHERE s.is_connected AND s.volume_per_account IS NOT NULL), 0)::double precision
        AS daily_limit,
    coalesce(
        sum(s.volume_per_account) FILTER (WHERE s.is_connected AND s.daily_limit IS NOT NULL), 0
    )::double precision AS capacity
FROM sender_emails_cache AS s
INNER JOIN client_registry AS r
    ON r.bison_instance = s.bison_instance AND r.bison_workspace_id = s.bison_workspace_id AND r.is_active
WHERE s.removed_at IS NULL
GROUP BY s.bison_instance, s.bison_workspace_id
ORDER BY s.bison_instance, s.bison_workspace_id;

-- name: sum_api_health
-- How each instance answered the runs that ended in (since, until], as far as the newest 50,000 entries reach.
-- ``refused``: requests lost to tokens that the API did not take; locks nothing.
WITH newest AS (
    SELECT a.run_id, a.bison_instance, a.requests, a.rate_limited, a.errors, a.response_time_ms, a."timestamp"
    FROM api_health_logs AS a
    ORDER BY a.id DESC
    LIMIT 50000
),

entries AS (
    SELECT *
    FROM newest
    WHERE "timestamp" > %(since)s::timestamptz AND "timestamp" <= %(until)s::timestamptz
),

refused AS (
    -- Two for each: the question whose token it is, and the first page beside it.
    SELECT w.bison_instance, 2 * count(*) AS refused
    FROM email_sync_log_workspaces AS w
    WHERE
        w.run_id IN (SELECT e.run_id FROM entries AS e)
        AND w.error ->> 'kind' = 'credentials'
        -- Without a token nothing was asked.
        AND w.error ->> 'message' NOT LIKE 'workspace %% has no token%%'
    GROUP BY w.bison_instance
)

SELECT
    coalesce(e.bison_instance, '') AS bison_instance,
    sum(e.requests)::bigint AS requests,
    sum(e.rate_limited)::bigint AS rate_limited,
    sum(e.errors)::bigint AS errors,
    coalesce(max(r.refused), 0)::bigint AS refused,
    (
        sum(e.response_time_ms * e.requests) / nullif(sum(e.requests) FILTER (WHERE e.response_time_ms IS NOT NULL), 0)
    )::double precision AS mean_ms
FROM entries AS e
LEFT JOIN refused AS r ON r.bison_instance = e.bison_instance
GROUP BY coalesce(e.bison_instance, '')
HAVING sum(e.requests) > 0
ORDER BY bison_instance;
