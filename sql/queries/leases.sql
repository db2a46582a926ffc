-- name: create_leases
-- Makes the rows of leases that never existed; locks nothing that exists.
INSERT INTO job_leases (job, bison_instance, bison_workspace_id, generation)
SELECT %(job)s::text, w.bison_instance, w.bison_workspace_id, 0
FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (bison_instance, bison_workspace_id)
WHERE NOT EXISTS (
    SELECT FROM job_leases AS l
    WHERE l.job = %(job)s::text AND l.bison_instance = w.bison_instance AND l.bison_workspace_id = w.bison_workspace_id
)
ON CONFLICT DO NOTHING;

-- name: take_leases
-- Takes what is free, expired, or held by a process known to be dead; passes over rows that another session has locked.
WITH free AS (
    SELECT l.job, l.bison_instance, l.bison_workspace_id
    FROM job_leases AS l
    INNER JOIN unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (bison_instance, bison_workspace_id)
        ON w.bison_instance = l.bison_instance AND w.bison_workspace_id = l.bison_workspace_id
    WHERE
        l.job = %(job)s::text
        AND (
            l.holder IS NULL
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

-- name: list_holders
-- Who holds which lease of a job now, oldest heartbeat first; locks nothing.
SELECT
    bison_instance,
    bison_workspace_id,
    holder,
    host,
    pid,
    process_key,
    extract(epoch FROM clock_timestamp() - heartbeat_at)::double precision AS heartbeat_age_seconds,
    extract(epoch FROM expires_at - clock_timestamp())::double precision AS expires_in_seconds
FROM job_leases
WHERE job = %(job)s::text AND holder IS NOT NULL AND expires_at > clock_timestamp()
ORDER BY heartbeat_at, bison_instance, bison_workspace_id;

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

-- name: fence_lease
-- Renews and locks one lease until the end of the transaction; no row when it is not ours any more.
UPDATE job_leases
SET
    heartbeat_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s::double precision)
WHERE
    job = %(job)s::text
    AND bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND holder = %(run_id)s::uuid
    AND generation = %(generation)s::bigint
    AND expires_at > clock_timestamp()
RETURNING generation;

-- name: is_lease_alive
-- The last look before a commit: true while the lease that fence_lease renewed has not expired.
SELECT count(*) > 0
FROM job_leases
WHERE
    job = %(job)s::text
    AND bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND holder = %(run_id)s::uuid
    AND generation = %(generation)s::bigint
    AND expires_at > clock_timestamp();

-- name: release_leases
-- Frees everything a run still holds.
UPDATE job_leases
SET holder = NULL, host = NULL, pid = NULL, process_key = NULL, heartbeat_at = NULL, expires_at = NULL
WHERE holder = %(run_id)s::uuid;
