-- The mirror of the campaigns of every workspace.

CREATE TABLE public.campaigns_cache (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    bison_campaign_id bigint NOT NULL,
    workspace_name text,
    uuid text,
    sequence_id bigint,
    name text,
    type text,
    status text,
    completion_percentage numeric,
    emails_sent bigint,
    opened bigint,
    unique_opens bigint,
    replied bigint,
    unique_replies bigint,
    bounced bigint,
    unsubscribed bigint,
    interested bigint,
    total_leads_contacted bigint,
    total_leads bigint,
    max_emails_per_day bigint,
    max_new_leads_per_day bigint,
    daily_max_sends_per_receiving_domain bigint,
    plain_text boolean,
    open_tracking boolean,
    sequence_prioritization text,
    can_unsubscribe boolean,
    unsubscribe_text text,
    include_auto_replies_in_stats boolean,
    tags jsonb NOT NULL DEFAULT '[]',
    extra jsonb NOT NULL DEFAULT '{}',
    bison_created_at timestamptz,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz,
    PRIMARY KEY (bison_instance, bison_workspace_id, bison_campaign_id)
) WITH (fillfactor = 90);

ALTER TABLE public.campaigns_cache ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.campaigns_cache IS
    'Mirror of the campaigns of every workspace, removed ones included (removed_at). Counters are lifetime totals; null: the host never told. A row is written only when something about it changed; when its workspace was last read is in workspace_sync_state.';
COMMENT ON INDEX public.campaigns_cache_pkey IS 'Key; the merge of a poll reads one workspace by its first two columns.';
COMMENT ON COLUMN public.campaigns_cache.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.campaigns_cache.bison_workspace_id IS 'Workspace it was read in.';
COMMENT ON COLUMN public.campaigns_cache.bison_campaign_id IS 'The campaign''s id at its instance.';
COMMENT ON COLUMN public.campaigns_cache.workspace_name IS 'Name of the workspace, trimmed; for reading only, never a key.';
COMMENT ON COLUMN public.campaigns_cache.uuid IS 'The campaign''s second id at its instance.';
COMMENT ON COLUMN public.campaigns_cache.sequence_id IS 'The sequence of mails that it sends.';
COMMENT ON COLUMN public.campaigns_cache.name IS 'Name, trimmed; not unique.';
COMMENT ON COLUMN public.campaigns_cache.type IS 'Kind of campaign in the API''s own words: outbound, reply_followup.';
COMMENT ON COLUMN public.campaigns_cache.status IS 'Status in the API''s own words; hosts differ in case.';
COMMENT ON COLUMN public.campaigns_cache.completion_percentage IS 'How far the campaign is by the platform''s own account.';
COMMENT ON COLUMN public.campaigns_cache.emails_sent IS 'Mails sent in the campaign''s life; null: the host never told.';
COMMENT ON COLUMN public.campaigns_cache.opened IS 'Opens; stays 0 while open_tracking is off.';
COMMENT ON COLUMN public.campaigns_cache.unique_opens IS 'Leads that opened at least once; stays 0 while open_tracking is off.';
COMMENT ON COLUMN public.campaigns_cache.replied IS 'Replies.';
COMMENT ON COLUMN public.campaigns_cache.unique_replies IS 'Leads that replied at least once.';
COMMENT ON COLUMN public.campaigns_cache.bounced IS 'Mails that bounced.';
COMMENT ON COLUMN public.campaigns_cache.unsubscribed IS 'Leads that unsubscribed.';
COMMENT ON COLUMN public.campaigns_cache.interested IS 'Leads marked interested, as the platform counts them per campaign.';
COMMENT ON COLUMN public.campaigns_cache.total_leads_contacted IS 'Leads contacted.';
COMMENT ON COLUMN public.campaigns_cache.total_leads IS 'Leads in the campaign.';
COMMENT ON COLUMN public.campaigns_cache.max_emails_per_day IS 'Mails per day that it may send; null: no limit told.';
COMMENT ON COLUMN public.campaigns_cache.max_new_leads_per_day IS 'New leads per day that it may contact; null: no limit told.';
COMMENT ON COLUMN public.campaigns_cache.daily_max_sends_per_receiving_domain IS 'Mails per day to one receiving domain; null: no limit told.';
COMMENT ON COLUMN public.campaigns_cache.plain_text IS 'Whether mails go out as plain text.';
COMMENT ON COLUMN public.campaigns_cache.open_tracking IS 'Whether opens are tracked.';
COMMENT ON COLUMN public.campaigns_cache.sequence_prioritization IS 'What goes first in the API''s own words: followups, new_leads.';
COMMENT ON COLUMN public.campaigns_cache.can_unsubscribe IS 'Whether mails carry a way to unsubscribe.';
COMMENT ON COLUMN public.campaigns_cache.unsubscribe_text IS 'Its text.';
COMMENT ON COLUMN public.campaigns_cache.include_auto_replies_in_stats IS 'Whether automatic replies count as replies.';
COMMENT ON COLUMN public.campaigns_cache.tags IS 'Tags as the API gives them.';
COMMENT ON COLUMN public.campaigns_cache.extra IS 'Fields of the API that have no column, without secrets.';
COMMENT ON COLUMN public.campaigns_cache.bison_created_at IS 'When the platform made the campaign.';
COMMENT ON COLUMN public.campaigns_cache.first_seen_at IS 'When we first knew of it.';
COMMENT ON COLUMN public.campaigns_cache.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.campaigns_cache.updated_at IS 'When the row last took new values.';
COMMENT ON COLUMN public.campaigns_cache.removed_at IS 'Since when the campaign is gone from its workspace; null: present.';
