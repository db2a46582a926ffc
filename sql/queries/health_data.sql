-- name: list_lists
-- How each list of each active workspace stands, with the kind of error of its last attempt; locks nothing.
SELECT
    f.bison_instance,
    f.bison_workspace_id,
    coalesce(r.display_name, r.workspace_name) AS name,
    f.resource,
    coalesce(f.job, 'poll-' || f.resource) AS job,
    coalesce(b.is_required, false) AS is_required,
    coalesce(b.rest_seconds, 0) AS rest_seconds,
    f.last_attempt_at,
    f.last_complete_at,
    f.verdict,
    f.consecutive_failures,
    s.last_error,
    w.error ->> 'kind' AS error_kind,
    f.interval_seconds
FROM data_freshness AS f
INNER JOIN client_registry AS r USING (bison_instance, bison_workspace_id)
LEFT JOIN bisonsync_lists AS b USING (resource)
LEFT JOIN workspace_sync_state AS s
    ON s.bison_instance = f.bison_instance AND s.bison_workspace_id = f.bison_workspace_id AND s.resource = f.resource
LEFT JOIN email_sync_log_workspaces AS w
    ON
        w.run_id = s.last_run_id
        AND w.bison_instance = f.bison_instance
        AND w.bison_workspace_id = f.bison_workspace_id
        AND w.resource = f.resource
WHERE r.is_active
ORDER BY f.bison_instance, f.bison_workspace_id, f.resource;

-- name: list_drops
-- Of each active workspace: its reads since a moment, the one that removed the largest share of its accounts, and how
-- many accounts the shrink guard holds back; locks nothing.
WITH reads AS (
    SELECT
        w.bison_instance,
        w.bison_workspace_id,
        -- Less what later reads brought back.
        greatest(
            coalesce((w.counts ->> 'removed')::bigint, 0) - coalesce(
                sum((w.counts ->> 'restored')::bigint) OVER (
                    PARTITION BY w.bison_instance, w.bison_workspace_id
                    ORDER BY w.committed_at, w.run_id
                    ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
                ), 0
            ), 0
        )::bigint AS removed,
        -- Those that were there before it: what it read and had known, and what it removed.
        coalesce((w.counts ->> 'accounts_read')::bigint, 0)
        - coalesce((w.counts ->> 'inserted')::bigint, 0)
        - coalesce((w.counts ->> 'restored')::bigint, 0)
        + coalesce((w.counts ->> 'removed')::bigint, 0) AS known
    FROM email_sync_logs AS l
    INNER JOIN email_sync_log_workspaces AS w USING (run_id)
    WHERE
        l.job = 'poll-accounts'
        AND w.resource = 'accounts'
        -- A run's reads come later than its begin; the index is on that.
        AND l.started_at > %(since)s::timestamptz - interval '1 hour'
        AND w.committed_at > %(since)s::timestamptz
),

worst AS (
    SELECT DISTINCT ON (d.bison_instance, d.bison_workspace_id)
        d.bison_instance, d.bison_workspace_id, d.removed, d.known,
        count(*) OVER (PARTITION BY d.bison_instance, d.bison_workspace_id) AS reads
    FROM reads AS d
    ORDER BY d.bison_instance, d.bison_workspace_id, d.removed::numeric / nullif(d.known, 0) DESC NULLS LAST
)

SELECT
    r.bison_instance,
    r.bison_workspace_id,
    coalesce(r.display_name, r.workspace_name) AS name,
    coalesce(w.reads, 0) AS reads,
    coalesce(w.removed, 0) AS removed,
    coalesce(w.known, 0) AS known,
    s.shrink_pending_since AS held_since,
    coalesce(cardinality(s.shrink_missing_ids), 0) AS held,
    CASE WHEN s.shrink_pending_since IS NULL THEN 0 ELSE (
        SELECT count(*)
        FROM sender_emails_cache AS c
        WHERE
            c.bison_instance = r.bison_instance
            AND c.bison_workspace_id = r.bison_workspace_id
            AND c.removed_at IS NULL
    ) END AS live
FROM client_registry AS r
LEFT JOIN worst AS w ON w.bison_instance = r.bison_instance AND w.bison_workspace_id = r.bison_workspace_id
LEFT JOIN workspace_sync_state AS s
    ON s.bison_instance = r.bison_instance AND s.bison_workspace_id = r.bison_workspace_id AND s.resource = 'accounts'
WHERE r.is_active
ORDER BY r.bison_instance, r.bison_workspace_id;

-- name: list_token_states
-- What is known of the token of each active workspace, never the token, and how its last read ended; locks nothing.
SELECT
    r.bison_instance,
    r.bison_workspace_id,
    coalesce(r.display_name, r.workspace_name) AS name,
    t.token IS NOT NULL AS has_token,
    t.status,
    greatest(t.minted_at, t.verified_at) AS renewed_at,
    s.last_attempt_at,
    s.verdict,
    s.last_error,
    w.error ->> 'kind' AS error_kind
FROM client_registry AS r
LEFT JOIN bisonsync_private.workspace_tokens AS t USING (bison_instance, bison_workspace_id)
LEFT JOIN LATERAL (
    SELECT k.resource, k.last_attempt_at, k.verdict, k.last_error, k.last_run_id
    FROM workspace_sync_state AS k
    WHERE k.bison_instance = r.bison_instance AND k.bison_workspace_id = r.bison_workspace_id
    ORDER BY k.last_attempt_at DESC NULLS LAST
    LIMIT 1
) AS s ON true
LEFT JOIN email_sync_log_workspaces AS w
    ON
        w.run_id = s.last_run_id
        AND w.bison_instance = r.bison_instance
        AND w.bison_workspace_id = r.bison_workspace_id
        AND w.resource = s.resource
WHERE r.is_active
ORDER BY r.bison_instance, r.bison_workspace_id;

-- name: list_refused_keys
-- What the newest run of each job about the registry since a moment said of credentials of no single workspace; of runs of
-- single instances the newest of each, if it is newer than the last over all. Runs of chosen workspaces hide nothing.
SELECT l.job, l.started_at, e.error ->> 'message' AS message
FROM (
    SELECT DISTINCT ON (n.job, n.covers) n.job, n.started_at, n.errors
    FROM email_sync_logs AS n
    WHERE
        n.job LIKE 'workspaces-%%'
        AND n.started_at > %(since)s::timestamptz
        AND n.status <> 'running'
        AND n.covers IS DISTINCT FROM '{}'
        AND NOT EXISTS (
            SELECT
            FROM email_sync_logs AS f
            WHERE f.job = n.job AND f.covers IS NULL AND f.status <> 'running' AND f.started_at > n.started_at
        )
    ORDER BY n.job, n.covers, n.started_at DESC
) AS l
CROSS JOIN LATERAL jsonb_array_elements(l.errors) AS e (error)
WHERE e.error ->> 'kind' = 'credentials' AND e.error ->> 'workspace' IS NULL
ORDER BY l.started_at DESC;

-- name: list_quarantined
-- The open entries of the quarantine, counted per source and workspace that is read, with how many rows its list has;
-- locks nothing.
SELECT
    e.source,
    e.bison_instance,
    e.bison_workspace_id,
    coalesce(r.display_name, r.workspace_name, e.workspace) AS name,
    b.job,
    s.total,
    e.records,
    e.message
FROM (
    SELECT
        d.source,
        d.bison_instance,
        d.bison_workspace_id,
        max(d.workspace) AS workspace,
        count(DISTINCT coalesce(d.record_id, d.row_hash)) AS records,
        min(concat_ws(': ', nullif(d.field, ''), coalesce(d.message, d.error_type))) AS message
    FROM data_validation_errors AS d
    WHERE d.resolved_at IS NULL AND NOT d.is_note
    GROUP BY d.source, d.bison_instance, d.bison_workspace_id
) AS e
LEFT JOIN client_registry AS r
    ON r.bison_instance = e.bison_instance AND r.bison_workspace_id = e.bison_workspace_id
LEFT JOIN workspace_sync_state AS s
    ON
        s.bison_instance = e.bison_instance
        AND s.bison_workspace_id = e.bison_workspace_id
        AND s.resource = e.source
LEFT JOIN bisonsync_lists AS b ON b.resource = e.source
WHERE r.is_active IS DISTINCT FROM false
ORDER BY e.records DESC, e.source, e.bison_instance, e.bison_workspace_id;

-- name: list_noted_fields
-- Which fields could not be read of records that were taken all the same, in how many workspaces, with the first of the
-- notes; locks nothing.
SELECT
    d.source,
    d.field,
    count(DISTINCT (d.bison_instance, d.bison_workspace_id)) AS workspaces,
    (array_agg(d.record_id ORDER BY d.id))[1] AS record_id,
    (array_agg(d.bison_instance || '/' || d.bison_workspace_id ORDER BY d.id))[1] AS workspace
FROM data_validation_errors AS d
LEFT JOIN client_registry AS r
    ON r.bison_instance = d.bison_instance AND r.bison_workspace_id = d.bison_workspace_id
WHERE d.resolved_at IS NULL AND d.is_note AND r.is_active IS DISTINCT FROM false
GROUP BY d.source, d.field
ORDER BY d.source, d.field;

-- name: list_moving_fields
-- The unknown fields that move with every read: those that are left out of the comparison since a moment, and those that
-- moved in at least so many reads in a row and still have all rows written; locks nothing.
SELECT l.bison_instance, l.resource, l.field, l.accounts AS rows, 0 AS reads, l.left_out_at
FROM bisonsync_private.left_out_fields AS l
WHERE l.try_again_at > now()
UNION ALL
SELECT
    s.bison_instance,
    s.resource,
    m.field,
    sum((m.state ->> 'accounts')::bigint)::bigint,
    max((m.state ->> 'reads')::integer),
    NULL
FROM workspace_sync_state AS s
INNER JOIN client_registry AS r USING (bison_instance, bison_workspace_id)
CROSS JOIN LATERAL jsonb_each(s.moving_fields) AS m (field, state)
WHERE
    r.is_active
    AND (m.state ->> 'reads')::integer >= %(reads)s::integer
    AND NOT EXISTS (
        SELECT
        FROM bisonsync_private.left_out_fields AS l
        WHERE
            l.bison_instance = s.bison_instance
            AND l.resource = s.resource
            AND l.field = m.field
            AND l.try_again_at > now()
    )
GROUP BY s.bison_instance, s.resource, m.field
ORDER BY 1, 2, 3;

-- name: count_read_lists
-- How many lists of active workspaces were ever tried.
SELECT count(*)
FROM workspace_sync_state AS s
INNER JOIN client_registry AS r USING (bison_instance, bison_workspace_id)
WHERE r.is_active AND s.last_attempt_at IS NOT NULL;
