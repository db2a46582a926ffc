-- name: upsert_heartbeat
-- Notes how a ping fared; an error of null means that it arrived.
INSERT INTO heartbeats AS h (job, host, last_attempt_at, last_ok_at, last_error)
VALUES (
    %(job)s::text,
    %(host)s::text,
    clock_timestamp(),
    CASE WHEN %(error)s::text IS NULL THEN clock_timestamp() END,
    %(error)s::text
)
ON CONFLICT (job, host) DO UPDATE SET
    last_attempt_at = excluded.last_attempt_at,
    last_ok_at = coalesce(excluded.last_ok_at, h.last_ok_at),
    last_error = excluded.last_error;
