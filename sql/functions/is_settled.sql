CREATE OR REPLACE FUNCTION bisonsync_private.is_settled(status text)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT status IN ('processed', 'duplicate', 'ignored', 'test')
$$;

COMMENT ON FUNCTION bisonsync_private.is_settled(text) IS
    'Whether nothing is to be done with a delivery of this status any more; those that are not settled are in webhook_delivery_log_open.';
