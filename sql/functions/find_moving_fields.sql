CREATE OR REPLACE FUNCTION bisonsync_private.find_moving_fields(p_old jsonb[], p_new jsonb[])
RETURNS TABLE (path text[], moved bigint, present bigint)
LANGUAGE sql
IMMUTABLE
AS $$
WITH RECURSIVE rows AS MATERIALIZED (
    SELECT r.number, r.old, r.new
    FROM unnest(p_old, p_new) WITH ORDINALITY AS r (old, new, number)
),
walk AS (
    SELECT r.number, '{}'::text[] AS path, r.old, r.new
    FROM rows AS r
    WHERE r.old <> r.new
    UNION ALL
    SELECT w.number, w.path || k.key, w.old -> k.key, w.new -> k.key
    FROM walk AS w
    CROSS JOIN LATERAL (
        SELECT jsonb_object_keys(w.old) AS key WHERE jsonb_typeof(w.old) = 'object' AND jsonb_typeof(w.new) = 'object'
        UNION
        SELECT jsonb_object_keys(w.new) WHERE jsonb_typeof(w.old) = 'object' AND jsonb_typeof(w.new) = 'object'
    ) AS k
    WHERE
        (w.old -> k.key) IS DISTINCT FROM (w.new -> k.key)
        AND (w.path <> '{}' OR k.key NOT LIKE '%\_at')
),
fields AS (
    SELECT DISTINCT
        w.number,
        -- An object whose names come and go moves as a whole.
        CASE
            WHEN (w.old IS NULL OR w.new IS NULL) AND cardinality(w.path) > 1 THEN trim_array(w.path, 1)
            ELSE w.path
        END AS path
    FROM walk AS w
    WHERE w.path <> '{}' AND (jsonb_typeof(w.old) = 'object' AND jsonb_typeof(w.new) = 'object') IS NOT TRUE
),
moves AS (
    SELECT f.path, count(*) AS moved
    FROM fields AS f
    GROUP BY f.path
    ORDER BY moved DESC, f.path
    LIMIT 20
)

SELECT m.path, m.moved, count(*) FILTER (WHERE coalesce(r.old #> m.path, r.new #> m.path) IS NOT NULL)
FROM moves AS m
CROSS JOIN rows AS r
GROUP BY m.path, m.moved
$$;

COMMENT ON FUNCTION bisonsync_private.find_moving_fields IS
    'Which fields differ between two states of the same objects, times of activity (*_at) aside: in how many objects, and how many have the field at all. A list is one field.';
