-- needs: make_partition_table, stored_columns
CREATE OR REPLACE FUNCTION bisonsync_private.make_partition(
    p_table text, p_partition text, p_lower timestamptz, p_upper timestamptz, p_comment text
)
RETURNS text
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
    name text := p_partition;
    number integer := 1;
    other text;
    key name;
    has_moved boolean := false;
BEGIN
    -- Some other table may have that name, or a partition of other bounds.
    WHILE to_regclass(format('public.%I', name)) IS NOT NULL LOOP
        number := number + 1;
        name := p_partition || '_' || number;
    END LOOP;
    -- Attached rather than made in its place: that blocks neither readers nor writers of the others.
    PERFORM bisonsync_private.make_partition_table(p_table, name, '', p_lower, p_upper);
    EXECUTE format('COMMENT ON TABLE public.%I IS %L', name, p_comment);

    SELECT a.attname, p.partdefid::regclass::text INTO key, other
    FROM pg_partitioned_table AS p
    INNER JOIN pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = to_regclass(format('public.%I', p_table));
    IF other <> '-' THEN
        -- Nobody may put more of it there between the look and the attaching, which would refuse it.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', other);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I >= %L AND %2$I < %4$L)', other, key, p_lower, p_upper)
        INTO has_moved;
    END IF;
    IF has_moved THEN
        -- What came while there was no place for it leaves the whole table and comes back to it: a subscriber of the
        -- table follows, and one of all tables does not know the new one before it is attached.
        EXECUTE format('CREATE TEMPORARY TABLE moved_rows (LIKE public.%I)', p_table);
        EXECUTE format(
            'WITH gone AS (DELETE FROM %s WHERE %I >= %L AND %2$I < %4$L RETURNING *)'
            ' INSERT INTO pg_temp.moved_rows SELECT * FROM gone',
            other, key, p_lower, p_upper
        );
    END IF;
    EXECUTE format(
        'ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', p_table, name, p_lower, p_upper
    );
    EXECUTE format('ALTER TABLE public.%I DROP CONSTRAINT within_bounds', name);
    IF has_moved THEN
        EXECUTE format(
            'INSERT INTO public.%I (%s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM pg_temp.moved_rows',
            name, bisonsync_private.stored_columns(p_table)
        );
        DROP TABLE pg_temp.moved_rows;
    END IF;
    RETURN name;
END
$$;

COMMENT ON FUNCTION bisonsync_private.make_partition(text, text, timestamptz, timestamptz, text) IS
    'Makes one partition between two bounds that no other covers, and moves in what the default partition has of it; returns its name, which has a number where that asked for is taken.';
