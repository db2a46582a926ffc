-- name: list_job_runs
-- How the runs of each of these jobs stand: the last start, the last that ended and said something (skipped and stopped
-- ones say nothing), and how many failed since one did not. A job that is run instance by instance has a row for those
-- that stand alike; runs of chosen parts (covers is empty) say nothing of the job. Locks nothing.
WITH places AS (
    SELECT r.bison_instance AS place, min(r.created_at) AS known_since
    FROM client_registry AS r
    WHERE r.is_active
    GROUP BY r.bison_instance
    UNION ALL
    SELECT '', NULL
    WHERE NOT EXISTS (SELECT FROM client_registry AS r WHERE r.is_active)
),

strands AS (
    SELECT
        l.job,
        l.covers,
        max(l.started_at) AS last_start,
        max(l.started_at) FILTER (WHERE l.status NOT IN ('running', 'skipped', 'stopped')) AS last_told,
        max(l.started_at) FILTER (WHERE l.status IN ('success', 'partial', 'guarded', 'differences')) AS last_good
    FROM email_sync_logs AS l
    WHERE l.job = any(%(jobs)s::text[])
    GROUP BY l.job, l.covers
),

times AS (
    SELECT
        j.job,
        p.place,
        p.known_since,
        max(s.last_start) AS last_start,
        max(s.last_told) AS last_told,
        max(s.last_good) AS last_good
    FROM unnest(%(jobs)s::text[]) AS j (job)
    CROSS JOIN places AS p
    LEFT JOIN strands AS s ON s.job = j.job AND (s.covers IS NULL OR p.place = any(s.covers))
    GROUP BY j.job, p.place, p.known_since
),

failures AS (
    SELECT l.job, t.place, count(*) AS failures
    FROM email_sync_logs AS l
    INNER JOIN times AS t
        ON
            t.job = l.job
            AND l.started_at > coalesce(t.last_good, '-infinity')
            AND (l.covers IS NULL OR t.place = any(l.covers))
    WHERE l.status = 'failed'
    GROUP BY l.job, t.place
),

standings AS (
    SELECT
        t.job,
        t.last_start,
        t.last_told,
        coalesce(f.failures, 0) AS failures,
        min(t.known_since) AS known_since,
        array_agg(t.place ORDER BY t.place) AS places
    FROM times AS t
    LEFT JOIN failures AS f ON f.job = t.job AND f.place = t.place
    GROUP BY t.job, t.last_start, t.last_told, coalesce(f.failures, 0)
)

SELECT
    t.job,
    CASE WHEN count(*) OVER (PARTITION BY t.job) > 1 THEN t.places ELSE '{}' END AS instances,
    t.known_since,
    t.last_start,
    t.failures,
    d.run_id,
    d.status,
    coalesce(d.lost, false) AS lost,
    d.errors,
    s.run_id AS running_id,
    s.started_at AS running_since,
    s.host AS running_on,
    c.last_start AS last_part
FROM standings AS t
LEFT JOIN strands AS c ON c.job = t.job AND c.covers = '{}'
LEFT JOIN LATERAL (
    SELECT l.run_id, l.status, l.lost, l.errors
    FROM email_sync_logs AS l
    WHERE
        l.started_at = t.last_told
        AND l.job = t.job
        AND l.status NOT IN ('running', 'skipped', 'stopped')
        AND (l.covers IS NULL OR l.covers && t.places)
    LIMIT 1
) AS d ON true
LEFT JOIN LATERAL (
    SELECT l.run_id, l.started_at, l.host
    FROM email_sync_logs AS l
    WHERE l.status = 'running' AND l.job = t.job
    ORDER BY l.started_at
    LIMIT 1
) AS s ON true
ORDER BY t.job, instances;

-- name: find_set_up_at
-- Since when jobs could have been running: the first workspace, or the last change of the schema if that is later.
SELECT greatest(
    (SELECT min(r.created_at) FROM client_registry AS r),
    (SELECT max(m.applied_at) FROM bisonsync_migrations AS m)
);

-- name: list_held_leases
-- Every lease that says it is held, with what the ledger knows of its run; locks nothing.
SELECT
    l.job,
    l.bison_instance,
    l.bison_workspace_id,
    coalesce(r.display_name, r.workspace_name) AS name,
    l.holder,
    l.host,
    l.pid,
    l.process_key,
    l.heartbeat_at,
    l.expires_at,
    g.started_at,
    g.status
FROM job_leases AS l
LEFT JOIN email_sync_logs AS g ON g.run_id = l.holder
LEFT JOIN client_registry AS r
    ON r.bison_instance = l.bison_instance AND r.bison_workspace_id = l.bison_workspace_id
WHERE l.holder IS NOT NULL
ORDER BY l.job, l.bison_instance, l.bison_workspace_id;

-- name: count_leases
-- How many leases there have ever been.
SELECT count(*)
FROM job_leases;

-- name: list_latest_times
-- The latest time that each place holds which no clock may be behind; null where there is none.
SELECT 'workspace_sync_state' AS place, max(greatest(s.last_attempt_at, s.last_complete_at)) AS latest
FROM workspace_sync_state AS s
UNION ALL
SELECT 'email_sync_logs', max(greatest(n.started_at, n.finished_at))
FROM (SELECT l.started_at, l.finished_at FROM email_sync_logs AS l ORDER BY l.started_at DESC LIMIT 100) AS n;

-- name: list_heartbeats
-- How the dead-man pings of each job fare, of all its hosts the one that was heard last.
SELECT DISTINCT ON (h.job) h.job, h.host, h.last_attempt_at, h.last_ok_at, h.last_error
FROM heartbeats AS h
WHERE h.last_attempt_at > %(since)s::timestamptz
ORDER BY h.job, h.last_ok_at DESC NULLS LAST, h.last_attempt_at DESC;
