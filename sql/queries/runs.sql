-- name: open_run
-- Opens the ledger row of a run.
INSERT INTO email_sync_logs (run_id, job, host, pid, process_key, status, started_at, command, version, covers)
VALUES (
    %(run_id)s::uuid, %(job)s::text, %(host)s::text, %(pid)s::integer, %(process_key)s::text, 'running',
    clock_timestamp(), %(command)s::text, %(version)s::text, %(covers)s::text[]
)
ON CONFLICT (run_id) DO NOTHING;

-- name: forget_run
-- Removes the row of a run that is open still: it was refused before it did anything.
DELETE FROM email_sync_logs
WHERE run_id = %(run_id)s::uuid AND status = 'running';

-- name: record_outcomes
-- What became of the workspaces that committed nothing themselves, for each its verdict and error.
INSERT INTO email_sync_log_workspaces (
    run_id, bison_instance, bison_workspace_id, resource, workspace_name, verdict, error
)
SELECT
    r.run_id, o.bison_instance, o.bison_workspace_id, bisonsync_private.ledger_resource(r.job), o.workspace_name, o.verdict,
    o.error
FROM email_sync_logs AS r
CROSS JOIN jsonb_to_recordset(%(outcomes)s::jsonb) AS o (
    bison_instance text, bison_workspace_id bigint, workspace_name text, verdict text, error jsonb
)
WHERE r.run_id = %(run_id)s::uuid
ORDER BY o.bison_instance, o.bison_workspace_id
ON CONFLICT DO NOTHING;

-- name: close_run
-- Closes the ledger row of a run, also one that was taken for lost; its counts, with the sums of what its workspaces
-- committed. No row when it is closed already.
UPDATE email_sync_logs AS r
SET
    status = %(status)s::text,
    exit_code = %(exit_code)s::smallint,
    lost = false,
    finished_at = clock_timestamp(),
    duration_ms = %(duration_ms)s::bigint,
    counts = %(counts)s::jsonb || bisonsync_private.committed_counts(r.run_id),
    workspaces_failed = %(workspaces_failed)s::text[],
    errors = %(errors)s::jsonb
WHERE r.run_id = %(run_id)s::uuid AND (r.status = 'running' OR r.lost)
RETURNING r.counts;

-- name: list_running
-- Every run that says it is running, and how it stands with leases: whether it holds one, lets one run out, and whether
-- its job works with leases at all; locks nothing.
SELECT
    r.run_id,
    r.job,
    r.host,
    r.pid,
    r.process_key,
    r.started_at,
    extract(epoch FROM clock_timestamp() - r.started_at)::double precision AS age_seconds,
    EXISTS (
        SELECT FROM job_leases AS l WHERE l.holder = r.run_id AND l.expires_at > clock_timestamp()
    ) AS holds_lease,
    EXISTS (
        SELECT FROM job_leases AS l WHERE l.holder = r.run_id AND l.expires_at <= clock_timestamp()
    ) AS let_lease_expire,
    EXISTS (SELECT FROM job_leases AS l WHERE l.job = r.job) AS uses_leases
FROM email_sync_logs AS r
WHERE r.status = 'running'
ORDER BY r.started_at;

-- name: close_lost_runs
-- Closes runs whose process is gone, with the sum of what their workspaces committed; passes over rows that another
-- session has locked.
WITH mine AS (
    SELECT run_id
    FROM email_sync_logs
    WHERE run_id = any(%(run_ids)s::uuid[]) AND status = 'running'
    ORDER BY run_id
    FOR UPDATE SKIP LOCKED
)

UPDATE email_sync_logs AS r
SET
    status = 'failed',
    lost = true,
    finished_at = clock_timestamp(),
    duration_ms = (extract(epoch FROM clock_timestamp() - r.started_at) * 1000)::bigint,
    counts = bisonsync_private.committed_counts(r.run_id),
    workspaces_failed = array(
        SELECT w.bison_instance || '/' || w.bison_workspace_id
        FROM email_sync_log_workspaces AS w
        WHERE w.run_id = r.run_id AND w.verdict NOT IN ('complete', 'skipped')
        GROUP BY w.bison_instance, w.bison_workspace_id
        ORDER BY w.bison_instance, w.bison_workspace_id
    ),
    errors = jsonb_build_array(
        jsonb_build_object(
            'kind', 'lost', 'workspace', NULL,
            'message', 'the process ended or stood still without closing its run', 'hint', 'what it committed stays'
        )
    )
FROM mine
WHERE r.run_id = mine.run_id
RETURNING r.run_id;

-- name: list_runs
-- The newest runs first.
SELECT
    run_id, job, host, pid, status, exit_code, started_at, finished_at, duration_ms, counts, workspaces_failed, errors,
    lost, command, version
FROM email_sync_logs
WHERE
    (%(job)s::text IS NULL OR job = %(job)s::text)
    AND (%(status)s::text IS NULL OR status = %(status)s::text)
ORDER BY started_at DESC
LIMIT %(limit)s::integer;

-- name: find_run
-- Runs whose id begins with a text; two are enough to see that it is ambiguous.
SELECT
    run_id, job, host, pid, status, exit_code, started_at, finished_at, duration_ms, counts, workspaces_failed, errors,
    lost, command, version
FROM email_sync_logs
WHERE starts_with(run_id::text, lower(%(prefix)s::text))
ORDER BY started_at DESC
LIMIT 2;

-- name: list_run_workspaces
-- What a run did per workspace and list.
SELECT bison_instance, bison_workspace_id, resource, workspace_name, verdict, counts, error, committed_at
FROM email_sync_log_workspaces
WHERE run_id = %(run_id)s::uuid
ORDER BY bison_instance, bison_workspace_id, resource;

-- name: insert_api_health
-- What each endpoint cost a run.
INSERT INTO api_health_logs (
    run_id, bison_instance, endpoint, api_name, requests, retries, rate_limited, errors, response_time_ms,
    response_time_p50_ms, response_time_p95_ms, response_time_max_ms, success
)
SELECT
    %(run_id)s::uuid, r.bison_instance, r.endpoint, r.api_name, r.requests, r.retries, r.rate_limited, r.errors,
    r.mean_ms, r.p50_ms, r.p95_ms, r.max_ms, r.success
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r (
    bison_instance text, endpoint text, api_name text, requests bigint, retries bigint, rate_limited bigint,
    errors bigint, mean_ms numeric, p50_ms numeric, p95_ms numeric, max_ms numeric, success boolean
);
