-- name: list_providers
-- Every provider of these instances (null: of all) on each instance's last recorded day, with how its replies per mail
-- stand to the week before; the largest first; locks nothing.
WITH latest AS (
    SELECT h.bison_instance, max(h.snapshot_date) AS day
    FROM provider_performance_history AS h
    WHERE %(instances)s::text[] IS NULL OR h.bison_instance = ANY(%(instances)s::text[])
    GROUP BY h.bison_instance
),

-- Computed once: a join would do it again for every provider.
compared AS MATERIALIZED (
    SELECT c.*
    FROM (SELECT DISTINCT l.day FROM latest AS l) AS d
    CROSS JOIN LATERAL check_provider_reply_rate_drop(d.day) AS c
)

SELECT
    h.bison_instance,
    h.email_provider,
    h.snapshot_date,
    coalesce(
        (SELECT min(s.snapshot_date) FROM workspace_snapshots AS s WHERE s.bison_instance = l.bison_instance), l.day
    ) AS first_day,
    (now() AT TIME ZONE %(timezone)s::text)::date - h.snapshot_date AS days_ago,
    h.is_complete,
    h.total_accounts,
    h.active_accounts,
    h.total_daily_limit,
    h.total_volume_capacity::double precision AS total_volume_capacity,
    h.sent_1d,
    h.unique_replies_1d,
    h.bounces_1d,
    h.gaps_1d,
    h.sent_7d,
    h.unique_replies_7d,
    h.bounces_7d,
    h.gaps_7d,
    h.sent_30d,
    h.unique_replies_30d,
    h.bounces_30d,
    h.gaps_30d,
    c.recent_reply_rate::double precision AS recent_reply_rate,
    c.previous_reply_rate::double precision AS previous_reply_rate,
    c.change_percent::double precision AS change_percent,
    c.p_value AS fall_p_value,
    CASE c.state
        WHEN 'compared'
            THEN fall_p_value(c.previous_sent, c.previous_unique_replies, c.recent_sent, c.recent_unique_replies)
    END AS rise_p_value,
    c.is_drop,
    coalesce(c.state, 'too few sends') AS comparison,
    coalesce(c.workspaces_left_out, 0) AS workspaces_left_out
FROM latest AS l
INNER JOIN provider_performance_history AS h ON h.bison_instance = l.bison_instance AND h.snapshot_date = l.day
LEFT JOIN compared AS c
    ON c.bison_instance = h.bison_instance AND c.email_provider = h.email_provider AND c.snapshot_date = h.snapshot_date
ORDER BY h.bison_instance, h.total_accounts DESC, h.email_provider;

-- name: list_days
-- The recorded days among the last 30 of each of these instances (null: of all), per provider: the trailing week's
-- replies per mail, null when nothing was sent in it; locks nothing.
SELECT
    h.bison_instance,
    h.email_provider,
    h.snapshot_date,
    h.reply_rate_7d::double precision AS reply_rate_7d,
    h.gaps_7d
FROM provider_performance_history AS h
INNER JOIN (
    SELECT p.bison_instance, max(p.snapshot_date) AS day
    FROM provider_performance_history AS p
    WHERE %(instances)s::text[] IS NULL OR p.bison_instance = ANY(%(instances)s::text[])
    GROUP BY p.bison_instance
) AS l ON l.bison_instance = h.bison_instance AND h.snapshot_date > l.day - 30
ORDER BY h.bison_instance, h.email_provider, h.snapshot_date;

-- name: sum_costs
-- What the accounts of these instances (null: of all) cost in the 30 days until each instance's last recorded day, and
-- what they did for it: by instance and provider, and by reseller. A day costs the price divided by the days of its
-- month; days that were not recorded cost as the next one that was. Locks nothing.
WITH latest AS (
    SELECT h.bison_instance, max(h.snapshot_date) AS day
    FROM provider_performance_history AS h
    WHERE %(instances)s::text[] IS NULL OR h.bison_instance = ANY(%(instances)s::text[])
    GROUP BY h.bison_instance
),

-- Months from a fixed beginning to the end of each day.
months AS (
    SELECT
        g::date AS day,
        sum(1.0 / extract(day FROM date_trunc('month', g) + interval '1 month - 1 day')) OVER (ORDER BY g) AS passed
    FROM generate_series(
        (SELECT min(l.day) - 31 FROM latest AS l)::timestamp,
        (SELECT max(l.day) FROM latest AS l)::timestamp,
        interval '1 day'
    ) AS g
),

recorded AS (
    SELECT
        s.bison_instance,
        s.bison_workspace_id,
        s.snapshot_date,
        lag(s.snapshot_date) OVER (
            PARTITION BY s.bison_instance, s.bison_workspace_id ORDER BY s.snapshot_date
        ) AS previous_date
    FROM latest AS l
    INNER JOIN workspace_snapshots AS s
        ON s.bison_instance = l.bison_instance AND s.snapshot_date BETWEEN l.day - 30 AND l.day
),

-- Summed before anything is joined: a few rows per workspace and day instead of one per account.
daily AS MATERIALIZED (
    SELECT
        d.bison_instance,
        d.bison_workspace_id,
        d.email_provider,
        d.reseller,
        d.snapshot_date,
        d.previous_date,
        l.day AS last_date,
        count(*) AS accounts,
        count(*) FILTER (WHERE d.price IS NULL) AS unpriced,
        sum(d.price) AS price,
        sum(d.sent) AS sent,
        sum(d.unique_replies) AS unique_replies,
        sum(d.bounces) AS bounces
    FROM latest AS l
    CROSS JOIN LATERAL daily_differences(l.day - 29, l.day + 1) AS d
    WHERE d.bison_instance = l.bison_instance
    GROUP BY
        d.bison_instance, d.bison_workspace_id, d.email_provider, d.reseller, d.snapshot_date, d.previous_date, l.day
)

SELECT
    CASE WHEN grouping(d.email_provider) = 0 THEN 'provider' ELSE 'reseller' END AS dimension,
    d.bison_instance,
    CASE WHEN grouping(d.email_provider) = 0 THEN d.email_provider ELSE coalesce(d.reseller, 'Unknown') END AS group_value,
    coalesce(sum(d.accounts) FILTER (WHERE d.snapshot_date = d.last_date), 0)::bigint AS accounts,
    coalesce(sum(d.unpriced) FILTER (WHERE d.snapshot_date = d.last_date), 0)::bigint AS unpriced,
    sum(d.sent)::bigint AS sent,
    sum(d.unique_replies)::bigint AS unique_replies,
    sum(d.bounces)::bigint AS bounces,
    -- An account that was there on the workspace's last recorded day was there in between as well.
    sum(
        d.price * (m.passed - CASE WHEN d.previous_date = w.previous_date THEN b.passed ELSE e.passed END)
    )::double precision AS cost
FROM daily AS d
INNER JOIN months AS m ON m.day = d.snapshot_date
INNER JOIN months AS e ON e.day = d.snapshot_date - 1
LEFT JOIN months AS b ON b.day = d.previous_date
LEFT JOIN recorded AS w
    ON w.bison_instance = d.bison_instance
    AND w.bison_workspace_id = d.bison_workspace_id
    AND w.snapshot_date = d.snapshot_date
GROUP BY GROUPING SETS ((d.bison_instance, d.email_provider), (d.reseller))
ORDER BY dimension, accounts DESC, group_value, d.bison_instance;
