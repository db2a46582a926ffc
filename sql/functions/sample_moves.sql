-- needs: find_moving_fields
CREATE OR REPLACE FUNCTION bisonsync_private.sample_moves(p_actions text[], p_old jsonb[], p_new jsonb[])
RETURNS TABLE (idle bigint, sampled bigint, moves jsonb)
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
WITH idle AS MATERIALIZED (
    SELECT r.number, r.action, coalesce(r.old, r.new) AS old, r.new
    FROM unnest(p_actions, p_old, p_new) WITH ORDINALITY AS r (action, old, new, number)
    WHERE r.action IN ('keep', 'extra')
),
sample AS (
    SELECT array_agg(s.old) AS old, array_agg(s.new) AS new, count(*) AS sampled
    FROM (
        SELECT i.old, i.new
        FROM idle AS i
        WHERE (SELECT bool_or(e.action = 'extra') FROM idle AS e)
        ORDER BY hashint8(i.number)
        LIMIT 200
    ) AS s
)

SELECT
    (SELECT count(*) FROM idle),
    s.sampled,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_object('path', m.path, 'moved', m.moved, 'present', m.present)), '[]')
        FROM bisonsync_private.find_moving_fields(s.old, s.new) AS m
    )
FROM sample AS s
$$;

COMMENT ON FUNCTION bisonsync_private.sample_moves IS
    'Of rows whose known fields stayed (idle: keep or extra) how many there are, how many were looked at, and which unknown fields moved in these.';
