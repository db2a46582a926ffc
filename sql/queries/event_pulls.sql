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
