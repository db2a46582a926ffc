-- name: list_clients
-- The workspaces that have a channel of their own: its name is in their reference.
SELECT
    bison_instance,
    bison_workspace_id,
    coalesce(nullif(trim(display_name), ''), workspace_name) AS name,
    trim(slack_webhook_url_ref) AS channel
FROM client_registry
WHERE trim(slack_webhook_url_ref) <> ''
ORDER BY bison_instance, bison_workspace_id;

-- name: lock_open_episodes
-- The open episodes of some checks; locks them, so that of two looks at once one counts after the other.
SELECT
    id, check_name, scope, state, first_bad_at, last_seen_at, bad_count, good_count, opened_at, channel, told_state,
    paged_at, last_message_at, reminders, closed_at, value, unit, detail, hint, workspaces, caused_by
FROM alert_episodes
WHERE check_name = any(%(checks)s::text[]) AND closed_at IS NULL
ORDER BY id
FOR UPDATE;

-- name: list_open_episodes
-- The open episodes of some checks as they stand, also where nothing can be written; locks nothing.
SELECT
    id, check_name, scope, state, first_bad_at, last_seen_at, bad_count, good_count, opened_at, channel, told_state,
    paged_at, last_message_at, reminders, closed_at, value, unit, detail, hint, workspaces, caused_by
FROM alert_episodes
WHERE check_name = any(%(checks)s::text[]) AND closed_at IS NULL
ORDER BY id;

-- name: list_ended
-- Of some checks what was over at a moment or later, with when; locks nothing.
SELECT check_name, scope, max(closed_at) AS closed_at
FROM alert_episodes
WHERE check_name = any(%(checks)s::text[]) AND closed_at >= %(since)s::timestamptz
GROUP BY check_name, scope;

-- name: list_open_checks
-- The checks that have been told of and are not over; locks nothing.
SELECT DISTINCT check_name
FROM alert_episodes
WHERE closed_at IS NULL AND opened_at IS NOT NULL AND scope = '';

-- name: insert_episodes
-- Opens episodes; those that another run has opened in the meantime are left out. Their ids.
INSERT INTO alert_episodes (
    check_name, scope, state, first_bad_at, last_seen_at, bad_count, good_count, opened_at, channel, told_state,
    paged_at, last_message_at, reminders, value, unit, detail, hint, workspaces, caused_by
)
SELECT
    e.check_name, e.scope, e.state, e.first_bad_at, e.last_seen_at, e.bad_count, e.good_count, e.opened_at, e.channel,
    e.told_state, e.paged_at, e.last_message_at, e.reminders, e.value, e.unit, e.detail, e.hint, e.workspaces,
    e.caused_by
FROM jsonb_to_recordset(%(episodes)s::jsonb) AS e (
    check_name text, scope text, state text, first_bad_at timestamptz, last_seen_at timestamptz, bad_count integer,
    good_count integer, opened_at timestamptz, channel text, told_state text, paged_at timestamptz,
    last_message_at timestamptz, reminders integer, value double precision, unit text, detail text, hint text,
    workspaces text[], caused_by text
)
ORDER BY e.check_name, e.scope
ON CONFLICT (check_name, scope) WHERE closed_at IS NULL DO NOTHING
RETURNING id, check_name, scope;

-- name: update_episodes
-- Gives open episodes, which this transaction has locked, their new values.
UPDATE alert_episodes AS a
SET
    state = e.state,
    last_seen_at = e.last_seen_at,
    bad_count = e.bad_count,
    good_count = e.good_count,
    opened_at = e.opened_at,
    channel = e.channel,
    told_state = e.told_state,
    paged_at = e.paged_at,
    last_message_at = e.last_message_at,
    reminders = e.reminders,
    closed_at = e.closed_at,
    value = e.value,
    unit = e.unit,
    detail = e.detail,
    hint = e.hint,
    workspaces = e.workspaces,
    caused_by = e.caused_by
FROM jsonb_to_recordset(%(episodes)s::jsonb) AS e (
    id bigint, state text, last_seen_at timestamptz, bad_count integer, good_count integer, opened_at timestamptz,
    channel text, told_state text, paged_at timestamptz, last_message_at timestamptz, reminders integer,
    closed_at timestamptz, value double precision, unit text, detail text, hint text, workspaces text[],
    caused_by text
)
WHERE a.id = e.id;

-- name: drop_reminders
-- Drops the reminders of episodes that nobody has received and nobody is sending now: a newer message says more.
UPDATE alert_messages
SET dropped_at = %(now)s::timestamptz
WHERE
    episode_id = any(%(episode_ids)s::bigint[])
    AND kind = 'reminder'
    AND delivered_at IS NULL
    AND dropped_at IS NULL
    AND (claimed_until IS NULL OR claimed_until <= %(now)s::timestamptz);

-- name: insert_messages
-- Puts messages into the outbox, in the order given.
INSERT INTO alert_messages (episode_id, kind, channel, body, created_at, next_attempt_at)
SELECT m.episode_id, m.kind, m.channel, m.body, %(now)s::timestamptz, %(now)s::timestamptz
FROM jsonb_to_recordset(%(messages)s::jsonb) AS m (
    number integer, episode_id bigint, kind text, channel text, body jsonb
)
ORDER BY m.number;

-- name: claim_message
-- Claims the oldest message that is due, of a channel that no other run is writing to: it is recorded as sent before it
-- is. Passes over what is locked. With the seconds to wait, for no channel gets more than one message a second.
WITH heads AS (
    SELECT DISTINCT ON (m.channel) m.id
    FROM alert_messages AS m
    WHERE
        m.channel = any(%(channels)s::text[])
        AND m.delivered_at IS NULL
        AND m.dropped_at IS NULL
        -- What was refused for itself keeps back only its own episode.
        AND (m.holds_channel OR m.next_attempt_at <= %(now)s::timestamptz)
        AND NOT EXISTS (
            SELECT FROM alert_messages AS earlier
            WHERE
                earlier.episode_id = m.episode_id
                AND earlier.id < m.id
                AND earlier.delivered_at IS NULL
                AND earlier.dropped_at IS NULL
                AND NOT earlier.holds_channel
        )
    ORDER BY m.channel, m.id
),

mine AS (
    SELECT m.id, m.channel
    FROM alert_messages AS m
    INNER JOIN heads USING (id)
    WHERE
        -- What another run has changed since the heads were found shows only here, where the row is locked.
        m.delivered_at IS NULL
        AND m.dropped_at IS NULL
        AND m.next_attempt_at <= %(now)s::timestamptz
        AND (m.claimed_until IS NULL OR m.claimed_until <= %(now)s::timestamptz)
        AND NOT EXISTS (
            SELECT FROM alert_messages AS other
            WHERE
                other.channel = m.channel
                AND other.delivered_at IS NULL
                AND other.dropped_at IS NULL
                AND other.claimed_until > %(now)s::timestamptz
        )
    ORDER BY m.id
    LIMIT 1
    FOR UPDATE OF m SKIP LOCKED
)

UPDATE alert_messages AS m
SET
    attempts = m.attempts + 1,
    attempted_at = turn.at,
    claimed_until = turn.at + make_interval(secs => %(ttl_seconds)s::double precision),
    -- A claim that nobody gave back: that run ended before or after it had sent.
    may_have_arrived = m.may_have_arrived OR m.claimed_until IS NOT NULL
FROM mine, LATERAL (
    SELECT least(
        greatest(%(now)s::timestamptz, max(o.attempted_at) + interval '1 second'),
        %(now)s::timestamptz + interval '1 second'
    ) AS at
    FROM alert_messages AS o
    WHERE o.channel = mine.channel
) AS turn
WHERE m.id = mine.id
RETURNING
    m.id, m.kind, m.channel, m.body, m.attempts, m.may_have_arrived,
    extract(epoch FROM turn.at - %(now)s::timestamptz)::double precision AS wait_seconds;

-- name: record_delivery
-- Records that a message was received.
UPDATE alert_messages
SET delivered_at = %(now)s::timestamptz, claimed_until = NULL, last_error = NULL
WHERE id = %(id)s::bigint AND delivered_at IS NULL;

-- name: record_failure
-- Gives back a message that was not received, or may not have been, with the reason and when to try again.
UPDATE alert_messages
SET
    claimed_until = NULL,
    next_attempt_at = %(next_attempt_at)s::timestamptz,
    may_have_arrived = may_have_arrived OR %(may_have_arrived)s::boolean,
    holds_channel = %(holds_channel)s::boolean,
    last_error = %(error)s::text
WHERE id = %(id)s::bigint AND delivered_at IS NULL;

-- name: count_waiting
-- How many messages wait to be delivered, those of channels that are no longer set up included.
SELECT count(*) FROM alert_messages WHERE delivered_at IS NULL AND dropped_at IS NULL;

-- name: list_episodes
-- What is wrong now, the oldest first, then what was told of and ended in the last days, the latest first.
SELECT
    e.id, e.check_name, e.scope, e.state, e.first_bad_at, e.last_seen_at, e.bad_count, e.good_count, e.opened_at,
    e.paged_at, e.last_message_at, e.reminders, e.closed_at, e.value, e.unit, e.detail, e.hint, e.workspaces,
    e.caused_by,
    m.messages,
    m.undelivered,
    m.last_error
FROM alert_episodes AS e
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE m.dropped_at IS NULL) AS messages,
        count(*) FILTER (WHERE m.dropped_at IS NULL AND m.delivered_at IS NULL) AS undelivered,
        (array_agg(m.last_error ORDER BY m.id) FILTER (WHERE m.dropped_at IS NULL AND m.last_error IS NOT NULL))[1]
            AS last_error
    FROM alert_messages AS m
    WHERE m.episode_id = e.id
) AS m
WHERE
    e.closed_at IS NULL
    OR m.undelivered > 0
    OR (e.opened_at IS NOT NULL AND e.closed_at > clock_timestamp() - make_interval(days => %(days)s::integer))
ORDER BY e.closed_at DESC NULLS FIRST, e.first_bad_at, e.id
LIMIT %(limit)s::integer;

-- name: notify_change
-- Tells listeners once per committed change set.
SELECT pg_notify(
    'bisonsync',
    json_build_object('table', 'alert_episodes', 'workspace', NULL, 'kind', 'changed')::text
);
