CREATE OR REPLACE FUNCTION bisonsync_private.stored_columns(p_table text)
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
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_attribute AS a
    WHERE
        a.attrelid = to_regclass(format('public.%I', p_table))
        AND a.attnum > 0
        AND NOT a.attisdropped
        AND a.attgenerated = ''
$$;

COMMENT ON FUNCTION bisonsync_private.stored_columns(text) IS
    'The columns of a table as a list for a statement, but those that it generates itself, into which nothing can be written.';
