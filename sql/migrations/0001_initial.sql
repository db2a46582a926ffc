-- The registry of workspaces, their tokens, and the mirror of their sender emails.

CREATE SCHEMA IF NOT EXISTS bisonsync_private;

COMMENT ON SCHEMA bisonsync_private IS
    'What no API role may see: the tokens of the workspaces, and the functions that only the owner calls.';


CREATE TABLE public.client_registry (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    workspace_name text NOT NULL,
    display_name text,
    is_active boolean NOT NULL DEFAULT true,
    monthly_kpi_target numeric,
    price_per_lead numeric,
    monthly_retainer numeric,
    slack_webhook_url_ref text,
    notes text,
    previous_name text,
    renamed_at timestamptz,
    vanished_at timestamptz,
    last_seen_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bison_instance, bison_workspace_id)
);

ALTER TABLE public.client_registry ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.client_registry IS
    'The workspaces of every instance, one row each. Filled by "workspaces discover" and "workspaces add"; the commercial columns are set by hand and never overwritten.';
COMMENT ON INDEX public.client_registry_pkey IS 'Key; every join from a table that is keyed by workspace.';
COMMENT ON COLUMN public.client_registry.bison_instance IS 'Name of the Email Bison host, as under [instances] in the configuration.';
COMMENT ON COLUMN public.client_registry.bison_workspace_id IS 'The workspace''s id at its instance; survives a rename.';
COMMENT ON COLUMN public.client_registry.workspace_name IS 'Name at the platform, trimmed.';
COMMENT ON COLUMN public.client_registry.display_name IS 'Name to show to people; null: workspace_name.';
COMMENT ON COLUMN public.client_registry.is_active IS 'Whether the jobs read this workspace.';
COMMENT ON COLUMN public.client_registry.monthly_kpi_target IS 'Interested leads promised per month; set by hand.';
COMMENT ON COLUMN public.client_registry.price_per_lead IS 'Price of one interested lead; set by hand.';
COMMENT ON COLUMN public.client_registry.monthly_retainer IS 'Fixed monthly fee; set by hand.';
COMMENT ON COLUMN public.client_registry.slack_webhook_url_ref IS 'Name of the setting that holds the client''s Slack webhook; never the URL itself.';
COMMENT ON COLUMN public.client_registry.notes IS 'Free text; set by hand.';
COMMENT ON COLUMN public.client_registry.previous_name IS 'workspace_name before the last rename.';
COMMENT ON COLUMN public.client_registry.renamed_at IS 'When the last rename was noticed.';
COMMENT ON COLUMN public.client_registry.vanished_at IS 'Since when the platform no longer lists the workspace; null: listed.';
COMMENT ON COLUMN public.client_registry.last_seen_at IS 'When discovery last saw something new about the workspace; not moved by a look that finds all as it was.';
COMMENT ON COLUMN public.client_registry.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.client_registry.updated_at IS 'When the row last took new values.';


CREATE TABLE bisonsync_private.workspace_tokens (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    token text,
    token_name text NOT NULL,
    bison_token_id bigint,
    status text NOT NULL DEFAULT 'minting' CHECK (status IN ('minting', 'valid', 'mismatch', 'refused')),
    intent_at timestamptz NOT NULL DEFAULT now(),
    minted_at timestamptz,
    verified_at timestamptz,
    last_error text,
    PRIMARY KEY (bison_instance, bison_workspace_id),
    FOREIGN KEY (bison_instance, bison_workspace_id) REFERENCES public.client_registry,
    CHECK (status <> 'valid' OR token IS NOT NULL)
);

ALTER TABLE bisonsync_private.workspace_tokens ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.workspace_tokens IS 'The API token of each workspace. SECRET.';
COMMENT ON INDEX bisonsync_private.workspace_tokens_pkey IS 'Key; every job looks up the token of a workspace by it.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.bison_workspace_id IS 'The workspace the token acts in.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.token IS 'The token itself. SECRET. Null until the platform has answered.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.token_name IS 'Name under which the platform lists the token.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.bison_token_id IS 'The token''s id at the platform, where it told one.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.status IS
    'minting: asked for, no answer stored; valid; mismatch: acts in another workspace; refused: the platform no longer takes it.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.intent_at IS 'When minting was begun, written before the platform was asked.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.minted_at IS 'When the token was stored.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.verified_at IS 'When the token was last seen to act in its own workspace.';
COMMENT ON COLUMN bisonsync_private.workspace_tokens.last_error IS 'Why the token is not valid.';


CREATE TABLE bisonsync_private.token_intents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    token_name text NOT NULL,
    intent_at timestamptz NOT NULL DEFAULT now(),
    outcome text CHECK (outcome IN ('stored', 'failed', 'unknown')),
    detail text
);

ALTER TABLE bisonsync_private.token_intents ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.token_intents IS
    'Each attempt to mint a token, written before the platform is asked: a token that exists there but was never stored can be found by its name.';
COMMENT ON INDEX bisonsync_private.token_intents_pkey IS 'Key; the outcome is written by it.';
COMMENT ON SEQUENCE bisonsync_private.token_intents_id_seq IS 'Makes token_intents.id.';
COMMENT ON COLUMN bisonsync_private.token_intents.id IS 'Order of the attempts.';
COMMENT ON COLUMN bisonsync_private.token_intents.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN bisonsync_private.token_intents.bison_workspace_id IS 'The workspace the token was asked for.';
COMMENT ON COLUMN bisonsync_private.token_intents.token_name IS 'Name given to the token at the platform.';
COMMENT ON COLUMN bisonsync_private.token_intents.intent_at IS 'When the platform was about to be asked.';
COMMENT ON COLUMN bisonsync_private.token_intents.outcome IS 'stored, failed or unknown; null: never finished.';
COMMENT ON COLUMN bisonsync_private.token_intents.detail IS 'What went wrong, without secrets.';


CREATE TABLE public.sender_emails_cache (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    bison_account_id bigint NOT NULL,
    workspace_name text,
    email_address text NOT NULL,
    account_name text,
    domain text,
    emails_sent_count bigint NOT NULL DEFAULT 0,
    total_replied_count bigint NOT NULL DEFAULT 0,
    unique_replied_count bigint NOT NULL DEFAULT 0,
    total_opened_count bigint NOT NULL DEFAULT 0,
    unique_opened_count bigint NOT NULL DEFAULT 0,
    bounced_count bigint NOT NULL DEFAULT 0,
    unsubscribed_count bigint NOT NULL DEFAULT 0,
    interested_leads_count bigint NOT NULL DEFAULT 0,
    total_leads_contacted_count bigint NOT NULL DEFAULT 0,
    reply_rate_percentage numeric GENERATED ALWAYS AS (
        CASE WHEN emails_sent_count > 0 THEN round(100.0 * unique_replied_count / emails_sent_count, 2) ELSE 0 END
    ) STORED,
    status text,
    is_connected boolean GENERATED ALWAYS AS (coalesce(lower(btrim(status)) = 'connected', false)) STORED,
    status_as_of timestamptz,
    daily_limit bigint,
    warmup_enabled boolean,
    warmup_score numeric,
    account_type text,
    email_provider text NOT NULL DEFAULT 'Unknown',
    reseller text,
    price numeric,
    volume_per_account numeric,
    tags jsonb NOT NULL DEFAULT '[]',
    extra jsonb NOT NULL DEFAULT '{}',
    bison_created_at timestamptz,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_synced_at timestamptz GENERATED ALWAYS AS (updated_at) STORED,
    removed_at timestamptz,
    CONSTRAINT sender_emails_cache_key UNIQUE (bison_instance, bison_workspace_id, bison_account_id)
) WITH (fillfactor = 90);

ALTER TABLE public.sender_emails_cache ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.sender_emails_cache IS
    'Mirror of the sender emails of every workspace, removed ones included (removed_at). A row is written only when something about it changed; when its workspace was last read is in workspace_sync_state.';
COMMENT ON INDEX public.sender_emails_cache_pkey IS 'Key for callers that need a single column, and replica identity for Realtime.';
COMMENT ON INDEX public.sender_emails_cache_key IS
    'The key used everywhere: the merge of a poll reads one workspace by its first two columns, an event finds one account.';
COMMENT ON COLUMN public.sender_emails_cache.id IS 'Our own id of the row.';
COMMENT ON COLUMN public.sender_emails_cache.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN public.sender_emails_cache.bison_workspace_id IS 'Workspace the account was read in; part of the key, for the same mailbox can be in two.';
COMMENT ON COLUMN public.sender_emails_cache.bison_account_id IS 'The account''s id at its instance.';
COMMENT ON COLUMN public.sender_emails_cache.workspace_name IS 'Name of the workspace, trimmed; for reading only, never a key.';
COMMENT ON COLUMN public.sender_emails_cache.email_address IS 'Mail address in lower case; not unique.';
COMMENT ON COLUMN public.sender_emails_cache.account_name IS 'Name of the sender as recipients see it.';
COMMENT ON COLUMN public.sender_emails_cache.domain IS 'Part of the address after the @.';
COMMENT ON COLUMN public.sender_emails_cache.emails_sent_count IS 'Mails sent in the account''s life.';
COMMENT ON COLUMN public.sender_emails_cache.total_replied_count IS 'Replies received in the account''s life.';
COMMENT ON COLUMN public.sender_emails_cache.unique_replied_count IS 'Leads that replied at least once.';
COMMENT ON COLUMN public.sender_emails_cache.total_opened_count IS 'Opens in the account''s life.';
COMMENT ON COLUMN public.sender_emails_cache.unique_opened_count IS 'Leads that opened at least once.';
COMMENT ON COLUMN public.sender_emails_cache.bounced_count IS 'Mails that bounced in the account''s life.';
COMMENT ON COLUMN public.sender_emails_cache.unsubscribed_count IS 'Leads that unsubscribed.';
COMMENT ON COLUMN public.sender_emails_cache.interested_leads_count IS 'Leads marked interested.';
COMMENT ON COLUMN public.sender_emails_cache.total_leads_contacted_count IS 'Leads contacted.';
COMMENT ON COLUMN public.sender_emails_cache.reply_rate_percentage IS
    '100 x unique_replied_count / emails_sent_count; 0 when nothing was sent; can exceed 100.';
COMMENT ON COLUMN public.sender_emails_cache.status IS 'Connection status in the API''s own words.';
COMMENT ON COLUMN public.sender_emails_cache.is_connected IS 'Whether status says connected, in any case.';
COMMENT ON COLUMN public.sender_emails_cache.status_as_of IS 'Moment for which status is known: a read that began earlier does not change it.';
COMMENT ON COLUMN public.sender_emails_cache.daily_limit IS 'Mails per day the account may send.';
COMMENT ON COLUMN public.sender_emails_cache.warmup_enabled IS 'Whether warm-up is on; null: not known.';
COMMENT ON COLUMN public.sender_emails_cache.warmup_score IS 'Warm-up score; null: not known.';
COMMENT ON COLUMN public.sender_emails_cache.account_type IS 'Kind of account in the API''s own words.';
COMMENT ON COLUMN public.sender_emails_cache.email_provider IS 'Provider by configured tag, account type or mail host; Unknown when none tells.';
COMMENT ON COLUMN public.sender_emails_cache.reseller IS 'Reseller by configured tag substring; null: none matched.';
COMMENT ON COLUMN public.sender_emails_cache.price IS 'Monthly price: email_account_metadata, else the default of provider and reseller.';
COMMENT ON COLUMN public.sender_emails_cache.volume_per_account IS 'Mails per day the account is meant to carry: email_account_metadata, else the default of provider and reseller.';
COMMENT ON COLUMN public.sender_emails_cache.tags IS 'Tags as the API gives them.';
COMMENT ON COLUMN public.sender_emails_cache.extra IS 'Fields of the API that have no column, without secrets.';
COMMENT ON COLUMN public.sender_emails_cache.bison_created_at IS 'When the platform made the account.';
COMMENT ON COLUMN public.sender_emails_cache.first_seen_at IS 'When we first knew of the account, by read or event.';
COMMENT ON COLUMN public.sender_emails_cache.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.sender_emails_cache.updated_at IS 'When the row last took new values.';
COMMENT ON COLUMN public.sender_emails_cache.last_synced_at IS
    'Same as updated_at, kept for old queries. How fresh the data are is in workspace_sync_state, not here.';
COMMENT ON COLUMN public.sender_emails_cache.removed_at IS 'Since when the account is gone from its workspace; null: present.';


CREATE TABLE public.email_account_metadata (
    bison_instance text NOT NULL,
    email_address text NOT NULL,
    price numeric,
    volume_per_account numeric,
    notes text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bison_instance, email_address)
);

ALTER TABLE public.email_account_metadata ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.email_account_metadata IS
    'Price and volume of single mailboxes, set by hand; wins over the defaults of provider and reseller at the next poll.';
COMMENT ON INDEX public.email_account_metadata_pkey IS 'Key; the poll looks up the overrides of an instance by it.';
COMMENT ON COLUMN public.email_account_metadata.bison_instance IS 'Instance of the mailbox.';
COMMENT ON COLUMN public.email_account_metadata.email_address IS 'Mail address in lower case.';
COMMENT ON COLUMN public.email_account_metadata.price IS 'Monthly price; null: the default.';
COMMENT ON COLUMN public.email_account_metadata.volume_per_account IS 'Mails per day the account is meant to carry; null: the default.';
COMMENT ON COLUMN public.email_account_metadata.notes IS 'Free text.';
COMMENT ON COLUMN public.email_account_metadata.created_at IS 'When the row was made.';
COMMENT ON COLUMN public.email_account_metadata.updated_at IS 'When the row last took new values, if its writer says so.';
