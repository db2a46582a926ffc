CREATE OR REPLACE FUNCTION public.fall_p_value(
    recent_sent bigint,
    recent_replies bigint,
    previous_sent bigint,
    previous_replies bigint
)
RETURNS double precision
LANGUAGE plpgsql
IMMUTABLE
STRICT
PARALLEL SAFE
AS $$
DECLARE
    -- Fisher's exact test. Of all replies, so many in the recent window and fewer; each number's chance follows from its
    -- neighbour's, so that neither a distribution function nor factorials are needed. The usual z would alarm falsely in
    -- up to 6 % of small windows, this in 5 % at most, whatever their sizes.
    n double precision := recent_sent;
    x double precision := least(recent_replies, recent_sent);
    rest double precision := previous_sent - x - least(previous_replies, previous_sent);
    replies double precision := x + least(previous_replies, previous_sent);
    -- Chances of fewer and of more replies than x, in units of that of exactly x.
    fewer double precision := 0;
    more double precision := 0;
    term double precision := 1;
    k double precision := x;
BEGIN
    WHILE k > 0 AND rest + k > 0 AND term > 1e-17 * (1 + fewer) AND fewer < 1e250 LOOP
        term := term * k * (rest + k) / ((n - k + 1) * (replies - k + 1));
        fewer := fewer + term;
        k := k - 1;
    END LOOP;
    term := 1;
    k := x;
    WHILE k < least(n, replies) AND term > 1e-17 * (1 + more) AND more < 1e250 LOOP
        term := term * (replies - k) * (n - k) / ((k + 1) * (rest + k + 1));
        more := more + term;
        k := k + 1;
    END LOOP;
    RETURN (1 + fewer) / (1 + fewer + more);
END
$$;

COMMENT ON FUNCTION public.fall_p_value(bigint, bigint, bigint, bigint) IS
    'How probable it is that a reply rate that did not fall shows so few replies in the recent window, or fewer, by chance (Fisher''s exact test, one-sided). More replies than mails count as one each.';
