-- name: create_budget
-- Makes an instance's bucket, full: one minute's worth.
INSERT INTO rate_budgets (bison_instance, tokens, refilled_at, requests_per_minute)
VALUES (%(instance)s::text, %(requests_per_minute)s::integer, clock_timestamp(), %(requests_per_minute)s::integer)
ON CONFLICT DO NOTHING;

-- name: note_answers
-- Takes what the answers since the last time told. In a minute of the API, what is left falls by what we sent and by
-- what others did; it is measured over at least 20 seconds, in which requests under way hardly count. Locks the row.
UPDATE rate_budgets AS b
SET
    limited_at = CASE WHEN %(succeeded)s::integer > 0 THEN NULL ELSE b.limited_at END,
    limit_told = coalesce(%(limit)s::integer, b.limit_told),
    remaining_told = coalesce(%(remaining)s::integer, b.remaining_told),
    told_at = CASE WHEN %(remaining)s::integer IS NULL THEN b.told_at ELSE clock_timestamp() END,
    window_remaining = CASE WHEN m.is_new_window THEN %(remaining)s::integer ELSE b.window_remaining END,
    window_at = CASE WHEN m.is_new_window THEN clock_timestamp() ELSE b.window_at END,
    window_sent = CASE WHEN m.is_new_window THEN 0 ELSE b.window_sent + %(sent)s::integer END,
    foreign_per_minute = CASE WHEN m.is_measured THEN m.per_minute ELSE b.foreign_per_minute END,
    foreign_at = CASE WHEN m.is_measured THEN clock_timestamp() ELSE b.foreign_at END
FROM
    (
        SELECT o.bison_instance, o.remaining_told, o.window_remaining, o.window_at, o.window_sent
        FROM rate_budgets AS o
        WHERE o.bison_instance = %(instance)s::text
        FOR UPDATE
    ) AS before,
    LATERAL (
        SELECT
            extract(epoch FROM clock_timestamp() - before.window_at)::double precision AS seconds,
            -- Answers that overtake each other differ by a few; a new minute by far more.
            coalesce(%(remaining)s::integer > before.remaining_told + %(limit)s::integer / 20, true) AS is_refilled
    ) AS w,
    LATERAL (
        SELECT
            %(remaining)s::integer IS NOT NULL
            AND (w.is_refilled OR coalesce(w.seconds > 60, true)) AS is_new_window,
            -- Once nothing is left, what others would have sent does not show.
            coalesce(%(remaining)s::integer > 0, false)
            AND NOT w.is_refilled
            AND coalesce(w.seconds BETWEEN 20 AND 60, false) AS is_measured,
            greatest(
                0, before.window_remaining - %(remaining)s::integer - before.window_sent - %(sent)s::integer
            ) * 60 / nullif(w.seconds, 0) AS per_minute
    ) AS m
WHERE b.bison_instance = before.bison_instance;

-- name: lock_budget
-- What an instance's bucket holds, refilled up to this moment at the rate that the limit told, other programs, the
-- reserve and 429s leave; that rate; and for how long it is blocked. Locks its row.
SELECT
    least(
        -- Where the limit binds and not our own rate, a minute's worth at once beside a minute's worth is too much.
        CASE WHEN r.is_bound THEN greatest(1, r.per_minute / 10) ELSE r.per_minute END,
        b.tokens
        + greatest(0, extract(epoch FROM clock_timestamp() - b.refilled_at)::double precision) * r.per_minute / 60.0,
        -- No more than the newest answer said are left, while that is news.
        CASE
            WHEN b.told_at > clock_timestamp() - interval '5 seconds'
                THEN b.remaining_told * (1 - %(reserve)s::double precision)
        END
    ) AS tokens,
    r.per_minute,
    coalesce(greatest(0, extract(epoch FROM b.blocked_until - clock_timestamp())), 0)::double precision AS blocked_seconds
FROM
    rate_budgets AS b,
    LATERAL (
        SELECT
            -- A host that tells no limit any more has none.
            (CASE WHEN b.told_at > clock_timestamp() - interval '10 minutes' THEN b.limit_told END
            - bisonsync_private.foreign_rate(b.foreign_per_minute, b.foreign_at))
            * (1 - %(reserve)s::double precision) AS per_minute
    ) AS allowed,
    LATERAL (
        SELECT
            -- Never nothing: only answers can tell that there is more again.
            greatest(
                least(6, %(requests_per_minute)s::double precision),
                least(%(requests_per_minute)s::double precision, allowed.per_minute)
                * bisonsync_private.slow_share(b.slow_factor, b.slowed_at)
            ) AS per_minute,
            coalesce(allowed.per_minute < %(requests_per_minute)s::integer, false) AS is_bound
    ) AS r
WHERE b.bison_instance = %(instance)s::text
FOR UPDATE OF b;

-- name: set_budget
-- Stores what is left after a grant.
UPDATE rate_budgets
SET
    tokens = %(tokens)s::double precision,
    refilled_at = clock_timestamp(),
    requests_per_minute = %(requests_per_minute)s::integer
WHERE bison_instance = %(instance)s::text;

-- name: give_back
-- Returns tokens that were taken and not spent.
UPDATE rate_budgets
SET tokens = least(requests_per_minute, tokens + %(tokens)s::integer)
WHERE bison_instance = %(instance)s::text;

-- name: block_budget
-- The API said 429: nobody asks for so long, and then at the steady rate, without a burst. The second in a row, after
-- the pause of the first and without an answer between, halves the rate (to an eighth at last), which rises again slowly.
UPDATE rate_budgets AS b
SET
    blocked_until = greatest(b.blocked_until, p.ends_at),
    tokens = 0,
    refilled_at = greatest(b.refilled_at, p.ends_at),
    limited_at = clock_timestamp(),
    slow_factor = CASE
        WHEN p.is_second THEN greatest(0.125, bisonsync_private.slow_share(b.slow_factor, b.slowed_at) / 2)
        ELSE bisonsync_private.slow_share(b.slow_factor, b.slowed_at)
    END,
    slowed_at = greatest(b.slowed_at, p.ends_at)
FROM (
    SELECT
        o.bison_instance,
        clock_timestamp() + make_interval(secs => %(seconds)s::double precision) AS ends_at,
        o.limited_at IS NOT NULL AND coalesce(o.blocked_until < clock_timestamp(), true) AS is_second
    FROM rate_budgets AS o
    WHERE o.bison_instance = %(instance)s::text
    FOR UPDATE
) AS p
WHERE b.bison_instance = p.bison_instance;

-- name: list_rates
-- What is known of the rate of each instance: told, used by other programs, left by 429s; locks nothing.
SELECT
    b.bison_instance,
    b.requests_per_minute,
    CASE WHEN b.told_at > clock_timestamp() - interval '10 minutes' THEN b.limit_told END AS limit_told,
    bisonsync_private.foreign_rate(b.foreign_per_minute, b.foreign_at) AS foreign_per_minute,
    bisonsync_private.slow_share(b.slow_factor, b.slowed_at) AS slow_share
FROM rate_budgets AS b
ORDER BY b.bison_instance;
