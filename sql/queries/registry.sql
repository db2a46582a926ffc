-- name: list_workspaces
-- Every registered workspace with the state of its token; never the token itself.
SELECT
    r.bison_instance,
    r.bison_workspace_id,
    r.workspace_name,
    r.display_name,
    r.is_active,
    r.vanished_at,
    r.previous_name,
    r.renamed_at,
    t.status AS token_status,
    t.verified_at AS token_verified_at,
    s.last_complete_at,
    coalesce(s.total, s.distinct_ids, 0) AS accounts_total
FROM client_registry AS r
LEFT JOIN bisonsync_private.workspace_tokens AS t USING (bison_instance, bison_workspace_id)
LEFT JOIN workspace_sync_state AS s
    ON s.bison_instance = r.bison_instance AND s.bison_workspace_id = r.bison_workspace_id AND s.resource = 'accounts'
ORDER BY r.bison_instance, r.bison_workspace_id;

-- name: upsert_workspaces
-- Registers new workspaces as active and notes new names; rows that say nothing new are not touched. Counts of each.
WITH fresh AS MATERIALIZED (
    -- A workspace that is listed without a name keeps the one it had.
    SELECT
        %(instance)s::text AS bison_instance,
        f.id AS bison_workspace_id,
        coalesce(nullif(f.name, ''), r.workspace_name, 'workspace ' || f.id) AS workspace_name
    FROM unnest(%(ids)s::bigint[], %(names)s::text[]) AS f (id, name)
    LEFT JOIN client_registry AS r
        ON r.bison_instance = %(instance)s::text AND r.bison_workspace_id = f.id
),

renamed AS (
    UPDATE client_registry AS r
    SET
        previous_name = CASE WHEN r.workspace_name <> f.workspace_name THEN r.workspace_name ELSE r.previous_name END,
        renamed_at = CASE WHEN r.workspace_name <> f.workspace_name THEN now() ELSE r.renamed_at END,
        workspace_name = f.workspace_name,
        vanished_at = NULL,
        last_seen_at = now(),
        updated_at = now()
    FROM fresh AS f
    WHERE
        r.bison_instance = f.bison_instance
        AND r.bison_workspace_id = f.bison_workspace_id
        AND (r.workspace_name IS DISTINCT FROM f.workspace_name OR r.vanished_at IS NOT NULL)
    RETURNING 1
),

added AS (
    INSERT INTO client_registry (bison_instance, bison_workspace_id, workspace_name, last_seen_at)
    SELECT f.bison_instance, f.bison_workspace_id, f.workspace_name, now()
    FROM fresh AS f
    WHERE NOT EXISTS (
        SELECT FROM client_registry AS r
        WHERE r.bison_instance = f.bison_instance AND r.bison_workspace_id = f.bison_workspace_id
    )
    ON CONFLICT DO NOTHING
    RETURNING 1
)

SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM renamed) AS changed;

-- name: list_missing_workspaces
-- Registered and not vanished workspaces of an instance that a complete list did not show, and whether they are active.
SELECT r.bison_workspace_id, r.is_active
FROM client_registry AS r
WHERE
    r.bison_instance = %(instance)s::text
    AND r.vanished_at IS NULL
    AND NOT (r.bison_workspace_id = any(%(ids)s::bigint[]))
ORDER BY r.bison_workspace_id;

-- name: mark_vanished
-- Notes that workspaces are not listed any more; they stay active until an operator says otherwise.
UPDATE client_registry
SET vanished_at = now(), updated_at = now()
WHERE bison_instance = %(instance)s::text AND bison_workspace_id = any(%(ids)s::bigint[]) AND vanished_at IS NULL;

-- name: set_active
-- Switches workspaces on or off; those that already are as wanted are not touched.
UPDATE client_registry
SET is_active = %(active)s::boolean, updated_at = now()
WHERE
    bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND is_active <> %(active)s::boolean;
