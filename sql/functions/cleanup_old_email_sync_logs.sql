CREATE OR REPLACE FUNCTION public.cleanup_old_email_sync_logs(keep_days integer DEFAULT 30)
RETURNS integer
LANGUAGE plpgsql
VOLATILE
-- What the caller's session has set must not count.
SET search_path = pg_catalog, pg_temp
SET jit = off
SET datestyle = 'ISO, MDY'
SET intervalstyle = 'postgres'
SET timezone = 'UTC'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET array_nulls = on
SET standard_conforming_strings = on
SET transform_null_equals = off
SET quote_all_identifiers = off
AS $$
DECLARE
    deleted integer;
BEGIN
    IF keep_days IS NULL OR keep_days < 1 THEN
        RAISE EXCEPTION 'keep_days must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- The last run of each job stays, so that a job that stopped running does not look like one that never ran.
    DELETE FROM public.email_sync_logs AS l
    USING (
        SELECT n.job, n.covers, max(n.started_at) AS started_at FROM public.email_sync_logs AS n GROUP BY n.job, n.covers
    ) AS newest
    WHERE l.started_at < now() - make_interval(days => keep_days)
        AND l.status <> 'running'
        AND newest.job = l.job
        AND newest.covers IS NOT DISTINCT FROM l.covers
        AND newest.started_at > l.started_at;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

COMMENT ON FUNCTION public.cleanup_old_email_sync_logs(integer) IS
    'Deletes runs that began more than keep_days ago from the ledger, with their workspaces; keeps what is running and the last run of each job, where instances are run apart of each of them. Returns how many runs were deleted.';
