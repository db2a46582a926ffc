CREATE OR REPLACE FUNCTION bisonsync_private.judge_snapshot(p_instance text, p_workspace_id bigint, p_zone text, p_force boolean)
RETURNS TABLE (
    snapshot_date date,
    is_complete boolean,
    source text,
    read_at timestamptz,
    refusal text
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        -- What is forced is said of today; else the figures are of the day on which they were read.
        CASE
            WHEN j.refusal IS NULL THEN (j.last_complete_at AT TIME ZONE p_zone)::date
            ELSE (now() AT TIME ZONE p_zone)::date
        END,
        j.refusal IS NULL,
        CASE WHEN j.refusal IS NULL THEN 'poll' ELSE 'forced' END,
        CASE WHEN j.refusal IS NULL THEN j.last_complete_at ELSE j.read_started_at END,
        CASE WHEN NOT p_force THEN j.refusal END
    FROM (
        SELECT
            s.last_complete_at,
            s.read_started_at,
            CASE
                WHEN s.last_complete_at IS NULL THEN 'it was never read completely'
                -- A time ahead of the clock is as wrong as one far behind.
                WHEN abs(extract(epoch FROM now() - s.last_complete_at)) > greatest(2 * s.interval_seconds::bigint, 900)
                    THEN
                    format(
                        'its last complete read was at %s UTC, %s minutes %s; at most %s are allowed',
                        to_char(s.last_complete_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
                        floor(abs(extract(epoch FROM now() - s.last_complete_at)) / 60),
                        CASE WHEN s.last_complete_at > now() THEN 'ahead of the clock' ELSE 'ago' END,
                        greatest(2 * s.interval_seconds::bigint, 900) / 60
                    )
                WHEN s.verdict IN ('incomplete', 'guarded')
                    THEN format('its last read was %s', s.verdict) || coalesce(': ' || s.last_error, '')
                -- A read that failed stored nothing: the mirror is still that of the complete one before.
                WHEN s.read_started_at > s.last_complete_at THEN 'the read that was stored last was not complete'
            END AS refusal
        FROM (VALUES (1)) AS one (row)
        LEFT JOIN public.workspace_sync_state AS s
            ON s.bison_instance = p_instance AND s.bison_workspace_id = p_workspace_id AND s.resource = 'accounts'
    ) AS j
$$;

COMMENT ON FUNCTION bisonsync_private.judge_snapshot(text, bigint, text, boolean) IS
    'Whether the mirror of one workspace may be recorded now, and as which day of the reporting zone p_zone; always one row. refusal: why not (never read completely, too long ago, last read not complete); null when it may, or when it is forced.';
