-- needs: data_freshness
CREATE OR REPLACE FUNCTION public.get_account_status_stats()
RETURNS TABLE (
    total bigint,
    connected bigint,
    disconnected bigint,
    failed bigint,
    disconnect_rate numeric,
    other bigint,
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
            count(*) AS total,
            count(*) FILTER (WHERE s.is_connected) AS connected,
            count(*) FILTER (WHERE lower(btrim(s.status)) IN ('disconnected', 'not connected', 'not_connected')) AS disconnected,
            count(*) FILTER (WHERE lower(btrim(s.status)) = 'failed') AS failed
        FROM public.sender_emails_cache AS s
        WHERE s.removed_at IS NULL
    ),
    workspaces AS (
        SELECT
            CASE WHEN bool_and(f.as_of IS NOT NULL) THEN min(f.as_of) END AS as_of,
            coalesce(bool_and(f.is_complete), false) AS is_complete,
            coalesce(bool_or(f.state <> 'fresh'), true) AS is_stale
        FROM public.data_freshness AS f
        WHERE f.resource = 'accounts'
    )
    SELECT
        a.total,
        a.connected,
        a.disconnected,
        a.failed,
        round(100.0 * (a.total - a.connected) / nullif(a.total, 0), 2),
        a.total - a.connected - a.disconnected - a.failed,
        w.as_of,
        w.is_complete,
        w.is_stale
    FROM accounts AS a
    CROSS JOIN workspaces AS w
$$;

COMMENT ON FUNCTION public.get_account_status_stats() IS
    'One row of counts of the accounts present, by what the API says of their connection, in any case; other: none of these words. disconnect_rate: 100 x (total - connected) / total, null without accounts. as_of, is_complete, is_stale: the worst of all active workspaces.';
