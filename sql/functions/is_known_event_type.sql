CREATE OR REPLACE FUNCTION bisonsync_private.is_known_event_type(event_type text)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT
        event_type IN (
            'email_sent', 'manual_email_sent', 'lead_first_contacted', 'lead_replied', 'lead_interested', 'lead_unsubscribed',
            'untracked_reply_received', 'email_opened', 'email_bounced', 'email_account_added', 'email_account_removed',
            'email_account_disconnected', 'email_account_reconnected', 'tag_attached', 'tag_removed'
        )
        OR event_type LIKE 'warmup\_%'
$$;

COMMENT ON FUNCTION bisonsync_private.is_known_event_type(text) IS
    'Whether the rules know what events of a type (in lower case) mean; others are stored as ignored.';
