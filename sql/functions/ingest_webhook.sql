-- needs: receive_deliveries
CREATE OR REPLACE FUNCTION public.ingest_webhook(payload jsonb)
RETURNS jsonb
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
    SELECT jsonb_build_object(
        'id', r.id, 'status', r.status, 'event_type', r.event_type, 'workspace', r.bison_instance || '/' || r.bison_workspace_id,
        'error', r.error_message
    )
    FROM bisonsync_private.receive_deliveries(
        ARRAY[NULL]::timestamptz[], ARRAY['sql'], ARRAY[NULL]::text[], ARRAY[NULL]::bigint[], ARRAY[NULL]::text[],
        ARRAY[payload], ARRAY[NULL]::bytea[], true
    ) AS r
$$;

COMMENT ON FUNCTION public.ingest_webhook(jsonb) IS
    'Stores one webhook delivery and applies it in the caller''s transaction, for code that has no secret to show; whose it is the payload must tell. Never raises for what is in the payload: what became of it is in the answer {id, status, event_type, workspace, error} and in webhook_delivery_log.';
