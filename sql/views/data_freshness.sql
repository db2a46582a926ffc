-- needs: bisonsync_lists
CREATE OR REPLACE VIEW public.data_freshness WITH (security_invoker = true) AS
WITH lists AS (
    SELECT r.bison_instance, r.bison_workspace_id, b.resource
    FROM public.client_registry AS r
    CROSS JOIN public.bisonsync_lists AS b
    WHERE r.is_active AND b.is_required
    UNION
    SELECT s.bison_instance, s.bison_workspace_id, s.resource
    FROM public.workspace_sync_state AS s
    WHERE NOT EXISTS (
        SELECT FROM public.client_registry AS r
        WHERE r.bison_instance = s.bison_instance AND r.bison_workspace_id = s.bison_workspace_id AND NOT r.is_active
    )
)

SELECT
    l.bison_instance,
    l.bison_workspace_id,
    r.workspace_name,
    l.resource,
    s.last_complete_at AS as_of,
    now() - s.last_complete_at AS age,
    extract(epoch FROM now() - s.last_complete_at)::bigint AS age_seconds,
    coalesce(s.interval_seconds, b.default_interval_seconds) AS interval_seconds,
    CASE
        WHEN s.last_complete_at IS NULL THEN 'never'
        -- A time ahead of the clock is as wrong as one far behind.
        WHEN abs(extract(epoch FROM now() - s.last_complete_at)) <= s.interval_seconds THEN 'fresh'
        WHEN abs(extract(epoch FROM now() - s.last_complete_at)) <= 2 * s.interval_seconds THEN 'stale'
        ELSE 'very_stale'
    END AS state,
    coalesce(s.verdict = 'complete' AND s.last_complete_at IS NOT NULL, false) AS is_complete,
    s.verdict,
    s.last_attempt_at,
    s.last_complete_at,
    s.total,
    s.distinct_ids,
    coalesce(s.consecutive_failures, 0) AS consecutive_failures,
    b.job
FROM lists AS l
LEFT JOIN public.bisonsync_lists AS b USING (resource)
LEFT JOIN public.workspace_sync_state AS s
    ON s.bison_instance = l.bison_instance AND s.bison_workspace_id = l.bison_workspace_id AND s.resource = l.resource
LEFT JOIN public.client_registry AS r
    ON r.bison_instance = l.bison_instance AND r.bison_workspace_id = l.bison_workspace_id;

COMMENT ON VIEW public.data_freshness IS
    'How fresh each list of each active workspace is. A list that is required (see bisonsync_lists) and was never read completely has a row that says never.';
COMMENT ON COLUMN public.data_freshness.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.data_freshness.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.data_freshness.workspace_name IS 'Its name; null if it is not in the registry.';
COMMENT ON COLUMN public.data_freshness.resource IS 'The list, one of bisonsync_lists.';
COMMENT ON COLUMN public.data_freshness.as_of IS 'Last complete read; null: never.';
COMMENT ON COLUMN public.data_freshness.age IS 'Time since the last complete read.';
COMMENT ON COLUMN public.data_freshness.age_seconds IS 'The same in seconds.';
COMMENT ON COLUMN public.data_freshness.interval_seconds IS 'How often the list is meant to be read.';
COMMENT ON COLUMN public.data_freshness.state IS
    'fresh: read completely within one interval; stale: within two; very_stale: longer ago; never: not once.';
COMMENT ON COLUMN public.data_freshness.is_complete IS
    'Whether the last attempt read the whole list and stored it; false as soon as one attempt did not.';
COMMENT ON COLUMN public.data_freshness.verdict IS 'Verdict of the last attempt.';
COMMENT ON COLUMN public.data_freshness.last_attempt_at IS 'When a read was last tried.';
COMMENT ON COLUMN public.data_freshness.last_complete_at IS 'Same as as_of.';
COMMENT ON COLUMN public.data_freshness.total IS 'Number of records that the API told at the last attempt.';
COMMENT ON COLUMN public.data_freshness.distinct_ids IS 'Number of different ids that arrived at the last attempt.';
COMMENT ON COLUMN public.data_freshness.consecutive_failures IS 'Attempts that failed since one did not.';
COMMENT ON COLUMN public.data_freshness.job IS 'The job that reads the list.';
