-- Until when the keys of events were pruned: counters of months before that can no longer be proved.

ALTER TABLE bisonsync_private.webhook_settings ADD COLUMN keys_pruned_before timestamptz;

COMMENT ON TABLE bisonsync_private.webhook_settings IS
    'What the rules for deliveries need to know beside them: two settings, for ingest_webhook has no settings file, and how much of the keys is gone. One row.';
COMMENT ON COLUMN bisonsync_private.webhook_settings.keys_pruned_before IS
    'Keys of events that happened before may be gone: the counters of their months stay as they are. Null: none was pruned yet.';
