-- name: list_months
-- The first month that can be folded, as no key of it may be gone; the reporting zone; and the months before that have
-- counters. Locks nothing.
SELECT
    o.first_open,
    s.reporting_timezone AS timezone,
    coalesce(
        (SELECT array_agg(DISTINCT m.metric_month) FROM client_metrics AS m WHERE m.metric_month < o.first_open), '{}'
    ) AS closed
FROM bisonsync_private.webhook_settings AS s
CROSS JOIN LATERAL (
    SELECT
        coalesce(%(now)s::timestamptz, now()) - make_interval(days => %(retention_days)s::integer) AS kept_since
) AS k
CROSS JOIN LATERAL (
    SELECT
        (date_trunc('month', b.local) + CASE
            WHEN date_trunc('month', b.local) AT TIME ZONE s.reporting_timezone < b.moment THEN interval '1 month' ELSE interval '0'
        END)::date AS first_open
    FROM (
        SELECT
            greatest(k.kept_since, s.keys_pruned_before) AS moment,
            greatest(k.kept_since, s.keys_pruned_before) AT TIME ZONE s.reporting_timezone AS local
    ) AS b
) AS o;

-- name: list_differences
-- The counters that differ from the fold of the keys; one snapshot, locks nothing.
SELECT d.bison_instance, d.bison_workspace_id, d.metric_month, d.counter, d.stored, d.folded
FROM bisonsync_private.compare_counters(
    %(instances)s::text[], %(workspace_ids)s::bigint[], %(first_month)s::date, %(last_month)s::date
) AS d;

-- name: repair_counters
-- Sets one workspace's counters of a month to the fold of its keys; those that were wrong. Locks them.
SELECT d.bison_instance, d.bison_workspace_id, d.metric_month, d.counter, d.stored, d.folded
FROM bisonsync_private.repair_counters(%(instance)s::text, %(workspace_id)s::bigint, %(month)s::date) AS d;
