-- Several addresses of one instance: what a host calls itself in its webhooks need not be the address it is asked at.

ALTER TABLE bisonsync_private.instance_origins
DROP CONSTRAINT instance_origins_pkey,
ADD COLUMN is_former boolean NOT NULL DEFAULT false,
ADD PRIMARY KEY (bison_instance, origin);

COMMENT ON TABLE bisonsync_private.instance_origins IS
    'The addresses of the configured instances: an event is matched with its instance by them. Each settings file writes those of the instances that it names.';
COMMENT ON INDEX bisonsync_private.instance_origins_pkey IS 'Key; written by it.';
COMMENT ON COLUMN bisonsync_private.instance_origins.base_url IS 'Its base_url, or one of its former_urls.';
COMMENT ON COLUMN bisonsync_private.instance_origins.origin IS
    'Scheme, host and port of base_url in lower case, without the scheme''s own port.';
COMMENT ON COLUMN bisonsync_private.instance_origins.is_former IS
    'Whether it is one of former_urls: taken for the instance''s own, unless it is the base_url of another.';

COMMENT ON COLUMN public.webhook_delivery_log.status IS 'pending, processed, failed (tried again at next_attempt_at), dead (never will be by itself), duplicate, ignored, test, unknown_workspace (waits for its registration) or mismatch (of another workspace than the secret: not applied unless the settings or the registry say otherwise later).';
COMMENT ON COLUMN public.webhook_delivery_log.processed_at IS 'When its status was last decided; of a mismatch since when it is one.';
COMMENT ON COLUMN public.webhook_delivery_log.payload_raw IS
    'The bytes as they came, only where jsonb cannot hold them; mail bodies replaced as in payload.';
COMMENT ON COLUMN public.webhook_delivery_log_default.status IS 'pending, processed, failed (tried again at next_attempt_at), dead (never will be by itself), duplicate, ignored, test, unknown_workspace (waits for its registration) or mismatch (of another workspace than the secret: not applied unless the settings or the registry say otherwise later).';
COMMENT ON COLUMN public.webhook_delivery_log_default.processed_at IS 'When its status was last decided; of a mismatch since when it is one.';
COMMENT ON COLUMN public.webhook_delivery_log_default.payload_raw IS
    'The bytes as they came, only where jsonb cannot hold them; mail bodies replaced as in payload.';
