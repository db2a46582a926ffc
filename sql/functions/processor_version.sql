CREATE OR REPLACE FUNCTION bisonsync_private.processor_version()
RETURNS integer
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT 2
$$;

COMMENT ON FUNCTION bisonsync_private.processor_version() IS
    'Version of the rules for webhook deliveries; raised whenever they change what a delivery means, so that those decided by older rules can be replayed.';
