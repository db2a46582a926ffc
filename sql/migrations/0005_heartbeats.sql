-- How the dead-man pings fare: what watches for our silence must itself be heard to be deaf.

CREATE TABLE public.heartbeats (
    job text NOT NULL,
    host text NOT NULL,
    last_attempt_at timestamptz NOT NULL,
    last_ok_at timestamptz,
    last_error text,
    PRIMARY KEY (job, host)
) WITH (fillfactor = 50);

ALTER TABLE public.heartbeats ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.heartbeats IS
    'How the dead-man ping at the end of each job fared, one row per job and host; never the address that is pinged.';
COMMENT ON INDEX public.heartbeats_pkey IS 'Key; each ping updates its row.';
COMMENT ON COLUMN public.heartbeats.job IS 'Name of the command.';
COMMENT ON COLUMN public.heartbeats.host IS 'Host that pinged.';
COMMENT ON COLUMN public.heartbeats.last_attempt_at IS 'When the end of a run was last told, or should have been.';
COMMENT ON COLUMN public.heartbeats.last_ok_at IS 'When that last arrived; null: never yet.';
COMMENT ON COLUMN public.heartbeats.last_error IS 'Why the last one did not arrive; null: it did.';
