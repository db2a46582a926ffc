-- What the answers of an instance tell of its rate: how much of it others use, and how far 429s have slowed us down.

ALTER TABLE public.rate_budgets
    ADD COLUMN limit_told integer,
    ADD COLUMN remaining_told integer,
    ADD COLUMN told_at timestamptz,
    ADD COLUMN window_remaining integer,
    ADD COLUMN window_at timestamptz,
    ADD COLUMN window_sent bigint NOT NULL DEFAULT 0,
    ADD COLUMN foreign_per_minute double precision,
    ADD COLUMN foreign_at timestamptz,
    ADD COLUMN limited_at timestamptz,
    ADD COLUMN slow_factor double precision NOT NULL DEFAULT 1,
    ADD COLUMN slowed_at timestamptz;

COMMENT ON COLUMN public.rate_budgets.limit_told IS 'Requests a minute that the API says the key may send (x-ratelimit-limit).';
COMMENT ON COLUMN public.rate_budgets.remaining_told IS 'Requests that the newest answer said are left in its minute (x-ratelimit-remaining).';
COMMENT ON COLUMN public.rate_budgets.told_at IS 'When it said so.';
COMMENT ON COLUMN public.rate_budgets.window_remaining IS 'What was left when the API''s present minute was first looked at.';
COMMENT ON COLUMN public.rate_budgets.window_at IS 'When it was.';
COMMENT ON COLUMN public.rate_budgets.window_sent IS 'Requests that all our processes have sent since.';
COMMENT ON COLUMN public.rate_budgets.foreign_per_minute IS 'Requests a minute that other programs send with the same key, as last measured.';
COMMENT ON COLUMN public.rate_budgets.foreign_at IS 'When that was measured.';
COMMENT ON COLUMN public.rate_budgets.limited_at IS 'When the API last said 429; null: it has answered since.';
COMMENT ON COLUMN public.rate_budgets.slow_factor IS 'Share of the rate that 429s have left us, as of slowed_at; it rises again with time.';
COMMENT ON COLUMN public.rate_budgets.slowed_at IS 'When a 429 last lowered that share, or its pause ends.';
