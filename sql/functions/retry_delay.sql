CREATE OR REPLACE FUNCTION bisonsync_private.retry_delay(attempts integer)
RETURNS interval
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT ('{5 seconds,5 minutes,30 minutes,2 hours,5 hours,10 hours,10 hours}'::interval[])[attempts]
$$;

COMMENT ON FUNCTION bisonsync_private.retry_delay(integer) IS
    'How long a failed delivery waits after so many attempts; null: it is dead.';
