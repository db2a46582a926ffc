-- needs: fall_p_value
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
AS $$
    WITH windows AS (
        SELECT
            r.bison_instance,
            r.email_provider,
            r.snapshot_date,
            r.sent_7d AS sent,
            r.unique_replies_7d AS replies,
            coalesce(p.sent_7d, 0) AS sent_before,
            coalesce(p.unique_replies_7d, 0) AS replies_before,
            r.gaps_7d + coalesce(p.gaps_7d, 0) AS left_out
        FROM public.provider_performance_history AS r
        LEFT JOIN public.provider_performance_history AS p
            ON p.bison_instance = r.bison_instance AND p.email_provider = r.email_provider AND p.snapshot_date = r.snapshot_date - 7
        WHERE r.snapshot_date = coalesce(on_date, (SELECT max(h.snapshot_date) FROM public.provider_performance_history AS h))
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
        c.snapshot_date,
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
    ORDER BY c.bison_instance, c.email_provider
$$;

COMMENT ON FUNCTION public.check_provider_reply_rate_drop(date, bigint, numeric, double precision) IS
    'Per instance and provider: the unique replies per mail of the 7 days that end with on_date (default: the latest recorded day) against the 7 before. is_drop: at least min_sends on both sides, a fall of more than min_fall_percent, and no more probable than alpha by chance; null where state says why nothing can be compared: too few sends, or gap (workspaces_left_out of them were not recorded at an end of a window).';
