-- How the warm-up of every sender email goes.

CREATE TABLE public.sender_email_warmup (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    bison_account_id bigint NOT NULL,
    workspace_name text,
    warmup_score numeric,
    warmup_emails_sent bigint,
    warmup_replies_received bigint,
    warmup_emails_saved_from_spam bigint,
    warmup_bounces_received_count bigint,
    warmup_bounces_caused_count bigint,
    warmup_disabled_for_bouncing_count bigint,
    warmup_daily_limit bigint,
    warmup_enabled boolean,
    window_start date,
    window_end date,
    extra jsonb NOT NULL DEFAULT '{}',
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bison_instance, bison_workspace_id, bison_account_id)
) WITH (fillfactor = 90);

ALTER TABLE public.sender_email_warmup ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.sender_email_warmup IS
    'Warm-up figures of every sender email over the days from window_start to window_end, as the API tells them. An account that a host no longer lists keeps its last figures; whether it is still there is in sender_emails_cache.';
COMMENT ON INDEX public.sender_email_warmup_pkey IS 'Key; the merge of a poll reads one workspace by its first two columns.';
COMMENT ON COLUMN public.sender_email_warmup.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.sender_email_warmup.bison_workspace_id IS 'Workspace it was read in.';
COMMENT ON COLUMN public.sender_email_warmup.bison_account_id IS 'The account''s id at its instance, as in sender_emails_cache.';
COMMENT ON COLUMN public.sender_email_warmup.workspace_name IS 'Name of the workspace, trimmed; for reading only, never a key.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_score IS 'Warm-up score, 0 to 100; null: not told.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_emails_sent IS 'Warm-up mails sent in the window.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_replies_received IS 'Replies to warm-up mails in the window.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_emails_saved_from_spam IS 'Warm-up mails that were taken out of spam folders in the window.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_bounces_received_count IS 'Bounces that the account received in the window.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_bounces_caused_count IS 'Bounces that the account caused in the window.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_disabled_for_bouncing_count IS 'How often warm-up was switched off for bounces in the window.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_daily_limit IS 'Warm-up mails per day that the account may send; null: not told.';
COMMENT ON COLUMN public.sender_email_warmup.warmup_enabled IS 'Whether warm-up is on; null: not told.';
COMMENT ON COLUMN public.sender_email_warmup.window_start IS 'First day that the figures stand for.';
COMMENT ON COLUMN public.sender_email_warmup.window_end IS 'Last day that the figures stand for.';
COMMENT ON COLUMN public.sender_email_warmup.extra IS 'Fields of the API that have no column, without secrets.';
COMMENT ON COLUMN public.sender_email_warmup.first_seen_at IS 'When we first knew of it.';
COMMENT ON COLUMN public.sender_email_warmup.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.sender_email_warmup.updated_at IS 'When the row last took new values.';
