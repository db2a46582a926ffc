-- What is kept of each day: the counters of every account, which workspaces were seen, and the totals per provider.

CREATE TABLE public.sender_email_daily (
    snapshot_date date NOT NULL,
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    bison_account_id bigint NOT NULL,
    emails_sent_count bigint NOT NULL DEFAULT 0,
    total_replied_count bigint NOT NULL DEFAULT 0,
    unique_replied_count bigint NOT NULL DEFAULT 0,
    total_opened_count bigint NOT NULL DEFAULT 0,
    unique_opened_count bigint NOT NULL DEFAULT 0,
    bounced_count bigint NOT NULL DEFAULT 0,
    unsubscribed_count bigint NOT NULL DEFAULT 0,
    interested_leads_count bigint NOT NULL DEFAULT 0,
    total_leads_contacted_count bigint NOT NULL DEFAULT 0,
    email_provider text NOT NULL DEFAULT 'Unknown',
    reseller text,
    domain text,
    is_connected boolean NOT NULL DEFAULT false,
    daily_limit bigint,
    volume_per_account numeric,
    price numeric,
    created_on date,
    source text NOT NULL DEFAULT 'poll' CHECK (source IN ('poll', 'forced', 'api')),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (snapshot_date, bison_instance, bison_workspace_id, bison_account_id)
) PARTITION BY RANGE (snapshot_date);

ALTER TABLE public.sender_email_daily ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.sender_email_daily IS
    'The lifetime counters of every account as last seen on each day of the reporting zone, a partition a month. The figures of a period are differences of these rows.';
COMMENT ON INDEX public.sender_email_daily_pkey IS
    'Key, the day first: a window reads a range of days, a snapshot one workspace''s rows of one day.';
COMMENT ON COLUMN public.sender_email_daily.snapshot_date IS 'The day, in the reporting zone, on which the counters were read.';
COMMENT ON COLUMN public.sender_email_daily.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.sender_email_daily.bison_workspace_id IS 'Workspace the account was in; a moved account starts anew in its new workspace.';
COMMENT ON COLUMN public.sender_email_daily.bison_account_id IS 'The account''s id at its instance.';
COMMENT ON COLUMN public.sender_email_daily.emails_sent_count IS 'Mails sent in the account''s life.';
COMMENT ON COLUMN public.sender_email_daily.total_replied_count IS 'Replies received in the account''s life.';
COMMENT ON COLUMN public.sender_email_daily.unique_replied_count IS 'Leads that replied at least once.';
COMMENT ON COLUMN public.sender_email_daily.total_opened_count IS 'Opens in the account''s life.';
COMMENT ON COLUMN public.sender_email_daily.unique_opened_count IS 'Leads that opened at least once.';
COMMENT ON COLUMN public.sender_email_daily.bounced_count IS 'Mails that bounced in the account''s life.';
COMMENT ON COLUMN public.sender_email_daily.unsubscribed_count IS 'Leads that unsubscribed.';
COMMENT ON COLUMN public.sender_email_daily.interested_leads_count IS 'Leads marked interested.';
COMMENT ON COLUMN public.sender_email_daily.total_leads_contacted_count IS 'Leads contacted.';
COMMENT ON COLUMN public.sender_email_daily.email_provider IS 'Provider as of that day.';
COMMENT ON COLUMN public.sender_email_daily.reseller IS 'Reseller as of that day; null: none matched.';
COMMENT ON COLUMN public.sender_email_daily.domain IS 'Part of the address after the @.';
COMMENT ON COLUMN public.sender_email_daily.is_connected IS 'Whether the account was connected when last seen on that day.';
COMMENT ON COLUMN public.sender_email_daily.daily_limit IS 'Mails per day the account might send.';
COMMENT ON COLUMN public.sender_email_daily.volume_per_account IS 'Mails per day the account was meant to carry.';
COMMENT ON COLUMN public.sender_email_daily.price IS 'Monthly price as of that day.';
COMMENT ON COLUMN public.sender_email_daily.created_on IS
    'Day, in the reporting zone, on which the platform made the account: its counters then count from zero.';
COMMENT ON COLUMN public.sender_email_daily.source IS
    'poll: from a fresh and complete read; forced: from one that was not; api: filled in later from the platform''s daily numbers.';
COMMENT ON COLUMN public.sender_email_daily.recorded_at IS 'When the row was made or last took new values.';


CREATE TABLE public.workspace_snapshots (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    snapshot_date date NOT NULL,
    accounts bigint NOT NULL,
    is_complete boolean NOT NULL,
    source text NOT NULL DEFAULT 'poll' CHECK (source IN ('poll', 'forced', 'api')),
    read_at timestamptz,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bison_instance, bison_workspace_id, snapshot_date)
);

ALTER TABLE public.workspace_snapshots ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.workspace_snapshots IS
    'Which days of which workspace are in sender_email_daily, also of one without accounts: a day that is missing here is a gap.';
COMMENT ON INDEX public.workspace_snapshots_pkey IS 'Key; the gaps of a workspace and the ends of a window are looked up by it.';
COMMENT ON COLUMN public.workspace_snapshots.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.workspace_snapshots.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.workspace_snapshots.snapshot_date IS 'The day, in the reporting zone.';
COMMENT ON COLUMN public.workspace_snapshots.accounts IS 'How many accounts the last read of that day showed.';
COMMENT ON COLUMN public.workspace_snapshots.is_complete IS 'Whether that read was complete and fresh.';
COMMENT ON COLUMN public.workspace_snapshots.source IS 'As in sender_email_daily.';
COMMENT ON COLUMN public.workspace_snapshots.read_at IS 'When the read of these figures began; null: none, they were filled in.';
COMMENT ON COLUMN public.workspace_snapshots.recorded_at IS 'When the row was made or last took new values.';


CREATE TABLE public.provider_performance_history (
    bison_instance text NOT NULL,
    email_provider text NOT NULL,
    snapshot_date date NOT NULL,
    total_accounts bigint NOT NULL,
    active_accounts bigint NOT NULL,
    total_sent bigint NOT NULL,
    total_replies bigint NOT NULL,
    unique_replies bigint NOT NULL,
    total_bounces bigint NOT NULL,
    avg_reply_rate numeric,
    avg_emails_per_account numeric,
    total_daily_limit bigint NOT NULL,
    total_volume_capacity numeric NOT NULL,
    utilization_percentage numeric,
    is_complete boolean NOT NULL,
    sent_1d bigint NOT NULL,
    unique_replies_1d bigint NOT NULL,
    bounces_1d bigint NOT NULL,
    reply_rate_1d numeric,
    bounce_rate_1d numeric,
    sent_7d bigint NOT NULL,
    unique_replies_7d bigint NOT NULL,
    bounces_7d bigint NOT NULL,
    reply_rate_7d numeric,
    bounce_rate_7d numeric,
    sent_30d bigint NOT NULL,
    unique_replies_30d bigint NOT NULL,
    bounces_30d bigint NOT NULL,
    reply_rate_30d numeric,
    bounce_rate_30d numeric,
    gaps_1d integer NOT NULL DEFAULT 0,
    gaps_7d integer NOT NULL DEFAULT 0,
    gaps_30d integer NOT NULL DEFAULT 0,
    resets integer NOT NULL DEFAULT 0,
    falling_counters integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (email_provider, bison_instance, snapshot_date)
);

ALTER TABLE public.provider_performance_history ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.provider_performance_history IS
    'Totals and trailing windows per provider, instance and day, computed from sender_email_daily alone. A row changes only when its figures do.';
COMMENT ON INDEX public.provider_performance_history_pkey IS 'Key; a dashboard reads a provider''s days by it.';
COMMENT ON COLUMN public.provider_performance_history.bison_instance IS 'The instance.';
COMMENT ON COLUMN public.provider_performance_history.email_provider IS 'The provider; Unknown for accounts of which it is not known.';
COMMENT ON COLUMN public.provider_performance_history.snapshot_date IS 'The day, in the reporting zone.';
COMMENT ON COLUMN public.provider_performance_history.total_accounts IS 'Accounts seen on that day; 0 for a provider whose accounts are gone while a window still holds their mails.';
COMMENT ON COLUMN public.provider_performance_history.active_accounts IS 'Those that were connected.';
COMMENT ON COLUMN public.provider_performance_history.total_sent IS 'Sum of emails_sent_count, over the accounts'' whole lives.';
COMMENT ON COLUMN public.provider_performance_history.total_replies IS 'Sum of total_replied_count.';
COMMENT ON COLUMN public.provider_performance_history.unique_replies IS 'Sum of unique_replied_count.';
COMMENT ON COLUMN public.provider_performance_history.total_bounces IS 'Sum of bounced_count.';
COMMENT ON COLUMN public.provider_performance_history.avg_reply_rate IS '100 x unique_replies / total_sent; null when nothing was sent.';
COMMENT ON COLUMN public.provider_performance_history.avg_emails_per_account IS 'total_sent / total_accounts; null without accounts.';
COMMENT ON COLUMN public.provider_performance_history.total_daily_limit IS 'Sum of daily_limit of the connected accounts.';
COMMENT ON COLUMN public.provider_performance_history.total_volume_capacity IS 'Sum of volume_per_account.';
COMMENT ON COLUMN public.provider_performance_history.utilization_percentage IS '100 x total_daily_limit / total_volume_capacity; null without capacity.';
COMMENT ON COLUMN public.provider_performance_history.is_complete IS
    'Whether every active workspace of the instance was read completely and freshly for that day.';
COMMENT ON COLUMN public.provider_performance_history.sent_1d IS 'Mails sent on that day.';
COMMENT ON COLUMN public.provider_performance_history.unique_replies_1d IS 'New unique replies of that day.';
COMMENT ON COLUMN public.provider_performance_history.bounces_1d IS 'Bounces of that day.';
COMMENT ON COLUMN public.provider_performance_history.reply_rate_1d IS '100 x unique_replies_1d / sent_1d; null when nothing was sent.';
COMMENT ON COLUMN public.provider_performance_history.bounce_rate_1d IS '100 x bounces_1d / sent_1d; null when nothing was sent.';
COMMENT ON COLUMN public.provider_performance_history.sent_7d IS 'Mails sent on that day and the six before.';
COMMENT ON COLUMN public.provider_performance_history.unique_replies_7d IS 'New unique replies of those 7 days.';
COMMENT ON COLUMN public.provider_performance_history.bounces_7d IS 'Bounces of those 7 days.';
COMMENT ON COLUMN public.provider_performance_history.reply_rate_7d IS '100 x unique_replies_7d / sent_7d; null when nothing was sent.';
COMMENT ON COLUMN public.provider_performance_history.bounce_rate_7d IS '100 x bounces_7d / sent_7d; null when nothing was sent.';
COMMENT ON COLUMN public.provider_performance_history.sent_30d IS 'Mails sent on that day and the 29 before.';
COMMENT ON COLUMN public.provider_performance_history.unique_replies_30d IS 'New unique replies of those 30 days.';
COMMENT ON COLUMN public.provider_performance_history.bounces_30d IS 'Bounces of those 30 days.';
COMMENT ON COLUMN public.provider_performance_history.reply_rate_30d IS '100 x unique_replies_30d / sent_30d; null when nothing was sent.';
COMMENT ON COLUMN public.provider_performance_history.bounce_rate_30d IS '100 x bounces_30d / sent_30d; null when nothing was sent.';
COMMENT ON COLUMN public.provider_performance_history.gaps_1d IS
    'Workspaces of the instance of which one end of the 1-day window was not recorded: what they sent is missing from it.';
COMMENT ON COLUMN public.provider_performance_history.gaps_7d IS 'The same of the 7-day window.';
COMMENT ON COLUMN public.provider_performance_history.gaps_30d IS 'The same of the 30-day window.';
COMMENT ON COLUMN public.provider_performance_history.resets IS 'Accounts whose sent counter fell since their row before, of the last 30 days: that day counts from zero.';
COMMENT ON COLUMN public.provider_performance_history.falling_counters IS 'Other counters that fell in the same way; each counts as no change.';
COMMENT ON COLUMN public.provider_performance_history.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.provider_performance_history.updated_at IS 'When its figures last changed.';
