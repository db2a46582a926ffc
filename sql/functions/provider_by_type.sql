CREATE OR REPLACE FUNCTION bisonsync_private.provider_by_type(account_type text, mail_host text)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN account_type ~* 'google|gmail' THEN 'Google'
        WHEN account_type ~* 'microsoft|outlook' THEN 'Microsoft'
        WHEN mail_host ~* '(^|\.)(gmail|google|googlemail)\.com$' THEN 'Google'
        WHEN mail_host ~* '(^|\.)(outlook|office365|hotmail|live|microsoft)\.com$' THEN 'Microsoft'
        WHEN mail_host ~* '(^|\.)(yahoo|ymail|yahoodns)\.(com|net)$' THEN 'Yahoo'
        WHEN mail_host ~* '(^|\.)(icloud|me|mac)\.com$' THEN 'iCloud'
        WHEN mail_host ~* '(^|\.)aol\.com$' THEN 'AOL'
        ELSE 'Unknown'
    END
$$;

COMMENT ON FUNCTION bisonsync_private.provider_by_type(text, text) IS
    'Provider of a sender email that no tag tells: by its type, else by its mail host; Unknown where neither does.';
