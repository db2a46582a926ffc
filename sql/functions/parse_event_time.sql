CREATE OR REPLACE FUNCTION bisonsync_private.parse_event_time(told text)
RETURNS timestamptz
LANGUAGE sql
STABLE
AS $$
    -- A date that no month has would raise; the days that every month has are cast as they are.
    SELECT CASE
        WHEN told !~ '^(19[7-9]|[2-9]\d\d)\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?( ?(Z|[+-](0\d|1[0-5])(:?[0-5]\d)?))?)?$'
            THEN NULL
        WHEN
            substr(told, 9, 2) > '28'
            AND substr(told, 9, 2)::integer > extract(
                DAY FROM (substr(told, 1, 7) || '-01')::date + interval '1 month' - interval '1 day'
            )
            THEN NULL
        WHEN length(told) = 10 THEN (told || ' 00:00Z')::timestamptz
        WHEN told ~ '(Z|[+-]\d\d(:?\d\d)?)$' AND length(told) > 11 THEN told::timestamptz
        ELSE (told || 'Z')::timestamptz
    END
$$;

COMMENT ON FUNCTION bisonsync_private.parse_event_time(text) IS
    'A moment as events tell it, in ISO 8601; without an offset it is UTC. Null for what is no such moment; never raises.';
