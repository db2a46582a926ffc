CREATE OR REPLACE FUNCTION bisonsync_private.url_origin(told text)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT substring(u.url FROM '^https?://') || regexp_replace(
        substring(u.url FROM '^https?://(?:[^/?#@]*@)?(\[[0-9a-f:.]+\](?::\d+)?|[^/?#:@\s]+(?::\d+)?)'),
        CASE WHEN u.url LIKE 'https%' THEN ':443$' ELSE ':80$' END,
        ''
    )
    -- No address is longer, and a regular expression over megabytes would take its time.
    FROM (SELECT lower(btrim(left(told, 2000))) AS url OFFSET 0) AS u
$$;

COMMENT ON FUNCTION bisonsync_private.url_origin(text) IS
    'Scheme, host and port of an address in lower case, without the scheme''s own port; null for what is no http address.';
