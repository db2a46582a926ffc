CREATE OR REPLACE FUNCTION bisonsync_private.foreign_rate(per_minute double precision, measured_at timestamptz)
RETURNS double precision
LANGUAGE sql
STABLE
AS $$
    SELECT CASE WHEN measured_at > statement_timestamp() - interval '10 minutes' THEN per_minute ELSE 0.0 END
$$;

COMMENT ON FUNCTION bisonsync_private.foreign_rate(double precision, timestamptz) IS
    'Requests a minute of other programs on the same key, as far as measured in the last 10 minutes.';
