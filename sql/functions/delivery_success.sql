CREATE OR REPLACE FUNCTION bisonsync_private.delivery_success(status text)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN status IN ('processed', 'duplicate', 'ignored', 'test') THEN true
        WHEN status IN ('failed', 'dead', 'mismatch') THEN false
    END
$$;

COMMENT ON FUNCTION bisonsync_private.delivery_success(text) IS
    'Whether all is well with a delivery of this status; null: undecided.';
