-- needs: is_same_extra
CREATE OR REPLACE FUNCTION bisonsync_private.compare_campaigns(
    p_instance text,
    p_workspace_id bigint,
    p_workspace_name text,
    p_rows jsonb,
    p_read_started_at timestamptz,
    p_rules jsonb
)
RETURNS TABLE (action text, fresh public.campaigns_cache, old_extra jsonb)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, public
AS $$
WITH settled AS (
    SELECT
        array(SELECT p.path FROM jsonb_array_elements_text(p_rules -> 'left_out') AS p (path)) AS left_out,
        jsonb_build_object(
            'bison_instance', p_instance, 'bison_workspace_id', p_workspace_id, 'workspace_name', p_workspace_name,
            'removed_at', NULL
        ) AS own_fields,
        jsonb_populate_record(
            NULL::campaigns_cache,
            jsonb_build_object(
                'tags', '[]'::jsonb, 'extra', '{}'::jsonb, 'first_seen_at', now(), 'created_at', now(), 'updated_at', now()
            )
        ) AS blank
),
pairs AS MATERIALIZED (
    SELECT
        c.bison_campaign_id IS NULL AS is_new,
        c.removed_at,
        c.extra AS old_extra,
        c AS stored,
        -- Whatever the row does not tell stays as it is stored.
        jsonb_populate_record(
            CASE WHEN c.bison_campaign_id IS NULL THEN s.blank ELSE c END,
            r.fields || s.own_fields
            || CASE
                -- What moves with any activity or with every read is, alone, no change.
                WHEN bisonsync_private.is_same_extra(c.extra, r.fields -> 'extra', s.left_out)
                    THEN jsonb_build_object('extra', c.extra)
                ELSE '{}'
            END
        ) AS fresh
    FROM settled AS s
    CROSS JOIN jsonb_array_elements(p_rows) AS r (fields)
    LEFT JOIN campaigns_cache AS c
        ON c.bison_instance = p_instance AND c.bison_workspace_id = p_workspace_id
        AND c.bison_campaign_id = (r.fields ->> 'bison_campaign_id')::bigint
)

SELECT
    CASE
        WHEN p.is_new THEN 'insert'
        WHEN p.removed_at >= p_read_started_at THEN 'keep'
        WHEN p.removed_at IS NOT NULL THEN 'restore'
        WHEN p.fresh IS NOT DISTINCT FROM p.stored THEN 'keep'
        WHEN to_jsonb(p.fresh) - 'extra' = to_jsonb(p.stored) - 'extra' THEN 'extra'
        ELSE 'update'
    END,
    p.fresh,
    CASE WHEN (p.fresh).extra IS DISTINCT FROM p.old_extra THEN p.old_extra END
FROM pairs AS p
$$;

COMMENT ON FUNCTION bisonsync_private.compare_campaigns IS
'What a fresh read of one workspace means for each campaign: insert, update, extra (an update of unknown fields alone), restore or keep, with the row it should be. Reads only.';
