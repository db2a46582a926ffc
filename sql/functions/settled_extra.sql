CREATE OR REPLACE FUNCTION bisonsync_private.settled_extra(p_extra jsonb, p_left_out text[])
RETURNS jsonb
LANGUAGE plpgsql
IMMUTABLE
AS $$
DECLARE
    left_out text;
BEGIN
    FOREACH left_out IN ARRAY p_left_out LOOP
        p_extra := p_extra #- left_out::text[];
    END LOOP;
    RETURN p_extra - array(SELECT k.key FROM jsonb_object_keys(p_extra) AS k (key) WHERE k.key LIKE '%\_at');
END
$$;

COMMENT ON FUNCTION bisonsync_private.settled_extra IS
    'The unknown fields of a row by which it is compared: without times of activity (*_at) and without the given paths.';
