CREATE OR REPLACE FUNCTION bisonsync_private.compare_snapshot(
    p_instance text,
    p_workspace_id bigint,
    p_day date,
    p_source text,
    p_zone text
)
RETURNS TABLE (
    action text,
    bison_account_id bigint,
    emails_sent_count bigint,
    total_replied_count bigint,
    unique_replied_count bigint,
    total_opened_count bigint,
    unique_opened_count bigint,
    bounced_count bigint,
    unsubscribed_count bigint,
    interested_leads_count bigint,
    total_leads_contacted_count bigint,
    email_provider text,
    reseller text,
    domain text,
    is_connected boolean,
    daily_limit bigint,
    volume_per_account numeric,
    price numeric,
    created_on date,
    source text
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        CASE
            WHEN d.bison_account_id IS NULL THEN 'insert'
            WHEN (
                a.emails_sent_count, a.total_replied_count, a.unique_replied_count, a.total_opened_count,
                a.unique_opened_count, a.bounced_count, a.unsubscribed_count, a.interested_leads_count,
                a.total_leads_contacted_count, a.email_provider, a.reseller, a.domain, a.is_connected, a.daily_limit,
                a.volume_per_account, a.price, (a.bison_created_at AT TIME ZONE p_zone)::date, p_source
            ) IS DISTINCT FROM (
                d.emails_sent_count, d.total_replied_count, d.unique_replied_count, d.total_opened_count,
                d.unique_opened_count, d.bounced_count, d.unsubscribed_count, d.interested_leads_count,
                d.total_leads_contacted_count, d.email_provider, d.reseller, d.domain, d.is_connected, d.daily_limit,
                d.volume_per_account, d.price, d.created_on, d.source
            ) THEN 'update'
            ELSE 'keep'
        END,
        a.bison_account_id,
        a.emails_sent_count,
        a.total_replied_count,
        a.unique_replied_count,
        a.total_opened_count,
        a.unique_opened_count,
        a.bounced_count,
        a.unsubscribed_count,
        a.interested_leads_count,
        a.total_leads_contacted_count,
        a.email_provider,
        a.reseller,
        a.domain,
        a.is_connected,
        a.daily_limit,
        a.volume_per_account,
        a.price,
        (a.bison_created_at AT TIME ZONE p_zone)::date,
        p_source
    FROM public.sender_emails_cache AS a
    LEFT JOIN public.sender_email_daily AS d
        ON
            d.snapshot_date = p_day
            AND d.bison_instance = p_instance
            AND d.bison_workspace_id = p_workspace_id
            AND d.bison_account_id = a.bison_account_id
    WHERE a.bison_instance = p_instance AND a.bison_workspace_id = p_workspace_id AND a.removed_at IS NULL
$$;

COMMENT ON FUNCTION bisonsync_private.compare_snapshot(text, bigint, date, text, text) IS
    'What recording the mirror of one workspace as of a day means for each account present: insert, update or keep, with the values that its row of sender_email_daily should have. Rows of accounts that are gone since are none of it: they stay. Reads only.';
