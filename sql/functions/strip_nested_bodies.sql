CREATE OR REPLACE FUNCTION bisonsync_private.strip_nested_bodies(part jsonb)
RETURNS jsonb
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    -- Nearly always there is nothing to do.
    IF
        (
            part @? '$.**.html_body ? (@.type() == "string" || @.type() == "array" || (@.type() == "object" && !exists(@.sha256)))'
            OR part @? '$.**.text_body ? (@.type() == "string" || @.type() == "array" || (@.type() == "object" && !exists(@.sha256)))'
            OR part @? '$.**.raw_body ? (@.type() == "string" || @.type() == "array" || (@.type() == "object" && !exists(@.sha256)))'
            OR part @? '$.**.email_body ? (@.type() == "string" || @.type() == "array" || (@.type() == "object" && !exists(@.sha256)))'
        ) IS NOT TRUE
    THEN
        RETURN part;
    END IF;
    IF jsonb_typeof(part) = 'array' THEN
        RETURN (
            SELECT jsonb_agg(bisonsync_private.strip_nested_bodies(e.element) ORDER BY e.place)
            FROM jsonb_array_elements(part) WITH ORDINALITY AS e (element, place)
        );
    END IF;
    RETURN (
        SELECT jsonb_object_agg(
            m.name,
            CASE
                WHEN jsonb_typeof(m.member) NOT IN ('string', 'array', 'object') THEN m.member
                WHEN
                    m.name NOT IN ('html_body', 'text_body', 'raw_body', 'email_body')
                    OR (jsonb_typeof(m.member) = 'object' AND m.member ?& '{length,sha256}')
                    THEN bisonsync_private.strip_nested_bodies(m.member)
                ELSE jsonb_build_object(
                    'length', length(m.member #>> '{}'),
                    'sha256', encode(sha256(convert_to(m.member #>> '{}', 'UTF8')), 'hex')
                )
            END
        )
        FROM jsonb_each(part) AS m (name, member)
    );
END
$$;

COMMENT ON FUNCTION bisonsync_private.strip_nested_bodies(jsonb) IS
    'What strip_deep_bodies does, by calling itself for every part that has a body in it.';
