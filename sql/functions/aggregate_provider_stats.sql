-- needs: data_freshness
CREATE OR REPLACE FUNCTION public.aggregate_provider_stats()
RETURNS TABLE (
    bison_instance text,
    email_provider text,
    total_accounts bigint,
    active_accounts bigint,
    total_sent bigint,
    total_replies bigint,
    unique_replies bigint,
    total_bounces bigint,
    avg_reply_rate numeric,
    avg_emails_per_account numeric,
    total_daily_limit bigint,
    total_volume_capacity numeric,
    utilization_percentage numeric,
    as_of timestamptz,
    is_complete boolean,
    is_stale boolean
)
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
    WITH accounts AS (
        SELECT
            s.bison_instance,
            s.email_provider,
            count(*) AS total_accounts,
            count(*) FILTER (WHERE s.is_connected) AS active_accounts,
            sum(s.emails_sent_count)::bigint AS total_sent,
            sum(s.total_replied_count)::bigint AS total_replies,
            sum(s.unique_replied_count)::bigint AS unique_replies,
            sum(s.bounced_count)::bigint AS total_bounces,
            coalesce(sum(s.daily_limit) FILTER (WHERE s.is_connected), 0)::bigint AS total_daily_limit,
            coalesce(sum(s.volume_per_account), 0) AS total_volume_capacity
        FROM public.sender_emails_cache AS s
        WHERE s.removed_at IS NULL
        GROUP BY s.bison_instance, s.email_provider
    ),
    instances AS (
        SELECT
            f.bison_instance,
            CASE WHEN bool_and(f.as_of IS NOT NULL) THEN min(f.as_of) END AS as_of,
            bool_and(f.is_complete) AS is_complete,
            bool_or(f.state <> 'fresh') AS is_stale
        FROM public.data_freshness AS f
        WHERE f.resource = 'accounts'
        GROUP BY f.bison_instance
    )
    SELECT
        a.bison_instance,
        a.email_provider,
        a.total_accounts,
        a.active_accounts,
        a.total_sent,
        a.total_replies,
        a.unique_replies,
        a.total_bounces,
        round(100.0 * a.unique_replies / nullif(a.total_sent, 0), 4),
        round(a.total_sent::numeric / a.total_accounts, 4),
        a.total_daily_limit,
        a.total_volume_capacity,
        round(100.0 * a.total_daily_limit / nullif(a.total_volume_capacity, 0), 4),
        i.as_of,
        coalesce(i.is_complete, false),
        coalesce(i.is_stale, true)
    FROM accounts AS a
    LEFT JOIN instances AS i ON i.bison_instance = a.bison_instance
    ORDER BY a.bison_instance, a.email_provider
$$;

COMMENT ON FUNCTION public.aggregate_provider_stats() IS
    'The accounts present now, per instance and provider, whatever their age: the sums over their whole lives and the rates that provider_performance_history keeps of each day. as_of, is_complete, is_stale: the worst of the instance''s active workspaces.';
