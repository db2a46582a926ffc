CREATE OR REPLACE FUNCTION bisonsync_private.parse_event_id(told jsonb)
RETURNS text
LANGUAGE sql
STABLE
AS $$
    -- Stable, as convert_to is: one that claims more is not inlined, and a call costs more than its work.
    -- 45, 45.0, "45" and " 045 " are the same id. A long one would not fit into an index.
    SELECT CASE jsonb_typeof(told)
        WHEN 'number' THEN
            CASE WHEN strpos(told::text, '.') = 0 THEN left(told::text, 100) ELSE left(trim_scale(told::numeric)::text, 100) END
        WHEN 'string' THEN
            CASE
                WHEN btrim(told #>> '{}') ~ '^[0-9]{1,100}$' THEN coalesce(nullif(ltrim(btrim(told #>> '{}'), '0'), ''), '0')
                WHEN length(btrim(told #>> '{}')) BETWEEN 1 AND 100 THEN btrim(told #>> '{}')
                WHEN btrim(told #>> '{}') <> '' THEN encode(sha256(convert_to(told #>> '{}', 'UTF8')), 'hex')
            END
    END
$$;

COMMENT ON FUNCTION bisonsync_private.parse_event_id(jsonb) IS
    'An id as events tell it, number or string, in one spelling; null for anything else and for none.';
