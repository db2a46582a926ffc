CREATE OR REPLACE FUNCTION bisonsync_private.provider_by_type(account_type text, mail_host text)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN left(account_type, 200) ~* 'google|gmail' THEN 'Google'
        WHEN left(account_type, 200) ~* 'microsoft|outlook' THEN 'Microsoft'
        WHEN right(mail_host, 255) ~* '(^|\.)(gmail|google|googlemail)\.com$' THEN 'Google'
        WHEN right(mail_host, 255) ~* '(^|\.)(outlook|office365|hotmail|live|microsoft)\.com$' THEN 'Microsoft'
        WHEN right(mail_host, 255) ~* '(^|\.)(yahoo|ymail|yahoodns)\.(com|net)$' THEN 'Yahoo'
        WHEN right(mail_host, 255) ~* '(^|\.)(icloud|me|mac)\.com$' THEN 'iCloud'
        WHEN right(mail_host, 255) ~* '(^|\.)aol\.com$' THEN 'AOL'
        ELSE 'Unknown'
    END
$$;

COMMENT ON FUNCTION bisonsync_private.provider_by_type(text, text) IS
    'Provider of a sender email that no tag tells: by its type, else by its mail host; Unknown where neither does.';
