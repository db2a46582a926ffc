-- name: count_accounts
-- The accounts present, counted per workspace and provider, whatever their age; locks nothing.
SELECT
    d.bison_instance,
    d.bison_workspace_id,
    max(d.client_name) AS name,
    bool_or(d.workspace_is_active) AS workspace_is_active,
    max(d.as_of) AS as_of,
    extract(epoch FROM now() - max(d.as_of))::double precision AS age_seconds,
    d.email_provider,
    count(*) AS accounts,
    count(*) FILTER (WHERE d.is_connected) AS connected,
    sum(d.emails_sent_count)::bigint AS sent,
    sum(d.total_replied_count)::bigint AS replies,
    sum(d.unique_replied_count)::bigint AS unique_replies,
    sum(d.bounced_count)::bigint AS bounced
FROM infrastructure_dashboard AS d
WHERE
    %(instances)s::text[] IS NULL
    OR EXISTS (
        SELECT FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (instance, workspace_id)
        WHERE w.instance = d.bison_instance AND w.workspace_id = d.bison_workspace_id
    )
GROUP BY d.bison_instance, d.bison_workspace_id, d.email_provider
ORDER BY d.bison_instance, d.bison_workspace_id, count(*) DESC, d.email_provider;

-- name: list_freshness
-- How each list of each active workspace stands, with why its last read was not complete; locks nothing.
SELECT
    f.bison_instance,
    f.bison_workspace_id,
    coalesce(r.display_name, f.workspace_name) AS name,
    f.resource,
    f.state,
    f.verdict,
    f.is_complete,
    f.as_of,
    f.last_attempt_at,
    f.age_seconds::double precision AS age_seconds,
    f.interval_seconds,
    f.total,
    f.distinct_ids,
    f.consecutive_failures,
    s.last_error
FROM data_freshness AS f
LEFT JOIN workspace_sync_state AS s
    ON s.bison_instance = f.bison_instance AND s.bison_workspace_id = f.bison_workspace_id AND s.resource = f.resource
LEFT JOIN client_registry AS r
    ON r.bison_instance = f.bison_instance AND r.bison_workspace_id = f.bison_workspace_id
WHERE
    %(instances)s::text[] IS NULL
    OR EXISTS (
        SELECT FROM unnest(%(instances)s::text[], %(workspace_ids)s::bigint[]) AS w (instance, workspace_id)
        WHERE w.instance = f.bison_instance AND w.workspace_id = f.bison_workspace_id
    )
ORDER BY f.bison_instance, f.bison_workspace_id, f.resource;
