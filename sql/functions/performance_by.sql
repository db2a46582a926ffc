-- needs: daily_differences
CREATE OR REPLACE FUNCTION public.performance_by(dimension text, from_date date, to_date date)
RETURNS TABLE (
    group_value text,
    sent bigint,
    unique_replies bigint,
    bounces bigint,
    reply_rate numeric,
    bounce_rate numeric
)
LANGUAGE plpgsql
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
BEGIN
    IF dimension IS NULL OR dimension NOT IN ('provider', 'reseller', 'domain', 'workspace', 'instance') THEN
        RAISE EXCEPTION 'no dimension %', coalesce(quote_literal(dimension), 'null') USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'it is one of provider, reseller, domain, workspace, instance';
    END IF;
    IF from_date IS NULL OR to_date IS NULL THEN
        RAISE EXCEPTION 'a range needs both its ends' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'the days are those from from_date until the day before to_date';
    END IF;
    RETURN QUERY
    SELECT
        g.value,
        sum(d.sent)::bigint,
        sum(d.unique_replies)::bigint,
        sum(d.bounces)::bigint,
        round(100.0 * sum(d.unique_replies) / nullif(sum(d.sent), 0), 4),
        round(100.0 * sum(d.bounces) / nullif(sum(d.sent), 0), 4)
    FROM public.daily_differences(from_date, to_date) AS d
    CROSS JOIN LATERAL (
        SELECT
            CASE dimension
                WHEN 'provider' THEN d.email_provider
                WHEN 'reseller' THEN coalesce(d.reseller, 'Unknown')
                WHEN 'domain' THEN coalesce(d.domain, 'Unknown')
                WHEN 'workspace' THEN d.bison_instance || '/' || d.bison_workspace_id
                ELSE d.bison_instance
            END AS value
    ) AS g
    GROUP BY g.value
    ORDER BY g.value;
END
$$;

COMMENT ON FUNCTION public.performance_by(text, date, date) IS
    'Mails sent, new unique replies and bounces on the days [from_date, to_date), by provider, reseller, domain, workspace (instance/id) or instance, as daily_differences counts them. reply_rate: 100 x unique_replies / sent, bounce_rate: 100 x bounces / sent; null when nothing was sent. Every group with a recorded account has a row.';
