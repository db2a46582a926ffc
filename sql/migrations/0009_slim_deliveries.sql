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
