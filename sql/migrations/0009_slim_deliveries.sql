-- Which days of deliveries have lost their payloads, so that no prune reads them again to find out.

CREATE TABLE bisonsync_private.slim_deliveries (
    partition text PRIMARY KEY,
    slimmed_at timestamptz NOT NULL DEFAULT now(),
    unsettled bigint NOT NULL
);

ALTER TABLE bisonsync_private.slim_deliveries ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.slim_deliveries IS
    'The partitions of webhook_delivery_log whose settled deliveries have lost their payloads.';
COMMENT ON INDEX bisonsync_private.slim_deliveries_pkey IS 'Key; prune looks here which days it is done with.';
COMMENT ON COLUMN bisonsync_private.slim_deliveries.partition IS 'Name of the partition.';
COMMENT ON COLUMN bisonsync_private.slim_deliveries.slimmed_at IS 'When they were last removed.';
COMMENT ON COLUMN bisonsync_private.slim_deliveries.unsettled IS
    'How many deliveries kept theirs, being unsettled then; when fewer are unsettled, the others lose theirs.';


-- The default partition is explained as the whole table is; the days are made with their comments.
COMMENT ON COLUMN public.webhook_delivery_log_default.id IS 'Order of arrival.';
COMMENT ON COLUMN public.webhook_delivery_log_default.received_at IS 'When the delivery came in.';
COMMENT ON COLUMN public.webhook_delivery_log_default.source IS 'receiver, sql (ingest_webhook), file (replay-webhooks --from), events (pull-events) or legacy (increment_metric).';
COMMENT ON COLUMN public.webhook_delivery_log_default.event_type IS 'Type of the event in lower case; null: none could be read.';
COMMENT ON COLUMN public.webhook_delivery_log_default.bison_instance IS 'Instance the event is from, as far as known.';
COMMENT ON COLUMN public.webhook_delivery_log_default.bison_workspace_id IS 'Workspace the event is from, as far as known.';
COMMENT ON COLUMN public.webhook_delivery_log_default.workspace_name IS 'Name of the workspace as the event tells it, trimmed.';
COMMENT ON COLUMN public.webhook_delivery_log_default.hook_instance IS 'Instance of the hook secret, or of the token it was pulled with; null: it came without one.';
COMMENT ON COLUMN public.webhook_delivery_log_default.hook_workspace_id IS 'Workspace of that secret or token.';
COMMENT ON COLUMN public.webhook_delivery_log_default.occurred_at IS 'When the event happened.';
COMMENT ON COLUMN public.webhook_delivery_log_default.occurred_rule IS 'Which part of the payload told occurred_at; received_at: none.';
COMMENT ON COLUMN public.webhook_delivery_log_default.payload IS 'The event: {event, data}, mail bodies replaced by length and hash unless they are to be kept. Null once pruned.';
COMMENT ON COLUMN public.webhook_delivery_log_default.payload_raw IS 'The bytes as they came, only where jsonb cannot hold them.';
COMMENT ON COLUMN public.webhook_delivery_log_default.dedup_key IS 'What makes two deliveries the same event; null until the workspace is known.';
COMMENT ON COLUMN public.webhook_delivery_log_default.dedup_rule IS 'Which rule made dedup_key.';
COMMENT ON COLUMN public.webhook_delivery_log_default.status IS 'pending, processed, failed (tried again at next_attempt_at), dead (never will be by itself), duplicate, ignored, test, unknown_workspace (waits for its registration) or mismatch (of another workspace than the secret: never applied).';
COMMENT ON COLUMN public.webhook_delivery_log_default.success IS 'Whether all is well with it: processed, duplicate, ignored and test are; failed, dead and mismatch are not; null: undecided.';
COMMENT ON COLUMN public.webhook_delivery_log_default.attempts IS 'How often it was tried to apply it.';
COMMENT ON COLUMN public.webhook_delivery_log_default.next_attempt_at IS 'When it is due; null: at once if pending, never otherwise.';
COMMENT ON COLUMN public.webhook_delivery_log_default.error_message IS 'Why it is not processed.';
COMMENT ON COLUMN public.webhook_delivery_log_default.processing_time_ms IS 'What applying it took; in a batch its share.';
COMMENT ON COLUMN public.webhook_delivery_log_default.processed_at IS 'When its status was last decided.';
COMMENT ON COLUMN public.webhook_delivery_log_default.processor_version IS 'Version of the rules that decided it.';
COMMENT ON INDEX public.webhook_delivery_log_default_pkey IS 'Key; replay finds the chosen rows by it.';
COMMENT ON INDEX public.webhook_delivery_log_default_bison_instance_bison_workspace_idx IS
    'As webhook_delivery_log_workspace.';
COMMENT ON INDEX public.webhook_delivery_log_default_status_next_attempt_at_idx IS 'As webhook_delivery_log_open.';
