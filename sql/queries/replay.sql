-- name: count_due
-- What is due, counted by status, type and workspace. Locks nothing.
SELECT
    d.status, d.event_type, d.bison_instance, d.bison_workspace_id,
    count(*) AS deliveries, count(*) FILTER (WHERE d.is_pruned) AS pruned, max(d.id) AS last_id
FROM bisonsync_private.due_deliveries() AS d
GROUP BY d.status, d.event_type, d.bison_instance, d.bison_workspace_id
ORDER BY deliveries DESC, d.status, d.event_type, d.bison_instance, d.bison_workspace_id;

-- name: list_due
-- The next that are due, in the order of arrival, up to a last one. Locks nothing.
WITH due AS MATERIALIZED (
    -- Found by what is open, never by walking along the whole log.
    SELECT d.id, d.received_at, d.status
    FROM bisonsync_private.due_deliveries() AS d
    WHERE d.id >= %(after_id)s::bigint AND d.id <= %(last_id)s::bigint
)

SELECT d.id, d.received_at, d.status
FROM due AS d
WHERE (d.id, d.received_at) > (%(after_id)s::bigint, %(after_received_at)s::timestamptz)
ORDER BY d.id, d.received_at
LIMIT %(limit)s::bigint;

-- name: count_chosen
-- What fits a choice, counted by status, type and workspace. Locks nothing.
SELECT
    c.status, c.event_type, c.bison_instance, c.bison_workspace_id,
    count(*) AS deliveries, count(*) FILTER (WHERE c.is_pruned) AS pruned, max(c.id) AS last_id
FROM bisonsync_private.chosen_deliveries(
    %(since)s::timestamptz, %(until)s::timestamptz, %(event_types)s::text[], %(statuses)s::text[],
    %(workspace_instances)s::text[], %(workspace_ids)s::bigint[], %(instances)s::text[], %(ids)s::bigint[],
    %(older_than)s::integer
) AS c
GROUP BY c.status, c.event_type, c.bison_instance, c.bison_workspace_id
ORDER BY deliveries DESC, c.status, c.event_type, c.bison_instance, c.bison_workspace_id;

-- name: list_chosen
-- The next that fit a choice, in the order of arrival, up to a last one. Locks nothing.
SELECT c.id, c.received_at, c.status
FROM bisonsync_private.chosen_deliveries(
    %(since)s::timestamptz, %(until)s::timestamptz, %(event_types)s::text[], %(statuses)s::text[],
    %(workspace_instances)s::text[], %(workspace_ids)s::bigint[], %(instances)s::text[], %(ids)s::bigint[],
    %(older_than)s::integer
) AS c
WHERE
    (c.id, c.received_at) > (%(after_id)s::bigint, %(after_received_at)s::timestamptz)
    AND c.id <= %(last_id)s::bigint
ORDER BY c.id, c.received_at
LIMIT %(limit)s::bigint;

-- name: list_missing_ids
-- Those of the given ids that no delivery has. Locks nothing.
SELECT i.id
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS i (id, place)
WHERE NOT EXISTS (SELECT FROM webhook_delivery_log AS l WHERE l.id = i.id)
ORDER BY i.place;
