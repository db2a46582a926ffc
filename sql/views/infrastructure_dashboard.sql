CREATE OR REPLACE VIEW public.infrastructure_dashboard WITH (security_invoker = true) AS
SELECT
    s.id,
    s.bison_instance,
    s.bison_workspace_id,
    coalesce(r.workspace_name, s.workspace_name) AS workspace_name,
    coalesce(r.display_name, r.workspace_name, s.workspace_name) AS client_name,
    r.is_active AS workspace_is_active,
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
    y.last_complete_at AS as_of,
    coalesce(y.verdict = 'complete' AND y.last_complete_at IS NOT NULL, false) AS is_complete,
    coalesce(abs(extract(epoch FROM now() - y.last_complete_at)) > y.interval_seconds, true) AS is_stale
FROM public.sender_emails_cache AS s
LEFT JOIN public.workspace_sync_state AS y
    ON y.bison_instance = s.bison_instance AND y.bison_workspace_id = s.bison_workspace_id AND y.resource = 'accounts'
LEFT JOIN public.client_registry AS r
    ON r.bison_instance = s.bison_instance AND r.bison_workspace_id = s.bison_workspace_id
WHERE s.removed_at IS NULL;

COMMENT ON VIEW public.infrastructure_dashboard IS
    'The accounts present in every workspace, whatever their age, with what is known about that age.';
COMMENT ON COLUMN public.infrastructure_dashboard.id IS 'Our own id of the row.';
COMMENT ON COLUMN public.infrastructure_dashboard.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.infrastructure_dashboard.bison_workspace_id IS 'Workspace the account was read in; part of the key, for the same mailbox can be in two.';
COMMENT ON COLUMN public.infrastructure_dashboard.workspace_name IS 'Name of the workspace.';
COMMENT ON COLUMN public.infrastructure_dashboard.client_name IS 'Name to show to people.';
COMMENT ON COLUMN public.infrastructure_dashboard.workspace_is_active IS 'Whether the jobs read the workspace; null if it is not in the registry.';
COMMENT ON COLUMN public.infrastructure_dashboard.bison_account_id IS 'The account''s id at its instance.';
COMMENT ON COLUMN public.infrastructure_dashboard.email_address IS 'Mail address in lower case; not unique.';
COMMENT ON COLUMN public.infrastructure_dashboard.account_name IS 'Name of the sender as recipients see it.';
COMMENT ON COLUMN public.infrastructure_dashboard.domain IS 'Part of the address after the @.';
COMMENT ON COLUMN public.infrastructure_dashboard.emails_sent_count IS 'Mails sent in the account''s life.';
COMMENT ON COLUMN public.infrastructure_dashboard.total_replied_count IS 'Replies received in the account''s life.';
COMMENT ON COLUMN public.infrastructure_dashboard.unique_replied_count IS 'Leads that replied at least once.';
COMMENT ON COLUMN public.infrastructure_dashboard.total_opened_count IS 'Opens in the account''s life.';
COMMENT ON COLUMN public.infrastructure_dashboard.unique_opened_count IS 'Leads that opened at least once.';
COMMENT ON COLUMN public.infrastructure_dashboard.bounced_count IS 'Mails that bounced in the account''s life.';
COMMENT ON COLUMN public.infrastructure_dashboard.unsubscribed_count IS 'Leads that unsubscribed.';
COMMENT ON COLUMN public.infrastructure_dashboard.interested_leads_count IS 'Leads marked interested.';
COMMENT ON COLUMN public.infrastructure_dashboard.total_leads_contacted_count IS 'Leads contacted.';
COMMENT ON COLUMN public.infrastructure_dashboard.reply_rate_percentage IS '100 x unique_replied_count / emails_sent_count; 0 when nothing was sent; can exceed 100.';
COMMENT ON COLUMN public.infrastructure_dashboard.status IS 'Connection status in the API''s own words.';
COMMENT ON COLUMN public.infrastructure_dashboard.is_connected IS 'Whether status says connected, in any case.';
COMMENT ON COLUMN public.infrastructure_dashboard.status_as_of IS 'Moment for which status is known: a read that began earlier does not change it.';
COMMENT ON COLUMN public.infrastructure_dashboard.daily_limit IS 'Mails per day the account may send.';
COMMENT ON COLUMN public.infrastructure_dashboard.warmup_enabled IS 'Whether warm-up is on; null: not known.';
COMMENT ON COLUMN public.infrastructure_dashboard.warmup_score IS 'Warm-up score; null: not known.';
COMMENT ON COLUMN public.infrastructure_dashboard.account_type IS 'Kind of account in the API''s own words.';
COMMENT ON COLUMN public.infrastructure_dashboard.email_provider IS 'Provider by configured tag, account type or mail host; Unknown when none tells.';
COMMENT ON COLUMN public.infrastructure_dashboard.reseller IS 'Reseller by configured tag substring; null: none matched.';
COMMENT ON COLUMN public.infrastructure_dashboard.price IS 'Monthly price: email_account_metadata, else the default of provider and reseller.';
COMMENT ON COLUMN public.infrastructure_dashboard.volume_per_account IS 'Mails per day the account is meant to carry: email_account_metadata, else the default of provider and reseller.';
COMMENT ON COLUMN public.infrastructure_dashboard.tags IS 'Tags as the API gives them.';
COMMENT ON COLUMN public.infrastructure_dashboard.extra IS 'Fields of the API that have no column, without secrets.';
COMMENT ON COLUMN public.infrastructure_dashboard.bison_created_at IS 'When the platform made the account.';
COMMENT ON COLUMN public.infrastructure_dashboard.first_seen_at IS 'When we first knew of the account, by read or event.';
COMMENT ON COLUMN public.infrastructure_dashboard.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.infrastructure_dashboard.updated_at IS 'When the row last took new values.';
COMMENT ON COLUMN public.infrastructure_dashboard.as_of IS 'The workspace''s last complete read; null: never.';
COMMENT ON COLUMN public.infrastructure_dashboard.is_complete IS 'Whether the last attempt to read the workspace got the whole list and stored it.';
COMMENT ON COLUMN public.infrastructure_dashboard.is_stale IS 'Whether as_of is older than the interval at which the workspace is meant to be read, or null.';
