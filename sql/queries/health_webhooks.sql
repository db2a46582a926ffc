-- name: list_traffic
-- Of each active workspace: when webhooks last came (not what was fetched, and no test), since when it has a secret that
-- is taken, and, where nothing ever came, whether a test did; locks nothing.
SELECT
    r.bison_instance,
    r.bison_workspace_id,
    coalesce(r.display_name, r.workspace_name) AS name,
    t.last_at,
    s.made_at AS secret_since,
    t.last_at IS NULL AND EXISTS (
        SELECT
        FROM webhook_delivery_log AS l
        WHERE
            l.bison_instance = r.bison_instance
            AND l.bison_workspace_id = r.bison_workspace_id
            AND l.status = 'test'
    ) AS is_tested
FROM client_registry AS r
CROSS JOIN LATERAL (
    -- Nearly always it was today, and the partitions of other days are left alone.
    SELECT coalesce(
        (
            SELECT max(l.received_at)
            FROM webhook_delivery_log AS l
            WHERE
                l.bison_instance = r.bison_instance
                AND l.bison_workspace_id = r.bison_workspace_id
                AND l.source IN ('receiver', 'sql', 'legacy')
                AND l.status NOT IN ('test', 'mismatch')
                AND l.received_at > %(now)s::timestamptz - interval '24 hours'
        ),
        (
            SELECT max(l.received_at)
            FROM webhook_delivery_log AS l
            WHERE
                l.bison_instance = r.bison_instance
                AND l.bison_workspace_id = r.bison_workspace_id
                AND l.source IN ('receiver', 'sql', 'legacy')
                AND l.status NOT IN ('test', 'mismatch')
        )
    ) AS last_at
) AS t
LEFT JOIN LATERAL (
    SELECT min(k.made_at) AS made_at
    FROM bisonsync_private.webhook_secrets AS k
    WHERE
        k.bison_instance = r.bison_instance
        AND k.bison_workspace_id = r.bison_workspace_id
        AND k.retired_at IS NULL
) AS s ON true
WHERE r.is_active
ORDER BY r.bison_instance, r.bison_workspace_id;

-- name: list_silences
-- What is usual where nothing comes now. Comparable are the same time of the last four weeks, and of the last five
-- working days, before the last delivery; each as long as the silence (at most three days, and two hours), and ending
-- early by what may be late. Known: the workspace's log reaches back so far. Busy: enough came, not only in the half hour
-- by which days end earlier or later. And what the mirror says: whether the accounts were read since, and whether any of
-- them has sent or received anything; locks nothing.
WITH silent AS (
    SELECT
        s.*,
        -- Local time, for a working day begins an hour earlier in summer.
        %(now)s::timestamptz AT TIME ZONE %(timezone)s::text AS local_now,
        make_interval(secs => %(late_seconds)s::double precision) AS late,
        %(now)s::timestamptz - s.last_at AS lasting,
        extract(EPOCH FROM %(now)s::timestamptz - s.last_at) / 86400 AS days
    FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[], %(last_ats)s::timestamptz[])
        AS s (bison_instance, bison_workspace_id, last_at)
),

comparable AS (
    SELECT s.bison_instance, s.bison_workspace_id, 'week' AS kind, w.days, interval '3 days' AS longest
    FROM silent AS s
    CROSS JOIN LATERAL (
        SELECT 7 * (greatest(1, ceil(s.days / 7)) + n)::integer AS days FROM generate_series(0, 3) AS n
    ) AS w
    UNION ALL
    SELECT s.bison_instance, s.bison_workspace_id, 'workday', w.days, interval '2 hours'
    FROM silent AS s
    CROSS JOIN LATERAL (
        SELECT d.days
        FROM (
            SELECT (greatest(1, ceil(s.days)) + n)::integer AS days FROM generate_series(0, 6) AS n
        ) AS d
        WHERE
            extract(ISODOW FROM s.local_now) <= 5
            AND extract(ISODOW FROM s.local_now - make_interval(days => d.days)) <= 5
        ORDER BY d.days
        LIMIT 5
    ) AS w
),

counted AS (
    SELECT
        c.bison_instance,
        c.bison_workspace_id,
        count(*) FILTER (WHERE c.kind = 'week') AS weeks_known,
        count(*) FILTER (WHERE c.kind = 'week' AND n.is_busy) AS weeks_busy,
        count(*) FILTER (WHERE c.kind = 'workday') AS workdays_known,
        count(*) FILTER (WHERE c.kind = 'workday' AND n.is_busy) AS workdays_busy
    FROM comparable AS c
    INNER JOIN silent AS s USING (bison_instance, bison_workspace_id)
    CROSS JOIN LATERAL (
        SELECT e.then_at, e.then_at - s.late AS end_at, e.begin_at, e.begin_at + interval '30 minutes' AS sure_at
        FROM (
            SELECT
                (s.local_now - make_interval(days => c.days)) AT TIME ZONE %(timezone)s::text AS then_at,
                (
                    greatest(s.last_at, %(now)s::timestamptz - c.longest) AT TIME ZONE %(timezone)s::text
                    - make_interval(days => c.days)
                ) AT TIME ZONE %(timezone)s::text AS begin_at
        ) AS e
    ) AS t
    CROSS JOIN LATERAL (
        SELECT
            coalesce(sum(b.deliveries) FILTER (WHERE b.is_sure), 0) >= %(enough)s::bigint
            -- It has just begun: that it went on after this time of day tells it from the end of a day.
            OR (s.lasting < interval '3 hours' AND sum(b.deliveries) >= %(enough)s::bigint AND EXISTS (
                SELECT
                FROM webhook_delivery_log AS l
                WHERE
                    l.bison_instance = c.bison_instance
                    AND l.bison_workspace_id = c.bison_workspace_id
                    AND l.source IN ('receiver', 'sql', 'legacy')
                    AND l.status NOT IN ('test', 'mismatch')
                    AND l.received_at > t.sure_at
                    AND l.received_at <= t.then_at + interval '30 minutes'
            )) AS is_busy
        FROM (
            VALUES (false, t.begin_at, least(t.sure_at, t.end_at)), (true, t.sure_at, t.end_at)
        ) AS p (is_sure, begin_at, end_at)
        CROSS JOIN LATERAL (
            SELECT p.is_sure, count(*) AS deliveries
            FROM (
                SELECT
                FROM webhook_delivery_log AS l
                WHERE
                    l.bison_instance = c.bison_instance
                    AND l.bison_workspace_id = c.bison_workspace_id
                    AND l.source IN ('receiver', 'sql', 'legacy')
                    AND l.status NOT IN ('test', 'mismatch')
                    AND l.received_at > p.begin_at
                    AND l.received_at <= p.end_at
                LIMIT %(enough)s::bigint
            ) AS l
        ) AS b
    ) AS n
    WHERE
        t.begin_at >= (
            SELECT min(l.received_at)
            FROM webhook_delivery_log AS l
            WHERE
                l.bison_instance = c.bison_instance
                AND l.bison_workspace_id = c.bison_workspace_id
                AND l.source IN ('receiver', 'sql', 'legacy')
                AND l.status NOT IN ('test', 'mismatch')
        )
    GROUP BY c.bison_instance, c.bison_workspace_id
)

SELECT
    s.bison_instance,
    s.bison_workspace_id,
    coalesce(c.weeks_known, 0) AS weeks_known,
    coalesce(c.weeks_busy, 0) AS weeks_busy,
    coalesce(c.workdays_known, 0) AS workdays_known,
    coalesce(c.workdays_busy, 0) AS workdays_busy,
    k.last_complete_at AS accounts_read_at,
    coalesce(k.interval_seconds, b.default_interval_seconds) AS accounts_interval_seconds,
    a.changed_at AS accounts_changed_at,
    (s.last_at AT TIME ZONE %(timezone)s::text)::date < s.local_now::date AND coalesce(a.is_unmoved, false) AS is_unmoved
FROM silent AS s
INNER JOIN bisonsync_lists AS b ON b.resource = 'accounts'
LEFT JOIN counted AS c USING (bison_instance, bison_workspace_id)
LEFT JOIN workspace_sync_state AS k
    ON
        k.bison_instance = s.bison_instance
        AND k.bison_workspace_id = s.bison_workspace_id
        AND k.resource = b.resource
CROSS JOIN LATERAL (
    SELECT
        max(e.updated_at) AS changed_at,
        -- Since the end of the day of the last delivery, as far as that day was recorded.
        bool_and(
            (e.emails_sent_count, e.total_replied_count, e.bounced_count)
            IS NOT DISTINCT FROM (d.emails_sent_count, d.total_replied_count, d.bounced_count)
        ) AS is_unmoved
    FROM sender_emails_cache AS e
    LEFT JOIN sender_email_daily AS d
        ON
            d.snapshot_date = (s.last_at AT TIME ZONE %(timezone)s::text)::date
            AND d.bison_instance = e.bison_instance
            AND d.bison_workspace_id = e.bison_workspace_id
            AND d.bison_account_id = e.bison_account_id
    WHERE
        e.bison_instance = s.bison_instance
        AND e.bison_workspace_id = s.bison_workspace_id
        AND e.removed_at IS NULL
) AS a
ORDER BY s.bison_instance, s.bison_workspace_id;

-- name: has_deliveries
-- Whether any delivery is in the log.
SELECT EXISTS (SELECT FROM webhook_delivery_log);

-- name: has_secrets
-- Whether deliveries are taken under any stored secret.
SELECT EXISTS (SELECT FROM bisonsync_private.webhook_secrets WHERE retired_at IS NULL);

-- name: find_newest
-- When the newest delivery came that is decided, fetched ones included, no test and no mismatch; null: none in this time.
SELECT max(n.newest)
FROM (SELECT g.bison_instance, g.bison_workspace_id FROM client_registry AS g) AS r
CROSS JOIN LATERAL (
    SELECT max(l.received_at) AS newest
    FROM webhook_delivery_log AS l
    WHERE
        l.bison_instance = r.bison_instance
        AND l.bison_workspace_id = r.bison_workspace_id
        AND l.success IS NOT NULL
        AND l.status NOT IN ('test', 'mismatch')
        AND l.received_at > %(since)s::timestamptz
        AND l.received_at <= %(until)s::timestamptz
) AS n;

-- name: count_outcomes
-- The decided deliveries received in (since, until] by workspace (null: they do not tell theirs), and with how many of
-- them not all is well; tests and mismatches are left out; locks nothing.
SELECT
    o.bison_instance,
    o.bison_workspace_id,
    coalesce(r.display_name, r.workspace_name) AS name,
    o.decided,
    o.bad
FROM (
    SELECT
        l.bison_instance,
        l.bison_workspace_id,
        count(*) AS decided,
        count(*) FILTER (WHERE NOT l.success) AS bad
    FROM webhook_delivery_log AS l
    WHERE
        l.received_at > %(since)s::timestamptz
        AND l.received_at <= %(until)s::timestamptz
        AND l.success IS NOT NULL
        AND l.status NOT IN ('test', 'mismatch')
    GROUP BY l.bison_instance, l.bison_workspace_id
) AS o
LEFT JOIN client_registry AS r
    ON r.bison_instance = o.bison_instance AND r.bison_workspace_id = o.bison_workspace_id
WHERE r.is_active IS DISTINCT FROM false
ORDER BY o.bison_instance, o.bison_workspace_id;

-- name: sum_backlog
-- The deliveries that replay should have taken by now, how many there are and since when the first is due; those that
-- wait for their workspace are due once it is registered; locks nothing.
SELECT count(*) AS due, min(d.due_at) AS oldest_due_at
FROM (
    SELECT coalesce(l.next_attempt_at, l.received_at) AS due_at
    FROM webhook_delivery_log AS l
    WHERE l.status IN ('pending', 'failed')
    UNION ALL
    SELECT greatest(l.next_attempt_at, r.created_at)
    FROM webhook_delivery_log AS l
    INNER JOIN client_registry AS r
        ON r.bison_instance = l.bison_instance AND r.bison_workspace_id = l.bison_workspace_id
    WHERE l.status = 'unknown_workspace'
) AS d
WHERE d.due_at <= %(now)s::timestamptz;

-- name: list_dead
-- How many deliveries are dead, and of the newest thousand of them how many for which reason, the most first.
WITH newest AS (
    SELECT l.error_message, l.event_type
    FROM webhook_delivery_log AS l
    WHERE l.status = 'dead'
    ORDER BY l.received_at DESC
    LIMIT 1000
)

SELECT
    n.error_message AS reason,
    count(*) AS deliveries,
    (SELECT count(*) FROM webhook_delivery_log AS l WHERE l.status = 'dead') AS total
FROM newest AS n
GROUP BY n.error_message
ORDER BY deliveries DESC, reason
LIMIT 5;

-- name: list_mismatches
-- The deliveries of other workspaces that lie at the address of one, by that one, the newest first; since when by the
-- time they were stored, for what is pulled happened before.
SELECT
    l.hook_instance AS bison_instance,
    l.hook_workspace_id AS bison_workspace_id,
    max(coalesce(r.display_name, r.workspace_name)) AS name,
    count(*) AS deliveries,
    min(coalesce(l.processed_at, l.received_at)) AS first_at,
    max(coalesce(l.processed_at, l.received_at)) AS last_at,
    (array_agg(l.error_message ORDER BY l.id DESC))[1] AS reason
FROM webhook_delivery_log AS l
LEFT JOIN client_registry AS r
    ON r.bison_instance = l.hook_instance AND r.bison_workspace_id = l.hook_workspace_id
WHERE l.status = 'mismatch'
GROUP BY l.hook_instance, l.hook_workspace_id
ORDER BY last_at DESC;

-- name: list_unregistered
-- The workspaces that are not registered, whose deliveries wait for that, the most first.
SELECT
    l.bison_instance,
    l.bison_workspace_id,
    max(l.workspace_name) AS name,
    count(*) AS deliveries,
    min(l.received_at) AS first_at,
    max(l.error_message) AS reason
FROM webhook_delivery_log AS l
LEFT JOIN client_registry AS r
    ON r.bison_instance = l.bison_instance AND r.bison_workspace_id = l.bison_workspace_id
WHERE l.status = 'unknown_workspace' AND r.bison_workspace_id IS NULL
GROUP BY l.bison_instance, l.bison_workspace_id, CASE WHEN l.bison_workspace_id IS NULL THEN l.workspace_name END
ORDER BY deliveries DESC, l.bison_instance, l.bison_workspace_id
LIMIT 100;

-- name: list_unknown_types
-- The types of events since a moment that the rules do not know, in which workspace; reads one key of each type.
WITH RECURSIVE types AS (
    SELECT
        r.bison_instance,
        r.bison_workspace_id,
        (
            SELECT min(k.event_type)
            FROM webhook_event_keys AS k
            WHERE k.bison_instance = r.bison_instance AND k.bison_workspace_id = r.bison_workspace_id
        ) AS event_type
    FROM client_registry AS r
    UNION ALL
    SELECT
        t.bison_instance,
        t.bison_workspace_id,
        (
            SELECT min(k.event_type)
            FROM webhook_event_keys AS k
            WHERE
                k.bison_instance = t.bison_instance
                AND k.bison_workspace_id = t.bison_workspace_id
                AND k.event_type > t.event_type
        )
    FROM types AS t
    WHERE t.event_type IS NOT NULL
)

SELECT t.event_type, count(*) AS workspaces
FROM types AS t
WHERE
    NOT bisonsync_private.is_known_event_type(t.event_type)
    AND t.event_type <> ALL(%(without_effect)s::text[])
    AND EXISTS (
        SELECT
        FROM webhook_event_keys AS k
        WHERE
            k.bison_instance = t.bison_instance
            AND k.bison_workspace_id = t.bison_workspace_id
            AND k.event_type = t.event_type
            AND k.occurred_at > %(since)s::timestamptz
    )
GROUP BY t.event_type
ORDER BY workspaces DESC, t.event_type;

-- name: has_polled_figures
-- Whether the figures of any month were ever polled.
SELECT EXISTS (SELECT FROM client_metrics WHERE as_of IS NOT NULL);
