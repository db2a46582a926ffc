-- What the jobs write about themselves: ledger, state of each list, quarantine, API figures, leases, rate budgets.

CREATE TABLE public.email_sync_logs (
    run_id uuid PRIMARY KEY,
    job text NOT NULL,
    host text,
    pid integer,
    process_key text,
    status text NOT NULL DEFAULT 'running' CHECK (
        status IN ('running', 'success', 'partial', 'failed', 'guarded', 'differences', 'skipped', 'stopped')
    ),
    exit_code smallint,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    duration_ms bigint,
    counts jsonb NOT NULL DEFAULT '{}',
    workspaces_failed text[] NOT NULL DEFAULT '{}',
    errors jsonb NOT NULL DEFAULT '[]',
    lost boolean NOT NULL DEFAULT false,
    command text,
    version text
);

ALTER TABLE public.email_sync_logs ENABLE ROW LEVEL SECURITY;

CREATE INDEX email_sync_logs_started_at_idx ON public.email_sync_logs (started_at);
CREATE INDEX email_sync_logs_running_idx ON public.email_sync_logs (started_at) WHERE status = 'running';

COMMENT ON TABLE public.email_sync_logs IS 'The ledger: one row per run of a job, opened before its first request and closed at its end.';
COMMENT ON INDEX public.email_sync_logs_pkey IS 'Key; a run closes its row by it.';
COMMENT ON INDEX public.email_sync_logs_started_at_idx IS
    'For "runs list" (newest first), get_email_sync_health() and cleanup_old_email_sync_logs().';
COMMENT ON INDEX public.email_sync_logs_running_idx IS 'For "runs running", and for closing lost runs; holds only rows that are open.';
COMMENT ON COLUMN public.email_sync_logs.run_id IS 'The run.';
COMMENT ON COLUMN public.email_sync_logs.job IS 'Name of the command.';
COMMENT ON COLUMN public.email_sync_logs.host IS 'Host it ran on.';
COMMENT ON COLUMN public.email_sync_logs.pid IS 'Process id on that host.';
COMMENT ON COLUMN public.email_sync_logs.process_key IS
    'Boot, pid namespace and start time of the process: tells on that host whether it still lives.';
COMMENT ON COLUMN public.email_sync_logs.status IS 'running, or the verdict of the run as in its exit code and JSON.';
COMMENT ON COLUMN public.email_sync_logs.exit_code IS 'Exit code of the process; null while running, and for a lost run.';
COMMENT ON COLUMN public.email_sync_logs.started_at IS 'Begin.';
COMMENT ON COLUMN public.email_sync_logs.finished_at IS 'End; null while running.';
COMMENT ON COLUMN public.email_sync_logs.duration_ms IS 'Milliseconds from begin to end.';
COMMENT ON COLUMN public.email_sync_logs.counts IS 'Sums over the run''s workspaces of what was read and written.';
COMMENT ON COLUMN public.email_sync_logs.workspaces_failed IS 'Names of the workspaces that failed.';
COMMENT ON COLUMN public.email_sync_logs.errors IS 'Every problem of the run: kind, workspace, message, hint.';
COMMENT ON COLUMN public.email_sync_logs.lost IS 'Whether the run never closed itself and another run did it.';
COMMENT ON COLUMN public.email_sync_logs.command IS 'Arguments of the command, without secrets.';
COMMENT ON COLUMN public.email_sync_logs.version IS 'Version of bisonsync.';


CREATE TABLE public.email_sync_log_workspaces (
    run_id uuid NOT NULL REFERENCES public.email_sync_logs ON DELETE CASCADE,
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    workspace_name text,
    verdict text NOT NULL CHECK (verdict IN ('complete', 'incomplete', 'guarded', 'failed', 'skipped')),
    counts jsonb NOT NULL DEFAULT '{}',
    error jsonb,
    committed_at timestamptz,
    PRIMARY KEY (run_id, bison_instance, bison_workspace_id)
);

ALTER TABLE public.email_sync_log_workspaces ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.email_sync_log_workspaces IS
    'Each workspace''s part of a run; written in the same transaction as the workspace''s data.';
COMMENT ON INDEX public.email_sync_log_workspaces_pkey IS 'Key; "runs show" and the sum at the end of a run read a run by it.';
COMMENT ON COLUMN public.email_sync_log_workspaces.run_id IS 'The run.';
COMMENT ON COLUMN public.email_sync_log_workspaces.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.email_sync_log_workspaces.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.email_sync_log_workspaces.workspace_name IS 'Its name at that time.';
COMMENT ON COLUMN public.email_sync_log_workspaces.verdict IS 'complete, incomplete, guarded, failed or skipped.';
COMMENT ON COLUMN public.email_sync_log_workspaces.counts IS 'What was read and written.';
COMMENT ON COLUMN public.email_sync_log_workspaces.error IS 'Why it is not complete: kind, message, hint.';
COMMENT ON COLUMN public.email_sync_log_workspaces.committed_at IS 'When its data became visible; null: nothing was written.';


CREATE TABLE public.workspace_sync_state (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    resource text NOT NULL,
    last_attempt_at timestamptz,
    last_complete_at timestamptz,
    read_started_at timestamptz,
    total bigint,
    distinct_ids bigint,
    verdict text CHECK (verdict IN ('complete', 'incomplete', 'guarded', 'failed', 'skipped')),
    consecutive_failures integer NOT NULL DEFAULT 0,
    last_error text,
    last_run_id uuid,
    shrink_pending_since timestamptz,
    shrink_missing_ids bigint[],
    interval_seconds integer NOT NULL DEFAULT 180 CHECK (interval_seconds > 0),
    PRIMARY KEY (bison_instance, bison_workspace_id, resource)
) WITH (fillfactor = 70);

ALTER TABLE public.workspace_sync_state ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.workspace_sync_state IS
    'How each list of each workspace stands: the proof of its last read, and since when it is complete.';
COMMENT ON INDEX public.workspace_sync_state_pkey IS 'Key; each commit of a workspace updates its row by it.';
COMMENT ON COLUMN public.workspace_sync_state.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.workspace_sync_state.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.workspace_sync_state.resource IS 'The list: accounts, and later others.';
COMMENT ON COLUMN public.workspace_sync_state.last_attempt_at IS 'When a read was last tried.';
COMMENT ON COLUMN public.workspace_sync_state.last_complete_at IS 'When a complete read was last stored; null: never.';
COMMENT ON COLUMN public.workspace_sync_state.read_started_at IS 'When the read of the stored data began.';
COMMENT ON COLUMN public.workspace_sync_state.total IS 'Number of records that the API told at the last attempt.';
COMMENT ON COLUMN public.workspace_sync_state.distinct_ids IS 'Number of different ids that arrived at the last attempt.';
COMMENT ON COLUMN public.workspace_sync_state.verdict IS 'Verdict of the last attempt: complete, incomplete, guarded, failed or skipped.';
COMMENT ON COLUMN public.workspace_sync_state.consecutive_failures IS 'Attempts that failed since one did not.';
COMMENT ON COLUMN public.workspace_sync_state.last_error IS 'Why the last attempt was not complete.';
COMMENT ON COLUMN public.workspace_sync_state.last_run_id IS 'Run of the last attempt.';
COMMENT ON COLUMN public.workspace_sync_state.shrink_pending_since IS 'Since when the shrink guard waits for a second complete read that agrees.';
COMMENT ON COLUMN public.workspace_sync_state.shrink_missing_ids IS 'Ids that the guarded read missed.';
COMMENT ON COLUMN public.workspace_sync_state.interval_seconds IS 'How often this list is meant to be read; freshness is measured against it.';


CREATE TABLE public.data_validation_errors (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    bison_instance text,
    bison_workspace_id bigint,
    workspace text,
    record_id text,
    field text NOT NULL DEFAULT '',
    error_type text NOT NULL,
    message text,
    "row" jsonb,
    row_hash text NOT NULL DEFAULT '',
    "timestamp" timestamptz NOT NULL DEFAULT now(),
    run_id uuid,
    resolved_at timestamptz
);

ALTER TABLE public.data_validation_errors ENABLE ROW LEVEL SECURITY;

CREATE UNIQUE INDEX data_validation_errors_open_key ON public.data_validation_errors (
    source, bison_instance, bison_workspace_id, coalesce(record_id, ''), field, error_type, row_hash
) NULLS NOT DISTINCT WHERE resolved_at IS NULL;

COMMENT ON TABLE public.data_validation_errors IS
    'Quarantine: rows that could not be stored, kept for inspection. The same fault of the same row is one open entry however often it is met.';
COMMENT ON INDEX public.data_validation_errors_pkey IS 'Key.';
COMMENT ON INDEX public.data_validation_errors_open_key IS
    'One open entry per fault: target of the INSERT .. ON CONFLICT of every job; finds what is open of a workspace.';
COMMENT ON SEQUENCE public.data_validation_errors_id_seq IS 'Makes data_validation_errors.id.';
COMMENT ON COLUMN public.data_validation_errors.id IS 'Order of the entries.';
COMMENT ON COLUMN public.data_validation_errors.source IS 'Job or door the row came through.';
COMMENT ON COLUMN public.data_validation_errors.bison_instance IS 'Instance, where known.';
COMMENT ON COLUMN public.data_validation_errors.bison_workspace_id IS 'Workspace, where known.';
COMMENT ON COLUMN public.data_validation_errors.workspace IS 'Name of the workspace at that time.';
COMMENT ON COLUMN public.data_validation_errors.record_id IS 'Id of the record, where it could be read.';
COMMENT ON COLUMN public.data_validation_errors.field IS 'Field at fault; empty: the record as a whole.';
COMMENT ON COLUMN public.data_validation_errors.error_type IS 'Kind of fault.';
COMMENT ON COLUMN public.data_validation_errors.message IS 'What is wrong.';
COMMENT ON COLUMN public.data_validation_errors."row" IS 'The record as it came, without secrets.';
COMMENT ON COLUMN public.data_validation_errors.row_hash IS 'Hash of the record: the same fault of the same content is one entry.';
COMMENT ON COLUMN public.data_validation_errors."timestamp" IS 'When it was first met.';
COMMENT ON COLUMN public.data_validation_errors.run_id IS 'Run that met it first.';
COMMENT ON COLUMN public.data_validation_errors.resolved_at IS 'When a later read brought the record without this fault; null: open.';


CREATE TABLE public.api_health_logs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid,
    bison_instance text,
    endpoint text NOT NULL,
    api_name text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    rate_limited bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    response_time_ms numeric,
    response_time_p50_ms numeric,
    response_time_p95_ms numeric,
    response_time_max_ms numeric,
    success boolean NOT NULL,
    "timestamp" timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE public.api_health_logs ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.api_health_logs IS 'How the API answered: one row per run, instance and endpoint.';
COMMENT ON INDEX public.api_health_logs_pkey IS 'Key.';
COMMENT ON SEQUENCE public.api_health_logs_id_seq IS 'Makes api_health_logs.id.';
COMMENT ON COLUMN public.api_health_logs.id IS 'Order of the entries.';
COMMENT ON COLUMN public.api_health_logs.run_id IS 'The run.';
COMMENT ON COLUMN public.api_health_logs.bison_instance IS 'The instance asked.';
COMMENT ON COLUMN public.api_health_logs.endpoint IS 'Path asked, without ids and parameters.';
COMMENT ON COLUMN public.api_health_logs.api_name IS 'Name of the API.';
COMMENT ON COLUMN public.api_health_logs.requests IS 'Requests sent, retries included.';
COMMENT ON COLUMN public.api_health_logs.retries IS 'Requests that were repetitions.';
COMMENT ON COLUMN public.api_health_logs.rate_limited IS 'Answers 429.';
COMMENT ON COLUMN public.api_health_logs.errors IS 'Requests without a usable answer.';
COMMENT ON COLUMN public.api_health_logs.response_time_ms IS 'Mean time to answer, milliseconds.';
COMMENT ON COLUMN public.api_health_logs.response_time_p50_ms IS 'Median time to answer, milliseconds.';
COMMENT ON COLUMN public.api_health_logs.response_time_p95_ms IS '95th percentile of the time to answer, milliseconds.';
COMMENT ON COLUMN public.api_health_logs.response_time_max_ms IS 'Longest time to answer, milliseconds.';
COMMENT ON COLUMN public.api_health_logs.success IS 'Whether every request got a usable answer in the end.';
COMMENT ON COLUMN public.api_health_logs."timestamp" IS 'End of the run.';


CREATE TABLE public.job_leases (
    job text NOT NULL,
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    holder uuid,
    host text,
    pid integer,
    process_key text,
    generation bigint NOT NULL DEFAULT 0,
    heartbeat_at timestamptz,
    expires_at timestamptz,
    PRIMARY KEY (job, bison_instance, bison_workspace_id)
) WITH (fillfactor = 50);

ALTER TABLE public.job_leases ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.job_leases IS
    'Who works on which workspace: at most one run per job and workspace, across all hosts, by rows instead of session locks.';
COMMENT ON INDEX public.job_leases_pkey IS 'Key; leases are claimed, renewed and checked by it.';
COMMENT ON COLUMN public.job_leases.job IS 'Name of the command.';
COMMENT ON COLUMN public.job_leases.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.job_leases.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.job_leases.holder IS 'Run that holds the lease; null: free.';
COMMENT ON COLUMN public.job_leases.host IS 'Host of the holder.';
COMMENT ON COLUMN public.job_leases.pid IS 'Process of the holder.';
COMMENT ON COLUMN public.job_leases.process_key IS 'Boot, pid namespace and start time of the holder''s process.';
COMMENT ON COLUMN public.job_leases.generation IS 'Grows with each change of holder; a commit checks that it is still the one it was given.';
COMMENT ON COLUMN public.job_leases.heartbeat_at IS 'When the holder last renewed it.';
COMMENT ON COLUMN public.job_leases.expires_at IS 'From when another run may take it, by the database''s clock.';


CREATE TABLE public.rate_budgets (
    bison_instance text PRIMARY KEY,
    tokens double precision NOT NULL,
    refilled_at timestamptz NOT NULL,
    requests_per_minute integer NOT NULL CHECK (requests_per_minute > 0),
    blocked_until timestamptz
) WITH (fillfactor = 50);

ALTER TABLE public.rate_budgets ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.rate_budgets IS 'Token bucket of each instance, shared by all processes and hosts, from which requests are taken in blocks.';
COMMENT ON INDEX public.rate_budgets_pkey IS 'Key; blocks are taken by it.';
COMMENT ON COLUMN public.rate_budgets.bison_instance IS 'The instance.';
COMMENT ON COLUMN public.rate_budgets.tokens IS 'Requests that may be sent, as of refilled_at.';
COMMENT ON COLUMN public.rate_budgets.refilled_at IS 'Moment for which tokens was computed.';
COMMENT ON COLUMN public.rate_budgets.requests_per_minute IS 'Refill rate, and size of the bucket.';
COMMENT ON COLUMN public.rate_budgets.blocked_until IS 'No request before this moment: the API asked for a pause.';
