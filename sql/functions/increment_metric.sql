-- needs: receive_deliveries
CREATE OR REPLACE FUNCTION public.increment_metric(workspace_name text, metric_name text, increment_by integer DEFAULT 1)
RETURNS void
LANGUAGE sql
VOLATILE
SECURITY DEFINER
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
    SELECT
    FROM bisonsync_private.receive_deliveries(
        ARRAY[NULL]::timestamptz[], ARRAY['legacy'], ARRAY[NULL]::text[], ARRAY[NULL]::bigint[], ARRAY[NULL]::text[],
        ARRAY[
            jsonb_build_object(
                'event', jsonb_build_object('type', 'INCREMENT_METRIC', 'workspace_name', workspace_name),
                'data', jsonb_build_object('id', gen_random_uuid(), 'metric', metric_name, 'increment_by', increment_by)
            )
        ],
        ARRAY[NULL]::bytea[], true
    ) AS r
$$;

COMMENT ON FUNCTION public.increment_metric(text, text, integer) IS
    'Adds to a counter of this month, for callers of an earlier system: kept as a delivery of source legacy, so that the counters stay the sum of what was delivered. A name that no registered workspace has, or no counter, is told in webhook_delivery_log; nothing is raised.';
