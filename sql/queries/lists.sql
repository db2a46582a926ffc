-- name: find_recent_read
-- When the last complete read of a list of a workspace began, if that is less than so long ago; locks nothing.
SELECT s.last_complete_at
FROM workspace_sync_state AS s
WHERE
    s.bison_instance = %(instance)s::text
    AND s.bison_workspace_id = %(workspace_id)s::bigint
    AND s.resource = %(resource)s::text
    AND s.last_complete_at > now() - make_interval(secs => %(seconds)s::double precision);

-- name: judge_shrink
-- What a complete read says of the live rows that it did not show: which to remove, which to hold back; locks nothing.
-- Held back is a removal of more than max_shrink of all and more than max_shrink_rows, until a complete read at least
-- shrink_confirm_seconds later misses the same ones; and always the removal of every row.
WITH missing AS (
    SELECT m.id FROM unnest(%(missing_ids)s::bigint[]) AS m (id)
),

pending AS (
    SELECT s.shrink_pending_since AS since, coalesce(s.shrink_missing_ids, '{}') AS ids
    FROM workspace_sync_state AS s
    WHERE
        s.bison_instance = %(instance)s::text
        AND s.bison_workspace_id = %(workspace_id)s::bigint
        AND s.resource = %(resource)s::text
        AND s.shrink_pending_since IS NOT NULL
),

confirmed AS (
    SELECT m.id
    FROM missing AS m, pending AS p
    WHERE
        p.since <= %(read_started_at)s::timestamptz
        - make_interval(secs => %(shrink_confirm_seconds)s::double precision)
        AND m.id = any(p.ids)
),

doubtful AS (
    SELECT m.id FROM missing AS m
    EXCEPT
    SELECT f.id FROM confirmed AS f
),

numbers AS (
    SELECT
        %(live)s::bigint AS live,
        (SELECT count(*) FROM missing) AS missing,
        (SELECT count(*) FROM doubtful) AS doubtful
),

verdict AS (
    SELECT
        n.live,
        n.missing,
        CASE
            WHEN %(allow_shrink)s::boolean OR n.missing = 0 THEN 'remove'
            WHEN n.missing = n.live THEN 'hold_all'
            WHEN
                n.doubtful > %(max_shrink_rows)s::bigint
                AND n.doubtful > %(max_shrink)s::double precision * n.live
                THEN 'hold_doubtful'
            ELSE 'remove'
        END AS decision
    FROM numbers AS n
)

SELECT
    v.live,
    v.missing,
    v.decision,
    CASE v.decision
        WHEN 'remove' THEN (SELECT coalesce(array_agg(m.id), '{}') FROM missing AS m)
        WHEN 'hold_doubtful' THEN (SELECT coalesce(array_agg(f.id), '{}') FROM confirmed AS f)
        ELSE '{}'::bigint[]
    END AS remove_ids,
    CASE
        WHEN v.decision = 'remove' THEN NULL
        -- Those that came back meanwhile leave the list; if nothing of it is left the wait begins anew.
        WHEN
            v.decision = 'hold_doubtful'
            AND NOT EXISTS (SELECT FROM confirmed)
            AND EXISTS (SELECT FROM doubtful AS x, pending AS p WHERE x.id = any(p.ids))
            THEN (
                SELECT array_agg(x.id)
                FROM doubtful AS x, pending AS p WHERE x.id = any(p.ids)
            )
        ELSE (SELECT array_agg(m.id) FROM doubtful AS m)
    END AS pending_ids,
    CASE
        WHEN v.decision = 'remove' THEN NULL
        WHEN
            NOT EXISTS (SELECT FROM confirmed)
            AND EXISTS (SELECT FROM doubtful AS x, pending AS p WHERE x.id = any(p.ids))
            THEN (SELECT p.since FROM pending AS p)
        ELSE %(read_started_at)s::timestamptz
    END AS pending_since
FROM verdict AS v;

-- name: leave_out_fields
-- Leaves unknown fields out of the comparison that moved in nearly all rows of so many reads in a row, by what this run
-- has seen; those left out now, and whether each is for the first time.
INSERT INTO bisonsync_private.left_out_fields AS l (bison_instance, resource, field, path, accounts, try_again_at)
SELECT
    s.bison_instance,
    s.resource,
    m.field,
    array(SELECT p.name FROM jsonb_array_elements_text((array_agg(m.state -> 'path'))[1]) AS p (name)),
    sum((m.state ->> 'accounts')::bigint),
    now() + interval '7 days'
FROM workspace_sync_state AS s
CROSS JOIN LATERAL jsonb_each(s.moving_fields) AS m (field, state)
WHERE
    s.last_run_id = %(run_id)s::uuid
    AND s.resource = %(resource)s::text
    AND (m.state ->> 'reads')::integer >= %(reads)s::integer
GROUP BY s.bison_instance, s.resource, m.field
HAVING sum((m.state ->> 'accounts')::bigint) >= %(min_rows)s::bigint
ON CONFLICT (bison_instance, resource, field) DO UPDATE SET
    path = excluded.path,
    accounts = excluded.accounts,
    left_out_at = now(),
    try_again_at = excluded.try_again_at,
    times = l.times + 1
WHERE l.try_again_at <= now()
RETURNING l.bison_instance, l.field, l.accounts AS rows, l.times = 1 AS is_first;

-- name: forget_left_out_fields
-- Forgets fields that were left out by themselves, for the settings leave them out now.
DELETE FROM bisonsync_private.left_out_fields
WHERE bison_instance = any(%(instances)s::text[]) AND resource = %(resource)s::text AND field = any(%(fields)s::text[]);

-- name: quarantine_rows
-- Keeps rows that could not be read or stored, and notes on fields of rows that were taken all the same; one already
-- kept with the same fault is not kept twice, whatever else in it moved since.
INSERT INTO data_validation_errors (
    source, bison_instance, bison_workspace_id, workspace, record_id, field, error_type, message, "row", row_hash,
    is_note, run_id
)
SELECT
    %(source)s::text, %(instance)s::text, %(workspace_id)s::bigint, %(workspace_name)s::text,
    r.record_id, r.field, r.error_type, r.message, r."row",
    md5(coalesce(r."row" -> split_part(r.field, '.', 1), r."row", 'null')::text), r.is_note, %(run_id)s::uuid
FROM jsonb_to_recordset(%(faults)s::jsonb) AS r (
    record_id text, field text, error_type text, message text, "row" jsonb, is_note boolean
)
ON CONFLICT DO NOTHING;

-- name: resolve_quarantine
-- Closes the kept faults of this list that a complete read no longer shows.
UPDATE data_validation_errors AS e
SET resolved_at = now()
WHERE
    e.source = %(source)s::text
    AND e.bison_instance = %(instance)s::text
    AND e.bison_workspace_id = %(workspace_id)s::bigint
    AND e.resolved_at IS NULL
    AND NOT EXISTS (
        SELECT
        FROM jsonb_to_recordset(%(faults)s::jsonb) AS r (
            record_id text, field text, error_type text, "row" jsonb, is_note boolean
        )
        WHERE
            r.record_id IS NOT DISTINCT FROM e.record_id
            AND r.field = e.field
            AND r.error_type = e.error_type
            AND r.is_note = e.is_note
            AND md5(coalesce(r."row" -> split_part(r.field, '.', 1), r."row", 'null')::text) = e.row_hash
    );
