-- The inbox of webhooks, what its events did, and who may put something in.

CREATE SEQUENCE public.webhook_delivery_log_id_seq;

COMMENT ON SEQUENCE public.webhook_delivery_log_id_seq IS 'Makes webhook_delivery_log.id.';

CREATE TABLE public.webhook_delivery_log (
    id bigint NOT NULL DEFAULT nextval('public.webhook_delivery_log_id_seq'),
    received_at timestamptz NOT NULL DEFAULT now(),
    source text NOT NULL DEFAULT 'sql' CHECK (source IN ('receiver', 'sql', 'file', 'events', 'legacy')),
    event_type text,
    bison_instance text,
    bison_workspace_id bigint,
    workspace_name text,
    hook_instance text,
    hook_workspace_id bigint,
    occurred_at timestamptz,
    occurred_rule text,
    payload jsonb,
    payload_raw bytea,
    dedup_key text COLLATE "C",
    dedup_rule text,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN (
        'pending', 'processed', 'failed', 'dead', 'duplicate', 'ignored', 'test', 'unknown_workspace', 'mismatch'
    )),
    success boolean,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    error_message text,
    processing_time_ms double precision,
    processed_at timestamptz,
    processor_version integer,
    CONSTRAINT webhook_delivery_log_pkey PRIMARY KEY (id, received_at)
) PARTITION BY RANGE (received_at);

ALTER TABLE public.webhook_delivery_log ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.webhook_delivery_log IS
    'Every webhook delivery as it came, repeated ones included, with what became of it. Partitioned by the UTC day of received_at; a partition in whose time none was made ends in webhook_delivery_log_default. Never readable by dashboards: it holds mail addresses.';
COMMENT ON INDEX public.webhook_delivery_log_pkey IS 'Key; replay finds the chosen rows by it.';
COMMENT ON COLUMN public.webhook_delivery_log.id IS 'Order of arrival.';
COMMENT ON COLUMN public.webhook_delivery_log.received_at IS 'When the delivery came in.';
COMMENT ON COLUMN public.webhook_delivery_log.source IS 'receiver, sql (ingest_webhook), file (replay-webhooks --from), events (pull-events) or legacy (increment_metric).';
COMMENT ON COLUMN public.webhook_delivery_log.event_type IS 'Type of the event in lower case; null: none could be read.';
COMMENT ON COLUMN public.webhook_delivery_log.bison_instance IS 'Instance the event is from, as far as known.';
COMMENT ON COLUMN public.webhook_delivery_log.bison_workspace_id IS 'Workspace the event is from, as far as known.';
COMMENT ON COLUMN public.webhook_delivery_log.workspace_name IS 'Name of the workspace as the event tells it, trimmed.';
COMMENT ON COLUMN public.webhook_delivery_log.hook_instance IS 'Instance of the hook secret, or of the token it was pulled with; null: it came without one.';
COMMENT ON COLUMN public.webhook_delivery_log.hook_workspace_id IS 'Workspace of that secret or token.';
COMMENT ON COLUMN public.webhook_delivery_log.occurred_at IS 'When the event happened.';
COMMENT ON COLUMN public.webhook_delivery_log.occurred_rule IS 'Which part of the payload told occurred_at; received_at: none.';
COMMENT ON COLUMN public.webhook_delivery_log.payload IS 'The event: {event, data}, mail bodies replaced by length and hash unless they are to be kept. Null once pruned.';
COMMENT ON COLUMN public.webhook_delivery_log.payload_raw IS 'The bytes as they came, only where jsonb cannot hold them.';
COMMENT ON COLUMN public.webhook_delivery_log.dedup_key IS 'What makes two deliveries the same event; null until the workspace is known.';
COMMENT ON COLUMN public.webhook_delivery_log.dedup_rule IS 'Which rule made dedup_key.';
COMMENT ON COLUMN public.webhook_delivery_log.status IS 'pending, processed, failed (tried again at next_attempt_at), dead (never will be by itself), duplicate, ignored, test, unknown_workspace (waits for its registration) or mismatch (of another workspace than the secret: never applied).';
COMMENT ON COLUMN public.webhook_delivery_log.success IS 'Whether all is well with it: processed, duplicate, ignored and test are; failed, dead and mismatch are not; null: undecided.';
COMMENT ON COLUMN public.webhook_delivery_log.attempts IS 'How often it was tried to apply it.';
COMMENT ON COLUMN public.webhook_delivery_log.next_attempt_at IS 'When it is due; null: at once if pending, never otherwise.';
COMMENT ON COLUMN public.webhook_delivery_log.error_message IS 'Why it is not processed.';
COMMENT ON COLUMN public.webhook_delivery_log.processing_time_ms IS 'What applying it took; in a batch its share.';
COMMENT ON COLUMN public.webhook_delivery_log.processed_at IS 'When its status was last decided.';
COMMENT ON COLUMN public.webhook_delivery_log.processor_version IS 'Version of the rules that decided it.';


CREATE INDEX webhook_delivery_log_workspace ON public.webhook_delivery_log
(bison_instance, bison_workspace_id, received_at) INCLUDE (source, status, success);

COMMENT ON INDEX public.webhook_delivery_log_workspace IS
    'The deliveries of one workspace by time: "inbox list -w"; webhook_health and health count what was delivered to us, and how it fared, without its payloads.';

CREATE INDEX webhook_delivery_log_open ON public.webhook_delivery_log (status, next_attempt_at)
WHERE status IN ('pending', 'failed', 'dead', 'unknown_workspace', 'mismatch');

COMMENT ON INDEX public.webhook_delivery_log_open IS
    'What is not settled: replay takes what is due, health counts it. Settled deliveries, nearly all, are not in it.';

CREATE TABLE public.webhook_delivery_log_default PARTITION OF public.webhook_delivery_log DEFAULT;

ALTER TABLE public.webhook_delivery_log_default ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.webhook_delivery_log_default IS
    'Deliveries of days for which no partition was made in time, and those brought in from files of older days.';


CREATE TABLE public.webhook_event_keys (
    bison_instance text COLLATE "C" NOT NULL,
    bison_workspace_id bigint NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    dedup_key text COLLATE "C" NOT NULL,
    occurred_at timestamptz NOT NULL,
    delivery_id bigint NOT NULL,
    amount bigint NOT NULL DEFAULT 1,
    metric text COLLATE "C",
    PRIMARY KEY (bison_instance, bison_workspace_id, event_type, dedup_key)
);

ALTER TABLE public.webhook_event_keys ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.webhook_event_keys IS
    'The deduplicated log: one row for each event, kept longer than the deliveries. The webhook part of client_metrics is the sum of these rows.';
COMMENT ON INDEX public.webhook_event_keys_pkey IS 'Key; makes an event count once.';
COMMENT ON COLUMN public.webhook_event_keys.bison_instance IS 'Instance of the event.';
COMMENT ON COLUMN public.webhook_event_keys.bison_workspace_id IS 'Workspace of the event.';
COMMENT ON COLUMN public.webhook_event_keys.event_type IS 'Type in lower case.';
COMMENT ON COLUMN public.webhook_event_keys.dedup_key IS 'Kind of id and id, or the hash of the body and when its window began.';
COMMENT ON COLUMN public.webhook_event_keys.occurred_at IS 'When the event happened.';
COMMENT ON COLUMN public.webhook_event_keys.delivery_id IS 'The delivery that took effect; the others are its duplicates.';
COMMENT ON COLUMN public.webhook_event_keys.amount IS 'How much it counts.';
COMMENT ON COLUMN public.webhook_event_keys.metric IS 'The counter it counts in, as in client_metrics without suffix; null: none.';


CREATE TABLE public.client_metrics (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    metric_type text NOT NULL DEFAULT 'mtd' CHECK (metric_type = 'mtd'),
    metric_month date NOT NULL CHECK (extract(DAY FROM metric_month) = 1),
    as_of timestamptz,
    emails_sent_polled bigint,
    emails_sent_webhook bigint NOT NULL DEFAULT 0,
    emails_sent_after bigint NOT NULL DEFAULT 0,
    replies_polled bigint,
    replies_webhook bigint NOT NULL DEFAULT 0,
    replies_after bigint NOT NULL DEFAULT 0,
    interested_polled bigint,
    interested_webhook bigint NOT NULL DEFAULT 0,
    interested_after bigint NOT NULL DEFAULT 0,
    bounced_polled bigint,
    bounced_webhook bigint NOT NULL DEFAULT 0,
    bounced_after bigint NOT NULL DEFAULT 0,
    unsubscribed_polled bigint,
    unsubscribed_webhook bigint NOT NULL DEFAULT 0,
    unsubscribed_after bigint NOT NULL DEFAULT 0,
    unique_replies_polled bigint,
    unique_replies_webhook bigint NOT NULL DEFAULT 0,
    emails_sent_mtd bigint GENERATED ALWAYS AS (coalesce(emails_sent_polled + emails_sent_after, emails_sent_webhook)) STORED,
    replies_mtd bigint GENERATED ALWAYS AS (coalesce(replies_polled + replies_after, replies_webhook)) STORED,
    interested_mtd bigint GENERATED ALWAYS AS (coalesce(interested_polled + interested_after, interested_webhook)) STORED,
    bounced_mtd bigint GENERATED ALWAYS AS (coalesce(bounced_polled + bounced_after, bounced_webhook)) STORED,
    unsubscribed_mtd bigint GENERATED ALWAYS AS (coalesce(unsubscribed_polled + unsubscribed_after, unsubscribed_webhook)) STORED,
    unique_replies_mtd bigint GENERATED ALWAYS AS (coalesce(unique_replies_polled, unique_replies_webhook)) STORED,
    positive_replies_mtd bigint GENERATED ALWAYS AS (coalesce(interested_polled + interested_after, interested_webhook)) STORED,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bison_instance, bison_workspace_id, metric_type, metric_month)
) WITH (fillfactor = 50);

ALTER TABLE public.client_metrics ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.client_metrics IS
    'What happened in each workspace in each month. The webhook part is a function of webhook_event_keys, which "rebuild-counters" proves; no poll writes it.';
COMMENT ON INDEX public.client_metrics_pkey IS 'Key; each batch of events adds to its rows by it.';
COMMENT ON COLUMN public.client_metrics.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.client_metrics.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN public.client_metrics.metric_type IS 'mtd: month to date.';
COMMENT ON COLUMN public.client_metrics.metric_month IS 'First day of the month in the reporting time zone.';
COMMENT ON COLUMN public.client_metrics.as_of IS 'Moment of the polled part; null: never polled.';
COMMENT ON COLUMN public.client_metrics.emails_sent_polled IS 'Emails sent by the API until as_of; null: never polled.';
COMMENT ON COLUMN public.client_metrics.emails_sent_webhook IS 'Emails sent by the events of the whole month.';
COMMENT ON COLUMN public.client_metrics.emails_sent_after IS 'Emails sent by those of the events that happened after as_of.';
COMMENT ON COLUMN public.client_metrics.replies_polled IS 'Replies by the API until as_of; null: never polled.';
COMMENT ON COLUMN public.client_metrics.replies_webhook IS 'Replies by the events of the whole month.';
COMMENT ON COLUMN public.client_metrics.replies_after IS 'Replies by those of the events that happened after as_of.';
COMMENT ON COLUMN public.client_metrics.interested_polled IS 'Interested by the API until as_of; null: never polled.';
COMMENT ON COLUMN public.client_metrics.interested_webhook IS 'Interested by the events of the whole month.';
COMMENT ON COLUMN public.client_metrics.interested_after IS 'Interested by those of the events that happened after as_of.';
COMMENT ON COLUMN public.client_metrics.bounced_polled IS 'Bounced by the API until as_of; null: never polled.';
COMMENT ON COLUMN public.client_metrics.bounced_webhook IS 'Bounced by the events of the whole month.';
COMMENT ON COLUMN public.client_metrics.bounced_after IS 'Bounced by those of the events that happened after as_of.';
COMMENT ON COLUMN public.client_metrics.unsubscribed_polled IS 'Unsubscribed by the API until as_of; null: never polled.';
COMMENT ON COLUMN public.client_metrics.unsubscribed_webhook IS 'Unsubscribed by the events of the whole month.';
COMMENT ON COLUMN public.client_metrics.unsubscribed_after IS 'Unsubscribed by those of the events that happened after as_of.';
COMMENT ON COLUMN public.client_metrics.unique_replies_polled IS 'Unique replies by the API until as_of; null: never polled.';
COMMENT ON COLUMN public.client_metrics.unique_replies_webhook IS 'Unique replies by the events of the whole month.';
COMMENT ON COLUMN public.client_metrics.emails_sent_mtd IS 'Emails sent of the month: what was polled as of as_of and the events after it; the events alone where nothing was polled.';
COMMENT ON COLUMN public.client_metrics.replies_mtd IS 'Replies of the month: what was polled as of as_of and the events after it; the events alone where nothing was polled.';
COMMENT ON COLUMN public.client_metrics.interested_mtd IS 'Interested of the month: what was polled as of as_of and the events after it; the events alone where nothing was polled.';
COMMENT ON COLUMN public.client_metrics.bounced_mtd IS 'Bounced of the month: what was polled as of as_of and the events after it; the events alone where nothing was polled.';
COMMENT ON COLUMN public.client_metrics.unsubscribed_mtd IS 'Unsubscribed of the month: what was polled as of as_of and the events after it; the events alone where nothing was polled.';
COMMENT ON COLUMN public.client_metrics.unique_replies_mtd IS 'Leads that replied in the month as polled: events cannot tell them, and are never added.';
COMMENT ON COLUMN public.client_metrics.positive_replies_mtd IS 'Same as interested_mtd, kept for old queries.';
COMMENT ON COLUMN public.client_metrics.updated_at IS 'When the row last took new values.';


CREATE TABLE public.client_leads (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    bison_lead_id bigint NOT NULL,
    lead_email text,
    first_name text,
    last_name text,
    company text,
    title text,
    phone text,
    custom_variables jsonb NOT NULL DEFAULT '[]',
    contact_as_of timestamptz,
    contact_hash uuid,
    conversation_url text,
    conversation_as_of timestamptz,
    first_sent_at timestamptz,
    last_sent_at timestamptz,
    first_contacted_at timestamptz,
    last_contacted_at timestamptz,
    first_opened_at timestamptz,
    last_opened_at timestamptz,
    first_replied_at timestamptz,
    last_replied_at timestamptz,
    first_interested_at timestamptz,
    last_interested_at timestamptz,
    first_bounced_at timestamptz,
    last_bounced_at timestamptz,
    first_unsubscribed_at timestamptz,
    last_unsubscribed_at timestamptz,
    first_manual_sent_at timestamptz,
    last_manual_sent_at timestamptz,
    status text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN last_unsubscribed_at IS NOT NULL THEN 'unsubscribed'
            WHEN last_bounced_at IS NOT NULL THEN 'bounced'
            WHEN last_interested_at IS NOT NULL THEN 'interested'
            WHEN last_replied_at IS NOT NULL THEN 'replied'
            WHEN last_sent_at IS NOT NULL OR last_contacted_at IS NOT NULL THEN 'contacted'
            ELSE 'new'
        END
    ) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bison_instance, bison_workspace_id, bison_lead_id)
) WITH (fillfactor = 90);

ALTER TABLE public.client_leads ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.client_leads IS
    'Every lead that an event named, with the first and last time of each kind of event.';
COMMENT ON INDEX public.client_leads_pkey IS 'Key; each batch of events finds its leads by it.';
COMMENT ON COLUMN public.client_leads.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.client_leads.bison_workspace_id IS 'Workspace of the lead.';
COMMENT ON COLUMN public.client_leads.bison_lead_id IS 'The lead''s id at its instance.';
COMMENT ON COLUMN public.client_leads.lead_email IS 'Mail address in lower case; not unique.';
COMMENT ON COLUMN public.client_leads.first_name IS 'First name.';
COMMENT ON COLUMN public.client_leads.last_name IS 'Last name.';
COMMENT ON COLUMN public.client_leads.company IS 'Company.';
COMMENT ON COLUMN public.client_leads.title IS 'Job title.';
COMMENT ON COLUMN public.client_leads.phone IS 'Phone number: the lead''s own, else its custom variable of that name.';
COMMENT ON COLUMN public.client_leads.custom_variables IS 'Custom variables as the API gives them.';
COMMENT ON COLUMN public.client_leads.contact_as_of IS 'When the event happened that told the contact; the latest with an address wins, whatever the order of arrival.';
COMMENT ON COLUMN public.client_leads.contact_hash IS 'Tells apart contacts of the same moment, so that the order of arrival cannot matter.';
COMMENT ON COLUMN public.client_leads.conversation_url IS 'The lead''s latest reply in the platform''s inbox.';
COMMENT ON COLUMN public.client_leads.conversation_as_of IS 'When that reply came.';
COMMENT ON COLUMN public.client_leads.first_sent_at IS 'Time of the first email_sent event; null: none.';
COMMENT ON COLUMN public.client_leads.last_sent_at IS 'Time of the last email_sent event.';
COMMENT ON COLUMN public.client_leads.first_contacted_at IS 'Time of the first lead_first_contacted event; null: none.';
COMMENT ON COLUMN public.client_leads.last_contacted_at IS 'Time of the last lead_first_contacted event.';
COMMENT ON COLUMN public.client_leads.first_opened_at IS 'Time of the first email_opened event; null: none.';
COMMENT ON COLUMN public.client_leads.last_opened_at IS 'Time of the last email_opened event.';
COMMENT ON COLUMN public.client_leads.first_replied_at IS 'Time of the first lead_replied event; null: none.';
COMMENT ON COLUMN public.client_leads.last_replied_at IS 'Time of the last lead_replied event.';
COMMENT ON COLUMN public.client_leads.first_interested_at IS 'Time of the first lead_interested event; null: none.';
COMMENT ON COLUMN public.client_leads.last_interested_at IS 'Time of the last lead_interested event.';
COMMENT ON COLUMN public.client_leads.first_bounced_at IS 'Time of the first email_bounced event; null: none.';
COMMENT ON COLUMN public.client_leads.last_bounced_at IS 'Time of the last email_bounced event.';
COMMENT ON COLUMN public.client_leads.first_unsubscribed_at IS 'Time of the first lead_unsubscribed event; null: none.';
COMMENT ON COLUMN public.client_leads.last_unsubscribed_at IS 'Time of the last lead_unsubscribed event.';
COMMENT ON COLUMN public.client_leads.first_manual_sent_at IS 'Time of the first manual_email_sent event; null: none.';
COMMENT ON COLUMN public.client_leads.last_manual_sent_at IS 'Time of the last manual_email_sent event.';
COMMENT ON COLUMN public.client_leads.status IS 'unsubscribed, bounced, interested, replied, contacted or new: the strongest that any event told, whatever the order of arrival.';
COMMENT ON COLUMN public.client_leads.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.client_leads.updated_at IS 'When the row last took new values.';


CREATE TABLE bisonsync_private.webhook_secrets (
    secret_sha256 bytea PRIMARY KEY CHECK (length(secret_sha256) = 32),
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    FOREIGN KEY (bison_instance, bison_workspace_id) REFERENCES public.client_registry
);

ALTER TABLE bisonsync_private.webhook_secrets ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.webhook_secrets IS
    'Whose the hook secrets are. Of a secret only its SHA-256 is kept: the platform alone has the address with it.';
COMMENT ON INDEX bisonsync_private.webhook_secrets_pkey IS 'Key; a delivery''s secret is looked up by it.';
COMMENT ON COLUMN bisonsync_private.webhook_secrets.secret_sha256 IS 'SHA-256 of the secret.';
COMMENT ON COLUMN bisonsync_private.webhook_secrets.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN bisonsync_private.webhook_secrets.bison_workspace_id IS 'The workspace whose deliveries come with it.';
COMMENT ON COLUMN bisonsync_private.webhook_secrets.made_at IS 'When it was made, before the platform was told.';
COMMENT ON COLUMN bisonsync_private.webhook_secrets.retired_at IS 'Since when it is no longer taken; null: taken.';


CREATE TABLE bisonsync_private.webhook_settings (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    reporting_timezone text NOT NULL DEFAULT 'UTC',
    store_bodies boolean NOT NULL DEFAULT false
);

ALTER TABLE bisonsync_private.webhook_settings ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.webhook_settings IS
    'What the rules for deliveries need of the settings, for ingest_webhook has no settings file. One row.';
COMMENT ON INDEX bisonsync_private.webhook_settings_pkey IS 'There is one row.';
COMMENT ON COLUMN bisonsync_private.webhook_settings.is_only IS 'There is one row.';
COMMENT ON COLUMN bisonsync_private.webhook_settings.reporting_timezone IS 'Where a day and a month begin.';
COMMENT ON COLUMN bisonsync_private.webhook_settings.store_bodies IS 'Whether mail bodies are kept.';


INSERT INTO bisonsync_private.webhook_settings DEFAULT VALUES;


CREATE TABLE bisonsync_private.instance_origins (
    bison_instance text PRIMARY KEY,
    base_url text NOT NULL,
    origin text NOT NULL
);

ALTER TABLE bisonsync_private.instance_origins ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.instance_origins IS
    'The addresses of the configured instances: an event is matched with its instance by them.';
COMMENT ON INDEX bisonsync_private.instance_origins_pkey IS 'Key; written by it.';
COMMENT ON COLUMN bisonsync_private.instance_origins.bison_instance IS 'Name of the instance in the settings.';
COMMENT ON COLUMN bisonsync_private.instance_origins.base_url IS 'Its base_url.';
COMMENT ON COLUMN bisonsync_private.instance_origins.origin IS 'Scheme, host and port of base_url in lower case, without the scheme''s own port.';


CREATE TYPE bisonsync_private.webhook_event AS (
    place integer,
    id bigint,
    received_at timestamptz,
    verdict text,
    reason text,
    event_type text,
    bison_instance text,
    bison_workspace_id bigint,
    workspace_name text,
    occurred_at timestamptz,
    occurred_rule text,
    dedup_key text,
    dedup_rule text,
    metric text,
    amount bigint,
    lead_id bigint,
    lead jsonb,
    reply_uuid text,
    account jsonb
);

COMMENT ON TYPE bisonsync_private.webhook_event IS
    'What the rules read in one delivery. verdict: apply, or the status that it ends with unapplied.';


ALTER TABLE public.sender_emails_cache
ADD COLUMN event_applied_at timestamptz,
ADD COLUMN presence_as_of timestamptz;

COMMENT ON COLUMN public.sender_emails_cache.event_applied_at IS
    'When an event last changed the row, by our clock: a read that began earlier does not undo it.';
COMMENT ON COLUMN public.sender_emails_cache.presence_as_of IS
    'When the latest event happened that said the account was added or removed: an older one changes nothing.';

ALTER TABLE public.workspace_sync_state ADD COLUMN due_since timestamptz;

COMMENT ON COLUMN public.workspace_sync_state.due_since IS
    'Since when an event says that the list should be read again; null: none does.';
