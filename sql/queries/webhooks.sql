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
-- Writes the addresses of the given instances where they differ, and removes their others. Other instances are left to
-- the settings file that names them, unless one of theirs is the base_url of a given one: it was renamed.
WITH wanted AS (
    SELECT DISTINCT ON (w.bison_instance, w.origin) w.bison_instance, w.origin, w.base_url, w.is_former
    FROM (
        SELECT g.bison_instance, g.base_url, g.is_former, bisonsync_private.url_origin(g.base_url) AS origin
        FROM unnest(%(instances)s::text[], %(base_urls)s::text[], %(are_former)s::boolean[])
            AS g (bison_instance, base_url, is_former)
    ) AS w
    ORDER BY w.bison_instance, w.origin, w.is_former
),

removed AS (
    DELETE FROM bisonsync_private.instance_origins AS i
    WHERE CASE
        WHEN i.bison_instance IN (SELECT w.bison_instance FROM wanted AS w)
            THEN NOT EXISTS (
                SELECT FROM wanted AS w WHERE w.bison_instance = i.bison_instance AND w.origin = i.origin
            )
        ELSE i.origin IN (SELECT w.origin FROM wanted AS w WHERE NOT w.is_former)
    END
)

INSERT INTO bisonsync_private.instance_origins AS i (bison_instance, base_url, origin, is_former)
SELECT w.bison_instance, w.base_url, w.origin, w.is_former
FROM wanted AS w
WHERE NOT EXISTS (
    SELECT
    FROM bisonsync_private.instance_origins AS k
    WHERE
        k.bison_instance = w.bison_instance
        AND k.base_url = w.base_url
        AND k.origin = w.origin
        AND k.is_former = w.is_former
)
ON CONFLICT (bison_instance, origin) DO UPDATE SET base_url = excluded.base_url, is_former = excluded.is_former;
