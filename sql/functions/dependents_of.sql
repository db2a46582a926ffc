CREATE OR REPLACE FUNCTION bisonsync_private.dependents_of(p_table text)
RETURNS text
LANGUAGE sql
STABLE
-- What the caller's session has set must not count.
SET search_path = pg_catalog, pg_temp
SET jit = off
SET datestyle = 'ISO, MDY'
SET intervalstyle = 'postgres'
SET timezone = 'UTC'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET array_nulls = on
SET standard_conforming_strings = on
SET transform_null_equals = off
SET quote_all_identifiers = off
AS $$
    SELECT
        string_agg(
            DISTINCT coalesce(
                pg_describe_object('pg_class'::regclass, r.ev_class, 0), pg_describe_object(d.classid, d.objid, 0)
            ),
            ', '
        )
    FROM pg_depend AS d
    LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE
        d.refclassid = 'pg_class'::regclass
        AND d.refobjid = to_regclass(format('public.%I', p_table))
        AND d.deptype = 'n'
        -- Its own policies and expressions go with it.
        AND NOT EXISTS (
            SELECT
            FROM pg_depend AS o
            WHERE
                o.classid = d.classid
                AND o.objid = d.objid
                AND o.refclassid = d.refclassid
                AND o.refobjid = d.refobjid
                AND o.deptype IN ('a', 'i')
        )
$$;

COMMENT ON FUNCTION bisonsync_private.dependents_of(text) IS
    'What stands on a table, so that it cannot be dropped: views and others, as a list for a message; null: nothing.';
