-- needs: grant_changes, policy_changes
CREATE OR REPLACE FUNCTION bisonsync_private.access_changes(readers jsonb)
RETURNS SETOF text
LANGUAGE plpgsql
STABLE
-- Names are compared as the server spells them.
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
DECLARE
    reader name;
    user_ids text[];
    wrong text;
BEGIN
    IF jsonb_typeof(readers) = 'string' AND btrim(readers #>> '{}') <> '' THEN
        reader := btrim(readers #>> '{}');
    ELSIF jsonb_typeof(readers) = 'array' AND readers <> '[]' THEN
        SELECT array_agg(lower(btrim(u.id)) ORDER BY lower(btrim(u.id))) INTO user_ids FROM jsonb_array_elements_text(readers) AS u (id);
        SELECT u.id INTO wrong FROM unnest(user_ids) AS u (id)
        WHERE u.id !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION '[access] readers: "%" is not a user id', wrong USING ERRCODE = 'invalid_parameter_value';
        END IF;
        reader := 'authenticated';
    END IF;
    IF reader = 'anon' THEN
        RAISE EXCEPTION '[access] readers: anon may never read' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF reader IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = reader) THEN
        RAISE EXCEPTION '[access] readers: this server has no role "%"', reader USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY SELECT c.statement FROM bisonsync_private.grant_changes(reader) AS c (statement);
    RETURN QUERY SELECT c.statement FROM bisonsync_private.policy_changes(reader, user_ids) AS c (statement);
END
$$;

COMMENT ON FUNCTION bisonsync_private.access_changes(jsonb) IS
    'The statements that would bring grants, row security, policies and Realtime''s publication to what the rules and [access] readers (a role''s name or a list of user ids) say; none when all is right. Changes nothing itself.';
