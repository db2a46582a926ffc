-- needs: data_freshness, bisonsync_lists
CREATE OR REPLACE VIEW public.dashboard_health_summary WITH (security_invoker = true) AS
WITH lists AS (
    SELECT
        count(*) AS lists,
        -- A list is read every interval, so that up to two of them is as young as it can be expected to be.
        count(*) FILTER (WHERE f.state IN ('fresh', 'stale')) AS fresh,
        count(*) FILTER (WHERE f.state = 'very_stale' AND abs(f.age_seconds) <= 4 * f.interval_seconds) AS late,
        count(*) FILTER (WHERE f.is_complete) AS complete
    FROM public.data_freshness AS f
),

last_runs AS (
    -- A job may be run instance by instance; a run of chosen parts says nothing of it.
    SELECT DISTINCT ON (l.job, l.covers) l.job, l.status
    FROM public.email_sync_logs AS l
    WHERE l.started_at > now() - interval '25 hours' AND l.status NOT IN ('running', 'skipped')
        AND l.covers IS DISTINCT FROM '{}'
    ORDER BY l.job, l.covers, l.started_at DESC
),

runs AS (
    SELECT
        count(*) AS jobs,
        count(*) FILTER (WHERE r.status IN ('success', 'differences')) AS good,
        count(*) FILTER (WHERE r.status IN ('partial', 'guarded', 'stopped')) AS partly
    FROM last_runs AS r
),

accounts AS (
    SELECT count(*) AS accounts, count(*) FILTER (WHERE s.is_connected) AS connected
    FROM public.sender_emails_cache AS s
    INNER JOIN public.client_registry AS w
        ON w.bison_instance = s.bison_instance AND w.bison_workspace_id = s.bison_workspace_id AND w.is_active
    WHERE s.removed_at IS NULL
),

-- What the last poll of each list could not take over: its readers may not see the quarantine itself. A poll that found
-- all of it read by others, or not due, says nothing.
polls AS (
    SELECT sum(p.rows)::bigint AS rows, sum(p.invalid)::bigint AS invalid
    FROM (
        SELECT DISTINCT ON (l.job, l.covers) r.rows, r.invalid
        FROM public.email_sync_logs AS l
        INNER JOIN public.bisonsync_lists AS b ON b.job = l.job
        CROSS JOIN LATERAL (
            SELECT
                coalesce(l.counts ->> (b.resource || '_read'), l.counts ->> 'accounts_read')::bigint AS rows,
                coalesce((l.counts ->> 'invalid')::bigint, 0) AS invalid
        ) AS r
        WHERE (r.rows > 0 OR r.invalid > 0) AND l.started_at > now() - interval '25 hours'
            AND l.status NOT IN ('running', 'skipped') AND l.covers IS DISTINCT FROM '{}'
        ORDER BY l.job, l.covers, l.started_at DESC
    ) AS p
),

calls AS (
    SELECT
        coalesce(sum(a.requests), 0) AS requests,
        coalesce(sum(a.errors), 0) AS errors,
        sum(a.response_time_ms * a.requests) / nullif(sum(a.requests) FILTER (WHERE a.response_time_ms IS NOT NULL), 0) AS mean_ms
    -- The entries of a day are the newest; there is no index by time.
    FROM (SELECT n.* FROM public.api_health_logs AS n ORDER BY n.id DESC LIMIT 20000) AS a
    WHERE a."timestamp" > now() - interval '24 hours'
),

history AS (
    SELECT
        count(*) AS workspaces,
        count(*) FILTER (WHERE d.is_complete) AS complete,
        count(*) FILTER (WHERE NOT d.is_complete) AS partly
    FROM public.client_registry AS w
    LEFT JOIN LATERAL (
        -- Somewhere it is still yesterday.
        SELECT bool_or(s.is_complete) AS is_complete
        FROM public.workspace_snapshots AS s
        WHERE s.bison_instance = w.bison_instance AND s.bison_workspace_id = w.bison_workspace_id
            AND s.snapshot_date BETWEEN (now() AT TIME ZONE 'UTC')::date - 1 AND (now() AT TIME ZONE 'UTC')::date + 1
    ) AS d ON true
    WHERE w.is_active
),

parts AS (
    SELECT 'freshness' AS name, 30 AS weight, 100.0 * (l.fresh + 0.5 * l.late) / nullif(l.lists, 0) AS score,
        CASE WHEN l.lists = 0 THEN 'no list is expected' ELSE format('%s of %s lists are fresh', l.fresh, l.lists) END AS detail
    FROM lists AS l
    UNION ALL
    SELECT 'completeness', 20, 100.0 * l.complete / nullif(l.lists, 0),
        CASE WHEN l.lists = 0 THEN 'no list is expected' ELSE format('%s of %s lists were read whole', l.complete, l.lists) END
    FROM lists AS l
    UNION ALL
    SELECT 'runs', 15, 100.0 * (r.good + 0.5 * r.partly) / nullif(r.jobs, 0),
        CASE
            WHEN r.jobs = 0 THEN 'no run has ended in 25 hours'
            ELSE format('%s of %s jobs did well when they last ran', r.good, r.jobs)
        END
    FROM runs AS r
    UNION ALL
    SELECT 'connected', 15, 100.0 * a.connected / nullif(a.accounts, 0),
        CASE WHEN a.accounts = 0 THEN 'no account is known' ELSE format('%s of %s accounts are connected', a.connected, a.accounts) END
    FROM accounts AS a
    UNION ALL
    -- One row in ten that cannot be taken over is as bad as all.
    SELECT 'validation', 5, CASE WHEN p.rows > 0 THEN 100.0 * greatest(0, 1 - 10.0 * p.invalid / p.rows) END,
        CASE
            WHEN p.rows > 0 THEN format('%s of %s rows read could not be stored', p.invalid, p.rows)
            ELSE 'no row was read in 25 hours'
        END
    FROM (SELECT 1) AS one
    LEFT JOIN polls AS p ON true
    UNION ALL
    SELECT 'api', 5,
        CASE
            WHEN c.requests > 0 THEN 100.0 * greatest(0, 1 - c.errors / c.requests) * CASE WHEN c.mean_ms > 2000 THEN 0.5 ELSE 1 END
        END,
        CASE
            WHEN c.requests = 0 THEN 'no request in 24 hours'
            ELSE format('%s requests in 24 hours, %s without a usable answer, %s ms on average', c.requests, c.errors, round(c.mean_ms))
        END
    FROM calls AS c
    UNION ALL
    SELECT 'history', 10, 100.0 * (h.complete + 0.5 * h.partly) / nullif(h.workspaces, 0),
        CASE
            WHEN h.workspaces = 0 THEN 'no workspace is active'
            ELSE format('%s of %s workspaces were recorded since yesterday', h.complete, h.workspaces)
        END
    FROM history AS h
),

judged AS (
    SELECT
        p.name,
        p.weight,
        p.detail,
        round(coalesce(p.score, 0), 1) AS score,
        CASE WHEN p.score IS NULL THEN 'UNKNOWN' WHEN p.score < 50 THEN 'CRITICAL' WHEN p.score < 95 THEN 'WARNING' ELSE 'OK' END AS state
    FROM parts AS p
)

SELECT
    round(sum(j.score * j.weight) / sum(j.weight), 1) AS score,
    (array_agg(j.state ORDER BY array_position(ARRAY['CRITICAL', 'UNKNOWN', 'WARNING', 'OK'], j.state)))[1] AS state,
    jsonb_object_agg(j.name, jsonb_build_object('score', j.score, 'weight', j.weight, 'state', j.state, 'detail', j.detail))
    || '{"webhooks": null}' AS parts,
    now() AS as_of
FROM judged AS j;

COMMENT ON VIEW public.dashboard_health_summary IS
    'One row: how well the mirror does, now. What cannot be known counts 0, so that an empty database scores 0.';
COMMENT ON COLUMN public.dashboard_health_summary.score IS 'From 0 to 100: the mean of the parts that are in use, by their weights.';
COMMENT ON COLUMN public.dashboard_health_summary.state IS
    'The worst state of a part: OK from 95 on, WARNING from 50 on, else CRITICAL; UNKNOWN without data, which is worse than WARNING.';
COMMENT ON COLUMN public.dashboard_health_summary.parts IS
    'freshness, completeness, runs, connected, validation, api, history: each score, weight, state and detail. webhooks: null, and not counted, for readers may not see the inbox: how they fare is in webhook_health.';
COMMENT ON COLUMN public.dashboard_health_summary.as_of IS 'The moment it was computed.';
