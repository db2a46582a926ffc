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

-- name: make_partitions
-- Makes the partitions of today and the next seven days where they are missing; their names.
SELECT p.name
FROM bisonsync_private.make_delivery_partitions(
    (now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + 7
) AS p (name);

-- name: list_missing_partitions
-- The names of those that are missing; locks nothing.
SELECT p.name
FROM generate_series(0, 7) AS d (days)
CROSS JOIN LATERAL (
    SELECT 'webhook_delivery_log_' || to_char((now() AT TIME ZONE 'UTC')::date + d.days, 'YYYY_MM_DD') AS name
) AS p
WHERE to_regclass('public.' || p.name) IS NULL
ORDER BY d.days;
