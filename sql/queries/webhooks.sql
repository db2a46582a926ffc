-- name: receive_deliveries
-- Stores new deliveries and applies them; a row for each, in any order. Locks their keys, leads, accounts and counters.
SELECT r.place, r.id, r.received_at, r.status, r.event_type, r.bison_instance, r.bison_workspace_id, r.error_message
FROM bisonsync_private.receive_deliveries(
    %(received_ats)s::timestamptz[], %(sources)s::text[], %(hook_instances)s::text[], %(hook_workspace_ids)s::bigint[],
    %(forced_verdicts)s::text[], %(payloads)b::text[]::jsonb[], %(raws)b::bytea[], false
) AS r;

-- name: process_deliveries
-- Applies stored deliveries; a row for each that is decided. Locks them, skipping those locked by others.
SELECT r.id, r.received_at, r.status, r.event_type, r.bison_instance, r.bison_workspace_id, r.error_message
FROM bisonsync_private.process_deliveries(%(ids)s::bigint[], %(received_ats)s::timestamptz[]) AS r;

-- name: update_webhook_settings
-- Writes what the rules need of the settings where it differs.
UPDATE bisonsync_private.webhook_settings AS s
SET reporting_timezone = %(timezone)s::text, store_bodies = %(store_bodies)s::boolean
WHERE
    (s.reporting_timezone, s.store_bodies)
    IS DISTINCT FROM (%(timezone)s::text, %(store_bodies)s::boolean);

-- name: upsert_instance_origins
-- Writes the addresses of the configured instances where they differ, and removes those of others.
WITH wanted AS (
    SELECT w.bison_instance, w.base_url, bisonsync_private.url_origin(w.base_url) AS origin
    FROM unnest(%(instances)s::text[], %(base_urls)s::text[]) AS w (bison_instance, base_url)
),

removed AS (
    DELETE FROM bisonsync_private.instance_origins AS i
    WHERE NOT EXISTS (SELECT FROM wanted AS w WHERE w.bison_instance = i.bison_instance)
)

INSERT INTO bisonsync_private.instance_origins AS i (bison_instance, base_url, origin)
SELECT w.bison_instance, w.base_url, w.origin
FROM wanted AS w
WHERE NOT EXISTS (
    SELECT
    FROM bisonsync_private.instance_origins AS k
    WHERE k.bison_instance = w.bison_instance AND k.base_url = w.base_url AND k.origin = w.origin
)
ON CONFLICT (bison_instance) DO UPDATE SET base_url = excluded.base_url, origin = excluded.origin;
