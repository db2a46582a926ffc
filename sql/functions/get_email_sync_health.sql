-- needs: data_freshness
CREATE OR REPLACE FUNCTION public.get_email_sync_health()
RETURNS TABLE (
    last_sync_time timestamptz,
    last_sync_status text,
    total_accounts bigint,
    accounts_by_instance jsonb,
    minutes_since_last_sync integer,
    is_healthy boolean,
    oldest_sync_time timestamptz,
    workspaces_total bigint,
    workspaces_behind bigint
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
    WITH runs AS (
        SELECT l.status
        FROM public.email_sync_logs AS l
        WHERE l.job IN ('poll-accounts', 'sync') AND l.status NOT IN ('running', 'skipped')
            -- A run of chosen workspaces says nothing of the mirror.
            AND l.covers IS DISTINCT FROM '{}'
        ORDER BY l.started_at DESC
        LIMIT 1
    ),
    instances AS (
        SELECT s.bison_instance, count(*) AS accounts
        FROM public.sender_emails_cache AS s
        WHERE s.removed_at IS NULL
        GROUP BY s.bison_instance
    ),
    workspaces AS (
        SELECT
            max(f.as_of) AS newest,
            CASE WHEN bool_and(f.as_of IS NOT NULL) THEN min(f.as_of) END AS oldest,
            count(*) AS total,
            count(*) FILTER (WHERE f.state NOT IN ('fresh', 'stale') OR NOT f.is_complete) AS behind
        FROM public.data_freshness AS f
        WHERE f.resource = 'accounts'
    )
    SELECT
        w.newest,
        (SELECT r.status FROM runs AS r),
        (SELECT coalesce(sum(i.accounts), 0)::bigint FROM instances AS i),
        (SELECT coalesce(jsonb_object_agg(i.bison_instance, i.accounts), '{}') FROM instances AS i),
        floor(extract(epoch FROM now() - w.newest) / 60)::integer,
        w.total > 0 AND w.behind = 0,
        w.oldest,
        w.total,
        w.behind
    FROM workspaces AS w
$$;

COMMENT ON FUNCTION public.get_email_sync_health() IS
    'One row about the mirror of accounts. last_sync_time, minutes_since_last_sync: the newest complete read of any workspace; oldest_sync_time: the oldest, null if one was never read; last_sync_status: verdict of the last run that ended, those of chosen workspaces aside; is_healthy: there are workspaces, and each was read completely within two intervals; workspaces_behind: how many were not.';
