CREATE OR REPLACE VIEW public.email_accounts_live WITH (security_invoker = true) AS
SELECT
    s.id,
    s.bison_instance,
    s.bison_workspace_id,
    coalesce(r.workspace_name, s.workspace_name) AS workspace_name,
    s.bison_account_id,
    s.email_address,
    s.account_name,
    s.domain,
    s.emails_sent_count,
    s.total_replied_count,
    s.unique_replied_count,
    s.total_opened_count,
    s.unique_opened_count,
    s.bounced_count,
    s.unsubscribed_count,
    s.interested_leads_count,
    s.total_leads_contacted_count,
    s.reply_rate_percentage,
    s.status,
    s.is_connected,
    s.status_as_of,
    s.daily_limit,
    s.warmup_enabled,
    s.warmup_score,
    s.account_type,
    s.email_provider,
    s.reseller,
    s.price,
    s.volume_per_account,
    s.tags,
    s.extra,
    s.bison_created_at,
    s.first_seen_at,
    s.created_at,
    s.updated_at,
    y.last_complete_at AS last_synced_at
FROM public.sender_emails_cache AS s
INNER JOIN public.workspace_sync_state AS y
    ON y.bison_instance = s.bison_instance AND y.bison_workspace_id = s.bison_workspace_id AND y.resource = 'accounts'
LEFT JOIN public.client_registry AS r
    ON r.bison_instance = s.bison_instance AND r.bison_workspace_id = s.bison_workspace_id
WHERE s.removed_at IS NULL AND y.last_complete_at >= now() - interval '2 hours';

COMMENT ON VIEW public.email_accounts_live IS
    'The accounts present in workspaces that were read completely within the last 2 hours; kept for old callers. It gets empty when reading stops: infrastructure_dashboard shows the rows whatever their age.';
COMMENT ON COLUMN public.email_accounts_live.id IS 'Our own id of the row.';
COMMENT ON COLUMN public.email_accounts_live.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.email_accounts_live.bison_workspace_id IS 'Workspace the account was read in; part of the key, for the same mailbox can be in two.';
COMMENT ON COLUMN public.email_accounts_live.workspace_name IS 'Name of the workspace.';
COMMENT ON COLUMN public.email_accounts_live.bison_account_id IS 'The account''s id at its instance.';
COMMENT ON COLUMN public.email_accounts_live.email_address IS 'Mail address in lower case; not unique.';
COMMENT ON COLUMN public.email_accounts_live.account_name IS 'Name of the sender as recipients see it.';
COMMENT ON COLUMN public.email_accounts_live.domain IS 'Part of the address after the @.';
COMMENT ON COLUMN public.email_accounts_live.emails_sent_count IS 'Mails sent in the account''s life.';
COMMENT ON COLUMN public.email_accounts_live.total_replied_count IS 'Replies received in the account''s life.';
COMMENT ON COLUMN public.email_accounts_live.unique_replied_count IS 'Leads that replied at least once.';
COMMENT ON COLUMN public.email_accounts_live.total_opened_count IS 'Opens in the account''s life.';
COMMENT ON COLUMN public.email_accounts_live.unique_opened_count IS 'Leads that opened at least once.';
COMMENT ON COLUMN public.email_accounts_live.bounced_count IS 'Mails that bounced in the account''s life.';
COMMENT ON COLUMN public.email_accounts_live.unsubscribed_count IS 'Leads that unsubscribed.';
COMMENT ON COLUMN public.email_accounts_live.interested_leads_count IS 'Leads marked interested.';
COMMENT ON COLUMN public.email_accounts_live.total_leads_contacted_count IS 'Leads contacted.';
COMMENT ON COLUMN public.email_accounts_live.reply_rate_percentage IS '100 x unique_replied_count / emails_sent_count; 0 when nothing was sent; can exceed 100.';
COMMENT ON COLUMN public.email_accounts_live.status IS 'Connection status in the API''s own words.';
COMMENT ON COLUMN public.email_accounts_live.is_connected IS 'Whether status says connected, in any case.';
COMMENT ON COLUMN public.email_accounts_live.status_as_of IS 'Moment for which status is known: a read that began earlier does not change it.';
COMMENT ON COLUMN public.email_accounts_live.daily_limit IS 'Mails per day the account may send.';
COMMENT ON COLUMN public.email_accounts_live.warmup_enabled IS 'Whether warm-up is on; null: not known.';
COMMENT ON COLUMN public.email_accounts_live.warmup_score IS 'Warm-up score; null: not known.';
COMMENT ON COLUMN public.email_accounts_live.account_type IS 'Kind of account in the API''s own words.';
COMMENT ON COLUMN public.email_accounts_live.email_provider IS 'Provider by configured tag, account type or mail host; Unknown when none tells.';
COMMENT ON COLUMN public.email_accounts_live.reseller IS 'Reseller by configured tag substring; null: none matched.';
COMMENT ON COLUMN public.email_accounts_live.price IS 'Monthly price: email_account_metadata, else the default of provider and reseller.';
COMMENT ON COLUMN public.email_accounts_live.volume_per_account IS 'Mails per day the account is meant to carry: email_account_metadata, else the default of provider and reseller.';
COMMENT ON COLUMN public.email_accounts_live.tags IS 'Tags as the API gives them.';
COMMENT ON COLUMN public.email_accounts_live.extra IS 'Fields of the API that have no column, without secrets.';
COMMENT ON COLUMN public.email_accounts_live.bison_created_at IS 'When the platform made the account.';
COMMENT ON COLUMN public.email_accounts_live.first_seen_at IS 'When we first knew of the account, by read or event.';
COMMENT ON COLUMN public.email_accounts_live.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.email_accounts_live.updated_at IS 'When the row last took new values.';
COMMENT ON COLUMN public.email_accounts_live.last_synced_at IS 'The workspace''s last complete read.';
