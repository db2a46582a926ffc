CREATE OR REPLACE FUNCTION public.daily_differences(from_date date, to_date date)
RETURNS TABLE (
    snapshot_date date,
    previous_date date,
    bison_instance text,
    bison_workspace_id bigint,
    bison_account_id bigint,
    email_provider text,
    reseller text,
    domain text,
    price numeric,
    is_new boolean,
    is_reset boolean,
    falling_counters integer,
    sent bigint,
    replies bigint,
    unique_replies bigint,
    opens bigint,
    unique_opens bigint,
    bounces bigint,
    unsubscribed bigint,
    interested bigint,
    leads_contacted bigint
)
LANGUAGE sql
STABLE
AS $$
    -- One plain SELECT without settings of its own: the planner puts it in the place of the call, reads only the months
    -- asked for, and leaves out the columns that nobody wants.
    SELECT
        r.snapshot_date,
        r.previous_date,
        r.bison_instance,
        r.bison_workspace_id,
        r.bison_account_id,
        r.email_provider,
        r.reseller,
        r.domain,
        r.price,
        z.is_new,
        z.is_reset,
        CASE
            WHEN z.is_reset THEN 0
            ELSE
                (r.total_replied_count < r.replies_before)::integer
                + (r.unique_replied_count < r.unique_replies_before)::integer
                + (r.total_opened_count < r.opens_before)::integer
                + (r.unique_opened_count < r.unique_opens_before)::integer
                + (r.bounced_count < r.bounces_before)::integer
                + (r.unsubscribed_count < r.unsubscribed_before)::integer
                + (r.interested_leads_count < r.interested_before)::integer
                + (r.total_leads_contacted_count < r.contacted_before)::integer
        END,
        -- greatest() passes over null: without a row before there is no difference.
        CASE WHEN z.is_whole THEN r.emails_sent_count ELSE greatest(r.emails_sent_count - r.sent_before, 0) END,
        CASE WHEN z.is_whole THEN r.total_replied_count ELSE greatest(r.total_replied_count - r.replies_before, 0) END,
        CASE
            WHEN z.is_whole THEN r.unique_replied_count
            ELSE greatest(r.unique_replied_count - r.unique_replies_before, 0)
        END,
        CASE WHEN z.is_whole THEN r.total_opened_count ELSE greatest(r.total_opened_count - r.opens_before, 0) END,
        CASE
            WHEN z.is_whole THEN r.unique_opened_count
            ELSE greatest(r.unique_opened_count - r.unique_opens_before, 0)
        END,
        CASE WHEN z.is_whole THEN r.bounced_count ELSE greatest(r.bounced_count - r.bounces_before, 0) END,
        CASE
            WHEN z.is_whole THEN r.unsubscribed_count
            ELSE greatest(r.unsubscribed_count - r.unsubscribed_before, 0)
        END,
        CASE
            WHEN z.is_whole THEN r.interested_leads_count
            ELSE greatest(r.interested_leads_count - r.interested_before, 0)
        END,
        CASE
            WHEN z.is_whole THEN r.total_leads_contacted_count
            ELSE greatest(r.total_leads_contacted_count - r.contacted_before, 0)
        END
    FROM (
        SELECT
            d.*,
            lag(d.snapshot_date) OVER account AS previous_date,
            lag(d.emails_sent_count) OVER account AS sent_before,
            lag(d.total_replied_count) OVER account AS replies_before,
            lag(d.unique_replied_count) OVER account AS unique_replies_before,
            lag(d.total_opened_count) OVER account AS opens_before,
            lag(d.unique_opened_count) OVER account AS unique_opens_before,
            lag(d.bounced_count) OVER account AS bounces_before,
            lag(d.unsubscribed_count) OVER account AS unsubscribed_before,
            lag(d.interested_leads_count) OVER account AS interested_before,
            lag(d.total_leads_contacted_count) OVER account AS contacted_before
        FROM public.sender_email_daily AS d
        WHERE d.snapshot_date >= from_date - 1 AND d.snapshot_date < to_date
        WINDOW account AS (
            -- The number first: it sorts faster than a name.
            PARTITION BY d.bison_account_id, d.bison_workspace_id, d.bison_instance
            ORDER BY d.snapshot_date
        )
    ) AS r
    CROSS JOIN LATERAL (
        SELECT
            r.previous_date IS NULL AND r.created_on IS NOT DISTINCT FROM r.snapshot_date AS is_new,
            coalesce(r.emails_sent_count < r.sent_before, false) AS is_reset,
            (r.previous_date IS NULL AND r.created_on IS NOT DISTINCT FROM r.snapshot_date)
            OR coalesce(r.emails_sent_count < r.sent_before, false) AS is_whole
    ) AS z
    WHERE r.snapshot_date >= from_date
$$;

COMMENT ON FUNCTION public.daily_differences(date, date) IS
    'What each account did on each of its recorded days in [from_date, to_date): the difference to its row before, if that is not older than the day before from_date; the whole counters if it was made on that day (is_new) or if its sent counter fell (is_reset); else 0. A counter that falls alone counts as 0 and is told in falling_counters. A difference belongs to the provider, reseller, domain and monthly price of its later day; across a gap previous_date is not the day before: such a row counts in the windows that begin after previous_date only if they hold the whole gap, that is previous_date >= first day - 1.';
