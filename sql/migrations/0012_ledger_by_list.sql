-- Within a run each list of a workspace has a row of its own in the ledger: a second one is not taken for done.

ALTER TABLE public.email_sync_log_workspaces ADD COLUMN resource text;

-- What older runs read stands in their job; days that were filled in alone are no snapshot.
UPDATE public.email_sync_log_workspaces AS w
SET resource = CASE
    WHEN l.job = 'snapshot-providers' AND w.counts ? 'gap_days_filled' AND NOT w.counts ? 'accounts' THEN 'gaps'
    ELSE regexp_replace(l.job, '^(poll|pull)-', '')
END
FROM public.email_sync_logs AS l
WHERE l.run_id = w.run_id;

ALTER TABLE public.email_sync_log_workspaces
ALTER COLUMN resource SET NOT NULL,
DROP CONSTRAINT email_sync_log_workspaces_pkey,
ADD PRIMARY KEY (run_id, bison_instance, bison_workspace_id, resource);

COMMENT ON TABLE public.email_sync_log_workspaces IS
    'Each list of each workspace within a run; written in the same transaction as the list''s data.';
COMMENT ON INDEX public.email_sync_log_workspaces_pkey IS
    'Key; "runs show" and the sums at the end of a run read a run by it, a commit whose answer was lost is found by it.';
COMMENT ON COLUMN public.email_sync_log_workspaces.resource IS
    'The list, as in workspace_sync_state: accounts, events; gaps: the days that were filled in; of a job that reads no list its name.';
