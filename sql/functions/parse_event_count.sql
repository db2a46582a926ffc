CREATE OR REPLACE FUNCTION bisonsync_private.parse_event_count(told jsonb)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE WHEN told #>> '{}' ~ '^[0-9]{1,18}$' THEN (told #>> '{}')::bigint END
$$;

COMMENT ON FUNCTION bisonsync_private.parse_event_count(jsonb) IS
    'A count as events tell it, number or string; null for anything else.';
