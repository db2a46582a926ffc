CREATE OR REPLACE FUNCTION bisonsync_private.committed_counts(p_run_id uuid)
RETURNS jsonb
LANGUAGE sql
STABLE
AS $$
    SELECT coalesce(
        jsonb_object_agg(CASE WHEN t.lists = 1 THEN t.name ELSE t.resource || '.' || t.name END, t.total), '{}'
    )
    FROM (
        SELECT
            w.resource,
            c.key AS name,
            sum(c.value::numeric) AS total,
            count(*) OVER (PARTITION BY c.key) AS lists
        FROM public.email_sync_log_workspaces AS w
        CROSS JOIN LATERAL jsonb_each_text(w.counts) AS c
        WHERE w.run_id = p_run_id
        GROUP BY w.resource, c.key
    ) AS t
$$;

COMMENT ON FUNCTION bisonsync_private.committed_counts(uuid) IS
    'What the workspaces of a run committed, summed by name; a name that several lists count stands with each list before it (accounts.inserted), for the sum of rows of two tables says nothing.';
