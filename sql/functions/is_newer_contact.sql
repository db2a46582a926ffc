CREATE OR REPLACE FUNCTION bisonsync_private.is_newer_contact(
    p_email text, p_as_of timestamptz, p_hash uuid, p_known_email text, p_known_as_of timestamptz, p_known_hash uuid
)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT
        p_known_as_of IS NULL
        OR (p_email IS NOT NULL, p_as_of, p_hash) > (p_known_email IS NOT NULL, p_known_as_of, p_known_hash)
$$;

COMMENT ON FUNCTION bisonsync_private.is_newer_contact(text, timestamptz, uuid, text, timestamptz, uuid) IS
    'Whether a contact is to replace the known one: one with an address beats one without, then the later, then the greater hash; so the same contact wins in any order.';
