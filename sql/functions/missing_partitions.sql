-- needs: partition_bounds
CREATE OR REPLACE FUNCTION bisonsync_private.missing_partitions(p_table text, p_first date, p_last date)
RETURNS TABLE (partition text, lower_bound timestamptz, upper_bound timestamptz)
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
    WITH bounds AS MATERIALIZED (
        SELECT b.lower_bound, b.upper_bound
        FROM bisonsync_private.partition_bounds(p_table) AS b
        WHERE NOT b.is_default
    ),
    wanted AS (
        SELECT
            p_table || '_' || to_char(g.begins, u.pattern) AS partition,
            g.begins,
            g.begins + u.length AS ends
        FROM (
            SELECT
                CASE p_table WHEN 'sender_email_daily' THEN interval '1 month' ELSE interval '1 day' END AS length,
                CASE p_table WHEN 'sender_email_daily' THEN 'month' ELSE 'day' END AS unit,
                CASE p_table WHEN 'sender_email_daily' THEN 'YYYY_MM' ELSE 'YYYY_MM_DD' END AS pattern
        ) AS u
        CROSS JOIN LATERAL
            generate_series(date_trunc(u.unit, p_first::timestamptz), p_last::timestamptz, u.length) AS g (begins)
    )
    SELECT w.partition, f.begins, u.ends
    FROM wanted AS w
    -- What has no place begins where the wanted one or one that is there ends, and ends where the next begins.
    CROSS JOIN LATERAL (
        SELECT w.begins
        UNION
        SELECT b.upper_bound FROM bounds AS b WHERE b.upper_bound > w.begins AND b.upper_bound < w.ends
    ) AS f
    CROSS JOIN LATERAL (
        SELECT least(w.ends, min(b.lower_bound)) AS ends FROM bounds AS b WHERE b.lower_bound >= f.begins
    ) AS u
    WHERE NOT EXISTS (SELECT FROM bounds AS b WHERE b.lower_bound <= f.begins AND b.upper_bound > f.begins)
    ORDER BY f.begins
$$;

COMMENT ON FUNCTION bisonsync_private.missing_partitions(text, date, date) IS
    'What is not covered by any partition of webhook_delivery_log (by UTC days) or sender_email_daily (by months) between two days, and what a partition for it is called. By bounds, not by names: whoever made one has made it.';
