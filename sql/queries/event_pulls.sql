-- name: read_time
-- The database's time, by which a pull decides what is due.
SELECT clock_timestamp();

-- name: list_pulls
-- How far the event logs are read; locks nothing.
SELECT
    bison_instance, bison_workspace_id, pulled_until, whole_until, whole_at, walk_from, walk_until, walk_kind,
    walk_cursor, absent_at
FROM bisonsync_private.event_pulls;

-- name: find_known_events
-- Of each event whether the inbox has it, whether as one of another workspace, and what equal ones share; locks nothing.
SELECT k.place, k.is_known, k.is_mismatch, k.identity
FROM bisonsync_private.find_known_events(
    %(instance)s::text, %(workspace_id)s::bigint, %(received_ats)s::timestamptz[], %(payloads)s::text[]::jsonb[]
) AS k;

-- name: list_due_mismatches
-- The next of a workspace's mismatches that are none any more; locks nothing.
SELECT m.id, m.received_at
FROM bisonsync_private.due_mismatches() AS m
WHERE m.bison_instance = %(instance)s::text AND m.bison_workspace_id = %(workspace_id)s::bigint
ORDER BY m.id
LIMIT %(limit)s::integer;

-- name: sum_mismatches
-- How many deliveries of another workspace came to this one's address, and why the first is one; locks nothing.
SELECT count(*) AS deliveries, (array_agg(coalesce(l.event_type, 'no type') || ', ' || l.error_message ORDER BY l.id))[1] AS first
FROM webhook_delivery_log AS l
WHERE
    l.status = 'mismatch'
    AND l.bison_instance = %(instance)s::text
    AND l.bison_workspace_id = %(workspace_id)s::bigint;

-- name: find_result
-- The counts that this run has already committed for a workspace, if it has; locks nothing.
SELECT counts
FROM email_sync_log_workspaces
WHERE
    run_id = %(run_id)s::uuid
    AND bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND resource = %(resource)s::text
    AND committed_at IS NOT NULL;

-- name: record_progress
-- How far a workspace's event log is read now; a row that says so already is not written.
INSERT INTO bisonsync_private.event_pulls AS p (
    bison_instance, bison_workspace_id, pulled_until, whole_until, whole_at, walk_from, walk_until, walk_kind, walk_cursor
)
VALUES (
    %(instance)s::text, %(workspace_id)s::bigint, %(pulled_until)s::timestamptz, %(whole_until)s::timestamptz,
    %(whole_at)s::timestamptz, %(walk_from)s::timestamptz, %(walk_until)s::timestamptz, %(walk_kind)s::text,
    %(walk_cursor)s::text
)
ON CONFLICT (bison_instance, bison_workspace_id) DO UPDATE SET
    pulled_until = excluded.pulled_until,
    whole_until = excluded.whole_until,
    whole_at = excluded.whole_at,
    walk_from = excluded.walk_from,
    walk_until = excluded.walk_until,
    walk_kind = excluded.walk_kind,
    walk_cursor = excluded.walk_cursor,
    absent_at = NULL
WHERE
    (
        p.pulled_until, p.whole_until, p.whole_at, p.walk_from, p.walk_until, p.walk_kind, p.walk_cursor, p.absent_at
    ) IS DISTINCT FROM (
        excluded.pulled_until, excluded.whole_until, excluded.whole_at, excluded.walk_from, excluded.walk_until,
        excluded.walk_kind, excluded.walk_cursor, NULL
    );

-- name: record_complete
-- That a workspace's event log was read up to a moment.
INSERT INTO workspace_sync_state AS s (
    bison_instance, bison_workspace_id, resource, last_attempt_at, last_complete_at, read_started_at, distinct_ids,
    verdict, consecutive_failures, last_run_id, interval_seconds
)
VALUES (
    %(instance)s::text, %(workspace_id)s::bigint, 'events', now(), %(read_started_at)s::timestamptz,
    %(read_started_at)s::timestamptz, %(events_read)s::bigint, 'complete', 0, %(run_id)s::uuid,
    %(interval_seconds)s::integer
)
ON CONFLICT (bison_instance, bison_workspace_id, resource) DO UPDATE SET
    last_attempt_at = excluded.last_attempt_at,
    last_complete_at = excluded.last_complete_at,
    read_started_at = excluded.read_started_at,
    distinct_ids = excluded.distinct_ids,
    verdict = excluded.verdict,
    consecutive_failures = 0,
    last_error = NULL,
    last_run_id = excluded.last_run_id,
    interval_seconds = excluded.interval_seconds;

-- name: record_failure
-- An attempt that did not reach the end.
INSERT INTO workspace_sync_state AS s (
    bison_instance, bison_workspace_id, resource, last_attempt_at, verdict, consecutive_failures, last_error,
    last_run_id, interval_seconds
)
VALUES (
    %(instance)s::text, %(workspace_id)s::bigint, 'events', now(), %(verdict)s::text, 1, %(error)s::text,
    %(run_id)s::uuid, %(interval_seconds)s::integer
)
ON CONFLICT (bison_instance, bison_workspace_id, resource) DO UPDATE SET
    last_attempt_at = excluded.last_attempt_at,
    verdict = excluded.verdict,
    consecutive_failures = s.consecutive_failures + 1,
    last_error = excluded.last_error,
    last_run_id = excluded.last_run_id,
    interval_seconds = excluded.interval_seconds;

-- name: record_absence
-- That the host of a workspace has no event log, now. What was read of it before stays read.
INSERT INTO bisonsync_private.event_pulls AS p (bison_instance, bison_workspace_id, absent_at)
VALUES (%(instance)s::text, %(workspace_id)s::bigint, clock_timestamp())
ON CONFLICT (bison_instance, bison_workspace_id) DO UPDATE SET absent_at = excluded.absent_at;

-- name: remove_state
-- A list that the host does not have is not expected to be fresh.
DELETE FROM workspace_sync_state
WHERE
    bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND resource = 'events';

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
    counts = CASE WHEN %(committed)s::boolean THEN excluded.counts ELSE email_sync_log_workspaces.counts END,
    error = excluded.error,
    committed_at = coalesce(excluded.committed_at, email_sync_log_workspaces.committed_at);
