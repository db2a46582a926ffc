CREATE OR REPLACE FUNCTION bisonsync_private.event_owner(
    hook_instance text,
    hook_workspace_id bigint,
    is_by_name boolean,
    told_name text,
    told_origin text,
    told_workspace_id text
)
RETURNS TABLE (
    bison_instance text,
    bison_workspace_id bigint,
    is_registered boolean
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        found.instance,
        found.workspace_id,
        found.instance IS NOT NULL AND found.workspace_id IS NOT NULL AND EXISTS (
            SELECT
            FROM public.client_registry AS registered
            WHERE registered.bison_instance = found.instance AND registered.bison_workspace_id = found.workspace_id
        )
    FROM (
        SELECT
            CASE
                WHEN hook_instance IS NOT NULL THEN hook_instance
                WHEN is_by_name THEN named.instance
                WHEN told_origin IS NOT NULL THEN (
                    SELECT known.bison_instance
                    FROM bisonsync_private.instance_origins AS known
                    LEFT JOIN public.client_registry AS registered
                        ON registered.bison_instance = known.bison_instance AND registered.bison_workspace_id = told.workspace_id
                    WHERE known.origin = told_origin
                    ORDER BY known.is_former, registered.bison_workspace_id IS NULL, known.bison_instance
                    LIMIT 1
                )
                ELSE (
                    SELECT CASE WHEN count(*) = 1 THEN min(registered.bison_instance) END
                    FROM public.client_registry AS registered
                    WHERE registered.bison_workspace_id = told.workspace_id
                )
            END AS instance,
            CASE
                WHEN hook_instance IS NOT NULL THEN hook_workspace_id
                WHEN is_by_name THEN named.workspace_id
                ELSE told.workspace_id
            END AS workspace_id
        FROM (
            SELECT CASE WHEN told_workspace_id ~ '^[0-9]{1,18}$' THEN told_workspace_id::bigint END AS workspace_id
            -- A fence: the number is read once, not for each registered workspace that it is compared with.
            OFFSET 0
        ) AS told
        CROSS JOIN LATERAL (
            SELECT
                CASE WHEN count(*) = 1 THEN min(registered.bison_instance) END AS instance,
                CASE WHEN count(*) = 1 THEN min(registered.bison_workspace_id) END AS workspace_id
            FROM public.client_registry AS registered
            WHERE
                is_by_name
                AND hook_instance IS NULL
                AND lower(btrim(told_name)) IN (lower(registered.workspace_name), lower(registered.display_name))
        ) AS named
        -- A fence: the instance is looked up once, though it is named three times.
        OFFSET 0
    ) AS found
    -- A fence: the caller asks more than once whether it is registered.
    OFFSET 0
$$;

COMMENT ON FUNCTION bisonsync_private.event_owner(text, bigint, boolean, text, text, text) IS
    'Whose an event is: of the workspace whose secret or token brought it (hook_…), else of the one that has its name (is_by_name), else of the one that its address and id tell. Null where none is, or more than one. is_registered: the registry knows it.';
