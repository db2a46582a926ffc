-- name: create_budget
-- Makes an instance's bucket, full: one minute's worth.
INSERT INTO rate_budgets (bison_instance, tokens, refilled_at, requests_per_minute)
VALUES (%(instance)s::text, %(requests_per_minute)s::integer, clock_timestamp(), %(requests_per_minute)s::integer)
ON CONFLICT DO NOTHING;

-- name: lock_budget
-- What an instance's bucket holds, refilled up to this moment, and for how long it is blocked; locks its row.
SELECT
    least(
        %(requests_per_minute)s::double precision,
        b.tokens
        + greatest(0, extract(epoch FROM clock_timestamp() - b.refilled_at)::double precision)
        * %(requests_per_minute)s::double precision / 60.0
    ) AS tokens,
    coalesce(greatest(0, extract(epoch FROM b.blocked_until - clock_timestamp())), 0)::double precision AS blocked_seconds
FROM rate_budgets AS b
WHERE b.bison_instance = %(instance)s::text
FOR UPDATE;

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
-- The API said 429: nobody asks for so long, and then at the steady rate, without a burst.
UPDATE rate_budgets
SET
    blocked_until = greatest(
        blocked_until, clock_timestamp() + make_interval(secs => %(seconds)s::double precision)
    ),
    tokens = 0,
    refilled_at = greatest(
        refilled_at, clock_timestamp() + make_interval(secs => %(seconds)s::double precision)
    )
WHERE bison_instance = %(instance)s::text;
