-- needs: strip_nested_bodies
CREATE OR REPLACE FUNCTION bisonsync_private.strip_deep_bodies(body jsonb)
RETURNS jsonb
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    RETURN bisonsync_private.strip_nested_bodies(body);
EXCEPTION
    -- Nested so deep that it cannot be looked through.
    WHEN statement_too_complex THEN
        RETURN jsonb_build_object(
            'length', length(body::text), 'sha256', encode(sha256(convert_to(body::text, 'UTF8')), 'hex')
        );
END
$$;

COMMENT ON FUNCTION bisonsync_private.strip_deep_bodies(jsonb) IS
    'A delivery of any shape with the mail bodies in it, at whatever depth, replaced by their length in characters and SHA-256; those already so stay. Never raises: of one too deep to look through only length and SHA-256 are left.';
