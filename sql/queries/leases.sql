-- name: create_leases
-- Makes the rows of leases that never existed; locks nothing that exists.
INSERT INTO job_leases (job, bison_instance, bison_workspace_id, generation)
SELECT %(job)s::text, w.bison_instance, w.bison_workspace_id, 0
FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (bison_instance, bison_workspace_id)
WHERE NOT EXISTS (
    SELECT FROM job_leases AS l
    WHERE l.job = %(job)s::text AND l.bison_instance = w.bison_instance AND l.bison_workspace_id = w.bison_workspace_id
)
ORDER BY w.bison_instance, w.bison_workspace_id
ON CONFLICT DO NOTHING;

-- name: list_claimable
-- Of some workspaces those whose lease can be had and whose list nobody has read for so many seconds (an attempt that
-- failed is no read): the longest unread first, by the minute, and among equals the largest. Locks nothing.
SELECT w.bison_instance, w.bison_workspace_id
FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (bison_instance, bison_workspace_id)
LEFT JOIN job_leases AS l
    ON
        l.job = %(job)s::text
        AND l.bison_instance = w.bison_instance
        AND l.bison_workspace_id = w.bison_workspace_id
LEFT JOIN workspace_sync_state AS s
    ON
        s.bison_instance = w.bison_instance
        AND s.bison_workspace_id = w.bison_workspace_id
        AND s.resource = %(resource)s::text
WHERE
    (
        l.holder IS NULL
        OR l.holder = %(run_id)s::uuid
        OR l.expires_at <= clock_timestamp()
        OR l.process_key = any(%(dead_process_keys)s::text[])
    )
    AND (
        s.last_attempt_at IS NULL
        OR s.verdict = 'failed'
        OR s.last_attempt_at < clock_timestamp() - make_interval(secs => %(unread_seconds)s::double precision)
    )
ORDER BY
    floor(extract(epoch FROM now() - s.last_complete_at) / 60) DESC NULLS FIRST,
    coalesce(s.total, s.distinct_ids) DESC NULLS LAST,
    w.bison_instance,
    w.bison_workspace_id;

-- name: list_read
-- Of some workspaces those whose list somebody has read within so many seconds, completely or not; locks nothing.
SELECT w.bison_instance, w.bison_workspace_id
FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (bison_instance, bison_workspace_id)
INNER JOIN workspace_sync_state AS s
    ON
        s.bison_instance = w.bison_instance
        AND s.bison_workspace_id = w.bison_workspace_id
        AND s.resource = %(resource)s::text
WHERE
    s.last_attempt_at >= clock_timestamp() - make_interval(secs => %(unread_seconds)s::double precision)
    AND s.verdict IS DISTINCT FROM 'failed';

-- name: take_leases
-- Takes what is free, expired, held by a process known to be dead, or given to this run by a commit whose answer was
-- lost; passes over rows that another session has locked.
WITH free AS (
    SELECT l.job, l.bison_instance, l.bison_workspace_id
    FROM job_leases AS l
    INNER JOIN unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (bison_instance, bison_workspace_id)
        ON w.bison_instance = l.bison_instance AND w.bison_workspace_id = l.bison_workspace_id
    WHERE
        l.job = %(job)s::text
        AND (
            l.holder IS NULL
            OR l.holder = %(run_id)s::uuid
            OR l.expires_at <= clock_timestamp()
            OR l.process_key = any(%(dead_process_keys)s::text[])
        )
    ORDER BY l.bison_instance, l.bison_workspace_id
    FOR UPDATE OF l SKIP LOCKED
)

UPDATE job_leases AS l
SET
    holder = %(run_id)s::uuid,
    host = %(host)s::text,
    pid = %(pid)s::integer,
    process_key = %(process_key)s::text,
    generation = l.generation + 1,
    heartbeat_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s::double precision)
FROM free
WHERE
    l.job = free.job
    AND l.bison_instance = free.bison_instance
    AND l.bison_workspace_id = free.bison_workspace_id
RETURNING l.bison_instance, l.bison_workspace_id, l.generation;

-- name: lock_leases
-- Waits until no other session has these rows locked, and locks them.
SELECT l.generation
FROM job_leases AS l
INNER JOIN unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (bison_instance, bison_workspace_id)
    ON w.bison_instance = l.bison_instance AND w.bison_workspace_id = l.bison_workspace_id
WHERE l.job = %(job)s::text
ORDER BY l.bison_instance, l.bison_workspace_id
FOR UPDATE OF l;

-- name: list_holders
-- Who holds which lease of a job now, oldest run first; locks nothing.
SELECT
    l.bison_instance,
    l.bison_workspace_id,
    l.holder,
    l.host,
    l.pid,
    l.process_key,
    extract(epoch FROM clock_timestamp() - r.started_at)::double precision AS age_seconds,
    extract(epoch FROM clock_timestamp() - l.heartbeat_at)::double precision AS heartbeat_age_seconds,
    extract(epoch FROM l.expires_at - clock_timestamp())::double precision AS expires_in_seconds
FROM job_leases AS l
LEFT JOIN email_sync_logs AS r ON r.run_id = l.holder
WHERE l.job = %(job)s::text AND l.holder IS NOT NULL AND l.expires_at > clock_timestamp()
ORDER BY r.started_at, l.holder, l.bison_instance, l.bison_workspace_id;

-- name: renew_leases
-- Renews a run's leases that have not expired; passes over those that a commit of the same run has locked.
WITH mine AS (
    SELECT job, bison_instance, bison_workspace_id
    FROM job_leases
    WHERE holder = %(run_id)s::uuid AND expires_at > clock_timestamp()
    ORDER BY job, bison_instance, bison_workspace_id
    FOR UPDATE SKIP LOCKED
)

UPDATE job_leases AS l
SET
    heartbeat_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s::double precision)
FROM mine
WHERE
    l.job = mine.job
    AND l.bison_instance = mine.bison_instance
    AND l.bison_workspace_id = mine.bison_workspace_id;

-- name: is_held
-- A row while one lease is ours and has not expired; locks nothing.
SELECT generation
FROM job_leases
WHERE
    job = %(job)s::text
    AND bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND holder = %(run_id)s::uuid
    AND generation = %(generation)s::bigint
    AND expires_at > clock_timestamp();

-- name: fence_lease
-- Locks and renews one lease until the end of the transaction, which may stand idle no longer than the lease lasts;
-- no row when the lease is not ours any more. The clock is read after the wait for the lock.
WITH mine AS MATERIALIZED (
    SELECT job, bison_instance, bison_workspace_id, expires_at
    FROM job_leases
    WHERE
        job = %(job)s::text
        AND bison_instance = %(instance)s::text
        AND bison_workspace_id = %(workspace_id)s::bigint
        AND holder = %(run_id)s::uuid
        AND generation = %(generation)s::bigint
    FOR UPDATE
)

UPDATE job_leases AS l
SET
    heartbeat_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s::double precision)
FROM mine
WHERE
    l.job = mine.job
    AND l.bison_instance = mine.bison_instance
    AND l.bison_workspace_id = mine.bison_workspace_id
    AND mine.expires_at > clock_timestamp()
RETURNING
    set_config(
        'idle_in_transaction_session_timeout',
        least(
            extract(
                epoch FROM nullif(
                    current_setting('idle_in_transaction_session_timeout')::interval, interval '0'
                )
            ) * 1000,
            ceil(1000 * %(ttl_seconds)s::numeric)
        )::bigint::text,
        true
    );

-- name: commit_before_expiry
-- The last statement before a commit: the server takes the commit only while the lease that fence_lease renewed lasts,
-- for it ends a session that stands idle for longer. No row when the lease has run out already.
SELECT
    set_config(
        'idle_in_transaction_session_timeout',
        least(
            extract(
                epoch FROM nullif(
                    current_setting('idle_in_transaction_session_timeout')::interval, interval '0'
                )
            ) * 1000,
            l.milliseconds_left
        )::bigint::text,
        true
    )
FROM (
    SELECT
        floor(1000 * extract(epoch FROM expires_at - clock_timestamp()))
        - %(margin_milliseconds)s::integer AS milliseconds_left
    FROM job_leases
    WHERE
        job = %(job)s::text
        AND bison_instance = %(instance)s::text
        AND bison_workspace_id = %(workspace_id)s::bigint
        AND holder = %(run_id)s::uuid
        AND generation = %(generation)s::bigint
) AS l
WHERE l.milliseconds_left >= 1;

-- name: release_lease
-- Frees one lease if it is still ours.
UPDATE job_leases
SET holder = NULL, host = NULL, pid = NULL, process_key = NULL, heartbeat_at = NULL, expires_at = NULL
WHERE
    job = %(job)s::text
    AND bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND holder = %(run_id)s::uuid
    AND generation = %(generation)s::bigint;

-- name: release_leases
-- Frees everything a run still holds, and waits for its commits that are under way.
UPDATE job_leases
SET holder = NULL, host = NULL, pid = NULL, process_key = NULL, heartbeat_at = NULL, expires_at = NULL
WHERE holder = %(run_id)s::uuid;

-- name: release_unlocked_leases
-- Frees what a run still holds, but for what another session has locked: that runs out by itself.
WITH mine AS (
    SELECT job, bison_instance, bison_workspace_id
    FROM job_leases
    WHERE holder = any(%(run_ids)s::uuid[])
    ORDER BY job, bison_instance, bison_workspace_id
    FOR UPDATE SKIP LOCKED
)

UPDATE job_leases AS l
SET holder = NULL, host = NULL, pid = NULL, process_key = NULL, heartbeat_at = NULL, expires_at = NULL
FROM mine
WHERE
    l.job = mine.job
    AND l.bison_instance = mine.bison_instance
    AND l.bison_workspace_id = mine.bison_workspace_id;
