-- name: read_now
-- The database's clock; locks nothing.
SELECT clock_timestamp();
