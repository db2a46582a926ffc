-- needs: data_freshness
CREATE OR REPLACE VIEW public.data_cache_metadata WITH (security_invoker = true) AS
SELECT
    f.resource || ':' || f.bison_instance || ':' || f.bison_workspace_id AS cache_key,
    f.resource,
    f.bison_instance,
    f.bison_workspace_id,
    f.workspace_name,
    f.as_of AS last_updated,
    f.as_of AS last_synced_at,
    f.age_seconds,
    f.distinct_ids AS record_count,
    f.state AS status,
    f.is_complete,
    f.state <> 'fresh' AS is_stale
FROM public.data_freshness AS f;

COMMENT ON VIEW public.data_cache_metadata IS 'data_freshness in the names that older dashboards use.';
COMMENT ON COLUMN public.data_cache_metadata.cache_key IS 'resource:instance:workspace id.';
COMMENT ON COLUMN public.data_cache_metadata.resource IS 'The list, one of bisonsync_lists.';
COMMENT ON COLUMN public.data_cache_metadata.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.data_cache_metadata.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.data_cache_metadata.workspace_name IS 'Its name; null if it is not in the registry.';
COMMENT ON COLUMN public.data_cache_metadata.last_updated IS 'Last complete read; null: never.';
COMMENT ON COLUMN public.data_cache_metadata.last_synced_at IS 'Same as last_updated.';
COMMENT ON COLUMN public.data_cache_metadata.age_seconds IS 'Seconds since the last complete read.';
COMMENT ON COLUMN public.data_cache_metadata.record_count IS 'Number of different ids that arrived at the last attempt.';
COMMENT ON COLUMN public.data_cache_metadata.status IS 'fresh, stale, very_stale or never, as data_freshness.state.';
COMMENT ON COLUMN public.data_cache_metadata.is_complete IS 'Whether the last attempt read the whole list and stored it.';
COMMENT ON COLUMN public.data_cache_metadata.is_stale IS 'Whether status is anything but fresh.';
