-- name: start_read
-- The database's time before the first request of a workspace, and the unknown fields that its instance's rows are not
-- compared by; locks nothing.
SELECT
    clock_timestamp() AS at,
    array(
        SELECT l.field
        FROM bisonsync_private.left_out_fields AS l
        WHERE l.bison_instance = %(instance)s::text AND l.resource = %(resource)s::text AND l.try_again_at > now()
        ORDER BY l.field
    ) AS left_out,
    array(
        SELECT l.path::text
        FROM bisonsync_private.left_out_fields AS l
        WHERE l.bison_instance = %(instance)s::text AND l.resource = %(resource)s::text AND l.try_again_at > now()
        ORDER BY l.field
    ) AS left_out_paths;

-- name: find_result
-- The counts that this run has already committed for a workspace, if it has; locks nothing.
SELECT counts, verdict, error ->> 'message' AS reason
FROM email_sync_log_workspaces
WHERE
    run_id = %(run_id)s::uuid
    AND bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND resource = %(resource)s::text
    AND committed_at IS NOT NULL;

-- name: join_by_hashing
-- For this transaction alone: join sets by hashing or sorting. Before a table's first ANALYZE the planner expects one row
-- of a workspace, and a nested loop over its thousands would take hours.
SELECT set_config('enable_nestloop', 'off', true);

-- name: judge_shrink
-- What a complete read says of the live rows that it did not show: which to remove, which to hold back; locks nothing.
-- Held back is a removal of more than max_shrink of all and more than max_shrink_rows, until a complete read at least
-- shrink_confirm_seconds later misses the same ones; and always the removal of every row.
WITH missing AS (
    SELECT m.id FROM unnest(%(missing_ids)s::bigint[]) AS m (id)
),

pending AS (
    SELECT s.shrink_pending_since AS since, coalesce(s.shrink_missing_ids, '{}') AS ids
    FROM workspace_sync_state AS s
    WHERE
        s.bison_instance = %(instance)s::text
        AND s.bison_workspace_id = %(workspace_id)s::bigint
        AND s.resource = %(resource)s::text
        AND s.shrink_pending_since IS NOT NULL
),

confirmed AS (
    SELECT m.id
    FROM missing AS m, pending AS p
    WHERE
        p.since <= %(read_started_at)s::timestamptz
        - make_interval(secs => %(shrink_confirm_seconds)s::double precision)
        AND m.id = any(p.ids)
),

doubtful AS (
    SELECT m.id FROM missing AS m
    EXCEPT
    SELECT f.id FROM confirmed AS f
),

numbers AS (
    SELECT
        %(live)s::bigint AS live,
        (SELECT count(*) FROM missing) AS missing,
        (SELECT count(*) FROM doubtful) AS doubtful
),

verdict AS (
    SELECT
        n.live,
        n.missing,
        CASE
            WHEN %(allow_shrink)s::boolean OR n.missing = 0 THEN 'remove'
            WHEN n.missing = n.live THEN 'hold_all'
            WHEN
                n.doubtful > %(max_shrink_rows)s::bigint
                AND n.doubtful > %(max_shrink)s::double precision * n.live
                THEN 'hold_doubtful'
            ELSE 'remove'
        END AS decision
    FROM numbers AS n
)

SELECT
    v.live,
    v.missing,
    v.decision,
    CASE v.decision
        WHEN 'remove' THEN (SELECT coalesce(array_agg(m.id), '{}') FROM missing AS m)
        WHEN 'hold_doubtful' THEN (SELECT coalesce(array_agg(f.id), '{}') FROM confirmed AS f)
        ELSE '{}'::bigint[]
    END AS remove_ids,
    CASE
        WHEN v.decision = 'remove' THEN NULL
        -- Those that came back meanwhile leave the list; if nothing of it is left the wait begins anew.
        WHEN
            v.decision = 'hold_doubtful'
            AND NOT EXISTS (SELECT FROM confirmed)
            AND EXISTS (SELECT FROM doubtful AS x, pending AS p WHERE x.id = any(p.ids))
            THEN (
                SELECT array_agg(x.id)
                FROM doubtful AS x, pending AS p WHERE x.id = any(p.ids)
            )
        ELSE (SELECT array_agg(m.id) FROM doubtful AS m)
    END AS pending_ids,
    CASE
        WHEN v.decision = 'remove' THEN NULL
        WHEN
            NOT EXISTS (SELECT FROM confirmed)
            AND EXISTS (SELECT FROM doubtful AS x, pending AS p WHERE x.id = any(p.ids))
            THEN (SELECT p.since FROM pending AS p)
        ELSE %(read_started_at)s::timestamptz
    END AS pending_since
FROM verdict AS v;

-- name: record_read
-- What is known of the list now, after a read that was committed (complete, incomplete or guarded).
INSERT INTO workspace_sync_state AS s (
    bison_instance, bison_workspace_id, resource, last_attempt_at, last_complete_at, read_started_at, total,
    distinct_ids, verdict, consecutive_failures, last_error, last_run_id, shrink_pending_since, shrink_missing_ids,
    interval_seconds
)
VALUES (
    %(instance)s::text, %(workspace_id)s::bigint, %(resource)s::text, now(),
    CASE WHEN %(verdict)s::text = 'complete' THEN %(read_started_at)s::timestamptz END,
    %(read_started_at)s::timestamptz, %(total)s::bigint, %(distinct_ids)s::bigint, %(verdict)s::text,
    CASE WHEN %(verdict)s::text = 'complete' THEN 0 ELSE 1 END,
    %(error)s::text, %(run_id)s::uuid, %(pending_since)s::timestamptz, %(pending_ids)s::bigint[],
    %(interval_seconds)s::integer
)
ON CONFLICT (bison_instance, bison_workspace_id, resource) DO UPDATE SET
    last_attempt_at = excluded.last_attempt_at,
    last_complete_at = coalesce(excluded.last_complete_at, s.last_complete_at),
    read_started_at = excluded.read_started_at,
    total = excluded.total,
    distinct_ids = excluded.distinct_ids,
    verdict = excluded.verdict,
    consecutive_failures
    = CASE WHEN excluded.verdict = 'complete' THEN 0 ELSE s.consecutive_failures + 1 END,
    last_error = excluded.last_error,
    last_run_id = excluded.last_run_id,
    -- An incomplete read says nothing about what is missing.
    shrink_pending_since
    = CASE WHEN excluded.verdict = 'incomplete' THEN s.shrink_pending_since ELSE excluded.shrink_pending_since END,
    shrink_missing_ids
    = CASE WHEN excluded.verdict = 'incomplete' THEN s.shrink_missing_ids ELSE excluded.shrink_missing_ids END,
    interval_seconds = excluded.interval_seconds,
    -- Where every row took new values of known fields, nothing is known of the others.
    moving_fields = CASE
        WHEN %(idle)s::bigint = 0 THEN s.moving_fields
        ELSE (
            SELECT jsonb_object_agg(
                m.field,
                jsonb_build_object(
                    'path', m.path,
                    'accounts', m.accounts,
                    'reads', coalesce((s.moving_fields -> m.field ->> 'reads')::integer, 0) + 1
                )
            )
            FROM jsonb_to_recordset(%(moving)s::jsonb) AS m (field text, path jsonb, accounts bigint)
        )
    END,
    due_since = CASE WHEN excluded.verdict = 'complete' AND s.due_since <= excluded.read_started_at THEN NULL ELSE s.due_since END;

-- name: record_failure
-- An attempt that committed no data.
INSERT INTO workspace_sync_state AS s (
    bison_instance, bison_workspace_id, resource, last_attempt_at, verdict, consecutive_failures, last_error,
    last_run_id, interval_seconds
)
VALUES (
    %(instance)s::text, %(workspace_id)s::bigint, %(resource)s::text, now(), %(verdict)s::text, 1, %(error)s::text,
    %(run_id)s::uuid, %(interval_seconds)s::integer
)
ON CONFLICT (bison_instance, bison_workspace_id, resource) DO UPDATE SET
    last_attempt_at = excluded.last_attempt_at,
    verdict = excluded.verdict,
    consecutive_failures = s.consecutive_failures + 1,
    last_error = excluded.last_error,
    last_run_id = excluded.last_run_id,
    interval_seconds = excluded.interval_seconds;

-- name: record_result
-- A workspace's counts in the ledger, committed together with its data, or why there are none.
INSERT INTO email_sync_log_workspaces (
    run_id, bison_instance, bison_workspace_id, resource, workspace_name, verdict, counts, error, committed_at
)
VALUES (
    %(run_id)s::uuid, %(instance)s::text, %(workspace_id)s::bigint, %(resource)s::text, %(workspace_name)s::text,
    %(verdict)s::text, %(counts)s::jsonb, %(error)s::jsonb, CASE WHEN %(committed)s::boolean THEN now() END
)
ON CONFLICT (run_id, bison_instance, bison_workspace_id, resource) DO UPDATE SET
    verdict = excluded.verdict,
    counts = excluded.counts,
    error = excluded.error,
    committed_at = excluded.committed_at;

-- name: leave_out_fields
-- Leaves unknown fields out of the comparison that moved in nearly all rows of so many reads in a row, by what this run
-- has seen; those left out now, and whether each is for the first time.
INSERT INTO bisonsync_private.left_out_fields AS l (bison_instance, resource, field, path, accounts, try_again_at)
SELECT
    s.bison_instance,
    s.resource,
    m.field,
    array(SELECT p.name FROM jsonb_array_elements_text((array_agg(m.state -> 'path'))[1]) AS p (name)),
    sum((m.state ->> 'accounts')::bigint),
    now() + interval '7 days'
FROM workspace_sync_state AS s
CROSS JOIN LATERAL jsonb_each(s.moving_fields) AS m (field, state)
WHERE
    s.last_run_id = %(run_id)s::uuid
    AND s.resource = %(resource)s::text
    AND (m.state ->> 'reads')::integer >= %(reads)s::integer
GROUP BY s.bison_instance, s.resource, m.field
HAVING sum((m.state ->> 'accounts')::bigint) >= %(min_rows)s::bigint
ON CONFLICT (bison_instance, resource, field) DO UPDATE SET
    path = excluded.path,
    accounts = excluded.accounts,
    left_out_at = now(),
    try_again_at = excluded.try_again_at,
    times = l.times + 1
WHERE l.try_again_at <= now()
RETURNING l.bison_instance, l.field, l.accounts AS rows, l.times = 1 AS is_first;

-- name: forget_left_out_fields
-- Forgets fields that were left out by themselves, for the settings leave them out now.
DELETE FROM bisonsync_private.left_out_fields
WHERE bison_instance = any(%(instances)s::text[]) AND resource = %(resource)s::text AND field = any(%(fields)s::text[]);

-- name: quarantine_rows
-- Keeps rows that could not be read or stored, and notes on fields of rows that were taken all the same; one already
-- kept with the same fault is not kept twice, whatever else in it moved since.
INSERT INTO data_validation_errors (
    source, bison_instance, bison_workspace_id, workspace, record_id, field, error_type, message, "row", row_hash,
    is_note, run_id
)
SELECT
    %(source)s::text, %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text,
    r.record_id, r.field, r.error_type, r.message, r."row",
    md5(coalesce(r."row" -> split_part(r.field, '.', 1), r."row", 'null')::text), r.is_note, %(run_id)s::uuid
FROM jsonb_to_recordset(%(faults)s::jsonb) AS r (
    record_id text, field text, error_type text, message text, "row" jsonb, is_note boolean
)
ON CONFLICT DO NOTHING;

-- name: resolve_quarantine
-- Closes the kept faults of this list that a complete read no longer shows.
UPDATE data_validation_errors AS e
SET resolved_at = now()
WHERE
    e.source = %(source)s::text
    AND e.bison_instance = %(instance)s::text
    AND e.bison_workspace_id = %(workspace_id)s::bigint
    AND e.resolved_at IS NULL
    AND NOT EXISTS (
        SELECT
        FROM jsonb_to_recordset(%(faults)s::jsonb) AS r (
            record_id text, field text, error_type text, "row" jsonb, is_note boolean
        )
        WHERE
            r.record_id IS NOT DISTINCT FROM e.record_id
            AND r.field = e.field
            AND r.error_type = e.error_type
            AND r.is_note = e.is_note
            AND md5(coalesce(r."row" -> split_part(r.field, '.', 1), r."row", 'null')::text) = e.row_hash
    );

-- name: notify_change
-- Tells listeners once per committed change set.
SELECT pg_notify(
    'bisonsync',
    json_build_object(
        'table', %(table)s::text,
        'workspace', %(instance)s::text || '/' || %(workspace_id)s::bigint::text,
        'kind', %(kind)s::text
    )::text
);
