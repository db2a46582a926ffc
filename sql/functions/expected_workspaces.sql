CREATE OR REPLACE FUNCTION bisonsync_private.expected_workspaces(p_instance text, p_day date, p_zone text)
RETURNS TABLE (
    bison_workspace_id bigint,
    is_recorded boolean,
    is_complete boolean
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        w.bison_workspace_id,
        s.bison_workspace_id IS NOT NULL,
        coalesce(s.is_complete, false)
    FROM (
        SELECT r.bison_workspace_id
        FROM public.client_registry AS r
        WHERE
            r.bison_instance = p_instance
            AND r.is_active
            AND (
                (r.created_at AT TIME ZONE p_zone)::date <= p_day
                OR EXISTS (
                    SELECT
                    FROM public.workspace_snapshots AS e
                    WHERE
                        e.bison_instance = p_instance
                        AND e.bison_workspace_id = r.bison_workspace_id
                        AND e.snapshot_date <= p_day
                )
            )
        UNION
        SELECT e.bison_workspace_id
        FROM public.workspace_snapshots AS e
        WHERE e.bison_instance = p_instance AND e.snapshot_date = p_day
    ) AS w
    LEFT JOIN public.workspace_snapshots AS s
        ON s.bison_instance = p_instance AND s.bison_workspace_id = w.bison_workspace_id AND s.snapshot_date = p_day
$$;

COMMENT ON FUNCTION bisonsync_private.expected_workspaces(text, date, text) IS
    'The workspaces of an instance that a day should have: those recorded on it, and those active now that were registered or recorded by then, in the reporting zone p_zone. One added later is not missing before.';
