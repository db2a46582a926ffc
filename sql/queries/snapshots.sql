-- name: get_today
-- Which day it is in the reporting zone, by the database's clock.
SELECT (now() AT TIME ZONE %(zone)s::text)::date;

-- name: list_judgements
-- For each of these workspaces: which day its mirror is of, and why it may not be recorded; locks nothing.
SELECT w.instance AS bison_instance, w.workspace_id AS bison_workspace_id, j.snapshot_date, j.refusal
FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (instance, workspace_id)
CROSS JOIN LATERAL
    bisonsync_private.judge_snapshot(w.instance, w.workspace_id, %(zone)s::text, %(force)s::boolean) AS j;

-- name: count_changes
-- What write_snapshot would do; changes nothing.
WITH judged AS MATERIALIZED (
    SELECT *
    FROM bisonsync_private.judge_snapshot(
        %(instance)s::text, %(workspace_id)s::bigint, %(zone)s::text, %(force)s::boolean
    )
),

compared AS MATERIALIZED (
    SELECT c.action
    FROM judged AS j
    CROSS JOIN LATERAL bisonsync_private.compare_snapshot(
        %(instance)s::text, %(workspace_id)s::bigint, j.snapshot_date, j.source, %(zone)s::text
    ) AS c
    WHERE j.refusal IS NULL
)

SELECT
    j.snapshot_date,
    j.is_complete,
    j.refusal,
    (SELECT count(*) FROM compared) AS accounts,
    (SELECT count(*) FROM compared AS c WHERE c.action = 'insert') AS inserted,
    (SELECT count(*) FROM compared AS c WHERE c.action = 'update') AS updated,
    (SELECT count(*) FROM compared AS c WHERE c.action = 'keep') AS unchanged
FROM judged AS j;

-- name: write_snapshot
-- Judges a workspace and, unless it is refused, records its mirror as of its day: inserts accounts that are missing,
-- updates those that differ, leaves the rest untouched and unlocked. One statement, so that what is judged is what is
-- written. Always one row: the day, and how many of each.
WITH judged AS MATERIALIZED (
    SELECT *
    FROM bisonsync_private.judge_snapshot(
        %(instance)s::text, %(workspace_id)s::bigint, %(zone)s::text, %(force)s::boolean
    )
),

compared AS MATERIALIZED (
    SELECT j.snapshot_date, c.*
    FROM judged AS j
    CROSS JOIN LATERAL bisonsync_private.compare_snapshot(
        %(instance)s::text, %(workspace_id)s::bigint, j.snapshot_date, j.source, %(zone)s::text
    ) AS c
    WHERE j.refusal IS NULL
),

written AS (
    INSERT INTO sender_email_daily (
        snapshot_date, bison_instance, bison_workspace_id, bison_account_id, emails_sent_count, total_replied_count,
        unique_replied_count, total_opened_count, unique_opened_count, bounced_count, unsubscribed_count,
        interested_leads_count, total_leads_contacted_count, email_provider, reseller, domain, is_connected,
        daily_limit, volume_per_account, price, created_on, source
    )
    SELECT
        c.snapshot_date, %(instance)s::text, %(workspace_id)s::bigint, c.bison_account_id, c.emails_sent_count,
        c.total_replied_count, c.unique_replied_count, c.total_opened_count, c.unique_opened_count, c.bounced_count,
        c.unsubscribed_count, c.interested_leads_count, c.total_leads_contacted_count, c.email_provider, c.reseller,
        c.domain, c.is_connected, c.daily_limit, c.volume_per_account, c.price, c.created_on, c.source
    FROM compared AS c
    WHERE c.action <> 'keep'
    ORDER BY c.bison_account_id
    ON CONFLICT (snapshot_date, bison_instance, bison_workspace_id, bison_account_id) DO UPDATE SET
        emails_sent_count = excluded.emails_sent_count,
        total_replied_count = excluded.total_replied_count,
        unique_replied_count = excluded.unique_replied_count,
        total_opened_count = excluded.total_opened_count,
        unique_opened_count = excluded.unique_opened_count,
        bounced_count = excluded.bounced_count,
        unsubscribed_count = excluded.unsubscribed_count,
        interested_leads_count = excluded.interested_leads_count,
        total_leads_contacted_count = excluded.total_leads_contacted_count,
        email_provider = excluded.email_provider,
        reseller = excluded.reseller,
        domain = excluded.domain,
        is_connected = excluded.is_connected,
        daily_limit = excluded.daily_limit,
        volume_per_account = excluded.volume_per_account,
        price = excluded.price,
        created_on = excluded.created_on,
        source = excluded.source,
        recorded_at = now()
),

recorded AS (
    INSERT INTO workspace_snapshots (
        bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete, source, read_at
    )
    SELECT w.*
    FROM (
        SELECT
            %(instance)s::text AS instance,
            %(workspace_id)s::bigint AS workspace_id,
            j.snapshot_date,
            (SELECT count(*) FROM compared) AS accounts,
            j.is_complete,
            j.source,
            j.read_at
        FROM judged AS j
        WHERE j.refusal IS NULL
    ) AS w
    WHERE NOT EXISTS (
        SELECT
        FROM workspace_snapshots AS k
        WHERE
            k.bison_instance = w.instance
            AND k.bison_workspace_id = w.workspace_id
            AND k.snapshot_date = w.snapshot_date
            AND (k.accounts, k.is_complete, k.source, k.read_at)
            IS NOT DISTINCT FROM (w.accounts, w.is_complete, w.source, w.read_at)
    )
    ON CONFLICT (bison_instance, bison_workspace_id, snapshot_date) DO UPDATE SET
        accounts = excluded.accounts,
        is_complete = excluded.is_complete,
        source = excluded.source,
        read_at = excluded.read_at,
        recorded_at = now()
)

SELECT
    j.snapshot_date,
    j.is_complete,
    j.refusal,
    (SELECT count(*) FROM compared) AS accounts,
    (SELECT count(*) FROM compared AS c WHERE c.action = 'insert') AS inserted,
    (SELECT count(*) FROM compared AS c WHERE c.action = 'update') AS updated,
    (SELECT count(*) FROM compared AS c WHERE c.action = 'keep') AS unchanged
FROM judged AS j;

-- name: list_expected
-- The workspaces that a day of these instances should have, and whether it has them; locks nothing.
SELECT i.instance AS bison_instance, e.bison_workspace_id, e.is_recorded, e.is_complete
FROM unnest(%(instances)s::text[]) AS i (instance)
CROSS JOIN LATERAL bisonsync_private.expected_workspaces(i.instance, %(day)s::date, %(zone)s::text) AS e
ORDER BY i.instance, e.bison_workspace_id;

-- name: list_days_due
-- The days from one to another whose history can be put right: all workspaces of the day are recorded, or it has history
-- already; locks nothing.
SELECT g.day::date
FROM generate_series(%(first_day)s::date::timestamp, %(last_day)s::date::timestamp, interval '1 day') AS g (day)
WHERE
    EXISTS (
        SELECT
        FROM provider_performance_history AS h
        WHERE h.bison_instance = %(instance)s::text AND h.snapshot_date = g.day::date
    )
    OR (
        SELECT bool_and(e.is_recorded)
        FROM bisonsync_private.expected_workspaces(%(instance)s::text, g.day::date, %(zone)s::text) AS e
    )
ORDER BY g.day;

-- name: lock_history
-- Holds off every other run that computes the history of this instance until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('provider_performance_history ' || %(instance)s::text, 0));

-- name: count_history_changes
-- What write_history would do; changes nothing.
WITH computed AS MATERIALIZED (
    SELECT * FROM bisonsync_private.compute_provider_history(%(instance)s::text, %(day)s::date, %(zone)s::text)
),

stored AS (
    SELECT h.*
    FROM provider_performance_history AS h
    WHERE h.bison_instance = %(instance)s::text AND h.snapshot_date = %(day)s::date
)

SELECT
    count(c.email_provider) AS providers,
    coalesce(sum(c.total_accounts), 0)::bigint AS accounts,
    count(*) FILTER (WHERE h.email_provider IS NULL) AS inserted,
    count(*) FILTER (
        WHERE
            c.email_provider = h.email_provider
            AND NOT to_jsonb(h) @> to_jsonb(c)
    ) AS updated,
    count(*) FILTER (WHERE c.email_provider IS NULL) AS deleted,
    coalesce(sum(c.resets), 0)::bigint AS resets,
    coalesce(sum(c.falling_counters), 0)::bigint AS falling_counters
FROM computed AS c
FULL JOIN stored AS h ON h.email_provider = c.email_provider;

-- name: write_history
-- Makes the history of one instance and day what sender_email_daily says: inserts, updates and deletes only where they
-- differ; how many of each.
WITH computed AS MATERIALIZED (
    SELECT * FROM bisonsync_private.compute_provider_history(%(instance)s::text, %(day)s::date, %(zone)s::text)
),

changed AS MATERIALIZED (
    SELECT c.*, h.email_provider IS NULL AS is_new
    FROM computed AS c
    LEFT JOIN provider_performance_history AS h
        ON
            h.email_provider = c.email_provider
            AND h.bison_instance = %(instance)s::text
            AND h.snapshot_date = %(day)s::date
    WHERE h.email_provider IS NULL OR NOT to_jsonb(h) @> to_jsonb(c)
),

written AS (
    INSERT INTO provider_performance_history AS h (
        bison_instance, email_provider, snapshot_date, total_accounts, active_accounts, total_sent, total_replies,
        unique_replies, total_bounces, avg_reply_rate, avg_emails_per_account, total_daily_limit,
        total_volume_capacity, utilization_percentage, is_complete,
        sent_1d, unique_replies_1d, bounces_1d, reply_rate_1d, bounce_rate_1d,
        sent_7d, unique_replies_7d, bounces_7d, reply_rate_7d, bounce_rate_7d,
        sent_30d, unique_replies_30d, bounces_30d, reply_rate_30d, bounce_rate_30d,
        gaps_1d, gaps_7d, gaps_30d, resets, falling_counters
    )
    SELECT
        c.bison_instance, c.email_provider, c.snapshot_date, c.total_accounts, c.active_accounts, c.total_sent,
        c.total_replies, c.unique_replies, c.total_bounces, c.avg_reply_rate, c.avg_emails_per_account,
        c.total_daily_limit, c.total_volume_capacity, c.utilization_percentage, c.is_complete,
        c.sent_1d, c.unique_replies_1d, c.bounces_1d, c.reply_rate_1d, c.bounce_rate_1d,
        c.sent_7d, c.unique_replies_7d, c.bounces_7d, c.reply_rate_7d, c.bounce_rate_7d,
        c.sent_30d, c.unique_replies_30d, c.bounces_30d, c.reply_rate_30d, c.bounce_rate_30d,
        c.gaps_1d, c.gaps_7d, c.gaps_30d, c.resets, c.falling_counters
    FROM changed AS c
    ON CONFLICT (email_provider, bison_instance, snapshot_date) DO UPDATE SET (
        total_accounts, active_accounts, total_sent, total_replies, unique_replies, total_bounces, avg_reply_rate,
        avg_emails_per_account, total_daily_limit, total_volume_capacity, utilization_percentage, is_complete,
        sent_1d, unique_replies_1d, bounces_1d, reply_rate_1d, bounce_rate_1d,
        sent_7d, unique_replies_7d, bounces_7d, reply_rate_7d, bounce_rate_7d,
        sent_30d, unique_replies_30d, bounces_30d, reply_rate_30d, bounce_rate_30d,
        gaps_1d, gaps_7d, gaps_30d, resets, falling_counters, updated_at
    ) = (
        excluded.total_accounts, excluded.active_accounts, excluded.total_sent, excluded.total_replies,
        excluded.unique_replies, excluded.total_bounces, excluded.avg_reply_rate, excluded.avg_emails_per_account,
        excluded.total_daily_limit, excluded.total_volume_capacity, excluded.utilization_percentage,
        excluded.is_complete,
        excluded.sent_1d, excluded.unique_replies_1d, excluded.bounces_1d, excluded.reply_rate_1d,
        excluded.bounce_rate_1d,
        excluded.sent_7d, excluded.unique_replies_7d, excluded.bounces_7d, excluded.reply_rate_7d,
        excluded.bounce_rate_7d,
        excluded.sent_30d, excluded.unique_replies_30d, excluded.bounces_30d, excluded.reply_rate_30d,
        excluded.bounce_rate_30d,
        excluded.gaps_1d, excluded.gaps_7d, excluded.gaps_30d, excluded.resets, excluded.falling_counters, now()
    )
),

deleted AS (
    DELETE FROM provider_performance_history AS h
    WHERE
        h.bison_instance = %(instance)s::text
        AND h.snapshot_date = %(day)s::date
        AND NOT EXISTS (SELECT FROM computed AS c WHERE c.email_provider = h.email_provider)
    RETURNING 1
)

SELECT
    (SELECT count(*) FROM computed) AS providers,
    (SELECT coalesce(sum(c.total_accounts), 0) FROM computed AS c)::bigint AS accounts,
    (SELECT count(*) FROM changed AS c WHERE c.is_new) AS inserted,
    (SELECT count(*) FROM changed AS c WHERE NOT c.is_new) AS updated,
    (SELECT count(*) FROM deleted) AS deleted,
    (SELECT coalesce(sum(c.resets), 0) FROM computed AS c)::bigint AS resets,
    (SELECT coalesce(sum(c.falling_counters), 0) FROM computed AS c)::bigint AS falling_counters;

-- name: list_gaps
-- Of these workspaces, the recorded days between which none is recorded, if a missing one lies in [first_day, last_day];
-- locks nothing.
SELECT g.bison_instance, g.bison_workspace_id, g.before, g.after
FROM (
    SELECT
        s.bison_instance,
        s.bison_workspace_id,
        s.snapshot_date AS before,
        lead(s.snapshot_date) OVER (
            PARTITION BY s.bison_instance, s.bison_workspace_id ORDER BY s.snapshot_date
        ) AS after
    FROM workspace_snapshots AS s
    INNER JOIN unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (instance, workspace_id)
        ON w.instance = s.bison_instance AND w.workspace_id = s.bison_workspace_id
) AS g
WHERE
    g.after > g.before + 1
    AND g.before < %(last_day)s::date
    AND g.after > %(first_day)s::date
ORDER BY g.bison_instance, g.bison_workspace_id, g.before;
