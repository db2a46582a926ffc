CREATE OR REPLACE FUNCTION bisonsync_private.spread_over_gap(
    p_instance text, p_workspace_id bigint, p_before date, p_after date, p_account_ids bigint[], p_told jsonb
)
RETURNS TABLE (
    bison_account_id bigint,
    snapshot_date date,
    verdict text,
    emails_sent_count bigint,
    total_replied_count bigint,
    unique_replied_count bigint,
    bounced_count bigint
)
LANGUAGE sql
STABLE
AS $$
WITH ends AS (
    SELECT
        b.bison_account_id,
        c.counter,
        c.was,
        greatest(c.is_now - c.was, 0) AS moved,
        c.is_now < c.was AS is_fallen,
        b.unique_replied_count AS unique_was,
        greatest(a.unique_replied_count - b.unique_replied_count, 0) AS unique_moved
    FROM public.sender_email_daily AS b
    INNER JOIN public.sender_email_daily AS a
        ON
            a.bison_instance = b.bison_instance
            AND a.bison_workspace_id = b.bison_workspace_id
            AND a.bison_account_id = b.bison_account_id
    CROSS JOIN LATERAL (
        VALUES
        ('sent', b.emails_sent_count, a.emails_sent_count),
        ('replied', b.total_replied_count, a.total_replied_count),
        ('bounced', b.bounced_count, a.bounced_count)
    ) AS c (counter, was, is_now)
    WHERE
        b.bison_instance = p_instance
        AND b.bison_workspace_id = p_workspace_id
        AND b.bison_account_id = any(p_account_ids)
        AND b.snapshot_date = p_before
        AND a.snapshot_date = p_after
),
told AS (
    SELECT t.id, t.day, c.counter, c.amount
    FROM jsonb_to_recordset(p_told) AS t (id bigint, day date, sent bigint, replied bigint, bounced bigint)
    CROSS JOIN LATERAL (VALUES ('sent', t.sent), ('replied', t.replied), ('bounced', t.bounced)) AS c (counter, amount)
),
sums AS (
    SELECT
        e.bison_account_id,
        e.counter,
        coalesce(sum(t.amount) FILTER (WHERE t.day > p_before AND t.day < p_after), 0) AS inside,
        coalesce(sum(t.amount) FILTER (WHERE t.day = p_before), 0) AS on_first,
        sum(t.amount) FILTER (WHERE t.day = p_after) AS on_last
    FROM ends AS e
    LEFT JOIN told AS t ON t.id = e.bison_account_id AND t.counter = e.counter
    GROUP BY e.bison_account_id, e.counter
),
judged AS (
    SELECT
        e.*,
        -- What the gap's days and the day after do not explain came on the day before, after its row was read; of
        -- this at most what the platform tells of that day. greatest() passes over an unknown day after.
        least(greatest(e.moved - s.inside - s.on_last, 0), s.on_first) AS rest_of_first,
        CASE
            WHEN bool_or(s.inside > e.moved AND NOT e.is_fallen) OVER account THEN 'exceeding'
            WHEN
                bool_or(e.counter = 'sent' AND e.moved > 0 AND s.inside + s.on_first + coalesce(s.on_last, 0) = 0)
                    OVER account
                THEN 'unexplained'
            ELSE 'filled'
        END AS verdict
    FROM ends AS e
    INNER JOIN sums AS s ON s.bison_account_id = e.bison_account_id AND s.counter = e.counter
    WINDOW account AS (PARTITION BY e.bison_account_id)
),
grown AS (
    SELECT
        j.*,
        g.day::date AS day,
        CASE
            WHEN j.is_fallen THEN 0
            ELSE
                j.rest_of_first
                + sum(coalesce(t.amount, 0)) OVER (PARTITION BY j.bison_account_id, j.counter ORDER BY g.day)
        END AS grown
    FROM judged AS j
    CROSS JOIN generate_series(p_before + 1, (p_after - 1)::timestamp, interval '1 day') AS g (day)
    LEFT JOIN told AS t ON t.id = j.bison_account_id AND t.counter = j.counter AND t.day = g.day::date
)

SELECT
    f.bison_account_id,
    f.day,
    f.verdict,
    CASE WHEN f.verdict = 'filled' THEN sum(f.was + f.grown) FILTER (WHERE f.counter = 'sent') END::bigint,
    CASE WHEN f.verdict = 'filled' THEN sum(f.was + f.grown) FILTER (WHERE f.counter = 'replied') END::bigint,
    CASE
        WHEN f.verdict = 'filled'
            THEN
            max(f.unique_was)
            -- In proportion to the replies so far: the platform tells no unique ones by mailbox and day.
            + coalesce(
                div(max(f.unique_moved) * sum(f.grown) FILTER (WHERE f.counter = 'replied'),
                    nullif(sum(f.moved) FILTER (WHERE f.counter = 'replied'), 0)),
                0
            )
    END::bigint,
    CASE WHEN f.verdict = 'filled' THEN sum(f.was + f.grown) FILTER (WHERE f.counter = 'bounced') END::bigint
FROM grown AS f
GROUP BY f.bison_account_id, f.day, f.verdict
$$;

COMMENT ON FUNCTION bisonsync_private.spread_over_gap(text, bigint, date, date, bigint[], jsonb) IS
    'The counters that accounts had at the end of each day between two recorded ones, from the numbers that the platform tells for each day from p_before to p_after (p_told: a list of id, day, sent, replied, bounced; none for an account that did not move). They never fall and never pass those of p_after; unique replies are an estimate in proportion to replies. verdict: filled; exceeding (the platform tells more than the account moved: these are not its numbers); unexplained (it tells nothing although the account sent). Only what is filled has counters.';
