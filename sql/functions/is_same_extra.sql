CREATE OR REPLACE FUNCTION bisonsync_private.is_same_extra(p_old jsonb, p_new jsonb, p_left_out text[])
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
AS $$
DECLARE
    left_out text;
    moments text[];
BEGIN
    FOREACH left_out IN ARRAY p_left_out LOOP
        p_old := p_old #- left_out::text[];
        p_new := p_new #- left_out::text[];
    END LOOP;
    IF p_old = p_new THEN
        RETURN true;
    END IF;
    moments := array(SELECT k.key FROM jsonb_object_keys(p_old || p_new) AS k (key) WHERE k.key LIKE '%\_at');
    RETURN moments <> '{}' AND p_old - moments = p_new - moments;
END
$$;

COMMENT ON FUNCTION bisonsync_private.is_same_extra IS
    'Whether the unknown fields of a row are the same but for times of activity (*_at) and the given paths.';
