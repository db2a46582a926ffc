CREATE OR REPLACE FUNCTION bisonsync_private.slow_share(slow_factor double precision, slowed_at timestamptz)
RETURNS double precision
LANGUAGE sql
STABLE
AS $$
    SELECT least(
        1.0,
        slow_factor + greatest(0, extract(epoch FROM statement_timestamp() - slowed_at)::double precision) / 1200
    )
$$;

COMMENT ON FUNCTION bisonsync_private.slow_share(double precision, timestamptz) IS
    'Share of its rate that 429s leave an instance at this moment: it rises by 5 % of the rate a minute once the last pause is over.';
