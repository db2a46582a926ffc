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
-- What this run has committed already of one list of one workspace, if it has; locks nothing.
SELECT counts, verdict, error ->> 'message' AS reason
FROM email_sync_log_workspaces
WHERE
    run_id = %(run_id)s::uuid
    AND bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND resource = %(resource)s::text
    AND committed_at IS NOT NULL;

-- name: record_result
-- What a run did with one list of one workspace, committed together with its data, or why it did nothing; what it has
-- committed of it before stays.
INSERT INTO email_sync_log_workspaces AS w (
    run_id, bison_instance, bison_workspace_id, resource, workspace_name, verdict, counts, error, committed_at
)
VALUES (
    %(run_id)s::uuid, %(instance)s::text, %(workspace_id)s::bigint, %(resource)s::text, %(workspace_name)s::text,
    %(verdict)s::text, %(counts)s::jsonb, %(error)s::jsonb, CASE WHEN %(committed)s::boolean THEN now() END
)
ON CONFLICT (run_id, bison_instance, bison_workspace_id, resource) DO UPDATE SET
    verdict = excluded.verdict,
    counts = CASE WHEN excluded.committed_at IS NULL THEN w.counts ELSE excluded.counts END,
    error = excluded.error,
    committed_at = coalesce(excluded.committed_at, w.committed_at);

-- name: record_read
-- What is known of a list now, after a read that was committed (complete, incomplete or guarded).
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
-- An attempt that did not reach the end.
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

-- name: notify_change
-- Tells listeners once per committed change set; workspace is instance/id, or the instance for what is kept per instance.
SELECT pg_notify(
    'bisonsync',
    json_build_object('table', %(table)s::text, 'workspace', %(workspace)s::text, 'kind', 'changed')::text
);
