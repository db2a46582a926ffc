CREATE OR REPLACE VIEW public.bisonsync_lists WITH (security_invoker = true) AS
SELECT l.resource, l.job, l.table_name, l.default_interval_seconds, l.rest_seconds, l.is_required
FROM (
    VALUES
    ('accounts', 'poll-accounts', 'sender_emails_cache', 180, 0, true),
    ('campaigns', 'poll-campaigns', 'campaigns_cache', 600, 0, false),
    ('warmup', 'poll-warmup', 'sender_email_warmup', 21600, 21600, false),
    ('events', 'pull-events', 'webhook_delivery_log', 900, 0, false)
) AS l (resource, job, table_name, default_interval_seconds, rest_seconds, is_required);

COMMENT ON VIEW public.bisonsync_lists IS
    'The lists that are read of each workspace. Freshness, completeness and health know them from here: a new one is a line.';
COMMENT ON COLUMN public.bisonsync_lists.resource IS 'The list, as workspace_sync_state and the ledger name it.';
COMMENT ON COLUMN public.bisonsync_lists.job IS 'The job that reads it.';
COMMENT ON COLUMN public.bisonsync_lists.table_name IS 'Where its rows go.';
COMMENT ON COLUMN public.bisonsync_lists.default_interval_seconds IS 'How often it is meant to be read, until a run has said so.';
COMMENT ON COLUMN public.bisonsync_lists.rest_seconds IS
    'How long its job leaves alone what was read completely, however often it comes.';
COMMENT ON COLUMN public.bisonsync_lists.is_required IS
    'Whether it is missed where it was never read. Any other is in use from the first time that somebody tried.';
