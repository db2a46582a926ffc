-- needs: daily_differences, fall_p_value
CREATE OR REPLACE FUNCTION public.check_provider_reply_rate_drop(
    on_date date DEFAULT NULL,
    min_sends bigint DEFAULT 200,
    min_fall_percent numeric DEFAULT 20,
    alpha double precision DEFAULT 0.05
)
RETURNS TABLE (
    bison_instance text,
    email_provider text,
    snapshot_date date,
    recent_sent bigint,
    recent_unique_replies bigint,
    recent_reply_rate numeric,
    previous_sent bigint,
    previous_unique_replies bigint,
    previous_reply_rate numeric,
    change_percent numeric,
    p_value double precision,
    is_drop boolean,
    state text,
    workspaces_left_out integer
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
    WITH latest AS (
        SELECT coalesce(on_date, (SELECT max(d.snapshot_date) FROM public.sender_email_daily AS d)) AS day
    ),
    -- Like is compared with like: a workspace that was not recorded at all three ends is left out of both windows, so
    -- that a new client does not read as a fall.
    ends AS (
        SELECT w.bison_instance, w.bison_workspace_id, count(DISTINCT w.snapshot_date) = 3 AS is_whole
        FROM latest AS l
        CROSS JOIN LATERAL (
            SELECT s.bison_instance, s.bison_workspace_id, s.snapshot_date
            FROM public.workspace_snapshots AS s
            WHERE s.snapshot_date IN (l.day - 14, l.day - 7, l.day)
            UNION
            SELECT d.bison_instance, d.bison_workspace_id, d.snapshot_date
            FROM public.sender_email_daily AS d
            WHERE d.snapshot_date IN (l.day - 14, l.day - 7, l.day)
        ) AS w
        GROUP BY w.bison_instance, w.bison_workspace_id
    ),
    sums AS (
        SELECT
            d.bison_instance,
            d.bison_workspace_id,
            d.email_provider,
            -- A difference that lies in both windows belongs to neither.
            sum(d.sent) FILTER (WHERE d.snapshot_date > l.day - 7 AND (d.previous_date >= l.day - 7 OR d.is_new)) AS sent,
            sum(d.unique_replies)
                FILTER (WHERE d.snapshot_date > l.day - 7 AND (d.previous_date >= l.day - 7 OR d.is_new)) AS replies,
            sum(d.sent) FILTER (WHERE d.snapshot_date <= l.day - 7) AS sent_before,
            sum(d.unique_replies) FILTER (WHERE d.snapshot_date <= l.day - 7) AS replies_before
        FROM latest AS l
        CROSS JOIN LATERAL public.daily_differences(l.day - 13, l.day + 1) AS d
        GROUP BY d.bison_instance, d.bison_workspace_id, d.email_provider
    ),
    windows AS (
        SELECT
            s.bison_instance,
            s.email_provider,
            coalesce(sum(s.sent) FILTER (WHERE e.is_whole), 0)::bigint AS sent,
            coalesce(sum(s.replies) FILTER (WHERE e.is_whole), 0)::bigint AS replies,
            coalesce(sum(s.sent_before) FILTER (WHERE e.is_whole), 0)::bigint AS sent_before,
            coalesce(sum(s.replies_before) FILTER (WHERE e.is_whole), 0)::bigint AS replies_before,
            count(*) FILTER (WHERE e.is_whole IS NOT TRUE AND r.is_active IS NOT FALSE)::integer AS left_out
        FROM sums AS s
        LEFT JOIN ends AS e ON e.bison_instance = s.bison_instance AND e.bison_workspace_id = s.bison_workspace_id
        LEFT JOIN public.client_registry AS r
            ON r.bison_instance = s.bison_instance AND r.bison_workspace_id = s.bison_workspace_id
        GROUP BY s.bison_instance, s.email_provider
    ),
    compared AS (
        SELECT
            w.*,
            CASE
                WHEN w.sent >= min_sends AND w.sent_before >= min_sends THEN 'compared'
                WHEN w.left_out > 0 THEN 'gap'
                ELSE 'too few sends'
            END AS state,
            -- Without division: a fall of exactly so much is not more.
            w.replies::numeric * w.sent_before * 100 < w.replies_before::numeric * w.sent * (100 - min_fall_percent) AS is_fall,
            public.fall_p_value(w.sent, w.replies, w.sent_before, w.replies_before) AS p_value
        FROM windows AS w
    )
    SELECT
        c.bison_instance,
        c.email_provider,
        l.day,
        c.sent,
        c.replies,
        round(100.0 * c.replies / nullif(c.sent, 0), 4),
        c.sent_before,
        c.replies_before,
        round(100.0 * c.replies_before / nullif(c.sent_before, 0), 4),
        round(100.0 * c.replies * c.sent_before / nullif(c.replies_before::numeric * c.sent, 0) - 100, 2),
        CASE c.state WHEN 'compared' THEN c.p_value END,
        CASE c.state WHEN 'compared' THEN c.is_fall AND c.p_value <= alpha END,
        c.state,
        c.left_out
    FROM compared AS c
    CROSS JOIN latest AS l
    ORDER BY c.bison_instance, c.email_provider
$$;

COMMENT ON FUNCTION public.check_provider_reply_rate_drop(date, bigint, numeric, double precision) IS
    'Per instance and provider: the unique replies per mail of the 7 days that end with on_date (default: the latest recorded day) against the 7 before, in the workspaces recorded at all ends of both; workspaces_left_out is how many active ones were not. is_drop: at least min_sends mails on both sides, a fall of more than min_fall_percent, and no more probable than alpha by chance (p_value). Where state is not compared it is null: too few sends; or gap, when those left out may be why.';
