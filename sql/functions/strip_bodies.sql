CREATE OR REPLACE FUNCTION bisonsync_private.strip_bodies(part jsonb)
RETURNS jsonb
LANGUAGE sql
STABLE
AS $$
    SELECT part || (
        SELECT coalesce(
            jsonb_object_agg(
                b.name,
                jsonb_build_object(
                    'length', length(part ->> b.name), 'sha256', encode(sha256(convert_to(part ->> b.name, 'UTF8')), 'hex')
                )
            ),
            '{}'
        )
        FROM unnest('{html_body,text_body,raw_body,email_body}'::text[]) AS b (name)
        WHERE jsonb_typeof(part -> b.name) = 'string'
    )
$$;

COMMENT ON FUNCTION bisonsync_private.strip_bodies(jsonb) IS
    'A reply or scheduled email whose mail bodies are replaced by their length in characters and SHA-256; one already so stays.';
