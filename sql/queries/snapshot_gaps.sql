-- name: list_ends
-- The accounts at the two ends of a gap and what can be said of each; an end that is not recorded yet is the mirror as it
-- is now. appeared, removed: only one end has it; reset: its sent counter fell; moved: a counter grew that the platform
-- tells by day; still: none did. Locks nothing.
WITH ends AS (
    SELECT d.bison_account_id, d.snapshot_date, d.emails_sent_count, d.total_replied_count, d.bounced_count
    FROM sender_email_daily AS d
    WHERE
        d.bison_instance = %(instance)s::text
        AND d.bison_workspace_id = %(workspace_id)s::bigint
        AND d.snapshot_date IN (%(before)s::date, %(after)s::date)
    UNION ALL
    SELECT c.bison_account_id, %(after)s::date, c.emails_sent_count, c.total_replied_count, c.bounced_count
    FROM sender_emails_cache AS c
    WHERE
        c.bison_instance = %(instance)s::text
        AND c.bison_workspace_id = %(workspace_id)s::bigint
        AND c.removed_at IS NULL
        AND NOT EXISTS (
            SELECT
            FROM workspace_snapshots AS s
            WHERE
                s.bison_instance = %(instance)s::text
                AND s.bison_workspace_id = %(workspace_id)s::bigint
                AND s.snapshot_date = %(after)s::date
        )
)

SELECT
    bison_account_id,
    CASE
        WHEN b.bison_account_id IS NULL THEN 'appeared'
        WHEN a.bison_account_id IS NULL THEN 'removed'
        WHEN a.emails_sent_count < b.emails_sent_count THEN 'reset'
        WHEN
            a.emails_sent_count > b.emails_sent_count
            OR a.total_replied_count > b.total_replied_count
            OR a.bounced_count > b.bounced_count
            THEN 'moved'
        ELSE 'still'
    END AS state
FROM (SELECT * FROM ends WHERE snapshot_date = %(before)s::date) AS b
FULL JOIN (SELECT * FROM ends WHERE snapshot_date = %(after)s::date) AS a USING (bison_account_id)
ORDER BY bison_account_id;

-- name: list_trailing
-- Of these workspaces, the last recorded day and the one that recording now would give, if any day lies between; locks
-- nothing.
SELECT w.instance AS bison_instance, w.workspace_id AS bison_workspace_id, s.last_day AS before, j.snapshot_date AS after
FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (instance, workspace_id)
CROSS JOIN LATERAL (
    SELECT max(k.snapshot_date) AS last_day
    FROM workspace_snapshots AS k
    WHERE k.bison_instance = w.instance AND k.bison_workspace_id = w.workspace_id
) AS s
CROSS JOIN LATERAL bisonsync_private.judge_snapshot(w.instance, w.workspace_id, %(zone)s::text, false) AS j
WHERE j.refusal IS NULL AND j.snapshot_date > s.last_day + 1
ORDER BY w.instance, w.workspace_id;

-- name: is_open
-- A row while both ends of a gap are recorded and nothing between them is; locks nothing.
SELECT count(*)
FROM workspace_snapshots
WHERE
    bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND snapshot_date BETWEEN %(before)s::date AND %(after)s::date
HAVING
    count(*) = 2
    AND min(snapshot_date) = %(before)s::date
    AND max(snapshot_date) = %(after)s::date;

-- name: fill_accounts
-- Writes the days of a gap for these accounts where they have none, from the platform's numbers; what was recorded stays.
-- One row: how many accounts were filled, and the ids of those whose numbers cannot be right.
WITH spread AS MATERIALIZED (
    SELECT *
    FROM bisonsync_private.spread_over_gap(
        %(instance)s::text, %(workspace_id)s::bigint, %(before)s::date, %(after)s::date,
        %(account_ids)s::bigint[], %(told)s::jsonb
    )
),

written AS (
    INSERT INTO sender_email_daily (
        snapshot_date, bison_instance, bison_workspace_id, bison_account_id, emails_sent_count, total_replied_count,
        unique_replied_count, total_opened_count, unique_opened_count, bounced_count, unsubscribed_count,
        interested_leads_count, total_leads_contacted_count, email_provider, reseller, domain, is_connected,
        daily_limit, volume_per_account, price, created_on, source
    )
    SELECT
        s.snapshot_date, b.bison_instance, b.bison_workspace_id, b.bison_account_id, s.emails_sent_count,
        s.total_replied_count, s.unique_replied_count, b.total_opened_count, b.unique_opened_count, s.bounced_count,
        b.unsubscribed_count, b.interested_leads_count, b.total_leads_contacted_count, b.email_provider, b.reseller,
        b.domain, b.is_connected, b.daily_limit, b.volume_per_account, b.price, b.created_on, 'api'
    FROM spread AS s
    INNER JOIN sender_email_daily AS b
        ON
            b.snapshot_date = %(before)s::date
            AND b.bison_instance = %(instance)s::text
            AND b.bison_workspace_id = %(workspace_id)s::bigint
            AND b.bison_account_id = s.bison_account_id
    WHERE s.verdict = 'filled'
    ORDER BY s.snapshot_date, b.bison_account_id
    ON CONFLICT (snapshot_date, bison_instance, bison_workspace_id, bison_account_id) DO NOTHING
)

SELECT
    count(DISTINCT bison_account_id) FILTER (WHERE verdict = 'filled') AS accounts,
    coalesce(array_agg(DISTINCT bison_account_id) FILTER (WHERE verdict = 'exceeding'), '{}') AS exceeding,
    coalesce(array_agg(DISTINCT bison_account_id) FILTER (WHERE verdict = 'unexplained'), '{}') AS unexplained
FROM spread;

-- name: record_days
-- Records the days of a gap as filled; what was recorded stays.
INSERT INTO workspace_snapshots (
    bison_instance, bison_workspace_id, snapshot_date, accounts, is_complete, source
)
SELECT
    %(instance)s::text,
    %(workspace_id)s::bigint,
    g.day::date,
    (
        SELECT count(*)
        FROM sender_email_daily AS d
        WHERE
            d.bison_instance = %(instance)s::text
            AND d.bison_workspace_id = %(workspace_id)s::bigint
            AND d.snapshot_date = g.day::date
    ),
    false,
    'api'
FROM generate_series(%(before)s::date + 1, (%(after)s::date - 1)::timestamp, interval '1 day') AS g (day)
ON CONFLICT (bison_instance, bison_workspace_id, snapshot_date) DO NOTHING;

-- name: list_unreckoned
-- The filled days of an instance of which the history does not count all accounts: a run ended between the two. Locks
-- nothing.
SELECT s.snapshot_date
FROM workspace_snapshots AS s
WHERE s.bison_instance = %(instance)s::text AND s.source = 'api'
GROUP BY s.snapshot_date
HAVING
    (
        SELECT count(*)
        FROM sender_email_daily AS d
        WHERE d.bison_instance = %(instance)s::text AND d.snapshot_date = s.snapshot_date
    ) <> (
        SELECT coalesce(sum(h.total_accounts), 0)
        FROM provider_performance_history AS h
        WHERE h.bison_instance = %(instance)s::text AND h.snapshot_date = s.snapshot_date
    )
ORDER BY s.snapshot_date;
