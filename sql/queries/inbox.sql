-- name: list_deliveries
-- The deliveries that fit, those stored last first; a parameter that is null says nothing. Locks nothing.
SELECT
    l.id,
    l.received_at,
    l.status,
    l.event_type,
    l.bison_instance,
    l.bison_workspace_id,
    l.workspace_name,
    l.source,
    l.attempts,
    l.next_attempt_at,
    l.error_message
FROM webhook_delivery_log AS l
WHERE
    (%(statuses)s::text[] IS NULL OR l.status = ANY(%(statuses)s::text[]))
    AND (%(event_types)s::text[] IS NULL OR l.event_type = ANY(%(event_types)s::text[]))
    AND (%(sources)s::text[] IS NULL OR l.source = ANY(%(sources)s::text[]))
    AND (%(instances)s::text[] IS NULL OR l.bison_instance = ANY(%(instances)s::text[]))
    AND (%(workspace_ids)s::bigint[] IS NULL OR l.bison_workspace_id = ANY(%(workspace_ids)s::bigint[]))
    AND (%(ids)s::bigint[] IS NULL OR l.id = ANY(%(ids)s::bigint[]))
    AND (%(since)s::timestamptz IS NULL OR l.received_at >= %(since)s::timestamptz)
    AND (%(until)s::timestamptz IS NULL OR l.received_at < %(until)s::timestamptz)
    AND (%(before_id)s::bigint IS NULL OR l.id < %(before_id)s::bigint)
ORDER BY l.id DESC
LIMIT %(limit)s::integer;

-- name: count_letters
-- How many deliveries of two kinds there are: dead, and of another workspace than their address; by type and reason.
SELECT l.status, l.event_type, l.error_message, count(*) AS deliveries, min(l.id) AS first_id
FROM webhook_delivery_log AS l
WHERE
    l.status = ANY(%(statuses)s::text[])
    AND (%(event_types)s::text[] IS NULL OR l.event_type = ANY(%(event_types)s::text[]))
    AND (%(instances)s::text[] IS NULL OR l.bison_instance = ANY(%(instances)s::text[]))
    AND (%(workspace_ids)s::bigint[] IS NULL OR l.bison_workspace_id = ANY(%(workspace_ids)s::bigint[]))
    AND (%(ids)s::bigint[] IS NULL OR l.id = ANY(%(ids)s::bigint[]))
GROUP BY l.status, l.event_type, l.error_message
ORDER BY l.status, deliveries DESC, first_id;

-- name: get_delivery
-- Everything about one delivery, and what its event counted under its key, if anything still says so; locks nothing.
SELECT
    l.id,
    l.received_at,
    l.source,
    l.event_type,
    l.bison_instance,
    l.bison_workspace_id,
    l.workspace_name,
    l.hook_instance,
    l.hook_workspace_id,
    l.occurred_at,
    l.occurred_rule,
    l.payload,
    length(l.payload_raw) AS payload_raw_bytes,
    l.dedup_key,
    l.dedup_rule,
    l.status,
    l.success,
    l.attempts,
    l.next_attempt_at,
    l.error_message,
    l.processing_time_ms,
    l.processed_at,
    l.processor_version,
    k.delivery_id AS counted_by,
    k.metric,
    k.amount
FROM webhook_delivery_log AS l
LEFT JOIN webhook_event_keys AS k
    ON
        k.bison_instance = l.bison_instance
        AND k.bison_workspace_id = l.bison_workspace_id
        AND k.event_type = l.event_type
        AND k.dedup_key = l.dedup_key
WHERE l.id = %(id)s::bigint
ORDER BY l.received_at
LIMIT 1;

-- name: requeue_letters
-- Forgets how often dead deliveries with an id above one were tried, so many at most in order of id; their keys. Of those
-- of another workspace the ones that are none any more, and whichever is asked for by its id. They stay what they are
-- until they are applied. Locks them, skipping those that others hold.
WITH chosen AS MATERIALIZED (
    SELECT l.id, l.received_at
    FROM webhook_delivery_log AS l
    WHERE
        (
            l.status = 'dead'
            OR (
                l.status = 'mismatch'
                AND (
                    %(ids)s::bigint[] IS NOT NULL
                    OR (l.id, l.received_at) IN (
                        SELECT m.id, m.received_at FROM bisonsync_private.due_mismatches() AS m
                    )
                )
            )
        )
        AND l.id > %(after_id)s::bigint
        AND (%(event_types)s::text[] IS NULL OR l.event_type = ANY(%(event_types)s::text[]))
        AND (%(instances)s::text[] IS NULL OR l.bison_instance = ANY(%(instances)s::text[]))
        AND (%(workspace_ids)s::bigint[] IS NULL OR l.bison_workspace_id = ANY(%(workspace_ids)s::bigint[]))
        AND (%(ids)s::bigint[] IS NULL OR l.id = ANY(%(ids)s::bigint[]))
    ORDER BY l.id
    LIMIT %(limit)s::integer
    FOR UPDATE SKIP LOCKED
)

UPDATE webhook_delivery_log AS l
SET attempts = 0
FROM chosen AS c
WHERE l.id = c.id AND l.received_at = c.received_at
RETURNING l.id, l.received_at;

-- name: discard_letters
-- Settles dead deliveries, or those of another workspace, with an id above one, so many at most in order of id; their
-- keys. Decided by nobody's rules, they are never applied again. Locks them, skipping those that others hold.
WITH chosen AS MATERIALIZED (
    SELECT l.id, l.received_at
    FROM webhook_delivery_log AS l
    WHERE
        l.status = ANY(%(statuses)s::text[])
        AND l.id > %(after_id)s::bigint
        AND (%(event_types)s::text[] IS NULL OR l.event_type = ANY(%(event_types)s::text[]))
        AND (%(instances)s::text[] IS NULL OR l.bison_instance = ANY(%(instances)s::text[]))
        AND (%(workspace_ids)s::bigint[] IS NULL OR l.bison_workspace_id = ANY(%(workspace_ids)s::bigint[]))
        AND (%(ids)s::bigint[] IS NULL OR l.id = ANY(%(ids)s::bigint[]))
    ORDER BY l.id
    LIMIT %(limit)s::integer
    FOR UPDATE SKIP LOCKED
)

UPDATE webhook_delivery_log AS l
SET
    status = 'ignored',
    success = true,
    next_attempt_at = NULL,
    processed_at = now(),
    processor_version = NULL,
    error_message = %(reason)s::text || '; it was ' || l.status || coalesce(': ' || l.error_message, '')
FROM chosen AS c
WHERE l.id = c.id AND l.received_at = c.received_at
RETURNING l.id, l.received_at;

-- name: hold_days
-- Keeps prune from putting a slim copy in a day's place until the transaction ends; before anything is changed.
SELECT pg_advisory_xact_lock_shared(hashtextextended('webhook_delivery_log days', 0));
