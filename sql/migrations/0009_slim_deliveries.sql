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
DO $$
DECLARE
    said record;
BEGIN
    FOR said IN
        SELECT format('COLUMN public.webhook_delivery_log_default.%I', a.attname) AS what, col_description(a.attrelid, a.attnum) AS text
        FROM pg_attribute AS a
        WHERE a.attrelid = 'public.webhook_delivery_log'::regclass AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT format('INDEX public.%I', c.relname), obj_description(p.inhparent, 'pg_class')
        FROM pg_index AS i
        INNER JOIN pg_class AS c ON c.oid = i.indexrelid
        INNER JOIN pg_inherits AS p ON p.inhrelid = i.indexrelid
        WHERE i.indrelid = 'public.webhook_delivery_log_default'::regclass
    LOOP
        EXECUTE format('COMMENT ON %s IS %L', said.what, said.text);
    END LOOP;
END
$$;
