CREATE OR REPLACE FUNCTION bisonsync_private.make_partition_table(
    p_table text, p_partition text, p_persistence text, p_lower timestamptz, p_upper timestamptz
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
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
DECLARE
    key name;
    grantee text;
BEGIN
    SELECT a.attname INTO key
    FROM pg_partitioned_table AS p
    INNER JOIN pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = to_regclass(format('public.%I', p_table));
    -- Attaching copies identities and refuses those that are there. By the check it need not look at each row.
    EXECUTE format(
        'CREATE %s TABLE public.%I (LIKE public.%I INCLUDING ALL EXCLUDING IDENTITY,'
        ' CONSTRAINT within_bounds CHECK (%I >= %L AND %4$I < %6$L))',
        p_persistence, p_partition, p_table, key, p_lower, p_upper
    );
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', p_partition);
    FOR grantee IN
        SELECT 'PUBLIC'
        UNION ALL
        SELECT quote_ident(r.rolname) FROM pg_roles AS r WHERE r.rolname IN ('anon', 'authenticated', 'service_role')
    LOOP
        -- Readers and writers go through the whole table, whose rights they have.
        EXECUTE format('REVOKE ALL ON public.%I FROM %s', p_partition, grantee);
    END LOOP;
END
$$;

COMMENT ON FUNCTION bisonsync_private.make_partition_table(text, text, text, timestamptz, timestamptz) IS
    'Makes a table (UNLOGGED, or '''') that can become the partition of another between two bounds, which its constraint within_bounds says.';
