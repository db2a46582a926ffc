CREATE OR REPLACE FUNCTION bisonsync_private.parse_event_time(told text)
RETURNS timestamptz
LANGUAGE sql
STABLE
AS $$
    SELECT CASE
        WHEN told IS NULL THEN NULL
        -- Nearly every moment comes in this form, and the regular expression below costs three times as much.
        WHEN
            translate(told, '123456789', '000000000') IN ('0000-00-00T00:00:00.000000Z', '0000-00-00T00:00:00Z')
            AND substr(told, 1, 4) >= '1970'
            AND substr(told, 6, 2) BETWEEN '01' AND '12'
            AND substr(told, 9, 2) BETWEEN '01' AND '28'
            AND substr(told, 12, 2) <= '23'
            AND substr(told, 15, 2) <= '59'
            AND substr(told, 18, 2) <= '59'
            THEN told::timestamptz
        -- Not \d, which in some locales is any script's digit; and no text that is longer than Postgres reads.
        WHEN told !~ '^(19[7-9]|[2-9][0-9][0-9])[0-9]-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,60})?)?( ?(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?))?)?$'
            THEN NULL
        -- A day that its month does not have would raise.
        WHEN
            substr(told, 9, 2) > '28'
            AND substr(told, 9, 2)::integer > extract(
                DAY FROM (substr(told, 1, 7) || '-01')::date + interval '1 month' - interval '1 day'
            )
            THEN NULL
        WHEN length(told) = 10 THEN (told || ' 00:00Z')::timestamptz
        WHEN told ~ '(Z|[+-][0-9][0-9](:?[0-9][0-9])?)$' AND length(told) > 11 THEN told::timestamptz
        ELSE (told || 'Z')::timestamptz
    END
$$;

COMMENT ON FUNCTION bisonsync_private.parse_event_time(text) IS
    'A moment as events tell it, in ISO 8601; without an offset it is UTC. Null for what is no such moment; never raises.';
