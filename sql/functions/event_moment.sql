-- needs: parse_event_time
CREATE OR REPLACE FUNCTION bisonsync_private.event_moment(
    campaign_event jsonb,
    reply jsonb,
    scheduled_email jsonb,
    sender_email jsonb,
    wanted_rule text,
    received_at timestamptz
)
RETURNS TABLE (
    occurred_at timestamptz,
    occurred_rule text,
    is_sample boolean
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        CASE WHEN dated.is_future THEN received_at ELSE coalesce(dated.told_at, received_at) END,
        CASE WHEN dated.is_future OR dated.told_at IS NULL THEN 'received_at' ELSE dated.told_rule END,
        -- The vendor's published sample, which test calls send as well, is no event of anybody: these are its moments.
        coalesce(
            sender_email ->> 'created_at' = '2024-08-02T06:06:40.000000Z'
            AND (
                dated.sample_at IN (
                    '2024-08-02 06:06:40Z', '2024-08-02 06:08:38Z', '2024-08-02 06:09:35Z', '2024-08-03 10:00:05Z'
                )
                OR (wanted_rule = 'sender_email.id+updated_at' AND dated.sample_at < '2024-08-05 00:00Z')
            ),
            false
        )
    FROM (
        SELECT
            told.told_at,
            told.told_rule,
            told.sample_at,
            coalesce(told.told_at > received_at + interval '1 hour', false) AS is_future
        FROM (
            SELECT
                coalesce(
                    moments.campaign_event_at,
                    moments.reply_at,
                    moments.sent_at,
                    -- A mail moves its mailbox. What else happens to one may find it as it was for months.
                    CASE WHEN wanted_rule IN ('campaign_event.id', 'reply.id') THEN moments.moved_at END
                ) AS told_at,
                CASE
                    WHEN moments.campaign_event_at IS NOT NULL THEN 'campaign_event.created_at'
                    WHEN moments.reply_at IS NOT NULL THEN 'reply.created_at'
                    WHEN moments.sent_at IS NOT NULL THEN 'scheduled_email.sent_at'
                    ELSE 'sender_email.updated_at'
                END AS told_rule,
                coalesce(moments.campaign_event_at, moments.reply_at, moments.sent_at, moments.moved_at) AS sample_at
            FROM (
                SELECT
                    own.campaign_event_at,
                    own.reply_at,
                    CASE
                        WHEN coalesce(own.campaign_event_at, own.reply_at) IS NULL
                            THEN bisonsync_private.parse_event_time(scheduled_email ->> 'sent_at')
                    END AS sent_at,
                    CASE
                        WHEN coalesce(own.campaign_event_at, own.reply_at) IS NULL
                            THEN bisonsync_private.parse_event_time(sender_email ->> 'updated_at')
                    END AS moved_at
                FROM (
                    SELECT
                        bisonsync_private.parse_event_time(campaign_event ->> 'created_at') AS campaign_event_at,
                        bisonsync_private.parse_event_time(reply ->> 'created_at') AS reply_at
                    -- A fence: a moment is parsed once, though two others depend on it.
                    OFFSET 0
                ) AS own
                -- A fence: as above, for these four are named three times each.
                OFFSET 0
            ) AS moments
        ) AS told
        -- A fence: which moment counts is chosen once.
        OFFSET 0
    ) AS dated
    -- A fence: the caller names what is found here more than once.
    OFFSET 0
$$;

COMMENT ON FUNCTION bisonsync_private.event_moment(jsonb, jsonb, jsonb, jsonb, text, timestamptz) IS
    'When an event took place, by the first of its parts that tells (as identify_event finds them), and which that was; the moment of receipt for what tells none, or one in the future. is_sample: it bears the moments of the vendor''s published sample.';
