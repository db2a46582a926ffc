CREATE OR REPLACE FUNCTION bisonsync_private.access_list()
RETURNS TABLE (
    kind text,
    identity text,
    service_privileges text[],
    reader_columns text[],
    is_published boolean
)
LANGUAGE sql
STABLE
-- Names are compared as the server spells them.
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
    VALUES
    ('SCHEMA', 'bisonsync_private', '{}'::text[], NULL::text[], false),
    ('TABLE', 'public.bisonsync_migrations', '{SELECT}', NULL, false),
    ('TABLE', 'public.bisonsync_objects', '{SELECT}', NULL, false),
    ('TABLE', 'public.client_registry', '{SELECT,INSERT,UPDATE,DELETE}', '{
        bison_instance,bison_workspace_id,workspace_name,display_name,is_active,monthly_kpi_target,price_per_lead,
        monthly_retainer,notes,previous_name,renamed_at,vanished_at,last_seen_at,created_at,updated_at}', true),
    ('TABLE', 'public.sender_emails_cache', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', true),
    ('TABLE', 'public.campaigns_cache', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', true),
    ('TABLE', 'public.sender_email_warmup', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', false),
    ('TABLE', 'public.email_account_metadata', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('TABLE', 'public.email_sync_logs', '{SELECT,INSERT,UPDATE,DELETE}', '{
        run_id,job,status,exit_code,started_at,finished_at,duration_ms,counts,workspaces_failed,lost,version,covers}', false),
    ('TABLE', 'public.email_sync_log_workspaces', '{SELECT,INSERT,UPDATE,DELETE}', '{
        run_id,bison_instance,bison_workspace_id,resource,workspace_name,verdict,counts,committed_at}', false),
    ('TABLE', 'public.workspace_sync_state', '{SELECT,INSERT,UPDATE,DELETE}', '{
        bison_instance,bison_workspace_id,resource,last_attempt_at,last_complete_at,read_started_at,total,distinct_ids,
        verdict,consecutive_failures,last_run_id,shrink_pending_since,interval_seconds,due_since}', true),
    ('TABLE', 'public.data_validation_errors', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('SEQUENCE', 'public.data_validation_errors_id_seq', '{USAGE}', NULL, false),
    ('TABLE', 'public.api_health_logs', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', false),
    ('SEQUENCE', 'public.api_health_logs_id_seq', '{USAGE}', NULL, false),
    ('TABLE', 'public.job_leases', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('TABLE', 'public.rate_budgets', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('TABLE', 'public.heartbeats', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('TABLE', 'public.alert_episodes', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('SEQUENCE', 'public.alert_episodes_id_seq', '{USAGE}', NULL, false),
    ('TABLE', 'public.alert_messages', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('SEQUENCE', 'public.alert_messages_id_seq', '{USAGE}', NULL, false),
    ('TABLE', 'public.sender_email_daily', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', false),
    ('TABLE', 'public.workspace_snapshots', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', false),
    ('TABLE', 'public.provider_performance_history', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', true),
    ('TABLE', 'public.webhook_delivery_log', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('SEQUENCE', 'public.webhook_delivery_log_id_seq', '{USAGE}', NULL, false),
    ('TABLE', 'public.webhook_event_keys', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false),
    ('TABLE', 'public.client_metrics', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', true),
    ('TABLE', 'public.client_leads', '{SELECT,INSERT,UPDATE,DELETE}', '{*}', true),
    ('TABLE', 'public.email_accounts_live', '{SELECT}', '{*}', false),
    ('TABLE', 'public.infrastructure_dashboard', '{SELECT}', '{*}', false),
    ('TABLE', 'public.bisonsync_lists', '{SELECT}', '{*}', false),
    ('TABLE', 'public.data_freshness', '{SELECT}', '{*}', false),
    ('TABLE', 'public.data_cache_metadata', '{SELECT}', '{*}', false),
    ('TABLE', 'public.dashboard_health_summary', '{SELECT}', '{*}', false),
    ('TABLE', 'public.webhook_health', '{SELECT}', NULL, false),
    ('FUNCTION', 'public.ingest_webhook', '{EXECUTE}', NULL, false),
    ('FUNCTION', 'public.increment_metric', '{EXECUTE}', NULL, false),
    ('FUNCTION', 'public.daily_differences', '{EXECUTE}', '{*}', false),
    ('FUNCTION', 'public.performance_by', '{EXECUTE}', '{*}', false),
    ('FUNCTION', 'public.get_email_sync_health', '{EXECUTE}', '{*}', false),
    ('FUNCTION', 'public.get_account_status_stats', '{EXECUTE}', '{*}', false),
    ('FUNCTION', 'public.cleanup_old_email_sync_logs', '{EXECUTE}', NULL, false),
    ('FUNCTION', 'public.aggregate_provider_stats', '{EXECUTE}', '{*}', false),
    ('FUNCTION', 'public.fall_p_value', '{EXECUTE}', '{*}', false),
    ('FUNCTION', 'public.check_provider_reply_rate_drop', '{EXECUTE}', '{*}', false)
    UNION ALL
    -- Whoever may read or write a table does so through it, not by its partitions.
    SELECT 'TABLE', 'public.' || c.relname, '{}', NULL, false
    FROM pg_inherits AS i
    INNER JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent IN (to_regclass('public.sender_email_daily'), to_regclass('public.webhook_delivery_log'))
    UNION ALL
    -- Nobody but the owner enters bisonsync_private.
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, 'bisonsync_private.' || c.relname, '{}', NULL, false
    FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace('bisonsync_private') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT DISTINCT 'FUNCTION', 'bisonsync_private.' || p.proname, '{}'::text[], NULL::text[], false
    FROM pg_proc AS p
    WHERE p.pronamespace = to_regnamespace('bisonsync_private')
$$;

COMMENT ON FUNCTION bisonsync_private.access_list() IS
    'Who may do what with every object of bisonsync (schema and name as the catalogs hold them, never quoted): what service_role may, what the readers named in the settings may see (null: nothing, *: all, else those columns), and whether Realtime publishes it. Nobody else may do anything.';
