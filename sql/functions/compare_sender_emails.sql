-- needs: provider_by_type, is_same_extra
CREATE OR REPLACE FUNCTION bisonsync_private.compare_sender_emails(
    p_instance text,
    p_workspace_id bigint,
    p_workspace_name text,
    p_rows json,
    p_read_started_at timestamptz,
    p_rules jsonb
)
RETURNS TABLE (
    action text,
    bison_account_id bigint,
    workspace_name text,
    email_address text,
    account_name text,
    domain text,
    emails_sent_count bigint,
    total_replied_count bigint,
    unique_replied_count bigint,
    total_opened_count bigint,
    unique_opened_count bigint,
    bounced_count bigint,
    unsubscribed_count bigint,
    interested_leads_count bigint,
    total_leads_contacted_count bigint,
    status text,
    status_as_of timestamptz,
    daily_limit bigint,
    warmup_enabled boolean,
    account_type text,
    email_provider text,
    reseller text,
    price numeric,
    volume_per_account numeric,
    tags jsonb,
    extra jsonb,
    bison_created_at timestamptz,
    old_extra jsonb,
    stored_as_of timestamptz,
    stored_removed_at timestamptz
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, public
AS $$
WITH fresh AS MATERIALIZED (
    -- Tags that the API left out are those that were known, and so is what could not be read.
    SELECT
        r.*,
        coalesce(r.tags, c.tags, '[]') AS all_tags,
        CASE WHEN 'type' = any(r.unread) THEN c.account_type ELSE r.type END AS account_type
    FROM json_to_recordset(p_rows) AS r (
        id bigint, email text, name text, domain text, mail_host text,
        emails_sent_count bigint, total_replied_count bigint, unique_replied_count bigint,
        total_opened_count bigint, unique_opened_count bigint, bounced_count bigint,
        unsubscribed_count bigint, interested_leads_count bigint, total_leads_contacted_count bigint,
        status text, has_status boolean, daily_limit bigint, warmup_enabled boolean, type text,
        tags jsonb, extra jsonb, created_at timestamptz, unread text[]
    )
    LEFT JOIN sender_emails_cache AS c
        ON c.bison_instance = p_instance AND c.bison_workspace_id = p_workspace_id AND c.bison_account_id = r.id
        AND (r.tags IS NULL OR r.unread IS NOT NULL)
),
-- Tags repeat: a few sets serve thousands of accounts, so each set is matched once.
tag_sets AS MATERIALIZED (
    SELECT
        s.tags,
        (
            SELECT rule.value ->> 'provider'
            FROM jsonb_array_elements(p_rules -> 'providers') WITH ORDINALITY AS rule (value, place)
            INNER JOIN jsonb_array_elements(s.tags) AS tag ON lower(tag ->> 'name') = lower(rule.value ->> 'tag')
            ORDER BY rule.place LIMIT 1
        ) AS provider,
        (
            SELECT rule.value ->> 'reseller'
            FROM jsonb_array_elements(p_rules -> 'resellers') WITH ORDINALITY AS rule (value, place)
            INNER JOIN jsonb_array_elements(s.tags) AS tag
                ON strpos(lower(tag ->> 'name'), lower(rule.value ->> 'substring')) > 0
            ORDER BY rule.place LIMIT 1
        ) AS reseller
    FROM (SELECT DISTINCT f.all_tags AS tags FROM fresh AS f) AS s
),
classified AS (
    SELECT
        f.*,
        s.reseller,
        coalesce(s.provider, bisonsync_private.provider_by_type(f.account_type, f.mail_host)) AS provider
    FROM fresh AS f
    INNER JOIN tag_sets AS s ON s.tags = f.all_tags
),
priced AS (
    SELECT
        f.*,
        coalesce(m.price, d.price) AS price,
        coalesce(m.volume_per_account, d.volume_per_account) AS volume_per_account
    FROM classified AS f
    LEFT JOIN email_account_metadata AS m ON m.bison_instance = p_instance AND m.email_address = f.email
    LEFT JOIN LATERAL (
        SELECT
            (rule.value ->> 'price')::numeric AS price,
            (rule.value ->> 'volume_per_account')::numeric AS volume_per_account
        FROM jsonb_array_elements(p_rules -> 'prices') WITH ORDINALITY AS rule (value, place)
        WHERE
            lower(coalesce(rule.value ->> 'provider', f.provider)) = lower(f.provider)
            AND lower(coalesce(rule.value ->> 'reseller', f.reseller, '')) = lower(coalesce(f.reseller, ''))
        ORDER BY rule.place LIMIT 1
    ) AS d ON true
),
-- A counter or status that the API left out keeps its stored value; a null status is one. A status that an event set after the read began stays.
merged AS (
    SELECT
        c.bison_account_id IS NULL AS is_new,
        c.removed_at,
        f.id AS bison_account_id,
        p_workspace_name AS workspace_name,
        f.email AS email_address,
        CASE WHEN 'name' = any(f.unread) THEN c.account_name ELSE f.name END AS account_name,
        f.domain,
        coalesce(f.emails_sent_count, c.emails_sent_count, 0) AS emails_sent_count,
        coalesce(f.total_replied_count, c.total_replied_count, 0) AS total_replied_count,
        coalesce(f.unique_replied_count, c.unique_replied_count, 0) AS unique_replied_count,
        coalesce(f.total_opened_count, c.total_opened_count, 0) AS total_opened_count,
        coalesce(f.unique_opened_count, c.unique_opened_count, 0) AS unique_opened_count,
        coalesce(f.bounced_count, c.bounced_count, 0) AS bounced_count,
        coalesce(f.unsubscribed_count, c.unsubscribed_count, 0) AS unsubscribed_count,
        coalesce(f.interested_leads_count, c.interested_leads_count, 0) AS interested_leads_count,
        coalesce(f.total_leads_contacted_count, c.total_leads_contacted_count, 0) AS total_leads_contacted_count,
        CASE
            WHEN greatest(c.status_as_of, c.event_applied_at) >= p_read_started_at OR NOT f.has_status THEN c.status
            ELSE f.status
        END AS status,
        c.status_as_of,
        c.event_applied_at,
        c.status AS stored_status,
        CASE WHEN 'daily_limit' = any(f.unread) THEN c.daily_limit ELSE f.daily_limit END AS daily_limit,
        CASE
            WHEN greatest(c.status_as_of, c.event_applied_at) >= p_read_started_at THEN c.warmup_enabled
            ELSE coalesce(f.warmup_enabled, c.warmup_enabled)
        END AS warmup_enabled,
        f.account_type,
        f.provider AS email_provider,
        f.reseller,
        f.price,
        f.volume_per_account,
        f.all_tags AS tags,
        -- What moves with any activity or with every read is, alone, no change.
        CASE
            WHEN c.extra = f.extra THEN c.extra
            WHEN c.extra IS NOT NULL AND bisonsync_private.is_same_extra(c.extra, f.extra, a.paths) THEN c.extra
            ELSE f.extra
        END AS extra,
        c.extra AS old_extra,
        coalesce(f.created_at, c.bison_created_at) AS bison_created_at,
        (
            c.workspace_name, c.email_address, c.account_name, c.domain,
            c.emails_sent_count, c.total_replied_count, c.unique_replied_count, c.total_opened_count,
            c.unique_opened_count, c.bounced_count, c.unsubscribed_count, c.interested_leads_count,
            c.total_leads_contacted_count, c.status, c.daily_limit, c.warmup_enabled, c.account_type,
            c.email_provider, c.reseller, c.price, c.volume_per_account, c.tags, c.bison_created_at
        ) AS stored
    FROM priced AS f
    CROSS JOIN (
        SELECT array(SELECT p.path FROM jsonb_array_elements_text(p_rules -> 'left_out') AS p (path)) AS paths
    ) AS a
    LEFT JOIN sender_emails_cache AS c
        ON c.bison_instance = p_instance AND c.bison_workspace_id = p_workspace_id AND c.bison_account_id = f.id
)

SELECT
    CASE
        WHEN m.is_new THEN 'insert'
        WHEN m.removed_at IS NOT NULL AND greatest(m.removed_at, m.event_applied_at) >= p_read_started_at THEN 'keep'
        WHEN m.removed_at IS NOT NULL THEN 'restore'
        WHEN m.stored IS DISTINCT FROM (
            m.workspace_name, m.email_address, m.account_name, m.domain,
            m.emails_sent_count, m.total_replied_count, m.unique_replied_count, m.total_opened_count,
            m.unique_opened_count, m.bounced_count, m.unsubscribed_count, m.interested_leads_count,
            m.total_leads_contacted_count, m.status, m.daily_limit, m.warmup_enabled, m.account_type,
            m.email_provider, m.reseller, m.price, m.volume_per_account, m.tags, m.bison_created_at
        ) THEN 'update'
        WHEN m.old_extra IS DISTINCT FROM m.extra THEN 'extra'
        ELSE 'keep'
    END,
    m.bison_account_id,
    m.workspace_name,
    m.email_address,
    m.account_name,
    m.domain,
    m.emails_sent_count,
    m.total_replied_count,
    m.unique_replied_count,
    m.total_opened_count,
    m.unique_opened_count,
    m.bounced_count,
    m.unsubscribed_count,
    m.interested_leads_count,
    m.total_leads_contacted_count,
    m.status,
    CASE WHEN m.is_new OR m.status IS DISTINCT FROM m.stored_status THEN p_read_started_at ELSE m.status_as_of END,
    m.daily_limit,
    m.warmup_enabled,
    m.account_type,
    m.email_provider,
    m.reseller,
    m.price,
    m.volume_per_account,
    m.tags,
    m.extra,
    m.bison_created_at,
    CASE WHEN m.old_extra IS DISTINCT FROM m.extra THEN m.old_extra END,
    greatest(m.status_as_of, m.event_applied_at),
    m.removed_at
FROM merged AS m
$$;

COMMENT ON FUNCTION bisonsync_private.compare_sender_emails IS
'What a fresh read of one workspace means for each account: insert, update, extra (an update of unknown fields alone), restore or keep, with the values it should have. Reads only.';
